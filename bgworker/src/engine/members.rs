//! A set of whole numbers as bits, for a quick look at whether a number may be in it.

use super::memory::optional;
use super::values::{Native, native};
use arrow::array::{Array, ArrayRef};
use datafusion_execution::memory_pool::{MemoryPool, MemoryReservation};
use std::sync::Arc;

/// No set has more bits.
const BITS_MAX: usize = 1 << 26;

/// Numbers that lie close together have a bit each: so many bits for one of them, or so many in any case.
const BITS_PER_PLACE: usize = 64;
const FEW_BITS: usize = 1 << 16;

/// Otherwise so many bits for each: one in 16 other numbers or fewer look as if they were in the set.
const BITS_PER_HASH: usize = 16;

const WORD: usize = 64;

#[derive(Debug)]
pub(super) struct Members {
    words: Vec<u64>,
    finder: Finder,
    /// Of the words.
    _memory: MemoryReservation,
}

/// Where the bit of a number is.
#[derive(Debug)]
enum Finder {
    /// After the least number's.
    Place { least: i64 },
    /// At the highest bits of a hash, that is to be moved so far.
    Hash { shift: u32 },
}

impl Finder {
    fn place(&self, number: i64) -> u64 {
        match self {
            Finder::Place { least } => (number as u64).wrapping_sub(*least as u64),
            Finder::Hash { shift } => (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift,
        }
    }
}

impl Members {
    /// The numbers of some arrays, that are between two. `None` if that says no more than these two do, or isn't to be
    /// had: other types, too many, too little memory.
    pub(super) fn new(
        arrays: &[&ArrayRef],
        (least, largest): (i128, i128),
        pool: &Arc<dyn MemoryPool>,
    ) -> Option<Members> {
        let whole =
            |array: &&ArrayRef| matches!(native(*array), Some(Native::I32(_) | Native::I64(_)));
        if !arrays.iter().all(whole) {
            return None;
        }
        let count: usize = arrays.iter().map(|array| array.len()).sum();
        let places = usize::try_from(largest.checked_sub(least)?.checked_add(1)?).ok();
        let room = count.saturating_mul(BITS_PER_PLACE).max(FEW_BITS);
        let close = places.filter(|places| *places <= room.min(BITS_MAX));
        let (finder, bits) = match close {
            Some(places) => {
                let least = i64::try_from(least).ok()?;
                (Finder::Place { least }, places)
            }
            None => {
                let bits = count.saturating_mul(BITS_PER_HASH).max(FEW_BITS);
                if bits > BITS_MAX {
                    return None;
                }
                let bits = bits.next_power_of_two();
                let shift = u64::BITS - bits.trailing_zeros();
                (Finder::Hash { shift }, bits)
            }
        };
        let memory = optional("LakeDynamicFilter").register(pool);
        let words = bits.div_ceil(WORD);
        memory
            .try_grow(words.saturating_mul(size_of::<u64>()))
            .ok()?;
        let mut members = Members {
            words: vec![0; words],
            finder,
            _memory: memory,
        };
        for array in arrays {
            members.add(array);
        }
        (close != Some(members.ones())).then_some(members)
    }

    fn add(&mut self, array: &ArrayRef) {
        let nulls = array.nulls();
        let is_valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
        match native(array) {
            Some(Native::I32(values)) => {
                for (row, &value) in values.iter().enumerate() {
                    if is_valid(row) {
                        self.set(i64::from(value));
                    }
                }
            }
            Some(Native::I64(values)) => {
                for (row, &value) in values.iter().enumerate() {
                    if is_valid(row) {
                        self.set(value);
                    }
                }
            }
            _ => {}
        }
    }

    fn set(&mut self, number: i64) {
        let place = self.finder.place(number);
        if let Some(word) = self.words.get_mut((place / WORD as u64) as usize) {
            *word |= 1 << (place % WORD as u64);
        }
    }

    fn ones(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether a number may be in the set.
    pub(super) fn may_have(&self, number: i64) -> bool {
        let place = self.finder.place(number);
        let word = self.words.get((place / WORD as u64) as usize);
        word.is_some_and(|word| (word >> (place % WORD as u64)) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::{Budget, QueryPool};
    use super::*;
    use arrow::array::{Date32Array, Decimal128Array, Int32Array, Int64Array};
    use datafusion_execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};

    fn unbounded() -> Arc<dyn MemoryPool> {
        Arc::new(UnboundedMemoryPool::default())
    }

    fn members(array: ArrayRef, range: (i128, i128)) -> Option<Members> {
        Members::new(&[&array], range, &unbounded())
    }

    #[test]
    fn numbers_that_are_close_have_a_place_each() {
        let numbers = Int32Array::from(vec![Some(-3), None, Some(5), Some(100)]);
        let set = members(Arc::new(numbers), (-3, 100)).expect("a set");
        let found: Vec<i64> = (-200..200).filter(|n| set.may_have(*n)).collect();
        assert_eq!(found, [-3, 5, 100]);
        assert!(!set.may_have(i64::MIN) && !set.may_have(i64::MAX));
    }

    #[test]
    fn numbers_that_are_far_apart_are_hashed() {
        let numbers: Vec<i64> = (0..10_000).map(|n| n * n * 1_000_003).collect();
        let range = (0, numbers[9999].into());
        let set = members(Arc::new(Int64Array::from(numbers.clone())), range).expect("a set");
        assert!(numbers.iter().all(|n| set.may_have(*n)));
        let others = (0..100_000).filter(|n| set.may_have(n * 77 + 5)).count();
        assert!(others < 20_000, "{others}");
        let ends = Int64Array::from(vec![i64::MIN, i64::MAX]);
        let set = members(Arc::new(ends), (i64::MIN.into(), i64::MAX.into())).expect("a set");
        assert!(set.may_have(i64::MIN) && set.may_have(i64::MAX));
    }

    #[test]
    fn what_says_nothing_is_not_made() {
        let all: ArrayRef = Arc::new(Date32Array::from_iter_values(7..1007));
        assert!(members(all, (7, 1006)).is_none());
        let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![1, 100]));
        assert!(members(decimals, (1, 100)).is_none());
    }

    #[test]
    fn it_takes_memory_that_is_there() {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![0, 50_000]));
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10_000));
        let set = Members::new(&[&numbers], (0, 50_000), &pool);
        assert!(set.is_some() && pool.reserved() > 6000);
        assert!(Members::new(&[&numbers], (0, 50_000), &pool).is_none());
        drop(set);
        assert_eq!(pool.reserved(), 0);
    }
    #[test]
    fn it_leaves_memory_to_what_needs_it() {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![0, 50_000]));
        // It takes 6256 bytes, and seven eighths are for it.
        for (limit, fits) in [(7000, false), (8000, true)] {
            let budget = Arc::new(Budget::new(1 << 20));
            let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(budget, limit));
            let set = Members::new(&[&numbers], (0, 50_000), &pool);
            assert_eq!(set.is_some(), fits, "{limit}");
        }
    }
}
