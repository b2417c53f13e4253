//! Bitmaps over words of the region: setting is lock-free and idempotent, draining takes a whole word at a time.

use crate::sync::{AtomicU64, Ordering};

/// Words a bitmap of `bits` bits takes, rounded up to whole cache lines (8 words).
pub(crate) const fn words(bits: u32) -> usize {
    (bits as usize).div_ceil(512) * 8
}

/// Sets a bit. Release: whoever drains it sees what was written before.
pub(crate) fn set(bitmap: &[AtomicU64], bit: u32) {
    if let Some(word) = bitmap.get(bit as usize / 64) {
        // Release pairs with the Acquire of the swap in `drain`.
        word.fetch_or(1 << (bit % 64), Ordering::AcqRel);
    }
}

/// Clears a bit.
pub(crate) fn clear(bitmap: &[AtomicU64], bit: u32) {
    if let Some(word) = bitmap.get(bit as usize / 64) {
        word.fetch_and(!(1 << (bit % 64)), Ordering::AcqRel);
    }
}

/// Whether any bit is set.
pub(crate) fn any(bitmap: &[AtomicU64]) -> bool {
    bitmap.iter().any(|word| word.load(Ordering::Relaxed) != 0)
}

/// Takes all bits and calls `f` for those below `limit` (a peer may have set others).
pub(crate) fn drain(bitmap: &[AtomicU64], limit: u32, mut f: impl FnMut(u32)) {
    for (at, word) in bitmap.iter().enumerate() {
        if word.load(Ordering::Relaxed) == 0 {
            continue;
        }
        // Acquire pairs with the Release of `set`.
        let mut bits = word.swap(0, Ordering::AcqRel);
        while bits != 0 {
            let bit = at as u32 * 64 + bits.trailing_zeros();
            bits &= bits - 1;
            if bit < limit {
                f(bit);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_once_and_in_order() {
        let bitmap: Vec<AtomicU64> = (0..words(600)).map(|_| AtomicU64::new(0)).collect();
        assert_eq!(bitmap.len(), 16);
        for bit in [599, 0, 63, 64, 600, 1023, 5_000] {
            set(&bitmap, bit);
        }
        clear(&bitmap, 63);
        assert!(any(&bitmap));
        let mut seen = Vec::new();
        drain(&bitmap, 600, |bit| seen.push(bit));
        assert_eq!(seen, [0, 64, 599]);
        assert!(!any(&bitmap));
    }
}
