//! A client to negotiate with: it knows what browsers know, and tells it plainly.

use super::super::description::{Description, Direction, Section, Setup, Transport};
use super::super::parse::parse;
use super::super::write::write;
use super::fixture;

/// What a client writes for a kind of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brand {
    Chromium,
    Firefox,
}

#[derive(Debug, Clone)]
pub(super) struct Client {
    brand: Brand,
    pub(super) sections: Vec<Section>,
    /// What its transceivers would do.
    pub(super) wishes: Vec<Direction>,
    pub(super) restarts: u32,
    pub(super) used_mids: Vec<String>,
    /// Indexes of lines that both sides know to be stopped.
    free: Vec<usize>,
}

impl Client {
    pub(super) fn new(brand: Brand) -> Self {
        let (sections, wishes, used_mids, free) = Default::default();
        Self { brand, sections, wishes, restarts: 0, used_mids, free }
    }

    /// Adds a transceiver, in the place of a stopped one if there is one.
    pub(super) fn add(&mut self, media: &str, wish: Direction) -> usize {
        let mut number = 0_usize;
        while self.used_mids.contains(&number.to_string()) {
            number += 1;
        }
        self.add_as(&number.to_string(), media, wish)
    }

    pub(super) fn add_as(&mut self, mid: &str, media: &str, wish: Direction) -> usize {
        let mut section = template(self.brand, media);
        section.mid = Some(mid.to_owned());
        self.used_mids.push(mid.to_owned());
        let index = self.free.pop().unwrap_or(self.sections.len());
        if index == self.sections.len() {
            self.sections.push(section);
            self.wishes.push(wish);
        } else {
            self.sections[index] = section;
            self.wishes[index] = wish;
        }
        index
    }

    pub(super) fn stop(&mut self, index: usize) {
        self.sections[index].port = 0;
        self.wishes[index] = Direction::Inactive;
    }

    fn settle(&mut self) {
        let stopped = self.sections.iter().enumerate().filter(|(_, s)| s.is_stopped());
        self.free = stopped.map(|(index, _)| index).collect();
    }

    pub(super) fn offer(&self) -> String {
        self.describe(Setup::ActPass, |wish, _| wish, None)
    }

    /// Takes our answer to its offer.
    pub(super) fn take(&mut self, answer: &str) {
        let answer = parse(answer).expect("our answer");
        for (own, theirs) in self.sections.iter_mut().zip(answer.sections) {
            if theirs.port == 0 {
                own.port = 0;
            } else {
                own.maps.retain(|map| theirs.maps.iter().any(|of| of.pt == map.pt));
                own.formats = theirs.formats;
                own.extensions.retain(|map| theirs.extensions.iter().any(|of| of.id == map.id));
            }
        }
        self.settle();
    }

    /// Takes our offer, lets `decide` change what new transceivers do, and answers.
    pub(super) fn answer(
        &mut self,
        offer: &str,
        decide: impl Fn(usize, Direction) -> Option<Direction>,
    ) -> String {
        let offer = parse(offer).expect("our offer");
        for (index, theirs) in offer.sections.iter().enumerate() {
            let mid = theirs.mid.clone().expect("mid");
            let is_known = self.sections.get(index).is_some_and(|s| s.mid == theirs.mid);
            let mut section = theirs.clone();
            (section.ssrcs, section.groups, section.msid) = (Vec::new(), Vec::new(), None);
            (section.simulcast, section.rids) = (None, Vec::new());
            section.candidates.clear();
            if !is_known {
                let wish = theirs.direction.reversed();
                self.used_mids.push(mid);
                match self.wishes.get_mut(index) {
                    Some(known) => *known = wish,
                    None => self.wishes.push(wish),
                }
            }
            match decide(index, self.wishes[index]) {
                Some(wish) => self.wishes[index] = wish,
                None => section.port = 0,
            }
            match self.sections.get_mut(index) {
                Some(known) => *known = section,
                None => self.sections.push(section),
            }
        }
        self.settle();
        let offered = offer.sections.iter().map(|s| s.direction.reversed()).collect::<Vec<_>>();
        self.describe(Setup::Active, |wish, index| wish.and(offered[index]), offer.bundle)
    }

    fn describe(
        &self,
        setup: Setup,
        direction: impl Fn(Direction, usize) -> Direction,
        order: Option<Vec<String>>,
    ) -> String {
        let mut description = Description {
            origin: "- 1 1 IN IP4 127.0.0.1".to_owned(),
            allow_mixed: true,
            ..Description::default()
        };
        for (index, section) in self.sections.iter().enumerate() {
            let mut section = section.clone();
            section.direction = direction(self.wishes[index], index);
            section.transport = Transport {
                ufrag: Some(format!("ufrag{}", self.restarts)),
                pwd: Some("abcdefghijklmnopqrstuvwx".to_owned()),
                fingerprints: vec![super::FINGERPRINT.to_owned()],
                setup: Some(setup),
            };
            description.sections.push(section);
        }
        let live = |mid: &String| {
            self.sections.iter().any(|s| !s.is_stopped() && s.mid.as_ref() == Some(mid))
        };
        let all = self.sections.iter().filter_map(|s| s.mid.clone()).collect();
        let order: Vec<String> = order.unwrap_or(all);
        description.bundle = Some(order.into_iter().filter(live).collect());
        write(&description)
    }
}

/// The lines of a recorded offer of the brand, without what belongs to its transport.
fn template(brand: Brand, media: &str) -> Section {
    let text = match brand {
        Brand::Chromium => fixture!("chromium156_e_sendrecv_av_dc_all_codecs"),
        Brand::Firefox => fixture!("firefox153_e_sendrecv_av_dc_all_codecs"),
    };
    let recorded = parse(text).expect("recorded");
    let found = recorded.sections.into_iter().find(|section| section.media == media);
    let mut section = found.expect("a line of each kind");
    section.candidates.clear();
    (section.port, section.bundle_only) = (9, false);
    (section.ssrcs, section.groups, section.msid) = (Vec::new(), Vec::new(), None);
    section
}
