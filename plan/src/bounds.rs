//! How large the numbers may be that an expression gives, by the types of what it is made of, and whether the engine may have to
//! leave one to Postgres ([`NotExact`](crate::message::ErrorCode)) though that has a result.
//!
//! What takes gigabytes in one place is left out: that may happen anywhere.

use crate::expr::{ArithmeticOp, Expr, ExprKind};
use crate::function::{Field, Function};
use crate::types::{LakeType, Value};

/// Whole numbers up to here fit into 128 bits: fewer than 2^127 by more than what is lost here by rounding.
const FITS: f64 = 1.7e38;

/// 2^127, rounded up: no number of 128 bits is larger.
pub(crate) const LARGEST: f64 = 1.702e38;

/// Results of sums and products are taken to be larger by this part, so that what rounding loses is in it.
const ROUNDING: f64 = 1e-12;

/// Quotients from here on have at most [`QUOTIENT_DIGITS`] digits after the point, if their operands have (`select_div_scale` in
/// numeric.c).
const QUOTIENT_LEAST: f64 = 1e-3;
const QUOTIENT_DIGITS: i32 = 20;

/// The largest whole number whose factorial is a decimal.
const FACTORIAL_MAX: i64 = 33;

/// What is known of the values of an expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Known {
    /// Of integers, and decimals without their point: none is farther from zero. Of other types it has no meaning.
    pub(crate) most: f64,
    /// For some row the engine may not be exact.
    pub(crate) inexact: bool,
}

impl Known {
    fn exact(most: f64) -> Self {
        Known {
            most,
            inexact: false,
        }
    }

    fn inexact(most: f64) -> Self {
        Known {
            most,
            inexact: true,
        }
    }

    /// Whole numbers that are computed in 128 bits.
    pub(crate) fn computed(most: f64) -> Self {
        // A bound that is no number is none.
        match most <= FITS {
            true => Known::exact(most),
            false => Known::inexact(LARGEST),
        }
    }

    /// The same, computed from what may be inexact.
    fn over(self, inexact: bool) -> Self {
        Known {
            inexact: self.inexact || inexact,
            ..self
        }
    }
}

/// What expressions are over.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// [`Known::most`] of the input's columns.
    pub(crate) columns: &'a [f64],
    pub(crate) params: &'a [Option<Value>],
}

/// The largest number of a type, as [`Known::most`].
pub(crate) fn most_of(ty: &LakeType) -> f64 {
    match ty {
        LakeType::Int2 => 32_768.0,
        LakeType::Int4 => 2_147_483_648.0,
        LakeType::Int8 => i64::MAX as f64,
        LakeType::Decimal { precision, .. } => power(i32::from(*precision)),
        _ => LARGEST,
    }
}

/// 10 to the power of `n`.
fn power(n: i32) -> f64 {
    10f64.powi(n)
}

/// Of a decimal.
pub(crate) fn scale(ty: &LakeType) -> Option<i32> {
    match ty {
        LakeType::Decimal { scale, .. } => Some(i32::from(*scale)),
        _ => None,
    }
}

fn constant(value: Option<&Value>, ty: &LakeType) -> f64 {
    match value {
        None => 0.0,
        Some(Value::I32(value)) => f64::from(*value).abs(),
        Some(Value::I64(value)) => (*value as f64).abs(),
        Some(Value::I128(value)) => (*value as f64).abs(),
        Some(_) => most_of(ty),
    }
}

