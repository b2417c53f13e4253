//! Boolean and conditional expressions.

use super::Lowered;
use super::calls::condition;
use super::consts::decimal;
use super::expr::{Exprs, boolean, cast, operator_function};
use super::functions::{self, Call};
use super::node::{Distinct, Node, NullIf, get, nodes, tag};
use super::numeric::{Numerics, scale};
use super::order::is_ordered;
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind};
use pg_lake_plan::types::{SqlType, Value};
use pgrx::pg_sys;

impl Exprs<'_> {
    pub(super) fn control(&mut self, node: Node, numerics: Numerics) -> Lowered<Expr> {
        // Parts of a result need one type, which must be known.
        let numerics = numerics.early();
        if let Some(expr) = get::<pg_sys::BoolExpr>(node) {
            return self.bool_expr(expr);
        }
        if let Some(test) = get::<pg_sys::NullTest>(node) {
            return self.null_test(test);
        }
        if let Some(test) = get::<pg_sys::BooleanTest>(node) {
            return self.boolean_test(test);
        }
        if let Some(list) = get::<pg_sys::ScalarArrayOpExpr>(node) {
            return self.over_array(list);
        }
        if let Some(case) = get::<pg_sys::CaseExpr>(node) {
            return self.case(case, numerics);
        }
        if get::<pg_sys::CaseTestExpr>(node).is_some() {
            let value = self.case_values.last().cloned();
            let value = value.ok_or("a CASE without an argument")?;
            self.grow(count(&value))?;
            return Ok(value);
        }
        if let Some(coalesce) = get::<pg_sys::CoalesceExpr>(node) {
            return self.coalesce(coalesce, numerics);
        }
        if let Some(extreme) = get::<pg_sys::MinMaxExpr>(node) {
            return self.extreme(extreme, numerics);
        }
        if let Some(conversion) = get::<pg_sys::CoerceViaIO>(node) {
            return self.printed(conversion);
        }
        if let Some(Distinct(operator)) = get::<Distinct>(node) {
            return self.distinct(operator);
        }
        if let Some(NullIf(operator)) = get::<NullIf>(node) {
            return self.null_if(operator, numerics);
        }
        let kind = format!("{:?}", tag(node));
        Err(format!("{} is not lowered", kind.trim_start_matches("T_")))
    }

    fn bool_expr(&mut self, expr: &pg_sys::BoolExpr) -> Lowered<Expr> {
        let args = nodes(expr.args);
        if expr.boolop == pg_sys::BoolExprType::NOT_EXPR {
            let arg = args.first().copied().ok_or("NOT of nothing")?;
            return Ok(boolean(ExprKind::Not(Box::new(self.lower(arg)?))));
        }
        let is_and = expr.boolop == pg_sys::BoolExprType::AND_EXPR;
        let mut terms = vec![];
        for arg in args {
            let term = self.lower(arg)?;
            match term.kind {
                ExprKind::And(list) if is_and => terms.extend(list),
                ExprKind::Or(list) if !is_and => terms.extend(list),
                kind => terms.push(Expr { ty: term.ty, kind }),
            }
        }
        Ok(boolean(if is_and {
            ExprKind::And(terms)
        } else {
            ExprKind::Or(terms)
        }))
    }

    fn null_test(&mut self, test: &pg_sys::NullTest) -> Lowered<Expr> {
        if test.argisrow {
            return Err("IS NULL of a row is not lowered".to_owned());
        }
        let arg = Box::new(self.any(test.arg.cast())?);
        Ok(boolean(match test.nulltesttype {
            pg_sys::NullTestType::IS_NULL => ExprKind::IsNull(arg),
            _ => ExprKind::IsNotNull(arg),
        }))
    }

    fn boolean_test(&mut self, test: &pg_sys::BooleanTest) -> Lowered<Expr> {
        use pg_sys::BoolTestType::{
            IS_FALSE, IS_NOT_FALSE, IS_NOT_TRUE, IS_NOT_UNKNOWN, IS_TRUE, IS_UNKNOWN,
        };
        let arg = Box::new(self.lower(test.arg.cast())?);
        let (value, negated) = match test.booltesttype {
            IS_TRUE => (true, false),
            IS_NOT_TRUE => (true, true),
            IS_FALSE => (false, false),
            IS_NOT_FALSE => (false, true),
            IS_UNKNOWN => return Ok(boolean(ExprKind::IsNull(arg))),
            IS_NOT_UNKNOWN => return Ok(boolean(ExprKind::IsNotNull(arg))),
            _ => return Err("this test of a boolean is not lowered".to_owned()),
        };
        Ok(boolean(ExprKind::BoolTest {
            arg,
            value,
            negated,
        }))
    }

    fn case(&mut self, case: &pg_sys::CaseExpr, numerics: Numerics) -> Lowered<Expr> {
        let (conditions, results) = self.conditions_and_results(case, numerics)?;
        let ty = result_type(&results, case.casetype, case.casecollid, numerics)?;
        build_case(conditions, results, ty)
    }

    /// A CASE over numerics of different scales: its values with the largest scale, and the scale that Postgres'
    /// value of each row has, null where the value is.
    pub(super) fn scaled_case(&mut self, node: Node) -> Lowered<(Expr, Expr)> {
        let case = get::<pg_sys::CaseExpr>(node)
            .filter(|case| case.casetype == pg_sys::NUMERICOID)
            .ok_or("a numeric of unknown scale is not lowered")?;
        let (conditions, results) = self.conditions_and_results(case, Numerics::SHOWN)?;
        let scale_of = |result: &Expr| match result.kind {
            ExprKind::Const(None) => Ok(None),
            _ => scale(result).map(Some),
        };
        let scales = results.iter().map(scale_of).collect::<Lowered<Vec<_>>>()?;
        let largest = scales.iter().flatten().max().copied().unwrap_or(0);
        let ty = decimal(largest);
        let values: Vec<Expr> = results
            .into_iter()
            .map(|result| cast(result, &ty))
            .collect();
        let int4 = functions::Number::Int4.ty();
        let scales = (scales.into_iter().zip(&values))
            .map(|(scale, value)| match scale {
                None => null(&int4),
                Some(scale) => when_not_null(value, i32::from(scale), &int4),
            })
            .collect();
        Ok((
            case_of(conditions.clone(), values, ty),
            case_of(conditions, scales, int4),
        ))
    }

    fn conditions_and_results(
        &mut self,
        case: &pg_sys::CaseExpr,
        numerics: Numerics,
    ) -> Lowered<(Vec<Expr>, Vec<Expr>)> {
        let simple = !case.arg.is_null();
        if simple {
            let value = self.lower(case.arg.cast())?;
            self.case_values.push(value);
        }
        let branches = self.branches(case, numerics);
        if simple {
            self.case_values.pop();
        }
        let (conditions, mut results) = branches?;
        results.push(match case.defresult.is_null() {
            true => return Err("a CASE without ELSE".to_owned()),
            false => self.lower_as(case.defresult.cast(), numerics)?,
        });
        Ok((conditions, results))
    }

    fn branches(
        &mut self,
        case: &pg_sys::CaseExpr,
        numerics: Numerics,
    ) -> Lowered<(Vec<Expr>, Vec<Expr>)> {
        let (mut conditions, mut results) = (vec![], vec![]);
        for when in nodes(case.args) {
            let when = get::<pg_sys::CaseWhen>(when).ok_or("a malformed CASE")?;
            conditions.push(self.lower(when.expr.cast())?);
            // A nested CASE's own argument is on top only within it.
            results.push(self.lower_as(when.result.cast(), numerics)?);
        }
        Ok((conditions, results))
    }

    fn coalesce(&mut self, coalesce: &pg_sys::CoalesceExpr, numerics: Numerics) -> Lowered<Expr> {
        let results = self.each(coalesce.args, numerics)?;
        let conditional = results.len().saturating_sub(1);
        let mut conditions = vec![];
        for value in &results[..conditional] {
            self.grow(count(value))?;
            conditions.push(boolean(ExprKind::IsNotNull(Box::new(value.clone()))));
        }
        let (typid, collation) = (coalesce.coalescetype, coalesce.coalescecollid);
        let ty = result_type(&results, typid, collation, numerics)?;
        build_case(conditions, results, ty)
    }

    fn each(&mut self, args: *mut pg_sys::List, numerics: Numerics) -> Lowered<Vec<Expr>> {
        let mut lowered = vec![];
        for arg in nodes(args) {
            lowered.push(self.lower_as(arg, numerics)?);
        }
        Ok(lowered)
    }

    /// `GREATEST` and `LEAST`.
    fn extreme(&mut self, extreme: &pg_sys::MinMaxExpr, numerics: Numerics) -> Lowered<Expr> {
        let args = self.each(extreme.args, numerics)?;
        let ty = result_type(&args, extreme.minmaxtype, extreme.minmaxcollid, numerics)?;
        if !is_ordered(&ty, extreme.inputcollid) {
            return Err("GREATEST and LEAST of this type or collation are not lowered".to_owned());
        }
        let args = args.into_iter().map(|arg| cast(arg, &ty)).collect();
        let greatest = extreme.op == pg_sys::MinMaxOp::IS_GREATEST;
        Ok(Expr {
            ty,
            kind: ExprKind::Extreme { greatest, args },
        })
    }

    /// Both sides of an equality.
    fn equality(
        &mut self,
        operator: &pg_sys::OpExpr,
        numerics: Numerics,
    ) -> Lowered<(Call, Expr, Expr)> {
        let function = operator_function(operator.opfuncid, operator.opno);
        let call = functions::known(function).filter(|call| {
            matches!(
                call,
                Call::Compare(CompareOp::Eq)
                    | Call::ComparePadded(CompareOp::Eq)
                    | Call::CompareIntervals(CompareOp::Eq)
                    | Call::CompareJson(CompareOp::Eq)
            )
        });
        let call = call.ok_or("an equality of other types is not lowered")?;
        match nodes(operator.args).as_slice() {
            [left, right] => Ok((
                call,
                self.lower_as(*left, numerics)?,
                self.lower_as(*right, Numerics::VALUE)?,
            )),
            _ => Err("an operator without two sides".to_owned()),
        }
    }

    /// `left IS DISTINCT FROM right`: not equal, unless both are null.
    fn distinct(&mut self, operator: &pg_sys::OpExpr) -> Lowered<Expr> {
        let (call, left, right) = self.equality(operator, Numerics::VALUE)?;
        let is_value = |expr: &Expr| matches!(expr.kind, ExprKind::Const(Some(_)));
        let never_both = is_value(&left) || is_value(&right);
        let mut terms = vec![];
        if !never_both {
            self.grow(count(&left) + count(&right))?;
            for side in [&left, &right] {
                terms.push(boolean(ExprKind::IsNotNull(Box::new(side.clone()))));
            }
        }
        let equal = condition(call, left, right, operator.inputcollid)?;
        let differs = boolean(ExprKind::BoolTest {
            arg: Box::new(equal),
            value: true,
            negated: true,
        });
        if never_both {
            return Ok(differs);
        }
        let any_value = boolean(ExprKind::Or(terms));
        Ok(boolean(ExprKind::And(vec![differs, any_value])))
    }

    /// `NULLIF(left, right)`: null where they are equal, otherwise the left one.
    fn null_if(&mut self, operator: &pg_sys::OpExpr, numerics: Numerics) -> Lowered<Expr> {
        let (call, left, right) = self.equality(operator, numerics)?;
        self.grow(count(&left))?;
        let ty = left.ty.clone();
        let null = Expr {
            ty: ty.clone(),
            kind: ExprKind::Const(None),
        };
        let equal = condition(call, left.clone(), right, operator.inputcollid)?;
        Ok(Expr {
            ty,
            kind: ExprKind::Case {
                branches: vec![(equal, null)],
                otherwise: Some(Box::new(left)),
            },
        })
    }
}

