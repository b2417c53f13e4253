//! Functions over the ordered values of a group: percentiles, `mode` and `array_agg`.
//!
//! The values of all groups are kept, with what they are ordered by, and sorted when results are asked for. A state is
//! the list of a group's values, and one for each thing that they are ordered by.

use super::aggregate::{States, taken};
use super::compare::canonical;
use super::error::{internal, not_exact, raise};
use super::join_input::compact_array;
use super::picks::{Sorted, bytes_of, continuous, discrete, most_frequent, pick};
use super::sets::{item, list_of};
use crate::arrow_types::arrow_type;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, LargeListArray, ListArray, UInt64Array, new_empty_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{self, SortColumn, SortOptions};
use arrow::datatypes::{DataType, UInt64Type};
use datafusion_common::Result;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use pg_lake_plan::ir::{Aggregate, AggregateFunction, SortKey};
use pg_lake_plan::types::LakeType;
use std::sync::Arc;

/// A list of more bytes is left to Postgres, where it may be too large for a datum.
const LIST_BYTES_MAX: usize = 256 << 20;

/// What is kept of each value: itself, and what it is ordered by, where that is something else. Floats are ordered by their
/// canonical values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Order {
    columns: Vec<LakeType>,
    /// Columns to sort by.
    keys: Vec<(usize, SortOptions)>,
}

impl Order {
    pub(super) fn of(aggregate: &Aggregate) -> Self {
        let value = aggregate.arg.iter().map(|arg| arg.ty.lake.clone());
        let mut columns: Vec<LakeType> = value.collect();
        let mut keys = vec![];
        for key in &aggregate.order {
            let options = SortOptions {
                descending: key.descending,
                nulls_first: key.nulls_first,
            };
            if is_value(aggregate, key) {
                keys.push((0, options));
            } else {
                keys.push((columns.len(), options));
                columns.push(key.expr.ty.lake.clone());
            }
        }
        Order { columns, keys }
    }

    /// Types of the columns of a state.
    pub(super) fn state_types(&self) -> Vec<DataType> {
        let columns = self.columns.iter();
        columns.map(|ty| list_of(arrow_type(ty))).collect()
    }
}

/// The keys that aren't the value itself.
pub(super) fn other_keys(aggregate: &Aggregate) -> impl Iterator<Item = &SortKey> {
    let keys = aggregate.order.iter();
    keys.filter(move |key| !is_value(aggregate, key))
}

fn is_value(aggregate: &Aggregate, key: &SortKey) -> bool {
    aggregate.arg.as_ref() == Some(&key.expr)
}

/// The values of all groups.
#[derive(Debug)]
pub(super) struct OrderedValues {
    function: AggregateFunction,
    order: Order,
    result: DataType,
    parts: Vec<Part>,
    groups: usize,
    /// What the parts take.
    bytes: usize,
}

/// Some values, and the group of each.
#[derive(Debug)]
struct Part {
    groups: UInt64Array,
    columns: Vec<ArrayRef>,
}

impl Part {
    fn bytes(&self) -> usize {
        let columns = self.columns.iter();
        let bytes: usize = columns.map(|column| column.get_array_memory_size()).sum();
        bytes + self.groups.get_array_memory_size()
    }

    fn filter(&self, rows: &BooleanArray) -> Result<Part> {
        let groups = compute::filter(&self.groups, rows)?;
        let mut columns = vec![];
        for column in &self.columns {
            columns.push(compute::filter(column, rows)?);
        }
        Ok(Part {
            groups: groups.as_primitive::<UInt64Type>().clone(),
            columns,
        })
    }
}

/// Values that leave.
struct Taken {
    total: usize,
    part: Part,
}

impl OrderedValues {
    pub(super) fn new(function: AggregateFunction, order: Order, result: DataType) -> Self {
        OrderedValues {
            function,
            order,
            result,
            parts: vec![],
            groups: 0,
            bytes: 0,
        }
    }

    fn add(&mut self, part: Part) -> Result<()> {
        if part.groups.is_empty() {
            return Ok(());
        }
        let columns = part.columns.into_iter();
        let columns = columns
            .map(compact_array)
            .collect::<std::result::Result<_, _>>();
        let part = Part {
            groups: part.groups,
            columns: columns.map_err(raise)?,
        };
        self.bytes += part.bytes();
        self.parts.push(part);
        Ok(())
    }

