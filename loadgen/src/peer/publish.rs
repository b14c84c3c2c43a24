//! A track that a peer publishes: frames from an encoder, cut, stamped, sealed and sent at
//! libwebrtc's rhythm; repairs when asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shards::media::rtcp::SenderInfo;
use shards::media::rtp::{FixedHeader, HeaderWriter};
use shards::media::srtp::Sealer;
use str0m::Rtc;
use str0m::format::Codec;
use str0m::media::{MediaKind, Mid};
use str0m::rtp::{Extension, Ssrc};

use super::{Common, Moment};
use crate::media::pacer::Pacer;
use crate::media::{audio, video};
use crate::probe::{STAMP_LEN, Stamp};
use crate::report::tally::Tally;

/// How video is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoShape {
    /// Bits per second of encoded video.
    pub bitrate: u64,
    pub fps: u32,
}

/// Packets kept for repairs. libwebrtc keeps 600 or those of a second, whichever is more.
const HISTORY: usize = 1024;

/// Packets that wait for the pacer before frames are left out: two seconds at 6 Mbit/s.
const QUEUE: usize = 1024;

/// Within this a source begins: about a frame's time.
const PHASE: Duration = Duration::from_millis(33);

/// How soon a full queue is looked at again.
const FULL: Duration = Duration::from_millis(10);

/// An encoder makes no keyframe sooner after the last (libwebrtc's minimum).
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);

/// How packets leave: the peer's key, its transport-wide numbering, its socket.
pub(super) struct Way<'a> {
    pub(super) sealer: &'a mut Sealer,
    /// The next number; one count for all m-lines.
    pub(super) transport_seq: &'a mut u16,
    pub(super) send: &'a mut dyn FnMut(&[u8]),
}

/// A sending m-line.
#[derive(Debug)]
pub(super) struct Sending {
    mid: Mid,
    kind: MediaKind,
    ssrc: u32,
    rtx_ssrc: Option<u32>,
    /// Payload type, and of repairs; known once the line is negotiated.
    pt: Option<u8>,
    rtx_pt: Option<u8>,
    mid_extension: Option<u8>,
    transport_cc: Option<u8>,
    source: Option<Source>,
    track: u32,
    /// Counts the packets sent, which makes sequence number and probe number.
    number: u32,
    rtx_index: u64,
    timestamp: u32,
    /// When the camera or microphone gives its next frame; `None` while it is off.
    frame_at: Option<Instant>,
    /// When the pacer lets the queue go on.
    queue_at: Option<Instant>,
    queue: VecDeque<Sent>,
    history: VecDeque<Sent>,
    packets: u32,
    octets: u32,
    wants_keyframe: bool,
    last_keyframe: Option<Instant>,
}

#[derive(Debug)]
enum Source {
    Video { encoder: video::Encoder, pacer: Pacer, picture: u16, fps: u32 },
    Audio(audio::Encoder),
}

/// A packet, as little of it as it can be made again from.
#[derive(Debug, Clone, Copy)]
struct Sent {
    number: u32,
    timestamp: u32,
    /// When it was first sent.
    unix: u64,
    len: u16,
    marker: bool,
    /// Of video.
    part: Option<video::Part>,
}

impl Sending {
    pub(super) fn mid(&self) -> String {
        self.mid.to_string()
    }