/// `conditions` and one more result, which is that of ELSE, of a common type.
fn build_case(conditions: Vec<Expr>, results: Vec<Expr>, ty: SqlType) -> Lowered<Expr> {
    let mut results: Vec<Expr> = results.into_iter().map(|r| cast(r, &ty)).collect();
    let otherwise = results
        .pop()
        .filter(|r| r.kind != ExprKind::Const(None))
        .map(Box::new);
    if conditions.is_empty() {
        return otherwise
            .map(|r| *r)
            .ok_or_else(|| "a COALESCE of nothing".to_owned());
    }
    Ok(Expr {
        ty,
        kind: ExprKind::Case {
            branches: conditions.into_iter().zip(results).collect(),
            otherwise,
        },
    })
}

/// `conditions` and the results of their type, of which the last one is that of ELSE.
fn case_of(conditions: Vec<Expr>, mut results: Vec<Expr>, ty: SqlType) -> Expr {
    let otherwise = results.pop().filter(|r| r.kind != ExprKind::Const(None));
    Expr {
        ty,
        kind: ExprKind::Case {
            branches: conditions.into_iter().zip(results).collect(),
            otherwise: otherwise.map(Box::new),
        },
    }
}

fn null(ty: &SqlType) -> Expr {
    Expr {
        ty: ty.clone(),
        kind: ExprKind::Const(None),
    }
}

