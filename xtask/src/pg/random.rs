//! Random numbers that a seed brings back.

use crate::say;
use std::time::{SystemTime, UNIX_EPOCH};

/// xorshift64*
pub struct Random(u64);

impl Random {
    /// From `PG_LAKE_SEED`, or another one each time; it is said which.
    pub fn from_environment() -> Random {
        let seed = std::env::var("PG_LAKE_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(1, |since| since.as_nanos() as u64)
            });
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

    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}
