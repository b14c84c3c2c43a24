//! What a node tells of itself: every shard's counts by way of any of them, and a shard that
//! stalls.

use std::time::Duration;

use shards::io::port::PortKind;

use crate::media::BOTH;
use crate::node::Layout;
use crate::on_both_ports;
use crate::peer::{PATIENCE, Stage};

on_both_ports! {
    any_shard_tells_what_all_have_counted
    a_shard_that_stalls_is_left_out_until_it_goes_on
}

fn any_shard_tells_what_all_have_counted(kind: PortKind) {
    let mut stage = Stage::new(Layout::PerShard, kind);
    let (_, session) = stage.publisher(0, &BOTH);
    let (viewer, _) = stage.viewer(1, session, &["mic", "cam"]);
    stage.watch(viewer, &[1, 2], 40);
    for asked in 0..2 {
        let told = stage.node.survey(asked, PATIENCE);
        let [Some(first), Some(second)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((first.holdings.sessions, second.holdings.sessions), (1, 1));
        assert_eq!((first.holdings.pulls, second.holdings.pulls), (0, 2));
        assert_eq!((first.holdings.tracks, second.holdings.tracks), (2, 2), "and their mirrors");
        assert!(first.meters.packets_in >= 80 && first.meters.packets_out == 0);
        assert!(second.meters.packets_out >= 80 && second.meters.packets_in == 0);
        for shard in [first, second] {
            let (pulse, port) = (&shard.pulse, &shard.port);
            assert_eq!(port.runs_out.iter().sum::<u64>(), port.messages_out);
            assert!(pulse.wakeups > 0 && shard.cpu > Duration::ZERO);
            // Media comes to the first in datagrams, and to the second by mail.
            assert!(pulse.turns.count() > 10 && pulse.turns.sum() > 0);
        }
        assert!(second.pulse.arrival_to_send.count() > 10, "what comes by mail is timed too");
    }
}

fn a_shard_that_stalls_is_left_out_until_it_goes_on(kind: PortKind) {
    let stage = Stage::new(Layout::PerShard, kind);
    let go_on = stage.node.stall(1);
    let told = stage.node.survey(0, Duration::from_secs(2));
    assert!(matches!(&told[..], [Some(_), None]), "{told:?}");
    drop(go_on);
    let told = stage.node.survey(0, PATIENCE);
    assert!(matches!(&told[..], [Some(_), Some(_)]), "{told:?}");
}
