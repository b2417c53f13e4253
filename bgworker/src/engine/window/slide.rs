//! Moves a state from frame to frame, adding up in the order in which Postgres does: `eval_windowaggregates`.

use super::chunk::Chunk;
use super::frames::{Frame, Frames};
use crate::engine::arith::TOO_LARGE;
use crate::engine::error::not_exact;
use pg_lake_plan::ir::FrameExclusion;
use pg_lake_plan::message::WireError;

/// What an aggregate knows of the rows of a frame.
pub(super) trait State {
    /// Forgets all rows.
    fn reset(&mut self);

    /// Takes a row after the last one.
    fn add(&mut self, row: usize) -> Result<(), WireError>;

    /// Gives the first row back. False: that isn't possible, and the state is to be computed anew.
    fn remove(&mut self, row: usize) -> bool;

    /// Whether any row can be given back, and taken again, whatever comes before it.
    fn is_orderless(&self) -> bool {
        false
    }

    /// Appends the result for the rows it has to those so far.
    fn give(&mut self) -> Result<(), WireError>;
}

/// Results for all rows of a chunk. If its first partition goes on from an earlier one, all frames have to begin with
/// the partition's first row, and the state knows the earlier rows.
pub(super) fn slide(state: &mut impl State, chunk: &Chunk, frame: &Frame) -> Result<(), WireError> {
    let measured = frame.measured(chunk)?;
    let all = frame.exclude == FrameExclusion::NoOthers;
    let mut steps = Steps { chunk, count: 0 };
    for partition in chunk.partitions() {
        if partition.begins {
            state.reset();
        }
        let mut known = partition.rows.start..partition.rows.start;
        let mut frames = Frames::new(frame, measured.as_ref(), &partition);
        for row in partition.rows.clone() {
            steps.one()?;
            let wanted = frames.of(row)?;
            if !all && !state.is_orderless() {
                state.reset();
                for row in frames.rest(row, &wanted).into_iter().flatten() {
                    state.add(row)?;
                    steps.one()?;
                }
                state.give()?;
                continue;
            }
            if wanted.start > known.start {
                let overlap = wanted.start < known.end;
                if overlap && (known.start..wanted.start).all(|row| state.remove(row)) {
                    known.start = wanted.start;
                } else {
                    state.reset();
                    known = wanted.start..wanted.start;
                }
            }
            while known.end < wanted.end {
                state.add(known.end)?;
                known.end += 1;
                steps.one()?;
            }
            if all {
                state.give()?;
                continue;
            }
            let missing = frames.missing(row, &wanted);
            for row in missing.clone().into_iter().flatten() {
                if !state.remove(row) {
                    return Err(not_exact(TOO_LARGE));
                }
                steps.one()?;
            }
            state.give()?;
            for row in missing.into_iter().flatten() {
                state.add(row)?;
            }
        }
    }
    Ok(())
}

/// Counts what is done, to see in time that the query was cancelled.
struct Steps<'a> {
    chunk: &'a Chunk,
    count: usize,
}

impl Steps<'_> {
    fn one(&mut self) -> Result<(), WireError> {
        self.count += 1;
        self.chunk.check_at(self.count)
    }
}
