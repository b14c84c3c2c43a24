//! What a peer receives: every header is checked, a sampled share of payloads is opened and
//! compared bit by bit.

use std::time::Instant;

use shards::media::receive::nack::NackGenerator;
use shards::media::receive::report::ReceptionStats;
use shards::media::rtcp::ReportBlock;
use shards::media::rtp::{self, RtpHeader};
use shards::media::srtp::Opener;

use super::Moment;
use super::feedback::Feedback;
use super::lines::{self, ServerLine};
use crate::media::video::{self, Part};
use crate::probe::{self, Lost, Order, Place, Published, Stamp};
use crate::report::tally::Tally;

#[cfg(test)]
mod tests;

/// All that arrives at one peer.
#[derive(Debug)]
pub(super) struct Watching {
    lines: Vec<ServerLine>,
    /// Which track each line was asked for.
    expected: Vec<(String, u32)>,
    streams: Vec<Stream>,
    /// The stream of the last packet: packets come in runs.
    last: usize,
    /// Packets are checked whose lot has none of these bits.
    check_mask: u64,
    /// Nanoseconds since the epoch.
    last_media: u64,
    scratch: Vec<u8>,
    /// What streams had lost that are no more.
    lost: Lost,
}

/// One SSRC.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    /// Of its line. Kept here, because not every server announces its SSRCs.
    mid: String,
    is_rtx: bool,
    is_video: bool,
    /// The payload types its line has for it.
    pts: Vec<u8>,
    transport_cc: Option<u8>,
    track: Option<u32>,
    order: Order,
    nack: NackGenerator,
    stats: ReceptionStats,
    /// What probe numbers are behind sequence numbers; a server may begin anywhere, but must
    /// not leave out or insert.
    offset: Option<i64>,
    /// When the last packet came, nanoseconds since the epoch.
    last: u64,
    /// When the first packet came that can be shown: of video, a keyframe's.
    began: Option<u64>,
}

impl Watching {
    pub(super) fn new(check_each: u32) -> Self {
        Self {
            lines: Vec::new(),
            expected: Vec::new(),
            streams: Vec::new(),
            last: 0,
            check_mask: u64::from(check_each.next_power_of_two() - 1),
            last_media: 0,
            scratch: Vec::new(),
            lost: Lost::default(),
        }
    }

    /// Takes what the server's description says will arrive.
    pub(super) fn read(&mut self, sdp: &str) {
        self.lines = lines::read(sdp);
        // A later description may number its codecs and extensions anew. What it does not say of
        // an SSRC stays as it was learned.
        for stream in &mut self.streams {
            let announced = self.lines.iter().find(|line| line.announces(stream.ssrc));
            let line = announced.or_else(|| self.lines.iter().find(|l| l.mid == stream.mid));
            let Some(line) = line else { continue };
            stream.pts.clone_from(if stream.is_rtx { &line.rtx_pts } else { &line.pts });
            stream.transport_cc = line.transport_cc;
            if stream.mid != line.mid {
                stream.mid.clone_from(&line.mid);
                stream.track = track_of(&self.expected, &line.mid);
            }
        }
    }

    pub(super) fn expect(&mut self, mid: &str, track: u32) {
        self.expected.retain(|(other, _)| other != mid);
        self.expected.push((mid.to_owned(), track));
        for stream in self.streams.iter_mut().filter(|stream| stream.mid == mid) {
            stream.track = Some(track);
        }
    }

