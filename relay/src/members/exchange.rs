//! What a node does with each message, and the messages it sends on its own.
//!
//! Invariants: only a greeting is read though it is not bound, and it changes nothing; a state is
//! sent only to a node that just proved to be fresh.
//!
//! Not here: the order of things in time (`Members`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use foca::{Identity as _, Member, State};
use rand::RngExt;

use super::body::{BODY_MAX, Body, Digest, Hello, Inside, Welcome};
use super::envelope::Way;
use super::identity::Identity;
use super::loads::LoadItem;
use super::{
    JOIN_PERIOD, KNOWN_MAX, MemberFault, Members, NODES_MAX, SEED_PERIOD, WELCOMES_PER_GREETER,
    WELCOMES_PER_SECOND,
};

impl Members {
    pub(super) fn take(&mut self, now: Instant, datagram: &[u8]) -> Result<(), MemberFault> {
        let opened = self.opener.open(now, datagram)?;
        let bound = opened.bound;
        // The body borrows from the opener's buffer, which nothing below needs otherwise.
        let plain = std::mem::take(&mut self.plain);
        let mut plain = plain;
        plain.clear();
        plain.extend_from_slice(opened.plain);
        let taken = Body::parse(&plain).and_then(|body| match (body, bound) {
            (Body::Hello(hello), false) => self.take_hello(now, &hello),
            (Body::Welcome(welcome), true) => self.take_welcome(now, &welcome),
            (Body::Swim { swim, loads }, true) => self.take_swim(now, swim, &loads),
            (Body::Digest { from, digest }, true) => {
                if digest != self.digest() {
                    self.send_state(&from, true);
                }
                Ok(())
            }
            (Body::State { from, ask, members, loads }, true) => {
                self.take_state(now, &from, ask, members, &loads)
            }
            (Body::Hello(_), true)
            | (
                Body::Welcome(_) | Body::Swim { .. } | Body::Digest { .. } | Body::State { .. },
                false,
            ) => Err(MemberFault::Malformed),
        });
        self.plain = plain;
        taken
    }

    fn take_hello(&mut self, now: Instant, hello: &Hello) -> Result<(), MemberFault> {
        let own = self.identity().clone();
        let greeter = &hello.identity;
        if greeter.address == own.address {
            return Err(MemberFault::SameAddress);
        }
        let welcomes = &mut self.welcomes;
        if now >= welcomes.refilled + Duration::from_secs(1) {
            (welcomes.left, welcomes.refilled) = (WELCOMES_PER_SECOND, now);
            welcomes.given.clear();
        }
        // One greeting, replayed, takes nothing from other greeters.
        let given = welcomes.given.get(&greeter.cookie).copied().unwrap_or(0);
        if given >= WELCOMES_PER_GREETER {
            return Err(MemberFault::Overrun);
        }
        welcomes.left = welcomes.left.checked_sub(1).ok_or(MemberFault::Overrun)?;
        welcomes.given.insert(greeter.cookie, given + 1);
        let known = self.swim.all().map(Member::id).find(|id| id.address == greeter.address);
        let known = known.filter(|&known| known != greeter).cloned();
        let holder = self.table.get(greeter.node);
        let taken = greeter.node == own.node
            || holder.is_some_and(|holder| {
                holder.address != greeter.address && holder.keeps_number_against(greeter)
            });
        let welcome = Welcome { identity: own, nonce: hello.nonce, known, taken };
        // To where the greeter says it is, not to where this came from: a node must be reached
        // at its address, and who replays a greeting cannot choose a victim.
        let mut plain = Vec::new();
        Body::Welcome(welcome).write(&mut plain);
        let bytes = self.sealer.seal(Way::Bound(greeter.cookie), &plain);
        self.transmits.push_back(super::MemberDatagram { to: greeter.address, bytes });
        Ok(())
    }

    fn take_welcome(&mut self, now: Instant, welcome: &Welcome) -> Result<(), MemberFault> {
        let greeting = self.greetings.remove(&welcome.nonce);
        let (number, _) = greeting.ok_or(MemberFault::Unawaited)?;
        if welcome.identity.address == self.identity().address {
            return Err(MemberFault::SameAddress);
        }
        if let Some(known) = &welcome.known {
            self.rise_above(now, known);
        }
        if welcome.taken && number == self.identity().node {
            // Before anybody knows us it costs nothing.
            self.renumber(now);
        }
        self.swim.announce(now, welcome.identity.clone());
        Ok(())
    }

