//! What a join tells the scans below its passing side: the keys that its kept side has.
//!
//! Rows of the passing side that have no partner must not come out, and aren't evaluated. A kept side that is spread tells
//! its bounds when all of its parts are there, one that doesn't fit into memory tells nothing.

use super::bloom::VALUES_MAX;
use super::dynamic::{DynamicFilter, Sought, Wanted};
use super::handed::locked;
use super::lower::Lowering;
use super::members::Members;
use super::origin::origins;
use super::prune::{Key, Span};
use super::values::{Native, native};
use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::{max_string, min_string};
use arrow::record_batch::RecordBatch;
use datafusion_execution::memory_pool::MemoryPool;
use pg_lake_plan::ir::{Expr, Join, JoinKind, Plan};
use pg_lake_plan::types::LakeType;
use std::sync::{Arc, Mutex};

/// A kept side without a condition is likely to have a partner for every row: more of its keys are not told one by one.
const KEYS_OF_ALL_MAX: usize = 65_536;

/// Of more texts the bounds aren't looked for.
const TEXTS_MAX: usize = 65_536;

/// What texts that are told one by one are long together: they are copies, which no pool accounts for.
const FEW_BYTES_MAX: usize = 1 << 20;

/// What one key of a join tells.
#[derive(Debug)]
pub(super) struct KeyFilter {
    /// Of the join's keys.
    pub(super) key: usize,
    filter: Arc<DynamicFilter>,
    /// The kept side has only some rows of its tables.
    chosen: bool,
    parts: Mutex<Parts>,
}

/// The parts of a kept side that are there.
#[derive(Debug, Default)]
struct Parts {
    count: usize,
    span: Option<Span>,
    /// The bounds of one of them aren't known.
    unknown: bool,
}

impl Lowering {
    /// Has the scans below the passing side sought for. Before it is lowered.
    pub(super) fn key_filters(&mut self, join: &Join) -> Vec<KeyFilter> {
        // As `partners` decides where there are keys.
        let keeps_left = join.left_rows < join.right_rows;
        let drops = match join.kind {
            JoinKind::Inner | JoinKind::Semi => true,
            JoinKind::Left | JoinKind::Anti => keeps_left,
            JoinKind::Full | JoinKind::NullAwareAnti | JoinKind::Mark | JoinKind::NullAwareMark => {
                false
            }
        };
        let (kept, passing) = if keeps_left {
            (&join.left, &join.right)
        } else {
            (&join.right, &join.left)
        };
        let keys = join.keys.iter();
        let passing_keys: Vec<&Expr> = keys
            .map(|key| if keeps_left { &key.right } else { &key.left })
            .collect();
        if !drops || passing_keys.iter().any(|key| key.can_fail()) {
            return vec![];
        }
        // What operators further above have no use for isn't kept either.
        let mut tables = kept.scans().into_iter().map(|scan| scan.table);
        let chosen = chooses(kept) || tables.any(|table| self.sought.contains_key(&table));
        let mut filters = vec![];
        for (key, expr) in passing_keys.into_iter().enumerate() {
            let filter = Arc::new(DynamicFilter::default());
            if self.seek(passing, expr, &filter) {
                filters.push(KeyFilter {
                    key,
                    filter,
                    chosen,
                    parts: Mutex::default(),
                });
            }
        }
        filters
    }

    /// Has rows dropped by the scans that an expression over a plan's output comes from. Returns whether there are any.
    pub(super) fn seek(&mut self, plan: &Plan, expr: &Expr, filter: &Arc<DynamicFilter>) -> bool {
        let mut origins = origins(plan, expr);
        origins.retain(|origin| has_bounds(&origin.ty));
        let any = !origins.is_empty();
        for origin in origins {
            let sought = Sought::new(origin.column, origin.ty, filter.clone());
            self.sought.entry(origin.table).or_default().push(sought);
        }
        any
    }
}

/// Types whose values lie between bounds. Floats don't: NaN, −0.0.
fn has_bounds(ty: &LakeType) -> bool {
    is_number(ty) || *ty == LakeType::Text
}

/// Types with whole numbers as values, in their order.
pub(super) fn is_number(ty: &LakeType) -> bool {
    use LakeType::*;
    matches!(
        ty,
        Int2 | Int4 | Int8 | Date | Time | Timestamp | Timestamptz | Decimal { .. }
    )
}

