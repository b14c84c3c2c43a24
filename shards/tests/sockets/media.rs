//! Media from a publisher on one shard to a subscriber on another, however the shards share
//! the network.

use shards::io::port::PortKind;
use shards::io::steer::Kind;
use shards::wake::{LONGEST_FIXED, WakeDelay};
use str0m::media::MediaKind;

use crate::client::Stamp;
use crate::node::{Layout, Node};
use crate::on_both_ports;
use crate::peer::{Stage, consecutive};

pub(crate) const BOTH: [(&str, MediaKind); 2] =
    [("mic", MediaKind::Audio), ("cam", MediaKind::Video)];

on_both_ports! {
    what_is_pushed_on_one_shard_is_pulled_on_another_with_a_port_for_each
    on_a_shared_port_the_kernel_soon_steers_without_strays
    media_goes_on_when_a_client_changes_its_address
    on_a_shared_port_media_goes_on_when_a_client_changes_its_address
    shards_that_always_wait_for_more_lose_nothing
}

fn shards_that_always_wait_for_more_lose_nothing(kind: PortKind) {
    let delay = WakeDelay::Fixed(LONGEST_FIXED);
    let node = Node::start_moderated(2, Layout::PerShard, kind, delay);
    let mut stage = Stage { node, peers: Vec::new() };
    let (_, session) = stage.publisher(0, &BOTH);
    let (viewer, _) = stage.viewer(1, session, &["mic", "cam"]);
    stage.watch(viewer, &[1, 2], 60);
    assert_content(&stage, viewer);
}

fn what_is_pushed_on_one_shard_is_pulled_on_another_with_a_port_for_each(kind: PortKind) {
    let mut stage = Stage::new(Layout::PerShard, kind);
    let (_, session) = stage.publisher(0, &BOTH);
    let (viewer, _) = stage.viewer(1, session, &["mic", "cam"]);
    stage.watch(viewer, &[1, 2], 60);
    assert_content(&stage, viewer);
    for shard in 0..2 {
        let counted = stage.node.read(shard);
        assert_eq!(counted.meters.strays_sent, 0, "every datagram came to its shard");
        assert_eq!(counted.meters.faults, Default::default());
        assert_eq!(counted.port.drops_out.total(), 0);
    }
    assert!(stage.node.read(0).meters.packets_in >= 120);
    assert!(stage.node.read(1).meters.packets_out >= 120);
}

fn on_a_shared_port_the_kernel_soon_steers_without_strays(kind: PortKind) {
    let mut stage = Stage::new(Layout::Shared(Kind::EBpf), kind);
    let (_, session) = stage.publisher(0, &BOTH);
    let (viewer, _) = stage.viewer(1, session, &["mic", "cam"]);
    stage.watch(viewer, &[1, 2], 20);
    let strays = |stage: &Stage| -> Vec<u64> {
        (0..2).map(|shard| stage.node.read(shard).meters.strays_sent).collect()
    };
    let early = strays(&stage);
    stage.watch(viewer, &[1, 2], 60);
    assert_content(&stage, viewer);
    if stage.node.steering == Some(Kind::EBpf) {
        assert!(early.iter().sum::<u64>() <= 8, "{early:?} strays while it learnt");
        assert_eq!(strays(&stage), early, "and none afterwards");
    }
}

fn media_goes_on_when_a_client_changes_its_address(kind: PortKind) {
    assert_survives_rebinding(Stage::new(Layout::PerShard, kind));
}

fn on_a_shared_port_media_goes_on_when_a_client_changes_its_address(kind: PortKind) {
    assert_survives_rebinding(Stage::new(Layout::Shared(Kind::EBpf), kind));
}

fn assert_survives_rebinding(mut stage: Stage) {
    let (publisher, session) = stage.publisher(0, &BOTH);
    let (viewer, _) = stage.viewer(1, session, &["mic", "cam"]);
    stage.watch(viewer, &[1, 2], 20);
    for peer in [viewer, publisher] {
        let (old, new) = stage.peers[peer].rebind();
        assert_ne!(old, new);
        stage.watch(viewer, &[1, 2], 40);
    }
    // Without the rights for eBPF the kernel knows ufrags, not addresses: strays go on.
    if matches!(stage.node.steering, Some(Kind::CBpf | Kind::Hash)) {
        return;
    }
    let strays: u64 = (0..2).map(|shard| stage.node.read(shard).meters.strays_sent).sum();
    stage.watch(viewer, &[1, 2], 20);
    let later: u64 = (0..2).map(|shard| stage.node.read(shard).meters.strays_sent).sum();
    assert_eq!(strays, later, "the new addresses are steered like the old ones");
}

/// What arrived is what was sent: bytes, order, payload types, no gap since the first packet.
pub(crate) fn assert_content(stage: &Stage, viewer: usize) {
    let client = &stage.peers[viewer].client;
    for track in [1, 2] {
        let packets = client.track(track);
        let numbers = client.numbers(track);
        assert!(consecutive(&numbers), "track {track}: {numbers:?}");
        let seqs: Vec<u64> = packets.iter().map(|got| got.seq).collect();
        assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
        for got in &packets {
            // What `Client::send` fills frames with.
            let from = if track == 2 { 5 } else { 0 };
            let filling = &got.payload[from..got.payload.len() - Stamp::LEN];
            assert!(filling.iter().all(|&byte| byte == 0xaa), "a frame was changed on its way");
            assert_eq!(got.payload.len(), 300);
        }
    }
    assert!(client.track(2)[0].is_keyframe(), "video begins with a keyframe");
}