    /// All values that are kept, in one part.
    fn take_all(&mut self) -> Result<Part> {
        let parts = std::mem::take(&mut self.parts);
        self.bytes = 0;
        if parts.is_empty() {
            let columns = self.order.columns.iter();
            return Ok(Part {
                groups: UInt64Array::from(Vec::<u64>::new()),
                columns: columns.map(|ty| new_empty_array(&arrow_type(ty))).collect(),
            });
        }
        let groups: Vec<&dyn Array> = parts
            .iter()
            .map(|part| &part.groups as &dyn Array)
            .collect();
        let groups = compute::concat(&groups)?;
        let mut columns = vec![];
        for at in 0..self.order.columns.len() {
            let each = parts.iter().filter_map(|part| part.columns.get(at));
            let each: Vec<&dyn Array> = each.map(|column| column.as_ref()).collect();
            columns.push(compute::concat(&each)?);
        }
        Ok(Part {
            groups: groups.as_primitive::<UInt64Type>().clone(),
            columns,
        })
    }

    fn take(&mut self, emit: EmitTo) -> Result<Taken> {
        let all = self.take_all()?;
        let EmitTo::First(n) = emit else {
            return Ok(Taken {
                total: std::mem::take(&mut self.groups),
                part: all,
            });
        };
        let first = n as u64;
        let stays = BooleanArray::from_unary(&all.groups, |group| group >= first);
        let later = all.filter(&stays)?;
        self.add(Part {
            groups: later.groups.unary(|group| group - first),
            columns: later.columns,
        })?;
        self.groups = self.groups.saturating_sub(n);
        Ok(Taken {
            total: n,
            part: all.filter(&compute::not(&stays)?)?,
        })
    }

    /// `by_keys`: also within each group.
    fn sort(&self, taken: Taken, by_keys: bool) -> Result<Sorted> {
        let Taken { total, part } = taken;
        if u32::try_from(part.groups.len()).is_err() {
            return Err(raise(not_exact("too many values to sort in one place")));
        }
        let mut starts = vec![0; total + 1];
        for &group in part.groups.values() {
            if let Some(count) = starts.get_mut(group as usize + 1) {
                *count += 1;
            }
        }
        let mut end = 0;
        for start in &mut starts {
            end += *start;
            *start = end;
        }
        let groups: ArrayRef = Arc::new(part.groups);
        let mut by = vec![SortColumn {
            values: groups.clone(),
            options: None,
        }];
        for (column, options) in self.order.keys.iter().filter(|_| by_keys) {
            by.extend(part.columns.get(*column).map(|values| SortColumn {
                values: canonical(values),
                options: Some(*options),
            }));
        }
        let order = compute::lexsort_to_indices(&by, None)?;
        drop(by);
        let mut columns = vec![];
        for column in &part.columns {
            columns.push(compute::take(column, &order, None)?);
        }
        Ok(Sorted {
            starts,
            groups: compute::take(&groups, &order, None)?,
            columns,
        })
    }

    fn results(&self, sorted: &Sorted) -> Result<ArrayRef> {
        match self.function {
            AggregateFunction::PercentileDisc(share) => {
                let groups = sorted.groups();
                let picks = groups.map(|group| discrete(share, &group)).collect();
                pick(sorted, picks)
            }
            AggregateFunction::PercentileCont(share) => continuous(share, sorted),
            AggregateFunction::Mode => {
                let key = self.order.keys.first();
                let key = key.and_then(|(column, _)| sorted.columns.get(*column));
                let key = key.ok_or_else(|| raise(internal("a mode of unordered values")))?;
                pick(sorted, most_frequent(sorted, &canonical(key))?)
            }
            AggregateFunction::ArrayAgg => self.lists(sorted),
            _ => Err(raise(internal("another function of ordered values"))),
        }
    }

    fn lists(&self, sorted: &Sorted) -> Result<ArrayRef> {
        let values = sorted.values()?;
        let DataType::List(field) = &self.result else {
            return Err(raise(internal("lists for another type")));
        };
        if i32::try_from(values.len()).is_err() {
            return Err(raise(not_exact("too many values for lists")));
        }
        if bytes_of(values, 0..values.len())? > LIST_BYTES_MAX {
            for group in sorted.groups() {
                if bytes_of(values, group)? > LIST_BYTES_MAX {
                    return Err(raise(not_exact("a list is too large")));
                }
            }
        }
        let lengths: Vec<usize> = sorted.groups().map(|group| group.len()).collect();
        let filled: Vec<bool> = lengths.iter().map(|length| *length > 0).collect();
        let lists = ListArray::try_new(
            field.clone(),
            OffsetBuffer::from_lengths(lengths),
            values.clone(),
            Some(NullBuffer::from(filled)),
        )?;
        Ok(Arc::new(lists))
    }
}