    #[inline]
    pub(super) fn receive(
        &mut self,
        opener: &Opener,
        bytes: &[u8],
        moment: Moment,
        feedback: &mut Feedback,
        tally: &mut Tally,
    ) {
        let Ok(header) = RtpHeader::parse(bytes) else {
            tally.corrupted += 1;
            return;
        };
        let Some(at) = self.stream(&header) else {
            tally.foreign += 1;
            return;
        };
        let stream = &mut self.streams[at];
        // RFC 8843 §9.2: a payload type says of which line it is, and how it is coded.
        if !stream.pts.contains(&header.payload_type) {
            tally.foreign += 1;
            return;
        }
        if let Some(id) = stream.transport_cc
            && let Some((_, data)) = header.elements().find(|(other, _)| *other == id)
            && let Some(seq) = rtp::transport_seq(data)
        {
            feedback.arrived(seq, moment.now);
        }
        let Some(number) = stream.order.extend(header.seq) else {
            tally.ancient += 1;
            return;
        };
        if stream.is_rtx {
            self.receive_again(opener, bytes, &header, number, moment, at, tally);
            return;
        }
        match stream.order.note(number) {
            Place::Next | Place::Ahead => {}
            Place::Late => tally.reordered += 1,
            Place::Duplicate => {
                tally.duplicated += 1;
                return;
            }
            // Counted lost already; that it came late changes nothing there.
            Place::Ancient => {
                tally.ancient += 1;
                return;
            }
        }
        tally.packets_out += 1;
        tally.bytes_out += bytes.len() as u64;
        self.last_media = moment.unix;
        stream.last = moment.unix;
        if stream.is_video {
            stream.nack.on_packet(number, moment.now);
        }
        stream.stats.on_packet(number, header.timestamp, moment.now);
        // Until a stream can be shown all of it is opened: a keyframe is looked for.
        if lot(header.ssrc, number) & self.check_mask == 0 || stream.began.is_none() {
            let len = bytes.len();
            self.scratch.resize(len.max(self.scratch.len()), 0);
            let (ssrc, scratch) = (header.ssrc, &mut self.scratch);
            let opened = opener.open_rtp(bytes, header.header_len, ssrc, number, scratch);
            let opened = opened.ok().map(|len| &scratch[..len]);
            match opened.and_then(|opened| content(opened, header.has_padding)) {
                Some(payload) => stream.check(payload, number, moment, tally),
                None => tally.corrupted += 1,
            }
        }
    }

    /// A repair: the packet it carries counts as received.
    #[expect(clippy::too_many_arguments, reason = "one call, on a rare path")]
    fn receive_again(
        &mut self,
        opener: &Opener,
        bytes: &[u8],
        header: &RtpHeader<'_>,
        number: u64,
        moment: Moment,
        at: usize,
        tally: &mut Tally,
    ) {
        if matches!(self.streams[at].order.note(number), Place::Duplicate | Place::Ancient) {
            tally.duplicated += 1;
            return;
        }
        self.scratch.resize(bytes.len().max(self.scratch.len()), 0);
        let scratch = &mut self.scratch;
        let opened = opener.open_rtp(bytes, header.header_len, header.ssrc, number, scratch);
        let Ok(len) = opened else {
            tally.corrupted += 1;
            return;
        };
        tally.resent += 1;
        let Some(opened) = content(&scratch[..len], header.has_padding) else {
            tally.corrupted += 1;
            return;
        };
        // RFC 4588 §4: the original sequence number comes first. Empty: padding to probe with.
        let Some((original, payload)) = opened.split_first_chunk::<2>() else { return };
        let original = u16::from_be_bytes(*original);
        let Some(media) = repaired(&self.lines, &self.streams, at) else { return };
        let stream = &mut self.streams[media];
        let Some(number) = stream.order.extend(original) else { return };
        stream.nack.on_packet(number, moment.now);
        if matches!(stream.order.note(number), Place::Next | Place::Ahead | Place::Late) {
            tally.packets_out += 1;
            stream.check(payload, number, moment, tally);
        }
    }

    #[inline]
    fn stream(&mut self, header: &RtpHeader<'_>) -> Option<usize> {
        if self.streams.get(self.last).is_some_and(|stream| stream.ssrc == header.ssrc) {
            return Some(self.last);
        }
        let known = self.streams.iter().position(|stream| stream.ssrc == header.ssrc);
        self.last = known.or_else(|| self.new_stream(header))?;
        Some(self.last)
    }

    /// The first packet of an SSRC: which line it belongs to, by description, by its MID, or by
    /// a payload type that only one line has.
    #[cold]
    fn new_stream(&mut self, header: &RtpHeader<'_>) -> Option<usize> {
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        let (ssrc, pt) = (header.ssrc, header.payload_type);
        let mid_of = |line: &ServerLine| {
            let id = line.mid_extension?;
            let (_, data) = header.elements().find(|(other, _)| *other == id)?;
            rtp::sdes_text(data)
        };
        let known = |line: &&ServerLine| line.announces(ssrc);
        let named = |line: &&ServerLine| mid_of(line) == Some(line.mid.as_str());
        let typed = |line: &&ServerLine| line.pts.contains(&pt) || line.rtx_pts.contains(&pt);
        let lines = &self.lines;
        let found = lines.iter().find(known).or_else(|| lines.iter().find(named));
        let line = found.or_else(|| {
            let mut having = lines.iter().filter(typed);
            having.next().filter(|_| having.next().is_none())
        })?;
        let is_rtx = line.rtx_pts.contains(&pt);
        let track = track_of(&self.expected, &line.mid);
        let alike = |stream: &Stream| stream.mid == line.mid && stream.is_rtx == is_rtx;
        if self.streams.iter().filter(|stream| alike(stream)).count() >= SSRCS_PER_LINE {
            let eldest = self.streams.iter().position(alike)?;
            let mut gone = self.streams.remove(eldest);
            let lost = if is_rtx { Lost::default() } else { gone.order.finish() };
            self.lost.all += lost.all;
            self.lost.early += lost.early;
        }
        self.streams.push(Stream {
            ssrc,
            mid: line.mid.clone(),
            is_rtx,
            is_video: line.is_video,
            pts: if is_rtx { line.rtx_pts.clone() } else { line.pts.clone() },
            transport_cc: line.transport_cc,
            track,
            order: Order::default(),
            nack: NackGenerator::default(),
            stats: ReceptionStats::new(if line.is_video { 90_000 } else { 48_000 }),
            offset: None,
            last: 0,
            began: None,
        });
        Some(self.streams.len() - 1)
    }

