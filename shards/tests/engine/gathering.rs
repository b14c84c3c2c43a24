//! What the engine tells of frames whose rest has not come, for the decision to wait for it.

use std::net::SocketAddr;

use shards::media::rtp::{Kind, kind};
use shards::wake::Unfinished;
use str0m::media::MediaKind;

use crate::client::Packet;
use crate::world::{World, secs, shard_address};

/// A frame of two packets, as datagrams.
fn frame(world: &mut World, client: usize, mid: &str) -> Vec<(SocketAddr, Vec<u8>)> {
    let now = world.now;
    let client = &mut world.clients[client];
    let payload_type = client.payload_type(MediaKind::Video);
    for last in [false, true] {
        let payload = vec![0x10; 1000];
        let packet = Packet { timestamp: 1_000_000_000, marker: last, payload, descriptor: None };
        client.write(mid, payload_type, &packet, now);
    }
    let from = client.external;
    let sent = std::mem::take(&mut client.outgoing).into_iter();
    sent.filter(|(_, bytes)| kind(bytes) == Kind::Rtp).map(|(_, bytes)| (from, bytes)).collect()
}

#[test]
fn only_more_of_the_frame_waited_for_makes_it_go_on() {
    let mut world = World::new(1);
    let (one, first, mids) = world.publisher(0, &[("cam", MediaKind::Video)]);
    let (other, second, other_mids) = world.publisher(0, &[("cam", MediaKind::Video)]);
    for _ in 0..2 {
        world.viewer(0, &[(first, "cam")]);
    }
    world.viewer(0, &[(second, "cam")]);
    world.run(secs(1));
    world.flows.clear();
    world.run(secs(1));
    let mut ones = frame(&mut world, one, &mids[0]).into_iter();
    let mut others = frame(&mut world, other, &other_mids[0]).into_iter();
    let arrive = |world: &mut World, datagram: Option<(SocketAddr, Vec<u8>)>| {
        let (from, mut bytes) = datagram.unwrap();
        world.deliver(from, shard_address(0), &mut bytes);
        world.engines[0].unfinished()
    };
    let told = |copies, went_on| Unfinished { copies, went_on };
    assert_eq!(arrive(&mut world, ones.next()), told(2, 0));
    assert_eq!(arrive(&mut world, others.next()), told(3, 0), "not what was waited for");
    assert_eq!(arrive(&mut world, ones.next()), told(1, 2), "two copies are complete");
    assert_eq!(arrive(&mut world, others.next()), told(0, 1));
    world.settle();
    assert_eq!(world.engines[0].unfinished(), told(0, 0), "another turn");
}
