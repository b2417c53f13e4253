//! The upper half of a transaction id.
//!
//! Numbers only, no Postgres call, so that it can be tested without a server.
#![deny(unsafe_code)]

/// The 64-bit id of a transaction that is at most 2^31 away from the next one to be given out, as
/// `FullXidRelativeTo` (procarray.c) computes it.
pub fn full(next: u64, xid: u32) -> u64 {
    let ahead = xid.wrapping_sub(next as u32) as i32;
    next.wrapping_add_signed(i64::from(ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_the_epoch_that_is_near() {
        let epoch = 1_u64 << 32;
        assert_eq!(full(1000, 3), 3);
        assert_eq!(full(1000, 1000), 1000);
        // Right after a wraparound, the ids before it are of the epoch before.
        assert_eq!(full(epoch + 5, u32::MAX), epoch - 1);
        assert_eq!(full(epoch + 5, 4), epoch + 4);
        assert_eq!(full(7 * epoch + 5, u32::MAX - 9), 7 * epoch - 10);
        // A horizon is behind the next id, an id that was just given out may be ahead of what was read.
        assert_eq!(full(3 * epoch - 1, 2), 3 * epoch + 2);
    }
}
