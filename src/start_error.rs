//! Everything that can be wrong at start: one sentence with cause and remedy, and an exit code.
//!
//! Invariants: a sentence fits one line, never contains a secret, and says what to do; what is
//! sorted under one exit code is one enum.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::Key;

/// Why the node does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartError {
    Setting(BadSetting),
    Network(BadNetwork),
    Rights(BadRights),
    Tls(BadTls),
}

impl StartError {
    /// The process's exit code, as documented by `--help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Setting(_) => 2,
            Self::Network(_) => 3,
            Self::Rights(_) => 4,
            Self::Tls(_) => 5,
        }
    }
}

/// The command line or the configuration is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadSetting {
    /// The file of the cluster's key cannot be read, or holds no key.
    ClusterKey { place: String, path: PathBuf, problem: String },
    /// Two settings that exclude or need each other.
    Contradiction { problem: String },
    /// `--cpus` names a CPU that this process may not run on.
    CpuForbidden { cpu: usize, allowed: String },
    /// The development app would be open to the network.
    DevelopmentExposed { protocol: &'static str, address: SocketAddr },
    /// The configuration file is not TOML.
    FileMalformed { path: PathBuf, line: usize, problem: String },
    /// The configuration file has a key that is no setting.
    FileUnknownKey { path: PathBuf, key: String },
    /// The configuration file cannot be opened.
    FileUnreadable { path: PathBuf, cause: String },
    /// A file that a setting asks for cannot be written.
    Unwritable { place: &'static str, path: PathBuf, cause: String },
    /// The command line cannot be read.
    Usage { problem: String },
    /// A setting's value makes no sense. `value` is `None` where it may be a secret.
    Value { place: String, value: Option<String>, expected: String },
}

/// Ports and addresses do not fit this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadNetwork {
    /// The address belongs to no interface.
    NotOurs(Listener),
    /// A media socket that was tried with success before is refused now.
    Media { cause: String },
    /// There is no address to offer to browsers.
    NothingToAdvertise,
    /// A port per shard does not fit below 65536.
    PortsOverflow { first: u16, shards: usize },
    /// A public address whose family has no local address to map to.
    PublicIpWithoutFamily { ip: IpAddr },
    /// Another socket holds the port.
    Taken(Listener),
    /// Some other refusal of the kernel to listen.
    Unlistenable { listener: Listener, cause: String },
}

/// The kernel does not let this process do what it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadRights {
    /// Some fact or facility of the machine is kept from us.
    Machine { what: &'static str, cause: String },
    /// The limit of locked memory is below what glommio demands.
    MemlockTooLow { bytes: u64, need: u64, shards: usize },
    /// io_uring cannot be used.
    NoRings(NoRings),
    /// `--packet-io ring` cannot be had.
    NoRingPort { cause: String },
    /// A port below 1024 without the right to it.
    PrivilegedPort(Listener),
}

/// Why the kernel gives us no io_uring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRings {
    /// Any other error number.
    Errno(i32),
    /// The kernel has no such call, or a filter pretends so.
    Missing,
    /// EPERM without that sysctl: a seccomp filter, as containers have.
    Seccomp,
    /// `kernel.io_uring_disabled` says so, with this value.
    Sysctl(u8),
}

/// The TLS certificate or key cannot be used; says which, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTls {
    pub problem: String,
}

/// A socket that should listen, and the setting that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    pub transport: Transport,
    pub address: SocketAddr,
    /// `--http`, `--https` or `--udp`.
    pub flag: &'static str,
}

/// A kind of listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

