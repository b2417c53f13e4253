//! Shared state of launcher and maintainers.
//!
//! | field | written by | read by |
//! | --- | --- | --- |
//! | `launcher_proc` | launcher | whoever wakes it |
//! | `database` | launcher | all |
//! | `pid`, `state` | the maintainer of the slot, launcher | all |
//! | `asked_to_leave_until` | backends that need the database alone | launcher |
//! | `incarnation` | the maintainer, launcher | backends that drop the database |
//! | `wanted`, `asked` | backends with `lake.debug_flush` | the maintainer |
//! | `served` | the maintainer | the same backends |
//!
//! All zeroes is the initial state.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

/// More databases than that get no maintainer.
pub const MAX_DATABASES: usize = 64;

/// Tables that can be asked for at a time.
const WANTED_MAX: usize = 32;

/// States of a [`DatabaseSlot`].
pub mod state {
    pub const UNKNOWN: u32 = 0;
    pub const STARTING: u32 = 1;
    pub const RUNNING: u32 = 2;
    pub const NO_EXTENSION: u32 = 3;
}

/// One database.
#[repr(C)]
pub struct DatabaseSlot {
    pub database: AtomicU32,
    pub state: AtomicU32,
    pub pid: AtomicU32,
    pub proc: AtomicU32,
    /// Unix seconds of the last change of `state`.
    pub since: AtomicI64,
    /// Unix seconds until which no maintainer may connect.
    pub away_until: AtomicI64,
    incarnation: [AtomicU64; 2],
    /// OIDs of tables that are to be flushed at once; 0: free.
    wanted: [AtomicU32; WANTED_MAX],
    asked: AtomicU64,
    served: AtomicU64,
}

/// What the objects of a database are named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incarnation {
    /// No maintainer has told.
    Unknown,
    /// By that of the database that this one is a copy of: it has none of its own.
    Foreign,
    Own([u8; 16]),
}

impl DatabaseSlot {
    pub fn set_incarnation(&self, incarnation: Incarnation) {
        let number = match incarnation {
            Incarnation::Unknown => 0,
            Incarnation::Foreign => u128::MAX,
            Incarnation::Own(uuid) => u128::from_be_bytes(uuid),
        };
        let [high, low] = &self.incarnation;
        low.store(number as u64, Ordering::Relaxed);
        // Release pairs with the Acquire in `incarnation`: who sees this half sees the other one.
        high.store((number >> 64) as u64, Ordering::Release);
    }

    pub fn incarnation(&self) -> Incarnation {
        let [high, low] = &self.incarnation;
        // No uuid has such a half: its version is in it.
        match high.load(Ordering::Acquire) {
            0 => Incarnation::Unknown,
            u64::MAX => Incarnation::Foreign,
            high => {
                let number = u128::from(high) << 64 | u128::from(low.load(Ordering::Relaxed));
                Incarnation::Own(number.to_be_bytes())
            }
        }
    }

    /// Asks for a flush of tables; the number that `served` reaches when it is done. Without room for
    /// more, some are left out.
    pub fn ask(&self, tables: &[u32]) -> u64 {
        for table in tables {
            let known = |w: &AtomicU32| w.load(Ordering::Relaxed) == *table;
            if !self.wanted.iter().any(known) {
                self.wanted.iter().any(|w| {
                    w.compare_exchange(0, *table, Ordering::Release, Ordering::Relaxed)
                        .is_ok()
                });
            }
        }
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// What has been asked for, and the number to tell when it is done.
    pub fn take(&self) -> (u64, Vec<u32>) {
        let asked = self.asked.load(Ordering::Acquire);
        let taken = self.wanted.iter().map(|w| w.swap(0, Ordering::AcqRel));
        (asked, taken.filter(|table| *table != 0).collect())
    }

    pub fn done(&self, asked: u64) {
        self.served.store(asked, Ordering::Release);
    }

    pub fn is_served(&self, asked: u64) -> bool {
        self.served.load(Ordering::Acquire) >= asked
    }
}

#[repr(C)]
pub struct Control {
    /// Proc number + 1, 0 while there is none.
    pub launcher_proc: AtomicU32,
    pub padding: AtomicU32,
    pub databases: [DatabaseSlot; MAX_DATABASES],
}

impl Control {
    /// Wakes the launcher, if it runs.
    pub fn wake_launcher(&self) {
        let proc = self.launcher_proc.load(Ordering::Acquire);
        if proc > 0 {
            crate::pg::latch::wake(proc - 1);
        }
    }

    /// The slot of a database, claimed if it has none yet. Only the launcher claims.
    pub fn claim(&self, database: u32) -> Option<&DatabaseSlot> {
        self.find(database).or_else(|| {
            let free = self
                .databases
                .iter()
                .find(|s| s.database.load(Ordering::Relaxed) == 0)?;
            free.state.store(state::UNKNOWN, Ordering::Relaxed);
            free.database.store(database, Ordering::Release);
            Some(free)
        })
    }

    /// Frees the slots of databases that are gone. Only the launcher does.
    pub fn forget_others(&self, databases: &[u32]) {
        for slot in &self.databases {
            let database = slot.database.load(Ordering::Relaxed);
            let gone = database != 0 && !databases.contains(&database);
            if gone && slot.pid.load(Ordering::Acquire) == 0 {
                slot.since.store(0, Ordering::Relaxed);
                slot.away_until.store(0, Ordering::Relaxed);
                slot.set_incarnation(Incarnation::Unknown);
                slot.database.store(0, Ordering::Release);
            }
        }
    }

    pub fn find(&self, database: u32) -> Option<&DatabaseSlot> {
        self.databases
            .iter()
            .find(|s| s.database.load(Ordering::Acquire) == database)
    }
}

/// Unix time in seconds.
pub fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}
