//! Where things are: the checkout, the target directory, the state directory.
//!
//! Nothing here creates or changes anything.

use crate::os;
use std::env;
use std::path::{Path, PathBuf};

/// The checkout's root.
pub fn repo() -> PathBuf {
    let xtask = env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.ends_with("xtask"))
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    xtask.parent().map(Path::to_path_buf).unwrap_or(xtask)
}

fn cache_home() -> PathBuf {
    if let Some(dir) = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir);
    }
    match env::var_os("HOME").filter(|dir| !dir.is_empty()) {
        Some(home) => PathBuf::from(home).join(".cache"),
        None => env::temp_dir(),
    }
}

/// Where cargo puts what xtask builds. It lies outside the checkout, so that a fresh clone
/// (continuous integration) finds the dependencies compiled.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => {
            let dir = PathBuf::from(dir);
            if dir.is_absolute() {
                dir
            } else {
                repo().join(dir)
            }
        }
        None => cache_home().join("pg_lake").join("target"),
    }
}

/// Logs of the last test run.
pub fn test_logs() -> PathBuf {
    target().join("test-logs")
}

/// Postgres, generated data, clusters and the Python environment. It must be reachable for the
/// user that the servers run as, hence not below root's home.
pub fn state() -> PathBuf {
    if let Some(dir) = env::var_os("PG_LAKE_HOME").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir);
    }
    if os::is_root() {
        PathBuf::from("/var/tmp/pg_lake")
    } else {
        cache_home().join("pg_lake").join("state")
    }
}

/// The Postgres that xtask builds itself.
pub fn built_prefix() -> PathBuf {
    state().join("pg17")
}