    /// The peer moves: what is sent to where it was is not the server's loss.
    pub(super) fn moved(&mut self) {
        for stream in &mut self.streams {
            stream.order.forgive();
        }
    }

    pub(super) fn on_sender_report(&mut self, ssrc: u32, ntp: u64, now: Instant) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            stream.stats.on_sender_report(ntp, now);
        }
    }

    /// What a receiver report says now.
    pub(super) fn report_blocks(&mut self, now: Instant, blocks: &mut Vec<ReportBlock>) {
        for stream in self.streams.iter_mut().filter(|stream| !stream.is_rtx) {
            let Some(data) = stream.stats.report(now) else { continue };
            blocks.push(ReportBlock {
                ssrc: stream.ssrc,
                fraction_lost: data.fraction_lost,
                lost: data.cumulative_lost,
                highest_seq: data.highest_sequence,
                jitter: data.jitter,
                last_sr: data.last_sender_report,
                delay_since_last_sr: data.delay_since_last,
            });
        }
    }

    /// When [`Self::missing`] has something to ask for.
    pub(super) fn missing_at(&self) -> Option<Instant> {
        self.streams.iter().filter_map(|stream| stream.nack.next_deadline()).min()
    }

    /// What to ask for again: (ssrc, sequence numbers, whether only a keyframe helps).
    pub(super) fn missing(&mut self, now: Instant, each: &mut dyn FnMut(u32, &[u16], bool)) {
        for stream in &mut self.streams {
            if let Some(repair) = stream.nack.due(now) {
                each(stream.ssrc, repair.sequence_numbers, repair.wants_keyframe);
            }
        }
    }

    pub(super) fn settle_losses(&mut self, tally: &mut Tally) {
        tally.lose(std::mem::take(&mut self.lost));
        for stream in self.streams.iter_mut().filter(|stream| !stream.is_rtx) {
            tally.lose(stream.order.take_lost());
        }
    }

    /// What was sent up to here belongs to no measurement.
    pub(super) fn begin(&mut self, published: &Published) {
        for at in 0..self.streams.len() {
            let sent = self.sent(at, published);
            self.streams[at].order.begin(sent);
        }
    }

    /// What was sent up to here, and what of it is lost, belongs to what is measured until here:
    /// [`Self::close_books`].
    pub(super) fn draw_line(&mut self, published: &Published) {
        for at in 0..self.streams.len() {
            let sent = self.sent(at, published);
            self.streams[at].order.draw_line(sent);
        }
    }

    /// The last number of a stream by what is published of its track. Unknown for a stream that
    /// another has taken the place of, and while nothing of it was read.
    fn sent(&self, at: usize, published: &Published) -> Option<u64> {
        let stream = &self.streams[at];
        let succeeds = |other: &Stream| !other.is_rtx && other.mid == stream.mid;
        if stream.is_rtx || self.streams[at + 1..].iter().any(succeeds) {
            return None;
        }
        let number = i64::from(*published.get(&stream.track?)?);
        u64::try_from(number - stream.offset?).ok()
    }

    /// How many packets from before the line no later one reveals.
    pub(super) fn lacking(&self) -> u64 {
        self.media().map(|stream| stream.order.lacking()).sum()
    }

    /// What has not come since from before the line is lost. `all` of it: also what nothing came
    /// after.
    pub(super) fn close_books(&mut self, all: bool, tally: &mut Tally) {
        self.streams.iter_mut().filter(|stream| !stream.is_rtx).for_each(|s| s.order.close(all));
        self.settle_losses(tally);
    }

    fn media(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(|stream| !stream.is_rtx)
    }

    /// How many expected tracks began and came no more when it was `unix`.
    pub(super) fn stopped(&self, unix: u64) -> usize {
        let last = |(_, track): &(String, u32)| {
            let of = self.streams.iter().filter(|stream| stream.track == Some(*track));
            of.map(|stream| stream.last).max().filter(|last| *last > 0)
        };
        self.expected.iter().filter_map(last).filter(|last| last + STOPPED < unix).count()
    }

    pub(super) fn finish(&mut self, tally: &mut Tally) {
        tally.lose(std::mem::take(&mut self.lost));
        for stream in self.streams.drain(..).filter(|stream| !stream.is_rtx) {
            let mut stream = stream;
            tally.lose(stream.order.finish());
        }
        self.last = 0;
    }

    /// Once every expected track is there: when the last of them began.
    pub(super) fn take_first_media(&mut self) -> Option<u64> {
        let began = |(_, track): &(String, u32)| {
            let of = |stream: &&Stream| stream.track == Some(*track);
            self.streams.iter().find(of).and_then(|stream| stream.began)
        };
        if self.expected.is_empty() {
            return None;
        }
        self.expected.iter().map(began).collect::<Option<Vec<u64>>>()?.into_iter().max()
    }

    pub(super) fn last_media(&self) -> u64 {
        self.last_media
    }
}

