//! Boolean and conditional expressions.

use super::Lowered;
use super::compare::{padded, padded_length};
use super::consts::{self, adapt, decimal, type_name};
use super::expr::{Exprs, boolean, cast, operator_function, scale};
use super::functions::{self, Call};
use super::node::{Node, get, nodes, tag};
use super::order::is_deterministic;
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;

/// An `IN` list that is longer stays in Postgres, which hashes it.
const MAX_LIST: i32 = 10_000;

impl Exprs<'_> {
    pub(super) fn control(&mut self, node: Node) -> Lowered<Expr> {
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
            return self.in_list(list);
        }
        if let Some(case) = get::<pg_sys::CaseExpr>(node) {
            return self.case(case);
        }
        if get::<pg_sys::CaseTestExpr>(node).is_some() {
            let value = self.case_values.last().cloned();
            let value = value.ok_or("a CASE without an argument")?;
            self.grow(count(&value))?;
            return Ok(value);
        }
        if let Some(coalesce) = get::<pg_sys::CoalesceExpr>(node) {
            return self.coalesce(coalesce);
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

    /// `x = ANY (constant)` and `x <> ALL (constant)`.
    fn in_list(&mut self, list: &pg_sys::ScalarArrayOpExpr) -> Lowered<Expr> {
        let function = operator_function(list.opfuncid, list.opno);
        let negated = match (functions::known(function), list.useOr) {
            (Some(Call::Compare(CompareOp::Eq) | Call::ComparePadded(CompareOp::Eq)), true) => {
                false
            }
            (Some(Call::Compare(CompareOp::Ne) | Call::ComparePadded(CompareOp::Ne)), false) => {
                true
            }
            _ => return Err("ANY and ALL are lowered for = ANY and <> ALL only".to_owned()),
        };
        let args = nodes(list.args);
        let &[arg, array] = args.as_slice() else {
            return Err("ANY needs two arguments".to_owned());
        };
        let arg = self.lower(arg)?;
        let elements = get::<pg_sys::Const>(array)
            .filter(|array| !array.constisnull)
            .ok_or("ANY and ALL are lowered for constant arrays only")
            .map(elements)??;
        if elements.is_empty() {
            return Ok(boolean(ExprKind::Const(Some(Value::Bool(negated)))));
        }
        self.grow(elements.len())?;
        let length = padded_length(&arg);
        match &arg.ty.lake {
            LakeType::Text if !is_deterministic(list.inputcollid) => {
                return Err("a nondeterministic collation is not lowered".to_owned());
            }
            LakeType::Text if arg.ty.oid == pg_sys::BPCHAROID.to_u32() && length.is_none() => {
                return Err("character without a length is not compared".to_owned());
            }
            LakeType::List { .. } | LakeType::Struct(_) => {
                return Err("nested types are not compared by the engine".to_owned());
            }
            _ => {}
        }
        let mut values = vec![];
        for element in elements {
            let element = match length {
                Some(length) => padded(element, length),
                None => element,
            };
            let adapted = (comparable(&element.ty.lake, &arg.ty.lake))
                .then(|| adapt(&element, &arg.ty))
                .flatten()
                .ok_or("an array's element is not of the compared type")?;
            match adapted.kind {
                ExprKind::Const(value) => values.push(value),
                _ => return Err("an array's element is not constant".to_owned()),
            }
        }
        Ok(boolean(ExprKind::InList {
            arg: Box::new(arg),
            values,
            negated,
        }))
    }

    fn case(&mut self, case: &pg_sys::CaseExpr) -> Lowered<Expr> {
        let simple = !case.arg.is_null();
        if simple {
            let value = self.lower(case.arg.cast())?;
            self.case_values.push(value);
        }
        let branches = self.branches(case);
        if simple {
            self.case_values.pop();
        }
        let (conditions, mut results) = branches?;
        results.push(match case.defresult.is_null() {
            true => return Err("a CASE without ELSE".to_owned()),
            false => self.lower(case.defresult.cast())?,
        });
        build_case(conditions, results, case.casetype, case.casecollid)
    }

    fn branches(&mut self, case: &pg_sys::CaseExpr) -> Lowered<(Vec<Expr>, Vec<Expr>)> {
        let (mut conditions, mut results) = (vec![], vec![]);
        for when in nodes(case.args) {
            let when = get::<pg_sys::CaseWhen>(when).ok_or("a malformed CASE")?;
            conditions.push(self.lower(when.expr.cast())?);
            // A nested CASE's own argument is on top only within it.
            results.push(self.lower(when.result.cast())?);
        }
        Ok((conditions, results))
    }

    fn coalesce(&mut self, coalesce: &pg_sys::CoalesceExpr) -> Lowered<Expr> {
        let mut results = vec![];
        for arg in nodes(coalesce.args) {
            results.push(self.lower(arg)?);
        }
        let conditional = results.len().saturating_sub(1);
        let mut conditions = vec![];
        for value in &results[..conditional] {
            self.grow(count(value))?;
            conditions.push(boolean(ExprKind::IsNotNull(Box::new(value.clone()))));
        }
        build_case(
            conditions,
            results,
            coalesce.coalescetype,
            coalesce.coalescecollid,
        )
    }
}