impl std::error::Error for StartError {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(error) => error.fmt(f),
            Self::Network(error) => error.fmt(f),
            Self::Rights(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterKey { place, path, problem } => {
                write!(f, "{place} names {}, which is no key file: {problem}", path.display())
            }
            Self::Contradiction { problem } => f.write_str(problem),
            Self::CpuForbidden { cpu, allowed } => write!(
                f,
                "--cpus names CPU {cpu} but this process may only run on {allowed}: \
                 choose from those, or widen its cpuset or taskset"
            ),
            Self::DevelopmentExposed { protocol, address } => write!(
                f,
                "{protocol} will not listen on {address} for the development app, whose secret is \
                 shown to everyone who opens the demo: give an app of your own with \
                 --app ID:SECRET, or listen on 127.0.0.1"
            ),
            Self::FileMalformed { path, line, problem } => {
                let problem = problem.replace('\n', ", ");
                let path = path.display();
                write!(f, "{path} is not valid TOML at line {line}: {problem}")
            }
            Self::FileUnknownKey { path, key } => {
                let known = Key::ALL.map(Key::name).join(", ");
                let (path, key) = (path.display(), key.escape_debug());
                write!(f, "{path} has the key `{key}`, which is none of: {known}")
            }
            Self::FileUnreadable { path, cause } => write!(
                f,
                "the configuration file {} cannot be read: {cause}; \
                 correct --config or SHARDCAST_CONFIG",
                path.display()
            ),
            Self::Unwritable { place, path, cause } => {
                write!(f, "{place} cannot write {}: {cause}", path.display())
            }
            Self::Usage { problem } => write!(f, "{problem}; see `shardcast --help`"),
            Self::Value { place, value: Some(value), expected } => {
                write!(f, "{place} is `{value}` but must be {expected}")
            }
            Self::Value { place, value: None, expected } => {
                write!(f, "{place} must be {expected}")
            }
        }
    }
}

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs(listener) => write!(
                f,
                "{listener} is no address of this machine: \
                 choose one that `ip address` lists, or all with 0.0.0.0 or [::]"
            ),
            Self::Media { cause } => write!(f, "media cannot be received: {cause}"),
            Self::NothingToAdvertise => f.write_str(
                "this machine has no address that browsers could reach: bring an interface up, \
                 or name an address with --public-ip or --udp",
            ),
            Self::PortsOverflow { first, shards } => write!(
                f,
                "{shards} shards with a port each do not fit from port {first} up to 65535: \
                 choose a lower --udp port, fewer --shards, or --udp-ports shared"
            ),
            Self::PublicIpWithoutFamily { ip } => {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                write!(
                    f,
                    "--public-ip {ip} has no {family} socket or address to lead to here: \
                     leave it out, or give the machine and --udp an {family} address"
                )
            }
            Self::Taken(listener) => write!(
                f,
                "{listener} is taken, perhaps by another shardcast: \
                 see who holds it with `{}`, or choose another port",
                listener.transport.listing()
            ),
            Self::Unlistenable { listener, cause } => write!(
                f,
                "{listener} cannot be listened on ({cause}): choose another address or port"
            ),
        }
    }
}

impl fmt::Display for BadRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine { what, cause } => write!(
                f,
                "the kernel does not let this process {what} ({cause}): look for a sandbox or a \
                 limit around it"
            ),
            Self::MemlockTooLow { bytes, need, shards } => {
                let (allowed, need) = (bytes / 1024, need.div_ceil(1024));
                write!(
                    f,
                    "{shards} shards lock {need} KiB of memory for io_uring and {allowed} are \
                     allowed: raise it with `ulimit -l`, systemd's `LimitMEMLOCK=`, or \
                     `docker run --ulimit memlock=`, or start fewer with --shards"
                )
            }
            Self::NoRingPort { cause } => {
                write!(f, "--packet-io ring cannot be had ({cause}): use --packet-io auto or mmsg")
            }
            Self::NoRings(why) => why.fmt(f),
            Self::PrivilegedPort(listener) => write!(
                f,
                "{listener} is a port below 1024, which takes a right: \
                 grant it with `setcap cap_net_bind_service=+ep` on the program or systemd's \
                 `AmbientCapabilities=CAP_NET_BIND_SERVICE`, or choose a port from 1024 up"
            ),
        }
    }
}

impl fmt::Display for NoRings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(number) => write!(
                f,
                "io_uring cannot be set up ({}): look for memory and file limits of this process",
                io::Error::from_raw_os_error(*number)
            ),
            Self::Missing => f.write_str(
                "io_uring is missing from this kernel or hidden by a sandbox: use Linux 5.8 or \
                 newer, and in a container `--security-opt seccomp=unconfined` or a profile that \
                 allows io_uring_setup, io_uring_enter and io_uring_register",
            ),
            Self::Seccomp => f.write_str(
                "io_uring is forbidden to this process, most likely by its container's seccomp \
                 profile: run it with `docker run --security-opt seccomp=unconfined`, or with a \
                 profile that allows io_uring_setup, io_uring_enter and io_uring_register",
            ),
            Self::Sysctl(value) => write!(
                f,
                "io_uring is switched off on this machine (kernel.io_uring_disabled = {value}): \
                 switch it on with `sysctl -w kernel.io_uring_disabled=0`"
            ),
        }
    }
}

impl fmt::Display for BadTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        };
        write!(f, "{transport} {} ({})", self.address, self.flag)
    }
}

impl Transport {
    fn listing(self) -> &'static str {
        match self {
            Self::Tcp => "ss -lntp",
            Self::Udp => "ss -lnup",
        }
    }
}

impl From<BadSetting> for StartError {
    fn from(error: BadSetting) -> Self {
        Self::Setting(error)
    }
}

impl From<BadNetwork> for StartError {
    fn from(error: BadNetwork) -> Self {
        Self::Network(error)
    }
}

impl From<BadRights> for StartError {
    fn from(error: BadRights) -> Self {
        Self::Rights(error)
    }
}

impl From<BadTls> for StartError {
    fn from(error: BadTls) -> Self {
        Self::Tls(error)
    }
}
