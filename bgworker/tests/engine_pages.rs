//! Pages whose bounds show that no row is of use are not read, and no answer changes by that.

mod engine_support;

use arrow::array::*;
use arrow::datatypes::{Int32Type, Int64Type};
use engine_support::*;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use pg_lake_bgworker::engine::Engine;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, FileRef};
use pg_lake_plan::rows::RowNumbers;
use pg_lake_plan::types::{LakeType, Value};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// About 50 in a page, and 50 pages in a row group.
const ROWS: i32 = 5000;
const GROUP: usize = 2500;

const WIDE: LakeType = LakeType::Decimal {
    precision: 30,
    scale: 2,
};

const TYPES: [LakeType; 4] = [LakeType::Int4, LakeType::Int4, LakeType::Text, WIDE];

/// Every third hundred is null.
fn sparse(row: i32) -> Option<i32> {
    (row / 100 % 3 != 1).then_some(row)
}

/// Longer than what an index has of it.
fn text(row: i32) -> String {
    format!("{row:05}{}", "y".repeat(100))
}

fn decimal(row: i32) -> i128 {
    i128::from(row) - 2500
}

/// The row's number; the same with nulls; a text and a decimal in the same order.
fn file(directory: &Path) -> FileRef {
    let decimals = Decimal128Array::from_iter_values((0..ROWS).map(decimal));
    let decimals = decimals.with_precision_and_scale(30, 2).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(0..ROWS)),
        Arc::new(Int32Array::from_iter((0..ROWS).map(sparse))),
        Arc::new(StringArray::from_iter_values((0..ROWS).map(text))),
        Arc::new(decimals),
    ];
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP))
        .set_write_batch_size(10)
        .set_data_page_row_count_limit(50)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_enabled(false)
        .build();
    write_with(&directory.join("pages.parquet"), columns, properties)
}

fn number() -> Expr {
    col(0, LakeType::Int4)
}

fn and(args: Vec<Expr>) -> Expr {
    expr(LakeType::Bool, ExprKind::And(args))
}

fn between(least: i32, largest: i32) -> Expr {
    and(vec![
        compare(CompareOp::Ge, number(), int(least)),
        compare(CompareOp::Le, number(), int(largest)),
    ])
}

fn is_text(op: CompareOp, row: i32) -> Expr {
    let value = constant(LakeType::Text, Value::Text(text(row)));
    compare(op, col(2, LakeType::Text), value)
}

fn is_decimal(op: CompareOp, row: i32) -> Expr {
    let value = constant(WIDE, Value::I128(decimal(row)));
    compare(op, col(3, WIDE), value)
}

fn one_of(rows: &[i32]) -> Expr {
    let kind = ExprKind::InList {
        arg: Box::new(number()),
        values: rows.iter().map(|row| Some(Value::I32(*row))).collect(),
        negated: false,
    };
    expr(LakeType::Bool, kind)
}

/// The rows, which all columns have to agree on.
fn rows(batches: &[RecordBatch]) -> Vec<i32> {
    let mut rows = vec![];
    for batch in batches {
        let numbers = batch.column(0).as_primitive::<Int32Type>();
        let sparses = batch.column(1).as_primitive::<Int32Type>();
        let texts = batch.column(2).as_string::<i32>();
        let decimals = batch
            .column(3)
            .as_primitive::<arrow::datatypes::Decimal128Type>();
        for at in 0..batch.num_rows() {
            let row = numbers.value(at);
            let found = sparses.is_valid(at).then(|| sparses.value(at));
            assert_eq!(found, sparse(row));
            assert_eq!(texts.value(at), text(row));
            assert_eq!(decimals.value(at), decimal(row));
            rows.push(row);
        }
    }
    rows.sort_unstable();
    rows
}

/// A predicate, and the rows that pass it.
type Case = (Expr, Box<dyn Fn(i32) -> bool>);

