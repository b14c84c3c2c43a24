//! What holds for any text and any sequence of negotiations.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::client::{Brand, Client};
use super::*;
use crate::command::MediaKind;

#[derive(Debug, Clone)]
enum Step {
    /// The client changes this, offers, and we answer with these roles.
    ClientOffer {
        changes: Vec<Change>,
        roles: Vec<u8>,
    },
    /// We offer this and the client decides line by line.
    OurOffer {
        wants: Vec<u8>,
        decisions: Vec<u8>,
    },
    Abandoned {
        wants: Vec<u8>,
    },
    /// An offer with an error in it.
    Broken(u8),
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Add { video: bool, wish: u8 },
    Turn { line: u8, wish: u8 },
    Stop { line: u8 },
    RestartIce,
}

fn wish(number: u8) -> Direction {
    Direction::new(number & 1 != 0, number & 2 != 0)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (any::<bool>(), 0_u8..4).prop_map(|(video, wish)| Change::Add { video, wish }),
        3 => (any::<u8>(), 0_u8..4).prop_map(|(line, wish)| Change::Turn { line, wish }),
        1 => any::<u8>().prop_map(|line| Change::Stop { line }),
        1 => Just(Change::RestartIce),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        4 => (prop::collection::vec(change(), 0..4), bytes(8))
            .prop_map(|(changes, roles)| Step::ClientOffer { changes, roles }),
        4 => (bytes(4), bytes(8))
            .prop_map(|(wants, decisions)| Step::OurOffer { wants, decisions }),
        1 => bytes(4).prop_map(|wants| Step::Abandoned { wants }),
        1 => any::<u8>().prop_map(Step::Broken),
    ]
}

struct World {
    negotiator: Negotiator,
    client: Client,
    next_ssrc: u32,
    /// Mids of all descriptions that were agreed on.
    agreed_mids: Vec<String>,
    /// The client began by offering one line of each kind.
    introduced: bool,
}

impl World {
    fn new(negotiator: Negotiator, client: Client) -> Self {
        let (agreed_mids, introduced) = (Vec::new(), false);
        Self { negotiator, client, next_ssrc: 0, agreed_mids, introduced }
    }

    fn spec(&mut self) -> SendSpec {
        self.next_ssrc += 2;
        let preferred = [
            None,
            Some(codec(crate::media::format::Codec::Vp9, "profile-id=2")),
            Some(codec(crate::media::format::Codec::H264, "profile-level-id=64002a")),
        ];
        spec(self.next_ssrc, preferred[self.next_ssrc as usize / 2 % 3].clone())
    }

    fn client_offer(&mut self, changes: &[Change], roles: &[u8]) {
        let before = self.client.clone();
        for change in changes {
            self.change(*change);
        }
        if self.client.sections.is_empty() {
            return;
        }
        let text = self.client.offer();
        let Ok(offer) = self.negotiator.read_offer(&text) else {
            assert!(self.client.sections.iter().all(|section| section.port == 0));
            assert!(self.negotiator.remote().is_none());
            self.client = before;
            return;
        };
        let mut plan = Vec::new();
        for (line, role) in offer.lines().iter().zip(roles) {
            let fits = (line.direction.sends(), line.direction.receives());
            let role = match (role % 5, fits) {
                (1, _) => Role::Close,
                (2, (true, _)) => Role::Receive,
                (3, (_, true)) => Role::Send(self.spec()),
                (4, (true, true)) => Role::Both(self.spec()),
                _ => continue,
            };
            if !line.stopped {
                plan.push((line.mid.clone(), role));
            }
        }
        let (answer, _) = self.negotiator.answer(offer, &plan, &local()).expect("answer");
        check_answer(&parse(&text).expect("offer"), &answer);
        self.client.take(&answer);
    }

    fn change(&mut self, change: Change) {
        let count = self.client.sections.len();
        let pick = |line: u8| (count > 0).then(|| usize::from(line) % count);
        match change {
            Change::Add { video, wish: way } => {
                self.client.add(if video { "video" } else { "audio" }, wish(way));
            }
            Change::Turn { line, wish: way } => {
                if let Some(line) = pick(line)
                    && self.client.sections[line].port != 0
                {
                    self.client.wishes[line] = wish(way);
                }
            }
            Change::Stop { line } => {
                if let Some(line) = pick(line) {
                    self.client.stop(line);
                }
            }
            Change::RestartIce => self.client.restarts += 1,
        }
    }

    fn wants(&mut self, wants: &[u8]) -> Vec<Want> {
        let mut made = Vec::new();
        for want in wants {
            let (video, spec) = (want & 1 != 0, self.spec());
            let kind = if video { MediaKind::Video } else { MediaKind::Audio };
            let spec = match spec.preferred {
                Some(_) if !video => SendSpec { preferred: None, ..spec },
                _ => spec,
            };
            made.push(match want % 8 / 2 {
                0 | 1 => Want::Send { kind, spec },
                2 => Want::Receive { kind, both: None },
                _ => Want::Receive { kind, both: Some(spec) },
            });
        }
        made
    }

