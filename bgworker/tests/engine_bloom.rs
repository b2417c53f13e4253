//! Row groups in whose Bloom filters a value isn't are not read, those that have it are, and no answer changes.

mod engine_support;

use arrow::array::*;
use arrow::datatypes::Int32Type;
use engine_support::*;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use pg_lake_bgworker::engine::Engine;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{ErrorCode, Execute, FileRef, ScanStats, TableInput};
use pg_lake_plan::types::{LakeType, Value};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const GROUPS: i64 = 6;
const GROUP: i64 = 1000;
const ROWS: i64 = GROUPS * GROUP;

fn decimal(precision: u8) -> LakeType {
    LakeType::Decimal {
        precision,
        scale: 2,
    }
}

/// What a filter can be for; decimals are 4, 8 and more bytes in a file.
fn types() -> Vec<LakeType> {
    vec![
        LakeType::Int2,
        LakeType::Int4,
        LakeType::Int8,
        LakeType::Date,
        LakeType::Time,
        LakeType::Timestamp,
        LakeType::Timestamptz,
        LakeType::Text,
        LakeType::Bytes,
        LakeType::Uuid,
        decimal(9),
        decimal(18),
        decimal(30),
    ]
}

/// The number behind the value of a row. Each row group has numbers from the whole range: bounds leave out none.
fn number(row: i64) -> Option<i64> {
    (row % 7 != 3).then_some(row % GROUP * GROUPS + row / GROUP)
}

fn bytes(n: i64) -> Vec<u8> {
    n.wrapping_mul(0x1234_5677_89AB_CDEF).to_be_bytes().to_vec()
}

fn uuid(n: i64) -> [u8; 16] {
    (n as u128)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
        .to_be_bytes()
}

fn wide(n: i64) -> i64 {
    (n - 3000) * 1_000_000_007
}

fn value(ty: &LakeType, n: i64) -> Value {
    match ty {
        LakeType::Int2 | LakeType::Int4 | LakeType::Date => Value::I32((n - 3000) as i32),
        LakeType::Int8 | LakeType::Timestamp | LakeType::Timestamptz => Value::I64(wide(n)),
        LakeType::Time => Value::I64(n * 1000),
        LakeType::Text => Value::Text(format!("text {n}")),
        LakeType::Bytes => Value::Bytes(bytes(n)),
        LakeType::Uuid => Value::Uuid(uuid(n)),
        LakeType::Decimal { .. } => Value::I128(i128::from(n) - 3000),
        other => panic!("{other:?}"),
    }
}

fn column(ty: &LakeType, numbers: &[Option<i64>]) -> ArrayRef {
    let numbers = || numbers.iter().copied();
    let wides = || numbers().map(|n| n.map(wide));
    match ty {
        LakeType::Int2 | LakeType::Int4 => Arc::new(Int32Array::from_iter(
            numbers().map(|n| n.map(|n| (n - 3000) as i32)),
        )),
        LakeType::Date => Arc::new(Date32Array::from_iter(
            numbers().map(|n| n.map(|n| (n - 3000) as i32)),
        )),
        LakeType::Int8 => Arc::new(Int64Array::from_iter(wides())),
        LakeType::Time => Arc::new(Time64MicrosecondArray::from_iter(
            numbers().map(|n| n.map(|n| n * 1000)),
        )),
        LakeType::Timestamp => Arc::new(TimestampMicrosecondArray::from_iter(wides())),
        LakeType::Timestamptz => {
            Arc::new(TimestampMicrosecondArray::from_iter(wides()).with_timezone("UTC"))
        }
        LakeType::Text => Arc::new(StringArray::from_iter(
            numbers().map(|n| n.map(|n| format!("text {n}"))),
        )),
        LakeType::Bytes => Arc::new(BinaryArray::from_iter(numbers().map(|n| n.map(bytes)))),
        LakeType::Uuid => {
            let ids = numbers().map(|n| n.map(uuid));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 16).unwrap())
        }
        LakeType::Decimal { precision, scale } => {
            let numbers = numbers().map(|n| n.map(|n| i128::from(n) - 3000));
            let decimals = Decimal128Array::from_iter(numbers);
            Arc::new(
                decimals
                    .with_precision_and_scale(*precision, *scale)
                    .unwrap(),
            )
        }
        other => panic!("{other:?}"),
    }
}

