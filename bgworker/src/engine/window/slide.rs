//! Moves a state from frame to frame, adding up in the order in which Postgres does: `eval_windowaggregates`.

use super::chunk::Chunk;
use super::frames::Frames;
use pg_lake_plan::ir::Frame;
use pg_lake_plan::message::WireError;

/// After so many rows a loop looks whether the query was cancelled.
const CANCEL_ROWS: usize = 1 << 16;

/// What an aggregate knows of the rows of a frame.
pub(super) trait State {
    /// Forgets all rows.
    fn reset(&mut self);

    /// Takes the row after the last one.
    fn add(&mut self, row: usize) -> Result<(), WireError>;

    /// Gives the first row back. False: that isn't possible, and the state is to be computed anew.
    fn remove(&mut self, row: usize) -> bool;

    /// Appends the result for the rows it has to those so far.
    fn give(&mut self) -> Result<(), WireError>;
}

/// Results for all rows of a chunk. If its first partition goes on from an earlier one, all frames have to begin with
/// the partition's first row, and the state knows the earlier rows.
pub(super) fn slide(state: &mut impl State, chunk: &Chunk, frame: &Frame) -> Result<(), WireError> {
    let mut steps = 0;
    for partition in chunk.partitions() {
        if partition.begins {
            state.reset();
        }
        let mut known = partition.rows.start..partition.rows.start;
        let mut frames = Frames::new(frame, &partition);
        for row in partition.rows.clone() {
            let wanted = frames.of(row);
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
                steps += 1;
                if steps % CANCEL_ROWS == 0 {
                    chunk.check_cancelled()?;
                }
            }
            state.give()?;
        }
    }
    Ok(())
}
