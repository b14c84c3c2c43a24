//! RTCP: what clients tell of what they receive, and what they are told.
//!
//! To subscribers: sender reports on the publisher's own time line, with the publisher's
//! CNAME, so that audio and video of one publisher stay in sync. To publishers: receiver
//! reports, NACKs, transport-wide feedback, keyframe requests.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Engine, SessionKey};
use crate::limits::{CONTROL_QUEUED, DATAGRAM_LEN};
use crate::mail::Mail;
use crate::media::receive::report::ReportBlockData;
use crate::media::receive::twcc::TwccRecorder;
use crate::media::rtcp::{
    Compound, DlrrItem, FirEntry, Packet, ReportBlock, SenderInfo, XrBlock, write_dlrr, write_fir,
    write_nack, write_pli, write_receiver_report, write_sdes_cname, write_sender_report,
    write_twcc,
};
use crate::session::Session;
use crate::session::ingress::Ingress;
use crate::switch::feed::{FeedKey, PullKey};

/// How often reports go out, both ways. Browsers send theirs every second too.
pub(super) const REPORTS: Duration = Duration::from_secs(1);

/// Reports of all sessions go out together, this often: a shard wakes up 50 times a second for
/// them, not once a second for each of its sessions.
const TOGETHER: Duration = Duration::from_millis(20);

/// Room for one plain compound, below what any network carries after sealing.
const COMPOUND_LEN: usize = 1100;

/// A received compound says something about at most this many packets to resend; the rest of a
/// longer list comes again.
const NACKED_MAX: usize = 512;

/// Streams one compound is heard about: two full reports. Each costs a look-up.
const HEARD_MAX: usize = 62;

/// What one compound asks for, gathered before anything is done.
#[derive(Debug, Default)]
struct Heard {
    reports: Vec<(u32, u64, u32)>,
    acknowledged: Vec<u32>,
    nacked: Vec<(u32, u16)>,
    pictures: Vec<u32>,
    references: Vec<DlrrItem>,
}

impl Engine {
    /// Takes a client's RTCP datagram.
    pub(super) fn take_rtcp(&mut self, key: SessionKey, bytes: &[u8], now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Ok(len) = session.ingress.open_rtcp(bytes, &mut self.scratch) else {
            self.meters.faults.unauthentic += 1;
            return;
        };
        let heard = listen(&self.scratch[..len]);
        self.meters.nacks_received += heard.nacked.len() as u64;
        self.meters.keyframes_wanted += heard.pictures.len() as u64;
        self.reported(key, now);
        for (ssrc, ntp, rtp) in heard.reports {
            self.publisher_reported(key, ssrc, ntp, rtp, now);
        }
        for ssrc in heard.acknowledged {
            if let Some(pull) = self.pull_by_ssrc(key, ssrc).and_then(|p| self.pulls.get_mut(p))
                && !pull.is_acknowledged()
            {
                pull.acknowledge();
            }
        }
        // Numbers of one stream come in a row: found once for all of them.
        let mut found: Option<(u32, Option<PullKey>)> = None;
        for (ssrc, seq) in heard.nacked {
            let pull = match found {
                Some((last, pull)) if last == ssrc => pull,
                _ => self.pull_by_ssrc(key, ssrc),
            };
            found = Some((ssrc, pull));
            if let Some(pull) = pull {
                self.queue_resend(pull, seq, now);
            }
        }
        for ssrc in heard.pictures {
            if let Some(pull) = self.pull_by_ssrc(key, ssrc).and_then(|p| self.pulls.get(p)) {
                let (feed, layer) = (pull.feed, pull.forwarded_layer().unwrap_or(pull.layer));
                self.want_keyframe(feed, layer, now);
            }
        }
        if !heard.references.is_empty() {
            let mut plain = Vec::with_capacity(64);
            let reporter = self.sessions.get(key).map_or(1, |s| s.ingress.reporter);
            write_dlrr(&mut plain, reporter, &heard.references);
            self.send_rtcp(key, &plain);
        }
    }

