//! States of `sum`, `min` and `max` of intervals.
//!
//! Postgres adds up in the order of its rows, and an overflow on the way is an error; of equal intervals in several forms
//! it gives one that depends on that order, too. The engine has no such order: then Postgres decides.

use super::aggregate::raised;
use super::error::{internal, not_exact, raise};
use super::fold::{Fold, Folded, Rows};
use super::functions::intervals::{Failure, finite, length, parse, print};
use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use pg_lake_plan::function::Interval;
use pg_lake_plan::ir::AggregateFunction;
use pg_lake_plan::message::WireError;
use std::sync::Arc;

const FORMS: &str = "the least or largest interval is there in several forms";
const ON_THE_WAY: &str = "a sum of intervals may be out of range on the way";

/// Months, days and microseconds of a sum or of the best interval. Then, of a sum: the same of the absolute values; of the
/// best: whether others are equal that aren't the same.
type State = [i128; 6];

#[derive(Debug)]
pub(super) struct Intervals {
    function: AggregateFunction,
    states: Vec<Option<State>>,
}

impl Intervals {
    pub(super) fn states(function: AggregateFunction) -> Fold<Self> {
        Fold(Intervals {
            function,
            states: vec![],
        })
    }

    fn state_of(&self, interval: Interval) -> State {
        let (m, d) = (i128::from(interval.months), i128::from(interval.days));
        let us = i128::from(interval.microseconds);
        match self.function {
            AggregateFunction::IntervalSum => [m, d, us, m.abs(), d.abs(), us.abs()],
            _ => [m, d, us, 0, 0, 0],
        }
    }

    fn both(&self, left: State, right: State) -> State {
        if self.function == AggregateFunction::IntervalSum {
            let mut sum = left;
            for (sum, more) in sum.iter_mut().zip(right) {
                *sum = sum.saturating_add(more);
            }
            return sum;
        }
        let (l, r) = (compared(left), compared(right));
        let [lm, ld, lus, lforms, ..] = left;
        let [rm, rd, rus, rforms, ..] = right;
        if l == r {
            let same = (lm, ld, lus) == (rm, rd, rus);
            let forms = lforms.max(rforms).max(i128::from(!same));
            return [lm, ld, lus, forms, 0, 0];
        }
        let larger = self.function == AggregateFunction::IntervalMax;
        if (l > r) == larger { left } else { right }
    }

    fn result(&self, state: State) -> std::result::Result<Interval, WireError> {
        let [months, days, microseconds, a, b, c] = state;
        let sums = self.function == AggregateFunction::IntervalSum;
        let day_and_month = i128::from(i32::MAX);
        if sums && (a >= day_and_month || b >= day_and_month || c >= i128::from(i64::MAX)) {
            return Err(not_exact(ON_THE_WAY));
        }
        if !sums && a != 0 {
            return Err(not_exact(FORMS));
        }
        let interval = finite(
            i32::try_from(months).ok(),
            i32::try_from(days).ok(),
            i64::try_from(microseconds).ok(),
        );
        interval.map_err(Failure::error)
    }

    /// Adds the state that `f` makes of each text.
    fn add(
        &mut self,
        values: &ArrayRef,
        rows: Rows<'_>,
        f: impl Fn(&Self, &str) -> std::result::Result<State, WireError>,
    ) -> Result<()> {
        let texts = texts(values)?;
        let numbers: Vec<usize> = (0..texts.len()).collect();
        let mut failed = None;
        rows.each(&numbers, |group, row| {
            if failed.is_some() {
                return;
            }
            match f(self, texts.value(row)) {
                Ok(state) => {
                    let old = self.states.get(group).copied().flatten();
                    let new = old.map_or(state, |old| self.both(old, state));
                    if let Some(place) = self.states.get_mut(group) {
                        *place = Some(new);
                    }
                }
                Err(error) => failed = Some(error),
            }
        });
        failed.map_or(Ok(()), |error| Err(raise(error)))
    }
}

/// What the interval of a state is compared by. It was one that Postgres has.
fn compared(state: State) -> i128 {
    let [months, days, microseconds, ..] = state;
    length(Interval {
        months: months as i32,
        days: days as i32,
        microseconds: microseconds as i64,
    })
}

fn texts(array: &ArrayRef) -> Result<&StringArray> {
    array
        .as_any()
        .downcast_ref()
        .ok_or_else(|| raise(internal("an aggregate of intervals of another type")))
}

fn written(state: State) -> String {
    state.map(|part| part.to_string()).join(" ")
}