/// `conditions` and one more result, which is that of ELSE.
fn build_case(
    conditions: Vec<Expr>,
    results: Vec<Expr>,
    typid: pg_sys::Oid,
    collation: pg_sys::Oid,
) -> Lowered<Expr> {
    let ty = result_type(&results, typid, collation)?;
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

/// The common type of results. Numerics must agree in scale: Postgres shows each row's own.
fn result_type(results: &[Expr], typid: pg_sys::Oid, collation: pg_sys::Oid) -> Lowered<SqlType> {
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
        let common = scale(first)?;
        for result in &typed {
            if scale(result)? != common {
                return Err("results of CASE or COALESCE differ in scale".to_owned());
            }
        }
        decimal(common).lake
    } else {
        return Err("results of CASE or COALESCE differ in type".to_owned());
    };
    Ok(SqlType {
        lake,
        oid: typid.to_u32(),
        typmod: -1,
        collation: collation.to_u32(),
    })
}

/// The elements of a constant array, as constants.
fn elements(array: &pg_sys::Const) -> Lowered<Vec<Expr>> {
    let (mut datums, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    let (mut length, mut by_value, mut align) = (0, false, 0);
    // SAFETY: the constant is an array; the element type's properties are looked up.
    let typid = unsafe {
        let array = pg_sys::pg_detoast_datum(array.constvalue.cast_mut_ptr());
        let array = array.cast::<pg_sys::ArrayType>();
        let typid = (*array).elemtype;
        pg_sys::get_typlenbyvalalign(typid, &mut length, &mut by_value, &mut align);
        pg_sys::deconstruct_array(
            array,
            typid,
            length.into(),
            by_value,
            align,
            &mut datums,
            &mut nulls,
            &mut count,
        );
        typid
    };
    if count > MAX_LIST {
        return Err(format!(
            "a list of {} has too many elements",
            type_name(typid)
        ));
    }
    (0..count as usize)
        .map(|i| {
            // SAFETY: below the number of elements.
            let datum = unsafe { (!*nulls.add(i)).then(|| *datums.add(i)) };
            consts::literal(typid, -1, pg_sys::InvalidOid, datum)
        })
        .collect()
}

/// Whether constants of one type may be taken for the other's.
fn comparable(element: &LakeType, arg: &LakeType) -> bool {
    element == arg
        || (element.is_integer() && arg.is_integer())
        || (element.is_float() && arg.is_float())
        || (element.is_decimal() && arg.is_decimal())
}

fn count(expr: &Expr) -> usize {
    1 + expr.children().into_iter().map(count).sum::<usize>()
}

/// The terms as one predicate, `None` if there are none.
pub fn conjunction(mut terms: Vec<Expr>) -> Option<Expr> {
    match terms.len() {
        0 | 1 => terms.pop(),
        _ => Some(boolean(ExprKind::And(terms))),
    }
}
