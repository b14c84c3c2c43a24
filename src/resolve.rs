//! From text to plan: parses settings, fills in defaults from the machine, and refuses what
//! contradicts itself.
//!
//! Invariants: nothing here opens a socket; the only files read are those of TLS and the cluster's
//! key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use shards::ids::ShardId;
use shards::wake::{LONGEST_FIXED, WakeDelay};
use tracing::level_filters::LevelFilter;

use crate::addresses::{self, Interface, PER_FAMILY, Wish};
use crate::apps::{self, App};
use crate::cluster;
use crate::config::{Key, Said, Settings};
use crate::cores::{self, Pin};
use crate::plan::{Https, PacketIo, Plan, Udp, UdpPorts};
use crate::start_error::{BadNetwork, BadRights, BadSetting, StartError};
use crate::tls;

/// What the plan depends on besides settings.
#[derive(Debug)]
pub struct Machine {
    /// The CPUs this process may run on, ascending.
    pub cpus: Vec<usize>,
    /// How many threads can run at once: less than `cpus` under a cgroup's CPU quota.
    pub parallelism: usize,
    pub interfaces: Vec<Interface>,
    /// Whether the kernel speaks IPv6.
    pub has_v6: bool,
    /// For the development app.
    pub random: [u8; 48],
}

impl Machine {
    /// Asks the kernel.
    pub fn read() -> Result<Self, StartError> {
        let cpus = cores::affinity()?;
        let mut random = [0; 48];
        getrandom::fill(&mut random).map_err(|error| BadRights::Machine {
            what: "read random bytes",
            cause: error.to_string(),
        })?;
        let v6 = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None);
        Ok(Self {
            parallelism: std::thread::available_parallelism().map_or(cpus.len(), usize::from),
            cpus,
            interfaces: addresses::interfaces()?,
            has_v6: v6.is_ok(),
            random,
        })
    }
}

/// Resolves `settings` on `machine`.
pub fn plan(settings: &Settings, machine: &Machine) -> Result<Plan, StartError> {
    let mut warnings = Vec::new();
    let (apps, development) = apps(settings, machine)?;
    let admin = settings.get(&Key::AdminSecret).map(apps::admin).transpose()?;
    let (http, https) = listeners(settings, development, &mut warnings)?;
    let udp = udp(settings, machine.has_v6)?;
    let udp_ports = parsed(settings, Key::UdpPorts, "auto, shared or per-shard", |text| {
        Some(match text {
            "auto" => UdpPorts::Auto,
            "per-shard" => UdpPorts::PerShard,
            "shared" => UdpPorts::Shared,
            _ => return None,
        })
    })?;
    let pins = pins(settings, machine, &mut warnings)?;
    let last = usize::from(udp.port) + pins.len() - 1;
    if udp_ports == Some(UdpPorts::PerShard) && last > usize::from(u16::MAX) {
        return Err(BadNetwork::PortsOverflow { first: udp.port, shards: pins.len() }.into());
    }
    let public_ips = public_ips(settings)?;
    let wish = Wish { v4: udp.v4, v6: udp.v6, public_ips: &public_ips, loopback: development };
    let (addresses, beyond) = addresses::advertised(&machine.interfaces, &wish)?;
    if beyond > 0 {
        warnings.push(format!(
            "{beyond} addresses of this machine are not advertised, because {PER_FAMILY} of a \
             family are the limit: choose with --udp or --public-ip"
        ));
    }
    let https = match https {
        Some(listen) => {
            let public: Vec<IpAddr> = addresses.iter().map(|address| address.public).collect();
            Some(Https { listen, identity: identity(settings, &public)? })
        }
        None => None,
    };
    let packet_io = parsed(settings, Key::PacketIo, "auto, ring or mmsg", |text| {
        Some(match text {
            "auto" => PacketIo::Auto,
            "mmsg" => PacketIo::Mmsg,
            "ring" => PacketIo::Ring,
            _ => return None,
        })
    })?;
    let cluster = cluster::plan(settings, development, &mut warnings)?;
    Ok(Plan {
        cluster,
        http,
        https,
        apps,
        admin,
        development,
        udp,
        udp_ports: udp_ports.unwrap_or(UdpPorts::Auto),
        addresses,
        pins,
        packet_io: packet_io.unwrap_or(PacketIo::Auto),
        wake_delay: wake_delay(settings)?,
        record_sends: settings.get(&Key::RecordSends).map(|said| said.texts[0].clone().into()),
        log: log_level(settings)?,
        drain: drain(settings)?,
        warnings,
    })
}

