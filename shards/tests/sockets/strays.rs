//! Nothing depends on steering: media works when every single datagram reaches the shard that
//! it is not for.

use shards::io::port::PortKind;
use shards::io::steer::Kind;

use crate::media::{BOTH, assert_content};
use crate::node::Layout;
use crate::on_both_ports;
use crate::peer::Stage;

on_both_ports! {
    media_works_when_every_datagram_reaches_the_wrong_shard
    a_handshake_in_fragments_works_when_every_datagram_reaches_the_wrong_shard
    media_works_where_the_kernel_steers_by_hash
}

fn media_works_when_every_datagram_reaches_the_wrong_shard(kind: PortKind) {
    assert_all_stray(kind, false);
}

fn a_handshake_in_fragments_works_when_every_datagram_reaches_the_wrong_shard(kind: PortKind) {
    assert_all_stray(kind, true);
}

fn media_works_where_the_kernel_steers_by_hash(kind: PortKind) {
    let mut stage = Stage::new(Layout::Shared(Kind::Hash), kind);
    let (_, session) = stage.publisher(0, &BOTH);
    let viewers = [(); 4].map(|()| stage.viewer(1, session, &["mic", "cam"]).0);
    for viewer in viewers {
        stage.watch(viewer, &[1, 2], 30);
        assert_content(&stage, viewer);
    }
}

fn assert_all_stray(kind: PortKind, splits_hello: bool) {
    let mut stage = Stage::new(Layout::Reversed, kind);
    // Without the rights for eBPF the kernel steers by ufrag: every STUN check goes astray,
    // the rest as its hash falls.
    let all = stage.node.steering == Some(Kind::EBpf);
    let (publisher, session) = (stage.add_peer(), stage.create(0));
    stage.peers[publisher].splits_hello = splits_hello;
    stage.publish(publisher, session, &BOTH);
    assert_eq!(stage.peers[publisher].split > 0, splits_hello);
    let (viewer, _) = stage.viewer(1, session, &["mic", "cam"]);
    stage.watch(viewer, &[1, 2], 60);
    assert_content(&stage, viewer);
    let mut unknown = 0;
    for shard in 0..2 {
        let counted = stage.node.read(shard);
        let meters = &counted.meters;
        let faults = meters.faults.unknown_source;
        if all {
            assert_eq!(counted.port.datagrams_in, meters.strays_sent + faults, "shard {shard}");
        }
        let least = if all { 20 } else { 0 };
        assert!(meters.strays_sent > least && meters.strays_received > least, "{meters:?}");
        unknown += faults;
    }
    assert_eq!(unknown, 0, "datagrams that overtook the news of where they belong");
}