impl Bounds<'_> {
    pub(crate) fn of(self, expr: &Expr) -> Known {
        let ty = &expr.ty.lake;
        match &expr.kind {
            ExprKind::Column(number) => {
                let most = self.columns.get(*number as usize);
                Known::exact(most.copied().unwrap_or(most_of(ty)))
            }
            ExprKind::Const(value) => Known::exact(constant(value.as_ref(), ty)),
            ExprKind::Param(number) => {
                let value = self.params.get(*number as usize);
                Known::exact(value.map_or(most_of(ty), |value| constant(value.as_ref(), ty)))
            }
            ExprKind::Arithmetic { op, left, right } => self.arithmetic(ty, *op, left, right),
            ExprKind::Negate(arg) => self.of(arg),
            ExprKind::Cast(arg) => self.cast(ty, arg),
            ExprKind::Case {
                branches,
                otherwise,
            } => {
                // Each part is looked at once: they may be nested.
                let whens = self.any_inexact(branches.iter().map(|(when, _)| when));
                let results = branches.iter().map(|(_, then)| then);
                self.one_of(results.chain(otherwise.as_deref())).over(whens)
            }
            ExprKind::Extreme { args, .. } => self.one_of(args.iter()),
            ExprKind::Call { function, args } => self.call(expr, *function, args),
            ExprKind::Compare { .. }
            | ExprKind::And(_)
            | ExprKind::Or(_)
            | ExprKind::Not(_)
            | ExprKind::IsNull(_)
            | ExprKind::IsNotNull(_)
            | ExprKind::BoolTest { .. }
            | ExprKind::InList { .. }
            | ExprKind::InParam { .. }
            | ExprKind::Like { .. } => {
                Known::exact(most_of(ty)).over(self.any_inexact(expr.children()))
            }
        }
    }

    /// Whether the engine may be inexact in one of some expressions.
    pub(crate) fn any_inexact<'e>(self, exprs: impl IntoIterator<Item = &'e Expr>) -> bool {
        exprs.into_iter().any(|expr| self.of(expr).inexact)
    }

    /// A decimal with at least so many digits after the point, of at most 38.
    pub(crate) fn with_digits(self, expr: &Expr, digits: i32) -> Known {
        let known = self.of(expr);
        match scale(&expr.ty.lake) {
            Some(had) => decimal(known.most * power((digits - had).max(0))).over(known.inexact),
            None => known,
        }
    }

    /// The value of any of them.
    fn one_of<'e>(self, exprs: impl Iterator<Item = &'e Expr>) -> Known {
        exprs.fold(Known::exact(0.0), |known, expr| {
            let other = self.of(expr);
            Known::exact(known.most.max(other.most)).over(known.inexact || other.inexact)
        })
    }

    /// As the engine's `decimals` in `arith`. Of other types Postgres raises the errors that the engine does.
    fn arithmetic(self, ty: &LakeType, op: ArithmeticOp, left: &Expr, right: &Expr) -> Known {
        let (l, r) = (self.of(left), self.of(right));
        let scales = (scale(&left.ty.lake), scale(&right.ty.lake), scale(ty));
        let known = match scales {
            (Some(left), Some(right), Some(result)) => {
                // Both sides are brought to the result's scale first, of a product one of them.
                let (a, b) = match op {
                    ArithmeticOp::Multiply => (l.most * power(result - left - right), r.most),
                    _ => (
                        l.most * power(result - left),
                        r.most * power(result - right),
                    ),
                };
                let most = match op {
                    ArithmeticOp::Add | ArithmeticOp::Subtract => (a + b) * (1.0 + ROUNDING),
                    ArithmeticOp::Multiply => a * b * (1.0 + ROUNDING),
                    ArithmeticOp::Modulo => a.min(b),
                    ArithmeticOp::Divide => f64::INFINITY,
                };
                let sides = Known::computed(a.max(b));
                Known::computed(most).over(sides.inexact)
            }
            _ => Known::exact(most_of(ty)),
        };
        known.over(l.inexact || r.inexact)
    }

    /// As the engine's `cast`. Not every date that is a timestamp in Postgres is one of the engine's, and Postgres compares the others
    /// with timestamps, too.
    fn cast(self, ty: &LakeType, arg: &Expr) -> Known {
        let known = self.of(arg);
        if *ty == arg.ty.lake || ty.is_integer() {
            return known;
        }
        let LakeType::Decimal {
            precision,
            scale: to,
        } = ty
        else {
            let inexact = arg.ty.lake == LakeType::Date;
            return Known::exact(most_of(ty)).over(known.inexact || inexact);
        };
        let had = scale(&arg.ty.lake).unwrap_or(0);
        let scaled = known.most * power(i32::from(*to) - had);
        let limit = power(i32::from(*precision));
        match scaled <= limit * (1.0 + ROUNDING / 2.0) {
            true => Known::exact(scaled.min(limit)).over(known.inexact),
            false => Known::inexact(limit),
        }
    }

    fn call(self, expr: &Expr, function: Function, args: &[Expr]) -> Known {
        let known: Vec<Known> = args.iter().map(|arg| self.of(arg)).collect();
        let below = known.iter().any(|arg| arg.inexact);
        let most: Vec<f64> = known.iter().map(|arg| arg.most).collect();
        called(expr, function, args, &most).over(below)
    }
}