fn case(predicate: Expr, passes: impl Fn(i32) -> bool + 'static) -> Case {
    (predicate, Box::new(passes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_whole_row_groups() {
    let dir = tempfile::tempdir().unwrap();
    let whole = file(dir.path());
    let mut deleted = whole.clone();
    deleted.deleted = (0..ROWS as u32).filter(|row| row % 7 == 0).collect();
    let mut ranges = whole.clone();
    ranges.ranges = Some(vec![(100, 2000), (2400, 2600), (4000, 4990)]);
    let is_seen = |n: usize, row: i32| match n {
        0 => true,
        1 => row % 7 != 0,
        _ => {
            (100..2000).contains(&row) || (2400..2600).contains(&row) || (4000..4990).contains(&row)
        }
    };
    let some = || col(1, LakeType::Int4);
    let cases = [
        case(between(777, 812), |row| (777..=812).contains(&row)),
        case(between(2490, 2510), |row| (2490..=2510).contains(&row)),
        case(compare(CompareOp::Lt, number(), int(0)), |_| false),
        case(compare(CompareOp::Ne, number(), int(9)), |row| row != 9),
        case(one_of(&[3, 1500, 4999]), |row| {
            [3, 1500, 4999].contains(&row)
        }),
        case(compare(CompareOp::Gt, some(), int(4210)), |row| {
            sparse(row).is_some_and(|n| n > 4210)
        }),
        // All of its page is null.
        case(compare(CompareOp::Eq, some(), int(150)), |_| false),
        case(is_text(CompareOp::Eq, 1234), |row| row == 1234),
        case(is_text(CompareOp::Le, 120), |row| row <= 120),
        case(is_decimal(CompareOp::Eq, 49), |row| row == 49),
        case(is_decimal(CompareOp::Gt, 4949), |row| row > 4949),
        case(
            and(vec![between(500, 900), is_text(CompareOp::Ge, 850)]),
            |row| (850..=900).contains(&row),
        ),
    ];
    for memory in [0, 64 << 20] {
        let engine = Engine::new(256 << 20, memory, dir.path().to_owned(), 2, None).unwrap();
        for (predicate, passes) in &cases {
            for (n, file) in [&whole, &deleted, &ranges].into_iter().enumerate() {
                let plan = scan(&TYPES, Some(predicate.clone()));
                let request = request(plan, vec![file.clone()]);
                let (batches, _) = run(&engine, request, None).await.unwrap();
                let expected = (0..ROWS).filter(|row| passes(*row) && is_seen(n, *row));
                assert_eq!(
                    rows(&batches),
                    expected.collect::<Vec<_>>(),
                    "{predicate:?} {n}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_without_a_row_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(256 << 20, 0, dir.path().to_owned(), 2, None).unwrap();
    let file = file(dir.path());
    for predicate in [
        between(777, 812),
        one_of(&[780, 800]),
        is_text(CompareOp::Eq, 790),
        is_decimal(CompareOp::Eq, 790),
        and(vec![between(0, 800), is_decimal(CompareOp::Ge, 790)]),
    ] {
        let plan = scan(&TYPES, Some(predicate.clone()));
        let (_, stats) = run(&engine, request(plan, vec![file.clone()]), None)
            .await
            .unwrap();
        assert_eq!((stats.row_groups, stats.row_groups_pruned), (2, 1));
        assert!(stats.rows_cold < 200, "{predicate:?} {stats:?}");
        assert!(stats.pages >= 4 * 20, "{predicate:?} {stats:?}");
        assert!(
            stats.pages_pruned * 10 > stats.pages * 8,
            "{predicate:?} {stats:?}"
        );
    }
    // Not one page is left of a row group whose bounds have the value between them.
    let gap = compare(CompareOp::Eq, col(1, LakeType::Int4), int(150));
    let gap = request(scan(&TYPES, Some(gap)), vec![file.clone()]);
    let (batches, stats) = run(&engine, gap, None).await.unwrap();
    assert!(batches.is_empty());
    assert_eq!((stats.row_groups_pruned, stats.rows_cold), (2, 0));
    // It leaves out too little.
    let most = scan(&TYPES, Some(compare(CompareOp::Ge, number(), int(600))));
    let (_, stats) = run(&engine, request(most, vec![file.clone()]), None)
        .await
        .unwrap();
    assert_eq!((stats.pages, stats.rows_cold), (0, 5000));
    // A condition that comes after one that can fail.
    let ratio = arith(LakeType::Int4, ArithmeticOp::Divide, int(1), number());
    let fails = and(vec![
        compare(CompareOp::Ge, ratio, int(0)),
        between(777, 812),
    ]);
    let error = run(
        &engine,
        request(scan(&TYPES, Some(fails)), vec![file]),
        None,
    )
    .await
    .unwrap_err();
    assert_eq!(error.code, ErrorCode::DivisionByZero);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_often_is_read_whole_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let file = file(dir.path());
    let go = |least: i32| {
        let plan = scan(&TYPES, Some(between(least, least + 999)));
        run(&engine, request(plan, vec![file.clone()]), None)
    };
    let mut by_pages = 0;
    loop {
        let (batches, stats) = go(100).await.unwrap();
        assert_eq!(rows(&batches).len(), 1000);
        if stats.pages == 0 {
            assert_eq!(stats.chunks_decoded, 4);
            break;
        }
        by_pages += 1;
        assert!(by_pages < 10, "it is never read whole");
    }
    assert!(by_pages > 0);
    let (batches, stats) = go(1200).await.unwrap();
    assert_eq!(rows(&batches), (1200..2200).collect::<Vec<_>>());
    assert_eq!((stats.chunks_cached, stats.chunks_decoded), (4, 0));
    // Cached columns beside pages of another one.
    let narrow = scan(&TYPES[..1], None);
    run(&engine, request(narrow, vec![file.clone()]), None)
        .await
        .unwrap();
    let (batches, stats) = go(3000).await.unwrap();
    assert_eq!(rows(&batches), (3000..4000).collect::<Vec<_>>());
    assert_eq!((stats.chunks_cached, stats.chunks_decoded), (1, 3));
    assert!(stats.pages_pruned > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_join_leave_out_pages() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let large = file(dir.path());
    let few: ArrayRef = Arc::new(Int32Array::from_iter_values(3000..3010));
    let small = write(&dir.path().join("few.parquet"), vec![few], GROUP);
    let mut passing = scan(&TYPES, None);
    if let Plan::Scan(scan) = &mut passing {
        scan.table = 1;
    }
    let plan = Plan::Join(Join {
        kind: JoinKind::Semi,
        left: Box::new(passing),
        right: Box::new(scan(&TYPES[..1], None)),
        keys: vec![JoinKey {
            left: number(),
            right: number(),
        }],
        filter: None,
        left_rows: 5000.0,
        right_rows: 10.0,
    });
    let mut request = request(plan, vec![small]);
    request.tables.push(pg_lake_plan::message::TableInput {
        files: vec![large],
        feed: None,
    });
    let mut running = engine
        .execute(request, vec![], vec![None, None], Default::default())
        .await
        .unwrap();
    let mut batches = vec![];
    while let Some(batch) = running.next().await.unwrap() {
        batches.push(batch);
    }
    assert_eq!(rows(&batches), (3000..3010).collect::<Vec<_>>());
    let stats = running.stats();
    assert!(stats.pages_pruned * 10 > stats.pages * 8, "{stats:?}");
    assert!(stats.rows_cold < 200, "{stats:?}");
}

/// Of a column that was widened the file has the narrower type; an added one it hasn't at all. The numbers of rows are those of the
/// pages that are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_columns_and_row_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(256 << 20, 0, dir.path().to_owned(), 2, None).unwrap();
    let mut file = file(dir.path());
    file.rows = RowNumbers::consecutive(1000, ROWS as u64);
    file.deleted = vec![3001];
    let is = |op: CompareOp, value: i64| {
        let value = constant(LakeType::Int8, Value::I64(value));
        compare(op, col(0, LakeType::Int8), value)
    };
    let near = || vec![is(CompareOp::Ge, 3000), is(CompareOp::Le, 3002)];
    let added = |value: i32| compare(CompareOp::Eq, col(1, LakeType::Int4), int(value));
    for (conditions, expected) in [
        (near(), vec![3000, 3002]),
        (vec![is(CompareOp::Gt, 1 << 40)], vec![]),
        ([near(), vec![added(7)]].concat(), vec![3000, 3002]),
        ([near(), vec![added(8)]].concat(), vec![]),
    ] {
        let types = [LakeType::Int8, LakeType::Int4, LakeType::Int8];
        let mut plan = scan(&types, Some(and(conditions)));
        if let Plan::Scan(scan) = &mut plan {
            scan.columns[1].source = ColumnSource::Field(99);
            scan.columns[1].missing = Some(Value::I32(7));
            scan.columns[2].source = ColumnSource::RowNumber;
        }
        let (batches, stats) = run(&engine, request(plan, vec![file.clone()]), None)
            .await
            .unwrap();
        let mut found = vec![];
        for batch in &batches {
            let [values, numbers] = [0, 2].map(|i| batch.column(i).as_primitive::<Int64Type>());
            for at in 0..batch.num_rows() {
                assert_eq!(numbers.value(at), values.value(at) + 1000);
                found.push(values.value(at));
            }
        }
        found.sort_unstable();
        assert_eq!(found, expected);
        assert!(stats.rows_cold < 200, "{stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_bytes_of_pages_are_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = file(dir.path());
    file.path = "s3://lake/pages.parquet".to_owned();
    let store = Directory::new(dir.path());
    let spill = dir.path().to_owned();
    let engine = Engine::new(256 << 20, 64 << 20, spill, 2, Some(store.clone())).unwrap();
    for _ in 0..2 {
        let plan = scan(&TYPES, Some(between(777, 812)));
        let (batches, stats) = run(&engine, request(plan, vec![file.clone()]), None)
            .await
            .unwrap();
        assert_eq!(rows(&batches), (777..=812).collect::<Vec<_>>());
        assert!(stats.pages_pruned > 0);
    }
    let bytes = store.bytes.load(Ordering::Relaxed);
    assert!(
        bytes > 0 && bytes < file.size / 10,
        "{bytes} of {}",
        file.size
    );
    // The index of the column comes with the footer.
    assert_eq!(store.lookups.lock().unwrap().len(), 1);
    // That of another one is asked for, once.
    for _ in 0..2 {
        let plan = scan(&TYPES, Some(is_decimal(CompareOp::Eq, 790)));
        let (batches, stats) = run(&engine, request(plan, vec![file.clone()]), None)
            .await
            .unwrap();
        assert_eq!(rows(&batches), [790]);
        assert!(stats.pages_pruned > 0);
    }
    let lookups = store.lookups.lock().unwrap();
    assert_eq!(lookups.len(), 2, "{lookups:?}");
}

/// Short runs of rows in large pages: what lies between isn't fetched page by page after all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_page_is_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let long = |row: i32| format!("{row}{}", "z".repeat(8000));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(0..400)),
        Arc::new(StringArray::from_iter_values((0..400).map(long))),
    ];
    let properties = WriterProperties::builder()
        .set_write_batch_size(10)
        .set_data_page_row_count_limit(10)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_enabled(false)
        .build();
    let mut file = write_with(&dir.path().join("long.parquet"), columns, properties);
    file.path = "s3://lake/long.parquet".to_owned();
    let store = Directory::new(dir.path());
    let spill = dir.path().to_owned();
    let engine = Engine::new(256 << 20, 64 << 20, spill, 2, Some(store.clone())).unwrap();
    let wanted: Vec<i32> = (5..400).step_by(20).collect();
    let plan = scan(&[LakeType::Int4, LakeType::Text], Some(one_of(&wanted)));
    let (batches, stats) = run(&engine, request(plan, vec![file.clone()]), None)
        .await
        .unwrap();
    let mut found = vec![];
    for batch in &batches {
        let numbers = batch.column(0).as_primitive::<Int32Type>();
        let texts = batch.column(1).as_string::<i32>();
        for at in 0..batch.num_rows() {
            assert_eq!(texts.value(at), long(numbers.value(at)));
            found.push(numbers.value(at));
        }
    }
    found.sort_unstable();
    assert_eq!(found, wanted);
    assert_eq!((stats.pages, stats.pages_pruned), (80, 40), "{stats:?}");
    let bytes = store.bytes.load(Ordering::Relaxed);
    assert!(bytes * 10 < file.size * 6, "{bytes} of {}", file.size);
    // The footer.
    let lookups = store.lookups.lock().unwrap();
    assert_eq!(lookups.len(), 1, "{lookups:?}");
}
