//! Strangers and madmen: random and mutated datagrams, random commands. Nothing panics, the
//! tables stay bounded, and those who behave notice nothing.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use shards::command::{
    Ask, CloseRequest, Description, Location, MediaKind as Kind, SdpKind, Simulcast, TrackObject,
    TracksRequest,
};
use shards::ids::SessionId;
use shards::outbox::MAX_DATAGRAM;
use str0m::media::{Direction, MediaKind};

use crate::media::BOTH;
use crate::world::{FRAME, World, ms, random, secs, shard_address};

type Random = Box<dyn FnMut() -> u64>;

/// Where a datagram went, and its bytes.
type Heard = (SocketAddr, Vec<u8>);

fn pick<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random() as usize % from.len()].clone()
}

/// Every datagram that reaches a shard is followed by mutations of it, from its own address
/// and from others'.
#[test]
fn mutated_datagrams_disturb_nobody() {
    for seed in 1..4 {
        let mut world = World::new(2);
        let (publisher, session, _) = world.publisher(0, &BOTH);
        let (viewer, _, _) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
        let stranger = SocketAddr::from(([10, 9, 9, 9], 9));
        let sources = [world.clients[publisher].external, world.clients[viewer].external, stranger];
        let mut random = random(seed);
        let tape: Rc<RefCell<Vec<Heard>>> = Rc::default();
        let heard = Rc::clone(&tape);
        world.network = Box::new(move |_, _, to, bytes| {
            heard.borrow_mut().push((to, bytes.to_vec()));
            vec![ms(0)]
        });
        for _ in 0..150 {
            for (to, bytes) in tape.take() {
                if to != shard_address(0) && to != shard_address(1) {
                    continue;
                }
                for _ in 0..3 {
                    let mut bytes = mutated(&mut random, &bytes);
                    let from = pick(&mut random, &sources);
                    world.deliver(from, to, &mut bytes);
                }
            }
            world.run(FRAME);
        }
        for track in [1, 2] {
            let numbers = world.clients[viewer].numbers(track);
            assert!(numbers.len() > 140, "seed {seed}: {} of track {track}", numbers.len());
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "seed {seed}");
        }
        let faults = world.engines[0].meters().faults.clone();
        assert!(faults.unauthentic > 10 && faults.unknown_source > 10, "{faults:?}");
    }
}

fn mutated(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match random() % 5 {
        0 => bytes.truncate(random() as usize % (bytes.len() + 1)),
        1 => bytes.resize(random() as usize % (MAX_DATAGRAM + 100), random() as u8),
        2 => bytes.iter_mut().skip(4).for_each(|byte| *byte = random() as u8),
        _ => {
            for _ in 0..=random() % 4 {
                if !bytes.is_empty() {
                    let at = random() as usize % bytes.len();
                    bytes[at] ^= 1 << (random() % 8);
                }
            }
        }
    }
    bytes
}

#[test]
fn commands_in_any_order_leave_nothing_behind() {
    for seed in 1..13 {
        let mut world = World::new(3);
        let (_, watched, _) = world.publisher(0, &BOTH);
        let (viewer, viewing, _) = world.viewer(2, &[(watched, "mic"), (watched, "cam")]);
        let mut random = random(seed);
        let mut players: Vec<(usize, SessionId)> = Vec::new();
        for n in 0..4 {
            let player = (world.add_client(), world.create(n % 3));
            players.push(player);
        }
        for _ in 0..150 {
            let (client, session) = pick(&mut random, &players);
            let ask = any_ask(&mut world, &mut random, client, session, watched, &players);
            let ticket = world.tell(random() as usize % 3, ask);
            if random().is_multiple_of(2) {
                world.run(ms(random() % 300));
            }
            answer_in_kind(&mut world, &mut random, client, session, ticket);
        }
        world.run(secs(2));
        let since = world.now;
        world.run(secs(1));
        for track in [1, 2] {
            let got = world.clients[viewer].track(track);
            let recent = got.iter().filter(|got| got.at > since).count();
            assert!(recent > 45, "seed {seed}: {recent} packets of track {track}");
        }
        for (_, session) in players {
            let _ = world.ask(0, Ask::Delete { session });
        }
        world.delete(viewing);
        world.delete(watched);
        world.flows.clear();
        world.run(secs(10));
        for engine in &world.engines {
            assert!(engine.is_empty(), "seed {seed}: {engine:?}");
        }
    }
}

