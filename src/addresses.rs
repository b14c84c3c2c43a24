//! Which addresses are offered to browsers as ICE host candidates.
//!
//! The policy, for each family that the media sockets listen on:
//! - A socket bound to one address offers that address, whatever it is.
//! - A socket bound to all addresses offers those of interfaces that are up and have a carrier,
//!   but never link-local ones, nor IPv6 addresses that are about to go away (temporary,
//!   deprecated) or not yet there (tentative). Unique local IPv6 addresses are offered.
//! - Bridges and pairs of container runtimes (`docker0`, `veth…`, see [`VIRTUAL`]) are offered
//!   only when the machine has no other address.
//! - Loopback is offered only with the development app, and then as 127.0.0.1 and ::1. It is the
//!   address that counts: another address on the interface `lo` is an address like any other.
//! - `--public-ip` replaces all of the above for its family. The local address stays known,
//!   because what arrives for the public address arrives here under the local one.
//! - At most [`PER_FAMILY`] of each family: a browser pairs every candidate of ours with every
//!   one of its own, and paces its checks.
//!
//! Invariants: no address is offered twice; the order is that of the kernel, loopback last.
//!
//! Not here: learning of addresses that come and go while the node runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::start_error::{BadNetwork, BadRights, StartError};

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub ip: IpAddr,
    /// Up, with a carrier.
    pub up: bool,
    /// An IPv6 address that is temporary, deprecated, tentative or a duplicate.
    pub passing: bool,
}

/// An address offered to browsers, and the one its datagrams arrive under here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertised {
    pub public: IpAddr,
    pub local: IpAddr,
}

/// What the choice depends on besides the interfaces.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Where the IPv4 media socket is bound, if there is one.
    pub v4: Option<Ipv4Addr>,
    /// Where the IPv6 media socket is bound, if there is one.
    pub v6: Option<Ipv6Addr>,
    pub public_ips: &'a [IpAddr],
    /// Whether browsers on this machine are expected: the development app.
    pub loopback: bool,
}

/// Chooses the addresses to offer, and counts those beyond the bound.
pub fn advertised(
    interfaces: &[Interface],
    wish: &Wish<'_>,
) -> Result<(Vec<Advertised>, usize), StartError> {
    let mut chosen = Vec::new();
    let mut beyond = 0;
    let bound = [wish.v4.map(IpAddr::V4), wish.v6.map(IpAddr::V6)];
    for family in bound.into_iter().flatten() {
        let mut own = of_family(family, interfaces, wish)?;
        beyond += own.len().saturating_sub(PER_FAMILY);
        own.truncate(PER_FAMILY);
        chosen.append(&mut own);
    }
    let homeless =
        wish.public_ips.iter().find(|ip| !bound.iter().flatten().any(|b| same_family(b, ip)));
    if let Some(ip) = homeless {
        return Err(BadNetwork::PublicIpWithoutFamily { ip: *ip }.into());
    }
    if chosen.is_empty() {
        Err(BadNetwork::NothingToAdvertise.into())
    } else {
        Ok((chosen, beyond))
    }
}

/// At most this many candidates of each family, loopback included.
pub const PER_FAMILY: usize = 8;

/// How the names of interfaces begin that lead only to containers and virtual machines on this
/// machine. Networks made with `docker network create` are recognised apart: `br-` alone would
/// also be a router's `br-lan` or Open vSwitch's `br-ex`.
pub const VIRTUAL: [&str; 14] = [
    "cali", "cilium", "cni", "docker", "flannel", "kube-", "lxcbr", "lxdbr", "podman", "veth",
    "virbr", "vmnet", "vnet", "weave",
];

