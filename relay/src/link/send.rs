//! The way out: packets and small records into datagrams, sealed into the caller's arena.
//!
//! The datagram being built lies here in the clear, and is sealed once, from here into the slot
//! of the sink. It ends when the next record does not fit, and with the turn. Datagrams are made
//! equal where a few zeros do it, so that the kernel gets them in one piece: up to the longest
//! of a run, or to what the next one, or the origin's padding, says will come.
//!
//! Invariants: records leave in the order in which they were given. No datagram is longer than
//! the path carries; none is padded by more than [`PADDING_MAX`].

use std::time::Instant;

use super::congestion::Class;
use super::repair::Lost;
use super::sent::SentPacket;
use super::{Link, Sink};
use crate::wire::feedback::{self, MissingRun, RUNS_MAX};
use crate::wire::record::{
    CONTROL_LEN_MAX, FRAGMENT_HEAD_LEN, FRAGMENTS_MAX, PREFIX_LEN, Record, write_feedback_prefix,
    write_fragment_head,
};
use crate::wire::{
    Clock, DATAGRAM_MAX, DATAGRAM_MIN, DATAGRAM_USUAL, Fragment, LaneId, Media, OVERHEAD,
};

/// Zeros that a datagram is made longer by, at most: what another walk through the kernel costs
/// is worth about so many bytes.
pub(super) const PADDING_MAX: usize = 64;

/// The datagram being built.
#[derive(Debug)]
pub(super) struct Build {
    text: Box<[u8; DATAGRAM_MAX]>,
    len: usize,
    /// What the records may take.
    room: usize,
    /// What the origin padded the only packet by.
    hint: usize,
    /// The length of the records of the datagrams before it, if it may follow them in one piece.
    run: usize,
    /// A whole record that is cut into fragments.
    whole: Vec<u8>,
    fragment: u16,
}

