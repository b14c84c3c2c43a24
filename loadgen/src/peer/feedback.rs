//! RTCP as a browser sends and takes it: receiver and sender reports once a second, transport-wide
//! feedback, NACK, PLI.

use std::time::{Duration, Instant};

use shards::media::receive::twcc::TwccRecorder;
use shards::media::rtcp::{
    Compound, Packet, ReportBlock, write_bye, write_nack, write_pli, write_receiver_report,
    write_sdes_cname, write_sender_report, write_twcc,
};

use super::Moment;
use super::publish::{Sending, Way};
use super::watch::Watching;
use crate::report::tally::Tally;

/// Reports of video (libwebrtc). Audio alone would report each 5 s.
const REPORT: Duration = Duration::from_secs(1);

/// Packets that publishers are asked for again at once; more is an outage.
const RESENDS_MAX: usize = 256;

/// What a compound may take, beside SRTCP's own bytes.
const COMPOUND: usize = 1150;

/// Blocks of one report (RFC 3550 §6.4.1: five bits).
const BLOCKS: usize = 31;

/// The RTCP side of one peer.
#[derive(Debug)]
pub(super) struct Feedback {
    /// Who reports.
    ssrc: u32,
    report_at: Instant,
    twcc: TwccRecorder,
    plain: Vec<u8>,
    blocks: Vec<ReportBlock>,
    resends: Vec<(usize, u16)>,
    /// When the first of them was asked for.
    resend_at: Option<Instant>,
}

impl Feedback {
    /// Reports of thousands of peers must not fall together: `ssrc` spreads them.
    pub(super) fn new(ssrc: u32, now: Instant) -> Self {
        let spread = REPORT.mul_f64(f64::from(ssrc) / f64::from(u32::MAX));
        Self {
            ssrc: ssrc.max(1),
            report_at: now + spread,
            twcc: TwccRecorder::new(now),
            plain: Vec::new(),
            blocks: Vec::new(),
            resends: Vec::new(),
            resend_at: None,
        }
    }

    /// A packet with a transport-wide sequence number arrived.
    #[inline]
    pub(super) fn arrived(&mut self, seq: u16, now: Instant) {
        self.twcc.on_packet(seq, now);
    }