    pub(super) fn set_track(&mut self, track: u32) {
        self.track = track;
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Makes the stream known to str0m.
    pub(super) fn lend(&self, rtc: &mut Rtc) {
        let rtx = self.rtx_ssrc.map(Ssrc::from);
        rtc.direct_api().declare_stream_tx(Ssrc::from(self.ssrc), rtx, self.mid, None);
    }

    /// Takes the streams of these lines from str0m, and notes those that are new.
    pub(super) fn take(rtc: &mut Rtc, mids: &[Mid], sendings: &mut Vec<Self>) {
        for &mid in mids {
            let Some(kind) = rtc.media(mid).map(|media| media.kind()) else { continue };
            let mut api = rtc.direct_api();
            let stream = api.stream_tx_by_mid(mid, None);
            let Some((ssrc, rtx)) = stream.map(|stream| (stream.ssrc(), stream.rtx())) else {
                continue;
            };
            api.remove_stream_tx(ssrc);
            if !sendings.iter().any(|sending| sending.mid == mid) {
                sendings.push(Self::new(mid, kind, *ssrc, rtx.map(|ssrc| *ssrc)));
            }
        }
    }

    fn new(mid: Mid, kind: MediaKind, ssrc: u32, rtx_ssrc: Option<u32>) -> Self {
        Self {
            mid,
            kind,
            ssrc,
            rtx_ssrc,
            pt: None,
            rtx_pt: None,
            mid_extension: None,
            transport_cc: None,
            source: None,
            track: 0,
            number: 0,
            rtx_index: 0,
            timestamp: ssrc,
            frame_at: None,
            queue_at: None,
            queue: VecDeque::new(),
            history: VecDeque::new(),
            packets: 0,
            octets: 0,
            wants_keyframe: true,
            last_keyframe: None,
        }
    }

    /// Reads what was negotiated.
    pub(super) fn configure(&mut self, rtc: &Rtc, common: &Common, moment: Moment) {
        let Some(media) = rtc.media(self.mid).filter(|media| !media.disabled()) else { return };
        let wanted = if self.kind == MediaKind::Video { Codec::Vp8 } else { Codec::Opus };
        let all = rtc.codec_config();
        let params = all.iter().find(|params| {
            params.spec().codec == wanted && media.remote_pts().contains(&params.pt())
        });
        let Some(params) = params else { return };
        self.pt = Some(*params.pt());
        self.rtx_pt = params.resend().map(|pt| *pt);
        let id = |extension| media.remote_extmap().id_of(extension);
        self.mid_extension = id(Extension::RtpMid);
        self.transport_cc = id(Extension::TransportSequenceNumber);
        if self.source.is_none() {
            let seed = u64::from(self.ssrc);
            let shape = common.video;
            self.source = Some(match self.kind {
                MediaKind::Video => Source::Video {
                    encoder: video::Encoder::new(shape.bitrate, shape.fps, seed),
                    pacer: Pacer::new(shape.bitrate, moment.now),
                    picture: seed as u16 & 0x7fff,
                    fps: shape.fps,
                },
                MediaKind::Audio => Source::Audio(audio::Encoder::new(common.audio_bitrate, seed)),
            });
        }
    }

    pub(super) fn publish(&mut self, on: bool, moment: Moment) {
        // Cameras do not tick together, even if their peers joined at a steady rate.
        let phase = f64::from(self.ssrc) / f64::from(u32::MAX);
        self.frame_at = on.then(|| moment.now + PHASE.mul_f64(phase));
        self.queue_at = None;
        self.queue.clear();
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.pt?;
        self.frame_at.into_iter().chain(self.queue_at).min()
    }

    pub(super) fn ask_for_keyframe(&mut self) {
        self.wants_keyframe = true;
    }

    /// Sends what is due.
    pub(super) fn poll(&mut self, way: &mut Way<'_>, moment: Moment, tally: &mut Tally) {
        let (Some(pt), Some(frame_at)) = (self.pt, self.frame_at) else { return };
        if frame_at <= moment.now {
            // After a stall, time that has passed is not made up for: cameras do not either.
            let late = moment.now.saturating_duration_since(frame_at);
            let stalled = late > STALL;
            let frame_at = if stalled { moment.now } else { frame_at };
            let period = self.take_frame(moment, tally);
            if let Some(period) = period.filter(|_| stalled) {
                tally.skipped_frames += (late.as_micros() / period.as_micros().max(1)) as u64;
            }
            self.frame_at = period.map(|period| frame_at + period);
        }
        self.queue_at = None;
        while let Some(&sent) = self.queue.front() {
            if let Some(Source::Video { pacer, .. }) = &mut self.source {
                let at = pacer.next(moment.now);
                if at > moment.now {
                    self.queue_at = Some(at);
                    return;
                }
                pacer.sent(usize::from(sent.len));
            }
            self.queue.pop_front();
            self.transmit(way, pt, sent, moment, tally);
        }
    }

    /// Queues the packets of the next frame; returns how long it lasts.
    fn take_frame(&mut self, moment: Moment, tally: &mut Tally) -> Option<Duration> {
        if self.queue.len() >= QUEUE {
            // A pacer that lags this far gets no new frame, as a full queue makes an encoder do.
            tally.skipped_frames += 1;
            return Some(FULL);
        }
        match self.source.as_mut()? {
            Source::Audio(encoder) => {
                let len = encoder.next_packet();
                self.timestamp = self.timestamp.wrapping_add(audio::FRAME_TICKS);
                self.enqueue(len, true, None);
                Some(audio::FRAME)
            }
            Source::Video { encoder, picture, fps, .. } => {
                let keyframe = self.wants_keyframe
                    && self.last_keyframe.is_none_or(|at| moment.now >= at + KEYFRAME_INTERVAL);
                let len = encoder.next_frame(keyframe);
                *picture = (*picture + 1) & 0x7fff;
                let (picture, fps) = (*picture, *fps);
                if keyframe {
                    self.wants_keyframe = false;
                    self.last_keyframe = Some(moment.now);
                    tally.keyframes += 1;
                }
                self.timestamp = self.timestamp.wrapping_add(90_000 / fps);
                let count = video::split(len).count();
                for (at, len) in video::split(len).enumerate() {
                    let part = video::Part { picture, first: at == 0, keyframe };
                    let len = (len + video::DESCRIPTOR_LEN).max(PAYLOAD_MIN);
                    self.enqueue(len, at + 1 == count, Some(part));
                }
                Some(Duration::from_secs(1) / fps)
            }
        }
    }

    fn enqueue(&mut self, len: usize, marker: bool, part: Option<video::Part>) {
        let (number, timestamp) = (self.number, self.timestamp);
        self.number += 1;
        let len = len as u16;
        self.queue.push_back(Sent { number, timestamp, unix: 0, len, marker, part });
    }

    fn transmit(
        &mut self,
        way: &mut Way<'_>,
        pt: u8,
        mut sent: Sent,
        moment: Moment,
        tally: &mut Tally,
    ) {
        sent.unix = moment.unix;
        let mut out = [0; DATAGRAM];
        let fixed = FixedHeader {
            marker: sent.marker,
            payload_type: pt,
            seq: sent.number as u16,
            timestamp: sent.timestamp,
            ssrc: self.ssrc,
            has_padding: false,
        };
        let header_len = self.write_header(&mut out, &fixed, way.transport_seq);
        let len = self.write_payload(sent, &mut out[header_len..]);
        let index = u64::from(sent.number);
        let len = way.sealer.seal_rtp_in_place(&mut out, header_len, len, self.ssrc, index);
        (way.send)(&out[..len]);
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(sent);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::from(sent.len));
        tally.packets_in += 1;
        tally.bytes_in += len as u64;
    }