    fn take_swim(
        &mut self,
        now: Instant,
        swim: &[u8],
        loads: &[LoadItem],
    ) -> Result<(), MemberFault> {
        if !swim.is_empty() {
            let inside = Inside::parse(swim)?;
            if inside.header.src.address == self.identity().address {
                return Err(MemberFault::SameAddress);
            }
            let members = inside.members.iter();
            self.refuse_flood(members.clone().map(Member::id).chain([&inside.header.src]))?;
            for member in &inside.members {
                self.watch_own_address(now, member);
            }
            self.swim.handle(now, swim);
            self.drain_swim(now);
        }
        self.take_loads(loads);
        Ok(())
    }

    fn take_loads(&mut self, loads: &[LoadItem]) {
        let times = self.load_times();
        for item in loads {
            if self.table.get(item.node).is_some() {
                self.loads.note(*item, times);
            }
        }
    }

    fn take_state(
        &mut self,
        now: Instant,
        from: &Identity,
        ask: bool,
        mut members: Vec<Member<Identity>>,
        loads: &[LoadItem],
    ) -> Result<(), MemberFault> {
        self.refuse_flood(members.iter().map(Member::id))?;
        for member in &members {
            self.watch_own_address(now, member);
        }
        let mut corrections = Vec::new();
        let own = self.identity().address;
        members.retain(|member| {
            if member.id().address == own {
                return true;
            }
            let known = self.swim.all().find(|known| known.id().address == member.id().address);
            let is_down = member.state() == State::Down;
            match known {
                // Who is down and unknown here need not become known.
                None => !is_down,
                Some(known) if !is_down && outdates(known, member) => {
                    if corrections.len() < CORRECTIONS_MAX {
                        corrections.push(known.clone());
                    }
                    false
                }
                Some(_) => true,
            }
        });
        self.swim.apply(now, members);
        self.drain_swim(now);
        self.take_loads(loads);
        if !corrections.is_empty() {
            let own = self.identity().clone();
            let body =
                Body::State { from: own, ask: false, members: corrections, loads: Vec::new() };
            self.send(from, &body);
        }
        if ask {
            self.send_state(from, false);
        }
        Ok(())
    }

