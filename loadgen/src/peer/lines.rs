//! What a server's description says of the lines we receive on: SSRCs, payload types, header
//! extensions. Read as text: str0m keeps to itself what it does not need.

/// One m-line of a server's description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ServerLine {
    pub(super) mid: String,
    pub(super) is_video: bool,
    /// Media SSRCs, and those of repairs.
    pub(super) ssrcs: Vec<u32>,
    pub(super) rtx_ssrcs: Vec<u32>,
    /// Payload types of media, and of repairs.
    pub(super) pts: Vec<u8>,
    pub(super) rtx_pts: Vec<u8>,
    pub(super) transport_cc: Option<u8>,
    pub(super) mid_extension: Option<u8>,
}

/// Reads all m-lines of a description.
pub(super) fn read(sdp: &str) -> Vec<ServerLine> {
    let mut lines = Vec::new();
    for text in sdp.lines() {
        if let Some(media) = text.strip_prefix("m=") {
            let mut words = media.split_ascii_whitespace();
            let is_video = words.next() == Some("video");
            let pts = words.skip(2).filter_map(|pt| pt.parse().ok()).collect();
            lines.push(ServerLine { is_video, pts, ..ServerLine::default() });
        } else if let (Some(line), Some(attribute)) = (lines.last_mut(), text.strip_prefix("a=")) {
            line.read(attribute);
        }
    }
    lines
}

impl ServerLine {
    /// Whether it names this SSRC, for media or repairs.
    pub(super) fn announces(&self, ssrc: u32) -> bool {
        self.ssrcs.contains(&ssrc) || self.rtx_ssrcs.contains(&ssrc)
    }

    fn read(&mut self, attribute: &str) {
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "mid" => value.trim().clone_into(&mut self.mid),
            "rtpmap" => {
                let Some((pt, codec)) = value.split_once(' ') else { return };
                let Ok(pt) = pt.parse() else { return };
                if codec.to_ascii_lowercase().starts_with("rtx/") {
                    self.pts.retain(|other| *other != pt);
                    self.rtx_pts.push(pt);
                }
            }
            "extmap" => {
                let Some((id, uri)) = value.split_once(' ') else { return };
                let Ok(id) = id.split('/').next().unwrap_or(id).parse() else { return };
                let uri = uri.split(' ').next().unwrap_or(uri);
                if uri.ends_with("transport-wide-cc-extensions-01") {
                    self.transport_cc = Some(id);
                } else if uri.ends_with("sdes:mid") {
                    self.mid_extension = Some(id);
                }
            }
            "ssrc" => {
                let ssrc = value.split(' ').next().and_then(|ssrc| ssrc.parse().ok());
                let Some(ssrc) = ssrc else { return };
                if !self.ssrcs.contains(&ssrc) && !self.rtx_ssrcs.contains(&ssrc) {
                    self.ssrcs.push(ssrc);
                }
            }
            "ssrc-group" => {
                // RFC 5576 §4.2: FID names the media first, then its repairs.
                let Some(group) = value.strip_prefix("FID ") else { return };
                let repairs = group.split(' ').skip(1).filter_map(|ssrc| ssrc.parse::<u32>().ok());
                self.rtx_ssrcs.extend(repairs);
                self.ssrcs.retain(|ssrc| !self.rtx_ssrcs.contains(ssrc));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_will_arrive() {
        let sdp = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ssrc:5 cname:x\r\n\
                   m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:v1\r\na=rtpmap:96 VP8/90000\r\n\
                   a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=ssrc-group:FID 7 8\r\n\
                   a=ssrc:7 cname:x\r\na=ssrc:8 cname:x\r\na=extmap:4/sendonly \
                   http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                   a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
        let lines = read(sdp);
        assert_eq!((lines[0].mid.as_str(), &lines[0].ssrcs[..]), ("0", &[5][..]));
        let video = ServerLine {
            mid: "v1".to_owned(),
            is_video: true,
            ssrcs: vec![7],
            rtx_ssrcs: vec![8],
            pts: vec![96],
            rtx_pts: vec![97],
            transport_cc: Some(4),
            mid_extension: Some(3),
        };
        assert_eq!(lines[1], video);
    }
}