    fn publisher_reported(&mut self, key: SessionKey, ssrc: u32, ntp: u64, rtp: u32, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let stream = session.ingress.streams.iter_mut().find(|stream| stream.ssrc == ssrc);
        let Some(stream) = stream.filter(|stream| !stream.repairs) else { return };
        stream.stats.on_sender_report(ntp, now);
        stream.clock.on_sender_report(ntp, rtp, now);
        let (clock, layer, mid) = (stream.clock.clone(), stream.layer, stream.mid.clone());
        let source = stream.source;
        let feed = session.published.iter().find(|p| p.mid == mid).and_then(|p| p.feed);
        let Some(key) = feed else { return };
        self.export_clock(key, layer, source, &clock);
        let Some(feed) = self.feeds.get_mut(key) else { return };
        for watcher in &feed.watchers {
            let (mirror, clock) = (watcher.mirror, clock.clone());
            self.mail.push((watcher.shard, Mail::Clock { mirror, layer, source, clock }));
        }
        if let Some(layer) = feed.layers.get_mut(usize::from(layer)) {
            layer.clock = Some((source, clock));
        }
    }

    fn pull_by_ssrc(&self, key: SessionKey, ssrc: u32) -> Option<PullKey> {
        let session = self.sessions.get(key)?;
        session
            .pulled
            .iter()
            .filter_map(|pulled| pulled.pull())
            .find(|pull| self.pulls.get(*pull).is_some_and(|pull| pull.out.ssrc == ssrc))
    }

    /// Asks a publisher for a keyframe of one layer.
    pub(super) fn send_keyframe_request(&mut self, key: SessionKey, feed: FeedKey, layer: u8) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let ingress = &mut session.ingress;
        let Some(inlet) = ingress.inlet_of(feed) else { return };
        let (mid, wants_pli) = (inlet.mid.clone(), inlet.wants_pli);
        let Some(stream) = ingress.stream_of(&mid, layer) else { return };
        let (media, reporter) = (stream.ssrc, ingress.reporter);
        let mut plain = Vec::with_capacity(32);
        if wants_pli {
            write_pli(&mut plain, reporter, media);
        } else {
            ingress.fir_seq = ingress.fir_seq.wrapping_add(1);
            write_fir(&mut plain, reporter, &[FirEntry { media, seq: ingress.fir_seq }]);
        }
        self.meters.keyframes_asked += 1;
        self.send_rtcp(key, &plain);
    }

    /// Sends the reports that are due.
    pub(super) fn report(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut compounds = Vec::new();
        let needy = repair_requests(session, &mut compounds, &mut self.meters.nacks_sent, now);
        let due = session.report_at.is_none_or(|at| at <= now);
        if due && session.egress.open().is_some() {
            session.report_at = Some(next_together(self.epoch, now + REPORTS));
            receiver_reports(session, &mut compounds, now);
            self.sender_reports(key, &mut compounds, now);
        }
        for plain in compounds {
            self.send_rtcp(key, &plain);
        }
        for (feed, layer) in needy {
            self.want_keyframe(feed, layer, now);
        }
    }

    /// When [`Self::report`] has something to do.
    pub(super) fn next_report(&self, session: &Session) -> Option<Instant> {
        session.egress.to?;
        let streams = &session.ingress.streams;
        let nacks = streams.iter().filter_map(|s| s.nack.as_ref()?.next_deadline()).min();
        let twcc = session.ingress.twcc.as_ref().and_then(TwccRecorder::next_deadline);
        let busy = streams.iter().any(|stream| stream.live)
            || session.pulled.iter().any(|pulled| pulled.pull().is_some());
        let regular = busy.then_some(session.report_at).flatten();
        [nacks, twcc, regular].into_iter().flatten().min()
    }

    fn sender_reports(&mut self, key: SessionKey, compounds: &mut Vec<Vec<u8>>, now: Instant) {
        let Some(session) = self.sessions.get(key) else { return };
        let mut plain = Vec::with_capacity(COMPOUND_LEN);
        for pull in session.pulled.iter().filter_map(|p| self.pulls.get(p.pull()?)) {
            let Some(info) = self.sender_info(pull, now) else { continue };
            let Some(meta) = self.feeds.get(pull.feed).and_then(|f| f.meta.as_ref()) else {
                continue;
            };
            if plain.len() + 96 > COMPOUND_LEN {
                compounds.push(std::mem::replace(&mut plain, Vec::with_capacity(COMPOUND_LEN)));
            }
            write_sender_report(&mut plain, &info, &[]);
            write_sdes_cname(&mut plain, info.ssrc, meta.cname.as_bytes());
        }
        if !plain.is_empty() {
            compounds.push(plain);
        }
    }

    /// The sender report of a pull: the publisher's clock, shifted as its timestamps are.
    fn sender_info(&self, pull: &crate::switch::pull::Pull, now: Instant) -> Option<SenderInfo> {
        let feed = self.feeds.get(pull.feed)?;
        let layer = feed.layers.get(usize::from(pull.forwarded_layer()?))?;
        let (source, offset) = pull.time_line()?;
        // A report on the clock of a former source would put the new one out of sync.
        let (_, clock) = layer.clock.as_ref().filter(|(of, _)| *of == source)?;
        let (ntp, rtp) = clock.extrapolate(now)?;
        Some(SenderInfo {
            ssrc: pull.out.ssrc,
            ntp,
            rtp: rtp.wrapping_add(offset),
            packets: pull.packets,
            octets: pull.octets,
        })
    }

    /// Seals a plain compound and queues it.
    fn send_rtcp(&mut self, key: SessionKey, plain: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some((remote, local)) = session.egress.to else { return };
        let Some(sealer) = session.egress.sealer_mut() else { return };
        let mut sealed = vec![0; plain.len() + sealer.rtcp_overhead()];
        let Some(len) = sealer.seal_rtcp(plain, &mut sealed) else { return };
        sealed.truncate(len);
        self.queue_control(remote, local, sealed);
    }

    fn queue_control(&mut self, remote: SocketAddr, local: SocketAddr, bytes: Vec<u8>) {
        if self.control.len() < CONTROL_QUEUED && bytes.len() <= DATAGRAM_LEN {
            self.control.push_back((remote, local, bytes));
        } else {
            self.meters.control_dropped += 1;
        }
    }
}

