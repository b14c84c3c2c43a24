//! Tries on this machine what the plan needs: limits, io_uring, ports.
//!
//! Invariants: a port that this module let pass was free for this process alone. Shards open
//! theirs with `SO_REUSEPORT`, which a second node of the same user would join silently and
//! take half of the datagrams; the trial here is without it.
//!
//! Not here: keeping the sockets. They are closed again, so another process may take a port
//! in between; the shards' own failure goes through [`refused`] to the same sentences.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use io_uring::IoUring;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::plan::{Plan, Udp, UdpPorts};
use crate::start_error::{BadNetwork, BadRights, Listener, NoRings, StartError, Transport};

/// Raises the soft limits of open files and locked memory, and checks the latter.
pub fn limits(shards: usize) -> Result<(), StartError> {
    raise(Resource::RLIMIT_NOFILE, ENOUGH_FILES);
    let need = MIN_MEMLOCK_BYTES.max(shards as u64 * SHARD_MEMLOCK_BYTES);
    match raise(Resource::RLIMIT_MEMLOCK, need.max(ENOUGH_MEMLOCK_BYTES)) {
        bytes if bytes < need => Err(BadRights::MemlockTooLow { bytes, need, shards }.into()),
        _ => Ok(()),
    }
}

/// Sets up and drops an io_uring.
pub fn rings() -> Result<(), StartError> {
    let Err(error) = IoUring::new(8) else { return Ok(()) };
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = sysctl.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Err(BadRights::NoRings(why_no_rings(error.raw_os_error().unwrap_or(0), disabled)).into())
}

/// Opens every port of `plan` once, all at the same time, and fills in ports that are 0.
pub fn ports(plan: &mut Plan) -> Result<(), StartError> {
    let mut held = Vec::new();
    let https = plan.https.as_mut().map(|https| &mut https.listen);
    for (flag, address) in [("--http", plan.http.as_mut()), ("--https", https)] {
        let Some(address) = address else { continue };
        let socket = open(Listener { transport: Transport::Tcp, address: *address, flag })?;
        address.set_port(port_of(&socket));
        held.push(socket);
    }
    if let Some(cluster) = &plan.cluster {
        let (transport, address) = (Transport::Udp, cluster.address);
        held.push(open(Listener { transport, address, flag: "--cluster" })?);
    }
    let count = match plan.udp_ports {
        UdpPorts::Auto | UdpPorts::Shared => 1,
        UdpPorts::PerShard => plan.pins.len(),
    };
    udp_ports(&mut plan.udp, count)
}

/// Opens `count` UDP ports from `udp.port` up. For the fallback of `--udp-ports auto`, whose need
/// of a port per shard shows only when steering is tried.
pub fn udp_ports(udp: &mut Udp, count: usize) -> Result<(), StartError> {
    if udp.port != 0 {
        return open_udp(udp, count);
    }
    let mut outcome = Ok(());
    for _ in 0..FREE_PORT_TRIALS {
        let first = udp.sockets(0).and_then(|mut sockets| sockets.next());
        let Some(first) = first else { return Ok(()) };
        let port = port_of(&open(udp_listener(first))?);
        let tried = Udp { port, ..*udp };
        outcome = open_udp(&tried, count);
        if outcome.is_ok() {
            *udp = tried;
            break;
        }
    }
    outcome
}

/// Why the kernel refused to listen, as a sentence.
pub fn refused(error: &io::Error, listener: Listener) -> StartError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => BadNetwork::Taken(listener).into(),
        Some(Errno::EADDRNOTAVAIL) => BadNetwork::NotOurs(listener).into(),
        Some(Errno::EACCES | Errno::EPERM) if listener.address.port() < 1024 => {
            BadRights::PrivilegedPort(listener).into()
        }
        _ => BadNetwork::Unlistenable { listener, cause: error.to_string() }.into(),
    }
}

/// All of them at once, or the first refusal.
fn open_udp(udp: &Udp, count: usize) -> Result<(), StartError> {
    let mut held = Vec::new();
    for nth in 0..count {
        let sockets = u16::try_from(nth).ok().and_then(|nth| udp.sockets(nth));
        let overflow = BadNetwork::PortsOverflow { first: udp.port, shards: count };
        for address in sockets.ok_or(overflow)? {
            held.push(open(udp_listener(address))?);
        }
    }
    Ok(())
}

fn udp_listener(address: SocketAddr) -> Listener {
    Listener { transport: Transport::Udp, address, flag: "--udp" }
}

fn open(listener: Listener) -> Result<Socket, StartError> {
    // The kernel keeps the sockets of a process that used io_uring for some 100 ms after its
    // end: who restarts a node must not be told that it still runs.
    let mut trials = TAKEN_TRIALS;
    loop {
        let opened = match listener.transport {
            Transport::Tcp => try_tcp(listener.address),
            Transport::Udp => try_udp(listener.address),
        };
        match opened {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && trials > 0 => {
                trials -= 1;
                std::thread::sleep(TAKEN_PAUSE);
            }
            other => return other.map_err(|error| refused(&error, listener)),
        }
    }
}

fn try_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a node that ended a moment ago do not count.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // Only listening keeps another socket with SO_REUSEADDR away.
    socket.listen(1)?;
    Ok(socket)
}

