//! The digits of a `numeric` as an unscaled 128-bit integer, and back.
//!
//! Works on bytes and slices only: no Postgres call, no unsafe code, so that it can be tested
//! without a server. The format is that of `src/backend/utils/adt/numeric.c`, whose macros keep
//! their names:
//!
//! ```text
//! short  ├ n_header u16: 10 sign:1 dscale:6 weight:7 (two's complement) ┼ digits i16 × n ┤
//! long   ├ n_sign_dscale u16: sign:2 dscale:14 ┼ n_weight i16 ┼ digits i16 × n ┤
//! special├ n_header u16: 11 NaN / +Infinity / -Infinity ┤
//! ```
//!
//! Digits are base 10000, most significant first, without leading or trailing zero digits; the
//! first counts 10000^weight. Zero has no digits, weight 0 and a positive sign. All numbers are in
//! native byte order, and unaligned where the varlena header is short.
#![deny(unsafe_code)]

use std::ops::Range;

const NBASE: u64 = 10_000;
const DEC_DIGITS: i32 = 4;

const NUMERIC_SIGN_MASK: u16 = 0xC000;
const NUMERIC_NEG: u16 = 0x4000;
const NUMERIC_SHORT: u16 = 0x8000;
const NUMERIC_SPECIAL: u16 = 0xC000;
const NUMERIC_EXT_SIGN_MASK: u16 = 0xF000;
const NUMERIC_NAN: u16 = 0xC000;
const NUMERIC_PINF: u16 = 0xD000;
const NUMERIC_DSCALE_MASK: u16 = 0x3FFF;

const NUMERIC_SHORT_SIGN_MASK: u16 = 0x2000;
const NUMERIC_SHORT_DSCALE_MASK: u16 = 0x1F80;
const NUMERIC_SHORT_DSCALE_SHIFT: u32 = 7;
const NUMERIC_SHORT_WEIGHT_SIGN_MASK: u16 = 0x0040;
const NUMERIC_SHORT_WEIGHT_MASK: u16 = 0x003F;

/// The most decimal digits that an Iceberg decimal has.
pub const PRECISION_MAX: u8 = 38;

/// Enough for every `i128` at every scale up to [`PRECISION_MAX`]: 39 decimal digits, of which up
/// to three share a digit with zeroes.
const DIGITS_MAX: usize = 12;

/// More digits than this, with a last one that is not zero, are more than 38 decimal digits.
const DIGITS_READ: usize = 16;

static POW10: [u128; PRECISION_MAX as usize + 1] = {
    let mut table = [1u128; PRECISION_MAX as usize + 1];
    let mut i = 1;
    while i < table.len() {
        table[i] = table[i - 1] * 10;
        i += 1;
    }
    table
};

/// Why a number isn't a decimal of some precision and scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NaN,
    Infinity,
    NegativeInfinity,
    /// More digits before the point than the precision leaves.
    OutOfRange,
    /// Digits that aren't zero past the scale.
    Inexact,
    /// Not a `numeric`: its bytes end too early.
    Malformed,
}

/// How many digits after the point a `numeric` (without its varlena header) is shown with (`NUMERIC_DSCALE`); `None`
/// of NaN and infinities.
pub fn display_scale(payload: &[u8]) -> Option<u16> {
    let header = u16::from_ne_bytes(*payload.first_chunk::<2>()?);
    match header & NUMERIC_SIGN_MASK {
        NUMERIC_SPECIAL => None,
        NUMERIC_SHORT => Some((header & NUMERIC_SHORT_DSCALE_MASK) >> NUMERIC_SHORT_DSCALE_SHIFT),
        _ => Some(header & NUMERIC_DSCALE_MASK),
    }
}