/// Whether a plan leaves out rows of its tables.
fn chooses(plan: &Plan) -> bool {
    match plan {
        Plan::Scan(scan) => scan.predicate.is_some(),
        Plan::Project { input, .. }
        | Plan::Sort {
            input, fetch: None, ..
        } => chooses(input),
        _ => true,
    }
}

impl KeyFilter {
    /// Takes in one of so many parts of a kept side, which is complete, and has the key in one of its columns.
    pub(super) fn add(
        &self,
        batches: &[RecordBatch],
        column: usize,
        parts: usize,
        pool: &Arc<dyn MemoryPool>,
    ) {
        let keys: Vec<&ArrayRef> = batches
            .iter()
            .filter_map(|batch| batch.columns().get(column))
            .collect();
        let span = span(&keys);
        let mut known = locked(&self.parts);
        known.count += 1;
        match span {
            Some(span) => known.take_in(span),
            None => known.unknown = true,
        }
        if known.count < parts || known.unknown {
            return;
        }
        let span = known.span.take().unwrap_or_default();
        let (members, few) = if parts == 1 {
            (self.members(&keys, &span, pool), few(&keys))
        } else {
            (None, None)
        };
        self.filter.set(Wanted { span, members, few });
    }

    fn members(
        &self,
        keys: &[&ArrayRef],
        span: &Span,
        pool: &Arc<dyn MemoryPool>,
    ) -> Option<Members> {
        let count: usize = keys.iter().map(|key| key.len()).sum();
        if !self.chosen && count > KEYS_OF_ALL_MAX {
            return None;
        }
        match (&span.least, &span.largest) {
            (Some(Key::Number(least)), Some(Key::Number(largest))) => {
                Members::new(keys, (*least, *largest), pool)
            }
            _ => None,
        }
    }
}

impl Parts {
    fn take_in(&mut self, span: Span) {
        let known = match self.span.take() {
            Some(known) if !known.empty => known,
            _ => {
                self.span = Some(span);
                return;
            }
        };
        if span.empty {
            self.span = Some(known);
            return;
        }
        self.span = Some(Span {
            least: known.least.min(span.least),
            largest: known.largest.max(span.largest),
            ..known
        });
    }
}

/// From the least to the largest key; `None` if these aren't known.
fn span(keys: &[&ArrayRef]) -> Option<Span> {
    let rows: usize = keys.iter().map(|key| key.len()).sum();
    let mut ends: Option<(Key, Key)> = None;
    for key in keys {
        if key.null_count() == key.len() {
            continue;
        }
        let (least, largest) = bounds(key, rows)?;
        ends = Some(match ends {
            None => (least, largest),
            Some((low, high)) => (low.min(least), high.max(largest)),
        });
    }
    Some(match ends {
        None => Span {
            empty: true,
            ..Span::default()
        },
        Some((least, largest)) => Span {
            least: Some(least),
            largest: Some(largest),
            ..Span::default()
        },
    })
}

/// All keys, if they are so few, and so short, that Bloom filters can be asked for them.
fn few(keys: &[&ArrayRef]) -> Option<Vec<Key>> {
    let rows: usize = keys.iter().map(|key| key.len()).sum();
    if rows > VALUES_MAX {
        return None;
    }
    let mut room = FEW_BYTES_MAX;
    let mut few = vec![];
    for &key in keys {
        match key.as_any().downcast_ref::<StringArray>() {
            Some(texts) => {
                for text in texts.iter().flatten() {
                    room = room.checked_sub(text.len())?;
                    few.push(Key::Bytes(text.as_bytes().to_vec()));
                }
            }
            None => match native(key)? {
                Native::I32(values) => few.extend(numbers(key, values)),
                Native::I64(values) => few.extend(numbers(key, values)),
                Native::I128(values) => few.extend(numbers(key, values)),
                Native::F32(_) | Native::F64(_) => return None,
            },
        }
    }
    Some(few)
}

/// Those that aren't null.
fn numbers<'a, T: Copy + Into<i128>>(
    key: &'a ArrayRef,
    values: &'a [T],
) -> impl Iterator<Item = Key> + 'a {
    let valid = values.iter().enumerate();
    let valid = valid.filter(move |(row, _)| key.is_valid(*row));
    valid.map(|(_, value)| Key::Number((*value).into()))
}

