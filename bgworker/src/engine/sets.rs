//! Functions over the distinct values of a group.
//!
//! Pairs of a group and a value are kept until the group's result is asked for; the function itself gets the values
//! then. A state is the list of a group's values.

use super::aggregate::{LakeAggregate, States, only, taken};
use super::error::{internal, raise};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, LargeListArray, UInt64Array, new_empty_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UInt64Type};
use datafusion_common::Result;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The type of a list of values.
pub(super) fn list_of(value: DataType) -> DataType {
    DataType::LargeList(item(value))
}

pub(super) fn item(value: DataType) -> FieldRef {
    Arc::new(Field::new("item", value, true))
}

/// The values of all groups.
pub(super) struct Sets {
    /// What the values are for.
    function: LakeAggregate,
    value: DataType,
    schema: SchemaRef,
    /// Groups with values. Nobody waits for the lock: it only makes them `Sync`.
    pairs: Mutex<Box<dyn GroupValues>>,
    groups: usize,
    /// The number of each pair of a batch, which nobody needs.
    numbers: Vec<usize>,
}

/// Values that leave, and the group of each.
struct Taken {
    total: usize,
    groups: UInt64Array,
    values: ArrayRef,
}

impl Sets {
    pub(super) fn new(function: LakeAggregate, value: DataType) -> Result<Self> {
        let fields = vec![
            Field::new("group", DataType::UInt64, false),
            Field::new("value", value.clone(), true),
        ];
        let schema = Arc::new(Schema::new(fields));
        Ok(Sets {
            function,
            value,
            pairs: Mutex::new(empty(&schema)?),
            schema,
            groups: 0,
            numbers: vec![],
        })
    }

    fn pairs(&mut self) -> &mut Box<dyn GroupValues> {
        self.pairs.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&mut self, groups: UInt64Array, values: ArrayRef) -> Result<()> {
        let pairs = self.pairs.get_mut().unwrap_or_else(PoisonError::into_inner);
        pairs.intern(&[Arc::new(groups), values], &mut self.numbers)
    }

    fn take(&mut self, emit: EmitTo) -> Result<Taken> {
        let none = empty(&self.schema)?;
        let mut pairs = std::mem::replace(self.pairs(), none);
        let (groups, values) = if pairs.is_empty() {
            (
                UInt64Array::from(Vec::<u64>::new()),
                new_empty_array(&self.value),
            )
        } else {
            let columns = pairs.emit(EmitTo::All)?;
            let [groups, values] = columns.as_slice() else {
                return Err(raise(internal("a set of other columns")));
            };
            let Some(groups) = groups.as_primitive_opt::<UInt64Type>() else {
                return Err(raise(internal("a group isn't a number")));
            };
            (groups.clone(), values.clone())
        };
        let EmitTo::First(n) = emit else {
            return Ok(Taken {
                total: std::mem::take(&mut self.groups),
                groups,
                values,
            });
        };
        let first = n as u64;
        let stays = BooleanArray::from_unary(&groups, |group| group >= first);
        let later = compute::filter(&groups, &stays)?;
        let later = later.as_primitive::<UInt64Type>();
        let later: UInt64Array = later.unary(|group| group - first);
        self.insert(later, compute::filter(&values, &stays)?)?;
        self.groups = self.groups.saturating_sub(n);
        let leaves = compute::not(&stays)?;
        let groups = compute::filter(&groups, &leaves)?;
        Ok(Taken {
            total: n,
            groups: groups.as_primitive::<UInt64Type>().clone(),
            values: compute::filter(&values, &leaves)?,
        })
    }
}

fn empty(schema: &SchemaRef) -> Result<Box<dyn GroupValues>> {
    new_group_values(schema.clone(), &GroupOrdering::None)
}

impl fmt::Debug for Sets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sets")
            .field("function", &self.function)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl States for Sets {
    fn ensure(&mut self, groups: usize) {
        self.groups = self.groups.max(groups);
    }
}