/// The row's number and, behind it, its value.
fn file(path: &Path, ty: &LakeType, numbers: &[Option<i64>], filters: bool) -> FileRef {
    let rows = numbers.len() as i32;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(0..rows)),
        column(ty, numbers),
    ];
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP as usize))
        .set_bloom_filter_enabled(filters);
    let properties = match filters {
        true => properties.set_bloom_filter_fpp(0.01),
        false => properties,
    };
    write_with(path, columns, properties.build())
}

fn numbers() -> Vec<Option<i64>> {
    (0..ROWS).map(number).collect()
}

fn is(ty: &LakeType, n: i64) -> Expr {
    let value = constant(ty.clone(), value(ty, n));
    compare(CompareOp::Eq, col(1, ty.clone()), value)
}

fn one_of(ty: &LakeType, numbers: &[i64]) -> Expr {
    let mut values: Vec<Option<Value>> = numbers.iter().map(|n| Some(value(ty, *n))).collect();
    values.push(None);
    let kind = ExprKind::InList {
        arg: Box::new(col(1, ty.clone())),
        values,
        negated: false,
    };
    expr(LakeType::Bool, kind)
}

fn and(args: Vec<Expr>) -> Expr {
    expr(LakeType::Bool, ExprKind::And(args))
}

fn or(args: Vec<Expr>) -> Expr {
    expr(LakeType::Bool, ExprKind::Or(args))
}

fn scan_of(ty: &LakeType, predicate: Expr) -> Plan {
    scan(&[LakeType::Int4, ty.clone()], Some(predicate))
}

async fn found(engine: &Engine, request: Execute) -> (Vec<i64>, ScanStats) {
    let (batches, stats) = run(engine, request, None).await.unwrap();
    let mut rows: Vec<i64> = vec![];
    for batch in &batches {
        let numbers = batch.column(0).as_primitive::<Int32Type>().values();
        rows.extend(numbers.iter().map(|row| i64::from(*row)));
    }
    rows.sort_unstable();
    (rows, stats)
}

