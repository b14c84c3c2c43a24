//! When a certificate ends, read from its DER (RFC 5280 section 4.1).
//!
//! Only the one date is needed, for a warning; a certificate that cannot be walked gives none.
//!
//! Not here: any judgement of the certificate; clients do that.

/// `notAfter`, in seconds since 1970.
pub(super) fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // The optional version is the only field with its tag.
    if fields.first() == Some(&VERSION) {
        (_, _, fields) = element(fields)?;
    }
    for _ in ["serial number", "signature algorithm", "issuer"] {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    seconds(tag, std::str::from_utf8(text).ok()?)
}

/// The first element's tag and content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        let digits = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
        length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = &rest[count..];
    }
    Some((tag, rest.get(..length)?, &rest[length..]))
}

fn seconds(tag: u8, text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').filter(|text| text.is_ascii())?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let year = text.get(..2)?.parse::<i64>().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let field = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let days = days_since_1970(year, field(0)?, field(2)?);
    u64::try_from(((days * 24 + field(4)?) * 60 + field(6)?) * 60 + field(8)?).ok()
}

/// Of the proleptic Gregorian calendar. Years are counted from March, so that the leap day is
/// a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_time_are_read() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(seconds(GENERALIZED_TIME, "20240229120000Z"), Some(1_709_208_000));
        assert_eq!(seconds(UTC_TIME, "7001"), None);
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        for (year, expected) in [(2031, 1_927_065_600), (2061, 2_873_836_800)] {
            params.not_after = rcgen::date_time_ymd(year, 1, 25);
            let certificate = params.clone().self_signed(&key).unwrap();
            assert_eq!(not_after(certificate.der()), Some(expected));
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for bytes in [&b""[..], b"\x30", b"\x30\x82", b"\x30\x84\xff\xff\xff\xff", &[0x30; 64]] {
            assert_eq!(not_after(bytes), None);
        }
    }
}
