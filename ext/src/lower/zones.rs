//! Instants: what doesn't come from rows, and what depends on a time zone.
//!
//! A time that is computed from constants, parameters of the statement and the time at which it began is a parameter of
//! the fragment ([`ParamKind::Computed`]): Postgres computes it when the node starts, in whatever time zone.
//!
//! What is computed from rows needs a time zone whose offset is always the same. It is a parameter, too
//! ([`ParamKind::UtcOffset`]), so that a plan can be used again after `SET timezone`; where there is no such offset then,
//! Postgres runs the plan.

use super::Lowered;
use super::calls::call_of;
use super::compare::comparison;
use super::dates;
use super::expr::{Exprs, boolean, cast, operator_function};
use super::functions::{Call, Number, Returns};
use super::node::{Node, get, list, nodes, string, type_of};
use super::private::{ParamKind, ParamUse};
use super::table::sql_type;
use crate::pg::time_zone;
use crate::types::expression_type;
use pg_lake_plan::expr::{Expr, ExprKind, Field, Function, Interval};
use pg_lake_plan::ir::CompareOp;
use pg_lake_plan::types::{LakeType, Value};
use pgrx::pg_sys;
use pgrx::pg_sys as pg;

const DAY: i64 = 86_400_000_000;

/// Functions of times that do nothing but compute, and give the same for all of a statement: an error is all that they
/// can do to others.
static COMPUTED: &[u32] = &[
    pg::F_NOW,
    pg::F_TRANSACTION_TIMESTAMP,
    pg::F_DATE_TRUNC_TEXT_TIMESTAMP,
    pg::F_DATE_TRUNC_TEXT_TIMESTAMPTZ,
    pg::F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT,
    pg::F_TIMESTAMPTZ_PL_INTERVAL,
    pg::F_TIMESTAMPTZ_MI_INTERVAL,
    pg::F_TIMESTAMP_PL_INTERVAL,
    pg::F_TIMESTAMP_MI_INTERVAL,
    pg::F_DATE_PL_INTERVAL,
    pg::F_DATE_MI_INTERVAL,
    pg::F_DATE_PLI,
    pg::F_DATE_MII,
    pg::F_INTERVAL_MUL,
    pg::F_MUL_D_INTERVAL,
    pg::F_DATE_TIMESTAMPTZ,
    pg::F_DATE_TIMESTAMP,
    pg::F_TIMESTAMP_DATE,
    pg::F_TIMESTAMP_TIMESTAMPTZ,
    pg::F_TIMESTAMPTZ_DATE,
    pg::F_TIMESTAMPTZ_TIMESTAMP,
    pg::F_TIMEZONE_TEXT_TIMESTAMP,
    pg::F_TIMEZONE_TEXT_TIMESTAMPTZ,
];

