//! What sets are in lists that are parts of others, in numbers at their ends, and of large values.

use super::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};

#[test]
fn series_are_counted_as_postgres_ends_them() {
    assert_eq!(count(1, 3, 1), 3);
    assert_eq!(count(1, 1, -5), 1);
    assert_eq!(count(3, 1, 1), 0);
    assert_eq!(count(3, 1, -1), 3);
    assert_eq!(count(1, 10, 4), 3);
    assert_eq!(count(i64::MAX - 1, i64::MAX, 3), 1);
    assert_eq!(count(i64::MIN, i64::MAX, 1), 1 << 64);
    assert_eq!(count(i64::MAX, i64::MIN, i64::MIN), 2);
    assert_eq!(count(i64::MIN, i64::MAX, i64::MAX), 3);
}

#[test]
fn values_past_the_end_are_null() {
    let rows = vec![Series {
        start: i64::MAX - 1,
        step: 1,
        count: 2,
    }];
    let set = Elements::Series {
        rows,
        narrow: false,
    };
    let run = Run {
        row: 0,
        first: 1,
        count: 3,
    };
    let values = set.at(&[run]).expect("values");
    let values: Vec<Option<i64>> = values.as_primitive::<Int64Type>().iter().collect();
    assert_eq!(values, [Some(i64::MAX), None, None]);
}

#[test]
fn large_rows_are_repeated_a_few_at_a_time() {
    let text: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["x".repeat(1 << 20)]));
    let fields = vec![
        Field::new("t", DataType::Utf8, true),
        Field::new("s0", DataType::Int64, true),
    ];
    let sets = Sets {
        schema: Arc::new(Schema::new(fields)),
        columns: vec![0],
        calls: vec![],
        cancel: CancellationToken::new(),
    };
    let rows = vec![Series {
        start: 1,
        step: 1,
        count: 40,
    }];
    let expanded = Expanded {
        sets: Arc::new(sets),
        kept: vec![text],
        repeated: 0,
        elements: vec![Elements::Series {
            rows,
            narrow: false,
        }],
        rows: 1,
        row: 0,
        done: 0,
    };
    let sizes: Vec<usize> = expanded
        .map(|batch| batch.expect("rows").num_rows())
        .collect();
    assert_eq!(sizes, [16, 16, 8]);
}

#[test]
fn a_list_of_all_rows_is_there_once() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(4), None])]);
    let set = Elements::List { list, single: true };
    assert_eq!([set.count(0), set.count(7)], [2, 2]);
    let run = |row: usize, first: u128| Run {
        row,
        first,
        count: 2,
    };
    let values = set.at(&[run(7, 0), run(9, 1)]).expect("values");
    let values: Vec<Option<i32>> = values.as_primitive::<Int32Type>().iter().collect();
    assert_eq!(values, [Some(4), None, None, None]);
}

#[test]
fn a_null_list_has_no_elements_whatever_lies_below_it() {
    let element = Arc::new(Field::new("element", DataType::Int32, true));
    let offsets = OffsetBuffer::from_lengths([2, 3, 1]);
    let values = Int32Array::from(vec![1, 2, 3, 4, 5, 6]);
    let nulls = NullBuffer::from(vec![true, false, true]);
    let lists = ListArray::new(element, offsets, Arc::new(values), Some(nulls));
    let set = Elements::List {
        list: lists.slice(1, 2),
        single: false,
    };
    assert_eq!([set.count(0), set.count(1), set.count(2)], [0, 1, 0]);
    let run = |row: usize| Run {
        row,
        first: 0,
        count: 2,
    };
    let values = set.at(&[run(0), run(1)]).expect("values");
    let values: Vec<Option<i32>> = values.as_primitive::<Int32Type>().iter().collect();
    assert_eq!(values, [None, None, Some(6), None]);
}
