//! What a person sees when the node is up.
//!
//! Invariants: the secret of a configured app is never shown; colour only on a terminal, and not
//! where `NO_COLOR` is set (no-color.org).

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::addresses::Advertised;
use crate::cores::show_cpus;
use crate::plan::{PacketIo, Plan, UdpPorts};

/// What the shards found to work: how the plan's `auto`s turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    pub steering: Steering,
    pub packets: Packets,
    pub gso: bool,
    pub gro: bool,
}

/// How datagrams find their shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// One port; an eBPF map knows the owner of every peer.
    Exact,
    /// One port; a classic filter knows the owner of first STUN requests, the rest is handed on.
    FirstContact,
    /// A port for each shard.
    PortPerShard,
}

/// The packet port in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packets {
    Mmsg,
    Ring,
}

/// Shows the banner on stdout.
pub fn show(plan: &Plan, in_force: Option<&InForce>) {
    let mut stdout = std::io::stdout().lock();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A closed stdout is no reason not to serve.
    let _ = stdout.write_all(text(plan, in_force, colour).as_bytes());
    let _ = stdout.flush();
}

fn text(plan: &Plan, in_force: Option<&InForce>, colour: bool) -> String {
    let paint = Paint { colour };
    let mut out = format!("\n  {} {}\n\n", paint.bold("shardcast"), env!("CARGO_PKG_VERSION"));
    for (label, value) in api_lines(plan, &paint).into_iter().chain(media_lines(plan, in_force)) {
        // A write into a String does not fail.
        let _ = writeln!(out, "  {}  {value}", paint.dim(&format!("{label:<8}")));
    }
    let seconds = plan.drain.as_secs();
    let farewell = format!("Ctrl-C ends it within {seconds} s, a second one at once.");
    let _ = writeln!(out, "\n  {}\n", paint.dim(&farewell));
    out
}

fn api_lines(plan: &Plan, paint: &Paint) -> Vec<(&'static str, String)> {
    let base = base_url(plan);
    let app = match plan.apps.as_slice() {
        [only] => only.id.clone(),
        _ => "<app>".to_owned(),
    };
    let mut lines = vec![
        ("Demo", paint.link(&format!("{base}/"))),
        ("API", paint.link(&format!("{base}/v1/apps/{app}"))),
    ];
    if plan.https.is_some() {
        lines.push(("Listens", listening(plan)));
    }
    if plan.development {
        for app in &plan.apps {
            lines.push(("App", app.id.clone()));
            lines.push(("Secret", app.secret.expose().to_owned()));
        }
        lines.push(("", paint.dim("made up for this start, for this machine only; see --app")));
    } else {
        let shown: Vec<&str> = plan.apps.iter().take(APPS_SHOWN).map(|app| &*app.id).collect();
        let rest = plan.apps.len().saturating_sub(APPS_SHOWN);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let label = if plan.apps.len() == 1 { "App" } else { "Apps" };
        lines.push((label, format!("{}{more}", shown.join(", "))));
    }
    lines
}

fn media_lines(plan: &Plan, in_force: Option<&InForce>) -> Vec<(&'static str, String)> {
    let last = usize::from(plan.udp.port) + plan.pins.len() - 1;
    let per_shard = match in_force {
        Some(found) => found.steering == Steering::PortPerShard,
        None => plan.udp_ports == UdpPorts::PerShard,
    };
    let ports = if per_shard && plan.pins.len() > 1 {
        format!("{}-{last}", plan.udp.port)
    } else {
        plan.udp.port.to_string()
    };
    let places: Vec<String> = plan.addresses.iter().map(place).collect();
    let mut cpus: Vec<usize> = plan.pins.iter().map(|pin| pin.cpu).collect();
    cpus.sort_unstable();
    cpus.dedup();
    let on = if cpus.len() == 1 { "CPU" } else { "CPUs" };
    let mut lines = vec![("Media", format!("udp {ports}"))];
    lines.extend(folded(&places).into_iter().map(|line| ("", line)));
    lines.push(("Shards", format!("{} on {on} {}", plan.pins.len(), show_cpus(&cpus))));
    lines.push(("Steering", steering(plan, in_force).to_owned()));
    lines.push(("Packets", packets(plan, in_force)));
    if let Some(cluster) = &plan.cluster {
        lines.push(("Cluster", format!("udp {}, {}", cluster.address, sought(&cluster.seeds))));
    }
    lines
}