impl Exprs<'_> {
    /// A time that Postgres can compute when the node starts; `None` if the expression is something else.
    pub(super) fn given_time(&mut self, node: Node) -> Option<Expr> {
        if !is_computed(node) {
            return None;
        }
        self.computed(node).ok()
    }

    fn computed(&mut self, node: Node) -> Lowered<Expr> {
        let typid = type_of(node).0;
        // SAFETY: a type of the plan.
        let lake = unsafe { expression_type(typid, -1) }
            .filter(is_time)
            .ok_or("a time of another type is not lowered")?;
        // SAFETY: an expression; its text is copied.
        let text = string(unsafe { pg_sys::nodeToString(node.cast_const().cast()) });
        let number = self.param_number(ParamUse {
            kind: ParamKind::Computed(text),
            id: 0,
            typid: typid.to_u32(),
            lake: lake.clone(),
            whole: false,
        });
        Ok(Expr {
            ty: sql_type(lake, typid),
            kind: ExprKind::Param(number),
        })
    }

    /// The session's.
    pub(super) fn offset(&mut self) -> Lowered<Expr> {
        if time_zone::offset_of_session().is_none() {
            let zone = time_zone::name_of_session();
            return Err(format!(
                "time zone {zone} has no single offset, which this needs"
            ));
        }
        let ty = Number::Int8.ty();
        let number = self.param_number(ParamUse {
            kind: ParamKind::UtcOffset,
            id: 0,
            typid: ty.oid,
            lake: ty.lake.clone(),
            whole: false,
        });
        Ok(Expr {
            ty,
            kind: ExprKind::Param(number),
        })
    }

    /// A `timestamptz` as a timestamp of the session's time zone, or its date or time.
    pub(super) fn local(&mut self, arg: Node, part: Option<Returns>) -> Lowered<Expr> {
        let arg = self.lower(arg)?;
        let local = to_local(arg, self.offset()?);
        Ok(match part.and_then(Returns::ty) {
            Some(ty) => call_of(Function::Convert, vec![local], ty),
            None => local,
        })
    }

    /// A timestamp or a date of the session's time zone as a `timestamptz`.
    pub(super) fn instant(&mut self, arg: Node) -> Lowered<Expr> {
        let function = match type_of(arg).0 {
            pg_sys::TIMESTAMPTZOID => return self.lower(arg),
            pg_sys::TIMESTAMPOID => pg::F_TIMESTAMPTZ_TIMESTAMP,
            pg_sys::DATEOID => pg::F_TIMESTAMPTZ_DATE,
            _ => return Err("a time of another type is not lowered".to_owned()),
        };
        if is_given(arg) {
            // SAFETY: makes a node.
            let conversion = unsafe {
                pg_sys::makeFuncExpr(
                    pg_sys::Oid::from(function),
                    pg_sys::TIMESTAMPTZOID,
                    list([arg]),
                    pg_sys::InvalidOid,
                    pg_sys::InvalidOid,
                    pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
                )
            };
            return self.computed(conversion.cast());
        }
        let arg = self.lower(arg)?;
        let offset = self.offset()?;
        Ok(to_instant(arg, offset))
    }

    /// `AT TIME ZONE`
    pub(super) fn at_time_zone(&mut self, zone: Node, arg: Node) -> Lowered<Expr> {
        let zone = self.lower(zone)?;
        let ExprKind::Const(Some(Value::Text(zone))) = &zone.kind else {
            return Err("a time zone that is not constant is not lowered".to_owned());
        };
        let offset = time_zone::offset_of(zone)
            .ok_or_else(|| format!("time zone {zone} has no single offset, which this needs"))?;
        let arg = self.lower(arg)?;
        match arg.ty.lake {
            LakeType::Timestamptz => Ok(to_local(arg, constant(offset))),
            LakeType::Timestamp => Ok(to_instant(arg, constant(offset))),
            _ => Err("AT TIME ZONE of this type is not lowered".to_owned()),
        }
    }

    /// Compares a `timestamptz` with a date or a timestamp of the session's time zone.
    pub(super) fn compare_instants(
        &mut self,
        op: CompareOp,
        left: Node,
        right: Node,
    ) -> Lowered<Expr> {
        let (left, right) = (self.instant(left)?, self.instant(right)?);
        Ok(comparison(op, left, right))
    }

    /// `extract`, `date_part` or `date_trunc`.
    pub(super) fn field(&mut self, call: Call, field: Field, arg: Node) -> Lowered<Expr> {
        if type_of(arg).0 == pg_sys::INTERVALOID {
            return self.field_of_interval(call, field, arg);
        }
        let arg = self.lower(arg)?;
        if arg.ty.lake != LakeType::Timestamptz {
            return dates::of_field(call, field, arg);
        }
        if call == Call::DateTrunc && field.truncates() {
            let ty = arg.ty.clone();
            let args = vec![arg, self.offset()?];
            return Ok(call_of(Function::DateTruncAt(field), args, ty));
        }
        let offset = match field {
            Field::Epoch => constant(0),
            _ => self.offset()?,
        };
        dates::of_field(call, field, to_local(arg, offset))
    }

    /// A date, a timestamp or a `timestamptz`, and a constant interval.
    pub(super) fn plus_interval(&mut self, arg: Node, interval: Interval) -> Lowered<Expr> {
        let arg = self.lower(arg)?;
        if arg.ty.lake != LakeType::Timestamptz {
            return Ok(dates::add_interval(arg, interval));
        }
        let ty = arg.ty.clone();
        let offset = match (interval.months, interval.days) {
            (0, 0) => constant(0),
            _ => self.offset()?,
        };
        let function = Function::AddIntervalAt(interval);
        Ok(call_of(function, vec![arg, offset], ty))
    }

    /// True where the time isn't null.
    pub(super) fn is_finite(&mut self, arg: Node) -> Lowered<Expr> {
        let arg = self.lower(arg)?;
        let given = boolean(ExprKind::IsNotNull(Box::new(arg)));
        let holds = boolean(ExprKind::Const(Some(Value::Bool(true))));
        Ok(boolean(ExprKind::Case {
            branches: vec![(given, holds)],
            otherwise: None,
        }))
    }

    /// `date_bin` of a constant stride.
    pub(super) fn date_bin(&mut self, stride: Node, arg: Node, origin: Node) -> Lowered<Expr> {
        let by = dates::interval(stride, false)?;
        let stride = i64::from(by.days)
            .checked_mul(DAY)
            .and_then(|days| days.checked_add(by.microseconds))
            .filter(|stride| by.months == 0 && *stride > 0)
            .ok_or("date_bin of such a stride is not lowered")?;
        let args = vec![self.lower(arg)?, self.lower(origin)?];
        let ty = args[0].ty.clone();
        Ok(call_of(Function::DateBin(stride), args, ty))
    }
}