    /// Refuses a message that would make more nodes known than there may be.
    fn refuse_flood<'a>(
        &self,
        named: impl Iterator<Item = &'a Identity>,
    ) -> Result<(), MemberFault> {
        let known = self.swim.all();
        let room = KNOWN_MAX.saturating_sub(known.len());
        let room = room.min(NODES_MAX.saturating_sub(self.table.len()));
        let is_new = |identity: &&Identity| self.table.at(identity.address).is_none();
        let mut strangers = named.filter(is_new);
        // Those that are down count as strangers here: near the bound that is right as well.
        if strangers.nth(room).is_some() { Err(MemberFault::Full) } else { Ok(()) }
    }

    /// Somebody may say that another identity has our address: a run of us before this one, or
    /// a node that was given our address by mistake.
    fn watch_own_address(&mut self, now: Instant, member: &Member<Identity>) {
        if member.id().address == self.identity().address && member.id() != self.identity() {
            let other = member.id().clone();
            if member.state() != State::Down && other.win_addr_conflict(self.identity()) {
                self.faults.count(MemberFault::SameAddress);
            }
            self.rise_above(now, &other);
        }
    }

    /// Takes a rank that wins over an identity that others know at our address, so that a clock
    /// that went back does not lock us out. If that identity lives it does the same, so both
    /// do it seldom.
    fn rise_above(&mut self, now: Instant, other: &Identity) {
        let own = self.identity();
        if other.address != own.address
            || other.cookie == own.cookie
            || !other.win_addr_conflict(own)
            || now < self.next.rank
        {
            return;
        }
        let Some(rank) = other.rank.checked_add(1) else { return };
        let identity = Identity { rank, ..own.clone() };
        self.next.rank = now + RISE_PERIOD;
        self.change(now, identity);
    }

    /// Greets seeds: all that there are, in turn, while nobody is known; then one now and then.
    pub(super) fn join(&mut self, now: Instant) {
        let alone = self.swim.num_active() == 0;
        self.next.join = now + if alone { JOIN_PERIOD } else { SEED_PERIOD };
        let count = if alone { GREETINGS_AT_ONCE.min(self.seeds.len()) } else { 1 };
        for _ in 0..count {
            if self.seeds.is_empty() {
                return;
            }
            // What is drawn goes to the end, so that all are asked before one is asked again.
            let at = self.rng.random_range(0..self.seeds.len().div_ceil(2));
            let seed = self.seeds.remove(at);
            self.seeds.push(seed);
            if self.table.at(seed).is_none() {
                self.greet(now, seed);
            }
        }
    }

    /// Greets two nodes that are down: where a partition was, they are not.
    pub(super) fn greet_downs(&mut self, now: Instant) {
        let mut downs: Vec<SocketAddr> = self
            .swim
            .all()
            .filter(|member| member.state() == State::Down)
            .map(|member| member.id().address)
            .collect();
        for _ in 0..DOWNS_AT_ONCE.min(downs.len()) {
            let at = self.rng.random_range(0..downs.len());
            let address = downs.swap_remove(at);
            self.greet(now, address);
        }
    }

    fn greet(&mut self, now: Instant, to: SocketAddr) {
        self.greetings.retain(|_, (_, until)| now < *until);
        if self.greetings.len() >= GREETINGS_MAX {
            return;
        }
        let nonce = self.rng.random();
        let identity = self.identity().clone();
        self.greetings.insert(nonce, (identity.node, now + GREETING_AGE));
        self.send_to(to, Way::Open, &Body::Hello(Hello { identity, nonce }));
    }

    pub(super) fn send_digest(&mut self) {
        let Some(to) = self.random_active() else { return };
        let from = self.identity().clone();
        let digest = self.digest();
        self.send(&to, &Body::Digest { from, digest });
    }

    pub(super) fn spread_loads(&mut self) {
        for _ in 0..2 {
            let Some(to) = self.random_active() else { return };
            let mut loads = Vec::new();
            self.loads.take(&mut loads);
            if !loads.is_empty() {
                self.send(&to, &Body::Swim { swim: &[], loads });
            }
        }
    }

    /// Over all nodes that are up, this one too, whatever anybody suspects.
    fn digest(&self) -> Digest {
        let own = self.identity();
        let mut all: Vec<_> = self
            .swim
            .active()
            .map(Member::id)
            .chain([own])
            .map(|id| (id.address, id.rank, id.node, id.cookie))
            .collect();
        all.sort_unstable();
        let mut context = digest::Context::new(&digest::SHA256);
        for (address, rank, node, cookie) in &all {
            match address.ip() {
                std::net::IpAddr::V4(ip) => context.update(&ip.octets()),
                std::net::IpAddr::V6(ip) => context.update(&ip.octets()),
            }
            context.update(&address.port().to_be_bytes());
            context.update(&rank.to_be_bytes());
            context.update(&node.0.to_be_bytes());
            context.update(cookie);
        }
        let mut hash = [0; 8];
        hash.copy_from_slice(&context.finish().as_ref()[..8]);
        // Bounded by NODES_MAX.
        Digest { count: all.len() as u16, hash: u64::from_be_bytes(hash) }
    }

    /// Sends all nodes that are up, in as many datagrams as it takes; the last one may ask.
    fn send_state(&mut self, to: &Identity, ask: bool) {
        let own = Member::alive(self.identity().clone());
        let mut rest: Vec<Member<Identity>> = self.swim.active().cloned().collect();
        rest.push(own);
        while !rest.is_empty() {
            let from = self.identity().clone();
            let (mut members, mut loads, mut room) = (Vec::new(), Vec::new(), BODY_MAX - 80);
            while let Some(member) = rest.pop() {
                let size = MEMBER_LEN + if member.id().address.is_ipv6() { 12 } else { 0 };
                let Some(left) = room.checked_sub(size) else {
                    rest.push(member);
                    break;
                };
                room = left;
                loads.extend(self.loads.get(member.id().node));
                members.push(member);
            }
            let ask = ask && rest.is_empty();
            self.send(to, &Body::State { from, ask, members, loads });
        }
    }
}

/// Whether what we know says that `told` is no more.
fn outdates(known: &Member<Identity>, told: &Member<Identity>) -> bool {
    if known.id() == told.id() {
        known.state() == State::Down
    } else {
        known.id().win_addr_conflict(told.id())
    }
}

/// A member and its load, at most: 44 and 22 bytes with an IPv4 address.
const MEMBER_LEN: usize = 66;
/// Corrections fit one datagram, and who sends more that is wrong is corrected again.
const CORRECTIONS_MAX: usize = 12;
/// Seeds asked at once while nobody is known.
const GREETINGS_AT_ONCE: usize = 3;
const DOWNS_AT_ONCE: usize = 2;
/// Greetings that may be answered yet: three a second for their age, and some for healing.
const GREETINGS_MAX: usize = 64;
const GREETING_AGE: Duration = Duration::from_secs(5);
const RISE_PERIOD: Duration = Duration::from_secs(5);
