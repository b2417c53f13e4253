//! What the tests of the functions begin with, and one of all frames: by their definition.

use super::bests::Bests;
use super::chunk::{Chunk, Input, Piece, Starts};
use super::frames::{Bound, Frame};
use super::moments::FrameMoments;
use super::program::Evaluator;
use super::range::{Distance, Measure, Side};
use super::ranks::{Numbered, Numbers, Shares, Tiles};
use super::totals::{Counts, ExactSums, FloatSums};
use super::values::{OfFrame, Place, Shifted};
use crate::engine::moments::{Moments, OfValues};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema};
use datafusion_execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation,
};
use pg_lake_plan::ir::{FrameExclusion, FrameUnit};
use pg_lake_plan::message::ErrorCode;
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
    Chunk::new(pieces, CancellationToken::new(), memory(usize::MAX))
}

/// A reservation of nothing that may grow so far.
pub(super) fn memory(limit: usize) -> Arc<MemoryReservation> {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(limit));
    Arc::new(MemoryConsumer::new("test").register(&pool))
}

pub(super) fn frame(unit: FrameUnit, start: Bound, end: Bound) -> Frame {
    Frame {
        unit,
        start,
        end,
        exclude: FrameExclusion::NoOthers,
        measure: None,
    }
}

/// The type of the states of floats.
fn list_of_floats() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Float64, true)))
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

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn bound(&mut self, unit: FrameUnit, is_start: bool) -> Bound {
        let n = self.below(4) as usize;
        let side = match self.below(2) {
            0 => Side::Preceding,
            _ => Side::Following,
        };
        match (self.below(4), is_start, side) {
            (0, true, _) => Bound::UnboundedPreceding,
            (0, false, _) => Bound::UnboundedFollowing,
            (1, ..) => Bound::CurrentRow,
            (_, _, side) if unit == FrameUnit::Range => Bound::At(Distance::Exact(n as i128), side),
            (_, _, Side::Preceding) => Bound::Preceding(n),
            (_, _, Side::Following) => Bound::Following(n),
        }
    }
}

/// One partition: an ascending key, and a value.
struct Rows {
    keys: Vec<i32>,
    values: Vec<Option<i32>>,
}

impl Rows {
    fn random(random: &mut Random) -> Rows {
        let count = 1 + random.below(12);
        let mut key = 0;
        let keys = (0..count).map(|_| {
            key += random.below(3) as i32;
            key
        });
        let keys: Vec<i32> = keys.collect();
        let value = |_| match random.below(5) {
            0 => None,
            _ => Some(random.below(9) as i32 - 4),
        };
        let values = (0..count).map(value).collect();
        Rows { keys, values }
    }

    fn chunk(&self) -> Chunk {
        let floats = self.values.iter().map(|value| value.map(f64::from));
        let args: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(self.values.clone())),
            Arc::new(Int32Array::from(self.keys.clone())),
            Arc::new(floats.collect::<Float64Array>()),
        ];
        let begins = |row: &usize| *row == 0 || self.keys[*row] != self.keys[*row - 1];
        let groups: Vec<usize> = (0..self.keys.len()).filter(begins).collect();
        chunk_of(vec![piece_of(args, &[0], &groups)])
    }

    /// Where a row is, in what the frame counts.
    fn place(&self, unit: FrameUnit, row: usize) -> i64 {
        match unit {
            FrameUnit::Rows => row as i64,
            FrameUnit::Range => self.keys[row].into(),
            FrameUnit::Groups => {
                let mut earlier = self.keys[..row].to_vec();
                earlier.dedup();
                let same = earlier.last() == Some(&self.keys[row]);
                earlier.len() as i64 - i64::from(same)
            }
        }
    }

    /// The rows of a frame, as SQL defines them.
    fn frame(&self, frame: &Frame, row: usize) -> Vec<usize> {
        let away = |other: usize| self.place(frame.unit, other) - self.place(frame.unit, row);
        let offset = |bound| match bound {
            Bound::UnboundedPreceding => i64::MIN,
            Bound::Preceding(n) => -(n as i64),
            Bound::CurrentRow => 0,
            Bound::Following(n) => n as i64,
            Bound::UnboundedFollowing => i64::MAX,
            Bound::At(Distance::Exact(n), Side::Preceding) => -(n as i64),
            Bound::At(Distance::Exact(n), Side::Following) => n as i64,
            Bound::At(..) => panic!("a frame of other values"),
        };
        let bounds = offset(frame.start)..=offset(frame.end);
        let kept = |other: &usize| {
            let is_peer = self.keys[*other] == self.keys[row];
            match frame.exclude {
                FrameExclusion::NoOthers => true,
                FrameExclusion::CurrentRow => *other != row,
                FrameExclusion::Group => !is_peer,
                FrameExclusion::Ties => !is_peer || *other == row,
            }
        };
        (0..self.keys.len())
            .filter(|other| bounds.contains(&away(*other)))
            .filter(kept)
            .collect()
    }

    /// The row that a function picks of a frame: Postgres leaves a place for the current row where it excludes its ties,
    /// even if only they are in the frame, and finds nothing there then.
    fn picked(
        &self,
        frame: &Frame,
        row: usize,
        pick: fn(&[usize]) -> Option<usize>,
    ) -> Option<usize> {
        let mut members = self.frame(frame, row);
        if frame.exclude == FrameExclusion::Ties {
            let all = Frame {
                exclude: FrameExclusion::NoOthers,
                ..frame.clone()
            };
            let within = self.frame(&all, row);
            if within
                .iter()
                .any(|other| self.keys[*other] == self.keys[row])
            {
                members.push(row);
                members.sort_unstable();
                members.dedup();
            }
            return pick(&members).filter(|picked| within.contains(picked));
        }
        pick(&members)
    }
}

