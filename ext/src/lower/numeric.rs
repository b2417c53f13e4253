//! Numerics: with each value Postgres keeps how many digits after the point it shows. The engine has that number, the
//! scale, in the type of an expression, so that all values of it must have the same.
//!
//! Where only the value matters, as in a comparison, the scale may be another one, or be known later.

use super::Lowered;
use super::consts::{MAX_PRECISION, decimal};
use super::expr::cast;
use super::functions::Number;
use pg_lake_plan::expr::{Expr, ExprKind, Function};
use pg_lake_plan::ir::ArithmeticOp;
use pg_lake_plan::types::LakeType;

/// Digits after the point of a quotient: as many as Postgres computes for one that isn't below 0.0001. The engine
/// says where there are more.
const QUOTIENT_SCALE: i8 = 20;

/// What of a numeric expression matters to what is around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numerics {
    /// Only the value.
    pub value_only: bool,
    /// Its type isn't looked at before the query runs: it can be that of a parameter.
    pub late: bool,
}

impl Numerics {
    /// It is shown, or something is made of it that is.
    pub const SHOWN: Numerics = Numerics {
        value_only: false,
        late: false,
    };
    /// It is compared, or rounded.
    pub const VALUE: Numerics = Numerics {
        value_only: true,
        late: true,
    };
    /// It is divided: the quotient is rounded to digits that depend on the scale.
    const DIVIDED: Numerics = Numerics {
        value_only: false,
        late: true,
    };

    /// The same for a part whose type is needed now.
    pub fn early(self) -> Numerics {
        Numerics {
            late: false,
            ..self
        }
    }

    /// What matters of the operands of an operator.
    pub fn operands(self, op: ArithmeticOp, number: Number) -> Lowered<Numerics> {
        match (op, number) {
            (ArithmeticOp::Divide, Number::Decimal) if !self.value_only => {
                Err("division of numerics is lowered only where the result is compared".to_owned())
            }
            (ArithmeticOp::Divide, Number::Decimal) => Ok(Numerics::DIVIDED),
            _ => Ok(self),
        }
    }
}

/// Scale of a decimal expression: Postgres' display scale of every value of it.
pub fn scale(expr: &Expr) -> Lowered<i8> {
    match expr.ty.lake {
        LakeType::Decimal { scale, .. } => Ok(scale),
        _ => Err("a numeric of unknown scale is not lowered".to_owned()),
    }
}

pub fn arithmetic(op: ArithmeticOp, number: Number, left: Expr, right: Expr) -> Lowered<Expr> {
    if (op, number) == (ArithmeticOp::Divide, Number::Decimal) {
        return quotient(left, right);
    }
    let (left, right, ty) = if number == Number::Decimal {
        let (l, r) = (scale(&left)?, scale(&right)?);
        let scale = match op {
            ArithmeticOp::Multiply => l + r,
            _ => l.max(r),
        };
        if scale > MAX_PRECISION as i8 {
            return Err("a numeric expression has more than 38 digits after the point".to_owned());
        }
        (left, right, decimal(scale))
    } else {
        let ty = number.ty();
        (cast(left, &ty), cast(right, &ty), ty)
    };
    Ok(Expr {
        ty,
        kind: ExprKind::Arithmetic {
            op,
            left: Box::new(left),
            right: Box::new(right),
        },
    })
}

/// `left / right`, of which only the value is right ([`Numerics::VALUE`]). The operands have the scales that
/// Postgres shows.
pub fn quotient(left: Expr, right: Expr) -> Lowered<Expr> {
    scale(&left)?;
    scale(&right)?;
    Ok(Expr {
        ty: decimal(QUOTIENT_SCALE),
        kind: ExprKind::Call {
            function: Function::Quotient,
            args: vec![left, right],
        },
    })
}
