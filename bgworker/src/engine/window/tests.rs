//! What the tests of the functions begin with.

use super::chunk::{Chunk, Piece, Starts};
use super::program::Evaluator;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{Field, Int32Type, Schema};
use pg_lake_plan::ir::{Frame, FrameBound, FrameUnit};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(super) fn ints(values: &[Option<i32>]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

/// Rows with these arguments. Partitions and groups of peers begin at the rows that are given.
pub(super) fn piece_of(args: Vec<ArrayRef>, partitions: &[usize], groups: &[usize]) -> Piece {
    let fields: Vec<Field> = args
        .iter()
        .map(|arg| Field::new("c", arg.data_type().clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    Piece {
        batch: RecordBatch::try_new(schema, args.clone()).expect("a batch"),
        args,
        starts: Starts {
            partitions: partitions.to_vec(),
            groups: groups.to_vec(),
        },
        bytes: 0,
    }
}

pub(super) fn int_piece(values: &[i32], partitions: &[usize], groups: &[usize]) -> Piece {
    let values: ArrayRef = Arc::new(Int32Array::from(values.to_vec()));
    piece_of(vec![values], partitions, groups)
}

pub(super) fn chunk_of(pieces: Vec<Piece>) -> Chunk {
    Chunk::new(pieces, CancellationToken::new())
}

pub(super) fn frame(unit: FrameUnit, start: FrameBound, end: FrameBound) -> Frame {
    Frame { unit, start, end }
}

/// The results for all rows of a chunk.
pub(super) fn results(evaluator: &mut dyn Evaluator, chunk: &Chunk) -> ArrayRef {
    let arrays = evaluator.evaluate(chunk).expect("results");
    assert_eq!(arrays.len(), chunk.pieces.len());
    let arrays: Vec<&dyn Array> = arrays.iter().map(|array| array.as_ref()).collect();
    let array = compute::concat(&arrays).expect("one array");
    assert_eq!(array.len(), chunk.rows());
    array
}

pub(super) fn int_results(evaluator: &mut dyn Evaluator, chunk: &Chunk) -> Vec<Option<i32>> {
    let array = results(evaluator, chunk);
    array.as_primitive::<Int32Type>().iter().collect()
}
