//! Two cores for the server and for whom it is compared with, on a machine that has more.

use crate::process::Cmd;
use crate::{Context, Result, say};
use std::fs;

/// The number that everybody gets.
pub const CORES: usize = 2;

/// While it lives, this process and those that it starts have [`CORES`] cores.
pub struct Pinned {
    /// What it had before.
    before: String,
}

impl Pinned {
    pub fn new() -> Result<Pinned> {
        let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
        let before = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .ok_or("/proc/self/status lists no cores")?
            .trim()
            .to_owned();
        let all = cores(&before);
        if all.len() < CORES {
            say("    there is a single core: DuckDB's threads share it");
        }
        let first: Vec<String> = all.iter().take(CORES).map(u32::to_string).collect();
        pin(&first.join(","))?;
        Ok(Pinned { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = pin(&self.before) {
            say(&format!("    {error}"));
        }
    }
}

fn pin(list: &str) -> Result<()> {
    let id = std::process::id().to_string();
    let taskset = Cmd::new("taskset").args(["-a", "-p", "-c", list, &id]);
    taskset.ok().map(drop)
}

/// The numbers of a list such as `0-2,5`.
fn cores(list: &str) -> Vec<u32> {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::cores;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(cores("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(cores("3"), [3]);
    }
}
