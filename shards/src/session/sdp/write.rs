//! [`Description`] to text.
//!
//! Invariants: every line ends in CRLF, the last one too; what was written reads back as the
//! same description, for all descriptions we make.
//!
//! Not here: what to write (`line`, `transport`).

use std::fmt::{self, Write};

use super::description::{Description, Direction, Section, Transport};

pub(super) fn write(description: &Description) -> String {
    let mut out = String::with_capacity(512 + 2048 * description.sections.len());
    // Writing to a String cannot fail.
    let _ = session(&mut out, description);
    for section in &description.sections {
        let _ = media(&mut out, section);
    }
    out
}

fn session(out: &mut String, description: &Description) -> fmt::Result {
    write!(out, "v=0\r\no={}\r\ns=-\r\nt=0 0\r\n", description.origin)?;
    if description.ice_lite {
        out.write_str("a=ice-lite\r\n")?;
    }
    if let Some(mids) = &description.bundle {
        out.write_str("a=group:BUNDLE")?;
        for mid in mids {
            write!(out, " {mid}")?;
        }
        out.write_str("\r\n")?;
    }
    if description.allow_mixed {
        out.write_str("a=extmap-allow-mixed\r\n")?;
    }
    out.write_str("a=msid-semantic:WMS *\r\n")
}

fn media(out: &mut String, section: &Section) -> fmt::Result {
    write!(out, "m={} {} {}", section.media, section.port, section.protocol)?;
    for format in &section.formats {
        write!(out, " {format}")?;
    }
    out.write_str("\r\nc=IN IP4 0.0.0.0\r\n")?;
    transport(out, &section.transport)?;
    if let Some(mid) = &section.mid {
        write!(out, "a=mid:{mid}\r\n")?;
    }
    for map in &section.extensions {
        match map.direction {
            Direction::SendRecv => write!(out, "a=extmap:{} {}\r\n", map.id, map.uri)?,
            way => write!(out, "a=extmap:{}/{way} {}\r\n", map.id, map.uri)?,
        }
    }
    if section.allow_mixed {
        out.write_str("a=extmap-allow-mixed\r\n")?;
    }
    write!(out, "a={}\r\n", section.direction)?;
    if let Some((stream, track)) = &section.msid {
        write!(out, "a=msid:{stream} {track}\r\n")?;
    }
    if section.rtcp_mux {
        out.write_str("a=rtcp-mux\r\n")?;
    }
    if section.rtcp_rsize {
        out.write_str("a=rtcp-rsize\r\n")?;
    }
    codecs(out, section)?;
    streams(out, section)?;
    if let Some(port) = section.sctp_port {
        write!(out, "a=sctp-port:{port}\r\n")?;
    }
    if let Some(bytes) = section.max_message_size {
        write!(out, "a=max-message-size:{bytes}\r\n")?;
    }
    for candidate in &section.candidates {
        write!(out, "a=candidate:{candidate}\r\n")?;
    }
    if !section.candidates.is_empty() {
        out.write_str("a=end-of-candidates\r\n")?;
    }
    Ok(())
}

fn transport(out: &mut String, transport: &Transport) -> fmt::Result {
    if let Some(ufrag) = &transport.ufrag {
        write!(out, "a=ice-ufrag:{ufrag}\r\n")?;
    }
    if let Some(pwd) = &transport.pwd {
        write!(out, "a=ice-pwd:{pwd}\r\n")?;
    }
    for fingerprint in &transport.fingerprints {
        write!(out, "a=fingerprint:{fingerprint}\r\n")?;
    }
    if let Some(setup) = transport.setup {
        write!(out, "a=setup:{}\r\n", setup.name())?;
    }
    Ok(())
}

fn codecs(out: &mut String, section: &Section) -> fmt::Result {
    for map in &section.maps {
        write!(out, "a=rtpmap:{} {}/{}", map.pt, map.name, map.clock_rate)?;
        if let Some(channels) = map.channels {
            write!(out, "/{channels}")?;
        }
        out.write_str("\r\n")?;
        for (_, feedback) in section.feedback.iter().filter(|(pt, _)| *pt == Some(map.pt)) {
            write!(out, "a=rtcp-fb:{} {feedback}\r\n", map.pt)?;
        }
        for (_, fmtp) in section.fmtps.iter().filter(|(pt, _)| *pt == map.pt) {
            write!(out, "a=fmtp:{} {fmtp}\r\n", map.pt)?;
        }
    }
    Ok(())
}

fn streams(out: &mut String, section: &Section) -> fmt::Result {
    for rid in &section.rids {
        write!(out, "a=rid:{} {}\r\n", rid.id, if rid.sends { "send" } else { "recv" })?;
    }
    if let Some(simulcast) = &section.simulcast {
        out.write_str("a=simulcast:")?;
        if !simulcast.send.is_empty() {
            write!(out, "send {}", simulcast.send.join(";"))?;
        }
        if !simulcast.recv.is_empty() {
            let gap = if simulcast.send.is_empty() { "" } else { " " };
            write!(out, "{gap}recv {}", simulcast.recv.join(";"))?;
        }
        out.write_str("\r\n")?;
    }
    for group in &section.groups {
        write!(out, "a=ssrc-group:{}", group.semantics)?;
        for ssrc in &group.ssrcs {
            write!(out, " {ssrc}")?;
        }
        out.write_str("\r\n")?;
    }
    for ssrc in &section.ssrcs {
        write!(out, "a=ssrc:{} cname:{}\r\n", ssrc.ssrc, ssrc.cname)?;
    }
    Ok(())
}