    fn our_offer(&mut self, wants: &[u8], decisions: &[u8]) {
        let wants = self.wants(wants);
        let used = self.agreed_mids.clone();
        let old: Vec<String> = self.negotiator.lines().iter().map(|l| l.mid.clone()).collect();
        let Ok((offer, mids)) = self.negotiator.offer(&wants, &local()) else {
            assert!(wants.is_empty() && old.is_empty());
            return;
        };
        assert_eq!(mids.len(), wants.len());
        for mid in mids.iter().filter(|mid| !old.contains(mid)) {
            assert!(!used.contains(mid), "mid {mid} was used");
        }
        let ours = check_ours(&offer);
        check_meanings(&ours, &mids);
        // Then it never contradicts itself, and Chromium checks that we do not either.
        if self.introduced {
            let all: Vec<String> = ours.sections.iter().filter_map(|s| s.mid.clone()).collect();
            check_meanings(&ours, &all);
        }
        let before = self.client.clone();
        let answer = self.client.answer(&offer, |index, own| {
            match decisions.get(index).map_or(1, |decision| decision % 8) {
                0 => None,
                2 => Some(Direction::Inactive),
                _ => Some(own),
            }
        });
        match self.negotiator.accept_answer(&answer) {
            Ok((_, rejected)) => {
                for (mid, want) in mids.iter().zip(&wants) {
                    let line = self.negotiator.line(mid).expect("line");
                    let met = match want {
                        Want::Send { .. } => line.sending.is_some(),
                        Want::Receive { both: None, .. } => line.receiving.is_some(),
                        Want::Receive { both: Some(_), .. } => {
                            line.receiving.is_some() && line.sending.is_some()
                        }
                        Want::Data => line.data.is_some(),
                    };
                    assert_eq!(met, !rejected.iter().any(|line| line.mid == *mid), "{mid}");
                }
            }
            Err(error) => {
                assert_eq!(error, BadTransport::NothingUsable.into());
                assert_eq!(self.negotiator.signaling(), Signaling::HaveLocalOffer);
                assert!(self.negotiator.remote().is_none());
                self.negotiator.abandon_offer();
                self.client = before;
            }
        }
    }

    fn abandoned(&mut self, wants: &[u8]) {
        let wants = self.wants(wants);
        let before = state(&self.negotiator);
        if self.negotiator.offer(&wants, &local()).is_ok() {
            self.negotiator.abandon_offer();
        }
        assert_eq!(state(&self.negotiator), before);
    }

    fn broken(&mut self, how: u8) {
        if self.client.sections.is_empty() {
            return;
        }
        let text = self.client.offer();
        let text = match how % 4 {
            0 => text.replace("a=rtcp-mux\r\n", "").replace("a=ice-pwd", "a=x"),
            1 => text.replace("a=mid:", "a=mid: x"),
            2 => text.replace("a=fingerprint:sha-256 0", "a=fingerprint:sha-256 1"),
            _ => text.replacen("m=", "m=x ", 1),
        };
        let before = state(&self.negotiator);
        if let Ok(offer) = self.negotiator.read_offer(&text) {
            let nobody = [("nobody".to_owned(), Role::Close)];
            assert!(self.negotiator.answer(offer, &nobody, &local()).is_err());
        }
        assert_eq!(state(&self.negotiator), before);
    }
}

/// All of the state but the version.
fn state(negotiator: &Negotiator) -> String {
    let Negotiator { lines, bundle, remote, heard, numbers, pending, revision, .. } = negotiator;
    format!("{lines:?} {bundle:?} {remote:?} {heard:?} {numbers:?} {pending:?} {revision}")
}

/// Payload types and extension ids of the lines we made mean the same on every line.
fn check_meanings(offer: &Description, mids: &[String]) {
    let mut types: BTreeMap<u8, (String, u32, String)> = BTreeMap::new();
    let mut ids: BTreeMap<u16, String> = BTreeMap::new();
    let ours = |section: &&Section| section.mid.as_ref().is_some_and(|mid| mids.contains(mid));
    for section in offer.sections.iter().filter(ours) {
        for map in &section.maps {
            let meaning = (map.name.clone(), map.clock_rate, section.fmtp(map.pt).to_owned());
            assert_eq!(types.entry(map.pt).or_insert_with(|| meaning.clone()), &meaning);
        }
        for map in &section.extensions {
            assert_eq!(ids.entry(map.id).or_insert_with(|| map.uri.clone()), &map.uri);
        }
    }
    for section in &offer.sections {
        for map in &section.maps {
            if let Some(meaning) = types.get(&map.pt) {
                let (name, clock_rate, fmtp) = meaning;
                assert_eq!((name, clock_rate), (&map.name, &map.clock_rate), "{}", map.pt);
                assert_eq!(fmtp, section.fmtp(map.pt), "{}", map.pt);
            }
        }
        for map in &section.extensions {
            assert!(ids.get(&map.id).is_none_or(|uri| *uri == map.uri));
        }
    }
}

