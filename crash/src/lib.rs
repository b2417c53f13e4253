//! Places at which a test can make a process die, as `kill -9` would (`lake.debug_crash`).
//!
//! Code says [`crash_point`] between two steps. A process that is armed for the point kills itself there, or the
//! postmaster and itself, when it comes by for the nth time; for all others the call is one relaxed load. A backend is
//! armed by its setting, an I/O worker by its own or by a request of an armed backend.
//!
//! To add a point: a line in `points`, the call, and a line in `xtask/src/pg/crashes/points.rs` that says what comes by it.
//! `cargo xtask test crash` takes the list from the server and fails if it can't reach one of them.

mod points;

pub use points::{CRASH_POINTS, CrashPoint};

use std::io::Write;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// What of [`ARMED`] another process was armed for.
static ADOPTED: AtomicU64 = AtomicU64::new(0);
/// What this process is armed for, 0: nothing. See [`Crash::encode`].
static ARMED: AtomicU64 = AtomicU64::new(0);
/// How often it has come by the point since.
static PASSED: AtomicU32 = AtomicU32::new(0);
/// The process that all others of the server are children of.
static POSTMASTER: AtomicI32 = AtomicI32::new(0);

const POSTMASTER_BIT: u64 = 1 << 16;
const NTH_SHIFT: u32 = 32;

/// Where to die, when, and who else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    pub point: CrashPoint,
    /// At which passage, from 1.
    pub nth: u32,
    /// Whether the postmaster is killed, too.
    pub postmaster: bool,
}

impl Crash {
    /// Reads `point[:nth][:postmaster]`; `None` if that isn't what it says.
    pub fn parse(text: &str) -> Option<Crash> {
        let mut parts = text.split(':').peekable();
        let name = parts.next()?;
        let point = CRASH_POINTS.iter().find(|(known, _)| *known == name)?.1;
        let nth = match parts.peek().map(|part| part.parse::<u32>()) {
            Some(Ok(0)) => return None,
            Some(Ok(nth)) => {
                parts.next();
                nth
            }
            _ => 1,
        };
        let postmaster = match parts.next() {
            None => false,
            Some("postmaster") => true,
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Crash {
            point,
            nth,
            postmaster,
        })
    }

    fn encode(self) -> u64 {
        let postmaster = if self.postmaster { POSTMASTER_BIT } else { 0 };
        (u64::from(self.nth) << NTH_SHIFT) | postmaster | (self.point as u64 + 1)
    }
}

/// The names of all points, for messages.
pub fn names() -> String {
    let names: Vec<&str> = CRASH_POINTS.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// Called by the postmaster before it has children.
pub fn this_is_the_postmaster() {
    POSTMASTER.store(std::process::id() as i32, Ordering::Relaxed);
}

/// Arms this process, or disarms it. Passages are counted from here, unless it is armed like that already.
pub fn arm(crash: Option<Crash>) {
    arm_as(crash.map_or(0, Crash::encode));
}

fn arm_as(code: u64) {
    if ARMED.swap(code, Ordering::Relaxed) != code {
        PASSED.store(0, Ordering::Relaxed);
    }
}

/// What this process is armed for, for [`adopt`] in another one; 0: nothing.
pub fn armed() -> u64 {
    ARMED.load(Ordering::Relaxed)
}

/// Arms this process like the one that it works for, until it works for one that isn't armed; what it was
/// armed for itself stays.
pub fn adopt(code: u64) {
    let adopted = ADOPTED.load(Ordering::Relaxed);
    if code != 0 {
        ADOPTED.store(code, Ordering::Relaxed);
        arm_as(code);
    } else if adopted != 0 {
        ADOPTED.store(0, Ordering::Relaxed);
        let _ = ARMED.compare_exchange(adopted, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A place between two steps.
#[inline]
pub fn crash_point(point: CrashPoint) {
    let code = ARMED.load(Ordering::Relaxed);
    if code != 0 {
        pass(code, point);
    }
}

#[cold]
fn pass(code: u64, point: CrashPoint) {
    if code & (POSTMASTER_BIT - 1) != point as u64 + 1 {
        return;
    }
    let passed = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
    if u64::from(passed) == code >> NTH_SHIFT {
        die(point, code & POSTMASTER_BIT != 0);
    }
}

fn die(point: CrashPoint, postmaster: bool) -> ! {
    let name = CRASH_POINTS
        .iter()
        .find(|(_, known)| *known == point)
        .map_or("", |(name, _)| name);
    // Into the server's log, in one piece: that the process died here, and not of something else.
    let _ = std::io::stderr().write_all(format!("lake.debug_crash: {name}\n").as_bytes());
    kill(postmaster);
    // The signal may take a moment to be delivered, but nothing must happen any more.
    loop {
        std::thread::park();
    }
}

/// Kills this process, and the postmaster before it.
#[expect(unsafe_code, reason = "there is no safe kill")]
fn kill(postmaster: bool) {
    let parent = POSTMASTER.load(Ordering::Relaxed);
    // SAFETY: plain system calls. The parent is killed only if it is the postmaster that was recorded: one that has
    // died, and whose number may be another process' by now, is no longer a parent.
    unsafe {
        if postmaster && parent > 1 && libc::getppid() == parent {
            libc::kill(parent, libc::SIGKILL);
        }
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let point = CrashPoint::RegisterBegin;
        let crash = |nth, postmaster| {
            Some(Crash {
                point,
                nth,
                postmaster,
            })
        };
        assert_eq!(Crash::parse("register_begin"), crash(1, false));
        assert_eq!(Crash::parse("register_begin:3"), crash(3, false));
        assert_eq!(Crash::parse("register_begin:postmaster"), crash(1, true));
        assert_eq!(Crash::parse("register_begin:2:postmaster"), crash(2, true));
        for wrong in [
            "",
            "nowhere",
            "register_begin:0",
            "register_begin:x",
            "register_begin:",
            "register_begin:postmaster:2",
            "register_begin:1:postmaster:",
        ] {
            assert_eq!(Crash::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn other_points_and_earlier_passages_are_survived() {
        let crash = Crash {
            point: CrashPoint::MergeFolding,
            nth: 2,
            postmaster: true,
        };
        arm(Some(crash));
        crash_point(CrashPoint::MergeFolded);
        crash_point(CrashPoint::MergeFolding);
        assert_eq!(PASSED.load(Ordering::Relaxed), 1);
        // As a request of the same backend does to a worker.
        adopt(armed());
        assert_eq!(PASSED.load(Ordering::Relaxed), 1);
        arm(None);
        crash_point(CrashPoint::MergeFolding);
        assert_eq!(armed(), 0);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = CRASH_POINTS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CRASH_POINTS.len());
    }
}
