//! AND, OR, quals and CASE: never evaluating for a row what Postgres wouldn't; GREATEST and LEAST.
//!
//! As arguments decide rows, the rest continues on the rows that are left: always before an
//! argument that can raise an error, and otherwise when few are left. The results are scattered
//! to their rows at the end.

use super::compare::compare;
use super::error::{from_arrow, internal};
use super::expr::{Frame, Node, Val, boolean, definite};
use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute;
use arrow::compute::kernels::zip::zip;
use pg_lake_plan::ir::CompareOp;
use pg_lake_plan::message::WireError;
use std::sync::Arc;

/// The rows that still matter, and where they stand in the whole frame.
struct Live {
    frame: Frame<'static>,
    rows: Vec<usize>,
}

impl Live {
    /// Keeps the rows whose bit is set.
    fn narrow(
        before: Option<&Live>,
        whole: &Frame<'_>,
        mask: &BooleanBuffer,
        columns: &[usize],
    ) -> Result<Live, WireError> {
        Ok(match before {
            None => Live {
                frame: whole.filter(mask, columns)?,
                rows: mask.set_indices().collect(),
            },
            Some(live) => Live {
                frame: live.frame.filter(mask, columns)?,
                rows: mask
                    .set_indices()
                    .filter_map(|i| live.rows.get(i).copied())
                    .collect(),
            },
        })
    }
}

/// How several conditions become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connective {
    And,
    Or,
    /// False where one of them is false or null, which then decides the row. Never null.
    Quals,
}

/// `args` as one condition.
pub(super) fn connect(
    connective: Connective,
    args: &[Node],
    columns: &[usize],
    frame: &Frame<'_>,
) -> Result<Val, WireError> {
    let all = connective != Connective::Or;
    let mut live: Option<Live> = None;
    let mut result: Option<BooleanArray> = None;
    for arg in args {
        if let Some(sofar) = &result {
            let open = sofar.len()
                - if all {
                    sofar.false_count()
                } else {
                    sofar.true_count()
                };
            if open == 0 {
                break;
            }
            if open < sofar.len() && (arg.can_fail || open * 4 < sofar.len()) {
                let mask = undecided(sofar, all);
                let kept = compute::filter(sofar, &BooleanArray::new(mask.clone(), None))
                    .map_err(|e| from_arrow(&e))?;
                live = Some(Live::narrow(live.as_ref(), frame, &mask, columns)?);
                result = Some(boolean(&kept)?.clone());
            }
        }
        let current = live.as_ref().map_or(frame, |l| &l.frame);
        let value = arg.eval(current)?.spread(current.rows)?;
        let value = match connective {
            Connective::Quals => BooleanArray::new(definite(boolean(&value)?), None),
            _ => boolean(&value)?.clone(),
        };
        result = Some(match &result {
            None => value,
            Some(sofar) if all => compute::and_kleene(sofar, &value).map_err(|e| from_arrow(&e))?,
            Some(sofar) => compute::or_kleene(sofar, &value).map_err(|e| from_arrow(&e))?,
        });
    }
    let Some(result) = result else {
        return Err(internal("conditions of nothing"));
    };
    Ok(Val::Array(match live {
        None => Arc::new(result),
        Some(live) => scatter(&result, &live.rows, frame.rows, !all),
    }))
}

/// Rows which a further argument can change.
fn undecided(sofar: &BooleanArray, all: bool) -> BooleanBuffer {
    match (all, sofar.nulls()) {
        (true, None) => sofar.values().clone(),
        (true, Some(nulls)) => sofar.values() | &!nulls.inner(),
        (false, None) => !sofar.values(),
        (false, Some(_)) => !&definite(sofar),
    }
}

