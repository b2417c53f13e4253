//! States of `bool_and`, `bool_or`, `bit_and`, `bit_or` and `bit_xor`.

use super::error::{internal, raise};
use super::fold::{Fold, Folded, Rows, Slots};
use super::values::{Native, from_i32, from_i64, native};
use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::EmitTo;
use std::sync::Arc;

/// How the bits of two values are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BitOp {
    And,
    Or,
    Xor,
}

impl BitOp {
    fn of(self, left: i64, right: i64) -> i64 {
        match self {
            BitOp::And => left & right,
            BitOp::Or => left | right,
            BitOp::Xor => left ^ right,
        }
    }
}

/// Of booleans and integers.
#[derive(Debug)]
pub(super) struct Bits {
    op: BitOp,
    ty: DataType,
    bits: Slots<i64>,
}

impl Bits {
    pub(super) fn states(op: BitOp, ty: DataType) -> Fold<Bits> {
        Fold(Bits {
            op,
            ty,
            bits: Slots::default(),
        })
    }

    fn add<T: Copy + Into<i64>>(&mut self, values: &[T], rows: Rows<'_>) {
        let op = self.op;
        let Slots {
            values: results,
            seen,
        } = &mut self.bits;
        rows.each(values, |g, v| {
            if let (Some(result), Some(seen)) = (results.get_mut(g), seen.get_mut(g)) {
                let value: i64 = v.into();
                *result = if *seen { op.of(*result, value) } else { value };
                *seen = true;
            }
        });
    }
}

impl Folded for Bits {
    fn ensure(&mut self, groups: usize) {
        self.bits.ensure(groups, 0);
    }

    fn take(&mut self, values: &ArrayRef, rows: Rows<'_>) -> Result<()> {
        if let Some(booleans) = values.as_boolean_opt() {
            let values: Vec<bool> = booleans.values().iter().collect();
            self.add(&values, rows);
            return Ok(());
        }
        match native(values) {
            Some(Native::I32(values)) => self.add(values, rows),
            Some(Native::I64(values)) => self.add(values, rows),
            _ => return Err(raise(internal("bits of another type"))),
        }
        Ok(())
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (values, nulls) = self.bits.take(&emit);
        Ok(match self.ty {
            DataType::Boolean => {
                let values: BooleanBuffer = values.into_iter().map(|v| v != 0).collect();
                Arc::new(BooleanArray::new(values, nulls))
            }
            // Bits of such values make such a value.
            DataType::Int32 => {
                let values = values.into_iter().map(|v| v as i32).collect();
                from_i32(values, nulls, &self.ty)
            }
            _ => from_i64(values, nulls, &self.ty),
        })
    }

    fn size(&self) -> usize {
        self.bits.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;
    use arrow::datatypes::Int32Type;
    use datafusion_expr::GroupsAccumulator;

    #[test]
    fn bits_of_integers_by_group() {
        for (op, expected) in [
            (BitOp::And, [Some(4), Some(-2), None]),
            (BitOp::Or, [Some(7), Some(-2), None]),
            (BitOp::Xor, [Some(3), Some(-2), None]),
        ] {
            let mut bits = Bits::states(op, DataType::Int32);
            let values: ArrayRef = Arc::new(Int32Array::from(vec![
                Some(6),
                Some(5),
                None,
                Some(-2),
                None,
                Some(9),
            ]));
            let filter = BooleanArray::from(vec![true, true, true, true, true, false]);
            bits.update_batch(&[values], &[0, 0, 0, 1, 2, 2], Some(&filter), 3)
                .expect("update");
            let state = bits.state(EmitTo::All).expect("a state");
            let mut whole = Bits::states(op, DataType::Int32);
            whole
                .merge_batch(&state, &[0, 1, 2], None, 3)
                .expect("merge");
            let results = whole.evaluate(EmitTo::All).expect("results");
            let results: Vec<Option<i32>> = results.as_primitive::<Int32Type>().iter().collect();
            assert_eq!(results, expected, "{op:?}");
        }
    }

    #[test]
    fn booleans_are_bits() {
        for (op, expected) in [
            (BitOp::And, [Some(false), Some(true), None]),
            (BitOp::Or, [Some(true), Some(true), None]),
        ] {
            let mut bits = Bits::states(op, DataType::Boolean);
            let values: ArrayRef = Arc::new(BooleanArray::from(vec![
                Some(true),
                Some(false),
                None,
                Some(true),
                None,
            ]));
            bits.update_batch(&[values], &[0, 0, 1, 1, 2], None, 3)
                .expect("update");
            let results = bits.evaluate(EmitTo::All).expect("results");
            let results: Vec<Option<bool>> = results.as_boolean().iter().collect();
            assert_eq!(results, expected, "{op:?}");
        }
    }
}
