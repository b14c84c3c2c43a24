//! The way in: a datagram is checked, opened, and its records are delivered.
//!
//! Invariants: a datagram is looked up in the replay window before it is opened, and noted after.
//! What one record has wrong is counted and the next is read.

use std::time::Instant;

use super::fault::Fault;
use super::lanes::Arrival;
use super::time::Echo;
use super::{CLOCK_AGE_MAX, Event, Link, UNPLACED_MAX};
use crate::replay::Seen;
use crate::wire::{Clock, Feedback, Fragment, Header, Media, Record, Records};

impl Link {
    /// A datagram arrived whose header names this link; its bytes are opened in place. Events
    /// go to `deliver` in order. An error says why the datagram was dropped; it is counted
    /// already, as are faults of single records, and the sender is not answered.
    #[inline]
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &mut [u8],
        mut deliver: impl FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        let opened = self.open(now, datagram);
        let (header, text) = opened.inspect_err(|fault| self.stats.faults.note(*fault))?;
        let at = self.at(now);
        self.gaps.on_datagram(header.number, at);
        self.heard_at = at;
        self.stats.datagrams_in += 1;
        self.stats.bytes_in += datagram_len(text);
        let mut elicits = false;
        for record in Records::new(text) {
            let done = match record {
                Ok(Record::Media { media, repair }) => {
                    elicits = true;
                    self.on_media(media, repair, at, &mut deliver)
                }
                Ok(Record::Fragment(fragment)) => {
                    elicits = true;
                    self.on_fragment(&fragment, at, &mut deliver)
                }
                Ok(record) => self.on_control(&record, header.number, at, &mut deliver),
                Err(_) => Err(Fault::Record),
            };
            if let Err(fault) = done {
                self.stats.faults.note(fault);
            }
        }
        if elicits {
            self.gaps.on_eliciting(at);
        }
        Ok(())
    }

    #[inline]
    fn open<'a>(
        &mut self,
        now: Instant,
        datagram: &'a mut [u8],
    ) -> Result<(Header, &'a [u8]), Fault> {
        let header = Header::parse(datagram).map_err(|_| Fault::Header)?;
        let Header { dst_shard, src_shard, link, number, .. } = header;
        if (link, dst_shard, src_shard) != (self.here.link, self.here.shard, self.there.shard) {
            return Err(Fault::Stray);
        }
        if self.replay.look(number) != Seen::New {
            return Err(Fault::Replayed);
        }
        let text = self.opener.open(&header, datagram, now).map_err(|_| Fault::Unauthentic)?;
        self.replay.note(number);
        Ok((header, text))
    }

    #[inline]
    fn on_media(
        &mut self,
        media: Media<'_>,
        repair: bool,
        at: u64,
        deliver: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        match self.lanes.on_packet(media.lane, media.source, media.seq, at) {
            Arrival::New => {
                self.stats.packets_in += 1;
                self.stats.repaired += u64::from(repair);
                deliver(Event::Media { media, repair });
                Ok(())
            }
            Arrival::Duplicate => {
                self.stats.duplicates += 1;
                Ok(())
            }
            Arrival::Unknown => Err(Fault::Lane),
        }
    }

    #[cold]
    fn on_fragment(
        &mut self,
        fragment: &Fragment<'_>,
        at: u64,
        deliver: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        let mut fragments = std::mem::take(&mut self.fragments);
        let done = match fragments.on_piece(fragment, at) {
            Ok(None) => Ok(()),
            Ok(Some(whole)) => {
                let mut records = Records::new(whole);
                match (records.next(), records.next()) {
                    // One packet and nothing else: a fragment is not made of fragments.
                    (Some(Ok(Record::Media { media, repair })), None) => {
                        self.on_media(media, repair, at, deliver)
                    }
                    _ => Err(Fault::Record),
                }
            }
            Err(fault) => Err(fault),
        };
        self.fragments = fragments;
        done
    }

    fn on_control(
        &mut self,
        record: &Record<'_>,
        number: u64,
        at: u64,
        deliver: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        match *record {
            Record::Clock(clock) => self.on_clock(clock, at, deliver),
            Record::Keyframe { lane, layer } => {
                deliver(Event::KeyframeRequest { lane, layer });
                Ok(())
            }
            Record::Feedback(feedback) => self.on_feedback(&feedback, number, at),
            Record::Ping { sent_at } => {
                // Several in one turn are answered once, the newest: its answer tells most.
                self.ping = Some((sent_at, at));
                Ok(())
            }
            Record::Pong { ping_sent_at, ping_received_at, sent_at } => {
                let echo = Echo {
                    sent_at: ping_sent_at,
                    received_at: ping_received_at,
                    answered_at: sent_at,
                };
                self.rtt.note(self.offset.note(&echo, at).ok_or(Fault::Record)?);
                for clock in std::mem::take(&mut self.unplaced) {
                    if let Err(fault) = self.on_clock(clock, at, deliver) {
                        self.stats.faults.note(fault);
                    }
                }
                Ok(())
            }
            Record::Unknown => {
                self.stats.unknown += 1;
                Ok(())
            }
            Record::Media { .. } | Record::Fragment(_) => Ok(()),
        }
    }

    /// Puts a clock on our timeline, now or once that is possible.
    fn on_clock(
        &mut self,
        clock: Clock<u64>,
        at: u64,
        deliver: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        let Some(offset) = self.offset.get(at) else {
            let same =
                |known: &&mut Clock<u64>| (known.lane, known.source) == (clock.lane, clock.source);
            if let Some(known) = self.unplaced.iter_mut().find(same) {
                *known = clock;
            } else if self.unplaced.len() < UNPLACED_MAX {
                self.unplaced.push(clock);
            }
            return Ok(());
        };
        let Clock { lane, layer, source, ntp, rtp, clock_rate, arrival } = clock;
        let arrival = arrival.checked_add_signed(-offset).ok_or(Fault::Record)?;
        if arrival.abs_diff(at) > CLOCK_AGE_MAX || clock_rate == 0 {
            return Err(Fault::Record);
        }
        let arrival = self.time.instant(arrival).ok_or(Fault::Record)?;
        deliver(Event::Clock(Clock { lane, layer, source, ntp, rtp, clock_rate, arrival }));
        Ok(())
    }

    fn on_feedback(&mut self, feedback: &Feedback<'_>, number: u64, at: u64) -> Result<(), Fault> {
        // It cannot have received what was not sent.
        if feedback.largest >= self.sent.next() {
            return Err(Fault::Record);
        }
        // Overtaken by a newer one, which told all that this one can.
        if number < self.report {
            return Ok(());
        }
        self.report = number;
        let Self { sent, repair, congestion, .. } = self;
        let mut told = sent.on_report(feedback.largest, at);
        for run in feedback.missing() {
            let offer = |bytes, packets: super::sent::Packets<'_>| {
                repair.offer(bytes, packets, congestion, at)
            };
            told.lost += sent.on_missing(run, offer);
        }
        let delay = told.sent_at.map(|sent_at| feedback.received_at as i64 - sent_at as i64);
        if let Some(sent_at) = told.sent_at
            && let Some(rtt) = at.checked_sub(sent_at + u64::from(feedback.held))
        {
            self.rtt.note(rtt);
        }
        if told.sent > 0 {
            self.tail_tries = 0;
        }
        self.stats.lost_out += told.lost;
        self.congestion.on_report(delay, told.sent, told.lost, at);
        Ok(())
    }
}

fn datagram_len(text: &[u8]) -> u64 {
    (text.len() + crate::wire::OVERHEAD) as u64
}
