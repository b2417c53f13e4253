//! Conditions over the elements of an array: `x = ANY (…)`, `x <> ALL (…)`, `x LIKE ANY (…)`; and arrays that `unnest` takes.

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
use super::private::ParamUse;
use super::table::sql_type;
use crate::types::{expression_type, has_codec, result_codec, value_of};
use pg_lake_plan::ir::{CompareOp, Expr, ExprKind};
use pg_lake_plan::lists::Array;
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;

/// An `IN` list that is longer stays in Postgres, which hashes it.
const MAX_LIST: i32 = 10_000;

/// The same of the bytes of its texts, or of all of an array that becomes rows: the engine keeps them beside its budget.
const MAX_BYTES: usize = 16 << 20;

/// Elements that an array is taken apart to where they become rows.
const MAX_LISTED: usize = 1000;

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
        let is_equality =
            |op: CompareOp| matches!(call, Call::Compare(o) | Call::ComparePadded(o) if o == op);
        let negated = is_equality(CompareOp::Ne) && !list.useOr;
        let is_list = negated || (is_equality(CompareOp::Eq) && list.useOr);
        if let Some(param) = get::<pg_sys::Param>(relabelled(array)) {
            if !is_list {
                return Err(
                    "ANY and ALL of a parameter are lowered for IN and NOT IN only".to_owned(),
                );
            }
            return self.in_param(arg, param, list.inputcollid, negated);
        }
        if let Some(array) = get::<pg_sys::Const>(array) {
            if array.constisnull && !arg.can_fail() {
                return Ok(boolean(ExprKind::Const(None)));
            }
            if is_list && let Some(values) = constants(&arg, array, list.inputcollid)? {
                self.grow(values.len())?;
                return Ok(boolean(ExprKind::InList {
                    arg: Box::new(unpadded(arg)),
                    values,
                    negated,
                }));
            }
        }
        let elements = self.elements(array)?;
        if elements.is_empty() {
            if arg.can_fail() {
                return Err("an expression that can fail is not left out".to_owned());
            }
            return Ok(boolean(ExprKind::Const(Some(Value::Bool(!list.useOr)))));
        }
        if is_list {
            self.grow(elements.len())?;
            if let Some(found) = in_list(&arg, &elements, list.inputcollid, negated)? {
                return Ok(found);
            }
        }
        self.each_condition(call, &arg, elements, list)
    }

    /// `arg = ANY (param)`, `arg <> ALL (param)`
    fn in_param(
        &mut self,
        arg: Expr,
        param: &pg_sys::Param,
        collation: pg_sys::Oid,
        negated: bool,
    ) -> Lowered<Expr> {
        check_list(&arg, collation)?;
        // SAFETY: looks the type up.
        let typid = unsafe { pg_sys::get_element_type(param.paramtype) };
        if !is_list_for(&arg, typid) {
            let name = type_name(param.paramtype);
            return Err(format!("a parameter of type {name} is not lowered here"));
        }
        let element = Box::new(arg.ty.lake.clone());
        let number = self.param_number(ParamUse {
            kind: self.param_kind(param)?,
            id: param.paramid,
            typid: param.paramtype.to_u32(),
            lake: LakeType::List {
                element_id: 0,
                element,
            },
            whole: false,
        });
        Ok(boolean(ExprKind::InParam {
            arg: Box::new(unpadded(arg)),
            param: number,
            negated,
        }))
    }

    /// The elements of a constant or of an `ARRAY[…]`.
    pub(super) fn elements(&mut self, array: Node) -> Lowered<Vec<Expr>> {
        if let Some(array) = get::<pg_sys::Const>(array).filter(|array| !array.constisnull) {
            return elements(array);
        }
        let array = get::<pg_sys::ArrayExpr>(relabelled(array))
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

    /// The expressions that an array consists of, as they are shown; `None` if it is no constant and no `ARRAY[…]`, and for
    /// constants without elements, and with many.
    pub(super) fn listed(&mut self, array: Node) -> Lowered<Option<Vec<Expr>>> {
        let constant = get::<pg_sys::Const>(array).filter(|array| !array.constisnull);
        let listed = get::<pg_sys::ArrayExpr>(array).filter(|array| !array.multidims);
        let list: Vec<Expr> = match (constant, listed) {
            (Some(array), _) => match deconstructed(array.constvalue) {
                Some((_, own)) if (1..=MAX_LISTED).contains(&own.len()) => elements(array)?,
                _ => return Ok(None),
            },
            (None, Some(array)) => nodes(array.elements)
                .into_iter()
                .map(|element| self.expression(element))
                .collect::<Lowered<_>>()?,
            (None, None) => return Ok(None),
        };
        if list.len() > MAX_LISTED {
            return Err("an array of so many elements is not taken apart".to_owned());
        }
        Ok(Some(list))
    }

    /// An array as a list whose elements become rows: a column, a constant or a parameter.
    pub(super) fn unnested(&mut self, array: Node) -> Lowered<Expr> {
        if let Some(array) = get::<pg_sys::Const>(array) {
            let ty = list_type(array.consttype)?;
            let value = match array.constisnull {
                true => None,
                false => {
                    let list = list_value(&ty.lake, array.consttype, array.constvalue);
                    Some(list.ok_or("an array that the engine can't hold is not lowered")?)
                }
            };
            let kind = ExprKind::Const(value);
            return Ok(Expr { ty, kind });
        }
        if let Some(param) = get::<pg_sys::Param>(array) {
            let ty = list_type(param.paramtype)?;
            let number = self.param_number(ParamUse {
                kind: self.param_kind(param)?,
                id: param.paramid,
                typid: param.paramtype.to_u32(),
                lake: ty.lake.clone(),
                whole: true,
            });
            let kind = ExprKind::Param(number);
            return Ok(Expr { ty, kind });
        }
        self.nullness(array)
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
    check_list(arg, collation)?;
    let mut values = vec![];
    for element in elements {
        let element = padded_as(arg, element.clone());
        let adapted = (comparable(&element.ty.lake, &arg.ty.lake))
            .then(|| adapt(&element, &arg.ty))
            .flatten();
        match adapted.map(|element| element.kind) {
            Some(ExprKind::Const(value)) => values.push(value),
            _ => return Ok(None),
        }
    }
    Ok(Some(boolean(ExprKind::InList {
        arg: Box::new(unpadded(arg.clone())),
        values,
        negated,
    })))
}

fn check_list(arg: &Expr, collation: pg_sys::Oid) -> Lowered<()> {
    match &arg.ty.lake {
        LakeType::Text if !is_deterministic(collation) => {
            Err("a nondeterministic collation is not lowered".to_owned())
        }
        LakeType::List { .. } | LakeType::Struct(_) => {
            Err("nested types are not compared by the engine".to_owned())
        }
        _ => Ok(()),
    }
}

/// An array of varchar, if this is one as an array of text.
fn relabelled(array: Node) -> Node {
    if let Some(relabel) = get::<pg_sys::RelabelType>(array) {
        return relabel.arg.cast();
    }
    match get::<pg_sys::ArrayCoerceExpr>(array) {
        Some(coercion) if is_text_as_text(coercion.elemexpr.cast()) => coercion.arg.cast(),
        _ => array,
    }
}

/// Whether an array's elements are taken for those of another one as they are.
fn is_text_as_text(element: Node) -> bool {
    let is_text = |typid| matches!(typid, pg_sys::TEXTOID | pg_sys::VARCHAROID);
    get::<pg_sys::RelabelType>(element).is_some_and(|relabel| {
        let given = get::<pg_sys::CaseTestExpr>(relabel.arg.cast());
        is_text(relabel.resulttype) && given.is_some_and(|given| is_text(given.typeId))
    })
}

fn is_padded(expr: &Expr) -> bool {
    expr.ty.oid == pg_sys::BPCHAROID.to_u32()
}

/// What is looked for in a list: a `character(n)` without trailing blanks, unless all values have them.
fn unpadded(arg: Expr) -> Expr {
    if is_padded(&arg) && padded_length(&arg).is_none() {
        trimmed(arg)
    } else {
        arg
    }
}

/// A constant element with the trailing blanks of the expression that is compared with it, or without.
fn padded_as(arg: &Expr, element: Expr) -> Expr {
    match padded_length(arg) {
        Some(length) => padded(element, length),
        None if is_padded(arg) => trimmed(element),
        None => element,
    }
}

/// Whether the elements of an array can be taken for values of the expression's type.
fn is_list_for(arg: &Expr, typid: pg_sys::Oid) -> bool {
    let element = match typid {
        pg_sys::NUMERICOID => Some(consts::decimal(0).lake),
        // SAFETY: a type, or none.
        _ => unsafe { expression_type(typid, -1) },
    };
    element.is_some_and(|element| comparable(&element, &arg.ty.lake))
}

/// The list that an array of this type is.
fn list_type(typid: pg_sys::Oid) -> Lowered<SqlType> {
    // SAFETY: looks the type up; it may be none.
    let element = unsafe { expression_type(pg_sys::get_element_type(typid), -1) };
    let list = element.map(|element| LakeType::List {
        element_id: 1,
        element: Box::new(element),
    });
    // SAFETY: a type of the plan.
    let list = list.filter(|list| unsafe { has_codec(list, typid) });
    let lake = list.ok_or_else(|| format!("type {} is not unnested", type_name(typid)))?;
    Ok(sql_type(lake, typid))
}

/// An array, not null, as a list of its type ([`list_type`]); `None` if it is too large, or has another shape or values
/// that the engine doesn't have.
pub fn list_value(lake: &LakeType, typid: pg_sys::Oid, array: pg_sys::Datum) -> Option<Value> {
    // SAFETY: a value of the type, for which there is a codec.
    let value = unsafe { result_codec(lake, typid).one_row(array) }?;
    match &value {
        Value::Row(row) if row.len() > MAX_BYTES => None,
        _ => Some(value),
    }
}

/// What the elements of an array are to the expression of an [`ExprKind::InParam`]. `None`: too many.
pub fn array_for(arg: &Expr, array: pg_sys::Datum) -> Option<Array> {
    let (typid, elements) = deconstructed(array)?;
    if elements.is_empty() {
        return Some(Array::Empty);
    }
    let mut values = vec![];
    let mut room = MAX_BYTES;
    for element in elements {
        match element {
            None => values.push(None),
            Some(element) => {
                let value = value_for(arg, typid, element);
                room = room.checked_sub(value.as_ref().map_or(0, bytes))?;
                // What the expression's type doesn't have, none of its values is equal to.
                values.extend(value.map(Some));
            }
        }
    }
    Some(Array::Elements(values))
}

/// Of a value that has no fixed length.
fn bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// An element as a value of the expression's type ([`is_list_for`]).
fn value_for(arg: &Expr, typid: pg_sys::Oid, element: pg_sys::Datum) -> Option<Value> {
    let of = |lake: &LakeType| {
        // SAFETY: an element of an array of this type.
        unsafe { value_of(lake, typid, element) }
    };
    let value = match (&arg.ty.lake, typid) {
        (LakeType::Float8, pg_sys::FLOAT4OID) => match of(&LakeType::Float4)? {
            Value::F32(value) => Value::F64(value.into()),
            _ => return None,
        },
        (LakeType::Float4, pg_sys::FLOAT8OID) => match of(&LakeType::Float8)? {
            Value::F64(value) if value.is_nan() => Value::F32(f32::NAN),
            Value::F64(value) => {
                let narrow = value as f32;
                (f64::from(narrow) == value).then_some(Value::F32(narrow))?
            }
            _ => return None,
        },
        (lake, _) => of(lake)?,
    };
    let constant = Expr {
        ty: arg.ty.clone(),
        kind: ExprKind::Const(Some(value)),
    };
    match padded_as(arg, constant).kind {
        ExprKind::Const(value) => value,
        _ => None,
    }
}

/// The elements of a constant array that the expression can be equal to, and nulls; `None` if they are of another type,
/// or if there are none.
fn constants(
    arg: &Expr,
    array: &pg_sys::Const,
    collation: pg_sys::Oid,
) -> Lowered<Option<Vec<Option<Value>>>> {
    // SAFETY: looks the type up.
    let typid = unsafe { pg_sys::get_element_type(array.consttype) };
    if array.constisnull || !is_list_for(arg, typid) {
        return Ok(None);
    }
    check_list(arg, collation)?;
    match array_for(arg, array.constvalue) {
        Some(Array::Elements(values)) => Ok(Some(values)),
        Some(Array::Null | Array::Empty) => Ok(None),
        None => Err(too_many(array)),
    }
}

fn too_many(array: &pg_sys::Const) -> String {
    // SAFETY: looks the type up.
    let typid = unsafe { pg_sys::get_element_type(array.consttype) };
    format!("a list of {} has too many elements", type_name(typid))
}

/// The elements of a constant array, as constants.
fn elements(array: &pg_sys::Const) -> Lowered<Vec<Expr>> {
    let deconstructed = deconstructed(array.constvalue);
    let (typid, elements) = deconstructed.ok_or_else(|| too_many(array))?;
    elements
        .into_iter()
        .map(|element| consts::literal(typid, -1, pg_sys::InvalidOid, element))
        .collect()
}

/// The type of an array's elements, and these, of all dimensions; `None` if there are more than the engine looks through.
/// They may point into the array, or into a copy in the current memory context.
fn deconstructed(array: pg_sys::Datum) -> Option<(pg_sys::Oid, Vec<Option<pg_sys::Datum>>)> {
    let (mut datums, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    let (mut length, mut by_value, mut align) = (0, false, 0);
    // SAFETY: an array; the element type's properties are looked up.
    let typid = unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr());
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
        return None;
    }
    let element = |i: usize| {
        // SAFETY: below the number of elements.
        unsafe { (!*nulls.add(i)).then(|| *datums.add(i)) }
    };
    Some((typid, (0..count as usize).map(element).collect()))
}

/// Whether constants of one type may be taken for the other's.
fn comparable(element: &LakeType, arg: &LakeType) -> bool {
    element == arg
        || (element.is_integer() && arg.is_integer())
        || (element.is_float() && arg.is_float())
        || (element.is_decimal() && arg.is_decimal())
}