fn apps(settings: &Settings, machine: &Machine) -> Result<(Vec<App>, bool), StartError> {
    match settings.get(&Key::App) {
        Some(said) => Ok((apps::configured(said)?, false)),
        None => Ok((vec![apps::development(&machine.random)], true)),
    }
}

/// Where HTTP and HTTPS listen.
fn listeners(
    settings: &Settings,
    development: bool,
    warnings: &mut Vec<String>,
) -> Result<(Option<SocketAddr>, Option<SocketAddr>), StartError> {
    let expected = "an address and port such as 127.0.0.1:8080 or [::]:8080, or `off`";
    let read = |text: &str| if text == "off" { Some(None) } else { text.parse().ok().map(Some) };
    let http = parsed(settings, Key::Http, expected, read)?.unwrap_or(Some(DEFAULT_HTTP));
    let https = parsed(settings, Key::Https, expected, read)?.flatten();
    let tls = [Key::TlsCert, Key::TlsKey, Key::TlsSelfSigned]
        .into_iter()
        .filter_map(|key| settings.get(&key).map(|said| (key, said)))
        .find(|(key, said)| *key != Key::TlsSelfSigned || said.texts[0] != "false");
    match (http, https, tls) {
        (None, None, _) => {
            return contradiction(
                "neither HTTP nor HTTPS would listen: give --https, or leave out --http off",
            );
        }
        (_, None, Some((_, said))) => {
            let place = &said.place;
            return contradiction(&format!("{place} is for HTTPS, which is off: give --https"));
        }
        (_, Some(_), None) => {
            return contradiction(
                "--https needs a certificate: give --tls-cert and --tls-key, or --tls-self-signed",
            );
        }
        (Some(http), Some(https), _) if http == https && http.port() != 0 => {
            return contradiction(&format!(
                "--http and --https are both {http}: give them different ports, or --http off"
            ));
        }
        (Some(_), None, None) | (None | Some(_), Some(_), Some(_)) => {}
    }
    let both = [("HTTP", http), ("HTTPS", https)];
    for (protocol, address) in both.into_iter().filter_map(|(p, a)| Some((p, a?))) {
        if development && !address.ip().is_loopback() {
            return Err(BadSetting::DevelopmentExposed { protocol, address }.into());
        }
    }
    if http.is_some_and(|http| !http.ip().is_loopback()) {
        warnings.push(
            "app secrets reach --http in clear text: put a TLS proxy in front, or use --https"
                .to_owned(),
        );
    }
    Ok((http, https))
}

fn identity(settings: &Settings, public: &[IpAddr]) -> Result<tls::Identity, StartError> {
    let made_up = parsed(settings, Key::TlsSelfSigned, "true or false", |text| text.parse().ok())?;
    let file = |key| settings.get(&key).map(|said| Path::new(said.texts[0].as_str()));
    match (made_up.unwrap_or(false), file(Key::TlsCert), file(Key::TlsKey)) {
        (true, None, None) => tls::self_signed(public),
        (true, _, _) => contradiction(
            "a certificate is given and to be made up as well: leave out --tls-self-signed, or \
             --tls-cert and --tls-key",
        ),
        (false, Some(cert), Some(key)) => tls::from_files(cert, key),
        (false, _, _) => contradiction("--tls-cert and --tls-key go together: give both"),
    }
}

fn udp(settings: &Settings, has_v6: bool) -> Result<Udp, StartError> {
    let everywhere = |port| Udp {
        port,
        v4: Some(Ipv4Addr::UNSPECIFIED),
        v6: has_v6.then_some(Ipv6Addr::UNSPECIFIED),
    };
    let Some(said) = settings.get(&Key::Udp) else { return Ok(everywhere(DEFAULT_UDP_PORT)) };
    if let [text] = said.texts.as_slice()
        && let Some(port) = decimal(text).and_then(|port| u16::try_from(port).ok())
    {
        return Ok(everywhere(port));
    }
    let mut udp: Option<Udp> = None;
    for text in &said.texts {
        let expected = "a port, or an address with its port such as 192.0.2.7:3478";
        let address: SocketAddr = text.parse().map_err(|_| bad(said, text, expected))?;
        let all = udp.get_or_insert_with(|| Udp { port: address.port(), v4: None, v6: None });
        let twice = match address.ip() {
            IpAddr::V4(ip) => all.v4.replace(ip).is_some(),
            IpAddr::V6(ip) => all.v6.replace(ip).is_some(),
        };
        if twice || all.port != address.port() {
            return Err(bad(said, text, "one IPv4 and one IPv6 address at most, with one port"));
        }
    }
    Ok(udp.unwrap_or_else(|| everywhere(DEFAULT_UDP_PORT)))
}