/// The value of a `numeric` (without its varlena header) times 10^scale, if that is an integer of
/// at most `precision` decimal digits.
#[inline]
pub fn unscaled(payload: &[u8], precision: u8, scale: u8) -> Result<i128, Refused> {
    let Some((head, mut rest)) = payload.split_first_chunk::<2>() else {
        return Err(Refused::Malformed);
    };
    let header = u16::from_ne_bytes(*head);
    let (negative, weight) = match header & NUMERIC_SIGN_MASK {
        NUMERIC_SHORT => {
            let weight = (header & NUMERIC_SHORT_WEIGHT_MASK) as i32;
            let sign = (header & NUMERIC_SHORT_WEIGHT_SIGN_MASK) as i32;
            (header & NUMERIC_SHORT_SIGN_MASK != 0, weight - sign)
        }
        NUMERIC_SPECIAL => {
            return Err(match header & NUMERIC_EXT_SIGN_MASK {
                NUMERIC_NAN => Refused::NaN,
                NUMERIC_PINF => Refused::Infinity,
                _ => Refused::NegativeInfinity,
            });
        }
        sign => {
            let Some((weight, digits)) = rest.split_first_chunk::<2>() else {
                return Err(Refused::Malformed);
            };
            rest = digits;
            (sign == NUMERIC_NEG, i16::from_ne_bytes(*weight) as i32)
        }
    };
    let mut digits = [0i16; DIGITS_READ];
    let n = rest.len() / 2;
    if n > DIGITS_READ {
        return Err(if weight * DEC_DIGITS >= precision as i32 {
            Refused::OutOfRange
        } else {
            Refused::Inexact
        });
    }
    for (digit, raw) in digits.iter_mut().zip(rest.chunks_exact(2)) {
        *digit = i16::from_ne_bytes([raw[0], raw[1]]);
    }
    let value = from_digits(&digits[..n], weight, negative, scale)?;
    if value.unsigned_abs() < POW10[precision.min(PRECISION_MAX) as usize] {
        Ok(value)
    } else {
        Err(Refused::OutOfRange)
    }
}

/// `±Σ digits[i] × 10000^(weight-i)`, times 10^scale, if that is an integer that fits.
#[inline]
pub fn from_digits(
    digits: &[i16],
    weight: i32,
    negative: bool,
    scale: u8,
) -> Result<i128, Refused> {
    let mut n = digits.len();
    while n > 0 && digits[n - 1] == 0 {
        n -= 1;
    }
    let Some((&last, upper)) = digits[..n].split_last() else {
        return Ok(0);
    };
    // The last digit counts 10^exponent of the result's units.
    let mut exponent = DEC_DIGITS * (weight - upper.len() as i32) + scale as i32;
    let mut last = last as u64;
    // What one more digit multiplies the upper ones by: less than NBASE where only the first
    // decimal digits of the last one are within the scale.
    let mut step = NBASE;
    if exponent < 0 {
        if exponent <= -DEC_DIGITS {
            return Err(Refused::Inexact);
        }
        let cut = POW10[-exponent as usize] as u64;
        if !last.is_multiple_of(cut) {
            return Err(Refused::Inexact);
        }
        last /= cut;
        step = NBASE / cut;
        exponent = 0;
    }
    let magnitude = if upper.len() <= 3 && exponent < DEC_DIGITS {
        // 16 decimal digits, then 3 more: below 2^64.
        let upper = upper.iter().fold(0u64, |m, &d| m * NBASE + d as u64);
        ((upper * step + last) * POW10[exponent as usize] as u64) as u128
    } else {
        wide_magnitude(upper, step, last, exponent).ok_or(Refused::OutOfRange)?
    };
    let value = i128::try_from(magnitude).map_err(|_| Refused::OutOfRange)?;
    Ok(if negative { -value } else { value })
}

fn wide_magnitude(upper: &[i16], step: u64, last: u64, exponent: i32) -> Option<u128> {
    let mut m = 0u128;
    for &digit in upper {
        m = m.checked_mul(NBASE as u128)?.checked_add(digit as u128)?;
    }
    m.checked_mul(step as u128)?
        .checked_add(last as u128)?
        .checked_mul(*POW10.get(exponent as usize)?)
}

/// Splits `|unscaled| / 10^scale` into base-10000 digits, as `make_result` leaves them: without
/// leading and trailing zeroes. Returns where they are in `digits` and the first one's weight.
#[inline]
pub fn to_digits(unscaled: i128, scale: u8, digits: &mut [i16; DIGITS_MAX]) -> (Range<usize>, i32) {
    let mut start = DIGITS_MAX;
    let mut wide = unscaled.unsigned_abs();
    let partial = (scale % DEC_DIGITS as u8) as usize;
    if partial > 0 {
        // The last digit's decimal digits past the scale are zeroes.
        let unit = POW10[partial] as u64;
        let low = if let Ok(narrow) = u64::try_from(wide) {
            wide = (narrow / unit) as u128;
            narrow % unit
        } else {
            let low = (wide % unit as u128) as u64;
            wide /= unit as u128;
            low
        };
        start -= 1;
        digits[start] = (low * (NBASE / unit)) as i16;
    }
    while wide > u64::MAX as u128 {
        start -= 1;
        digits[start] = (wide % NBASE as u128) as i16;
        wide /= NBASE as u128;
    }
    let mut narrow = wide as u64;
    while narrow > 0 {
        start -= 1;
        digits[start] = (narrow % NBASE) as i16;
        narrow /= NBASE;
    }
    let after_point = scale.div_ceil(DEC_DIGITS as u8) as i32;
    let weight = (DIGITS_MAX - start) as i32 - after_point - 1;
    let mut end = DIGITS_MAX;
    while end > start && digits[end - 1] == 0 {
        end -= 1;
    }
    (start..end, if start == end { 0 } else { weight })
}