    /// Takes a compound from the server.
    pub(super) fn read(
        &mut self,
        plain: &[u8],
        moment: Moment,
        sendings: &mut [Sending],
        watching: &mut Watching,
        tally: &mut Tally,
    ) {
        for packet in Compound::new(plain) {
            match packet {
                Packet::SenderReport(report) => {
                    watching.on_sender_report(report.info.ssrc, report.info.ntp, moment.now);
                }
                Packet::Nack(nack) => {
                    let of = |sending: &Sending| sending.ssrc() == nack.media;
                    let Some(at) = sendings.iter().position(of) else { continue };
                    for seq in nack.seqs() {
                        tally.nacks_in += 1;
                        if self.resends.len() < RESENDS_MAX {
                            self.resends.push((at, seq));
                            self.resend_at = self.resend_at.or(Some(moment.now));
                        }
                    }
                }
                Packet::Pli(pli) => {
                    tally.keyframe_requests += 1;
                    let mut all = sendings.iter_mut();
                    if let Some(sending) = all.find(|sending| sending.ssrc() == pli.media) {
                        sending.ask_for_keyframe();
                    }
                }
                Packet::Fir(fir) => {
                    tally.keyframe_requests += 1;
                    for entry in fir.entries() {
                        let mut all = sendings.iter_mut();
                        if let Some(sending) = all.find(|sending| sending.ssrc() == entry.media) {
                            sending.ask_for_keyframe();
                        }
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn timeout(&self, watching: &Watching) -> Option<Instant> {
        let others = self.twcc.next_deadline().into_iter().chain(watching.missing_at());
        others.chain(self.resend_at).chain([self.report_at]).min()
    }

    /// Sends what is due.
    pub(super) fn poll(
        &mut self,
        way: &mut Way<'_>,
        moment: Moment,
        sendings: &mut [Sending],
        watching: &mut Watching,
        tally: &mut Tally,
    ) {
        self.resend_at = None;
        for (at, seq) in self.resends.drain(..) {
            sendings[at].resend(seq, way);
        }
        if self.report_at <= moment.now {
            self.report_at = moment.now + REPORT;
            self.report(way, moment, sendings, watching);
        }
        self.ask_again(way, moment.now, watching, tally);
        self.tell_arrivals(way, moment.now);
    }

    fn report(
        &mut self,
        way: &mut Way<'_>,
        moment: Moment,
        sendings: &[Sending],
        watching: &mut Watching,
    ) {
        self.blocks.clear();
        watching.report_blocks(moment.now, &mut self.blocks);
        for blocks in self.blocks.chunks(BLOCKS) {
            self.plain.clear();
            write_receiver_report(&mut self.plain, self.ssrc, blocks);
            seal(way, &self.plain);
        }
        for info in sendings.iter().filter_map(|sending| sending.sender_info(moment)) {
            self.plain.clear();
            write_sender_report(&mut self.plain, &info, &[]);
            write_sdes_cname(&mut self.plain, info.ssrc, CNAME);
            seal(way, &self.plain);
        }
    }

    fn ask_again(
        &mut self,
        way: &mut Way<'_>,
        now: Instant,
        watching: &mut Watching,
        tally: &mut Tally,
    ) {
        let (ssrc, plain) = (self.ssrc, &mut self.plain);
        watching.missing(now, &mut |media, seqs, wants_keyframe| {
            plain.clear();
            if !seqs.is_empty() {
                tally.nacks_out += seqs.len() as u64;
                write_nack(plain, ssrc, media, seqs);
            }
            if wants_keyframe {
                write_pli(plain, ssrc, media);
            }
            seal(way, plain);
        });
    }

    fn tell_arrivals(&mut self, way: &mut Way<'_>, now: Instant) {
        let ssrc = self.ssrc;
        while let Some(report) = self.twcc.due(now) {
            let reference = u64::from(report.reference_time_64ms) * REFERENCE_TICKS;
            let arrival = |status: &Option<i32>| status.map(|at| reference + at as u64);
            let arrivals: Vec<Option<u64>> = report.statuses.iter().map(arrival).collect();
            self.plain.clear();
            let (count, base) = (report.feedback_count, report.base_seq);
            write_twcc(&mut self.plain, ssrc, 0, count, base, &arrivals, COMPOUND);
            if !self.plain.is_empty() {
                seal(way, &self.plain);
            }
        }
    }
}

/// Says goodbye for a stream, as libwebrtc does when it stops sending one: a compound of a report
/// without blocks, the stream's name, and BYE (RFC 3550 §6.6).
pub(super) fn goodbye(way: &mut Way<'_>, ssrc: u32) {
    let mut plain = Vec::new();
    write_receiver_report(&mut plain, ssrc, &[]);
    write_sdes_cname(&mut plain, ssrc, CNAME);
    write_bye(&mut plain, &[ssrc]);
    seal(way, &plain);
}

/// Of all peers: nobody joins their streams by it.
const CNAME: &[u8] = b"loadgen";

/// 64 ms in ticks of 250 µs.
const REFERENCE_TICKS: u64 = 256;

fn seal(way: &mut Way<'_>, plain: &[u8]) {
    let mut out = [0; 1500];
    if plain.len() + way.sealer.rtcp_overhead() > out.len() {
        return;
    }
    if let Some(len) = way.sealer.seal_rtcp(plain, &mut out) {
        (way.send)(&out[..len]);
    }
}

#[cfg(test)]
mod tests {
    use shards::media::srtp::{KeyingMaterial, Opener, Profile, Sealer};

    use super::*;

    #[test]
    fn a_goodbye_names_its_stream_in_a_compound_as_rfc_3550_wants_it() {
        let profile = Profile::AeadAes128Gcm;
        let material = KeyingMaterial::new(profile, &[7; 56]).unwrap();
        let (keys, _) = material.split(true);
        let (mut sealer, mut opener) = (Sealer::new(&keys), Opener::new(&keys));
        let mut sent = Vec::new();
        let mut send = |bytes: &[u8]| sent.push(bytes.to_vec());
        let mut way = Way { sealer: &mut sealer, transport_seq: &mut 0, send: &mut send };
        goodbye(&mut way, 99);
        let mut plain = [0; 1500];
        let len = opener.open_rtcp(&sent[0], &mut plain).unwrap();
        let packets: Vec<Packet<'_>> = Compound::new(&plain[..len]).collect();
        let [Packet::ReceiverReport(_), Packet::Sdes(_), Packet::Bye(bye)] = &packets[..] else {
            panic!("{packets:?}")
        };
        assert_eq!((bye.ssrcs().collect::<Vec<_>>(), sent.len()), (vec![99], 1));
    }
}