/// A function's result, whose arguments have these bounds.
fn called(expr: &Expr, function: Function, args: &[Expr], most: &[f64]) -> Known {
    let ty = &expr.ty.lake;
    let typed = Known::exact(most_of(ty));
    let arg = |i: usize| most.get(i).copied().unwrap_or(LARGEST);
    let type_of = |i: usize| args.get(i).map(|arg| &arg.ty.lake);
    let scale_of = |i: usize| type_of(i).and_then(scale).unwrap_or(0);
    match function {
        Function::Abs => Known::exact(arg(0)),
        Function::Sign if ty.is_decimal() => Known::exact(1.0),
        Function::Ceil | Function::Floor if ty.is_decimal() => {
            Known::exact(cut(arg(0), scale_of(0)))
        }
        Function::Round(digits) | Function::Truncate(digits) if ty.is_decimal() => {
            // As `rescale` in `functions::numbers`.
            let digits = i32::from(digits);
            let lost = (scale_of(0) - digits).max(0);
            let added = (digits - scale_of(0)).max(-digits).max(0);
            Known::computed(cut(arg(0), lost) * power(added))
        }
        Function::Quotient => quotient(ty, (arg(0), scale_of(0)), (arg(1), scale_of(1))),
        Function::WholeQuotient => {
            let scale = scale_of(0).max(scale_of(1));
            let unit = power(scale - scale_of(1));
            let (left, right) = (arg(0) * power(scale - scale_of(0)), arg(1) * unit);
            let sides = Known::computed(left.max(right));
            decimal(left / unit).over(sides.inexact)
        }
        Function::Gcd | Function::Lcm if ty.is_decimal() => {
            let scale = scale_of(0).max(scale_of(1));
            let (a, b) = (
                arg(0) * power(scale - scale_of(0)),
                arg(1) * power(scale - scale_of(1)),
            );
            decimal(match function {
                Function::Lcm => a.max(b).max(a * b),
                _ => a.max(b),
            })
        }
        Function::Factorial => match args.first().map(|arg| &arg.kind) {
            Some(ExprKind::Const(Some(Value::I64(n)))) if *n <= FACTORIAL_MAX => {
                Known::exact(LARGEST)
            }
            _ => Known::inexact(LARGEST),
        },
        Function::DecimalSqrt | Function::DecimalPower => Known::inexact(LARGEST),
        Function::WidthBucket if type_of(0).is_some_and(LakeType::is_decimal) => {
            Known::inexact(most_of(ty))
        }
        // The last microsecond has none.
        Function::Extract(Field::Epoch) | Function::DatePart(Field::Epoch)
            if matches!(
                type_of(0),
                Some(LakeType::Timestamp | LakeType::Timestamptz)
            ) =>
        {
            Known::inexact(i64::MAX as f64)
        }
        Function::Extract(_) => Known::exact(i64::MAX as f64),
        Function::JsonOrder => Known::inexact(most_of(ty)),
        // No later than its argument.
        Function::AddInterval(by) if by.months <= 0 && by.days <= 0 && by.microseconds <= 0 => {
            typed
        }
        // They are exact if they can't fail.
        Function::ShiftLeft
        | Function::ShiftRight
        | Function::Right
        | Function::Power
        | Function::Exp
        | Function::AddInterval(_)
        | Function::ToLocal
        | Function::ToInstant
        | Function::DateTruncAt(_)
        | Function::AddIntervalAt(_)
        | Function::AddIntervalOf { .. }
        | Function::IntervalPart(_)
        | Function::IntervalAdd
        | Function::IntervalSubtract
        | Function::IntervalNegate
        | Function::IntervalMultiply
        | Function::IntervalDivide
        | Function::JustifyHours
        | Function::JustifyDays
        | Function::JustifyInterval
        | Function::JsonContains
        | Function::JsonScalar
        | Function::Read => typed.over(expr.raises()),
        _ => typed,
    }
}

/// A number that loses so many digits: the next whole one may be a power of ten.
fn cut(most: f64, digits: i32) -> f64 {
    match digits {
        0 => most,
        _ => (most / power(digits) + 1.0) * (1.0 + ROUNDING),
    }
}

/// Of a function that gives decimals of at most 38 digits.
fn decimal(most: f64) -> Known {
    let limit = power(38);
    match most <= limit {
        true => Known::exact(most),
        false => Known::inexact(limit),
    }
}

/// Of decimals with their scales, as `divide` in `functions::quotient`.
fn quotient(ty: &LakeType, left: (f64, i32), right: (f64, i32)) -> Known {
    let scale = scale(ty).unwrap_or(0);
    // The least that isn't zero, and what divides by the least.
    let least = power(-left.1) / (right.0 * power(-right.1));
    let most = left.0 * power(right.1 - left.1 + scale) + 1.0;
    let short = left.1.max(right.1) <= QUOTIENT_DIGITS && scale >= QUOTIENT_DIGITS;
    Known::computed(most).over(!(short && least >= QUOTIENT_LEAST))
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