fn of_family(
    bound: IpAddr,
    interfaces: &[Interface],
    wish: &Wish<'_>,
) -> Result<Vec<Advertised>, StartError> {
    let everywhere = bound.is_unspecified();
    let locals = if everywhere { usable(bound, interfaces, wish) } else { vec![bound] };
    let loopbacks = if everywhere { loopback(bound, interfaces) } else { Vec::new() };
    let mut publics = wish.public_ips.iter().filter(|ip| same_family(ip, &bound)).peekable();
    if let Some(first) = publics.peek() {
        // As many public as local addresses are taken to be a list of pairs.
        let fallback = locals.iter().chain(&loopbacks).next().copied();
        let fallback = fallback.ok_or(BadNetwork::PublicIpWithoutFamily { ip: **first })?;
        let locals = locals.into_iter().chain(std::iter::repeat(fallback));
        let pairs = publics.zip(locals);
        return Ok(pairs.map(|(public, local)| Advertised { public: *public, local }).collect());
    }
    let offered_loopbacks = if wish.loopback { loopbacks } else { Vec::new() };
    let room = PER_FAMILY - offered_loopbacks.len();
    let (near, far) = locals.split_at(locals.len().min(room));
    // Loopback goes before what will be cut off, so that the development app always works.
    let order = near.iter().chain(&offered_loopbacks).chain(far);
    Ok(order.map(|ip| Advertised { public: *ip, local: *ip }).collect())
}

/// The addresses of `bound`'s family worth offering, real interfaces only if there is any.
fn usable(bound: IpAddr, interfaces: &[Interface], wish: &Wish<'_>) -> Vec<IpAddr> {
    let listening = |ip: &IpAddr| match ip {
        IpAddr::V4(_) => wish.v4.is_some(),
        IpAddr::V6(_) => wish.v6.is_some(),
    };
    let candidates = || {
        interfaces.iter().filter(|i| i.up && !i.passing && is_reachable(i.ip) && listening(&i.ip))
    };
    let any_real = candidates().any(|i| !is_virtual(&i.name));
    let mut ips: Vec<IpAddr> = Vec::new();
    for i in candidates().filter(|i| same_family(&i.ip, &bound)) {
        if (!any_real || !is_virtual(&i.name)) && !ips.contains(&i.ip) {
            ips.push(i.ip);
        }
    }
    ips
}

fn loopback(bound: IpAddr, interfaces: &[Interface]) -> Vec<IpAddr> {
    let ip = match bound {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let there = interfaces.iter().any(|i| i.up && i.ip == ip);
    there.then_some(ip).into_iter().collect()
}

fn same_family(a: &IpAddr, b: &IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !ip.is_unspecified()
                && !ip.is_loopback()
                && !ip.is_link_local()
                && !ip.is_multicast()
                && !ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            !ip.is_unspecified()
                && !ip.is_loopback()
                && !ip.is_unicast_link_local()
                && !ip.is_multicast()
                && ip.to_ipv4_mapped().is_none()
        }
    }
}

fn is_virtual(name: &str) -> bool {
    let docker_network = name
        .strip_prefix("br-")
        .is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    docker_network || VIRTUAL.iter().any(|prefix| name.starts_with(prefix))
}

/// The addresses of this machine, as the kernel lists them.
pub fn interfaces() -> Result<Vec<Interface>, StartError> {
    let list = getifaddrs().map_err(|errno| BadRights::Machine {
        what: "list its network interfaces",
        cause: errno.to_string(),
    })?;
    let passing = passing_v6(&std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default());
    Ok(list
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
            let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
            Some(Interface {
                passing: passing.iter().any(|v6| ip == IpAddr::V6(*v6)),
                name: entry.interface_name,
                ip,
                up: entry.flags.contains(up),
            })
        })
        .collect())
}

/// Reads `/proc/net/if_inet6`: address, index, prefix length, scope, flags (all hex), name.
fn passing_v6(table: &str) -> Vec<Ipv6Addr> {
    let passing = |line: &str| {
        let mut words = line.split_whitespace();
        let ip = u128::from_str_radix(words.next()?, 16).ok()?;
        let flags = u8::from_str_radix(words.nth(3)?, 16).ok()?;
        (flags & PASSING != 0).then(|| Ipv6Addr::from(ip))
    };
    table.lines().filter_map(passing).collect()
}

/// `IFA_F_TEMPORARY`, `IFA_F_DADFAILED`, `IFA_F_DEPRECATED` and `IFA_F_TENTATIVE`.
const PASSING: u8 = 0x01 | 0x08 | 0x20 | 0x40;

#[cfg(test)]
mod tests;