    /// Sends a packet again, on the RTX stream (RFC 4588 §4).
    pub(super) fn resend(&mut self, seq: u16, way: &mut Way<'_>) {
        let (Some(ssrc), Some(pt)) = (self.rtx_ssrc, self.rtx_pt) else { return };
        let Some(newest) = self.history.back() else { return };
        let behind = (newest.number as u16).wrapping_sub(seq);
        let Some(at) = self.history.len().checked_sub(1 + usize::from(behind)) else { return };
        let Some(&sent) = self.history.get(at) else { return };
        let mut out = [0; DATAGRAM];
        let fixed = FixedHeader {
            marker: sent.marker,
            payload_type: pt,
            seq: self.rtx_index as u16,
            timestamp: sent.timestamp,
            ssrc,
            has_padding: false,
        };
        let header_len = self.write_header(&mut out, &fixed, way.transport_seq);
        out[header_len..][..2].copy_from_slice(&seq.to_be_bytes());
        let len = 2 + self.write_payload(sent, &mut out[header_len + 2..]);
        let len = way.sealer.seal_rtp_in_place(&mut out, header_len, len, ssrc, self.rtx_index);
        self.rtx_index += 1;
        (way.send)(&out[..len]);
    }

    fn write_header(&self, out: &mut [u8], fixed: &FixedHeader, transport_seq: &mut u16) -> usize {
        let seq = transport_seq.to_be_bytes();
        let mid = self.mid.to_string();
        let mut elements: [(u8, &[u8]); 2] = [(0, &[]); 2];
        let mut count = 0;
        if let Some(id) = self.transport_cc {
            elements[count] = (id, &seq);
            count += 1;
        }
        if let Some(id) = self.mid_extension {
            elements[count] = (id, mid.as_bytes());
            count += 1;
        }
        *transport_seq = transport_seq.wrapping_add(1);
        HeaderWriter::new(out).write(fixed, &elements[..count])
    }

    fn write_payload(&self, sent: Sent, out: &mut [u8]) -> usize {
        let len = usize::from(sent.len);
        let headers = match sent.part {
            Some(part) => part.write(out),
            None => {
                out[0] = audio::TOC;
                1
            }
        };
        let stamp = Stamp { track: self.track, number: sent.number, sent: sent.unix };
        stamp.fill(&mut out[headers..len]);
        len
    }

    /// Its track and the last number sent of it, unless it is stopped.
    pub(super) fn published(&self) -> Option<(u32, u32)> {
        let newest = self.history.back().filter(|_| self.frame_at.is_some())?;
        Some((self.track, newest.number))
    }

    /// What a sender report says now (RFC 3550 §6.4.1).
    pub(super) fn sender_info(&self, moment: Moment) -> Option<SenderInfo> {
        if self.packets == 0 {
            return None;
        }
        let (seconds, nanos) = (moment.unix / 1_000_000_000, moment.unix % 1_000_000_000);
        let ntp = (seconds + NTP_UNIX) << 32 | ((nanos << 32) / 1_000_000_000);
        let last = self.history.back()?;
        let since = moment.unix.saturating_sub(last.unix);
        let rate = if self.kind == MediaKind::Video { 90_000 } else { 48_000 };
        let rtp = last.timestamp.wrapping_add((since * rate / 1_000_000_000) as u32);
        Some(SenderInfo { ssrc: self.ssrc, ntp, rtp, packets: self.packets, octets: self.octets })
    }
}

/// From 1900 to 1970, in seconds.
const NTP_UNIX: u64 = 2_208_988_800;

/// Longer than any payload with header, repair header and tag.
const DATAGRAM: usize = 1400;

/// A keyframe's headers and a probe.
const PAYLOAD_MIN: usize = video::DESCRIPTOR_LEN + video::KEYFRAME_HEADER_LEN + STAMP_LEN;

/// Behind by more, a source starts anew.
const STALL: Duration = Duration::from_millis(200);
