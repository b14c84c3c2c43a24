//! Nodes under everything at once, by seeds: viewers and publishers come and go, datagrams between
//! nodes are lost, late and doubled, letters are lost, connections break. Nobody ever gets what is
//! not theirs; once all is well, all that is pulled flows; when all have left, nothing is left.
//!
//! `SEED=n cargo test -p shards --test engine swarm` runs one seed, `SEEDS=n` the first `n`.

use std::collections::BTreeSet;

use shards::ids::SessionId;
use str0m::media::MediaKind;

use crate::hub;
use crate::world::{World, ms, pulling, random, remote, secs};

/// Enough to meet each fault with each kind of change.
const SEEDS: u64 = 12;
const STEPS: usize = 40;

const NAMES: [(&str, MediaKind); 2] = [("mic", MediaKind::Audio), ("cam", MediaKind::Video)];

struct Publisher {
    session: SessionId,
    /// Of its first track; the second has the next.
    number: u32,
}

struct Viewer {
    client: usize,
    session: SessionId,
    /// The tracks it pulled, and their session.
    of: SessionId,
    tracks: BTreeSet<u32>,
}

struct Swarm {
    world: World,
    random: Box<dyn FnMut() -> u64>,
    nodes: usize,
    shards: usize,
    publishers: Vec<Publisher>,
    viewers: Vec<Viewer>,
    broken: BTreeSet<(usize, usize)>,
    next: u32,
}

impl Swarm {
    fn new(seed: u64) -> Self {
        let mut random = random(seed);
        let (nodes, shards) = (2 + random() as usize % 2, 1 + random() as usize % 3);
        let world = World::of_nodes(nodes, shards);
        let (publishers, viewers, broken) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { world, random, nodes, shards, publishers, viewers, broken, next: 1 }
    }

    fn below(&mut self, most: usize) -> usize {
        (self.random)() as usize % most.max(1)
    }

    fn rage(&mut self) {
        let (loss, late, twice) =
            (self.below(20) as u64, self.below(40) as u64, self.below(10) as u64);
        let mut random = random((self.random)());
        self.world.network = Box::new(move |_, from, to, _| {
            if hub::node_at(from).is_none() || hub::node_at(to).is_none() {
                return vec![ms(0)];
            }
            let mut copy = || ms(random() % (late + 1));
            let copies = [copy(), copy()];
            match random() % 100 {
                roll if roll < loss => vec![],
                roll if roll < loss + twice => copies.into(),
                _ => vec![copies[0]],
            }
        });
    }

    fn publish(&mut self) {
        let shard = self.below(self.nodes * self.shards);
        let world = &mut self.world;
        let (client, session) = (world.add_client(), world.create(shard));
        let mids = world.push(client, session, &NAMES);
        for (at, mid) in mids.iter().enumerate() {
            world.flow(client, mid, self.next + at as u32);
        }
        world.connect(client);
        world.run(ms(100));
        self.publishers.push(Publisher { session, number: self.next });
        self.next += 2;
    }

    /// Pulls while nothing is broken: otherwise it may rightly be refused.
    fn view(&mut self) {
        if self.publishers.is_empty() || !self.broken.is_empty() || self.world.hub.loses {
            return;
        }
        let at = self.below(self.publishers.len());
        let Publisher { session: of, number } = self.publishers[at];
        let shard = self.below(self.nodes * self.shards);
        let some = 1 + self.below(3);
        let wanted = (0..2).filter(|track| some >> track & 1 == 1);
        let (names, tracks): (Vec<_>, BTreeSet<_>) =
            wanted.map(|track| ((of, NAMES[track].0), number + track as u32)).unzip();
        let (client, session, _) = self.world.viewer(shard, &names);
        self.viewers.push(Viewer { client, session, of, tracks });
    }

    fn leave(&mut self) {
        if self.viewers.is_empty() {
            return;
        }
        let at = self.below(self.viewers.len());
        let viewer = self.viewers.swap_remove(at);
        self.world.delete(viewer.session);
        self.check(&viewer);
    }

