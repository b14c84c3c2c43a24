//! A diagnostic: a port that writes down what it is given to send, so that the very same sends
//! can be replayed without a server behind them (`cargo bench --bench stage`).
//!
//! The file is a header of 32 bytes and then 32 bytes for each send, numbers little-endian:
//!
//! | header | | a send | |
//! |---|---|---|---|
//! | 0..16 | `shardcast sends` and a line feed | 0..8 | nanoseconds since the header's time |
//! | 16..20 | version, 1 | 8..24 | the destination's address, IPv4 mapped into IPv6 |
//! | 20..24 | bytes of a send, 32 | 24..26 | its port |
//! | 24..32 | nanoseconds since 1970 | 26..28 | datagrams |
//! | | | 28..30 | bytes of each but the last |
//! | | | 30..32 | bytes of the last |
//!
//! Sends handed over in one call have one time, by which one tells the turns apart.
//!
//! Invariants: a port that is not recorded is not wrapped, and so pays nothing. A turn never
//! waits for a disk: a thread of the recorder's own writes what has come together, every
//! [`PERIOD`] and at the end, and takes some 10 ns of CPU time for each send in doing so. What
//! waits for it is bounded, and so is the file; when either is full, or the file cannot be
//! written, that is said once, the record ends there, and sending goes on.
//!
//! Not here: contents. Nothing of a datagram but its length is kept.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::clock::{self, Anchor};
use super::port::{Arrival, Port, PortCounters, Received};
use crate::outbox::{Outbox, Send};

/// Sends in a file: 512 MiB of disk, five minutes of 1 to 500 at 2.5 Mbit/s.
pub const SENDS_MAX: u64 = 1 << 24;

const MAGIC: &[u8; 16] = b"shardcast sends\n";
const VERSION: u32 = 1;
const LEN: usize = 32;

/// How often is written what has come together.
pub const PERIOD: Duration = Duration::from_millis(50);

/// Bytes that wait to be written at most: a second of four million sends.
const BACKLOG: usize = 128 << 20;

/// A port, and what was sent through it.
#[derive(Debug)]
pub struct Recorder {
    port: Box<dyn Port>,
    start: Instant,
    desk: Arc<Desk>,
    writer: Option<JoinHandle<()>>,
    room: u64,
    /// No more is recorded.
    over: bool,
}

/// Between the shard and the writer.
#[derive(Debug, Default)]
struct Desk {
    waiting: Mutex<Vec<u8>>,
    /// The shard has ended, or writing has.
    end: AtomicBool,
}

impl Desk {
    /// Neither side can panic while it holds the lock.
    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Records what `port` sends into a file at `path`, in place of one that is there.
    pub fn create(path: &Path, port: Box<dyn Port>) -> io::Result<Self> {
        let anchor = Anchor::take();
        let unix = anchor.system.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut file = File::create(path)?;
        file.write_all(&header(unix.as_nanos() as u64))?;
        let desk = Arc::new(Desk::default());
        let name = std::thread::Builder::new().name("record".to_owned());
        let theirs = Arc::clone(&desk);
        let writer = Some(name.spawn(move || write(&theirs, file))?);
        let (start, room, over) = (anchor.instant, SENDS_MAX, false);
        Ok(Self { port, start, desk, writer, room, over })
    }

    fn note(&mut self, outbox: &Outbox, at: Instant) {
        if self.over || self.desk.end.load(Ordering::Relaxed) {
            return;
        }
        let nanos = at.saturating_duration_since(self.start).as_nanos() as u64;
        let mut waiting = self.desk.waiting();
        for send in outbox.sends() {
            self.over = self.room == 0 || waiting.len() >= BACKLOG;
            if self.over {
                tracing::warn!(
                    "sends are recorded no more: the file, or what waits for it, is full"
                );
                return;
            }
            self.room -= 1;
            waiting.extend_from_slice(&Sent::of(&send, nanos).encode());
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.desk.end.store(true, Ordering::Release);
        if let Some(writer) = self.writer.take() {
            writer.thread().unpark();
            // What it had to say it has said.
            let _ = writer.join();
        }
    }
}

/// Writes what has come together, until the end.
fn write(desk: &Desk, mut file: File) {
    let mut lines = Vec::new();
    loop {
        // Before looking: what comes before the end is written.
        let end = desk.end.load(Ordering::Acquire);
        std::mem::swap(&mut *desk.waiting(), &mut lines);
        if let Err(error) = file.write_all(&lines) {
            tracing::warn!("sends are recorded no more: {error}");
            desk.end.store(true, Ordering::Release);
            return;
        }
        lines.clear();
        if end {
            return;
        }
        std::thread::park_timeout(PERIOD);
    }
}

impl Port for Recorder {
    fn receive(&mut self, budget: usize, each: &mut dyn FnMut(Arrival<'_>)) -> Received {
        self.port.receive(budget, each)
    }

    fn send(&mut self, outbox: &Outbox) {
        let at = clock::now();
        self.port.send(outbox);
        self.note(outbox, at);
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.port.poll_readable(cx)
    }

    fn counters(&self) -> PortCounters {
        self.port.counters()
    }

    fn locals(&self) -> [Option<SocketAddr>; 2] {
        self.port.locals()
    }
}

/// One send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// When it was handed over, nanoseconds after the recording's start; the same for all of
    /// one call.
    pub nanos: u64,
    pub to: SocketAddr,
    /// Datagrams.
    pub count: u16,
    /// Bytes of each of them but the last.
    pub segment: u16,
    /// Bytes of the last.
    pub last: u16,
}

impl Sent {
    fn of(send: &Send<'_>, nanos: u64) -> Self {
        let last = send.bytes.len() - send.segment * (send.count - 1);
        let [count, segment, last] = [send.count, send.segment, last].map(|n| n as u16);
        Self { nanos, to: send.to.remote, count, segment, last }
    }

