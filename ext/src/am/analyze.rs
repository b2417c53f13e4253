//! Samples for ANALYZE: the blocks that Postgres picks of the heap, then stretches of cold rows.
//!
//! Postgres 17 scales the sample by the blocks that it read of the main fork
//! (`acquire_sample_rows` in `commands/analyze.c`), so cold rows are counted into `liverows` by the
//! weight that makes the total come out right.

use crate::am::{heap, scan};
use crate::catalog::data_file::ROWS_PER_BLOCK;
use pg_lake_plan::message::FileRef;
use pgrx::{pg_guard, pg_sys};

/// Rows that are read of the cold half: what the default statistics target asks for.
const SAMPLE_ROWS: u64 = 30_000;

/// Where a scan for ANALYZE stands.
#[derive(Default)]
pub struct State {
    blocks: u64,
    in_cold: bool,
    cold_rows: u64,
    /// `liverows` a cold row of the sample counts for.
    weight: f64,
    /// Share of the hot rows that enter the sample.
    hot_share: f64,
}

pub fn install(routine: &mut pg_sys::TableAmRoutine) {
    routine.scan_analyze_next_block = Some(next_block);
    routine.scan_analyze_next_tuple = Some(next_tuple);
}

fn random() -> f64 {
    // SAFETY: the backend's own generator.
    unsafe { pg_sys::pg_prng_double(&raw mut pg_sys::pg_global_prng_state) }
}

/// Picks stretches of one block of row numbers each, spread over the files.
fn choose(files: &[FileRef], rows: u64) -> Vec<FileRef> {
    let share = (SAMPLE_ROWS as f64 / rows as f64).min(1.0);
    files
        .iter()
        .map(|file| {
            let mut file = file.clone();
            if share < 1.0 {
                let ranges = (0..file.rows.count().div_ceil(ROWS_PER_BLOCK))
                    .filter(|_| random() < share)
                    .map(|block| {
                        let start = block * ROWS_PER_BLOCK;
                        (start, (start + ROWS_PER_BLOCK).min(file.rows.count()))
                    })
                    .collect();
                file.ranges = Some(ranges);
            }
            file
        })
        .filter(|file| file.ranges.as_ref().is_none_or(|r| !r.is_empty()))
        .collect()
}

fn rows_of(files: &[FileRef]) -> u64 {
    files
        .iter()
        .map(|f| match &f.ranges {
            None => f.rows.count() - f.deleted.len() as u64,
            Some(ranges) => ranges.iter().map(|(a, b)| b - a).sum(),
        })
        .sum()
}

#[pg_guard]
unsafe extern "C-unwind" fn next_block(
    desc: pg_sys::TableScanDesc,
    stream: *mut pg_sys::ReadStream,
) -> bool {
    let Some(cold) = scan::cold(desc) else {
        // SAFETY: a callback of heap with its arguments.
        return unsafe {
            (heap().scan_analyze_next_block.unwrap_unchecked())(scan::hot(desc), stream)
        };
    };
    if cold.analyze.in_cold {
        return false;
    }
    if cold.analyze.blocks == 0 {
        let rows = rows_of(&cold.files);
        cold.analyze.cold_rows = rows;
        cold.analyze.hot_share = (SAMPLE_ROWS as f64 / rows.max(1) as f64).min(1.0);
    }
    // SAFETY: as above.
    if unsafe { (heap().scan_analyze_next_block.unwrap_unchecked())(scan::hot(desc), stream) } {
        cold.analyze.blocks += 1;
        return true;
    }
    // SAFETY: the relation is open.
    let total = unsafe {
        pg_sys::RelationGetNumberOfBlocksInFork((*desc).rs_rd, pg_sys::ForkNumber::MAIN_FORKNUM)
    };
    let chosen = choose(&cold.files, cold.analyze.cold_rows);
    let sampled = rows_of(&chosen).max(1);
    let read = cold.analyze.blocks as f64 / f64::from(total.max(1));
    cold.analyze.weight = cold.analyze.cold_rows as f64 * read / sampled as f64;
    cold.analyze.in_cold = true;
    cold.choose(chosen);
    true
}

#[pg_guard]
unsafe extern "C-unwind" fn next_tuple(
    desc: pg_sys::TableScanDesc,
    oldest_xmin: pg_sys::TransactionId,
    liverows: *mut f64,
    deadrows: *mut f64,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    let next_hot = || {
        // SAFETY: a callback of heap with its arguments.
        unsafe {
            (heap().scan_analyze_next_tuple.unwrap_unchecked())(
                scan::hot(desc),
                oldest_xmin,
                liverows,
                deadrows,
                slot,
            )
        }
    };
    let Some(cold) = scan::cold(desc) else {
        return next_hot();
    };
    let (weight, hot_share) = (cold.analyze.weight, cold.analyze.hot_share);
    if cold.analyze.in_cold {
        // SAFETY: the relation is open for the scan's life.
        let found = cold.next(unsafe { (*desc).rs_rd }, slot);
        if found {
            // SAFETY: the caller's counter.
            unsafe { *liverows += weight };
        }
        return found;
    }
    // Hot rows come in the proportion in which cold ones do.
    while next_hot() {
        if random() < hot_share {
            return true;
        }
    }
    false
}