impl States for OrderedValues {
    fn ensure(&mut self, groups: usize) {
        self.groups = self.groups.max(groups);
    }
}

impl GroupsAccumulator for OrderedValues {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.ensure(total);
        let Some(columns) = values.get(..self.order.columns.len()) else {
            return Err(raise(internal("an ordered aggregate without its columns")));
        };
        let part = Part {
            groups: UInt64Array::from_iter_values(groups.iter().map(|&group| group as u64)),
            columns: columns.to_vec(),
        };
        let with_nulls = self.function == AggregateFunction::ArrayAgg;
        let nulls = columns.first().and_then(|values| values.nulls());
        match taken(nulls.filter(|_| !with_nulls), filter) {
            None => self.add(part),
            Some(rows) => self.add(part.filter(&BooleanArray::new(rows, None))?),
        }
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        _filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.ensure(total);
        let mut part = Part {
            groups: UInt64Array::from(Vec::<u64>::new()),
            columns: vec![],
        };
        for column in values {
            let Some(lists) = column.as_list_opt::<i64>() else {
                return Err(raise(internal("a state of another type")));
            };
            let start = lists.offsets().first().map_or(0, |offset| *offset as usize);
            let end = lists.offsets().last().map_or(0, |offset| *offset as usize);
            if part.columns.is_empty() {
                let mut each = vec![];
                for (&group, length) in groups.iter().zip(lists.offsets().lengths()) {
                    each.extend(std::iter::repeat_n(group as u64, length));
                }
                part.groups = UInt64Array::from(each);
            }
            if end.saturating_sub(start) != part.groups.len() {
                return Err(raise(internal("lists of a state that differ in length")));
            }
            part.columns.push(lists.values().slice(start, end - start));
        }
        if part.columns.len() != self.order.columns.len() {
            return Err(raise(internal("a state of other columns")));
        }
        self.add(part)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let taken = self.take(emit)?;
        let sorted = self.sort(taken, true)?;
        self.results(&sorted)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let taken = self.take(emit)?;
        let sorted = self.sort(taken, false)?;
        let lengths: Vec<usize> = sorted.groups().map(|group| group.len()).collect();
        let mut states: Vec<ArrayRef> = vec![];
        for values in &sorted.columns {
            let lists = LargeListArray::try_new(
                item(values.data_type().clone()),
                OffsetBuffer::from_lengths(lengths.iter().copied()),
                values.clone(),
                None,
            )?;
            states.push(Arc::new(lists));
        }
        Ok(states)
    }

    /// Three times: what is sorted is copied, and rows are sorted by their numbers.
    fn size(&self) -> usize {
        self.bytes.saturating_mul(3) + self.parts.capacity() * size_of::<Part>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::wire;
    use super::*;
    use arrow::array::{Float64Array, Int32Array, StringArray};
    use arrow::datatypes::{Field, Float64Type, Int32Type};
    use pg_lake_plan::ir::Fraction;
    use pg_lake_plan::message::ErrorCode;

    /// Values in column 0, ordered by column `key`.
    fn states(
        function: AggregateFunction,
        columns: Vec<LakeType>,
        key: usize,
        descending: bool,
    ) -> OrderedValues {
        let result = match function {
            AggregateFunction::ArrayAgg => DataType::List(Arc::new(Field::new(
                "element",
                arrow_type(&columns[0]),
                true,
            ))),
            _ => arrow_type(&columns[0]),
        };
        let options = SortOptions {
            descending,
            nulls_first: descending,
        };
        let order = Order {
            columns,
            keys: vec![(key, options)],
        };
        OrderedValues::new(function, order, result)
    }

    fn ints(values: &[Option<i32>]) -> ArrayRef {
        Arc::new(Int32Array::from(values.to_vec()))
    }

    fn numbers(array: &ArrayRef) -> Vec<Option<i32>> {
        array.as_primitive::<Int32Type>().iter().collect()
    }

    /// Of floats in one group.
    fn of_floats(function: AggregateFunction, values: Vec<f64>) -> Result<Option<f64>> {
        let mut states = states(function, vec![LakeType::Float8], 0, false);
        let groups = vec![0; values.len()];
        let values: ArrayRef = Arc::new(Float64Array::from(values));
        states.update_batch(&[values], &groups, None, 1)?;
        let results = states.evaluate(EmitTo::All)?;
        let results = results.as_primitive::<Float64Type>();
        Ok(results.iter().next().flatten())
    }

    #[test]
    fn discrete_percentiles_and_modes_of_groups() {
        let values = [5, 1, 3, 3, 1, 9, 7].map(Some);
        let groups = [0, 0, 0, 0, 0, 2, 2];
        let share = |share| AggregateFunction::PercentileDisc(Fraction::new(share));
        for (function, descending, expected) in [
            (share(0.0), false, [Some(1), None, Some(7)]),
            (share(0.5), false, [Some(3), None, Some(7)]),
            (share(0.6), false, [Some(3), None, Some(9)]),
            (share(1.0), false, [Some(5), None, Some(9)]),
            (share(0.5), true, [Some(3), None, Some(9)]),
            (AggregateFunction::Mode, false, [Some(1), None, Some(7)]),
            (AggregateFunction::Mode, true, [Some(3), None, Some(9)]),
        ] {
            let new = || states(function, vec![LakeType::Int4], 0, descending);
            let (mut one, mut two) = (new(), new());
            one.update_batch(&[ints(&values)], &groups, None, 3)
                .expect("update");
            let state = one.state(EmitTo::All).expect("a state");
            assert_eq!(one.bytes, 0);
            two.merge_batch(&state, &[0, 1, 2], None, 3).expect("merge");
            two.update_batch(&[ints(&[None])], &[1], None, 3)
                .expect("nulls");
            let results = two.evaluate(EmitTo::All).expect("results");
            assert_eq!(numbers(&results), expected, "{function:?}");
        }
    }

    #[test]
    fn percentiles_between_two_values() {
        let share = |share| AggregateFunction::PercentileCont(Fraction::new(share));
        let values = || vec![10.0, -2.0, 1.0, 4.0];
        for (function, expected) in [(share(0.5), 2.5), (share(0.25), 0.25), (share(1.0), 10.0)] {
            let result = of_floats(function, values()).expect("a result");
            assert_eq!(result, Some(expected), "{function:?}");
        }
        assert_eq!(of_floats(share(0.5), vec![]).expect("a result"), None);
    }

    #[test]
    fn zeros_of_both_signs_are_not_exact() {
        let share = |share| AggregateFunction::PercentileDisc(Fraction::new(share));
        let zeros = || vec![1.0, -0.0, 2.0, 0.0];
        for function in [share(0.0), AggregateFunction::Mode] {
            let error = of_floats(function, zeros()).expect_err("two zeros");
            assert_eq!(wire(&error).code, ErrorCode::NotExact);
        }
        let above = of_floats(share(0.9), zeros()).expect("a result");
        assert_eq!(above, Some(2.0));
        let zero = of_floats(share(0.0), vec![1.0, -0.0]).expect("a result");
        assert!(zero.is_some_and(|zero| zero.is_sign_negative()));
    }

    #[test]
    fn lists_are_ordered_by_another_column() {
        let columns = vec![LakeType::Text, LakeType::Int4];
        let mut states = states(AggregateFunction::ArrayAgg, columns, 1, false);
        let texts = vec![Some("c"), None, Some("a"), Some("z"), Some("b")];
        let texts: ArrayRef = Arc::new(StringArray::from(texts));
        let keys = ints(&[Some(3), Some(2), Some(1), Some(7), None]);
        let filter = BooleanArray::from(vec![true, true, true, false, true]);
        states
            .update_batch(&[texts, keys], &[0, 0, 0, 1, 2], Some(&filter), 3)
            .expect("update");
        let first = states.evaluate(EmitTo::First(1)).expect("a list");
        let list = first.as_list::<i32>().value(0);
        let list: Vec<Option<&str>> = list.as_string::<i32>().iter().collect();
        assert_eq!(list, [Some("a"), None, Some("c")]);
        let rest = states.evaluate(EmitTo::All).expect("lists");
        assert!(rest.is_null(0));
        let list = rest.as_list::<i32>().value(1);
        assert_eq!(list.as_string::<i32>().value(0), "b");
        assert_eq!(states.size(), 0);
    }
}
