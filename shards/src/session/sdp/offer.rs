//! Our own offers.
//!
//! Invariants: an offer repeats every line as it was negotiated and changes only those it was
//! made for; nothing is agreed before the answer, so an abandoned offer leaves no trace but
//! its version.
//!
//! Not here: payload types and extension ids (`palette`); what the client says (`accept`).

use std::collections::BTreeSet;

use super::MAX_LINES;
use super::codecs::NegotiatedCodec;
use super::description::{Direction, Setup};
use super::error::{BadRequest, BadText, SdpError};
use super::line::{DataLine, Line, LineKind, SendSpec, Terms};
use super::negotiator::{Negotiator, Pending};
use super::palette::Palette;
use super::transport::{self, LocalTransport};
use super::write::write;
use crate::command::MediaKind;

/// What our offer is made for. Each gets one m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// The client subscribes. Takes a free line on which we do not send yet, so that the
    /// client sees the direction change and tells its application of a track; else a new one.
    Send { kind: MediaKind, spec: SendSpec },
    /// The client publishes; with `both`, it also subscribes. Always a new line.
    Receive { kind: MediaKind, both: Option<SendSpec> },
    /// Data channels. A session has one line for them.
    Data,
}

impl Negotiator {
    /// Makes an offer; returns it with the mid of each want, in order. Until it is accepted or
    /// abandoned, nothing else can be negotiated.
    pub fn offer(
        &mut self,
        wants: &[Want],
        local: &LocalTransport<'_>,
    ) -> Result<(String, Vec<String>), SdpError> {
        if self.pending.is_some() {
            return Err(BadRequest::HaveLocalOffer.into());
        }
        let mut lines = self.lines.clone();
        let palette = Palette::new(&mut lines, &self.heard, &self.told);
        let numbers = self.numbers.clone();
        let mut draft = Draft { lines, palette, numbers, wanted: Vec::new() };
        for want in wants {
            draft.add(want)?;
        }
        let Draft { lines, palette, numbers, wanted } = draft;
        let told = palette.told();
        if lines.is_empty() {
            return Err(BadText::NoMediaLines.into());
        }
        let is_live = |mid: &&String| lines.iter().any(|line| line.mid == **mid && !line.stopped);
        let mut bundle: Vec<String> = self.bundle.iter().filter(is_live).cloned().collect();
        for line in lines.iter().filter(|line| !line.stopped) {
            if !bundle.contains(&line.mid) {
                bundle.push(line.mid.clone());
            }
        }
        let mut description = self.describe(true);
        description.sections = lines.iter().map(Line::section).collect();
        transport::tell(&mut description, &bundle, true, Setup::ActPass, local);
        let mids = wanted.iter().map(|&index| lines[index].mid.clone()).collect();
        self.told = told;
        self.pending = Some(Pending { lines, wanted, numbers });
        self.count_description();
        Ok((write(&description), mids))
    }

    /// Forgets our open offer, if there is one.
    pub fn abandon_offer(&mut self) {
        self.pending = None;
    }
}

struct Draft<'a> {
    lines: Vec<Line>,
    palette: Palette<'a>,
    numbers: BTreeSet<u16>,
    wanted: Vec<usize>,
}

impl Draft<'_> {
    fn add(&mut self, want: &Want) -> Result<(), SdpError> {
        match want {
            Want::Send { kind, spec } => {
                let kind = LineKind::from(*kind);
                let terms = self.terms(kind, Some(spec), false)?;
                match self.lines.iter().position(|line| may_send_on(line, kind)) {
                    Some(index) => {
                        let old = &self.lines[index];
                        let terms = Terms { client: old.terms.client, ..terms };
                        let mid = old.mid.clone();
                        self.put(Line::media(mid, index, kind, terms, Direction::SendOnly));
                    }
                    None => self.put_new(kind, |mid, index| {
                        Line::media(mid, index, kind, terms, Direction::SendOnly)
                    })?,
                }
            }
            Want::Receive { kind, both } => {
                let kind = LineKind::from(*kind);
                let terms = self.terms(kind, both.as_ref(), true)?;
                let direction = Direction::new(both.is_some(), true);
                self.put_new(kind, |mid, index| Line::media(mid, index, kind, terms, direction))?;
            }
            Want::Data => {
                if let Some(line) = self.lines.iter().find(|line| line.data.is_some()) {
                    return Err(BadRequest::HasDataLine(line.mid.clone()).into());
                }
                self.put_new(LineKind::Application, |mid, index| {
                    Line::application(mid, index, data_terms(), UNTOLD)
                })?;
            }
        }
        Ok(())
    }

    fn terms(
        &mut self,
        kind: LineKind,
        spec: Option<&SendSpec>,
        receives: bool,
    ) -> Result<Terms, SdpError> {
        let preferred = spec.and_then(|spec| spec.preferred.as_ref());
        let codecs: Vec<NegotiatedCodec> = self.palette.codecs(kind, preferred)?;
        Ok(Terms {
            media: kind.media().to_owned(),
            protocol: "UDP/TLS/RTP/SAVPF".to_owned(),
            format: codecs.first().map(|codec| codec.pt.to_string()).unwrap_or_default(),
            codecs,
            extensions: self.palette.extensions(kind, receives),
            rsize: true,
            mixing: true,
            spec: spec.map(SendSpec::cleaned),
            // Not known before the answer.
            client: Direction::Inactive,
            ..Terms::default()
        })
    }

    /// Puts a line under a new mid, in the place of a stopped one of its kind if there is one.
    fn put_new(
        &mut self,
        kind: LineKind,
        line: impl FnOnce(String, usize) -> Line,
    ) -> Result<(), SdpError> {
        // Chromium answers BUNDLE in the order of m-lines. A new line in front of the first live
        // one would become the tagged one there, and its transport another.
        let tagged = self.lines.iter().position(|line| !line.stopped).unwrap_or_default();
        let mut free = self.lines.iter().enumerate().skip(tagged);
        let free = free.find(|(_, line)| line.stopped && line.kind == kind);
        let index = free.map_or(self.lines.len(), |(index, _)| index);
        if index == MAX_LINES {
            return Err(BadText::TooMany { what: "m-lines", limit: MAX_LINES }.into());
        }
        let unused = (0..=u16::MAX).find(|number| !self.numbers.contains(number));
        let number = unused.ok_or(BadRequest::NoMids)?;
        self.numbers.insert(number);
        self.put(line(number.to_string(), index));
        Ok(())
    }

    fn put(&mut self, line: Line) {
        let index = line.index;
        match self.lines.get_mut(index) {
            Some(place) => *place = line,
            None => self.lines.push(line),
        }
        self.wanted.push(index);
    }
}

/// A line that carries nothing, has no purpose, and on which the client would receive.
fn may_send_on(line: &Line, kind: LineKind) -> bool {
    line.kind == kind
        && !line.stopped
        && line.direction() == Direction::Inactive
        && line.terms.spec.is_none()
        && line.terms.client == Direction::RecvOnly
}

fn data_terms() -> Terms {
    Terms {
        media: "application".to_owned(),
        protocol: "UDP/DTLS/SCTP".to_owned(),
        format: "webrtc-datachannel".to_owned(),
        ..Terms::default()
    }
}

/// What RFC 8841 has us assume until the client says it.
const UNTOLD: DataLine = DataLine { sctp_port: 5000, max_message_size: 65_536 };

impl From<MediaKind> for LineKind {
    fn from(kind: MediaKind) -> Self {
        match kind {
            MediaKind::Audio => Self::Audio,
            MediaKind::Video => Self::Video,
        }
    }
}