pub fn when_not_null(value: &Expr, number: i32, ty: &SqlType) -> Expr {
    let number = Expr {
        ty: ty.clone(),
        kind: ExprKind::Const(Some(Value::I32(number))),
    };
    if matches!(value.kind, ExprKind::Const(_)) {
        return number;
    }
    let given = boolean(ExprKind::IsNotNull(Box::new(value.clone())));
    case_of(vec![given], vec![number, null(ty)], ty.clone())
}

/// The common type of results. Numerics that are shown must agree in scale: Postgres shows each row's own.
fn result_type(
    results: &[Expr],
    typid: pg_sys::Oid,
    collation: pg_sys::Oid,
    numerics: Numerics,
) -> Lowered<SqlType> {
    let typed: Vec<&Expr> = results
        .iter()
        .filter(|r| r.kind != ExprKind::Const(None))
        .collect();
    let Some(first) = typed.first().copied().or(results.first()) else {
        return Err("a CASE without results".to_owned());
    };
    let lake = if typed.iter().all(|r| r.ty.lake == first.ty.lake) {
        first.ty.lake.clone()
    } else if typid == pg_sys::NUMERICOID {
        let mut common = scale(first)?;
        for result in &typed {
            let own = scale(result)?;
            if own != common && !numerics.value_only {
                return Err("results of CASE, COALESCE … differ in scale".to_owned());
            }
            common = common.max(own);
        }
        decimal(common).lake
    } else {
        return Err("results of CASE, COALESCE … differ in type".to_owned());
    };
    Ok(SqlType {
        lake,
        oid: typid.to_u32(),
        typmod: -1,
        collation: collation.to_u32(),
    })
}

pub fn count(expr: &Expr) -> usize {
    1 + expr.children().into_iter().map(count).sum::<usize>()
}

/// Quals as one predicate, `None` if there are none. A null ends them, as it doesn't end an AND: one that is alone isn't
/// taken apart.
pub fn conjunction(mut quals: Vec<Expr>) -> Option<Expr> {
    let is_and = |qual: &Expr| matches!(qual.kind, ExprKind::And(_)) && qual.can_fail();
    match quals.len() {
        0 => None,
        1 if !quals.iter().any(is_and) => quals.pop(),
        _ => Some(boolean(ExprKind::And(quals))),
    }
}
