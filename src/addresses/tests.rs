//! The policy, machine by machine.

use super::*;

fn on(name: &str, ip: &str) -> Interface {
    Interface { name: name.into(), ip: ip.parse().unwrap(), up: true, passing: false }
}

fn lo() -> Vec<Interface> {
    vec![on("lo", "127.0.0.1"), on("lo", "::1")]
}

fn machine(more: &[(&str, &str)]) -> Vec<Interface> {
    lo().into_iter().chain(more.iter().map(|(name, ip)| on(name, ip))).collect()
}

const EVERYWHERE: Wish<'_> = Wish {
    v4: Some(Ipv4Addr::UNSPECIFIED),
    v6: Some(Ipv6Addr::UNSPECIFIED),
    public_ips: &[],
    loopback: false,
};

fn show(interfaces: &[Interface], wish: &Wish<'_>) -> String {
    match advertised(interfaces, wish) {
        Ok((list, _)) => {
            let texts = list.iter().map(|a| {
                if a.public == a.local {
                    a.public.to_string()
                } else {
                    format!("{}={}", a.public, a.local)
                }
            });
            texts.collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_server_offers_its_interfaces_but_not_link_local_or_loopback() {
    let interfaces = machine(&[
        ("eth0", "198.51.100.7"),
        ("eth0", "2001:db8::7"),
        ("eth0", "fd00::7"),
        ("eth0", "fe80::1"),
        ("eth1", "169.254.3.4"),
        ("wg0", "10.8.0.1"),
    ]);
    assert_eq!(show(&interfaces, &EVERYWHERE), "198.51.100.7 10.8.0.1 2001:db8::7 fd00::7");
}

#[test]
fn the_development_app_offers_loopback_too() {
    let wish = Wish { loopback: true, ..EVERYWHERE };
    assert_eq!(show(&machine(&[("eth0", "10.0.0.5")]), &wish), "10.0.0.5 127.0.0.1 ::1");
    assert_eq!(show(&lo(), &wish), "127.0.0.1 ::1");
}

#[test]
fn container_bridges_are_offered_only_when_nothing_else_remains() {
    let bridges = [
        ("docker0", "172.17.0.1"),
        ("br-0123456789ab", "172.18.0.1"),
        ("veth1a2b", "10.1.0.1"),
        ("docker0", "fd17::1"),
    ];
    assert_eq!(
        show(&machine(&bridges), &EVERYWHERE),
        "172.17.0.1 172.18.0.1 10.1.0.1 fd17::1",
        "nothing else"
    );
    let mut all = bridges.to_vec();
    all.push(("eth0", "10.0.0.5"));
    assert_eq!(show(&machine(&all), &EVERYWHERE), "10.0.0.5", "v6 of docker0 is no better");
}

#[test]
fn bridges_that_carry_the_machines_own_address_are_offered() {
    let interfaces =
        machine(&[("br-lan", "192.168.1.1"), ("br-ex", "10.0.0.9"), ("br0", "10.2.0.1")]);
    assert_eq!(show(&interfaces, &EVERYWHERE), "192.168.1.1 10.0.0.9 10.2.0.1");
}

#[test]
fn a_namespace_with_only_a_veth_offers_it() {
    for name in ["ve0", "veth0"] {
        assert_eq!(show(&machine(&[(name, "10.79.0.1")]), &EVERYWHERE), "10.79.0.1", "{name}");
    }
}

#[test]
fn another_address_on_lo_is_an_address_like_any_other() {
    assert_eq!(show(&machine(&[("lo", "10.78.0.1")]), &EVERYWHERE), "10.78.0.1");
}

#[test]
fn interfaces_that_are_down_and_addresses_that_pass_are_left_out() {
    let mut interfaces =
        machine(&[("eth0", "10.0.0.5"), ("eth1", "10.0.1.5"), ("eth0", "2001:db8::bad")]);
    interfaces[3].up = false;
    interfaces[4].passing = true;
    assert_eq!(show(&interfaces, &EVERYWHERE), "10.0.0.5");
}

#[test]
fn a_public_address_replaces_its_family_and_knows_the_local_one() {
    let interfaces = machine(&[("eth0", "10.0.0.5"), ("eth0", "fd00::5")]);
    let public = ["203.0.113.7".parse().unwrap()];
    let wish = Wish { public_ips: &public, loopback: true, ..EVERYWHERE };
    assert_eq!(show(&interfaces, &wish), "203.0.113.7=10.0.0.5 fd00::5 ::1");
    assert_eq!(show(&machine(&[]), &wish), "203.0.113.7=127.0.0.1 ::1", "a tunnel to loopback");
}

#[test]
fn public_addresses_pair_with_local_ones_in_order() {
    let interfaces = machine(&[("eth0", "10.0.0.5"), ("eth1", "10.0.1.5")]);
    let public = ["203.0.113.7", "203.0.113.8", "203.0.113.9"].map(|ip| ip.parse().unwrap());
    let wish = Wish { public_ips: &public, ..EVERYWHERE };
    assert_eq!(
        show(&interfaces, &wish),
        "203.0.113.7=10.0.0.5 203.0.113.8=10.0.1.5 203.0.113.9=10.0.0.5"
    );
}

#[test]
fn a_public_address_without_its_family_is_refused() {
    let public = ["2001:db8::9".parse().unwrap()];
    let wish = Wish { v6: None, public_ips: &public, ..EVERYWHERE };
    assert_eq!(
        show(&machine(&[("eth0", "10.0.0.5")]), &wish),
        "--public-ip 2001:db8::9 has no IPv6 socket or address to lead to here: leave it out, or \
         give the machine and --udp an IPv6 address"
    );
}

#[test]
fn a_socket_bound_to_one_address_offers_exactly_that() {
    let interfaces = machine(&[("eth0", "10.0.0.5"), ("docker0", "172.17.0.1")]);
    for ip in ["172.17.0.1", "127.0.0.1"] {
        let wish = Wish { v4: ip.parse().ok(), v6: None, loopback: true, ..EVERYWHERE };
        assert_eq!(show(&interfaces, &wish), ip);
    }
}

#[test]
fn a_machine_without_addresses_is_told_what_to_do() {
    assert_eq!(
        show(&lo(), &EVERYWHERE),
        "this machine has no address that browsers could reach: bring an interface up, or name \
         an address with --public-ip or --udp"
    );
}

#[test]
fn candidates_are_bounded_and_unique_and_loopback_survives_the_cut() {
    let mut interfaces = lo();
    interfaces.extend((0..20).map(|n| on("eth0", &format!("10.0.0.{n}"))));
    interfaces.push(on("eth1", "10.0.0.1"));
    let (list, beyond) = advertised(&interfaces, &Wish { loopback: true, ..EVERYWHERE }).unwrap();
    assert_eq!(list.len(), PER_FAMILY + 1);
    assert_eq!(beyond, 20 + 1 - PER_FAMILY);
    assert_eq!(list[PER_FAMILY - 1].public.to_string(), "127.0.0.1");
}

#[test]
fn the_kernels_table_tells_which_v6_addresses_pass() {
    let table = "\
fe80000000000000fc0000fffe000001 02 40 20 80     eth0
20010db8000000000000000000000001 02 40 00 80     eth0
20010db8000000000000000000000002 02 40 00 01     eth0
20010db8000000000000000000000003 02 40 00 20     eth0
nonsense
";
    let passing: Vec<_> = passing_v6(table).iter().map(ToString::to_string).collect();
    assert_eq!(passing, ["2001:db8::2", "2001:db8::3"]);
}

#[test]
fn this_machine_has_interfaces() {
    assert!(!interfaces().unwrap().is_empty());
}
