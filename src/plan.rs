//! The plan: what to run, resolved and checked. What [`crate::boot`] gets.
//!
//! Invariants: there is at least one app, one pin, one advertised address, and one of HTTP and
//! HTTPS; after [`crate::check::ports`] no port is 0.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use relay::keys::ClusterKeys;
use shards::wake::WakeDelay;
use tracing::level_filters::LevelFilter;

use crate::addresses::Advertised;
use crate::apps::{App, Secret};
use crate::cores::Pin;
use crate::tls::Identity;

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// Where the API listens in clear text.
    pub http: Option<SocketAddr>,
    /// Where the API listens with TLS.
    pub https: Option<Https>,
    /// Who may use the API; the index is the `AppId`.
    pub apps: Vec<App>,
    /// What the metrics are told for; without it, only to this machine.
    pub admin: Option<Secret>,
    /// Whether the only app was made up at this start; then nothing but loopback is listened on.
    pub development: bool,
    pub udp: Udp,
    pub udp_ports: UdpPorts,
    /// The addresses for ICE candidates; the port is the shard's.
    pub addresses: Vec<Advertised>,
    /// One per shard, in the order of shards.
    pub pins: Vec<Pin>,
    pub packet_io: PacketIo,
    pub wake_delay: WakeDelay,
    /// Where shards write down what they send: the number of the shard is appended.
    pub record_sends: Option<PathBuf>,
    /// How to take part in a cluster, if at all.
    pub cluster: Option<Cluster>,
    pub log: LevelFilter,
    /// How long sessions may take to leave.
    pub drain: Duration,
    /// What works but may not be meant; each a sentence for the log.
    pub warnings: Vec<String>,
}

/// The API with TLS.
#[derive(Debug)]
pub struct Https {
    pub listen: SocketAddr,
    pub identity: Identity,
}

/// A node's part in a cluster.
#[derive(Debug)]
pub struct Cluster {
    pub keys: ClusterKeys,
    /// Where others reach us: of this machine, no wildcard, no port 0.
    pub address: SocketAddr,
    /// `host:port` of where others may be.
    pub seeds: Vec<String>,
}

/// Where media arrives: a socket for each family that is there, all with the same port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// The port, or the first one when each shard has its own.
    pub port: u16,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Udp {
    /// The addresses of the `nth` port: 0 for a shared port, the shard's number otherwise.
    /// `None` where there is no such port.
    pub fn sockets(&self, nth: u16) -> Option<impl Iterator<Item = SocketAddr> + use<>> {
        let port = self.port.checked_add(nth)?;
        let families = [self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6)];
        Some(families.into_iter().flatten().map(move |ip| SocketAddr::new(ip, port)))
    }
}

/// How shards share the UDP ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpPorts {
    /// One port where the kernel can steer by eBPF, else one per shard.
    Auto,
    PerShard,
    Shared,
}

/// How datagrams reach the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketIo {
    /// `Ring` where the kernel has what it takes.
    Auto,
    Mmsg,
    Ring,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_the_next_port_of_each_family() {
        let udp =
            Udp { port: 65534, v4: Some(Ipv4Addr::UNSPECIFIED), v6: Some(Ipv6Addr::LOCALHOST) };
        let texts = |nth| {
            udp.sockets(nth).map(|all| all.map(|a| a.to_string()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(texts(0).unwrap(), "0.0.0.0:65534 [::1]:65534");
        assert_eq!(texts(1).unwrap(), "0.0.0.0:65535 [::1]:65535");
        assert_eq!(texts(2), None);
    }
}
