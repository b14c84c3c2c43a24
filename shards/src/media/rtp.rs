//! The RTP header (RFC 3550 §5.1, RFC 8285): a view of a received one, a writer of ours; and
//! which protocol a datagram belongs to (RFC 7983).
//!
//! Invariants: parsing copies nothing and never panics, whatever the bytes; a parsed
//! `header_len` lies within the datagram. Writing never allocates.
//!
//! Not here: what an extension id means (`media::format`), SRTP, payload descriptors.

use std::fmt;

/// The protocol a datagram on the media port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
    Unknown,
}

/// Tells protocols apart by the first bytes.
#[inline]
pub fn kind(datagram: &[u8]) -> Kind {
    match datagram {
        // RFC 7983 §7.
        [0..=3, ..] => Kind::Stun,
        [20..=63, ..] => Kind::Dtls,
        // RFC 5761 §4: these packet types are kept free of RTP payload types.
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, _, ..] => Kind::Rtp,
        _ => Kind::Unknown,
    }
}

/// A view of the header of a received packet, protected or not: SRTP leaves it in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader<'a> {
    pub marker: bool,
    pub payload_type: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// The payload ends in padding, which [`unpad`] removes once it is decrypted.
    pub has_padding: bool,
    /// Where the payload starts.
    pub header_len: usize,
    form: Form,
    elements: &'a [u8],
}

/// Not an RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// How header extension elements are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// RFC 8285 §4.2.
    OneByte,
    /// RFC 8285 §4.3.
    TwoByte,
    /// An extension of some other profile, or none.
    Opaque,
}

impl<'a> RtpHeader<'a> {
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let fixed: &[u8; FIXED_LEN] = packet.first_chunk().ok_or(Malformed)?;
        if fixed[0] >> 6 != 2 {
            return Err(Malformed);
        }
        let csrcs_end = FIXED_LEN + 4 * usize::from(fixed[0] & 0x0F);
        let mut header = Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7F,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            has_padding: fixed[0] & 0x20 != 0,
            header_len: csrcs_end,
            form: Form::Opaque,
            elements: &[],
        };
        let rest = packet.get(csrcs_end..).ok_or(Malformed)?;
        if fixed[0] & 0x10 != 0 {
            let (prefix, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            let len = 4 * usize::from(u16::from_be_bytes([prefix[2], prefix[3]]));
            header.elements = rest.get(..len).ok_or(Malformed)?;
            header.header_len += 4 + len;
            header.form = match u16::from_be_bytes([prefix[0], prefix[1]]) {
                ONE_BYTE_PROFILE => Form::OneByte,
                // RFC 8285 §4.3: the low four bits are for the application.
                profile if profile & 0xFFF0 == TWO_BYTE_PROFILE => Form::TwoByte,
                _ => Form::Opaque,
            };
        }
        Ok(header)
    }

    /// The header extension elements, as (id, data).
    #[inline]
    pub fn elements(self) -> Elements<'a> {
        Elements { form: self.form, rest: self.elements }
    }
}

/// Iterates over header extension elements; stops at the first that makes no sense.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    form: Form,
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            let (id, len, rest) = match self.form {
                Form::Opaque => return None,
                // RFC 8285 §4.2: an id of 0 with a length is ignored, an id of 15 ends it all.
                Form::OneByte if first >> 4 == 15 => return None,
                Form::OneByte if first == 0 => (0, 0, rest),
                Form::OneByte => (first >> 4, usize::from(first & 0x0F) + 1, rest),
                // RFC 8285 §4.3: padding is a single byte without a length.
                Form::TwoByte if first == 0 => (0, 0, rest),
                Form::TwoByte => {
                    let (&len, rest) = rest.split_first()?;
                    (first, usize::from(len), rest)
                }
            };
            let (data, rest) = rest.split_at_checked(len)?;
            self.rest = rest;
            if id != 0 {
                return Some((id, data));
            }
        }
    }
}

/// The data of a transport-wide sequence number element.
#[inline]
pub fn transport_seq(data: &[u8]) -> Option<u16> {
    // Version 2 of the extension appends a feedback request, which is not for us.
    data.first_chunk().map(|&bytes| u16::from_be_bytes(bytes))
}

/// The data of an absolute send time element: 24 bits of 6.18 fixed point seconds.
#[inline]
pub fn abs_send_time(data: &[u8]) -> Option<u32> {
    let &[a, b, c] = data else { return None };
    Some(u32::from_be_bytes([0, a, b, c]))
}

