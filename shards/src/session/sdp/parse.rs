//! Text to [`Description`]: lenient about how lines end and about what is not understood.
//!
//! Invariants: never panics, whatever the text; work and memory are linear in it, and it is at
//! most [`MAX_BYTES`]; session-level attributes are inherited by every section; no value has a
//! control character, so that one echoed to somebody else cannot start a line of its own.
//!
//! Not here: judgement. A description that parses may still be refused.

use super::description::{
    Description, Direction, ExtMap, Rid, RtpMap, Section, Setup, Simulcast, Ssrc, SsrcGroup,
    Transport,
};
use super::error::{BadText, BadTransport, SdpError};
use super::{MAX_ATTRIBUTES, MAX_BYTES, MAX_LINES, MAX_TEXT_LINE};

pub(super) fn parse(text: &str) -> Result<Description, SdpError> {
    if text.len() > MAX_BYTES {
        return Err(BadText::TooLong(text.len()).into());
    }
    let mut parser = Parser::default();
    for (index, line) in text.split('\n').enumerate() {
        let line = line.trim_end_matches('\r').trim_start_matches('\u{feff}');
        if line.trim().is_empty() {
            continue;
        }
        parser.number = index + 1;
        parser.line(line)?;
    }
    parser.finish()
}

fn has_control(line: &str) -> bool {
    // Nearly every line is told apart without looking for where its characters begin.
    let plain = line.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    !plain && line.contains(|c: char| c.is_control() && c != '\t')
}

#[derive(Default)]
struct Parser {
    description: Description,
    /// What sections inherit.
    session: Section,
    seen_version: bool,
    number: usize,
    /// Of the current section.
    attributes: usize,
}