/// Half of the time the client does with an answer what a client should.
fn answer_in_kind(
    world: &mut World,
    random: &mut Random,
    client: usize,
    session: SessionId,
    ticket: shards::mail::Ticket,
) {
    let Some(Ok(shards::command::Reply::Tracks(reply))) = world.answer_to(ticket) else { return };
    let Some(Description { kind: SdpKind::Offer, sdp }) = reply.description else { return };
    if !random().is_multiple_of(4) {
        let offer = str0m::change::SdpOffer::from_sdp_string(&sdp).unwrap();
        if let Ok(answer) = world.clients[client].rtc.sdp_api().accept_offer(offer) {
            let sdp = answer.to_sdp_string();
            let description = Description { kind: SdpKind::Answer, sdp };
            world.tell(0, Ask::Renegotiate { session, description });
        }
    }
}

fn any_ask(
    world: &mut World,
    random: &mut Random,
    client: usize,
    session: SessionId,
    watched: SessionId,
    players: &[(usize, SessionId)],
) -> Ask {
    let mids = ["0", "1", "2", "#cam", "x", ""];
    let names = ["mic", "cam", "x", "y", ""];
    let track = |random: &mut Random, location: Location| TrackObject {
        location: (!random().is_multiple_of(50)).then_some(location),
        mid: (random().is_multiple_of(3)).then(|| pick(random, &mids).to_owned()),
        session_id: (!random().is_multiple_of(20)).then(|| match random() % 3 {
            0 => pick(random, players).1.to_string(),
            1 => "nobody".into(),
            _ => watched.to_string(),
        }),
        track_name: (!random().is_multiple_of(20)).then(|| pick(random, &names).to_owned()),
        bidirectional: random().is_multiple_of(2),
        kind: Some(pick(random, &[Kind::Audio, Kind::Video])),
        simulcast: (random().is_multiple_of(3))
            .then(|| Simulcast { preferred_rid: Some("q".into()), ..Simulcast::default() }),
    };
    let tracks = |random: &mut Random, location: Location| {
        (0..random() % 4).map(|_| track(random, location)).collect::<Vec<_>>()
    };
    let offer = |world: &mut World, random: &mut Random| {
        let directions = [Direction::SendOnly, Direction::RecvOnly, Direction::SendRecv];
        let kind = pick(random, &[MediaKind::Audio, MediaKind::Video]);
        let sdp = match random() % 4 {
            0 => "v=0\r\n".into(),
            _ => world.clients[client].offer(&[kind], pick(random, &directions)).0,
        };
        Description { kind: pick(random, &[SdpKind::Offer, SdpKind::Offer, SdpKind::Answer]), sdp }
    };
    match random() % 8 {
        0..=2 => {
            let location = pick(random, &[Location::Local, Location::Remote, Location::Remote]);
            let offer = (random().is_multiple_of(3)).then(|| offer(world, random));
            let tracks = tracks(random, location);
            let auto_discover = random().is_multiple_of(8);
            Ask::NewTracks { session, request: TracksRequest { offer, tracks, auto_discover } }
        }
        3 => Ask::Renegotiate { session, description: offer(world, random) },
        4 => {
            let offer = (random().is_multiple_of(2)).then(|| offer(world, random));
            let mids = (0..random() % 3).map(|_| pick(random, &mids).to_owned()).collect();
            let force = random().is_multiple_of(2);
            Ask::CloseTracks { session, request: CloseRequest { mids, force, offer } }
        }
        5 | 6 => Ask::UpdateTracks { session, tracks: tracks(random, Location::Remote) },
        _ if random().is_multiple_of(10) => Ask::Delete { session },
        _ => Ask::Describe { session },
    }
}
