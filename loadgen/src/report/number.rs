//! Figures as people read them: grouped thousands, three significant digits, a unit that fits.
//!
//! Invariant: what is not known is said to be unknown ([`UNKNOWN`]), never written as 0.

use std::time::{Duration, SystemTime};

/// Between groups of three digits on a terminal, where thin spaces come out wide or not at all.
pub const GAP: char = ' ';
/// Between groups of three digits in HTML: narrow, and no line breaks there.
pub const NARROW_GAP: char = '\u{202f}';
/// In place of a figure that is not known.
pub const UNKNOWN: &str = "–";

/// `70123456` as `70 123 456`.
pub fn grouped(number: u64, gap: char) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(gap);
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, and all of those before the point.
pub fn digits(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size >= 999.5 => {
            let whole = grouped(size.round() as u64, GAP);
            if value < 0.0 { format!("-{whole}") } else { whole }
        }
        _ if size >= 99.95 => format!("{value:.0}"),
        _ if size >= 9.995 => format!("{value:.1}"),
        _ if size == 0.0 => "0".to_owned(),
        _ if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A value in the largest of `units` that leaves at least 1 before the point; `units` ascend,
/// each with its size.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    // 999.7 of a unit would be written as 1 000 of it: let the next unit have it.
    let fits = |size: f64| (value.abs() * 1.0005) >= size;
    let (size, unit) = units
        .iter()
        .rev()
        .find(|(size, _)| fits(*size))
        .or_else(|| units.first())
        .copied()
        .unwrap_or((1.0, ""));
    format!("{} {unit}", digits(value / size))
}

pub fn micros(value: f64) -> String {
    scaled(value, &[(1.0, "µs"), (1e3, "ms"), (1e6, "s")])
}

pub fn millis(value: f64) -> String {
    micros(value * 1e3)
}

pub fn nanos(value: f64) -> String {
    scaled(value, &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")])
}

/// Powers of 1000, as networks and data sheets count.
pub fn bytes(value: f64) -> String {
    scaled(value, &[(1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")])
}

pub fn bits_per_s(value: f64) -> String {
    scaled(value, &[(1.0, "bit/s"), (1e3, "kbit/s"), (1e6, "Mbit/s"), (1e9, "Gbit/s")])
}

/// Of one core, so that 250 % are two and a half cores.
pub fn percent(value: f64) -> String {
    if value >= 99.95 { format!("{value:.0} %") } else { format!("{value:.1} %") }
}

pub fn known<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), text)
}

/// `h:mm:ss`, or `m:ss` below an hour.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// A time of day in UTC, to the second. Times before 1970 are 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit_that_fits() {
        assert_eq!(grouped(70_123_456, GAP), "70 123 456");
        assert_eq!(grouped(999, GAP), "999");
        assert_eq!(grouped(1000, GAP), "1 000");
        assert_eq!(digits(-1234.4), "-1 234");
        assert_eq!(digits(0.0), "0");
        assert_eq!(digits(0.0042), "0.0042");
        assert_eq!(micros(412.0), "412 µs");
        assert_eq!(micros(1234.0), "1.23 ms");
        assert_eq!(micros(999.7), "1.00 ms");
        assert_eq!(micros(2_500_000.0), "2.50 s");
        assert_eq!(nanos(812.4), "812 ns");
        assert_eq!(nanos(0.0), "0 ns");
        assert_eq!(bytes(84_200_000.0), "84.2 MB");
        assert_eq!(bits_per_s(1_250_000_000.0), "1.25 Gbit/s");
        assert_eq!(percent(99.94), "99.9 %");
        assert_eq!(percent(250.2), "250 %");
        assert_eq!(known(None::<f64>, micros), "–");
        assert_eq!(clock(Duration::from_secs(3725)), "1:02:05");
        assert_eq!(clock(Duration::from_secs(65)), "1:05");
    }

    #[test]
    fn the_calendar_knows_leap_years() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn grouping_only_adds_gaps(number: u64) {
            let text = grouped(number, GAP);
            prop_assert_eq!(text.replace(GAP, ""), number.to_string());
            prop_assert!(text.split(GAP).skip(1).all(|group| group.len() == 3));
        }

        #[test]
        fn three_digits_are_within_half_a_percent(value in 0.01f64..1e9) {
            let read: f64 = digits(value).replace(GAP, "").parse().unwrap();
            prop_assert!((read - value).abs() <= value * 0.005 + 0.005 * f64::from(value < 1.0));
        }
    }
}
