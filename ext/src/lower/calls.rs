//! Calls of functions and operators that are on the whitelist ([`functions`]).

use super::Lowered;
use super::compare::{compare, compare_padded, comparison, trimmed};
use super::consts::{self, decimal};
use super::control::when_not_null;
use super::dates;
use super::expr::{Exprs, boolean, cast};
use super::functions::{self, Call, Number, Returns};
use super::intervals::length;
use super::json::compare_json;
use super::node::{Node, get, nodes};
use super::numeric::{Numerics, arithmetic, scale};
use super::order::{has_c_letters, is_deterministic, is_printed};
use super::table::sql_type;
use crate::types::expression_type;
use pg_lake_plan::expr::{Expr, ExprKind, Function};
use pg_lake_plan::function::is_complete;
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;

impl Exprs<'_> {
    pub(super) fn call(
        &mut self,
        function: pg_sys::Oid,
        args: *mut pg_sys::List,
        collation: pg_sys::Oid,
        numerics: Numerics,
    ) -> Lowered<Expr> {
        let unknown = || format!("function {} is not lowered", functions::name(function));
        let call = functions::known(function).ok_or_else(unknown)?;
        let args = nodes(args);
        match (call, args.as_slice()) {
            (
                Call::Compare(_) | Call::ComparePadded(_) | Call::Like { .. } | Call::ILike { .. },
                [left, right],
            ) => {
                let left = self.lower_as(*left, Numerics::VALUE)?;
                let right = self.lower_as(*right, Numerics::VALUE)?;
                condition(call, left, right, collation)
            }
            (Call::Arithmetic(op, number), [left, right]) => {
                let operands = numerics.operands(op, number)?;
                let left = self.lower_as(*left, operands)?;
                let right = self.lower_as(*right, operands)?;
                arithmetic(op, number, left, right)
            }
            (Call::Negate(number), [arg]) => {
                let arg = self.lower_as(*arg, numerics)?;
                // The negative of a decimal has as many digits.
                let ty = match number {
                    Number::Decimal => {
                        scale(&arg)?;
                        sql_type(arg.ty.lake.clone(), pg_sys::NUMERICOID)
                    }
                    _ => number.ty(),
                };
                Ok(Expr {
                    ty,
                    kind: ExprKind::Negate(Box::new(arg)),
                })
            }
            (Call::Cast(number), [arg]) => Ok(cast(self.lower(*arg)?, &number.ty())),
            (Call::Midnight, [arg]) => {
                let timestamp = sql_type(LakeType::Timestamp, pg_sys::TIMESTAMPOID);
                Ok(cast(self.lower(*arg)?, &timestamp))
            }
            (Call::Plain(function, returns), args) => {
                self.plain(function, returns, args, collation, numerics)
            }
            (Call::Search(function, returns), args) => {
                if !is_deterministic(collation) {
                    return Err(
                        "a search under a nondeterministic collation is not lowered".to_owned()
                    );
                }
                self.plain(function, returns, args, collation, numerics)
            }
            (Call::Letters(function), args) => {
                check_letters(collation)?;
                self.plain(function, Returns::Text, args, collation, numerics)
            }
            (Call::PaddedLength, [arg]) => {
                let text = trimmed(self.lower(*arg)?);
                Ok(call_of(Function::Length, vec![text], Number::Int4.ty()))
            }
            (Call::Digits { round }, [arg, digits @ ..]) => self.digits(round, *arg, digits),
            (Call::Common(function), [left, right]) => {
                let left = self.lower_as(*left, numerics.early())?;
                let right = self.lower_as(*right, numerics.early())?;
                let ty = decimal(scale(&left)?.max(scale(&right)?));
                Ok(call_of(function, vec![left, right], ty))
            }
            (Call::Root | Call::WholePower | Call::TrimScale, args) => {
                if !numerics.value_only {
                    let name = functions::name(function);
                    return Err(format!(
                        "{name}() of a numeric is lowered only where the result is compared, rounded or added up"
                    ));
                }
                self.root(call, args).map(|(value, _)| value)
            }
            (Call::ScaleOf, [arg]) => {
                let arg = self.lower(*arg)?;
                let digits = scale(&arg)?;
                Ok(when_not_null(&arg, digits.into(), &Number::Int4.ty()))
            }
            (Call::Typmod, [arg, typmod]) => self.typmod(*arg, *typmod),
            (Call::Extract | Call::DatePart | Call::DateTrunc, [field, arg]) => {
                let field = dates::field(&self.lower(*field)?)?;
                self.field(call, field, *arg)
            }
            (Call::AddInterval { negated }, [arg, by]) => match get::<pg_sys::Const>(*by) {
                Some(_) => self.plus_interval(*arg, dates::interval(*by, negated)?),
                None => self.plus_any_interval(*arg, *by, negated),
            },
            (Call::CompareInstants(op), [left, right]) => self.compare_instants(op, *left, *right),
            (Call::CompareIntervals(op), [left, right]) => {
                self.compare_intervals(op, *left, *right)
            }
            (Call::CompareJson(op), [left, right]) => {
                let (left, right) = (self.lower(*left)?, self.lower(*right)?);
                compare_json(op, left, right)
            }
            (Call::ScaleInterval { function, flipped }, [left, right]) => match flipped {
                true => self.scaled_interval(function, *right, *left),
                false => self.scaled_interval(function, *left, *right),
            },
            (Call::JsonPath { as_text }, [value, path]) => self.json_path(*value, *path, as_text),
            (Call::Age, [left, right]) => self.age(*left, *right),
            (Call::Local { part }, [arg]) => self.local(*arg, part),
            (Call::Instant, [arg]) => self.instant(*arg),
            (Call::AtTimeZone, [zone, arg]) => self.at_time_zone(*zone, *arg),
            (Call::DateBin, [stride, arg, origin]) => self.date_bin(*stride, *arg, *origin),
            (Call::IsFinite, [arg]) => self.is_finite(*arg),
            (Call::Concat, args) => self.concat(args, collation),
            (Call::ConcatWs, args) => self.concat_ws(args, collation),
            _ => Err(unknown()),
        }
    }

    fn plain(
        &mut self,
        function: Function,
        returns: Returns,
        args: &[Node],
        collation: pg_sys::Oid,
        numerics: Numerics,
    ) -> Lowered<Expr> {
        // A result of another type doesn't show the scale of an argument.
        let numerics = match returns {
            Returns::Argument => numerics,
            _ => Numerics::VALUE,
        };
        let mut lowered = vec![];
        for arg in args {
            lowered.push(self.lower_as(*arg, numerics)?);
        }
        let mut ty = match (returns.ty(), lowered.first()) {
            (Some(ty), _) => ty,
            (None, Some(arg)) if arg.ty.lake.is_decimal() => decimal(scale(arg)?),
            (None, Some(arg)) => sql_type(arg.ty.lake.clone(), pg_sys::Oid::from(arg.ty.oid)),
            (None, None) => return Err("a function without arguments is not lowered".to_owned()),
        };
        if ty.lake == LakeType::Text && !is_printed(&ty) {
            ty.collation = collation.to_u32();
        }
        Ok(call_of(function, lowered, ty))
    }

    /// `round` and `trunc` of a numeric.
    fn digits(&mut self, round: bool, arg: Node, digits: &[Node]) -> Lowered<Expr> {
        let digits = match digits {
            [] => 0,
            [digits] => constant_int(&self.lower(*digits)?)
                .ok_or("round and trunc are lowered to a constant number of digits only")?,
            _ => return Err("round and trunc take two arguments".to_owned()),
        };
        // Before more digits than there are, nothing is left.
        let digits = digits.max(-i32::from(consts::MAX_PRECISION) - 1);
        if digits > i32::from(consts::MAX_PRECISION) {
            return Err("a numeric has more than 38 digits after the point".to_owned());
        }
        let arg = self.lower_as(arg, Numerics::VALUE)?;
        scale(&arg)?;
        let (ty, digits) = (decimal(digits.max(0) as i8), digits as i16);
        let function = if round {
            Function::Round(digits)
        } else {
            Function::Truncate(digits)
        };
        Ok(call_of(function, vec![arg], ty))
    }

    /// `numeric(precision, scale)`
    fn typmod(&mut self, arg: Node, typmod: Node) -> Lowered<Expr> {
        let typmod = constant_int(&self.lower(typmod)?).ok_or("a precision is not constant")?;
        // SAFETY: a type that exists.
        let lake = unsafe { expression_type(pg_sys::NUMERICOID, typmod) }
            .ok_or("a numeric of this precision and scale is not lowered")?;
        let ty = SqlType {
            typmod,
            ..sql_type(lake, pg_sys::NUMERICOID)
        };
        if let Some(read) = self.read_numeric(arg, &ty) {
            return read;
        }
        let arg = self.lower_as(arg, Numerics::VALUE)?;
        scale(&arg)?;
        Ok(call_of(Function::Convert, vec![arg], ty))
    }
}