impl GroupsAccumulator for Sets {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.ensure(total);
        let values = only(values)?;
        let numbers = UInt64Array::from_iter_values(groups.iter().map(|&group| group as u64));
        match taken(values.nulls(), filter) {
            None => self.insert(numbers, values.clone()),
            Some(rows) => {
                let rows = BooleanArray::new(rows, None);
                let numbers = compute::filter(&numbers, &rows)?;
                let numbers = numbers.as_primitive::<UInt64Type>().clone();
                self.insert(numbers, compute::filter(values, &rows)?)
            }
        }
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        _filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let Some(lists) = only(values)?.as_list_opt::<i64>() else {
            return Err(raise(internal("a state of another type")));
        };
        let mut each = vec![];
        for (&group, length) in groups.iter().zip(lists.offsets().lengths()) {
            each.extend(std::iter::repeat_n(group, length));
        }
        let start = lists.offsets().first().map_or(0, |offset| *offset as usize);
        let values = lists.values().slice(start, each.len());
        self.update_batch(&[values], &each, None, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let taken = self.take(emit)?;
        let groups: Vec<usize> = taken.groups.values().iter().map(|&g| g as usize).collect();
        let mut states = self.function.states()?;
        states.update_batch(&[taken.values], &groups, None, taken.total)?;
        states.evaluate(EmitTo::All)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let taken = self.take(emit)?;
        let mut lengths = vec![0; taken.total];
        for &group in taken.groups.values() {
            if let Some(length) = lengths.get_mut(group as usize) {
                *length += 1;
            }
        }
        let order = compute::sort_to_indices(&taken.groups, None, None)?;
        let values = compute::take(&taken.values, &order, None)?;
        let lists = LargeListArray::try_new(
            item(self.value.clone()),
            OffsetBuffer::from_lengths(lengths),
            values,
            None,
        )?;
        Ok(vec![Arc::new(lists)])
    }

    fn size(&self) -> usize {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.size() + self.numbers.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use pg_lake_plan::ir::{Aggregate, AggregateFunction, Expr, ExprKind};
    use pg_lake_plan::types::{LakeType, SqlType};

    fn distinct(function: AggregateFunction, arg: LakeType, ty: LakeType) -> Box<dyn States> {
        let sql = |lake| SqlType {
            lake,
            oid: 0,
            typmod: -1,
            collation: 0,
        };
        let aggregate = Aggregate {
            function,
            arg: Some(Expr {
                ty: sql(arg),
                kind: ExprKind::Column(0),
            }),
            filter: None,
            distinct: true,
            ty: sql(ty),
            order: vec![],
        };
        LakeAggregate::new(&aggregate).states().expect("states")
    }

    fn sums() -> Box<dyn States> {
        distinct(AggregateFunction::Sum, LakeType::Int4, LakeType::Int8)
    }

    fn ints(values: &[Option<i32>]) -> ArrayRef {
        Arc::new(Int32Array::from(values.to_vec()))
    }

    fn results(array: ArrayRef) -> Vec<Option<i64>> {
        let array = array.as_any().downcast_ref::<Int64Array>().expect("sums");
        array.iter().collect()
    }

    #[test]
    fn each_value_of_a_group_counts_once() {
        let mut states = sums();
        let values = ints(&[Some(1), Some(1), None, Some(2), Some(1), Some(7)]);
        let filter = BooleanArray::from(vec![true, true, true, true, true, false]);
        states
            .update_batch(&[values], &[0, 0, 0, 0, 1, 1], Some(&filter), 3)
            .expect("update");
        let sums = states.evaluate(EmitTo::All).expect("sums");
        assert_eq!(results(sums), [Some(3), Some(1), None]);
    }

    #[test]
    fn the_first_groups_leave_and_the_others_move_up() {
        let mut states = sums();
        let values = ints(&[Some(1), Some(2), Some(3), Some(3)]);
        states
            .update_batch(&[values], &[0, 1, 2, 2], None, 3)
            .expect("update");
        let first = states.evaluate(EmitTo::First(2)).expect("sums");
        assert_eq!(results(first), [Some(1), Some(2)]);
        states
            .update_batch(&[ints(&[Some(3), Some(4)])], &[0, 1], None, 2)
            .expect("update");
        let rest = states.evaluate(EmitTo::All).expect("sums");
        assert_eq!(results(rest), [Some(3), Some(4)]);
    }

    #[test]
    fn states_meet() {
        let count = || distinct(AggregateFunction::Count, LakeType::Text, LakeType::Int8);
        let (mut one, mut two, mut whole) = (count(), count(), count());
        let texts = |values: &[&str]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
        one.update_batch(&[texts(&["a", "b", "c"])], &[1, 0, 1], None, 3)
            .expect("update");
        two.update_batch(&[texts(&["c", "d"])], &[0, 0], None, 1)
            .expect("update");
        let state = one.state(EmitTo::All).expect("a state");
        whole
            .merge_batch(&state, &[0, 1, 2], None, 3)
            .expect("merge");
        let state = two.state(EmitTo::All).expect("a state");
        whole.merge_batch(&state, &[1], None, 3).expect("merge");
        assert!(whole.size() > 0);
        let counts = whole.evaluate(EmitTo::All).expect("counts");
        assert_eq!(results(counts), [Some(1), Some(3), Some(0)]);
        let none = whole.evaluate(EmitTo::All).expect("counts");
        assert!(results(none).is_empty());
    }
}
