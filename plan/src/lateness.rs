//! Whether the engine may find out that it can't be exact after the first rows of a result.
//!
//! Then the backend, which has returned them, can't run the plan itself any more: such a result is held until its end
//! (the engine's `held`). An operator that takes all of its input before it gives a row finds out in time what is wrong with that.
//! Aggregations that [`ends_late`] hold their groups themselves.

use crate::bounds::{Bounds, Known, LARGEST, most_of, scale};
use crate::ir::{
    Aggregate, AggregateFunction, Expr, FrameBound, FrameOffset, Join, JoinKind, Plan, Window,
    WindowFunction,
};
use crate::message::TableInput;
use crate::types::{LakeType, Value};

/// More rows than any query has time for.
const ROWS_MAX: f64 = 1e18;

/// More rows than are ever fed.
const FED_ROWS_MAX: f64 = 1e12;

/// Squares of decimals with so many digits can be added up by the billion.
const SQUARED_DIGITS_MAX: u8 = 14;

/// The most rows that tables may have, of which some are `fed`.
pub fn rows_of_tables(tables: &[TableInput], fed: impl Iterator<Item = bool>) -> Vec<f64> {
    let of_files = |table: &TableInput| {
        let rows = table.files.iter().map(|file| file.rows.count() as f64);
        rows.sum::<f64>()
    };
    let tables = tables.iter().map(of_files).zip(fed);
    tables
        .map(|(rows, fed)| if fed { rows + FED_ROWS_MAX } else { rows })
        .collect()
}

/// Whether a result must not be sent before its end. One that has no end isn't held. `tables`: their rows, at most.
pub fn may_end_late(root: &Plan, tables: &[f64], params: &[Option<Value>]) -> bool {
    let request = Request { tables, params };
    !may_go_on(root) && request.rows(root).late
}

/// Whether a result that must not be sent before its end has rows before that, so that who wants only the first ones would wait for
/// nothing. Of tables and parameters nothing is known.
pub fn delays_rows(root: &Plan) -> bool {
    let request = Request {
        tables: &[],
        params: &[],
    };
    let rows = request.rows(root);
    rows.late && rows.streams && !may_go_on(root)
}

/// Whether the engine may not be exact in an expression over columns of a table.
pub fn may_be_inexact(expr: &Expr) -> bool {
    let bounds = Bounds {
        columns: &[],
        params: &[],
    };
    bounds.of(expr).inexact
}

/// Whether it may turn out only at the end that Postgres has to compute an aggregate, whatever its values are: no group comes
/// out before.
pub fn ends_late(aggregate: &Aggregate) -> bool {
    let one_form = aggregate.function == AggregateFunction::OneForm;
    one_form
        || picks_floats(aggregate)
        || may_overflow(aggregate)
        || aggregate.function.is_of_intervals()
}

/// Whether it gives one of several floats, which may be zeros that differ in their sign.
pub fn picks_floats(aggregate: &Aggregate) -> bool {
    let picks = matches!(
        aggregate.function,
        AggregateFunction::Min
            | AggregateFunction::Max
            | AggregateFunction::PercentileDisc(_)
            | AggregateFunction::PercentileCont(_)
            | AggregateFunction::Mode
    );
    let arg = aggregate.arg.as_ref();
    picks && arg.is_some_and(|arg| arg.ty.lake.is_float())
}

/// Whether the squares of not so many values may need more than 128 bits.
fn may_overflow(aggregate: &Aggregate) -> bool {
    let arg = aggregate.arg.as_ref().map(|arg| &arg.ty.lake);
    let large = match arg {
        Some(LakeType::Decimal { precision, .. }) => *precision > SQUARED_DIGITS_MAX,
        arg => arg == Some(&LakeType::Int8),
    };
    large && aggregate.function == AggregateFunction::SumOfSquares
}

/// Whether there may be no end to a plan's rows: those of a recursion are taken as they are found.
fn may_go_on(plan: &Plan) -> bool {
    match plan {
        Plan::RecursiveUnion(_) => true,
        Plan::Filter { input, .. } | Plan::Project { input, .. } => may_go_on(input),
        Plan::Limit { input, fetch, .. } => fetch.is_none() && may_go_on(input),
        Plan::ProjectSet(set) => may_go_on(&set.input),
        _ => false,
    }
}

/// What is known of the rows of a plan.
#[derive(Clone, Debug)]
struct Rows {
    /// There are no more.
    count: f64,
    /// [`Known::most`] of each column.
    columns: Vec<f64>,
    /// In some place of the plan the engine may not be exact.
    inexact: bool,
    /// It may find that out after the first row.
    late: bool,
    /// They may come in an order that is known: a sort, or an aggregation, may pass them on before it has all.
    ordered: bool,
    /// The first ones come before all that is read has been.
    streams: bool,
}