pub fn call_of(function: Function, args: Vec<Expr>, ty: SqlType) -> Expr {
    Expr {
        ty,
        kind: ExprKind::Call { function, args },
    }
}

/// A comparison or a LIKE.
pub fn condition(call: Call, left: Expr, right: Expr, collation: pg_sys::Oid) -> Lowered<Expr> {
    match call {
        Call::Compare(op) => compare(op, left, right, collation),
        Call::ComparePadded(op) => compare_padded(op, left, right, collation),
        Call::CompareIntervals(op) => Ok(comparison(op, length(left), length(right))),
        Call::CompareJson(op) => compare_json(op, left, right),
        Call::Like { negated } => like(left, right, collation, negated),
        Call::ILike { negated } => {
            check_letters(collation)?;
            let pattern = match right.kind {
                ExprKind::Const(Some(Value::Text(pattern))) => {
                    ExprKind::Const(Some(Value::Text(pattern.to_ascii_lowercase())))
                }
                other => other,
            };
            let right = Expr {
                ty: right.ty,
                kind: pattern,
            };
            let lower = |text| {
                let ty = sql_type(LakeType::Text, pg_sys::TEXTOID);
                call_of(Function::Lower, vec![text], ty)
            };
            let right = match right.kind {
                ExprKind::Const(_) => right,
                _ => lower(right),
            };
            let left = lower(left);
            like(left, right, collation, negated)
        }
        _ => Err("a condition of another kind is not lowered".to_owned()),
    }
}

