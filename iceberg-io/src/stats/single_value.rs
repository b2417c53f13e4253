//! Iceberg's binary form of single values (spec, appendix D), and the shortening of long bounds.
//!
//! A shortened lower bound is a prefix, which is never greater than the value. A shortened upper bound is a prefix whose
//! last position that can be raised has been raised, which makes it greater than every value with that prefix; where no
//! position can be raised there is no bound.

/// Values of more bytes than this are shortened.
pub(super) const LONG_BYTES: usize = 64;

/// To how many code points or bytes.
const SHORT_LENGTH: usize = 16;

/// An unscaled decimal: two's complement, big-endian, as few bytes as possible.
pub(super) fn decimal(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let fill = if value < 0 { 0xff } else { 0x00 };
    let mut start = 0;
    // A leading byte is redundant if it only repeats the sign bit of the next one.
    while start < bytes.len() - 1 && bytes[start] == fill && (bytes[start + 1] ^ fill) & 0x80 == 0 {
        start += 1;
    }
    bytes[start..].to_vec()
}

pub(super) fn string_lower(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() <= LONG_BYTES {
        return Some(value.to_vec());
    }
    let text = std::str::from_utf8(value).ok()?;
    Some(
        text.chars()
            .take(SHORT_LENGTH)
            .collect::<String>()
            .into_bytes(),
    )
}

pub(super) fn string_upper(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() <= LONG_BYTES {
        return Some(value.to_vec());
    }
    // More than LONG_BYTES bytes are more than SHORT_LENGTH code points, so this cuts something off.
    let mut prefix: Vec<char> = std::str::from_utf8(value)
        .ok()?
        .chars()
        .take(SHORT_LENGTH)
        .collect();
    while let Some(last) = prefix.pop() {
        if let Some(raised) = next_code_point(last) {
            prefix.push(raised);
            return Some(prefix.into_iter().collect::<String>().into_bytes());
        }
    }
    None
}

pub(super) fn binary_lower(value: &[u8]) -> Option<Vec<u8>> {
    match value.len() <= LONG_BYTES {
        true => Some(value.to_vec()),
        false => Some(value[..SHORT_LENGTH].to_vec()),
    }
}

pub(super) fn binary_upper(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() <= LONG_BYTES {
        return Some(value.to_vec());
    }
    let mut prefix = value[..SHORT_LENGTH].to_vec();
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return Some(prefix);
        }
    }
    None
}

/// The next code point that UTF-8 can hold: surrogates are skipped, the last one has no successor.
fn next_code_point(c: char) -> Option<char> {
    match c {
        '\u{d7ff}' => Some('\u{e000}'),
        c => char::from_u32(u32::from(c) + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_sign_bit() {
        for (value, bytes) in [
            (0i128, vec![0x00]),
            (127, vec![0x7f]),
            (128, vec![0x00, 0x80]),
            (-1, vec![0xff]),
            (-128, vec![0x80]),
            (-129, vec![0xff, 0x7f]),
            (1420, vec![0x05, 0x8c]),
        ] {
            assert_eq!(decimal(value), bytes, "{value}");
        }
        assert_eq!(decimal(i128::MAX).len(), 16);
        assert_eq!(decimal(i128::MIN).len(), 16);
    }

    #[test]
    fn shortened_strings_still_bound() {
        let high = char::MAX.to_string();
        let surrogate_edge = "\u{d7ff}";
        let long: Vec<String> = vec![
            "a".repeat(65),
            "ä".repeat(40),
            surrogate_edge.repeat(30),
            format!("b{}", high.repeat(30)),
            format!("{}{}", "x".repeat(15), high.repeat(20)),
            format!("{}\u{ff}{}", "y".repeat(15), "z".repeat(60)),
        ];
        for value in &long {
            let lower = String::from_utf8(string_lower(value.as_bytes()).unwrap()).unwrap();
            let upper = String::from_utf8(string_upper(value.as_bytes()).unwrap()).unwrap();
            assert!(
                lower.as_str() <= value.as_str() && value.as_str() < upper.as_str(),
                "{value:?}"
            );
            assert!(lower.chars().count() <= 16 && upper.chars().count() <= 16);
        }
        assert_eq!(
            string_upper(surrogate_edge.repeat(30).as_bytes())
                .unwrap()
                .len(),
            48
        );
        assert_eq!(string_upper(high.repeat(17).as_bytes()), None);
        let exact = "é".repeat(32);
        assert_eq!(string_upper(exact.as_bytes()).unwrap(), exact.as_bytes());
    }

    #[test]
    fn shortened_binaries_still_bound() {
        let mut value = vec![7u8; 15];
        value.extend([0xff; 60]);
        assert_eq!(binary_lower(&value).unwrap(), value[..16]);
        let mut raised = vec![7u8; 14];
        raised.push(8);
        assert_eq!(binary_upper(&value).unwrap(), raised);
        assert_eq!(binary_upper(&[0xff; 65]), None);
        assert_eq!(binary_upper(&[0xff; 64]).unwrap(), vec![0xff; 64]);
    }
}