impl Rows {
    /// The same rows, for each of which something is evaluated.
    fn evaluated(self, inexact: bool) -> Self {
        Rows {
            inexact: self.inexact || inexact,
            // With a single row there is none before it.
            late: self.late || (inexact && self.count > 1.0),
            ..self
        }
    }

    fn at_most(self, count: f64) -> Self {
        Rows {
            count: self.count.min(count),
            ..self
        }
    }
}

struct Request<'a> {
    tables: &'a [f64],
    params: &'a [Option<Value>],
}

impl Request<'_> {
    fn bounds<'b>(&'b self, columns: &'b [f64]) -> Bounds<'b> {
        Bounds {
            columns,
            params: self.params,
        }
    }

    fn rows(&self, plan: &Plan) -> Rows {
        match plan {
            Plan::Scan(scan) => {
                let columns = scan.columns.iter();
                let columns: Vec<f64> = columns.map(|column| most_of(&column.ty.lake)).collect();
                let inexact = self.bounds(&columns).any_inexact(&scan.predicate);
                let count = self.tables.get(scan.table as usize);
                let rows = Rows {
                    count: count.copied().unwrap_or(ROWS_MAX),
                    columns,
                    inexact: false,
                    late: false,
                    ordered: false,
                    streams: true,
                };
                rows.evaluated(inexact)
            }
            Plan::Filter { input, predicate } => {
                let input = self.rows(input);
                let inexact = self.bounds(&input.columns).of(predicate).inexact;
                input.evaluated(inexact)
            }
            Plan::Project { input, exprs } => {
                let input = self.rows(input);
                let known = self.known(exprs, &input.columns);
                let inexact = known.iter().any(|known| known.inexact);
                let columns = known.iter().map(|known| known.most).collect();
                let input = input.evaluated(inexact);
                Rows { columns, ..input }
            }
            Plan::Join(join) => self.join(join),
            Plan::Append { inputs } => self.append(inputs),
            Plan::Window(window) => self.window(window),
            Plan::Aggregate {
                input,
                groups,
                aggregates,
                sets,
                ..
            } => self.aggregate(input, groups, aggregates, sets.len()),
            Plan::Sort { input, keys, fetch } => {
                let input = self.rows(input);
                let keys = keys.iter().map(|key| &key.expr);
                let inexact = self.bounds(&input.columns).any_inexact(keys);
                // Rows without columns aren't sorted.
                let passes = input.ordered || input.columns.is_empty();
                let sorted = input.evaluated(inexact);
                Rows {
                    late: passes && sorted.late,
                    ordered: true,
                    streams: passes && sorted.streams,
                    ..sorted
                }
                .at_most(fetched(*fetch))
            }
            Plan::Limit { input, fetch, .. } => {
                let rows = self.rows(input).at_most(fetched(*fetch));
                Rows {
                    late: rows.late && fetched(*fetch) > 1.0,
                    streams: rows.streams && fetch.is_none(),
                    ..rows
                }
            }
            Plan::ProjectSet(set) => {
                let input = self.rows(&set.input);
                let inexact = self.bounds(&input.columns).any_inexact(set.exprs());
                let kept = set.columns.iter();
                let kept = kept.map(|at| input.columns.get(*at as usize).copied());
                let mut columns: Vec<f64> = kept.flatten().collect();
                for call in &set.calls {
                    let args = self.known(&call.args, &input.columns);
                    let args = args.iter().map(|arg| arg.most);
                    columns.push(args.fold(most_of(&call.ty.lake), f64::max));
                }
                Rows {
                    count: ROWS_MAX,
                    columns,
                    inexact: input.inexact || inexact,
                    late: input.late || inexact,
                    streams: true,
                    ..input
                }
            }
            Plan::OneRow => Rows {
                count: 1.0,
                columns: vec![],
                inexact: false,
                late: false,
                ordered: false,
                streams: false,
            },
            Plan::RecursiveUnion(union) => {
                let terms = [&*union.non_recursive, &*union.recursive];
                let [first, step] = terms.map(|term| self.rows(term));
                let inexact = first.inexact || step.inexact;
                Rows {
                    count: ROWS_MAX,
                    columns: largest(&[first, step]),
                    inexact,
                    late: inexact,
                    ordered: false,
                    streams: true,
                }
            }
            Plan::WorkTable(table) => Rows {
                count: ROWS_MAX,
                columns: table.output().iter().map(most_of_step).collect(),
                inexact: false,
                late: false,
                ordered: false,
                streams: false,
            },
        }
    }

    fn known(&self, exprs: &[Expr], columns: &[f64]) -> Vec<Known> {
        let bounds = self.bounds(columns);
        exprs.iter().map(|expr| bounds.of(expr)).collect()
    }

    /// Its kept side is there before the first row, but which one that is isn't looked at.
    fn join(&self, join: &Join) -> Rows {
        let (left, right) = (self.rows(&join.left), self.rows(&join.right));
        let left_keys = join.keys.iter().map(|key| &key.left);
        let right_keys = join.keys.iter().map(|key| &key.right);
        let mut inexact = self.bounds(&left.columns).any_inexact(left_keys)
            || self.bounds(&right.columns).any_inexact(right_keys);
        let both = [left.columns.as_slice(), &right.columns].concat();
        inexact |= self.bounds(&both).any_inexact(&join.filter);
        let count = match join.kind {
            JoinKind::Inner => left.count * right.count,
            JoinKind::Left => left.count * right.count.max(1.0),
            JoinKind::Full => left.count * right.count + left.count + right.count,
            JoinKind::Semi
            | JoinKind::Anti
            | JoinKind::NullAwareAnti
            | JoinKind::Mark
            | JoinKind::NullAwareMark => left.count,
        };
        let columns = match join.kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::Full => both,
            JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti => left.columns,
            JoinKind::Mark | JoinKind::NullAwareMark => [left.columns.as_slice(), &[1.0]].concat(),
        };
        Rows {
            count: count.min(ROWS_MAX),
            columns,
            inexact: inexact || left.inexact || right.inexact,
            late: inexact || left.late || right.late,
            ordered: left.ordered || right.ordered,
            streams: left.streams || right.streams,
        }
    }

    /// The rows of one input come before another one is done.
    fn append(&self, inputs: &[Plan]) -> Rows {
        let inputs: Vec<Rows> = inputs.iter().map(|input| self.rows(input)).collect();
        let inexact = inputs.iter().any(|input| input.inexact);
        let late = inputs.iter().any(|input| input.late);
        Rows {
            count: (inputs.iter().map(|input| input.count).sum::<f64>()).min(ROWS_MAX),
            columns: largest(&inputs),
            inexact,
            late: late || (inexact && inputs.len() > 1),
            ordered: false,
            streams: inputs.iter().any(|input| input.streams),
        }
    }

    /// Whether its input was sorted right before isn't looked at.
    fn window(&self, window: &Window) -> Rows {
        let input = self.rows(&window.input);
        let bounds = self.bounds(&input.columns);
        let mut inexact = bounds.any_inexact(window.exprs()) || inexact_frame(window, bounds);
        let mut columns = vec![];
        for function in &window.functions {
            let known = match function {
                WindowFunction::Aggregate(aggregate) => state(aggregate, bounds, input.count),
                WindowFunction::FirstValue(arg)
                | WindowFunction::LastValue(arg)
                | WindowFunction::NthValue(arg, _) => bounds.of(arg),
                WindowFunction::Shift { arg, otherwise, .. } => {
                    let known = bounds.of(arg);
                    let other = otherwise.as_ref().map_or(0.0, |_| most_of(&arg.ty.lake));
                    Known {
                        most: known.most.max(other),
                        ..known
                    }
                }
                WindowFunction::RowNumber
                | WindowFunction::Rank
                | WindowFunction::DenseRank
                | WindowFunction::PercentRank
                | WindowFunction::CumeDist
                | WindowFunction::Ntile(_) => Known {
                    most: most_of(&function.ty()),
                    inexact: false,
                },
            };
            inexact |= known.inexact;
            columns.push(known.most);
        }
        let columns = [input.columns.as_slice(), &columns].concat();
        let rows = input.evaluated(inexact);
        Rows {
            columns,
            ordered: true,
            streams: rows.streams && (rows.ordered || window.order_by.is_empty()),
            ..rows
        }
    }

    /// `sets`: how many grouping sets there are, if any.
    fn aggregate(
        &self,
        input: &Plan,
        groups: &[Expr],
        aggregates: &[Aggregate],
        sets: usize,
    ) -> Rows {
        let input = self.rows(input);
        let bounds = self.bounds(&input.columns);
        let groups = self.known(groups, &input.columns);
        let states: Vec<Known> = (aggregates.iter())
            .map(|aggregate| state(aggregate, bounds, input.count))
            .collect();
        let is_one = groups.is_empty() && sets == 0;
        let evaluated = groups.iter().any(|group| group.inexact)
            || aggregates
                .iter()
                .any(|aggregate| bounds.any_inexact(evaluated_by(aggregate)));
        let own = states.iter().any(|state| state.inexact);
        let holds = aggregates.iter().any(ends_late);
        let passes = input.ordered && (input.late || evaluated);
        let keeps_order = aggregates.iter().any(|a| a.function.is_ordered());
        let columns = groups.iter().chain(&states).map(|known| known.most);
        let number = (sets > 0).then_some(sets as f64);
        Rows {
            count: match is_one {
                true => 1.0,
                false => (input.count.max(1.0) * sets.max(1) as f64).min(ROWS_MAX),
            },
            columns: columns.chain(number).collect(),
            inexact: input.inexact || evaluated || own,
            late: !is_one && !holds && (own || passes),
            ordered: input.ordered || keeps_order,
            streams: input.ordered && input.streams && !is_one && !holds,
        }
    }
}