/// The data of a MID, RID or repaired RID element: RFC 8843 §15 and RFC 8852 §3 make them
/// tokens, so anything else is not one that we negotiated.
#[inline]
pub fn sdes_text(data: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(data).ok()?;
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(text)
}

/// Removes the padding from the decrypted payload of a packet with `has_padding` (RFC 3550
/// §5.1). A packet of nothing but padding has an empty payload.
#[inline]
pub fn unpad(payload: &[u8]) -> Result<&[u8], Malformed> {
    let &padding = payload.last().ok_or(Malformed)?;
    if padding == 0 {
        return Err(Malformed);
    }
    let len = payload.len().checked_sub(usize::from(padding)).ok_or(Malformed)?;
    Ok(&payload[..len])
}

/// The fixed fields of a header that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHeader {
    pub marker: bool,
    pub payload_type: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Whether the payload that follows ends in padding.
    pub has_padding: bool,
}

impl FixedHeader {
    /// Version, padding, extension; marker, payload type.
    #[inline]
    pub(super) fn first_bytes(&self, has_elements: bool) -> u16 {
        let first = 0x80 | u8::from(self.has_padding) << 5 | u8::from(has_elements) << 4;
        u16::from_be_bytes([first, u8::from(self.marker) << 7 | (self.payload_type & 0x7F)])
    }
}

/// Writes headers at the start of a datagram.
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    out: &'a mut [u8],
}

impl<'a> HeaderWriter<'a> {
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out }
    }

    /// Writes a header with these extension elements, given as (id, data), and returns its
    /// length. The elements take the one-byte form if all of them can.
    ///
    /// # Panics
    /// If the buffer is shorter than [`header_len_max`] of the elements. In debug builds, if an
    /// id is 0 or data is longer than 255 bytes, neither of which can be written; release
    /// builds leave such an element out.
    #[inline]
    pub fn write(self, fixed: &FixedHeader, elements: &[(u8, &[u8])]) -> usize {
        let out = self.out;
        out[..2].copy_from_slice(&fixed.first_bytes(!elements.is_empty()).to_be_bytes());
        out[2..4].copy_from_slice(&fixed.seq.to_be_bytes());
        out[4..8].copy_from_slice(&fixed.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&fixed.ssrc.to_be_bytes());
        if elements.is_empty() {
            return FIXED_LEN;
        }
        // RFC 8285 §4.2: ids 1 to 14 and 1 to 16 bytes of data; §4.1.2: one form per packet.
        let one_byte =
            elements.iter().all(|&(id, data)| id <= 14 && (1..=16).contains(&data.len()));
        let mut end = ELEMENTS_AT;
        for &(id, data) in elements {
            debug_assert!(id != 0 && data.len() <= 255, "an element that has no encoding");
            if id == 0 || data.len() > 255 {
                continue;
            }
            if one_byte {
                out[end] = id << 4 | (data.len() - 1) as u8;
                end += 1;
            } else {
                out[end] = id;
                out[end + 1] = data.len() as u8;
                end += 2;
            }
            end = put(out, end, data);
        }
        while !end.is_multiple_of(4) {
            out[end] = 0;
            end += 1;
        }
        let profile = if one_byte { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE };
        out[12..14].copy_from_slice(&profile.to_be_bytes());
        out[14..16].copy_from_slice(&(((end - ELEMENTS_AT) / 4) as u16).to_be_bytes());
        end
    }
}

/// An upper bound on the length of a header with these elements.
pub fn header_len_max(elements: &[(u8, &[u8])]) -> usize {
    ELEMENTS_AT + elements.iter().map(|(_, data)| 2 + data.len()).sum::<usize>() + 3
}

/// Copies `data` and returns where it ends. Nearly all elements are 1 to 4 bytes, for which a
/// call of `memcpy` costs more than the copy.
#[inline]
pub(super) fn put(out: &mut [u8], at: usize, data: &[u8]) -> usize {
    let end = at + data.len();
    let out = &mut out[at..end];
    match *data {
        [a] => out[0] = a,
        [a, b] => out.copy_from_slice(&[a, b]),
        [a, b, c] => out.copy_from_slice(&[a, b, c]),
        _ => out.copy_from_slice(data),
    }
    end
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed RTP packet")
    }
}

impl std::error::Error for Malformed {}

