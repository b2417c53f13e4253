//! A store's share of the network.

use super::places::Places;
use pg_lake_plan::message::Priority;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A bucket of tokens, one a byte. It takes in those of one second, and may be overdrawn by one
/// request; the next one waits until that is made up for.
#[derive(Debug)]
pub(super) struct Bandwidth {
    bytes_per_second: f64,
    tokens: Mutex<Tokens>,
    /// Held by the one who waits for tokens.
    turn: Places,
}

#[derive(Debug)]
struct Tokens {
    left: f64,
    at: Instant,
}

impl Bandwidth {
    pub fn new(bytes_per_second: u64) -> Bandwidth {
        let rate = (bytes_per_second as f64).max(1.0);
        Bandwidth {
            bytes_per_second: rate,
            tokens: Mutex::new(Tokens {
                left: rate,
                at: Instant::now(),
            }),
            turn: Places::new(1),
        }
    }

    /// Waits until so many bytes may be sent or received. May be dropped meanwhile.
    pub async fn take(&self, bytes: u64, priority: Priority) {
        let _turn = self.turn.acquire(priority).await;
        let debt = -self.refilled().left;
        if debt > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(debt / self.bytes_per_second)).await;
        }
        self.charge(bytes);
    }

    /// Counts bytes whose number wasn't known before.
    pub fn charge(&self, bytes: u64) {
        self.refilled().left -= bytes as f64;
    }

    fn refilled(&self) -> MutexGuard<'_, Tokens> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let passed = now.saturating_duration_since(tokens.at).as_secs_f64();
        tokens.left = (tokens.left + passed * self.bytes_per_second).min(self.bytes_per_second);
        tokens.at = now;
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_debt_is_waited_for() {
        let bandwidth = Bandwidth::new(1000);
        let start = Instant::now();
        // A second's worth is there, and more may be taken once.
        assert!(
            bandwidth
                .take(900, Priority::Ahead)
                .now_or_never()
                .is_some()
        );
        assert!(
            bandwidth
                .take(300, Priority::Ahead)
                .now_or_never()
                .is_some()
        );
        assert!(
            bandwidth
                .take(1, Priority::Interactive)
                .now_or_never()
                .is_none()
        );
        bandwidth.take(1, Priority::Background).await;
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(190), "{waited:?}");
    }
}