/// Where other nodes are sought.
fn sought(seeds: &[String]) -> String {
    match seeds {
        [] => "waits to be found".to_owned(),
        [only] => format!("looks at {only}"),
        [first, rest @ ..] => format!("looks at {first} and {} more", rest.len()),
    }
}

fn place(address: &Advertised) -> String {
    if address.public == address.local {
        address.public.to_string()
    } else {
        format!("{} ({} here)", address.public, address.local)
    }
}

/// As many places on a line as fit a terminal.
fn folded(places: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for place in places {
        match lines.last_mut() {
            Some(line) if line.len() + place.len() + 2 <= PLACES_WIDTH => {
                line.push_str("  ");
                line.push_str(place);
            }
            _ => lines.push(place.clone()),
        }
    }
    lines
}

fn steering(plan: &Plan, in_force: Option<&InForce>) -> &'static str {
    match (in_force.map(|found| found.steering), plan.udp_ports) {
        _ if plan.pins.len() == 1 => "none needed, one shard",
        (Some(Steering::Exact), _) => "one port, eBPF knows every peer's shard",
        (Some(Steering::FirstContact), _) => "one port, strays are handed on (no right to eBPF)",
        (Some(Steering::PortPerShard), _) | (None, UdpPorts::PerShard) => "a port per shard",
        (None, UdpPorts::Shared) => "one port",
        (None, UdpPorts::Auto) => "auto",
    }
}

fn packets(plan: &Plan, in_force: Option<&InForce>) -> String {
    let Some(found) = in_force else {
        let asked = match plan.packet_io {
            PacketIo::Auto => "auto",
            PacketIo::Mmsg => "recvmmsg/sendmmsg",
            PacketIo::Ring => "io_uring",
        };
        return asked.to_owned();
    };
    let port = match found.packets {
        Packets::Mmsg => "recvmmsg/sendmmsg",
        Packets::Ring => "io_uring",
    };
    let with = |name, on| format!("{}{name}", if on { "" } else { "no " });
    format!("{port}, {}, {}", with("GSO", found.gso), with("GRO", found.gro))
}

/// HTTPS where there is both: browsers give cameras only to secure pages.
fn base_url(plan: &Plan) -> String {
    let https = plan.https.as_ref().map(|https| ("https", 443, https.listen));
    let http = plan.http.map(|listen| ("http", 80, listen));
    let Some((scheme, usual, listen)) = https.or(http) else { return String::new() };
    let host = SocketAddr::new(reachable(listen.ip(), &plan.addresses), 0);
    let host = host.to_string();
    let host = host.trim_end_matches(":0");
    if listen.port() == usual {
        format!("{scheme}://{host}")
    } else {
        format!("{scheme}://{host}:{}", listen.port())
    }
}

/// An address to type for one that may be "all": `[::]` takes IPv4 as well.
fn reachable(listen: IpAddr, addresses: &[Advertised]) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    let fits = |address: &&Advertised| listen.is_ipv6() || address.public.is_ipv4();
    let found = addresses.iter().find(fits).map(|address| address.public);
    found.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn listening(plan: &Plan) -> String {
    let http = plan.http.map(|listen| format!("http {listen}"));
    let https = plan.https.as_ref().map(|https| {
        let warning = if https.identity.files.is_none() { " (self-signed)" } else { "" };
        format!("https {}{warning}", https.listen)
    });
    https.into_iter().chain(http).collect::<Vec<_>>().join(", ")
}

/// Escape codes, or none.
#[derive(Debug, Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn link(self, text: &str) -> String {
        self.paint("36", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// 80 columns less the label's.
const PLACES_WIDTH: usize = 68;
/// A house with many tenants wants to see that they are there, not each name.
const APPS_SHOWN: usize = 4;

#[cfg(test)]
mod tests;
