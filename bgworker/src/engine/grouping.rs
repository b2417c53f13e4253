//! Grouping sets.
//!
//! DataFusion groups the rows of a batch once for each set, and tells the sets apart by a column after the groups: a bit
//! for each group that the set doesn't have, that of the last one is the lowest, and above them how many times the same set
//! was there before.

use super::aggregate::LakeAggregate;
use super::error::{from_arrow, internal, protocol, unsupported};
use super::group::Functions;
use super::lower::{Lowering, Operator, check};
use super::steps::{Pass, Passed, Step, stepping};
use arrow::array::{ArrayRef, AsArray, Int32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion_common::{Result as DfResult, ScalarValue};
use datafusion_execution::TaskContext;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Literal;
use datafusion_physical_plan::aggregates::PhysicalGroupBy;
use pg_lake_plan::ir::{Aggregate, Expr};
use pg_lake_plan::message::WireError;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// So many groups leave room in the number above.
const GROUPS_MAX: usize = 32;

/// What Postgres allows.
const SETS_MAX: usize = 4096;

impl Lowering {
    /// `many`: what partitions have meets in several threads.
    pub(super) fn aggregate_sets(
        &self,
        input: Operator,
        groups: &[Expr],
        aggregates: &[Aggregate],
        sets: &[Vec<u32>],
        many: bool,
    ) -> Result<Operator, WireError> {
        let schema = input.schema();
        let (mut keys, mut nulls) = (vec![], vec![]);
        for (i, group) in groups.iter().enumerate() {
            let key = self.key(group, &schema)?;
            let ty = check(key.data_type(&schema))?;
            let null = check(ScalarValue::try_new_null(&ty))?;
            let null: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(null));
            keys.push((key, format!("g{i}")));
            nulls.push((null, format!("g{i}")));
        }
        let missing: Vec<Vec<bool>> = sets.iter().map(|set| missing(set, groups.len())).collect();
        let ids = ids(&missing);
        let group_by = PhysicalGroupBy::new(keys, nulls, missing, true);
        let mut functions = Functions::new(schema);
        for aggregate in aggregates {
            functions.add(self, LakeAggregate::new(aggregate), aggregate)?;
        }
        let spread = many.then_some(groups.len() + 1);
        let grouped = self.grouped(input, group_by, &functions, spread)?;
        let numbered = Numbered::new(&grouped.schema(), groups.len(), ids);
        Ok(stepping(grouped, Arc::new(numbered)))
    }
}

/// Which of the groups a set doesn't have.
fn missing(set: &[u32], groups: usize) -> Vec<bool> {
    (0u32..)
        .take(groups)
        .map(|group| !set.contains(&group))
        .collect()
}

/// The number of each set by what DataFusion calls it.
fn ids(sets: &[Vec<bool>]) -> HashMap<u64, i32> {
    let mut known: HashMap<u64, u64> = HashMap::new();
    let mut ids = HashMap::new();
    for (number, missing) in (0..).zip(sets) {
        let bits = (missing.iter()).fold(0, |bits, missing| (bits << 1) | u64::from(*missing));
        let before = known.entry(bits).or_default();
        ids.insert(bits | (*before << missing.len()), number);
        *before += 1;
    }
    ids
}

/// Puts the number of the set after the functions.
#[derive(Debug)]
struct Numbered {
    ids: HashMap<u64, i32>,
    /// Before the column that tells the sets apart.
    groups: usize,
    schema: SchemaRef,
}

impl Numbered {
    fn new(input: &Schema, groups: usize, ids: HashMap<u64, i32>) -> Self {
        let fields = input.fields().iter().enumerate();
        let mut fields: Vec<Field> = fields
            .filter(|(at, _)| *at != groups)
            .map(|(_, field)| field.as_ref().clone())
            .collect();
        fields.push(Field::new("set", DataType::Int32, false));
        Numbered {
            ids,
            groups,
            schema: Arc::new(Schema::new(fields)),
        }
    }

    fn numbers(&self, ids: &ArrayRef) -> Result<ArrayRef, WireError> {
        let ids = compute::cast(ids, &DataType::UInt64).map_err(|e| from_arrow(&e))?;
        let ids = ids.as_primitive::<UInt64Type>();
        let numbers = ids.values().iter().map(|id| self.ids.get(id).copied());
        let numbers: Option<Vec<i32>> = numbers.collect();
        let numbers = numbers.ok_or_else(|| internal("a grouping set that isn't known"))?;
        Ok(Arc::new(Int32Array::from(numbers)))
    }
}

impl Step for Numbered {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupingSets: sets={}", self.ids.len())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn start(self: Arc<Self>, _context: &TaskContext) -> DfResult<Box<dyn Pass>> {
        Ok(Box::new(Numbering(self)))
    }
}

struct Numbering(Arc<Numbered>);

impl Pass for Numbering {
    fn pass(&mut self, batch: RecordBatch) -> Result<Passed, WireError> {
        let mut columns = batch.columns().to_vec();
        if columns.len() <= self.0.groups {
            return Err(internal("an aggregation without its grouping sets"));
        }
        let ids = columns.remove(self.0.groups);
        columns.push(self.0.numbers(&ids)?);
        let batch = RecordBatch::try_new(self.0.schema.clone(), columns);
        Ok(Passed::Rows(batch.map_err(|e| from_arrow(&e))?))
    }
}

/// Checks the sets of an aggregation by so many groups.
pub(super) fn check_sets(sets: &[Vec<u32>], groups: usize) -> Result<(), WireError> {
    if sets.is_empty() {
        return Ok(());
    }
    if groups == 0 {
        return Err(unsupported("grouping sets of nothing"));
    }
    if groups > GROUPS_MAX || sets.len() > SETS_MAX {
        return Err(unsupported("so many grouping sets"));
    }
    for set in sets {
        let ascending = set.is_sorted_by(|a, b| a < b);
        let known = set.iter().all(|group| (*group as usize) < groups);
        if !(ascending && known) {
            return Err(protocol("a grouping set of other groups"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_known_by_what_they_miss() {
        let sets = [vec![0, 1], vec![0], vec![], vec![0]];
        let missing: Vec<Vec<bool>> = sets.iter().map(|set| missing(set, 2)).collect();
        let ids = ids(&missing);
        let expected = HashMap::from([(0b000, 0), (0b001, 1), (0b011, 2), (0b101, 3)]);
        assert_eq!(ids, expected);
    }

    #[test]
    fn sets_of_other_groups_are_refused() {
        assert!(check_sets(&[vec![0, 1], vec![]], 2).is_ok());
        assert!(check_sets(&[vec![1, 0]], 2).is_err());
        assert!(check_sets(&[vec![0, 0]], 2).is_err());
        assert!(check_sets(&[vec![2]], 2).is_err());
        assert!(check_sets(&[vec![]], 0).is_err());
    }
}