    /// The lengths of its datagrams.
    pub fn lens(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { count, segment, last, .. } = *self;
        let whole = usize::from(count.saturating_sub(1));
        std::iter::repeat_n(usize::from(segment), whole).chain([usize::from(last)])
    }

    fn encode(&self) -> [u8; LEN] {
        let ip = match self.to.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&self.nanos.to_le_bytes());
        bytes[8..24].copy_from_slice(&ip.octets());
        let numbers = [self.to.port(), self.count, self.segment, self.last];
        for (place, number) in bytes[24..].chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; LEN]) -> Self {
        let (nanos, rest) = bytes.split_first_chunk::<8>().expect("32 bytes");
        let (ip, rest) = rest.split_first_chunk::<16>().expect("24 bytes");
        let number = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]);
        Self {
            nanos: u64::from_le_bytes(*nanos),
            to: SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), number(0)),
            count: number(2),
            segment: number(4),
            last: number(6),
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Nanoseconds since 1970 when it began.
    pub unix: u64,
    /// In the order in which they were sent.
    pub sends: Vec<Sent>,
}

impl Recording {
    /// Reads a file to its end, also one that is still being written: a send that is not whole
    /// yet is left out.
    pub fn read(mut from: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let (lines, _) = bytes.as_chunks::<LEN>();
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "no record of sends");
        let (first, sends) = lines.split_first().ok_or_else(strange)?;
        let unix = u64::from_le_bytes(*first.last_chunk().expect("32 bytes"));
        if *first != header(unix) {
            return Err(strange());
        }
        Ok(Self { unix, sends: sends.iter().map(Sent::decode).collect() })
    }
}

fn header(unix: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16..20].copy_from_slice(&VERSION.to_le_bytes());
    bytes[20..24].copy_from_slice(&(LEN as u32).to_le_bytes());
    bytes[24..].copy_from_slice(&unix.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::port::{PortKind, open};
    use super::super::socket::Sockets;
    use super::*;
    use crate::outbox::{CAPACITY, Destination};

    fn recorded(name: &str, room: Option<u64>, outboxes: &[Outbox]) -> Recording {
        let path = std::env::temp_dir().join(format!("shards-{name}-{}", std::process::id()));
        let sockets = Sockets::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let port = open(PortKind::Mmsg, sockets).unwrap();
        let mut recorder = Recorder::create(&path, port).unwrap();
        recorder.room = room.unwrap_or(recorder.room);
        for outbox in outboxes {
            recorder.send(outbox);
        }
        let sent: usize = outboxes.iter().map(Outbox::datagrams).sum();
        assert_eq!(recorder.counters().datagrams_out, sent as u64, "all are sent all the same");
        drop(recorder);
        let recording = Recording::read(File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(path).unwrap();
        recording
    }

    fn outbox(datagrams: &[(SocketAddr, usize)]) -> Outbox {
        let mut outbox = Outbox::new(CAPACITY);
        for (remote, len) in datagrams {
            let local = SocketAddr::from(([127, 0, 0, 1], 0));
            assert!(outbox.push(Destination { remote: *remote, local }, &vec![0xC0; *len]));
        }
        outbox
    }

    #[test]
    fn what_was_sent_is_read_again() {
        let peers = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let [a, b] = peers.each_ref().map(|peer| peer.local_addr().unwrap());
        let turns = [outbox(&[(a, 1200), (a, 1200), (a, 700), (b, 90)]), outbox(&[(b, 60)])];
        let recording = recorded("sends", None, &turns);
        let shape = |sent: &Sent| (sent.to, sent.count, sent.segment, sent.last);
        assert_eq!(
            recording.sends.iter().map(shape).collect::<Vec<_>>(),
            [(a, 3, 1200, 700), (b, 1, 90, 90), (b, 1, 60, 60)]
        );
        let lens: Vec<usize> = recording.sends.iter().flat_map(Sent::lens).collect();
        assert_eq!(lens, [1200, 1200, 700, 90, 60]);
        let at: Vec<u64> = recording.sends.iter().map(|sent| sent.nanos).collect();
        assert!(at[0] == at[1] && at[1] < at[2], "{at:?}");
        let unix = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        assert!(recording.unix + at[2] <= unix && recording.unix + 60_000_000_000 > unix);
    }

    #[test]
    fn a_full_file_takes_no_more() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = peer.local_addr().unwrap();
        let turn = || outbox(&[(to, 10), (to, 20), (to, 30)]);
        let recording = recorded("full", Some(4), &[turn(), turn()]);
        let lens: Vec<u16> = recording.sends.iter().map(|sent| sent.last).collect();
        assert_eq!(lens, [10, 20, 30, 10]);
    }

    #[test]
    fn addresses_of_both_families_survive() {
        for to in ["192.0.2.7:65535", "[2001:db8::9]:1"] {
            let to = to.parse().unwrap();
            let sent = Sent { nanos: u64::MAX, to, count: 64, segment: 1500, last: 1 };
            assert_eq!(Sent::decode(&sent.encode()), sent);
        }
    }

    #[test]
    fn other_files_are_refused_and_torn_ends_left_out() {
        for bytes in [&b""[..], &[0; 31], &[0; 64]] {
            assert!(Recording::read(bytes).is_err());
        }
        let to = "192.0.2.7:9".parse().unwrap();
        let sent = Sent { nanos: 7, to, count: 1, segment: 9, last: 9 };
        let bytes = [&header(5)[..], &sent.encode(), &sent.encode()[..20]].concat();
        let recording = Recording::read(&bytes[..]).unwrap();
        assert_eq!(recording, Recording { unix: 5, sends: vec![sent] });
    }
}
