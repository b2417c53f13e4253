//! Values that are equal may look different: `1 mon` and `30 days`, a `jsonb` of 1 and one of 1.0. Of a group of such Postgres
//! shows the first one. The engine, whose rows come in another order, shows what all of them have in common, or none.

use super::error::{internal, not_exact, raise};
use super::fold::{Fold, Folded, Rows};
use arrow::array::{Array, ArrayRef, StringArray};
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use std::sync::Arc;

const FORMS: &str = "values that are grouped by are there in several forms";

/// The text of each group.
#[derive(Debug)]
pub(super) struct OneForm {
    values: Vec<Option<Box<str>>>,
    /// Bytes of the texts.
    heap: usize,
}

impl OneForm {
    pub(super) fn states() -> Fold<Self> {
        Fold(OneForm {
            values: vec![],
            heap: 0,
        })
    }

    fn offer(&mut self, group: usize, value: &str) -> Result<()> {
        match self.values.get_mut(group) {
            Some(Some(known)) if **known == *value => Ok(()),
            Some(Some(_)) => Err(raise(not_exact(FORMS))),
            Some(place) => {
                self.heap += value.len();
                *place = Some(value.into());
                Ok(())
            }
            None => Err(raise(internal("a value of a group that isn't known"))),
        }
    }
}

impl Folded for OneForm {
    fn ensure(&mut self, groups: usize) {
        if self.values.len() < groups {
            self.values.resize(groups, None);
        }
    }

    fn take(&mut self, values: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        let texts: &StringArray = values
            .as_any()
            .downcast_ref()
            .ok_or_else(|| raise(internal("a form of another type")))?;
        for (row, &group) in rows.groups.iter().enumerate() {
            if rows.taken.is_none_or(|taken| taken.value(row)) {
                self.offer(group, texts.value(row))?;
            }
        }
        Ok(())
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let values = emit.take_needed(&mut self.values);
        let emitted: usize = values.iter().flatten().map(|value| value.len()).sum();
        self.heap = self.heap.saturating_sub(emitted);
        // Offsets of 32 bits.
        if i32::try_from(emitted).is_err() {
            return Err(raise(not_exact("forms of groups take more than 2 GB")));
        }
        let texts: StringArray = values.iter().map(Option::as_deref).collect();
        Ok(Arc::new(texts))
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<Option<Box<str>>>() + self.heap
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::wire;
    use super::*;
    use arrow::array::AsArray;
    use datafusion_expr::GroupsAccumulator;
    use pg_lake_plan::message::ErrorCode;

    fn array(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn equal_values_in_one_form_are_shown() {
        let mut states = OneForm::states();
        let values = array(&[Some("1 mon"), None, Some("1 day"), Some("1 mon")]);
        states
            .update_batch(&[values], &[0, 2, 1, 0], None, 3)
            .expect("an update");
        let more = array(&[Some("1 day")]);
        states.merge_batch(&[more], &[1], None, 3).expect("a merge");
        assert!(states.size() >= "1 mon".len() + "1 day".len());
        let first = states.evaluate(EmitTo::First(1)).expect("results");
        assert_eq!(first.as_string::<i32>().value(0), "1 mon");
        let rest = states.evaluate(EmitTo::All).expect("results");
        let rest: Vec<Option<&str>> = rest.as_string::<i32>().iter().collect();
        assert_eq!(rest, [Some("1 day"), None]);
    }

    #[test]
    fn several_forms_are_not_exact() {
        let mut states = OneForm::states();
        let values = array(&[Some("1 mon"), Some("1 mon")]);
        states
            .update_batch(&[values], &[0, 1], None, 2)
            .expect("an update");
        let other = array(&[Some("30 days")]);
        let error = states
            .merge_batch(&[other], &[1], None, 2)
            .expect_err("two forms");
        assert_eq!(wire(&error).code, ErrorCode::NotExact);
    }
}
