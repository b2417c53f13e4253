//! Ports that are free at the moment.

use crate::Result;
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

/// Below the range from which the system takes ports of its own, even with [`SECOND`] added.
const FIRST: u16 = 12_000;
const NUMBER: u16 = 10_000;
/// SeaweedFS has a second port with each one, so much above it.
pub const SECOND: u16 = 10_000;

/// Consecutive ports that are free; with `pairs`, those [`SECOND`] above them are, too.
pub fn free(number: u16, pairs: bool) -> Result<Vec<u16>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let start = now.map_or(0, |now| now.subsec_nanos()) ^ std::process::id();
    let range = u32::from(NUMBER - number);
    for step in 0..range {
        // Steps of a prime number come by all of them.
        let at = (start % range + step * 7919) % range;
        let first = FIRST + u16::try_from(at).unwrap_or(0);
        let ports: Vec<u16> = (first..first + number).collect();
        let free = |port: &u16| is_free(*port) && (!pairs || is_free(*port + SECOND));
        if ports.iter().all(free) {
            return Ok(ports);
        }
    }
    Err("no free ports".to_owned())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_follow_each_other() {
        let ports = free(5, true).expect("ports");
        assert_eq!(ports.len(), 5);
        let first = ports[0];
        assert_eq!(ports, (first..first + 5).collect::<Vec<u16>>());
        assert!((FIRST..FIRST + NUMBER).contains(&first));
        let taken = TcpListener::bind(("127.0.0.1", first)).expect("it is free");
        assert!(!is_free(first));
        drop(taken);
    }
}