/// The first moment from `at` on at which reports go out.
pub(super) fn next_together(epoch: Instant, at: Instant) -> Instant {
    let since = at.saturating_duration_since(epoch).as_nanos();
    let since = since.next_multiple_of(TOGETHER.as_nanos());
    epoch + Duration::from_nanos(u64::try_from(since).unwrap_or(u64::MAX))
}

fn listen(plain: &[u8]) -> Heard {
    let mut heard = Heard::default();
    for packet in Compound::new(plain) {
        match packet {
            Packet::SenderReport(report) => {
                let info = report.info;
                heard.reports.push((info.ssrc, info.ntp, info.rtp));
                heard.acknowledged.extend(report.blocks().map(|block| block.ssrc));
            }
            Packet::ReceiverReport(report) => {
                heard.acknowledged.extend(report.blocks().map(|block| block.ssrc));
            }
            Packet::Nack(nack) => {
                let room = NACKED_MAX - heard.nacked.len().min(NACKED_MAX);
                heard.nacked.extend(nack.seqs().take(room).map(|seq| (nack.media, seq)));
            }
            Packet::Pli(pli) => heard.pictures.push(pli.media),
            Packet::Fir(fir) => heard.pictures.extend(fir.entries().map(|entry| entry.media)),
            Packet::Xr(xr) => {
                heard.references.extend(xr.blocks().filter_map(|block| match block {
                    // RFC 3611 §4.5: answered at once, so without a delay to tell.
                    XrBlock::ReferenceTime { ntp } => Some(DlrrItem {
                        ssrc: xr.sender,
                        last_rr: (ntp >> 16) as u32,
                        delay_since_last_rr: 0,
                    }),
                    XrBlock::Dlrr(_) => None,
                }))
            }
            // A stream that ends falls silent; estimation and adaptation read the others.
            Packet::Bye(_) | Packet::Remb(_) | Packet::Twcc(_) | Packet::Sdes(_) => {}
        }
        heard.bound();
    }
    heard
}

