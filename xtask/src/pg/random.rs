//! Random numbers that a seed brings back.

use crate::say;
use std::time::{SystemTime, UNIX_EPOCH};

/// `PG_LAKE_SEED`, or another one each time.
pub fn seed_from_environment() -> u64 {
    let given = std::env::var("PG_LAKE_SEED").ok();
    given.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64)
    })
}

/// xorshift64*
pub struct Random(u64);

impl Random {
    /// From `PG_LAKE_SEED`, or another one each time; it is said which.
    pub fn from_environment() -> Random {
        let seed = seed_from_environment();
        say(&format!("      PG_LAKE_SEED={seed}"));
        Random::new(seed)
    }

    /// Zero would stay zero.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}