/// What was expected instead.
type Expected = &'static str;

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), SdpError> {
        let bad = |number: usize, expected: Expected| {
            SdpError::from(BadText::Line { number, expected, text: SdpError::shown(line) })
        };
        if line.len() > MAX_TEXT_LINE || has_control(line) {
            return Err(bad(self.number, "a line of moderate length without control characters"));
        }
        let Some((kind, value)) = line.split_once('=') else {
            return Err(bad(self.number, "a line like a=value"));
        };
        if !self.seen_version {
            if (kind, value.trim()) != ("v", "0") {
                return Err(bad(self.number, "v=0 first"));
            }
            self.seen_version = true;
            return Ok(());
        }
        match kind {
            "m" => self.media(value),
            "a" => self.attribute(value),
            // Origin, name, timing, bandwidth and addresses say nothing to a lite agent.
            _ => Ok(()),
        }
        .map_err(|error| match error {
            Stop::Expected(expected) => bad(self.number, expected),
            Stop::Error(error) => error,
        })
    }

    fn media(&mut self, value: &str) -> Result<(), Stop> {
        if self.description.sections.len() == MAX_LINES {
            return Err(BadText::TooMany { what: "m-lines", limit: MAX_LINES }.into());
        }
        let mut words = value.split_ascii_whitespace();
        let (media, port, protocol) = match (words.next(), words.next(), words.next()) {
            (Some(media), Some(port), Some(protocol)) => (media, port, protocol),
            _ => return Err(Stop::Expected("m=<media> <port> <protocol> <formats>")),
        };
        let port = port.split('/').next().unwrap_or_default();
        let port = port.parse().map_err(|_| Stop::Expected("a port number"))?;
        let formats: Vec<String> = words.map(str::to_owned).collect();
        if formats.is_empty() {
            return Err(Stop::Expected("a format at the end of m="));
        }
        let index = self.description.sections.len();
        let mut unique: Vec<String> = Vec::new();
        if protocol.contains("RTP/") {
            let mut seen = 0_u128;
            for value in &formats {
                let pt =
                    value.parse::<u8>().ok().filter(|pt| *pt < 128).ok_or_else(|| {
                        BadText::PayloadType { index, value: SdpError::shown(value) }
                    })?;
                if seen >> pt & 1 == 0 {
                    seen |= 1 << pt;
                    unique.push(value.clone());
                }
            }
        }
        self.attributes = 0;
        self.description.sections.push(Section {
            media: media.to_owned(),
            port,
            protocol: protocol.to_owned(),
            formats: if unique.is_empty() { formats } else { unique },
            direction: self.session.direction,
            ..Section::default()
        });
        Ok(())
    }

    fn attribute(&mut self, line: &str) -> Result<(), Stop> {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let (name, value) = (name.trim(), value.trim());
        self.attributes += 1;
        if self.attributes > MAX_ATTRIBUTES {
            let what = "attributes in one section";
            return Err(BadText::TooMany { what, limit: MAX_ATTRIBUTES }.into());
        }
        match self.description.sections.last_mut() {
            None if name == "group" => self.group(value),
            None if name == "ice-lite" => {
                self.description.ice_lite = true;
                Ok(())
            }
            None => section_attribute(&mut self.session, name, value),
            Some(section) => section_attribute(section, name, value),
        }
    }

    fn group(&mut self, value: &str) -> Result<(), Stop> {
        let mut words = value.split_ascii_whitespace();
        if words.next() != Some("BUNDLE") {
            return Ok(());
        }
        let group = self.description.bundle.get_or_insert_default();
        for mid in words {
            if group.len() == MAX_LINES {
                let what = "mids in a=group:BUNDLE";
                return Err(BadText::TooMany { what, limit: MAX_LINES }.into());
            }
            if group.iter().any(|known| known == mid) {
                return Err(BadTransport::BundledTwice(SdpError::shown(mid)).into());
            }
            group.push(mid.to_owned());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Description, SdpError> {
        if !self.seen_version {
            let (number, expected) = (self.number.max(1), "v=0 first");
            return Err(BadText::Line { number, expected, text: String::new() }.into());
        }
        self.description.allow_mixed = self.session.allow_mixed;
        for section in &mut self.description.sections {
            inherit(&mut section.transport, &self.session.transport);
        }
        Ok(self.description)
    }
}

/// A line that was refused: for its form, or for what it says.
enum Stop {
    Expected(Expected),
    Error(SdpError),
}

impl<E: Into<SdpError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

fn inherit(section: &mut Transport, session: &Transport) {
    if section.ufrag.is_none() && section.pwd.is_none() {
        section.ufrag.clone_from(&session.ufrag);
        section.pwd.clone_from(&session.pwd);
    }
    if section.fingerprints.is_empty() {
        section.fingerprints.clone_from(&session.fingerprints);
    }
    section.setup = section.setup.or(session.setup);
}

fn section_attribute(section: &mut Section, name: &str, value: &str) -> Result<(), Stop> {
    if let Some(direction) = Direction::from_name(name) {
        section.direction = direction;
        return Ok(());
    }
    match name {
        "mid" => section.mid = Some(value.to_owned()),
        "bundle-only" => section.bundle_only = true,
        "rtcp-mux" => section.rtcp_mux = true,
        "rtcp-rsize" => section.rtcp_rsize = true,
        "extmap-allow-mixed" => section.allow_mixed = true,
        "ice-ufrag" => section.transport.ufrag = Some(value.to_owned()),
        "ice-pwd" => section.transport.pwd = Some(value.to_owned()),
        "fingerprint" => section.transport.fingerprints.push(value.to_owned()),
        "setup" => {
            let setup = Setup::from_name(value);
            section.transport.setup =
                Some(setup.ok_or(Stop::Expected("setup:actpass, active, passive or holdconn"))?);
        }
        "sctp-port" => section.sctp_port = Some(number(value, "a port number")?),
        "max-message-size" => {
            section.max_message_size = Some(number(value, "a number of bytes")?);
        }
        "msid" => section.msid = msid(value),
        _ => rtp_attribute(section, name, value)?,
    }
    Ok(())
}

fn rtp_attribute(section: &mut Section, name: &str, value: &str) -> Result<(), Stop> {
    match name {
        "rtpmap" => {
            let map = rtp_map(value);
            section.maps.push(map.ok_or(Stop::Expected("rtpmap:<type> <name>/<rate>"))?);
        }
        "fmtp" => {
            if let Some((pt, text)) = value.split_once(' ')
                && let Ok(pt) = pt.parse()
            {
                section.fmtps.push((pt, text.trim().to_owned()));
            }
        }
        "rtcp-fb" => {
            if let Some((pt, text)) = value.split_once(' ')
                && (pt == "*" || pt.parse::<u8>().is_ok())
            {
                section.feedback.push((pt.parse().ok(), text.trim().to_owned()));
            }
        }
        "extmap" => {
            let map = ext_map(value);
            section.extensions.push(map.ok_or(Stop::Expected("extmap:<id> <URI>"))?);
        }
        "rid" => {
            let mut words = value.split_ascii_whitespace();
            if let (Some(id), Some(way)) = (words.next(), words.next()) {
                section.rids.push(Rid { id: id.to_owned(), sends: way == "send" });
            }
        }
        "simulcast" => section.simulcast = simulcast(value),
        "ssrc" => ssrc(section, value),
        "ssrc-group" => {
            let mut words = value.split_ascii_whitespace();
            if let Some(semantics) = words.next() {
                let ssrcs = words.map_while(|word| word.parse().ok()).collect();
                section.groups.push(SsrcGroup { semantics: semantics.to_owned(), ssrcs });
            }
        }
        // Everything else is for somebody else; RFC 8866, 5.13 wants it ignored.
        _ => {}
    }
    Ok(())
}

fn number<T: std::str::FromStr>(value: &str, expected: Expected) -> Result<T, Stop> {
    value.parse().map_err(|_| Stop::Expected(expected))
}

/// `<stream> <track>`; a track may be missing.
fn msid(value: &str) -> Option<(String, String)> {
    let mut words = value.split_ascii_whitespace();
    let stream = words.next()?.to_owned();
    Some((stream, words.next().unwrap_or_default().to_owned()))
}

fn rtp_map(value: &str) -> Option<RtpMap> {
    let (pt, codec) = value.split_once(' ')?;
    let mut parts = codec.trim().split('/');
    Some(RtpMap {
        pt: pt.parse().ok()?,
        name: parts.next()?.to_owned(),
        clock_rate: parts.next()?.parse().ok()?,
        channels: match parts.next() {
            Some(channels) => Some(channels.parse().ok()?),
            None => None,
        },
    })
}

fn ext_map(value: &str) -> Option<ExtMap> {
    let mut words = value.split_ascii_whitespace();
    let id = words.next()?;
    let uri = words.next()?.to_owned();
    let (id, direction) = match id.split_once('/') {
        Some((id, direction)) => (id, Direction::from_name(direction)?),
        None => (id, Direction::SendRecv),
    };
    Some(ExtMap { id: id.parse().ok()?, direction, uri })
}

/// `send f;h;q` and `recv …`, in either order. Of alternatives (`f,g`) the first is taken, and
/// whether a layer starts paused (`~f`) does not matter here.
fn simulcast(value: &str) -> Option<Simulcast> {
    let mut simulcast = Simulcast::default();
    let mut words = value.split_ascii_whitespace();
    while let (Some(way), Some(list)) = (words.next(), words.next()) {
        let rids = list
            .split(';')
            .filter_map(|layer| layer.split(',').next())
            .map(|rid| rid.trim_start_matches('~').to_owned())
            .filter(|rid| !rid.is_empty())
            .collect();
        match way {
            "send" => simulcast.send = rids,
            "recv" => simulcast.recv = rids,
            _ => return None,
        }
    }
    Some(simulcast)
}

/// `a=ssrc:<number> <attribute>[:<value>]`.
fn ssrc(section: &mut Section, value: &str) {
    let Some((ssrc, attribute)) = value.split_once(' ') else { return };
    let Ok(ssrc) = ssrc.parse::<u32>() else { return };
    let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
    if name == "msid" && section.msid.is_none() {
        section.msid = msid(value);
    }
    let known = section.ssrcs.iter_mut().find(|known| known.ssrc == ssrc);
    let cname = if name == "cname" { value.trim() } else { "" };
    match known {
        Some(known) if known.cname.is_empty() => cname.clone_into(&mut known.cname),
        Some(_) => {}
        None => section.ssrcs.push(Ssrc { ssrc, cname: cname.to_owned() }),
    }
}