impl Heard {
    /// Keeps of each kind what an honest compound has, and each picture asked for once.
    fn bound(&mut self) {
        self.pictures.sort_unstable();
        self.pictures.dedup();
        self.reports.truncate(HEARD_MAX);
        self.acknowledged.truncate(HEARD_MAX);
        self.pictures.truncate(HEARD_MAX);
        self.references.truncate(HEARD_MAX);
    }
}

/// NACKs and transport-wide feedback. Returns the layers that lost more than resends repair.
fn repair_requests(
    session: &mut Session,
    compounds: &mut Vec<Vec<u8>>,
    asked: &mut u64,
    now: Instant,
) -> Vec<(FeedKey, u8)> {
    let mut needy = Vec::new();
    let ingress = &mut session.ingress;
    let reporter = ingress.reporter;
    for stream in &mut ingress.streams {
        let ssrc = stream.ssrc;
        let Some(repair) = stream.nack.as_mut().and_then(|nack| nack.due(now)) else { continue };
        let mut plain = Vec::with_capacity(COMPOUND_LEN);
        let mut rest = repair.sequence_numbers;
        while !rest.is_empty() && plain.len() < COMPOUND_LEN / 2 {
            let told = write_nack(&mut plain, reporter, ssrc, rest);
            rest = &rest[told..];
            *asked += told as u64;
        }
        if repair.wants_keyframe {
            needy.push((stream.mid.clone(), stream.layer));
        }
        if !plain.is_empty() {
            compounds.push(plain);
        }
    }
    transport_feedback(ingress, compounds, now);
    needy.into_iter().filter_map(|(mid, layer)| Some((ingress.feed_of(&mid)?, layer))).collect()
}

fn transport_feedback(ingress: &mut Ingress, compounds: &mut Vec<Vec<u8>>, now: Instant) {
    let reporter = ingress.reporter;
    let media = ingress.streams.first().map_or(0, |stream| stream.ssrc);
    let Some(twcc) = &mut ingress.twcc else { return };
    while let Some(report) = twcc.due(now) {
        let reference = u64::from(report.reference_time_64ms) * 256;
        let ticks = |delta: i32| reference.wrapping_add_signed(i64::from(delta));
        let arrivals: Vec<_> = report.statuses.iter().map(|s| s.map(ticks)).collect();
        let mut plain = Vec::with_capacity(COMPOUND_LEN);
        let count = report.feedback_count;
        write_twcc(&mut plain, reporter, media, count, report.base_seq, &arrivals, COMPOUND_LEN);
        if !plain.is_empty() {
            compounds.push(plain);
        }
    }
}

fn receiver_reports(session: &mut Session, compounds: &mut Vec<Vec<u8>>, now: Instant) {
    let ingress = &mut session.ingress;
    let block = |ssrc: u32, data: ReportBlockData| ReportBlock {
        ssrc,
        fraction_lost: data.fraction_lost,
        lost: data.cumulative_lost,
        highest_seq: data.highest_sequence,
        jitter: data.jitter,
        last_sr: data.last_sender_report,
        delay_since_last_sr: data.delay_since_last,
    };
    let mut blocks = Vec::new();
    for stream in &mut ingress.streams {
        let report = stream.stats.report(now);
        stream.live = report.is_some();
        blocks.extend(report.map(|data| block(stream.ssrc, data)));
    }
    // RFC 3550 §6.4.2: at most 31 blocks in one report.
    for blocks in blocks.chunks(31) {
        let mut plain = Vec::with_capacity(COMPOUND_LEN);
        write_receiver_report(&mut plain, ingress.reporter, blocks);
        compounds.push(plain);
    }
}
