//! What could not be removed, and when it is tried again.
//!
//! Names and times only, no Postgres call, so that it can be tested without a server.
#![deny(unsafe_code)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

const DELAY_MIN: Duration = Duration::from_secs(30);
const DELAY_MAX: Duration = Duration::from_secs(3600);
/// Past so many, a file that can't be removed counts for all of its place.
const KEPT_MAX: usize = 1000;

/// Files, directories and places, by their paths.
#[derive(Default)]
pub struct Setbacks(HashMap<String, Setback>);

struct Setback {
    times: u32,
    again: Instant,
}

impl Setbacks {
    /// Whether a path, or all of its place, is to be left alone for now.
    pub fn is_waiting(&self, path: &str, now: Instant) -> bool {
        let waits = |key: &str| self.0.get(key).is_some_and(|setback| now < setback.again);
        waits(path) || waits(place_of(path))
    }

    /// Notes that a path, or all of its place, could not be dealt with; whether that is news.
    pub fn failed(&mut self, path: &str, whole_place: bool, now: Instant) -> bool {
        // What is gone by now, or was removed by others, isn't tried again.
        self.0
            .retain(|_, setback| now < setback.again + 2 * DELAY_MAX);
        let key = if whole_place || self.0.len() >= KEPT_MAX {
            place_of(path)
        } else {
            path
        };
        let setback = self.0.entry(key.to_owned()).or_insert(Setback {
            times: 0,
            again: now,
        });
        let delay = DELAY_MIN * 2_u32.saturating_pow(setback.times.min(16));
        setback.again = now + delay.min(DELAY_MAX);
        setback.times += 1;
        setback.times == 1
    }

    /// Forgets what was in the way of a path.
    pub fn succeeded(&mut self, path: &str) {
        if !self.0.is_empty() {
            self.0.remove(path);
            self.0.remove(place_of(path));
        }
    }
}

/// The tablespace or the bucket that a path is in: what may be out of reach as a whole.
pub fn place_of(path: &str) -> &str {
    let parts = match path.split_once('/') {
        Some(("pg_tblspc", _)) => 2,
        Some((scheme, _)) if scheme.ends_with(':') => 3,
        _ => 1,
    };
    match path.match_indices('/').nth(parts - 1) {
        Some((end, _)) => &path[..end],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_tablespaces_and_buckets() {
        assert_eq!(place_of("base/5/lake/x/1/data/a"), "base");
        assert_eq!(place_of("pg_tblspc/77/PG_17_1/5/lake/x/1/"), "pg_tblspc/77");
        assert_eq!(place_of("s3://bucket/prefix/1"), "s3://bucket");
        assert_eq!(place_of("base"), "base");
    }

    #[test]
    fn delays_grow_up_to_an_hour_and_are_forgotten() {
        let mut setbacks = Setbacks::default();
        let mut now = Instant::now();
        let path = "base/1/a";
        assert!(setbacks.failed(path, false, now), "news");
        assert!(setbacks.is_waiting(path, now));
        assert!(!setbacks.is_waiting("base/1/b", now));
        for _ in 0..20 {
            let later = now + DELAY_MAX;
            assert!(!setbacks.is_waiting(path, later));
            now = later;
            assert!(!setbacks.failed(path, false, now), "no news");
        }
        assert!(setbacks.is_waiting(path, now + DELAY_MAX - DELAY_MIN));
        setbacks.succeeded(path);
        assert!(!setbacks.is_waiting(path, now));
        assert!(setbacks.failed(path, false, now), "news again");
        let much_later = now + 3 * DELAY_MAX;
        assert!(setbacks.failed("base/1/b", false, much_later));
        assert!(setbacks.failed(path, false, much_later), "it was forgotten");
    }

    #[test]
    fn a_place_that_is_down_is_left_alone_as_a_whole() {
        let mut setbacks = Setbacks::default();
        let now = Instant::now();
        setbacks.failed("pg_tblspc/7/a", true, now);
        assert!(setbacks.is_waiting("pg_tblspc/7/b", now));
        assert!(!setbacks.is_waiting("pg_tblspc/8/b", now));
        setbacks.succeeded("pg_tblspc/7/b");
        assert!(!setbacks.is_waiting("pg_tblspc/7/a", now));
        for n in 0..=KEPT_MAX {
            setbacks.failed(&format!("base/{n}"), false, now);
        }
        assert!(setbacks.is_waiting("base/other", now));
        assert!(setbacks.0.len() <= KEPT_MAX + 1);
    }
}