/// Numbers without an order, the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit as u64) as i64
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_without_the_value_are_left_out_for_each_type() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Numbers(1);
    for memory in [0, 64 << 20] {
        let engine = Engine::new(256 << 20, memory, dir.path().to_owned(), 2, None).unwrap();
        for (at, ty) in types().iter().enumerate() {
            let path = dir.path().join(format!("{memory}-{at}.parquet"));
            let file = file(&path, ty, &numbers(), true);
            let mut filtered = 0;
            for _ in 0..20 {
                let n = 60 + random.below(ROWS - 120);
                let expected: Vec<i64> = (0..ROWS).filter(|row| number(*row) == Some(n)).collect();
                let request = request(scan_of(ty, is(ty, n)), vec![file.clone()]);
                let (rows, stats) = found(&engine, request).await;
                assert_eq!(rows, expected, "{ty:?} {n}");
                assert!(stats.row_groups_pruned >= stats.row_groups_filtered);
                assert_eq!(stats.row_groups, GROUPS as u64);
                filtered += stats.row_groups_filtered;
            }
            // One in a hundred looks as if it had the value.
            assert!(filtered >= 90, "{ty:?} {filtered}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_without_filters() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let mut random = Numbers(7);
    for (at, ty) in types().iter().enumerate() {
        // Some numbers twice, some missing, a row group of nulls.
        let mut some: Vec<Option<i64>> = (0..3500)
            .map(|_| (random.below(9) > 0).then(|| random.below(ROWS)))
            .collect();
        some[1000..2000].fill(None);
        let path = |with: &str| dir.path().join(format!("{with}-{at}.parquet"));
        let with = file(&path("with"), ty, &some, true);
        let without = file(&path("without"), ty, &some, false);
        for _ in 0..60 {
            let mut n = || random.below(ROWS);
            let (a, b, c, d) = (n(), n(), n(), n());
            let predicate = match n() % 6 {
                0 => is(ty, a),
                1 => one_of(ty, &[a, b, c]),
                2 => and(vec![one_of(ty, &[a, b]), one_of(ty, &[b, c])]),
                3 => or(vec![is(ty, a), is(ty, b)]),
                4 => expr(LakeType::Bool, ExprKind::Not(Box::new(is(ty, a)))),
                _ => and(vec![
                    compare(CompareOp::Ge, col(0, LakeType::Int4), int((d / 2) as i32)),
                    one_of(ty, &(a..a + 30).collect::<Vec<_>>()),
                ]),
            };
            let of = |file: &FileRef| {
                let plan = scan_of(ty, predicate.clone());
                found(&engine, request(plan, vec![file.clone()]))
            };
            let (expected, stats) = of(&without).await;
            assert_eq!(stats.row_groups_filtered, 0);
            assert_eq!(of(&with).await.0, expected, "{predicate:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_are_asked_for_few_values_only() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let ty = LakeType::Int4;
    let file = file(&dir.path().join("few.parquet"), &ty, &numbers(), true);
    let of = |predicate: Expr| request(scan_of(&ty, predicate), vec![file.clone()]);
    let multiples = |count: i64| (10..10 + count).map(|n| n * GROUPS).collect::<Vec<_>>();
    let (rows, stats) = found(&engine, of(one_of(&ty, &multiples(3)))).await;
    assert!(rows.iter().all(|row| *row < GROUP) && !rows.is_empty());
    assert!(stats.row_groups_filtered >= 3, "{stats:?}");
    let (rows, stats) = found(&engine, of(one_of(&ty, &multiples(100)))).await;
    assert!(rows.iter().all(|row| *row < GROUP) && rows.len() > 80);
    assert_eq!(stats.row_groups_filtered, 0);
    // Rows that are asked for by number have been found by an index.
    let mut chosen = of(is(&ty, 600));
    chosen.tables[0].files[0].ranges = Some(vec![(0, 5000)]);
    let (rows, stats) = found(&engine, chosen).await;
    assert_eq!((rows, stats.row_groups_filtered), (vec![100], 0));
    // A condition that comes after one that can fail.
    let ratio = arith(
        LakeType::Int4,
        ArithmeticOp::Divide,
        int(1),
        col(0, LakeType::Int4),
    );
    let fails = and(vec![compare(CompareOp::Ge, ratio, int(0)), is(&ty, 601)]);
    let error = run(&engine, of(fails), None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DivisionByZero);
}

/// Of a column that was widened the file has the wider type.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn widened_columns() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let file = file(
        &dir.path().join("narrow.parquet"),
        &LakeType::Int4,
        &numbers(),
        true,
    );
    for n in [600i64, 603, 3000, 1 << 33] {
        let value = constant(LakeType::Int8, Value::I64(n - 3000));
        let predicate = compare(CompareOp::Eq, col(1, LakeType::Int8), value);
        let plan = scan_of(&LakeType::Int8, predicate);
        let (rows, stats) = found(&engine, request(plan, vec![file.clone()])).await;
        let expected: Vec<i64> = (0..ROWS).filter(|row| number(*row) == Some(n)).collect();
        assert_eq!(rows, expected, "{n}");
        assert!(stats.row_groups_pruned >= 4, "{stats:?}");
    }
    let wider = decimal(12);
    let path = dir.path().join("decimal.parquet");
    let file = self::file(&path, &decimal(9), &numbers(), true);
    let plan = scan_of(&wider, is(&wider, 612));
    let (rows, stats) = found(&engine, request(plan, vec![file])).await;
    assert_eq!(rows, [102]);
    assert!(stats.row_groups_filtered >= 4, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_keys_of_a_join_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    for (at, ty) in [LakeType::Int4, LakeType::Text].iter().enumerate() {
        let path = |name: &str| dir.path().join(format!("{name}-{at}.parquet"));
        let large = file(&path("large"), ty, &numbers(), true);
        // From one row group, and from the whole of its range.
        let keys = [Some(600), Some(612), Some(5400), None];
        let small = file(&path("small"), ty, &keys, false);
        let mut passing = scan(&[LakeType::Int4, ty.clone()], None);
        if let Plan::Scan(scan) = &mut passing {
            scan.table = 1;
        }
        let key = || col(1, ty.clone());
        let plan = Plan::Join(Join {
            kind: JoinKind::Semi,
            left: Box::new(passing),
            right: Box::new(scan(&[LakeType::Int4, ty.clone()], None)),
            keys: vec![JoinKey {
                left: key(),
                right: key(),
            }],
            filter: None,
            left_rows: 6000.0,
            right_rows: 4.0,
        });
        let mut request = request(plan, vec![small]);
        request.tables.push(TableInput {
            files: vec![large],
            feed: None,
        });
        let mut running = engine
            .execute(request, vec![], vec![None, None], Default::default())
            .await
            .unwrap();
        let mut rows = vec![];
        while let Some(batch) = running.next().await.unwrap() {
            rows.extend_from_slice(batch.column(0).as_primitive::<Int32Type>().values());
        }
        rows.sort_unstable();
        assert_eq!(rows, [100, 102, 900], "{ty:?}");
        let stats = running.stats();
        assert!(stats.row_groups_filtered >= 4, "{ty:?} {stats:?}");
    }
}

/// Where the filter of the second column is in the second row group.
fn filter_place(file: &FileRef) -> (u64, usize) {
    let reader = SerializedFileReader::new(File::open(&file.path).unwrap()).unwrap();
    let chunk = reader.metadata().row_group(1).column(1);
    let (offset, length) = (chunk.bloom_filter_offset(), chunk.bloom_filter_length());
    (offset.unwrap() as u64, length.unwrap() as usize)
}

/// Writes over a part of that filter.
fn damage(file: &FileRef, at: u64, bytes: &[u8]) {
    let (offset, length) = filter_place(file);
    assert!(length > at as usize + bytes.len(), "{length}");
    let content = File::options().write(true).open(&file.path).unwrap();
    content.write_all_at(bytes, offset + at).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_filter_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let ty = LakeType::Int8;
    // A number of the second row group.
    let n = 601;
    let file = file(&dir.path().join("header"), &ty, &numbers(), true);
    damage(&file, 0, &[0xFF; 8]);
    let request = |predicate: Expr| request(scan_of(&ty, predicate), vec![file.clone()]);
    let error = run(&engine, request(is(&ty, n)), None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DataCorrupted, "{error:?}");
    assert!(
        error.message.contains("could not read data file"),
        "{error:?}"
    );
    // Who doesn't ask the filter doesn't notice.
    let (rows, _) = found(&engine, request(or(vec![is(&ty, n), is(&ty, n)]))).await;
    assert_eq!(rows, [1100]);
}

/// A sector of zeros, and a row group whose values were chosen by their hashes, look the same. Rows must not be lost by
/// the former, nor may the latter be unreadable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_with_gaps_are_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let ty = LakeType::Int8;
    for at in [40, 100, 515, 1000] {
        let path = dir.path().join(at.to_string());
        let file = file(&path, &ty, &numbers(), true);
        damage(&file, at, &[0; 512]);
        for memory in [0, 64 << 20] {
            let engine = Engine::new(256 << 20, memory, dir.path().to_owned(), 2, None).unwrap();
            for row in (GROUP..2 * GROUP).step_by(23) {
                let Some(n) = number(row) else { continue };
                let request = request(scan_of(&ty, is(&ty, n)), vec![file.clone()]);
                assert_eq!(found(&engine, request).await.0, [row], "{at}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_of_a_file_in_a_store_are_fetched_together() {
    let dir = tempfile::tempdir().unwrap();
    let ty = LakeType::Uuid;
    let mut file = file(&dir.path().join("ids.parquet"), &ty, &numbers(), true);
    file.path = "s3://lake/ids.parquet".to_owned();
    let store = Directory::new(dir.path());
    let spill = dir.path().to_owned();
    let engine = Engine::new(256 << 20, 64 << 20, spill, 2, Some(store.clone())).unwrap();
    for n in [600, 601, 602, 603] {
        let request = request(scan_of(&ty, is(&ty, n)), vec![file.clone()]);
        let (rows, stats) = found(&engine, request).await;
        let expected: Vec<i64> = (0..ROWS).filter(|row| number(*row) == Some(n)).collect();
        assert_eq!(rows, expected);
        assert!(stats.row_groups_filtered >= 4, "{stats:?}");
    }
    // The footer, and all filters at once or, where two threads begin with different row groups, at twice.
    let lookups = store.lookups.lock().unwrap();
    let most = lookups.iter().map(Vec::len).max();
    assert!(most >= Some(GROUPS as usize - 1), "{lookups:?}");
    assert!(lookups.len() <= 3, "{lookups:?}");
}