pub(super) const FIXED_LEN: usize = 12;
/// Behind the fixed header and the extension's profile and length; we send no CSRCs.
pub(super) const ELEMENTS_AT: usize = 16;
pub(super) const ONE_BYTE_PROFILE: u16 = 0xBEDE;
const TWO_BYTE_PROFILE: u16 = 0x1000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIXED: FixedHeader = FixedHeader {
        marker: true,
        payload_type: 96,
        seq: 0x1234,
        timestamp: 0x5678_9ABC,
        ssrc: 0xDEAD_BEEF,
        has_padding: false,
    };

    #[test]
    fn protocols_are_told_apart_as_rfc_7983_and_rfc_5761_say() {
        assert_eq!(kind(&[0, 1, 0, 0]), Kind::Stun);
        assert_eq!(kind(&[22, 254, 253]), Kind::Dtls);
        assert_eq!(kind(&[0x80, 96]), Kind::Rtp);
        assert_eq!(kind(&[0x90, 96 | 0x80]), Kind::Rtp, "marker set");
        assert_eq!(kind(&[0x81, 200]), Kind::Rtcp);
        assert_eq!(kind(&[0x81, 207]), Kind::Rtcp);
        for other in [&[][..], &[0x80], &[4, 0], &[64, 0], &[127, 200], &[192, 200], &[255]] {
            assert_eq!(kind(other), Kind::Unknown, "{other:?}");
        }
    }

    #[test]
    fn a_header_with_csrcs_and_one_byte_elements_is_read() {
        let packet = [
            &[0xB2, 0xE0, 0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE, 0xAD, 0xBE, 0xEF][..],
            &[1; 8],
            &[0xBE, 0xDE, 0, 3, 0x31, 0xAA, 0xBB, 0, 0, 0x10, 0x07, 0x42, 1, 2, 3, 0xF0],
            &[9, 9, 2],
        ]
        .concat();
        let header = RtpHeader::parse(&packet).unwrap();
        assert!(header.marker && header.has_padding);
        assert_eq!((header.payload_type, header.seq, header.timestamp), (96, 0x1234, 0x5678_9ABC));
        assert_eq!((header.ssrc, header.header_len), (0xDEAD_BEEF, 36));
        let elements: Vec<_> = header.elements().collect();
        assert_eq!(elements, [(3, &[0xAA, 0xBB][..]), (1, &[7]), (4, &[1, 2, 3])]);
        assert_eq!(unpad(&packet[36..]), Ok(&[9][..]));
    }

    #[test]
    fn reserved_and_truncated_elements_end_the_iteration() {
        let read = |profile: [u8; 2], data: [u8; 8]| {
            let mut packet = [[0x90; 1].as_slice(), &[0; 11], &profile, &[0, 2], &data].concat();
            packet[1] = 96;
            RtpHeader::parse(&packet).unwrap().elements().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(read([0xBE, 0xDE], [0x10, 1, 0xF0, 2, 0x20, 3, 0, 0]), [1]);
        assert_eq!(read([0xBE, 0xDE], [0x10, 1, 0x01, 2, 3, 0x20, 3, 0]), [1, 2]);
        assert_eq!(read([0xBE, 0xDE], [0x10, 1, 0x2F, 0, 0, 0, 0, 0]), [1]);
        assert_eq!(read([0x10, 0x05], [200, 1, 7, 0, 9, 0, 4, 9]), [200, 9]);
        assert_eq!(read([0x10, 0x00], [0, 0, 0, 0, 0, 0, 0, 9]), []);
        assert_eq!(read([0xAB, 0xCD], [0x10, 1, 0, 0, 0, 0, 0, 0]), []);
    }

    #[test]
    fn lengths_beyond_the_packet_are_malformed() {
        let mut packet = [0u8; 20];
        packet[0] = 0x92;
        assert_eq!(RtpHeader::parse(&packet), Err(Malformed), "no room for the extension");
        packet[0] = 0x90;
        assert_eq!(RtpHeader::parse(&packet).unwrap().header_len, 16);
        packet[15] = 2;
        assert_eq!(RtpHeader::parse(&packet), Err(Malformed), "extension too long");
        packet[0] = 0x86;
        assert_eq!(RtpHeader::parse(&packet), Err(Malformed), "too many CSRCs");
        packet[0] = 0x40;
        assert_eq!(RtpHeader::parse(&packet), Err(Malformed), "version 1");
        assert_eq!(RtpHeader::parse(&[0x80; 11]), Err(Malformed));
    }

    #[test]
    fn padding_must_fit() {
        assert_eq!(unpad(&[1, 2, 3, 1]), Ok(&[1, 2, 3][..]));
        assert_eq!(unpad(&[0, 0, 3]), Ok(&[][..]));
        assert_eq!(unpad(&[0, 0, 4]), Err(Malformed));
        assert_eq!(unpad(&[1, 0]), Err(Malformed));
        assert_eq!(unpad(&[]), Err(Malformed));
    }

    #[test]
    fn element_data_is_decoded() {
        assert_eq!(transport_seq(&[1, 2]), Some(0x0102));
        assert_eq!(transport_seq(&[1, 2, 0x80, 0]), Some(0x0102));
        assert_eq!(transport_seq(&[1]), None);
        assert_eq!(abs_send_time(&[1, 2, 3]), Some(0x01_0203));
        assert_eq!(abs_send_time(&[1, 2]), None);
        assert_eq!(sdes_text(b"0"), Some("0"));
        assert_eq!(sdes_text(b""), None);
        assert_eq!(sdes_text(b"a\0"), None);
        assert_eq!(sdes_text(b"\xFF"), None);
    }

    #[test]
    fn one_long_or_empty_element_or_high_id_makes_all_two_byte() {
        let mut out = [0xEE; 64];
        let small: (u8, &[u8]) = (14, &[1; 16]);
        assert_eq!(HeaderWriter::new(&mut out).write(&FIXED, &[small]), 36);
        assert_eq!(out[12..17], [0xBE, 0xDE, 0, 5, 0xEF]);
        for other in [(15, &[1; 1][..]), (1, &[1; 17]), (1, &[])] {
            let len = HeaderWriter::new(&mut out).write(&FIXED, &[small, other]);
            assert_eq!(out[12..14], [0x10, 0x00]);
            let header = RtpHeader::parse(&out[..len]).unwrap();
            assert_eq!(header.elements().collect::<Vec<_>>(), [small, other]);
        }
        assert_eq!(HeaderWriter::new(&mut out).write(&FIXED, &[]), 12);
        assert_eq!(out[0], 0x80);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(
            mut packet in prop::collection::vec(any::<u8>(), 0..120),
            first in 0x80u8..0xC0,
            profile in prop::sample::select(vec![0xBEDEu16, 0x1000, 0x100F, 0xABCD]),
            words in 0u8..20,
        ) {
            let parsed = |packet: &[u8]| {
                if let Ok(header) = RtpHeader::parse(packet) {
                    assert!(header.header_len <= packet.len());
                    assert!(header.elements().all(|(id, data)| id != 0 && data.len() < 256));
                    let _ = unpad(&packet[header.header_len..]);
                }
            };
            let _ = kind(&packet);
            parsed(&packet);
            if packet.len() > 16 {
                packet[0] = first & 0xF0;
                packet[12..14].copy_from_slice(&profile.to_be_bytes());
                packet[14..16].copy_from_slice(&[0, words]);
                parsed(&packet);
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            marker: bool,
            has_padding: bool,
            payload_type in 0u8..128,
            seq: u16,
            timestamp: u32,
            ssrc: u32,
            high in prop::sample::select(vec![14u8, 255]),
            mut elements in prop::collection::vec(
                (1u8..=255, prop::collection::vec(any::<u8>(), 0..20)), 0..8),
        ) {
            for (id, _) in &mut elements {
                *id = (*id).min(high);
            }
            let fixed = FixedHeader { marker, payload_type, seq, timestamp, ssrc, has_padding };
            let elements: Vec<(u8, &[u8])> =
                elements.iter().map(|(id, data)| (*id, &data[..])).collect();
            let mut out = vec![0xEE; header_len_max(&elements) + 5];
            let len = HeaderWriter::new(&mut out).write(&fixed, &elements);
            prop_assert!(len <= header_len_max(&elements) && len.is_multiple_of(4));
            let header = RtpHeader::parse(&out).unwrap();
            prop_assert_eq!(header.header_len, len);
            prop_assert_eq!((header.marker, header.has_padding), (marker, has_padding));
            prop_assert_eq!((header.payload_type, header.seq), (payload_type, seq));
            prop_assert_eq!((header.timestamp, header.ssrc), (timestamp, ssrc));
            prop_assert_eq!(header.elements().collect::<Vec<_>>(), elements);
        }
    }
}
