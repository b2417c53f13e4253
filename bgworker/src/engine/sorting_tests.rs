//! Sorts of wide rows with little memory.

use super::*;
use crate::engine::memory::{Budget, QueryPool};
use arrow::array::{ArrayRef, AsArray, Int64Array, ListBuilder, StringArray, StringBuilder};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion_execution::config::SessionConfig;
use datafusion_execution::runtime_env::RuntimeEnvBuilder;
use datafusion_physical_expr::PhysicalSortExpr;
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_plan::test::TestMemoryExec;

const MEMORY: usize = 16 << 20;
const PARTITIONS: usize = 2;

fn schema() -> SchemaRef {
    let fields = vec![
        Field::new("n", DataType::Int64, false),
        Field::new("t", DataType::Utf8, false),
    ];
    Arc::new(Schema::new(fields))
}

/// A number with zeros before it: format strings have no such widths.
fn padded(n: i64, bytes: usize) -> String {
    let digits = n.to_string();
    "0".repeat(bytes.saturating_sub(digits.len())) + &digits
}

/// Rows with numbers that are all different, and texts of so many bytes.
fn batch(numbers: impl Iterator<Item = usize>, bytes: usize) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(numbers.map(|n| (n * 7919 % 100_003) as i64));
    let texts = numbers.values().iter().map(|n| padded(*n, bytes));
    let texts = StringArray::from_iter_values(texts);
    RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(texts)]).expect("two columns")
}

fn by(column: &str, place: usize) -> PhysicalSortExpr {
    PhysicalSortExpr::new(Arc::new(Column::new(column, place)), SortOptions::default())
}