fn like(arg: Expr, pattern: Expr, collation: pg_sys::Oid, negated: bool) -> Lowered<Expr> {
    if !is_deterministic(collation) {
        return Err("LIKE under a nondeterministic collation is not lowered".to_owned());
    }
    let kind = match pattern.kind {
        ExprKind::Const(None) if !arg.can_fail() => return Ok(boolean(ExprKind::Const(None))),
        ExprKind::Const(Some(Value::Text(pattern))) if is_complete(&pattern) => ExprKind::Like {
            arg: Box::new(arg),
            pattern,
            negated,
        },
        kind => {
            let ty = pattern.ty;
            let call = ExprKind::Call {
                function: Function::Like,
                args: vec![arg, Expr { ty, kind }],
            };
            match negated {
                true => ExprKind::Not(Box::new(boolean(call))),
                false => call,
            }
        }
    };
    Ok(boolean(kind))
}

/// Letters other than those of ASCII have cases that only the collation's provider knows.
fn check_letters(collation: pg_sys::Oid) -> Lowered<()> {
    if has_c_letters(collation) {
        Ok(())
    } else {
        Err("upper and lower case are lowered under collation C only".to_owned())
    }
}

fn constant_int(expr: &Expr) -> Option<i32> {
    match expr.kind {
        ExprKind::Const(Some(Value::I32(value))) => Some(value),
        _ => None,
    }
}
