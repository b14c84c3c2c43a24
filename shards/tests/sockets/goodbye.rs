//! How shards leave: every client is told.

use std::time::Duration;

use shards::io::clock;
use shards::io::port::PortKind;
use shards::io::steer::Kind;

use crate::media::BOTH;
use crate::node::Layout;
use crate::on_both_ports;
use crate::peer::Stage;

/// What a node that leaves gives itself, at most.
const DEADLINE: Duration = Duration::from_secs(2);

on_both_ports! {
    leaving_shards_say_goodbye_to_every_client
}

fn leaving_shards_say_goodbye_to_every_client(kind: PortKind) {
    for layout in [Layout::PerShard, Layout::Shared(Kind::EBpf)] {
        let mut stage = Stage::new(layout, kind);
        let (_, session) = stage.publisher(0, &BOTH);
        let viewers = [0, 1, 1].map(|shard| stage.viewer(shard, session, &["mic", "cam"]).0);
        for viewer in viewers {
            stage.watch(viewer, &[1, 2], 10);
        }
        let began = clock::now();
        stage.node.leave();
        stage.until("everybody hears goodbye", |stage| {
            stage.peers.iter().all(|peer| peer.client.closed)
        });
        stage.node.join();
        let took = clock::now() - began;
        assert!(took < DEADLINE, "leaving took {took:?}");
    }
}