impl Build {
    pub(super) fn new() -> Self {
        Self {
            text: Box::new([0; DATAGRAM_MAX]),
            len: 0,
            room: DATAGRAM_USUAL - OVERHEAD,
            hint: 0,
            run: 0,
            whole: Vec::new(),
            fragment: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn set_mtu(&mut self, bytes: usize) {
        self.room = bytes.clamp(DATAGRAM_MIN, DATAGRAM_MAX) - OVERHEAD;
        self.run = 0;
    }

    /// How long to make the records, `next` being the length of what comes after, 0 at the end.
    fn padded(&self, next: usize) -> usize {
        let near = |other: usize| (self.len..=self.len + PADDING_MAX).contains(&other);
        if self.run > 0 && self.len <= self.run {
            // The last of a run may be shorter.
            return if next > 0 && near(self.run) { self.run } else { self.len };
        }
        let ahead = [self.len + self.hint, next].into_iter().filter(|ahead| near(*ahead));
        let longest = ahead.fold(self.len, usize::max);
        if longest <= self.room { longest } else { self.len }
    }
}

impl Link {
    /// Sends a packet to the other side's lane. A packet longer than
    /// [`RECORD_MAX`](crate::wire::RECORD_MAX) is counted and dropped.
    #[inline]
    pub fn push(&mut self, now: Instant, media: &Media<'_>, class: Class, sink: &mut impl Sink) {
        let at = self.at(now);
        let packet = SentPacket::new(media.lane, media.source, media.seq, class, at);
        self.send(media, false, packet, at, sink);
    }

    /// Sends a packet again that [`poll_resend`](Self::poll_resend) named.
    pub fn resend(&mut self, now: Instant, lost: Lost, media: &Media<'_>, sink: &mut impl Sink) {
        debug_assert_eq!((lost.lane, lost.source, lost.seq), (media.lane, media.source, media.seq));
        self.stats.resent += 1;
        let at = self.at(now);
        self.send(media, true, lost.packet.tried_again(), at, sink);
    }

    /// Tells the publisher's clock of one layer. The caller repeats it with each report of the
    /// publisher.
    pub fn clock(&mut self, now: Instant, clock: &Clock<Instant>, sink: &mut impl Sink) {
        let Clock { lane, layer, source, ntp, rtp, clock_rate, arrival } = *clock;
        let arrival = self.time.at(arrival);
        let clock = Clock { lane, layer, source, ntp, rtp, clock_rate, arrival };
        let at = self.at(now);
        self.control(&Record::Clock(clock), at, sink);
    }

    /// Asks for a keyframe of one layer of a lane of ours. The caller repeats it until one
    /// comes.
    pub fn keyframe(&mut self, now: Instant, lane: LaneId, layer: u8, sink: &mut impl Sink) {
        let at = self.at(now);
        self.control(&Record::Keyframe { lane, layer }, at, sink);
    }

    /// Ends the turn: adds what is due by itself, and sends the datagram that was being built.
    pub fn flush(&mut self, now: Instant, sink: &mut impl Sink) {
        let at = self.at(now);
        self.sealer.turn(now);
        // An answer carries a report along: whoever asks may have lost the last one.
        if self.gaps.is_due(at) || self.ping.is_some() {
            self.feedback(at, sink);
        }
        if let Some((ping_sent_at, ping_received_at)) = self.ping.take() {
            let pong = Record::Pong { ping_sent_at, ping_received_at, sent_at: at };
            self.control(&pong, at, sink);
        }
        if self.ping_due() <= at {
            self.control(&Record::Ping { sent_at: at }, at, sink);
            self.pinged_at = Some(at);
        }
        self.close(0, at, sink);
        self.build.run = 0;
    }

    #[inline]
    fn send(
        &mut self,
        media: &Media<'_>,
        repair: bool,
        packet: SentPacket,
        at: u64,
        sink: &mut impl Sink,
    ) {
        let len = media.record_len();
        if len > self.build.room {
            self.send_fragments(media, repair, packet, at, sink);
            return;
        }
        if !media.is_sendable() {
            self.stats.too_large += 1;
            return;
        }
        self.make_room(len, at, sink);
        let build = &mut self.build;
        build.hint = if build.len == 0 { usize::from(media.padding) } else { 0 };
        media.write(repair, &mut build.text[build.len..]);
        build.len += len;
        self.sent.add(packet);
        self.stats.packets_out += 1;
    }

    #[cold]
    fn send_fragments(
        &mut self,
        media: &Media<'_>,
        repair: bool,
        packet: SentPacket,
        at: u64,
        sink: &mut impl Sink,
    ) {
        if !media.is_sendable() {
            self.stats.too_large += 1;
            return;
        }
        let mut whole = std::mem::take(&mut self.build.whole);
        whole.resize(media.record_len(), 0);
        media.write(repair, &mut whole);
        let count = whole.len().div_ceil(self.build.room - FRAGMENT_HEAD_LEN);
        debug_assert!(count <= FRAGMENTS_MAX);
        self.build.fragment = self.build.fragment.wrapping_add(1);
        let (id, total) = (self.build.fragment, whole.len() as u16);
        // All of one length but the last, which the kernel likes and the receiver relies on.
        let pieces = whole.chunks(whole.len().div_ceil(count));
        for (index, piece) in (0..).zip(pieces) {
            let len = FRAGMENT_HEAD_LEN + piece.len();
            self.make_room(len, at, sink);
            let build = &mut self.build;
            build.hint = 0;
            let out = &mut build.text[build.len..][..len];
            write_fragment_head(&Fragment { id, index, count: count as u8, total, piece }, out);
            out[FRAGMENT_HEAD_LEN..].copy_from_slice(piece);
            build.len += len;
            self.sent.add(packet);
        }
        self.stats.packets_out += 1;
        self.build.whole = whole;
    }

    fn control(&mut self, record: &Record<'_>, at: u64, sink: &mut impl Sink) {
        self.make_room(CONTROL_LEN_MAX, at, sink);
        let build = &mut self.build;
        build.len += record.write_control(&mut build.text[build.len..]);
        build.hint = 0;
    }

    fn feedback(&mut self, at: u64, sink: &mut impl Sink) {
        self.make_room(PREFIX_LEN + feedback::len_max(RUNS_MAX), at, sink);
        let mut runs = [MissingRun { first: 0, len: 0 }; RUNS_MAX];
        let Some(report) = self.gaps.report(at, &mut runs) else { return };
        let held = (at - report.received_at).min(0xff_ffff) as u32;
        let build = &mut self.build;
        let out = &mut build.text[build.len..];
        let runs = report.runs.iter().copied();
        let fields = &mut out[PREFIX_LEN..];
        let len = feedback::write(fields, report.largest, report.received_at, held, runs);
        write_feedback_prefix(len, out);
        build.len += PREFIX_LEN + len;
        build.hint = 0;
    }

    #[inline]
    fn make_room(&mut self, len: usize, at: u64, sink: &mut impl Sink) {
        if self.build.len + len > self.build.room {
            self.close(len, at, sink);
        }
    }

    /// Seals the datagram being built; `next` as in [`Build::padded`]. If the sink has no room,
    /// it is forgotten: what does not fit this turn is not worth more in the next.
    fn close(&mut self, next: usize, at: u64, sink: &mut impl Sink) {
        let build = &mut self.build;
        if build.len == 0 {
            return;
        }
        let (len, padded) = (build.len, build.padded(next));
        build.len = 0;
        let Some(out) = sink.slot().get_mut(..padded + OVERHEAD) else {
            self.stats.no_room += 1;
            self.sent.abandon();
            return;
        };
        build.text[len..padded].fill(0);
        let sealed = self.sealer.seal(&build.text[..padded], out);
        sink.commit(sealed);
        build.run = if padded < build.run { 0 } else { padded };
        self.sent.on_sent(sealed, at);
        self.repair.on_sent(sealed, self.congestion.repair_percent(), at);
        self.spoke_at = at;
        self.stats.datagrams_out += 1;
        self.stats.bytes_out += sealed as u64;
        self.stats.padding_out += (padded - len) as u64;
    }
}

// Everything that is due by itself fits the smallest datagram.
const _: () = assert!(
    PREFIX_LEN + feedback::len_max(RUNS_MAX) + 2 * CONTROL_LEN_MAX <= DATAGRAM_MIN - OVERHEAD
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::State;
    use super::super::testing::{Datagrams, ends, lone, media, ms, start};
    use super::*;
    use crate::seal::{LinkSecret, PairSecret};

    #[test]
    fn small_packets_share_a_datagram_and_a_turn_ends_it() {
        let (mut link, now) = quiet();
        let mut out = Datagrams::default();
        for seq in 0..15 {
            link.push(now, &media(1, seq, &[7; 100]), Class::Audio, &mut out);
        }
        assert_eq!(out.lens(), [10 * 123 + OVERHEAD], "an eleventh would not fit");
        link.flush(now, &mut out);
        assert_eq!(out.lens()[1..], [5 * 123 + OVERHEAD]);
    }

    #[test]
    fn neighbours_are_padded_to_the_longest_of_a_run_and_the_last_is_not() {
        for (lens, expected) in [
            // Cut about equally: the last ones a byte longer. Only the next is seen.
            (&[1000, 1001, 1001, 1001][..], &[1001, 1001, 1001, 1001][..]),
            (&[1000, 1000, 1001, 1001], &[1000, 1000, 1001, 1001]),
            (&[1200, 1200, 1150, 1200, 900], &[1200, 1200, 1200, 1200, 900]),
            (&[1200, 1190], &[1200, 1190]),
            // More than 64 bytes are not given away.
            (&[1200, 1100, 1200], &[1200, 1100, 1200]),
            (&[1000, 1100, 1090], &[1000, 1100, 1090]),
        ] {
            let (mut link, now) = quiet();
            let mut out = Datagrams::default();
            for (seq, len) in (0..).zip(lens) {
                link.push(now, &media(1, seq, &vec![7; *len]), Class::Video, &mut out);
            }
            link.flush(now, &mut out);
            let lens: Vec<_> = out.lens().iter().map(|len| len - 23 - OVERHEAD).collect();
            assert_eq!(lens, expected);
        }
    }

    #[test]
    fn the_origins_padding_tells_what_will_come() {
        let (mut link, now) = quiet();
        let mut out = Datagrams::default();
        for (seq, len, padding) in [(0, 1000, 1), (1, 1000, 1), (2, 1001, 0), (3, 1001, 0)] {
            let payload = vec![7; len];
            let media = Media { padding, ..media(1, seq, &payload) };
            link.push(now, &media, Class::Video, &mut out);
        }
        link.flush(now, &mut out);
        assert_eq!(out.lens(), [1001 + 23 + OVERHEAD; 4]);
        assert_eq!(link.stats().padding_out, 2);
    }

    #[test]
    fn no_datagram_is_longer_than_the_path_carries() {
        let (mut link, now) = quiet();
        for mtu in [0, DATAGRAM_MIN, 700, 1352, 1400, 5000] {
            link.set_mtu(mtu);
            let mut out = Datagrams::default();
            for (seq, len) in (0..).zip([100, 1300, 40, 1395, 0, 4000, 660, 4073]) {
                link.push(now, &media(1, seq, &vec![7; len]), Class::Video, &mut out);
            }
            link.flush(now, &mut out);
            let most = mtu.clamp(DATAGRAM_MIN, DATAGRAM_MAX);
            assert!(out.lens().iter().all(|len| *len <= most), "{mtu}: {:?}", out.lens());
            assert!(out.lens().iter().sum::<usize>() > 11_568);
        }
        assert_eq!(link.stats().too_large, 0);
        let mut out = Datagrams::default();
        link.push(now, &media(1, 9, &[7; 4074]), Class::Video, &mut out);
        assert_eq!(link.stats().too_large, 1);
    }

    #[test]
    fn an_instant_before_the_last_one_is_taken_for_that() {
        let (here, there) = ends();
        let [mut one, mut two] = [(here, there), (there, here)].map(|(here, there)| {
            Link::new(LinkSecret::new(PairSecret::new(&[1; 32]), here, there), start())
        });
        let (mut out, mut back) = (Datagrams::default(), Datagrams::default());
        one.push(start(), &media(1, 0, &[7; 100]), Class::Video, &mut out);
        one.flush(start(), &mut out);
        two.handle_datagram(start() + ms(10), &mut out.sent[0], |_| ()).unwrap();
        two.flush(start(), &mut back);
        assert_eq!(two.spoke_at, two.heard_at, "answered when it was asked, not before");
        one.handle_datagram(start() - ms(1000), &mut back.sent[0], |_| ()).unwrap();
        one.handle_timeout(start() - ms(2000));
        assert_eq!(one.state(), State::Ok);
        assert_eq!(one.rtt(), Some(Duration::ZERO), "no time has passed");
    }

    #[test]
    fn without_room_in_the_sink_nothing_is_kept() {
        let (mut link, now) = quiet();
        let mut out = Datagrams::default();
        out.room = 1;
        for seq in 0..5 {
            link.push(now, &media(1, seq, &[7; 1200]), Class::Video, &mut out);
        }
        link.flush(now, &mut out);
        let stats = link.stats();
        assert_eq!((out.lens().len(), stats.datagrams_out, stats.no_room), (1, 2, 4));
        assert_eq!(link.timeout().unwrap(), now + ms(280));
    }

    #[test]
    fn an_idle_link_pings_every_five_seconds_and_one_with_tracks_ten_times_a_second() {
        for (active, least, most) in [(false, 10, 12), (true, 95, 102)] {
            let mut link = lone();
            link.set_active(active);
            let (begin, mut pings) = (start(), 0);
            let mut now = begin;
            while now < begin + ms(10_000) {
                let mut out = Datagrams::default();
                link.handle_timeout(now);
                link.flush(now, &mut out);
                pings += out.lens().len();
                let next = link.timeout().unwrap();
                assert!(next > now, "time goes on");
                now = next;
            }
            // Nothing ever answers, so the clock stays unknown.
            assert!((least..most).contains(&pings), "{pings} pings");
        }
    }

    /// A link that has said what it says by itself.
    fn quiet() -> (Link, Instant) {
        let (mut link, now) = (lone(), start());
        link.flush(now, &mut Datagrams::default());
        (link, now)
    }
}
