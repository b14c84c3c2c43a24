//! What a packet port costs, against the bare system calls it is made of.
//!
//! CPU time of the thread (user, system, and the softirqs that run in it), in ns per datagram,
//! medians over interleaved rounds. Over loopback, so a send pays for the receiving half too.
//!
//! `cargo bench --bench port [-- --quick]`

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]

#[path = "common/bare.rs"]
mod bare;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use bare::{Headers, name};
use glommio::{LocalExecutorBuilder, Placement};
use shards::io::pause;
use shards::io::port::{Port, PortKind, open, readable};
use shards::io::socket::Sockets;
use shards::outbox::{Destination, Outbox};

/// Twenty datagrams for each of the peers.
const ROOM: usize = 4 << 20;

const DATAGRAM: usize = 1200;
const PEERS: usize = 64;
const KINDS: [PortKind; 2] = [PortKind::Mmsg, PortKind::Ring];
/// A port may cost this much more than the bare loop.
const TARGET: f64 = 1.15;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let rounds = if quick { 7 } else { 41 };
    pin(1);
    println!("{DATAGRAM}-byte datagrams over loopback; ns of CPU per datagram, median of {rounds}");
    sends(rounds);
    receives(rounds);
    wakes(if quick { 200 } else { 1500 });
    pauses(if quick { 200 } else { 1500 });
}

/// Sending: both ports against `sendmmsg` over headers that were built beforehand.
fn sends(rounds: usize) {
    println!("\nsend, {PEERS} peers whose buffers are full");
    println!("{:>8} {:>8} {:>14} {:>14} {:>8}", "GSO run", "bare", "mmsg", "ring", "fold");
    let peers: Vec<UdpSocket> = (0..PEERS).map(|_| deaf_peer()).collect();
    let remotes: Vec<_> = peers.iter().map(|peer| peer.local_addr().expect("bound")).collect();
    let bare = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut ports = KINDS.map(|kind| port(kind, "127.0.0.1:0"));
    let mut worst: f64 = 0.0;
    for run in [1, 2, 5, 10, 20] {
        let mut outbox = Outbox::new(ROOM);
        let fill = |outbox: &mut Outbox| {
            outbox.clear();
            for &remote in remotes.iter().cycle().take(PEERS * 20 / run) {
                let local = SocketAddr::from(([127, 0, 0, 1], 0));
                for _ in 0..run {
                    outbox.commit(Destination { remote, local }, DATAGRAM);
                }
            }
        };
        fill(&mut outbox);
        let count = outbox.datagrams() as f64;
        let mut headers = Headers::new(outbox.sends());
        let mut costs: [Vec<f64>; 4] = Default::default();
        for _ in 0..rounds + 2 {
            costs[0].push(spent(|| assert_eq!(headers.send(&bare), 0)) / count);
            for (port, costs) in ports.iter_mut().zip(&mut costs[1..]) {
                costs.push(spent(|| port.send(&outbox)) / count);
            }
            costs[3].push(spent(|| fill(&mut outbox)) / count);
        }
        let [bare, mmsg, ring, fold] = costs.map(median);
        let ratios = [mmsg / bare, ring / bare];
        worst = ratios.into_iter().fold(worst, f64::max);
        println!(
            "{run:>8} {bare:>8.0} {mmsg:>7.0} ×{:<5.2} {ring:>7.0} ×{:<5.2} {fold:>8.0}",
            ratios[0], ratios[1]
        );
    }
    for (kind, port) in KINDS.iter().zip(&ports) {
        let counters = port.counters();
        assert!(counters.gso && counters.drops_out.total() == 0, "{kind}: {counters:?}");
    }
    let verdict = if worst <= TARGET { "within" } else { "BEYOND" };
    println!("worst ratio ×{worst:.2}, {verdict} the target of ×{TARGET}");
    println!("fold: what Outbox::commit costs, part of filling it, not of either column before");
}