/// A step adds to what the one before it has added to: sums grow beyond the digits of their type, up to 128 bits.
fn most_of_step(ty: &LakeType) -> f64 {
    match ty {
        LakeType::Decimal { precision: 38, .. } => LARGEST,
        ty => most_of(ty),
    }
}

fn fetched(fetch: Option<u64>) -> f64 {
    fetch.map_or(f64::INFINITY, |rows| rows as f64)
}

/// The bounds of columns that come from any of some inputs.
fn largest(inputs: &[Rows]) -> Vec<f64> {
    let width = inputs.iter().map(|input| input.columns.len()).max();
    let column = |at: usize| {
        let own = inputs.iter().filter_map(|input| input.columns.get(at));
        own.copied().fold(0.0, f64::max)
    };
    (0..width.unwrap_or(0)).map(column).collect()
}

fn evaluated_by(aggregate: &Aggregate) -> impl Iterator<Item = &Expr> {
    let order = aggregate.order.iter().map(|key| &key.expr);
    aggregate.arg.iter().chain(&aggregate.filter).chain(order)
}

/// The result over so many rows, and whether it may be inexact though all values are exact.
fn state(aggregate: &Aggregate, bounds: Bounds<'_>, rows: f64) -> Known {
    let typed = most_of(&aggregate.ty.lake);
    let arg = aggregate.arg.as_ref().map(|arg| bounds.of(arg).most);
    let arg = arg.unwrap_or(0.0);
    let of_floats = (aggregate.arg.as_ref()).is_some_and(|arg| arg.ty.lake.is_float());
    match aggregate.function {
        AggregateFunction::Sum if aggregate.ty.lake.is_decimal() => Known::computed(arg * rows),
        AggregateFunction::SumOfSquares => Known::computed(arg * arg * rows.max(1.0)),
        AggregateFunction::Min
        | AggregateFunction::Max
        | AggregateFunction::PercentileDisc(_)
        | AggregateFunction::PercentileCont(_)
        | AggregateFunction::Mode => Known {
            most: arg,
            inexact: of_floats,
        },
        AggregateFunction::IntervalSum
        | AggregateFunction::IntervalMin
        | AggregateFunction::IntervalMax
        | AggregateFunction::OneForm => Known {
            most: typed,
            inexact: true,
        },
        AggregateFunction::Count
        | AggregateFunction::Sum
        | AggregateFunction::BoolAnd
        | AggregateFunction::BoolOr
        | AggregateFunction::BitAnd
        | AggregateFunction::BitOr
        | AggregateFunction::BitXor
        | AggregateFunction::ArrayAgg
        | AggregateFunction::Moments
        | AggregateFunction::PairMoments => Known {
            most: typed,
            inexact: false,
        },
    }
}

/// Whether a bound of the frame may be beyond what the engine computes it in: decimals get the most digits after the point that one
/// of them has, those of times end with the engine's timestamps.
fn inexact_frame(window: &Window, bounds: Bounds<'_>) -> bool {
    let Some(measured) = window.measured.as_ref().map(|key| &key.expr) else {
        return false;
    };
    let by_interval = |bound: &FrameBound| {
        matches!(
            bound,
            FrameBound::PrecedingBy(FrameOffset::Interval(_))
                | FrameBound::FollowingBy(FrameOffset::Interval(_))
        )
    };
    let moves = by_interval(&window.frame.start) || by_interval(&window.frame.end);
    let offsets = window.frame.offsets().into_iter();
    let digits = offsets.filter_map(|offset| scale(&offset.ty.lake)).max();
    (moves && measured.ty.lake != LakeType::Time)
        || digits.is_some_and(|digits| bounds.with_digits(measured, digits).inexact)
}

#[cfg(test)]
#[path = "lateness_tests.rs"]
mod tests;