fn check_state(negotiator: &Negotiator, before: &[Line]) {
    let lines = negotiator.lines();
    assert!(lines.len() >= before.len(), "m-lines never go away");
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line.index, index);
        assert_eq!(lines.iter().filter(|other| other.mid == line.mid).count(), 1);
        assert!(!line.stopped || line.direction() == Direction::Inactive);
        if let Some(was) = before.get(index) {
            assert!(was.stopped || was.mid == line.mid, "a live line keeps its mid");
        }
        for codecs in [
            line.sending.as_ref().map(|sending| &sending.codecs),
            line.receiving.as_ref().map(|receiving| &receiving.codecs),
        ]
        .into_iter()
        .flatten()
        {
            assert!(!codecs.is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_sequence_of_negotiations_keeps_the_invariants(
        firefox in any::<bool>(),
        introduced in any::<bool>(),
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let brand = if firefox { Brand::Firefox } else { Brand::Chromium };
        let (negotiator, client) = (Negotiator::new(1), Client::new(brand));
        let mut world = World::new(negotiator, client);
        if introduced {
            let add = |video| Change::Add { video, wish: 0 };
            world.client_offer(&[add(false), add(true)], &[]);
        }
        world.introduced = introduced;
        for step in steps {
            let before = world.negotiator.lines().to_vec();
            match step {
                Step::ClientOffer { changes, roles } => world.client_offer(&changes, &roles),
                Step::OurOffer { wants, decisions } => world.our_offer(&wants, &decisions),
                Step::Abandoned { wants } => world.abandoned(&wants),
                Step::Broken(how) => world.broken(how),
            }
            check_state(&world.negotiator, &before);
            let mids = world.negotiator.lines().iter().map(|line| line.mid.clone());
            world.agreed_mids.extend(mids);
        }
    }

    #[test]
    fn no_text_makes_reading_panic(
        text in "\\PC{0,200}",
        lines in prop::collection::vec("[a-z]=\\PC{0,40}", 0..20),
    ) {
        let _ = parse(&text);
        let _ = Negotiator::new(1).read_offer(&format!("v=0\n{}", lines.join("\n")));
    }

    #[test]
    fn no_mutation_of_a_real_offer_makes_answering_panic(
        which in 0_usize..4,
        cuts in prop::collection::vec(
            (any::<prop::sample::Index>(), "\\PC{0,6}", 0_usize..12),
            1..6,
        ),
    ) {
        let mut text = [
            fixture!("chromium156_b_simulcast_3rids"),
            fixture!("firefox153_e_sendrecv_av_dc_all_codecs"),
            fixture!("aiortc1.16_offer_default"),
            fixture!("whip_offer_gst_whipclientsink_0.13.7"),
        ][which].to_owned();
        for (at, with, length) in cuts {
            let floor = |mut at: usize| {
                while !text.is_char_boundary(at) { at -= 1 }
                at
            };
            let start = floor(at.index(text.len()));
            let end = floor((start + length).min(text.len())).max(start);
            text.replace_range(start..end, &with);
            prop_assume!(!text.is_empty());
        }
        let mut negotiator = Negotiator::new(1);
        if let Ok(offer) = negotiator.read_offer(&text) {
            let parsed = parse(&text).expect("it was read");
            let (answer, _) = negotiator.answer(offer, &[], &local()).expect("it was read");
            check_ours(&answer);
            assert_eq!(parse(&answer).expect("answer").sections.len(), parsed.sections.len());
        }
        negotiator = Negotiator::new(1);
        let want = |kind| Want::Send { kind, spec: spec(1, None) };
        let wants = [want(MediaKind::Audio), want(MediaKind::Video)];
        negotiator.offer(&wants, &local()).expect("offer");
        let _ = negotiator.accept_answer(&text);
    }

    #[test]
    fn what_we_write_reads_back_the_same(wants in prop::collection::vec(any::<u8>(), 1..8)) {
        let (negotiator, client) = (Negotiator::new(1), Client::new(Brand::Chromium));
        let mut world = World::new(negotiator, client);
        let wants = world.wants(&wants);
        let (offer, _) = world.negotiator.offer(&wants, &local()).expect("offer");
        let mut read = parse(&offer).expect("offer");
        read.origin = "- 0 1 IN IP4 0.0.0.0".to_owned();
        for section in &mut read.sections {
            // Candidates are written only.
            if Some(&section.mid) == read.bundle.as_ref().map(|b| b.first().cloned()).as_ref() {
                section.candidates = vec![
                    "1 1 udp 2130706431 192.0.2.1 3478 typ host".to_owned(),
                    "2 1 udp 2130706175 2001:db8::1 3478 typ host".to_owned(),
                ];
            }
        }
        prop_assert_eq!(write::write(&read), offer);
    }
}