/// Receiving: draining 240 queued datagrams.
fn receives(rounds: usize) {
    println!("\nreceive, 240 queued, as the sender's GSO runs come through GRO");
    println!("{:>8} {:>8} {:>14} {:>14}", "GSO run", "bare", "mmsg", "ring");
    let mut bare = BareReceiver::new();
    let mut ports = KINDS.map(|kind| port(kind, "127.0.0.1:0"));
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for run in [1, 2, 5, 10, 20] {
        let mut costs: [Vec<f64>; 3] = Default::default();
        let remotes = [bare.address(), local(&*ports[0]), local(&*ports[1])];
        let mut outboxes = remotes.map(|remote| queue_of(remote, run));
        let mut headers = outboxes.each_mut().map(|outbox| Headers::new(outbox.sends()));
        for _ in 0..rounds + 2 {
            assert_eq!(headers[0].send(&sender), 0);
            costs[0].push(spent(|| assert_eq!(bare.drain(), 240)) / 240.0);
            for (n, port) in ports.iter_mut().enumerate() {
                assert_eq!(headers[n + 1].send(&sender), 0);
                let mut bytes = 0;
                costs[n + 1].push(
                    spent(|| {
                        let received =
                            port.receive(1000, &mut |arrival| bytes += arrival.bytes.len());
                        assert_eq!((received.count, received.drained), (240, true));
                    }) / 240.0,
                );
                assert_eq!(bytes, 240 * DATAGRAM);
            }
        }
        let [bare, mmsg, ring] = costs.map(median);
        println!(
            "{run:>8} {bare:>8.0} {mmsg:>7.0} ×{:<5.2} {ring:>7.0} ×{:<5.2}",
            mmsg / bare,
            ring / bare
        );
    }
}

/// Waking: one datagram every 500 µs to a shard that has nothing else to do.
fn wakes(count: usize) {
    println!("\nwake for one datagram: µs of CPU of the woken thread, receive included");
    println!("{:>10} {:>8.1}", "recv", wake_bare(count));
    for kind in KINDS {
        let (cost, wakes) = wake_port(kind, count);
        println!("{:>10} {cost:>8.1}   ready {wakes:.2} times per datagram", format!("{kind}"));
    }
    println!("recv: a thread blocked in recv(2), without an executor");
}

/// Pausing for 200 µs, by either way there is.
fn pauses(count: usize) {
    const PAUSE: Duration = Duration::from_micros(200);
    let shard = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(256)
        .io_memory(64 << 10)
        .spawn(move || async move {
            pin(1);
            pause::prepare();
            glommio::timer::sleep(PAUSE).await;
            let begun = cpu_time();
            for _ in 0..count {
                glommio::timer::sleep(PAUSE).await;
            }
            let middle = cpu_time();
            for _ in 0..count {
                pause::stop(PAUSE);
            }
            [middle - begun, cpu_time() - middle].map(|spent| spent as f64 / count as f64 / 1000.0)
        })
        .expect("an executor");
    let [timer, stopped] = shard.join().expect("no panic");
    println!("\npause of 200 µs: µs of CPU of the thread");
    println!("{:>10} {timer:>8.1}   the executor's timer", "timer");
    println!("{:>10} {stopped:>8.1}   stopping the thread", "stop");
}

fn wake_bare(count: usize) -> f64 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let target = socket.local_addr().expect("bound");
    let sleeper = std::thread::spawn(move || {
        pin(1);
        let mut buffer = [0; 2048];
        socket.recv(&mut buffer).expect("a datagram");
        spent(|| {
            for _ in 1..count {
                socket.recv(&mut buffer).expect("a datagram");
            }
        })
    });
    trickle(target, count);
    sleeper.join().expect("no panic") / (count - 1) as f64 / 1000.0
}

/// Cost per datagram, and how often `readable` was ready for it.
fn wake_port(kind: PortKind, count: usize) -> (f64, f64) {
    let sockets = sockets("127.0.0.1:0");
    let target = sockets.locals()[0].expect("bound");
    let shard = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(256)
        .io_memory(64 << 10)
        .spawn(move || async move {
            pin(1);
            let mut port = opened(kind, sockets);
            let (mut seen, mut wakes, mut begun) = (0, 0, 0);
            while seen < count {
                readable(&mut *port).await;
                wakes += 1;
                while !port.receive(64, &mut |_| seen += 1).drained {}
                if begun == 0 {
                    begun = cpu_time();
                }
            }
            ((cpu_time() - begun) as f64 / (count - 1) as f64, wakes as f64 / count as f64)
        })
        .expect("an executor");
    trickle(target, count);
    let (cost, wakes) = shard.join().expect("no panic");
    (cost / 1000.0, wakes)
}

