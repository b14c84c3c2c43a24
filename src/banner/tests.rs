//! The banner, as a person sees it.

use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::*;
use crate::apps;
use crate::config::Said;
use crate::cores::assign;
use crate::plan::{Https, Udp};
use crate::tls;

fn same(ip: &str) -> Advertised {
    Advertised { public: ip.parse().unwrap(), local: ip.parse().unwrap() }
}

fn development() -> Plan {
    Plan {
        http: Some("127.0.0.1:8080".parse().unwrap()),
        https: None,
        admin: None,
        apps: vec![apps::development(&[0x5a; 48])],
        development: true,
        udp: Udp { port: 3478, v4: Some(Ipv4Addr::UNSPECIFIED), v6: None },
        udp_ports: UdpPorts::Auto,
        addresses: ["192.0.2.2", "127.0.0.1", "fd00::2", "::1"].map(same).to_vec(),
        pins: assign(2, &[0, 1]),
        packet_io: PacketIo::Auto,
        wake_delay: shards::wake::WakeDelay::Auto,
        record_sends: None,
        log: LevelFilter::INFO,
        drain: Duration::from_secs(5),
        cluster: None,
        warnings: Vec::new(),
    }
}

fn production() -> Plan {
    let texts = ["prod:0123456789abcdef", "staging:0123456789abcdef"].map(str::to_owned).to_vec();
    let public = "203.0.113.7".parse().unwrap();
    Plan {
        https: Some(Https {
            listen: "[::]:443".parse().unwrap(),
            identity: tls::self_signed(&[]).unwrap(),
        }),
        apps: apps::configured(&Said { texts, place: String::new() }).unwrap(),
        development: false,
        addresses: vec![Advertised { public, local: "10.0.0.5".parse().unwrap() }],
        pins: assign(4, &[0, 1, 2, 6]),
        ..development()
    }
}

#[test]
fn the_development_banner_has_all_it_takes_to_try_it() {
    let found = InForce { steering: Steering::Exact, packets: Packets::Ring, gso: true, gro: true };
    let expected = "
  shardcast VERSION

  Demo      http://127.0.0.1:8080/
  API       http://127.0.0.1:8080/v1/apps/5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a
  App       5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a
  Secret    5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a
            made up for this start, for this machine only; see --app
  Media     udp 3478
            192.0.2.2  127.0.0.1  fd00::2  ::1
  Shards    2 on CPUs 0-1
  Steering  one port, eBPF knows every peer's shard
  Packets   io_uring, GSO, GRO

  Ctrl-C ends it within 5 s, a second one at once.

";
    let expected = expected.replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&development(), Some(&found), false), expected);
}

#[test]
fn the_production_banner_shows_no_secret() {
    let found =
        InForce { steering: Steering::PortPerShard, packets: Packets::Mmsg, gso: true, gro: false };
    let expected = "
  shardcast VERSION

  Demo      https://203.0.113.7/
  API       https://203.0.113.7/v1/apps/<app>
  Listens   https [::]:443 (self-signed), http 127.0.0.1:8080
  Apps      prod, staging
  Media     udp 3478-3481
            203.0.113.7 (10.0.0.5 here)
  Shards    4 on CPUs 0-2,6
  Steering  a port per shard
  Packets   recvmmsg/sendmmsg, GSO, no GRO

  Ctrl-C ends it within 5 s, a second one at once.

";
    let expected = expected.replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&production(), Some(&found), false), expected);
}

#[test]
fn a_node_of_a_cluster_says_where_it_is_and_looks() {
    let line =
        relay::keys::generate(&zeroize::Zeroizing::new(std::array::from_fn(|at| at as u8 * 7)));
    let secret = &line.trim()[line.trim().len() - 64..];
    let cluster = |seeds: &[&str]| crate::plan::Cluster {
        keys: relay::keys::ClusterKeys::parse(&line).unwrap(),
        address: "192.0.2.2:7000".parse().unwrap(),
        seeds: seeds.iter().map(|&seed| seed.to_owned()).collect(),
    };
    for (seeds, says) in [
        (&[][..], "waits to be found"),
        (&["nodes:7000"], "looks at nodes:7000"),
        (&["192.0.2.3:7000", "192.0.2.4:7000"], "looks at 192.0.2.3:7000 and 1 more"),
    ] {
        let plan = Plan { cluster: Some(cluster(seeds)), ..production() };
        let shown = text(&plan, None, false);
        assert!(shown.contains(&format!("  Cluster   udp 192.0.2.2:7000, {says}\n")), "{shown}");
        assert!(!shown.contains(secret));
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let mut coloured = text(&development(), None, true);
    assert!(coloured.contains("\x1b[36mhttp://127.0.0.1:8080/\x1b[0m"));
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m"] {
        coloured = coloured.replace(code, "");
    }
    assert_eq!(coloured, text(&development(), None, false));
}

#[test]
fn lines_fit_a_terminal() {
    let long = ["2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"; 3].map(same).to_vec();
    for plan in [development(), production(), Plan { addresses: long, ..development() }] {
        for line in text(&plan, None, false).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