/// Sorts in partitions and merges these; returns the rows and how many files were written.
async fn sort(
    inputs: &[Vec<RecordBatch>],
    keys: Vec<PhysicalSortExpr>,
) -> (Vec<RecordBatch>, usize) {
    let budget = Arc::new(Budget::new(MEMORY));
    let pool = Arc::new(QueryPool::new(budget.clone(), 0));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .build_arc()
        .expect("a runtime");
    let config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_sort_spill_reservation_bytes(1 << 20);
    let context = TaskContext::default()
        .with_session_config(config)
        .with_runtime(runtime);
    let ordering = LexOrdering::new(keys).expect("keys");
    let first = inputs.iter().flatten().next();
    let schema = first.map_or_else(schema, RecordBatch::schema);
    let input = TestMemoryExec::try_new_exec(inputs, schema, None).expect("a source");
    let widths = Arc::<Widths>::default();
    let parts = sorted(input, ordering.clone(), widths.clone());
    let plan = merged(parts.clone(), ordering, Some(widths));
    let rows = plan.execute(0, Arc::new(context)).expect("a stream");
    let batches = rows.try_collect().await.expect("sorted rows");
    assert_eq!(budget.used(), 0);
    let files = parts.metrics().and_then(|metrics| metrics.spill_count());
    (batches, files.unwrap_or(0))
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let column = |batch: &RecordBatch| {
        batch
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .to_vec()
    };
    batches.iter().flat_map(column).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wide_rows_are_sorted_with_little_memory() {
    // Ten times the memory, and batches that are larger than it.
    for (rows, bytes) in [(160, 1 << 20), (1600, 100_000)] {
        let half = rows / PARTITIONS;
        let inputs: Vec<Vec<RecordBatch>> = (0..PARTITIONS)
            .map(|part| {
                let all = part * half..(part + 1) * half;
                let pieces = all.step_by(20 * (1 << 20) / bytes);
                let size = 20 * (1 << 20) / bytes;
                pieces
                    .map(|from| batch(from..(from + size).min((part + 1) * half), bytes))
                    .collect()
            })
            .collect();
        let total: usize = inputs.iter().flatten().map(RecordBatch::num_rows).sum();
        assert_eq!(total, rows);
        // By a number, by a text, and by both, which takes copies of the keys.
        for keys in [
            vec![by("n", 0)],
            vec![by("t", 1)],
            vec![by("t", 1), by("n", 0)],
        ] {
            let (sorted, files) = sort(&inputs, keys).await;
            let mut expected = numbers(&inputs.concat());
            expected.sort_unstable();
            assert_eq!(numbers(&sorted), expected);
            assert!(files > 0);
            let largest = sorted.iter().map(get_record_batch_memory_size).max();
            assert!(largest.is_some_and(|bytes| bytes <= 4 << 20), "{largest:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_few_wide_rows_come_late() {
    let narrow = (0..20).map(|n| batch(n * 1000..(n + 1) * 1000, 20));
    let wide = (0..40).map(|n| batch(20_000 + n..20_001 + n, 1 << 20));
    let inputs: Vec<Vec<RecordBatch>> = vec![narrow.chain(wide).collect(), vec![]];
    let (sorted, files) = sort(&inputs, vec![by("n", 0)]).await;
    let mut expected = numbers(&inputs.concat());
    expected.sort_unstable();
    assert_eq!(numbers(&sorted), expected);
    assert!(files > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn narrow_rows_are_sorted_in_whole_batches() {
    let inputs: Vec<Vec<RecordBatch>> = (0..PARTITIONS)
        .map(|part| vec![batch(part * 30_000..(part + 1) * 30_000, 5)])
        .collect();
    let (sorted, files) = sort(&inputs, vec![by("n", 0)]).await;
    let mut expected = numbers(&inputs.concat());
    expected.sort_unstable();
    assert_eq!(numbers(&sorted), expected);
    assert_eq!(files, 0);
    let first = sorted.first().map(RecordBatch::num_rows);
    assert_eq!(first, Some(BATCH_ROWS));
}

/// They neither take more memory than there is when they are sorted, nor come out a few at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn narrow_rows_beside_some_wide_ones_stay_in_large_batches() {
    const NARROW: usize = 4;
    let narrow = (0..NARROW).map(|n| batch(n * BATCH_ROWS..(n + 1) * BATCH_ROWS, 20));
    let first = NARROW * BATCH_ROWS;
    let wide = (0..100).map(|n| batch(first + n..first + n + 1, 100_000));
    // They are in batches with narrow ones, too.
    let first = first + 100;
    let both = batch(first..first + 10_000, 20);
    let both = [both, batch(first + 10_000..first + 10_001, 1 << 20)];
    let both = concat_batches(&schema(), &both).expect("a batch");
    let inputs: Vec<Vec<RecordBatch>> = vec![narrow.chain(wide).collect(), vec![both]];
    let (sorted, files) = sort(&inputs, vec![by("n", 0)]).await;
    let mut expected = numbers(&inputs.concat());
    expected.sort_unstable();
    assert_eq!(numbers(&sorted), expected);
    assert!(files > 0);
    assert!(sorted.len() < 400, "{} batches", sorted.len());
    let largest = sorted.iter().map(get_record_batch_memory_size).max();
    assert!(largest.is_some_and(|bytes| bytes <= 4 << 20), "{largest:?}");
}

/// A part of an array of lists has all of its elements, until it is copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wide_lists_are_cut() {
    let lists = |numbers: std::ops::Range<i64>| {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for n in numbers.clone() {
            lists.values().append_value(padded(n, 100_000));
            lists.append(true);
        }
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.map(|n| -n)));
        let lists: ArrayRef = Arc::new(lists.finish());
        RecordBatch::try_from_iter([("n", numbers), ("l", lists)]).expect("two columns")
    };
    let inputs = vec![vec![lists(0..200), lists(200..400)], vec![lists(400..500)]];
    let (sorted, files) = sort(&inputs, vec![by("n", 0)]).await;
    let mut expected = numbers(&inputs.concat());
    expected.sort_unstable();
    assert_eq!(numbers(&sorted), expected);
    for batch in &sorted {
        let lists = batch.column(1).as_list::<i32>();
        for (n, list) in numbers(std::slice::from_ref(batch))
            .iter()
            .zip(lists.iter())
        {
            let list = list.expect("a list");
            let text = list.as_string::<i32>().iter().next().flatten();
            assert_eq!(text.and_then(|text| text.parse::<i64>().ok()), Some(-n));
        }
    }
    assert!(files > 0);
}