fn trickle(target: SocketAddr, count: usize) {
    std::thread::spawn(move || {
        pin(0);
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        std::thread::sleep(Duration::from_millis(100));
        for _ in 0..count {
            sender.send_to(&[0; 100], target).expect("loopback takes it");
            std::thread::sleep(Duration::from_micros(500));
        }
    })
    .join()
    .expect("no panic");
}

/// A recvmmsg loop with GRO that counts datagrams and does nothing else.
struct BareReceiver {
    socket: UdpSocket,
    headers: Vec<libc::mmsghdr>,
    _buffers: Box<[[u8; 65536]]>,
    _iovecs: Box<[libc::iovec]>,
    _names: Box<[libc::sockaddr_in]>,
    controls: Box<[[u64; 16]]>,
}

impl BareReceiver {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 8 << 20);
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20);
        let mut buffers = vec![[0; 65536]; 32].into_boxed_slice();
        let mut iovecs: Box<[_]> = buffers
            .iter_mut()
            .map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() })
            .collect();
        let mut names: Box<[_]> =
            (0..32).map(|_| name(SocketAddr::from(([0, 0, 0, 0], 0)))).collect();
        let mut controls = vec![[0u64; 16]; 32].into_boxed_slice();
        let headers = (0..32)
            .map(|n| {
                // SAFETY: mmsghdr is plain integers and pointers; all zeroes are valid.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = &raw mut iovecs[n];
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_name = (&raw mut names[n]).cast();
                header.msg_hdr.msg_control = (&raw mut controls[n]).cast();
                header
            })
            .collect();
        Self { socket, headers, _buffers: buffers, _iovecs: iovecs, _names: names, controls }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    fn drain(&mut self) -> usize {
        let mut count = 0;
        loop {
            for header in &mut self.headers {
                header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
                header.msg_hdr.msg_controllen = 128;
            }
            // SAFETY: built by `new` over boxes that are kept here.
            let got = unsafe {
                let (fd, none) = (self.socket.as_raw_fd(), std::ptr::null_mut());
                libc::recvmmsg(fd, self.headers.as_mut_ptr(), 32, libc::MSG_DONTWAIT, none)
            };
            let got = usize::try_from(got).unwrap_or(0);
            for (header, control) in self.headers.iter().zip(&self.controls).take(got) {
                let len = header.msg_len as usize;
                // A lone control message: its data, the stride, is the third word.
                let glued = header.msg_hdr.msg_controllen >= 20;
                let stride = if glued { control[2] as u32 as usize } else { len };
                count += len.div_ceil(stride);
            }
            if got < 32 {
                return count;
            }
        }
    }
}

fn queue_of(remote: SocketAddr, run: usize) -> Outbox {
    let mut outbox = Outbox::new(ROOM);
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
    for n in 0..240 {
        // Alternate what the folding compares, so that runs end where they should.
        let local = if (n / run).is_multiple_of(2) { remote } else { elsewhere };
        outbox.commit(Destination { remote, local }, DATAGRAM);
    }
    outbox
}

/// A peer whose receive buffer holds nothing, so that the kernel drops at the socket.
fn deaf_peer() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 1);
    socket
}

fn sockets(address: &str) -> Sockets {
    Sockets::bind(&[address.parse().expect("an address")]).expect("a free port")
}

fn port(kind: PortKind, address: &str) -> Box<dyn Port> {
    opened(kind, sockets(address))
}

fn opened(kind: PortKind, sockets: Sockets) -> Box<dyn Port> {
    open(kind, sockets).unwrap_or_else(|(refused, _)| panic!("{refused}"))
}

fn local(port: &dyn Port) -> SocketAddr {
    port.locals()[0].expect("IPv4 is bound")
}

fn set(socket: &UdpSocket, level: i32, option: i32, value: i32) {
    // SAFETY: a live c_int of the size given. May fail without rights, and then matters little.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
}

fn spent(work: impl FnOnce()) -> f64 {
    let before = cpu_time();
    work();
    (cpu_time() - before) as f64
}

fn cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Drops the first two, which warm up.
fn median(mut costs: Vec<f64>) -> f64 {
    costs.drain(..2);
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

/// To a CPU of its own, where there are several; otherwise it stays where it is.
fn pin(cpu: usize) {
    // SAFETY: an all-zero cpu_set_t is an empty one, and `cpu` is within its 1,024 bits.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}