    fn unpublish(&mut self) {
        if self.publishers.len() < 2 {
            return;
        }
        let at = self.below(self.publishers.len());
        let Publisher { session, .. } = self.publishers.swap_remove(at);
        self.world.delete(session);
    }

    fn break_or_mend(&mut self) {
        let a = self.below(self.nodes);
        let b = (a + 1) % self.nodes;
        let pair = (a.min(b), a.max(b));
        if self.broken.remove(&pair) {
            self.world.hub.connect(a, b, self.shards);
        } else {
            self.broken.insert(pair);
            self.world.hub.disconnect(a, b, self.shards);
        }
    }

    fn step(&mut self) {
        match self.below(10) {
            0 => self.publish(),
            1..=3 => self.view(),
            4 => self.leave(),
            5 => self.unpublish(),
            6 => self.break_or_mend(),
            7 => self.rage(),
            8 => self.world.hub.loses = self.below(2) == 0,
            _ => {
                // A pull of a session that is no more, or of a track that never was.
                let viewer = self.world.create(0);
                let of = self.publishers.first().map_or(viewer, |publisher| publisher.session);
                let request = pulling(vec![remote(of, "nothing")]);
                let answer = self.world.new_tracks(viewer, request);
                assert!(format!("{answer:?}").contains("NotFound"), "{answer:?}");
                self.world.delete(viewer);
            }
        }
        let pause = self.below(400) as u64;
        self.world.run(ms(pause));
    }

    /// A viewer got nothing but its tracks, and nothing twice.
    fn check(&self, viewer: &Viewer) {
        let mut seen = BTreeSet::new();
        for got in &self.world.clients[viewer.client].got {
            let track = got.stamp().track;
            assert!(viewer.tracks.contains(&track), "{track} is none of {:?}", viewer.tracks);
            assert!(seen.insert((got.ssrc, got.seq)), "{} of {track} came twice", got.seq);
            assert!(
                seen.insert((track, u64::from(got.stamp().number) | 1 << 63)),
                "{track}: twice"
            );
        }
    }

    fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.broken) {
            self.world.hub.connect(a, b, self.shards);
        }
        self.world.hub.loses = false;
        self.world.network = Box::new(|_, _, _, _| vec![ms(0)]);
    }

    fn finish(mut self, seed: u64) {
        self.heal();
        self.world.run(secs(2));
        let before: Vec<_> =
            self.viewers.iter().map(|v| self.world.clients[v.client].got.len()).collect();
        self.world.run(secs(1));
        for (viewer, before) in self.viewers.iter().zip(before) {
            self.check(viewer);
            if !self.publishers.iter().any(|publisher| publisher.session == viewer.of) {
                continue;
            }
            let got = &self.world.clients[viewer.client].got[before..];
            for track in &viewer.tracks {
                let flowed = got.iter().filter(|got| got.stamp().track == *track).count();
                assert!(flowed >= 48, "seed {seed}: {flowed} of track {track} in a second");
            }
        }
        for session in self.viewers.iter().map(|viewer| viewer.session) {
            self.world.delete(session);
        }
        for session in self.publishers.iter().map(|publisher| publisher.session) {
            self.world.delete(session);
        }
        self.world.run(secs(10));
        for engine in &self.world.engines {
            assert!(engine.is_empty(), "seed {seed}: {engine:?}");
        }
    }
}

#[test]
fn whatever_happens_between_nodes_what_is_pulled_flows_afterwards() {
    let set = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let many = 1..=set("SEEDS").unwrap_or(SEEDS);
    let seeds = set("SEED").map_or(many, |seed| seed..=seed);
    let mut relayed = 0;
    for seed in seeds {
        let mut swarm = Swarm::new(seed);
        swarm.publish();
        for _ in 0..STEPS {
            swarm.step();
        }
        let engines = swarm.world.engines.iter();
        relayed += engines.map(|engine| engine.meters().packets_relayed_in).sum::<u64>();
        swarm.finish(seed);
    }
    assert!(relayed > 1000, "{relayed} packets went between nodes");
}
