//! Conditions over the elements of an array: `x = ANY (…)`, `x <> ALL (…)`, `x LIKE ANY (…)`.

use super::Lowered;
use super::calls::condition;
use super::compare::{padded, padded_length, trimmed};
use super::consts::{self, adapt, type_name};
use super::control::count;
use super::expr::{Exprs, boolean, operator_function};
use super::functions::{self, Call};
use super::node::{Node, get, nodes};
use super::numeric::Numerics;
use super::order::is_deterministic;
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind};
use pg_lake_plan::types::{LakeType, Value};
use pgrx::pg_sys;

/// An `IN` list that is longer stays in Postgres, which hashes it.
const MAX_LIST: i32 = 10_000;

/// Conditions that a list is taken apart to.
const MAX_CONDITIONS: usize = 100;

impl Exprs<'_> {
    pub(super) fn over_array(&mut self, list: &pg_sys::ScalarArrayOpExpr) -> Lowered<Expr> {
        let function = operator_function(list.opfuncid, list.opno);
        let unknown = || format!("function {} is not lowered", functions::name(function));
        let call = functions::known(function).ok_or_else(unknown)?;
        let args = nodes(list.args);
        let &[arg, array] = args.as_slice() else {
            return Err("ANY needs two arguments".to_owned());
        };
        let arg = self.lower_as(arg, Numerics::VALUE.early())?;
        let elements = self.elements(array)?;
        if elements.is_empty() {
            if arg.can_fail() {
                return Err("an expression that can fail is not left out".to_owned());
            }
            return Ok(boolean(ExprKind::Const(Some(Value::Bool(!list.useOr)))));
        }
        let is_equality =
            |op: CompareOp| matches!(call, Call::Compare(o) | Call::ComparePadded(o) if o == op);
        let negated = is_equality(CompareOp::Ne) && !list.useOr;
        if negated || (is_equality(CompareOp::Eq) && list.useOr) {
            self.grow(elements.len())?;
            if let Some(found) = in_list(&arg, &elements, list.inputcollid, negated)? {
                return Ok(found);
            }
        }
        self.each_condition(call, &arg, elements, list)
    }

    /// The elements of a constant or of an `ARRAY[…]`.
    fn elements(&mut self, array: Node) -> Lowered<Vec<Expr>> {
        if let Some(array) = get::<pg_sys::Const>(array).filter(|array| !array.constisnull) {
            return elements(array);
        }
        // An array of varchar as one of text.
        let array = get::<pg_sys::RelabelType>(array).map_or(array, |relabel| relabel.arg.cast());
        let array = get::<pg_sys::ArrayExpr>(array)
            .filter(|array| !array.multidims)
            .ok_or("ANY and ALL are lowered for constant arrays only")?;
        let mut lowered = vec![];
        for element in nodes(array.elements) {
            let element = self.lower_as(element, Numerics::VALUE)?;
            // Postgres evaluates all of them first.
            if element.can_fail() {
                return Err("an array's element that can fail is not lowered".to_owned());
            }
            lowered.push(element);
        }
        Ok(lowered)
    }

    /// One condition for each element, any or all of which must hold.
    fn each_condition(
        &mut self,
        call: Call,
        arg: &Expr,
        elements: Vec<Expr>,
        list: &pg_sys::ScalarArrayOpExpr,
    ) -> Lowered<Expr> {
        if elements.len() > MAX_CONDITIONS {
            return Err("a list of this kind has too many elements".to_owned());
        }
        self.grow(elements.len() * (1 + count(arg)))?;
        let mut terms = vec![];
        for element in elements {
            terms.push(condition(call, arg.clone(), element, list.inputcollid)?);
        }
        Ok(boolean(if list.useOr {
            ExprKind::Or(terms)
        } else {
            ExprKind::And(terms)
        }))
    }
}

/// `arg [NOT] IN (elements)`; `None` if an element isn't a constant of the compared type.
fn in_list(
    arg: &Expr,
    elements: &[Expr],
    collation: pg_sys::Oid,
    negated: bool,
) -> Lowered<Option<Expr>> {
    let is_padded = arg.ty.oid == pg_sys::BPCHAROID.to_u32();
    let length = padded_length(arg);
    match &arg.ty.lake {
        LakeType::Text if !is_deterministic(collation) => {
            return Err("a nondeterministic collation is not lowered".to_owned());
        }
        LakeType::List { .. } | LakeType::Struct(_) => {
            return Err("nested types are not compared by the engine".to_owned());
        }
        _ => {}
    }
    let mut values = vec![];
    for element in elements {
        let element = match length {
            Some(length) => padded(element.clone(), length),
            None if is_padded => trimmed(element.clone()),
            None => element.clone(),
        };
        let adapted = (comparable(&element.ty.lake, &arg.ty.lake))
            .then(|| adapt(&element, &arg.ty))
            .flatten();
        match adapted.map(|element| element.kind) {
            Some(ExprKind::Const(value)) => values.push(value),
            _ => return Ok(None),
        }
    }
    let arg = match length {
        None if is_padded => trimmed(arg.clone()),
        _ => arg.clone(),
    };
    Ok(Some(boolean(ExprKind::InList {
        arg: Box::new(arg),
        values,
        negated,
    })))
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