/// A track that has not come for so long has stopped, nanoseconds: sound comes each 20 ms, and
/// what a server holds back while it repairs a hole is a fraction of it.
const STOPPED: u64 = 2_000_000_000;

/// More SSRCs than any scenario needs are not ours.
const STREAMS_MAX: usize = 1024;

/// SSRCs of a line, for media and as many for repairs. A server may change a line's, and some
/// packets of the one before still come after that; one that was changed so often is over.
const SSRCS_PER_LINE: usize = 8;

fn track_of(expected: &[(String, u32)], mid: &str) -> Option<u32> {
    expected.iter().find(|(other, _)| other == mid).map(|(_, track)| *track)
}

/// The stream that a stream of repairs is for: the one it was announced with, or the newest of
/// its line.
fn repaired(lines: &[ServerLine], streams: &[Stream], at: usize) -> Option<usize> {
    let repairs = &streams[at];
    let group = lines.iter().find(|line| line.rtx_ssrcs.contains(&repairs.ssrc));
    let announced = group
        .and_then(|group| streams.iter().rposition(|s| !s.is_rtx && group.ssrcs.contains(&s.ssrc)));
    announced.or_else(|| streams.iter().rposition(|s| !s.is_rtx && s.mid == repairs.mid))
}

impl Stream {
    /// Checks an opened payload.
    fn check(&mut self, payload: &[u8], number: u64, moment: Moment, tally: &mut Tally) {
        if payload.is_empty() {
            return;
        }
        tally.checked += 1;
        let Some(stamp) = Stamp::read(payload) else {
            tally.corrupted += 1;
            return;
        };
        let headers = if self.is_video { header_len(payload) } else { 1 };
        if !stamp.matches(payload, headers) {
            tally.corrupted += 1;
            return;
        }
        if self.track.is_some_and(|track| track != stamp.track) {
            tally.foreign += 1;
            return;
        }
        // Order and origin: numbers and sequence numbers go in step, so that what headers say
        // of loss and order is true of the content.
        let offset = i64::from(stamp.number) - number as i64;
        if self.offset.is_some_and(|known| known != offset) {
            tally.corrupted += 1;
        }
        self.offset = Some(offset);
        if self.began.is_none() && (!self.is_video || Part::begins_keyframe(payload)) {
            self.began = Some(moment.unix);
        }
        let micros = moment.unix.saturating_sub(stamp.sent) / 1000;
        tally.latency.saturating_record(micros.max(1));
    }
}

/// Draws which packets are checked: by number alone the same few places of each stream would
/// be, and a fault with a rhythm of its own could pass between them.
#[inline]
fn lot(ssrc: u32, number: u64) -> u64 {
    probe::mix(u64::from(ssrc) << 32 ^ number)
}

/// What was opened, without its padding.
fn content(opened: &[u8], has_padding: bool) -> Option<&[u8]> {
    if has_padding { rtp::unpad(opened).ok() } else { Some(opened) }
}

/// The codec's headers at the start of a VP8 payload, which are not part of the probe.
fn header_len(payload: &[u8]) -> usize {
    let descriptor = Part::descriptor_len(payload);
    match Part::begins_frame(payload) {
        true if Part::begins_keyframe(payload) => descriptor + video::KEYFRAME_HEADER_LEN,
        true => descriptor + video::DELTA_HEADER_LEN,
        false => descriptor,
    }
}