fn public_ips(settings: &Settings) -> Result<Vec<IpAddr>, StartError> {
    let Some(said) = settings.get(&Key::PublicIp) else { return Ok(Vec::new()) };
    let mut ips = Vec::new();
    for text in &said.texts {
        let ip = text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast());
        let ip = ip.ok_or_else(|| bad(said, text, "an IPv4 or IPv6 address of one machine"))?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

fn pins(
    settings: &Settings,
    machine: &Machine,
    warnings: &mut Vec<String>,
) -> Result<Vec<Pin>, StartError> {
    let named = parsed(settings, Key::Cpus, "a list of CPUs such as 0-3,6", cores::parse_cpus)?;
    if let Some(cpus) = &named {
        cores::permitted(cpus, &machine.cpus)?;
    }
    let wanted = parsed(settings, Key::Shards, "a number from 1 to 255", |text| {
        decimal(text).filter(|n| (1..=ShardId::MAX_SHARDS).contains(n))
    })?;
    let (cpus, cores) = match &named {
        Some(cpus) => (cpus, cpus.len()),
        None => (&machine.cpus, machine.cpus.len().min(machine.parallelism)),
    };
    let shards = wanted.unwrap_or_else(|| cores.min(ShardId::MAX_SHARDS));
    if shards > cpus.len() {
        warnings.push(format!(
            "{shards} shards share {} CPUs and will wait for each other: one per CPU is best",
            cpus.len()
        ));
    }
    Ok(cores::assign(shards, cpus))
}

fn log_level(settings: &Settings) -> Result<LevelFilter, StartError> {
    // LevelFilter's own parser takes numbers and the empty text as well.
    let level = parsed(settings, Key::Log, "off, error, warn, info, debug or trace", |text| {
        Some(match text {
            "off" => LevelFilter::OFF,
            "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return None,
        })
    })?;
    Ok(level.unwrap_or(LevelFilter::INFO))
}

fn wake_delay(settings: &Settings) -> Result<WakeDelay, StartError> {
    let longest = LONGEST_FIXED.as_micros();
    let expected = format!("auto, off, or whole microseconds from 0 to {longest}");
    let delay = parsed(settings, Key::WakeDelay, &expected, |text| match text {
        "auto" => Some(WakeDelay::Auto),
        "off" => Some(WakeDelay::Off),
        micros => match decimal(micros)? as u64 {
            0 => Some(WakeDelay::Off),
            micros => Some(Duration::from_micros(micros))
                .filter(|delay| *delay <= LONGEST_FIXED)
                .map(WakeDelay::Fixed),
        },
    })?;
    Ok(delay.unwrap_or_default())
}

fn drain(settings: &Settings) -> Result<Duration, StartError> {
    let seconds = parsed(settings, Key::Drain, "whole seconds from 0 to 3600", |text| {
        decimal(text).filter(|seconds| *seconds <= 3600)
    })?;
    Ok(seconds.map_or(DEFAULT_DRAIN, |seconds| Duration::from_secs(seconds as u64)))
}

/// Reads a setting that takes one value.
pub(crate) fn parsed<T>(
    settings: &Settings,
    key: Key,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, StartError> {
    let Some(said) = settings.get(&key) else { return Ok(None) };
    let text = &said.texts[0];
    read(text).map(Some).ok_or_else(|| bad(said, text, expected))
}

pub(crate) fn bad(said: &Said, text: &str, expected: &str) -> StartError {
    let value = Some(text.escape_debug().to_string());
    BadSetting::Value { place: said.place.clone(), value, expected: expected.to_owned() }.into()
}

pub(crate) fn contradiction<T>(problem: &str) -> Result<T, StartError> {
    Err(BadSetting::Contradiction { problem: problem.to_owned() }.into())
}

/// Digits only: `parse` alone would take a sign.
fn decimal(text: &str) -> Option<usize> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// On this machine only, because the default app is the development app.
const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// STUN's own port, the likeliest one to be let through by other people's firewalls.
const DEFAULT_UDP_PORT: u16 = 3478;
/// Closing a session is one round trip. More would only help clients that are gone already, and
/// less than the 10 s that container runtimes wait before they kill.
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