/// `values` at `rows`, `decided` elsewhere.
fn scatter(values: &BooleanArray, rows: &[usize], len: usize, decided: bool) -> ArrayRef {
    let mut bits = BooleanBufferBuilder::new(len);
    bits.append_n(len, decided);
    for (i, &row) in rows.iter().enumerate() {
        bits.set_bit(row, values.value(i));
    }
    let nulls = values.nulls().filter(|n| n.null_count() > 0).map(|nulls| {
        let mut valid = BooleanBufferBuilder::new(len);
        valid.append_n(len, true);
        for (i, &row) in rows.iter().enumerate() {
            valid.set_bit(row, nulls.is_valid(i));
        }
        NullBuffer::new(valid.finish())
    });
    Arc::new(BooleanArray::new(bits.finish(), nulls))
}

/// The values of a CASE as they are found: for each row, an array and a place in it.
struct Pieces {
    arrays: Vec<ArrayRef>,
    places: Vec<(usize, usize)>,
}

impl Pieces {
    fn put(&mut self, value: &Val, rows: impl Iterator<Item = usize>) {
        let array = self.arrays.len();
        self.arrays.push(value.array().clone());
        for (i, row) in rows.enumerate() {
            if let Some(place) = self.places.get_mut(row) {
                *place = (array, if value.is_scalar() { 0 } else { i });
            }
        }
    }
}

/// `CASE WHEN … THEN … ELSE … END` of type `node`.
pub(super) fn case(
    branches: &[(Node, Node)],
    otherwise: Option<&Node>,
    node: &Node,
    frame: &Frame<'_>,
) -> Result<Val, WireError> {
    let mut pieces = Pieces {
        arrays: vec![new_null_array(&node.data_type, 1)],
        places: vec![(0, 0); frame.rows],
    };
    let mut live: Option<Live> = None;
    for (when, then) in branches {
        let current = live.as_ref().map_or(frame, |l| &l.frame);
        if current.rows == 0 {
            break;
        }
        let test = when.eval(current)?.spread(current.rows)?;
        let hits = definite(boolean(&test)?);
        let count = hits.count_set_bits();
        if count == 0 {
            continue;
        }
        if count == current.rows && live.is_none() {
            return then.eval(frame);
        }
        let matched = Live::narrow(live.as_ref(), frame, &hits, &node.columns)?;
        let value = then.eval(&matched.frame)?;
        pieces.put(&value, matched.rows.into_iter());
        live = Some(Live::narrow(live.as_ref(), frame, &!&hits, &node.columns)?);
    }
    if let Some(otherwise) = otherwise {
        match live {
            None => return otherwise.eval(frame),
            Some(live) if live.frame.rows > 0 => {
                let value = otherwise.eval(&live.frame)?;
                pieces.put(&value, live.rows.into_iter());
            }
            Some(_) => {}
        }
    }
    let arrays: Vec<&dyn Array> = pieces.arrays.iter().map(|a| a.as_ref()).collect();
    compute::interleave(&arrays, &pieces.places)
        .map(Val::Array)
        .map_err(|e| from_arrow(&e))
}

/// `GREATEST` and `LEAST`, of the type of `node`: nulls are left out, of equals the first is taken.
pub(super) fn extreme(
    greatest: bool,
    args: &[Node],
    node: &Node,
    frame: &Frame<'_>,
) -> Result<Val, WireError> {
    let op = if greatest {
        CompareOp::Lt
    } else {
        CompareOp::Gt
    };
    let mut best = new_null_array(&node.data_type, frame.rows);
    for arg in args {
        let next = arg.eval(frame)?.spread(frame.rows)?;
        let test = compare(op, &Val::Array(best.clone()), &Val::Array(next.clone()))?;
        let mut taken = definite(boolean(test.array())?);
        if let Some(nulls) = best.nulls() {
            taken = &taken | &!nulls.inner();
        }
        best = zip(&BooleanArray::new(taken, None), &next, &best).map_err(|e| from_arrow(&e))?;
    }
    Ok(Val::Array(best))
}

/// `IS [NOT] {TRUE | FALSE}`
pub(super) fn bool_test(array: &BooleanArray, value: bool, negated: bool) -> BooleanArray {
    let holds = match (value, array.nulls()) {
        (true, _) => definite(array),
        (false, None) => !array.values(),
        (false, Some(nulls)) => &!array.values() & nulls.inner(),
    };
    BooleanArray::new(if negated { !&holds } else { holds }, None)
}
