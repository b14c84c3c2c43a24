//! A network of nodes in virtual time: every run of a seed is the same.
//!
//! Datagrams take 1 to 120 ms, and are lost, repeated, delayed or damaged as told. Nodes are
//! machines without I/O, so that a minute of fifty of them is a second of one core.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use relay::keys::ClusterKeys;

/// What the network needs of a node.
pub(crate) trait Machine {
    fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]);
    fn wake(&mut self, now: Instant);
    fn wakes_at(&self) -> Option<Instant>;
    /// The next datagram, and where it goes.
    fn poll(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)>;
    /// Takes note of what happened.
    fn settle(&mut self, now: Instant);
}

/// How bad the network is; all are chances of a datagram.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) loss: f64,
    pub(crate) repeat: f64,
    /// Delayed by up to 200 ms more than others.
    pub(crate) delay: f64,
    pub(crate) damage: f64,
}

struct Place<M> {
    machine: Option<M>,
    address: SocketAddr,
    position: (f64, f64),
    wakes_at: Option<Instant>,
}

/// A datagram on its way, by its time and number.
type Flights = BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>;

pub(crate) struct Net<M> {
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) rng: StdRng,
    pub(crate) weather: Weather,
    places: Vec<Place<M>>,
    routes: BTreeMap<SocketAddr, usize>,
    wakes: BTreeMap<(Instant, usize), ()>,
    flights: Flights,
    serial: u64,
    /// Whether no datagram passes between two places, in this direction.
    pub(crate) cut: fn(usize, usize) -> bool,
    /// If so, all that is sent is kept here.
    pub(crate) record: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    /// Longer datagrams do not pass (UDP payload).
    pub(crate) mtu: usize,
    /// Bytes sent by each place, with 28 for IP and UDP each.
    pub(crate) sent_bytes: Vec<u64>,
    pub(crate) sent_datagrams: u64,
    /// Real time spent in machines.
    pub(crate) spent: Duration,
}

impl<M: Machine> Net<M> {
    pub(crate) fn new(seed: u64) -> Self {
        let start = start();
        Self {
            now: start,
            start,
            rng: StdRng::seed_from_u64(seed),
            weather: Weather::default(),
            places: Vec::new(),
            routes: BTreeMap::new(),
            wakes: BTreeMap::new(),
            flights: BTreeMap::new(),
            serial: 0,
            cut: |_, _| false,
            record: None,
            mtu: 1472,
            sent_bytes: Vec::new(),
            sent_datagrams: 0,
            spent: Duration::ZERO,
        }
    }

    /// Virtual time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// A place with this address, where nothing runs yet.
    pub(crate) fn place(&mut self, address: SocketAddr) -> usize {
        let position = (self.rng.random(), self.rng.random());
        self.places.push(Place { machine: None, address, position, wakes_at: None });
        self.sent_bytes.push(0);
        self.places.len() - 1
    }

    /// Starts a machine at a place; datagrams for its address go there from now on.
    pub(crate) fn run(&mut self, at: usize, machine: M) {
        self.routes.insert(self.places[at].address, at);
        self.places[at].machine = Some(machine);
        self.turn(at);
    }