#[test]
fn every_frame_has_the_rows_that_sql_says() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..3000 {
        let rows = Rows::random(&mut random);
        let units = [FrameUnit::Rows, FrameUnit::Range, FrameUnit::Groups];
        let unit = units[random.below(3) as usize];
        let excluded = [
            FrameExclusion::NoOthers,
            FrameExclusion::CurrentRow,
            FrameExclusion::Group,
            FrameExclusion::Ties,
        ];
        let frame = Frame {
            unit,
            start: random.bound(unit, true),
            end: random.bound(unit, false),
            exclude: excluded[random.below(4) as usize],
            measure: (unit == FrameUnit::Range).then_some(Measure {
                arg: 1,
                descending: false,
                nulls_first: false,
                missing_digits: 0,
            }),
        };
        let chunk = rows.chunk();
        let members: Vec<Vec<usize>> = (0..rows.keys.len())
            .map(|row| rows.frame(&frame, row))
            .collect();
        let values = |frame: &Vec<usize>| -> Vec<i32> {
            frame.iter().filter_map(|row| rows.values[*row]).collect()
        };
        let input = Input {
            arg: Some(0),
            filter: None,
        };
        let counts = results(&mut Counts::new(input, frame.clone()), &chunk);
        let mut sums = ExactSums::new(0, None, frame.clone(), DataType::Int64);
        let sums = results(&mut sums, &chunk);
        let floats = results(&mut FloatSums::new(2, None, frame.clone(), false), &chunk);
        let mut states = FrameMoments::<OfValues>::new(2, None, frame.clone(), &list_of_floats());
        let states = results(&mut states, &chunk);
        let best = |max| Bests::new(max, 0, None, frame.clone(), &DataType::Int32);
        let (least, most) = (
            int_results(&mut best(false), &chunk),
            int_results(&mut best(true), &chunk),
        );
        let picked = |place| OfFrame::new(0, place, frame.clone(), &DataType::Int32);
        let second = int_results(&mut picked(Place::FromStart(1)), &chunk);
        let last = int_results(&mut picked(Place::Last), &chunk);
        for (row, members) in members.iter().enumerate() {
            let case = format!("round {round}, row {row} of {:?}, {frame:?}", rows.keys);
            let own = values(members);
            let count = counts.as_primitive::<Int64Type>().value(row);
            assert_eq!(count, own.len() as i64, "count in {case}");
            let sum = (!own.is_empty()).then(|| own.iter().map(|v| i64::from(*v)).sum::<i64>());
            let found = sums.as_primitive::<Int64Type>();
            let found = found.is_valid(row).then(|| found.value(row));
            assert_eq!(found, sum, "sum in {case}");
            let found = floats.as_primitive::<Float64Type>();
            let found = found.is_valid(row).then(|| found.value(row));
            assert_eq!(found, sum.map(|sum| sum as f64), "float sum in {case}");
            let states = states.as_list::<i32>();
            let found = states.is_valid(row).then(|| states.value(row));
            let found = found.map(|parts| parts.as_primitive::<Float64Type>().values().to_vec());
            let state = own.iter().try_fold(OfValues::default(), |state, value| {
                state.with(f64::from(*value))
            });
            let state = state.filter(|_| !own.is_empty());
            let state = state.map(|state| state.parts().to_vec());
            assert_eq!(found, state, "state in {case}");
            assert_eq!(least[row], own.iter().min().copied(), "min in {case}");
            assert_eq!(most[row], own.iter().max().copied(), "max in {case}");
            let value = |pick: fn(&[usize]) -> Option<usize>| {
                let picked = rows.picked(&frame, row, pick);
                picked.and_then(|row| rows.values[row])
            };
            let expected = value(|members| members.get(1).copied());
            assert_eq!(second[row], expected, "second in {case}");
            let expected = value(|members| members.last().copied());
            assert_eq!(last[row], expected, "last in {case}");
        }
    }
}

#[test]
fn a_cancelled_query_computes_no_more() {
    let cancel = CancellationToken::new();
    let args: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![1, 2, 2])),
        Arc::new(Float64Array::from(vec![1.0, 2.0, 2.0])),
    ];
    let pieces = vec![piece_of(args, &[0], &[0, 1])];
    let chunk = Chunk::new(pieces, cancel.clone(), memory(usize::MAX));
    let around = || frame(FrameUnit::Rows, Bound::Preceding(1), Bound::Following(1));
    let input = Input {
        arg: None,
        filter: None,
    };
    let mut all: Vec<Box<dyn Evaluator>> = vec![
        Box::new(Numbers::new(Numbered::Ranks)),
        Box::new(Shares { cumulative: true }),
        Box::new(Tiles { buckets: 2 }),
        Box::new(Counts::new(input, around())),
        Box::new(ExactSums::new(0, None, around(), DataType::Int64)),
        Box::new(FloatSums::new(1, None, around(), false)),
        Box::new(FrameMoments::<OfValues>::new(
            1,
            None,
            around(),
            &list_of_floats(),
        )),
        Box::new(Bests::new(true, 0, None, around(), &DataType::Int32)),
        Box::new(OfFrame::new(0, Place::Last, around(), &DataType::Int32)),
        Box::new(Shifted::new(0, 1, ints(&[None]))),
    ];
    for evaluator in &mut all {
        assert!(evaluator.evaluate(&chunk).is_ok());
    }
    cancel.cancel();
    for evaluator in &mut all {
        let error = evaluator.evaluate(&chunk).expect_err("cancelled");
        assert_eq!(error.code, ErrorCode::Cancelled);
    }
}