fn try_udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn port_of(socket: &Socket) -> u16 {
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    address.expect("a bound IP socket has an IP address").port()
}

/// Raises a soft limit to `enough` or as near as allowed; the limit in force afterwards.
fn raise(resource: Resource, enough: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(resource) else { return u64::MAX };
    if soft >= enough {
        return soft;
    }
    // The hard limit moves only with CAP_SYS_RESOURCE.
    for (soft, hard) in [(enough, hard.max(enough)), (hard.min(enough), hard)] {
        if setrlimit(resource, soft, hard).is_ok() {
            return soft;
        }
    }
    soft
}

fn why_no_rings(errno: i32, disabled: u8) -> NoRings {
    match Errno::from_raw(errno) {
        Errno::EPERM | Errno::EACCES if disabled > 0 => NoRings::Sysctl(disabled),
        Errno::EPERM | Errno::EACCES => NoRings::Seccomp,
        Errno::ENOSYS => NoRings::Missing,
        _ => NoRings::Errno(errno),
    }
}

/// What glommio demands of a process before it makes an executor.
const MIN_MEMLOCK_BYTES: u64 = 512 * 1024;
/// What the rings of one executor lock, found by trying: three shards fit in 512 KiB, four do
/// not. A packet ring of its own takes as much again, and is done without where it does not fit.
const SHARD_MEMLOCK_BYTES: u64 = 170 * 1024;
/// Enough for the registered buffers of 255 shards. Less works: they are then not registered.
const ENOUGH_MEMLOCK_BYTES: u64 = 64 * 1024 * 1024;
/// A TCP connection is a file; a container's hard limit may be a thousand million.
const ENOUGH_FILES: u64 = 1 << 20;
/// How long a port may be held by what is just ending: a second in all.
const TAKEN_TRIALS: u32 = 20;
const TAKEN_PAUSE: Duration = Duration::from_millis(50);
/// A free run of ports is found at once on any machine that has one to spare.
const FREE_PORT_TRIALS: u32 = 16;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_udp_port_of_another_socket_is_taken_even_if_it_would_share() {
        let other = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        other.set_reuse_port(true).unwrap();
        other.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let port = port_of(&other);
        let mut udp = Udp { port, v4: Some(Ipv4Addr::UNSPECIFIED), v6: None };
        assert_eq!(
            udp_ports(&mut udp, 1).unwrap_err().to_string(),
            format!(
                "UDP 0.0.0.0:{port} (--udp) is taken, perhaps by another shardcast: see who holds \
                 it with `ss -lnup`, or choose another port"
            )
        );
    }

    fn tcp(address: SocketAddr) -> Listener {
        Listener { transport: Transport::Tcp, address, flag: "--http" }
    }

    #[test]
    fn a_taken_tcp_port_and_a_foreign_address_are_told_apart() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = tcp(other.local_addr().unwrap());
        assert_eq!(open(taken).unwrap_err(), BadNetwork::Taken(taken).into());
        let foreign = tcp("203.0.113.254:1".parse().unwrap());
        assert_eq!(open(foreign).unwrap_err(), BadNetwork::NotOurs(foreign).into());
    }

    #[test]
    fn port_zero_becomes_one_port_for_both_families_and_room_for_each_shard() {
        let mut udp = Udp { port: 0, v4: Some(Ipv4Addr::LOCALHOST), v6: None };
        udp_ports(&mut udp, 3).unwrap();
        assert_ne!(udp.port, 0);
        for nth in 0..3 {
            UdpSocket::bind((Ipv4Addr::LOCALHOST, udp.port + nth)).unwrap();
        }
    }

    #[test]
    fn a_port_below_1024_without_the_right_says_how_to_get_it() {
        let address = "0.0.0.0:443".parse().unwrap();
        let denied = io::Error::from_raw_os_error(Errno::EACCES as i32);
        let error = refused(&denied, tcp(address));
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains("setcap cap_net_bind_service=+ep"), "{error}");
    }

    #[test]
    fn each_way_to_lack_io_uring_has_its_own_remedy() {
        for (errno, disabled, remedy) in [
            (Errno::EPERM, 2, "sysctl -w kernel.io_uring_disabled=0"),
            (Errno::EPERM, 0, "--security-opt seccomp="),
            (Errno::ENOSYS, 0, "use Linux 5.8 or newer"),
            (Errno::ENOMEM, 0, "Cannot allocate memory"),
        ] {
            let error = StartError::from(BadRights::NoRings(why_no_rings(errno as i32, disabled)));
            assert_eq!(error.exit_code(), 4);
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }

    #[test]
    fn too_little_lockable_memory_says_how_to_raise_it() {
        let low = BadRights::MemlockTooLow { bytes: 65536, need: 680 << 10, shards: 4 };
        let error = StartError::from(low);
        assert_eq!(error.exit_code(), 4);
        assert_eq!(
            error.to_string(),
            "4 shards lock 680 KiB of memory for io_uring and 64 are allowed: raise it with \
             `ulimit -l`, systemd's `LimitMEMLOCK=`, or `docker run --ulimit memlock=`, or start \
             fewer with --shards"
        );
    }
}