/// A `numeric` without its varlena header.
pub struct Packed {
    bytes: [u8; 2 + 2 * DIGITS_MAX],
    len: usize,
}

impl Packed {
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// `unscaled / 10^scale` as a `numeric` of display scale `scale`, as `make_result` builds it.
/// `scale` is at most [`PRECISION_MAX`], so that the short header always fits: it holds a scale
/// up to 63 and weights from -64 to 63.
#[inline]
pub fn pack(unscaled: i128, scale: u8) -> Packed {
    debug_assert!(scale <= PRECISION_MAX);
    let mut digits = [0i16; DIGITS_MAX];
    let (range, weight) = to_digits(unscaled, scale, &mut digits);
    let mut header = NUMERIC_SHORT
        | (scale as u16) << NUMERIC_SHORT_DSCALE_SHIFT
        | (weight as u16) & (NUMERIC_SHORT_WEIGHT_SIGN_MASK | NUMERIC_SHORT_WEIGHT_MASK);
    if unscaled < 0 {
        header |= NUMERIC_SHORT_SIGN_MASK;
    }
    let mut packed = Packed {
        bytes: [0; 2 + 2 * DIGITS_MAX],
        len: 2 + 2 * range.len(),
    };
    packed.bytes[..2].copy_from_slice(&header.to_ne_bytes());
    for (raw, digit) in packed.bytes[2..].chunks_exact_mut(2).zip(&digits[range]) {
        raw.copy_from_slice(&digit.to_ne_bytes());
    }
    packed
}

/// What [`pack`] gives for a number below 2^64 in magnitude: the bytes in memory order, from the lowest on, and how many
/// they are. That is a fraction of the work: there are six digits at most, which never leave a register.
#[inline]
pub fn pack_narrow(unscaled: i128, scale: u8) -> Option<(u128, usize)> {
    debug_assert!(scale <= PRECISION_MAX);
    if cfg!(target_endian = "big") {
        return None;
    }
    let mut rest = u64::try_from(unscaled.unsigned_abs()).ok()?;
    let mut image = 0u128;
    let mut digits = 0;
    // Of the last digit.
    let mut weight = -i32::from(scale.div_ceil(DEC_DIGITS as u8));
    let mut push = |digit: u64| {
        if digits > 0 || digit > 0 {
            image = image << 16 | u128::from(digit);
            digits += 1;
        } else {
            weight += 1;
        }
    };
    match scale % DEC_DIGITS as u8 {
        1 => {
            push(rest % 10 * 1000);
            rest /= 10;
        }
        2 => {
            push(rest % 100 * 100);
            rest /= 100;
        }
        3 => {
            push(rest % 1000 * 10);
            rest /= 1000;
        }
        _ => {}
    }
    while rest > 0 {
        push(rest % NBASE);
        rest /= NBASE;
    }
    let weight = if digits == 0 { 0 } else { weight + digits - 1 };
    let mut header = NUMERIC_SHORT
        | u16::from(scale) << NUMERIC_SHORT_DSCALE_SHIFT
        | (weight as u16) & (NUMERIC_SHORT_WEIGHT_SIGN_MASK | NUMERIC_SHORT_WEIGHT_MASK);
    if unscaled < 0 {
        header |= NUMERIC_SHORT_SIGN_MASK;
    }
    Some((image << 16 | u128::from(header), 2 + 2 * digits as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Postgres stores: header word, then digits.
    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    /// The digits of a decimal literal, found the way of `set_var_from_str`: aligned at the point,
    /// four at a time.
    fn digits_of_text(unscaled: i128, scale: u8) -> (Vec<i16>, i32) {
        let text = format!("{:0>1$}", unscaled.unsigned_abs(), scale as usize + 1);
        let (before, after) = text.split_at(text.len() - scale as usize);
        let before = format!("{:0>1$}", before, before.len().next_multiple_of(4));
        let after = format!("{:0<1$}", after, after.len().next_multiple_of(4));
        let mut weight = before.len() as i32 / 4 - 1;
        let all = before + &after;
        let mut digits: Vec<i16> = (0..all.len() / 4)
            .map(|i| all[i * 4..i * 4 + 4].parse().unwrap())
            .collect();
        while digits.first() == Some(&0) {
            digits.remove(0);
            weight -= 1;
        }
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if digits.is_empty() {
            weight = 0;
        }
        (digits, weight)
    }

    #[test]
    fn known_images() {
        for (value, scale, image) in [
            (0i128, 2u8, bytes(&[0x8100])),
            (0, 0, bytes(&[0x8000])),
            (1_234_567, 2, bytes(&[0x8101, 1, 2345, 6700])),
            (-5, 2, bytes(&[0xA17F, 500])),
            (10_000, 0, bytes(&[0x8001, 1])),
            (-1, 0, bytes(&[0xA000, 1])),
            (1, 5, bytes(&[0x82FE, 1000])),
        ] {
            assert_eq!(pack(value, scale).as_bytes(), image, "{value} at {scale}");
            assert_eq!(unscaled(&image, 38, scale), Ok(value));
        }
    }

    #[test]
    fn display_scales() {
        assert_eq!(display_scale(pack(12_345, 7).as_bytes()), Some(7));
        assert_eq!(display_scale(pack(-1, 38).as_bytes()), Some(38));
        assert_eq!(display_scale(&bytes(&[100, 0, 1, 5000])), Some(100));
        assert_eq!(display_scale(&bytes(&[NUMERIC_NEG | 70, 0, 7])), Some(70));
        assert_eq!(display_scale(&bytes(&[0xC000])), None);
        assert_eq!(display_scale(&[1]), None);
    }

    #[test]
    fn long_header() {
        // 1.5 with a display scale of 100, which needs the long form.
        assert_eq!(unscaled(&bytes(&[100, 0, 1, 5000]), 38, 2), Ok(150));
        assert_eq!(unscaled(&bytes(&[NUMERIC_NEG | 100, 0, 7]), 38, 0), Ok(-7));
        let mut many = vec![200, 0];
        many.extend([1; 40]);
        assert_eq!(unscaled(&bytes(&many), 38, 10), Err(Refused::Inexact));
        many[1] = 39;
        assert_eq!(unscaled(&bytes(&many), 38, 10), Err(Refused::OutOfRange));
    }

    #[test]
    fn refusals() {
        assert_eq!(unscaled(&bytes(&[0xC000]), 10, 2), Err(Refused::NaN));
        assert_eq!(unscaled(&bytes(&[0xD000]), 10, 2), Err(Refused::Infinity));
        assert_eq!(
            unscaled(&bytes(&[0xF000]), 10, 2),
            Err(Refused::NegativeInfinity)
        );
        assert_eq!(unscaled(&[1], 10, 2), Err(Refused::Malformed));
        // 0.125 at scale 2; 0.00001 at scale 0
        assert_eq!(from_digits(&[1250], -1, false, 2), Err(Refused::Inexact));
        assert_eq!(from_digits(&[1000], -2, false, 0), Err(Refused::Inexact));
        // 1000 in numeric(3,0)
        assert_eq!(
            unscaled(&bytes(&[0x8000, 1000]), 3, 0),
            Err(Refused::OutOfRange)
        );
        assert_eq!(from_digits(&[1], 300, true, 0), Err(Refused::OutOfRange));
    }

    #[test]
    fn every_power_at_every_scale_comes_back() {
        for scale in 0..=PRECISION_MAX {
            for &power in &POW10 {
                for value in [power - 1, power, power + 1, power / 2 * 3, power / 7] {
                    let Ok(value) = i128::try_from(value) else {
                        continue;
                    };
                    for value in [value, -value] {
                        round_trip(value, scale);
                    }
                }
            }
        }
        round_trip(i128::MAX, 38);
        round_trip(i128::MAX, 1);
    }

    #[test]
    fn random_values_come_back() {
        // xorshift, so that a failure can be repeated
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let wide = (next() as i128) << 64 | next() as i128;
            let value = wide >> (next() % 128);
            round_trip(value, (next() % (PRECISION_MAX as u64 + 1)) as u8);
        }
    }

    fn round_trip(value: i128, scale: u8) {
        let mut digits = [0; DIGITS_MAX];
        let (range, weight) = to_digits(value, scale, &mut digits);
        assert_eq!(
            (digits[range.clone()].to_vec(), weight),
            digits_of_text(value, scale),
            "{value} at {scale}"
        );
        if value != i128::MIN {
            assert_eq!(
                from_digits(&digits[range], weight, value < 0, scale),
                Ok(value)
            );
        }
        if let Some((image, len)) = pack_narrow(value, scale) {
            let image = &image.to_le_bytes()[..len];
            assert_eq!(image, pack(value, scale).as_bytes(), "{value} at {scale}");
        }
        let is_narrow =
            u64::try_from(value.unsigned_abs()).is_ok() && cfg!(target_endian = "little");
        assert_eq!(pack_narrow(value, scale).is_some(), is_narrow);
        if value.unsigned_abs() < POW10[38] {
            assert_eq!(
                unscaled(pack(value, scale).as_bytes(), 38, scale),
                Ok(value)
            );
        }
    }
}