    /// The machine vanishes, without a word.
    pub(crate) fn kill(&mut self, at: usize) -> Option<M> {
        self.places[at].machine.take()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&M> {
        self.places[at].machine.as_ref()
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (usize, &M)> {
        self.places
            .iter()
            .enumerate()
            .filter_map(|(at, place)| place.machine.as_ref().map(|machine| (at, machine)))
    }

    pub(crate) fn address(&self, at: usize) -> SocketAddr {
        self.places[at].address
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Does something with the machine, then sends what it wants to send.
    pub(crate) fn with<R>(&mut self, at: usize, act: impl FnOnce(&mut M, Instant) -> R) -> R {
        let now = self.now;
        let machine = self.places[at].machine.as_mut().expect("a machine runs there");
        let result = act(machine, now);
        self.turn(at);
        result
    }

    /// Puts a datagram on the wire, as anybody can.
    pub(crate) fn inject(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.serial += 1;
        let at = self.now + Duration::from_millis(1);
        self.flights.insert((at, self.serial), (from, to, datagram));
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until it is so; after `limit` it is false.
    pub(crate) fn run_while(&mut self, limit: Duration, so: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.run_until(end, so)
    }

    fn run_until(&mut self, end: Instant, so: impl Fn(&Self) -> bool) -> bool {
        let mut turns_at_once = 0;
        let mut look = self.now;
        loop {
            if self.now >= look {
                if so(self) {
                    return true;
                }
                look = self.now + Duration::from_millis(50);
            }
            let flight = self.flights.first_key_value().map(|(&(at, _), _)| at);
            let wake = self.wakes.first_key_value().map(|(&(at, _), _)| at);
            let Some(at) = flight.into_iter().chain(wake).min().filter(|&at| at <= end) else {
                self.now = end;
                return so(self);
            };
            turns_at_once = if at > self.now { 0 } else { turns_at_once + 1 };
            assert!(turns_at_once < 100_000, "time stands still");
            self.now = at.max(self.now);
            if flight == Some(at) {
                self.deliver();
            } else if let Some(((_, place), ())) = self.wakes.pop_first() {
                self.places[place].wakes_at = None;
                let now = self.now;
                if let Some(machine) = &mut self.places[place].machine {
                    let began = clock();
                    machine.wake(now);
                    self.spent += began.elapsed();
                }
                self.turn(place);
            }
        }
    }

    fn deliver(&mut self) {
        let Some((_, (from, to, datagram))) = self.flights.pop_first() else { return };
        let Some(&at) = self.routes.get(&to) else { return };
        let now = self.now;
        let Some(machine) = &mut self.places[at].machine else { return };
        let began = clock();
        machine.handle(now, from, &datagram);
        self.spent += began.elapsed();
        self.turn(at);
    }

    fn turn(&mut self, at: usize) {
        let now = self.now;
        let Some(mut machine) = self.places[at].machine.take() else { return };
        machine.settle(now);
        let began = clock();
        while let Some((to, datagram)) = machine.poll(now) {
            self.send(at, to, datagram);
        }
        self.spent += began.elapsed();
        let wakes_at = machine.wakes_at();
        let place = &mut self.places[at];
        place.machine = Some(machine);
        if place.wakes_at != wakes_at {
            if let Some(old) = place.wakes_at {
                self.wakes.remove(&(old, at));
            }
            place.wakes_at = wakes_at;
            if let Some(wake) = wakes_at {
                self.wakes.insert((wake, at), ());
            }
        }
    }

    fn send(&mut self, at: usize, to: SocketAddr, datagram: Vec<u8>) {
        let from = self.places[at].address;
        self.sent_bytes[at] += datagram.len() as u64 + 28;
        self.sent_datagrams += 1;
        if let Some(record) = &mut self.record {
            record.push((from, to, datagram.clone()));
        }
        let Some(&target) = self.routes.get(&to) else { return };
        let weather = self.weather;
        if datagram.len() > self.mtu || (self.cut)(at, target) || self.rng.random_bool(weather.loss)
        {
            return;
        }
        let copies = if self.rng.random_bool(weather.repeat) { 2 } else { 1 };
        for _ in 0..copies {
            let mut datagram = datagram.clone();
            if self.rng.random_bool(weather.damage) && !datagram.is_empty() {
                let bit = self.rng.random_range(0..datagram.len() * 8);
                datagram[bit / 8] ^= 1 << (bit % 8);
            }
            let (a, b) = (self.places[at].position, self.places[target].position);
            let distance = ((a.0 - b.0).powi(2) + (a.1 - b.1).powi(2)).sqrt();
            let mut delay = 1000.0 + 85_000.0 * distance + self.rng.random_range(0.0..2000.0);
            if self.rng.random_bool(weather.delay) {
                delay += self.rng.random_range(0.0..200_000.0);
            }
            self.serial += 1;
            let arrival = self.now + Duration::from_micros(delay as u64);
            self.flights.insert((arrival, self.serial), (from, to, datagram));
        }
    }
}

/// Keys with these numbers, the first one sending.
pub(crate) fn keys(kids: &[u8]) -> ClusterKeys {
    let lines: String = kids
        .iter()
        .map(|kid| format!("shardcast-key-1:{kid:02x}:{kid:02x}{}\n", "ab".repeat(31)))
        .collect();
    ClusterKeys::parse(&lines).expect("these are keys")
}

pub(crate) fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (n / 250) as u8, (n % 250 + 1) as u8], 4700))
}

/// An instant to count from.
pub(crate) fn start() -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(clock)
}

fn clock() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "measures real time spent; decides nothing")]
    Instant::now()
}
