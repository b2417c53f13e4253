//! The common spellings of dates, timestamps and numerics, read without Postgres' general parsers.
//!
//! Each function returns `None` for whatever it does not know, errors included: Postgres' own input
//! function then decides. Bytes only, no Postgres call, so that it can be tested without a server.
#![deny(unsafe_code)]

/// Days from 0000-03-01 (proleptic Gregorian) to 2000-01-01, `POSTGRES_EPOCH_JDATE`.
const EPOCH_FROM_MARCH_0: i32 = 730_425;
const USECS_PER_SEC: i64 = 1_000_000;
const USECS_PER_DAY: i64 = 86_400 * USECS_PER_SEC;

fn two_digits(text: &[u8]) -> Option<u32> {
    let (tens, ones) = (text[0].wrapping_sub(b'0'), text[1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(tens) * 10 + u32::from(ones))
}

/// `YYYY-MM-DD` as days since 2000-01-01. A year of four digits that comes first is the year
/// whatever `DateStyle` says (`DecodeNumber` in `utils/adt/datetime.c`).
#[inline]
pub fn date(text: &[u8]) -> Option<i32> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let year = two_digits(&text[0..2])? * 100 + two_digits(&text[2..4])?;
    let (month, day) = (two_digits(&text[5..7])?, two_digits(&text[8..10])?);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let (y, m) = if month > 2 {
        (year as i32, month as i32 - 3)
    } else {
        (year as i32 - 1, month as i32 + 9)
    };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day as i32 - 1;
    Some(days - EPOCH_FROM_MARCH_0)
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `YYYY-MM-DD HH:MM:SS[.ffffff]`, also with a `T`, as microseconds since 2000-01-01.
#[inline]
pub fn timestamp(text: &[u8]) -> Option<i64> {
    if text.len() < 19 || !matches!(text[10], b' ' | b'T') || text[13] != b':' || text[16] != b':' {
        return None;
    }
    let day = i64::from(date(&text[..10])?);
    let hour = two_digits(&text[11..13])?;
    let (minute, second) = (two_digits(&text[14..16])?, two_digits(&text[17..19])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = 0;
    if let Some((point, digits)) = text[19..].split_first() {
        if *point != b'.' || digits.is_empty() || digits.len() > 6 {
            return None;
        }
        for digit in digits {
            let digit = digit.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            micros = micros * 10 + i64::from(digit);
        }
        micros *= 10i64.pow(6 - digits.len() as u32);
    }
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    Some(day * USECS_PER_DAY + seconds * USECS_PER_SEC + micros)
}

/// Room for the header and the digits of any number that [`numeric`] reads.
pub const NUMERIC_BYTES_MAX: usize = 2 + 2 * 10;

/// A number without exponent of at most 18 digits, as the bytes of a `numeric` in short format
/// after its varlena header (`NumericShort` in `utils/adt/numeric.c`). Returns their number.
///
/// `limits` is the precision and scale of the column's type, if it has them; more digits after the
/// point than the scale, and values that don't fit, are left to Postgres.
#[inline]
pub fn numeric(
    text: &[u8],
    limits: Option<(u32, u32)>,
    out: &mut [u8; NUMERIC_BYTES_MAX],
) -> Option<usize> {
    let (negative, text) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let mut value: u64 = 0;
    let mut point = None;
    for (i, byte) in text.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            value = value * 10 + u64::from(digit);
        } else if *byte == b'.' && point.is_none() {
            point = Some(i);
        } else {
            return None;
        }
    }
    let written = point.map_or(0, |at| text.len() - at - 1) as u32;
    let digits = text.len() - usize::from(point.is_some());
    // The digits after the point, filled up to groups of four, must fit as well.
    if digits == 0 || digits > 18 || written > 16 {
        return None;
    }
    let scale = match limits {
        None => written,
        Some((precision, scale)) => {
            // Postgres counts the digits before the point without leading zeroes.
            if written > scale || scale > precision || scale > 18 {
                return None;
            }
            let whole = value / 10u64.pow(written);
            if precision - scale < 18 && whole >= 10u64.pow(precision - scale) {
                return None;
            }
            scale
        }
    };
    // Groups of four digits on each side of the point, the most significant first.
    let mut groups = [0u16; 10];
    let whole = value / 10u64.pow(written);
    let fraction_digits = written.div_ceil(4);
    let mut fraction = value % 10u64.pow(written) * 10u64.pow(fraction_digits * 4 - written);
    for i in (0..fraction_digits as usize).rev() {
        groups[5 + i] = (fraction % 10_000) as u16;
        fraction /= 10_000;
    }
    let mut rest = whole;
    for group in groups[..5].iter_mut().rev() {
        *group = (rest % 10_000) as u16;
        rest /= 10_000;
    }
    let first = groups.iter().position(|group| *group != 0);
    let last = groups.iter().rposition(|group| *group != 0);
    let (range, weight) = match (first, last) {
        (Some(first), Some(last)) => (first..last + 1, 4 - first as i32),
        _ => (0..0, 0),
    };
    let negative = negative && !range.is_empty();
    // NUMERIC_SHORT: sign 1 bit, dscale 6, weight 7 in two's complement.
    let header =
        0x8000 | if negative { 0x2000 } else { 0 } | (scale as u16) << 7 | (weight & 0x7f) as u16;
    out[..2].copy_from_slice(&header.to_ne_bytes());
    let n = range.len();
    for (slot, group) in out[2..].chunks_exact_mut(2).zip(&groups[range]) {
        slot.copy_from_slice(&group.to_ne_bytes());
    }
    Some(2 + 2 * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_2000() {
        for (text, days) in [
            ("2000-01-01", 0),
            ("2000-02-29", 59),
            ("1999-12-31", -1),
            ("1970-01-01", -10_957),
            ("0001-01-01", -730_119),
            ("9999-12-31", 2_921_939),
        ] {
            assert_eq!(date(text.as_bytes()), Some(days), "{text}");
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut expected = date(b"0001-01-01").expect("a date") - 1;
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    let text = format!("{year:04}-{month:02}-{day:02}");
                    expected += 1;
                    assert_eq!(date(text.as_bytes()), Some(expected), "{text}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_plain_date_is_left_alone() {
        for text in [
            "1999-02-29",
            "1900-02-29",
            "2000-13-01",
            "2000-00-10",
            "2000-01-00",
            "2000-01-32",
            "0000-01-01",
            "2000/01/01",
            "01-02-2000",
            "2000-1-01",
            " 2000-01-01",
            "2000-01-01 ",
            "infinity",
            "2000-0a-01",
            "",
        ] {
            assert_eq!(date(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn timestamps_have_up_to_six_decimals() {
        assert_eq!(timestamp(b"2000-01-01 00:00:00"), Some(0));
        assert_eq!(timestamp(b"2000-01-02T01:02:03.5"), Some(90_123_500_000));
        assert_eq!(timestamp(b"1999-12-31 23:59:59.999999"), Some(-1));
        for text in [
            "2000-01-01 24:00:00",
            "2000-01-01 23:59:60",
            "2000-01-01 00:00:00.1234567",
            "2000-01-01 00:00:00.",
            "2000-01-01 00:00:00Z",
            "2000-01-01",
            "2000-01-01 00:00:0x",
        ] {
            assert_eq!(timestamp(text.as_bytes()), None, "{text:?}");
        }
    }

    fn parts(text: &str, limits: Option<(u32, u32)>) -> Option<(u16, Vec<u16>)> {
        let mut out = [0; NUMERIC_BYTES_MAX];
        let n = numeric(text.as_bytes(), limits, &mut out)?;
        let words: Vec<u16> = out[..n]
            .chunks_exact(2)
            .map(|w| u16::from_ne_bytes([w[0], w[1]]))
            .collect();
        Some((words[0], words[1..].to_vec()))
    }

    #[test]
    fn numerics_have_groups_of_four_digits() {
        let header = |scale: u16, weight: i32| 0x8000 | scale << 7 | (weight & 0x7f) as u16;
        for (text, limits, expected) in [
            ("0", None, (header(0, 0), vec![])),
            ("-0.00", None, (header(2, 0), vec![])),
            ("1", None, (header(0, 0), vec![1])),
            ("10000", None, (header(0, 1), vec![1])),
            ("-1.5", None, (header(1, 0) | 0x2000, vec![1, 5000])),
            (".05", None, (header(2, -1), vec![500])),
            ("0.00005", None, (header(5, -2), vec![5000])),
            (
                "12345.6789",
                Some((15, 4)),
                (header(4, 1), vec![1, 2345, 6789]),
            ),
            ("17", Some((15, 2)), (header(2, 0), vec![17])),
            ("+0017.", Some((4, 2)), (header(2, 0), vec![17])),
            (
                "999999999999999999",
                None,
                (header(0, 4), vec![99, 9999, 9999, 9999, 9999]),
            ),
            (
                "0.999999999999999",
                None,
                (header(15, -1), vec![9999, 9999, 9999, 9990]),
            ),
        ] {
            assert_eq!(parts(text, limits), Some(expected), "{text}");
        }
    }

    #[test]
    fn numerics_that_need_rounding_or_refusing_are_left_alone() {
        for (text, limits) in [
            ("1.005", Some((15, 2))),
            ("100", Some((4, 2))),
            ("1e5", None),
            ("NaN", None),
            ("", None),
            (".", None),
            ("-", None),
            ("1.2.3", None),
            (" 1", None),
            ("1 ", None),
            ("1_000", None),
            ("0x10", None),
            ("1234567890123456789", None),
            ("0.12345678901234567", None),
            ("--1", None),
        ] {
            assert_eq!(parts(text, limits), None, "{text:?}");
        }
    }
}