fn is_time(lake: &LakeType) -> bool {
    matches!(
        lake,
        LakeType::Date | LakeType::Timestamp | LakeType::Timestamptz
    )
}

/// Whether an expression is a computation over what is given before the plan runs.
fn is_computed(node: Node) -> bool {
    let of_given = |function: pg_sys::Oid, args| {
        COMPUTED.contains(&function.to_u32()) && nodes(args).into_iter().all(is_given)
    };
    if let Some(call) = get::<pg_sys::FuncExpr>(node) {
        return of_given(call.funcid, call.args);
    }
    if let Some(op) = get::<pg_sys::OpExpr>(node) {
        return of_given(operator_function(op.opfuncid, op.opno), op.args);
    }
    get::<pg_sys::SQLValueFunction>(node).is_some_and(|value| {
        use pg_sys::SQLValueFunctionOp::{
            SVFOP_CURRENT_DATE, SVFOP_CURRENT_TIMESTAMP, SVFOP_CURRENT_TIMESTAMP_N,
            SVFOP_LOCALTIMESTAMP, SVFOP_LOCALTIMESTAMP_N,
        };
        matches!(
            value.op,
            SVFOP_CURRENT_DATE
                | SVFOP_CURRENT_TIMESTAMP
                | SVFOP_CURRENT_TIMESTAMP_N
                | SVFOP_LOCALTIMESTAMP
                | SVFOP_LOCALTIMESTAMP_N
        )
    })
}

fn is_given(node: Node) -> bool {
    let of_statement = |param: &pg_sys::Param| param.paramkind == pg_sys::ParamKind::PARAM_EXTERN;
    get::<pg_sys::Const>(node).is_some()
        || get::<pg_sys::Param>(node).is_some_and(of_statement)
        || is_computed(node)
}

/// Microseconds.
fn constant(offset: i64) -> Expr {
    Expr {
        ty: Number::Int8.ty(),
        kind: ExprKind::Const(Some(Value::I64(offset))),
    }
}

/// What clocks at this offset show of a `timestamptz`.
pub fn to_local(arg: Expr, offset: Expr) -> Expr {
    let ty = sql_type(LakeType::Timestamp, pg_sys::TIMESTAMPOID);
    call_of(Function::ToLocal, vec![arg, offset], ty)
}

/// The reverse, also of a date's midnight.
fn to_instant(arg: Expr, offset: Expr) -> Expr {
    let timestamp = sql_type(LakeType::Timestamp, pg_sys::TIMESTAMPOID);
    let ty = sql_type(LakeType::Timestamptz, pg_sys::TIMESTAMPTZOID);
    let args = vec![cast(arg, &timestamp), offset];
    call_of(Function::ToInstant, args, ty)
}