fn read(text: &str) -> std::result::Result<State, WireError> {
    let malformed = || internal("a state of another type");
    let mut state = State::default();
    let mut words = text.split(' ');
    for part in &mut state {
        let word = words.next().ok_or_else(malformed)?;
        *part = word.parse().map_err(|_| malformed())?;
    }
    Ok(state)
}

impl Folded for Intervals {
    const ALONE: bool = false;

    fn ensure(&mut self, groups: usize) {
        if self.states.len() < groups {
            self.states.resize(groups, None);
        }
    }

    fn take(&mut self, values: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        self.add(values, rows, |states, text| {
            let interval = parse(text).map_err(Failure::error)?;
            Ok(states.state_of(interval))
        })
    }

    fn merge(&mut self, states: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        self.add(states, rows, |_, text| read(text))
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let mut results = StringBuilder::new();
        let mut text = String::new();
        for state in emit.take_needed(&mut self.states) {
            let Some(state) = state else {
                results.append_null();
                continue;
            };
            text.clear();
            print(raised(self.result(state))?, &mut text);
            results.append_value(&text);
        }
        Ok(Arc::new(results.finish()))
    }

    fn state(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let states = emit.take_needed(&mut self.states);
        let states: StringArray = (states.into_iter())
            .map(|state| state.map(written))
            .collect();
        Ok(Arc::new(states))
    }

    fn size(&self) -> usize {
        self.states.capacity() * size_of::<Option<State>>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::aggregate::States;
    use super::super::error::wire;
    use super::*;
    use arrow::array::AsArray;
    use datafusion_expr::GroupsAccumulator;
    use pg_lake_plan::message::ErrorCode;

    fn array(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    /// Each half in its own states, which meet in others.
    fn result(function: AggregateFunction, values: &[Option<&str>]) -> Result<Option<String>> {
        let mut whole = Intervals::states(function);
        for half in values.chunks(values.len().div_ceil(2).max(1)) {
            let mut states = Intervals::states(function);
            states.update_batch(&[array(half)], &vec![0; half.len()], None, 1)?;
            let state = states.state(EmitTo::All)?;
            whole.merge_batch(&state, &[0], None, 1)?;
        }
        whole.ensure(1);
        let result = whole.evaluate(EmitTo::All)?;
        let result = result.as_string::<i32>();
        Ok(result.is_valid(0).then(|| result.value(0).to_owned()))
    }

    fn shown(function: AggregateFunction, values: &[Option<&str>]) -> Option<String> {
        result(function, values).expect("a result")
    }

    fn code(function: AggregateFunction, values: &[Option<&str>]) -> ErrorCode {
        wire(&result(function, values).expect_err("an error")).code
    }

    #[test]
    fn fields_are_added_up() {
        let values = [
            Some("1 mon -1 days"),
            None,
            Some("-02:00:00"),
            Some("3 days"),
        ];
        let sum = shown(AggregateFunction::IntervalSum, &values);
        assert_eq!(sum.as_deref(), Some("1 mon 2 days -02:00:00"));
        assert_eq!(shown(AggregateFunction::IntervalSum, &[None]), None);
        assert_eq!(shown(AggregateFunction::IntervalSum, &[]), None);
    }

    #[test]
    fn a_sum_that_may_overflow_is_not_exact() {
        let days = [Some("2147483647 days"), Some("1 day"), Some("-1 days")];
        let code_of = |values: &[Option<&str>]| code(AggregateFunction::IntervalSum, values);
        assert_eq!(code_of(&days), ErrorCode::NotExact);
        assert_eq!(code_of(&[Some("infinity")]), ErrorCode::NotExact);
    }

    #[test]
    fn the_best_has_one_form() {
        let values = [Some("1 mon"), Some("29 days"), Some("-1 mons"), None];
        let max = shown(AggregateFunction::IntervalMax, &values);
        assert_eq!(max.as_deref(), Some("1 mon"));
        let min = shown(AggregateFunction::IntervalMin, &values);
        assert_eq!(min.as_deref(), Some("-1 mons"));
        let forms = [Some("1 mon"), Some("30 days"), Some("00:00:00")];
        assert_eq!(
            code(AggregateFunction::IntervalMax, &forms),
            ErrorCode::NotExact
        );
        let min = shown(AggregateFunction::IntervalMin, &forms);
        assert_eq!(min.as_deref(), Some("00:00:00"));
        let better = [
            Some("1 mon"),
            Some("30 days"),
            Some("2 mons"),
            Some("2 mons"),
        ];
        let max = shown(AggregateFunction::IntervalMax, &better);
        assert_eq!(max.as_deref(), Some("2 mons"));
    }
}
