//! Where a row's values go that are passed by reference.
//!
//! A call of Postgres' allocator for each value of each row is a tenth of what it costs to return them: most of it the
//! boundary between Rust and C, which has to be ready for an error. Here they are put one behind the other into a block
//! that is used again for the next row, and only what doesn't fit, or what functions of Postgres make, goes to a memory
//! context.
//!
//! Unsafe code: hands out memory.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ptr;

/// Bytes of the block.
const BLOCK: usize = 8192;
/// `MAXIMUM_ALIGNOF`
const ALIGNMENT: usize = pg_sys::MAXIMUM_ALIGNOF as usize;

/// Memory for the values of one row.
pub struct Space {
    /// In a context that outlives this; null: all values go to the current one.
    block: *mut u8,
    used: Cell<usize>,
    /// For what isn't in the block.
    context: pg_sys::MemoryContext,
    /// There is something in the context.
    overflowed: Cell<bool>,
}

impl Space {
    /// The current memory context alone, for values of any number of rows: who has made it sees to it.
    pub fn current() -> Space {
        Space {
            block: ptr::null_mut(),
            used: Cell::new(0),
            context: ptr::null_mut(),
            overflowed: Cell::new(false),
        }
    }

    /// For a node that returns rows one by one, as long as the current memory context lives.
    pub fn for_rows() -> Space {
        // SAFETY: the block and a child of the current context.
        unsafe {
            Space {
                block: pg_sys::palloc(BLOCK).cast(),
                used: Cell::new(0),
                context: crate::am::dml::row_context(),
                overflowed: Cell::new(false),
            }
        }
    }

    /// Makes values of a new row, in place of the last one's.
    pub fn next_row<T>(&self, make: impl FnOnce() -> T) -> T {
        // SAFETY: nobody needs the values of the last row any more.
        unsafe {
            if self.overflowed.replace(false) {
                pg_sys::MemoryContextReset(self.context);
            }
            self.used.set(0);
            let old = pg_sys::MemoryContextSwitchTo(self.context);
            let made = make();
            pg_sys::MemoryContextSwitchTo(old);
            made
        }
    }

    /// Memory for a value, aligned for any. Raises an error if it can't be had.
    #[inline]
    pub(super) fn take(&self, bytes: usize) -> *mut u8 {
        let used = self.used.get();
        if !self.block.is_null() && bytes <= BLOCK - used {
            self.used.set((used + bytes).next_multiple_of(ALIGNMENT));
            // SAFETY: within the block.
            return unsafe { self.block.add(used) };
        }
        self.overflows();
        // SAFETY: the current context is the row's.
        unsafe { pg_sys::palloc(bytes).cast() }
    }

    /// Something is about to be made in the context.
    #[inline]
    pub fn overflows(&self) {
        self.overflowed.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_row_are_aligned_and_within_the_block() {
        let mut block = vec![0u64; BLOCK / size_of::<u64>()];
        let space = Space {
            block: block.as_mut_ptr().cast(),
            ..Space::current()
        };
        let at = |bytes: usize| space.take(bytes) as usize - space.block as usize;
        assert_eq!([at(1), at(16), at(20), at(8)], [0, 8, 24, 48]);
        assert_eq!(at(BLOCK - 56), 56);
        assert_eq!(space.used.get(), BLOCK);
        // The end of the block may be no multiple of the alignment.
        space.used.set(0);
        assert_eq!(at(BLOCK - 3), 0);
        assert_eq!(space.used.get(), BLOCK);
        assert!(!space.overflowed.get());
    }
}