/// Of an array of which not all is null; `rows` are all that are looked at.
fn bounds(key: &ArrayRef, rows: usize) -> Option<(Key, Key)> {
    if let Some(texts) = key.as_any().downcast_ref::<StringArray>() {
        if rows > TEXTS_MAX {
            return None;
        }
        let bytes = |text: &str| Key::Bytes(text.as_bytes().to_vec());
        return Some((bytes(min_string(texts)?), bytes(max_string(texts)?)));
    }
    match native(key)? {
        Native::I32(values) => extremes(key, values),
        Native::I64(values) => extremes(key, values),
        Native::I128(values) => extremes(key, values),
        Native::F32(_) | Native::F64(_) => None,
    }
}

fn extremes<T: Copy + Ord + Into<i128>>(key: &ArrayRef, values: &[T]) -> Option<(Key, Key)> {
    let number = |value: T| Key::Number(value.into());
    let Some(nulls) = key.nulls().filter(|nulls| nulls.null_count() > 0) else {
        let (least, largest) = (values.iter().min()?, values.iter().max()?);
        return Some((number(*least), number(*largest)));
    };
    let valid = || nulls.valid_indices().filter_map(move |row| values.get(row));
    Some((number(*valid().min()?), number(*valid().max()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Decimal128Array, Int32Array, Int64Array};

    fn ends(arrays: &[ArrayRef]) -> Option<(Option<Key>, Option<Key>, bool)> {
        let arrays: Vec<&ArrayRef> = arrays.iter().collect();
        span(&arrays).map(|span| (span.least, span.largest, span.empty))
    }

    fn numbers(least: i128, largest: i128) -> Option<(Option<Key>, Option<Key>, bool)> {
        let number = |n| Some(Key::Number(n));
        Some((number(least), number(largest), false))
    }

    #[test]
    fn nulls_are_no_bounds() {
        let some: ArrayRef = Arc::new(Int32Array::from(vec![Some(7), None, Some(-7)]));
        let none: ArrayRef = Arc::new(Int32Array::new_null(3));
        let more: ArrayRef = Arc::new(Int32Array::from(vec![9]));
        let all = [none.clone(), some, more];
        assert_eq!(ends(&all), numbers(-7, 9));
        assert_eq!(ends(&[none]), Some((None, None, true)));
        assert_eq!(ends(&[]), Some((None, None, true)));
    }

    #[test]
    fn bounds_are_those_of_types_with_an_order() {
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN]));
        assert_eq!(ends(&[wide]), numbers(i64::MIN.into(), i64::MAX.into()));
        let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![5, 1 << 100]));
        assert_eq!(ends(&[decimals]), numbers(5, 1 << 100));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None, Some("a")]));
        let bytes = |text: &str| Some(Key::Bytes(text.into()));
        assert_eq!(ends(&[texts]), Some((bytes("a"), bytes("b"), false)));
        let booleans: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        assert_eq!(ends(&[booleans]), None);
    }

    #[test]
    fn few_keys_are_told_one_by_one() {
        let some: ArrayRef = Arc::new(Int32Array::from(vec![Some(7), None, Some(-7)]));
        let more: ArrayRef = Arc::new(Int32Array::from(vec![9]));
        let number = |n: i128| Key::Number(n);
        let expected = vec![number(7), number(-7), number(9)];
        assert_eq!(few(&[&some, &more]), Some(expected));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None]));
        assert_eq!(few(&[&texts]), Some(vec![Key::Bytes(b"b".to_vec())]));
        let many: ArrayRef = Arc::new(Int64Array::from_iter_values(0..=VALUES_MAX as i64));
        assert_eq!(few(&[&many]), None);
        let booleans: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        assert_eq!(few(&[&booleans]), None);
        assert_eq!(few(&[]), Some(vec![]));
        let half = "x".repeat(FEW_BYTES_MAX / 2);
        let long: ArrayRef = Arc::new(StringArray::from(vec![half.as_str(), half.as_str()]));
        assert_eq!(few(&[&long]).map(|few| few.len()), Some(2));
        assert_eq!(few(&[&long, &texts]), None);
    }

    #[test]
    fn parts_are_taken_together() {
        let span = |ends: Option<(i128, i128)>| Span {
            least: ends.map(|ends| Key::Number(ends.0)),
            largest: ends.map(|ends| Key::Number(ends.1)),
            empty: ends.is_none(),
            nulls: false,
        };
        let mut parts = Parts::default();
        for ends in [None, Some((3, 4)), None, Some((-1, 2))] {
            parts.take_in(span(ends));
        }
        let all = parts.span.expect("bounds");
        assert_eq!(all.least, Some(Key::Number(-1)));
        assert_eq!(all.largest, Some(Key::Number(4)));
        assert!(!all.empty);
    }
}
