//! Square roots of numerics, their whole powers, and `trim_scale`. How many digits Postgres shows after the point depends on
//! the value.
//!
//! The engine computes the value with a scale that all rows have, and Postgres' scale beside it. That is enough where only
//! the value matters, and for sums, which show the largest scale of what is added up.

use super::Lowered;
use super::calls::call_of;
use super::consts::{MAX_PRECISION, decimal};
use super::control::count;
use super::expr::{Exprs, operator_function};
use super::functions::{self, Call, Number};
use super::node::{Node, get, nodes};
use super::numeric::{Numerics, scale};
use pg_lake_plan::expr::{Expr, ExprKind, Function};
use pg_lake_plan::types::{LakeType, Value};
use pgrx::pg_sys;

/// Digits after the point of a root, if the argument doesn't have more: as many as Postgres computes of one that isn't below
/// 0.0001. The engine says where there are more.
const ROOT_SCALE: i8 = 20;

/// Larger ones are left to Postgres.
const EXPONENT_MAX: i128 = 1000;

/// Elsewhere compilers may fuse the steps by which the scale of a power is chosen.
const IS_SCALED: bool = cfg!(target_arch = "x86_64");

impl Exprs<'_> {
    /// The value of such a call, and the scale that Postgres' value of each row has, null where the value is.
    pub(super) fn root(&mut self, call: Call, args: &[Node]) -> Lowered<(Expr, Expr)> {
        let (value, of_scale, args, digits) = match (call, args) {
            (Call::Root, [arg]) => {
                let arg = self.lower(*arg)?;
                let digits = scale(&arg)?.max(ROOT_SCALE);
                let (value, of_scale) = (Function::DecimalSqrt, Function::DecimalSqrtScale);
                (value, of_scale, vec![arg], digits)
            }
            (Call::WholePower, [base, exponent]) if IS_SCALED => {
                let (base, exponent) = (self.lower(*base)?, self.lower(*exponent)?);
                let times = whole(&exponent)
                    .ok_or("power() of a numeric is lowered to a whole constant only")?;
                let digits = times.checked_mul(scale(&base)?.into());
                let digits = digits.and_then(|digits| i8::try_from(digits).ok());
                let digits = digits
                    .filter(|digits| *digits <= MAX_PRECISION as i8)
                    .ok_or("a power has more than 38 digits after the point")?;
                let (value, of_scale) = (Function::DecimalPower, Function::DecimalPowerScale);
                (value, of_scale, vec![base, exponent], digits)
            }
            (Call::TrimScale, [arg]) => {
                let arg = self.lower_as(*arg, Numerics::VALUE.early())?;
                scale(&arg)?;
                self.grow(count(&arg))?;
                let of_scale = call_of(Function::MinScale, vec![arg.clone()], Number::Int4.ty());
                return Ok((arg, of_scale));
            }
            _ => return Err("this function of a numeric is not lowered".to_owned()),
        };
        self.grow(1 + args.iter().map(count).sum::<usize>())?;
        let of_scale = call_of(of_scale, args.clone(), Number::Int4.ty());
        Ok((call_of(value, args, decimal(digits)), of_scale))
    }
}

/// A constant exponent that is whole and not negative.
fn whole(exponent: &Expr) -> Option<i32> {
    let LakeType::Decimal { scale, .. } = exponent.ty.lake else {
        return None;
    };
    let ExprKind::Const(Some(Value::I128(value))) = exponent.kind else {
        return None;
    };
    let unit = 10i128.checked_pow(u32::try_from(scale).ok()?)?;
    let times = value / unit;
    let fits = value % unit == 0 && (0..=EXPONENT_MAX).contains(&times);
    i32::try_from(times).ok().filter(|_| fits)
}

/// The call that a node is, if it is one of these, and its arguments.
pub fn root_call(node: Node) -> Option<(Call, Vec<Node>)> {
    let (function, args) = if let Some(op) = get::<pg_sys::OpExpr>(node) {
        (operator_function(op.opfuncid, op.opno), op.args)
    } else {
        let call = get::<pg_sys::FuncExpr>(node)?;
        (call.funcid, call.args)
    };
    let call = functions::known(function)?;
    let found = matches!(call, Call::Root | Call::WholePower | Call::TrimScale);
    found.then(|| (call, nodes(args)))
}
