//! Last steps of aggregates: expressions of Postgres' own functions over what the engine computes.

use super::node::{self, Node};
use pgrx::pg_sys;
use pgrx::pg_sys::CoercionForm::{
    COERCE_EXPLICIT_CALL, COERCE_EXPLICIT_CAST, COERCE_IMPLICIT_CAST, Type as CoercionForm,
};

/// A call of an immutable built-in function with the arguments it takes.
pub fn function(function: u32, ty: pg_sys::Oid, args: &[Node], format: CoercionForm) -> Node {
    collated(function, ty, args, pg_sys::InvalidOid, format)
}

fn collated(
    function: u32,
    ty: pg_sys::Oid,
    args: &[Node],
    collation: pg_sys::Oid,
    format: CoercionForm,
) -> Node {
    // SAFETY: makes a node.
    unsafe {
        pg_sys::makeFuncExpr(
            pg_sys::Oid::from(function),
            ty,
            node::list(args.iter().copied()),
            collation,
            collation,
            format,
        )
        .cast()
    }
}

/// A call that returns a numeric.
pub fn numeric(name: u32, args: &[Node]) -> Node {
    function(name, pg_sys::NUMERICOID, args, COERCE_EXPLICIT_CALL)
}

/// A conversion to numeric.
pub fn numeric_cast(name: u32, arg: Node) -> Node {
    function(name, pg_sys::NUMERICOID, &[arg], COERCE_EXPLICIT_CAST)
}

/// A call that returns a boolean.
pub fn condition(name: u32, args: &[Node]) -> Node {
    function(name, pg_sys::BOOLOID, args, COERCE_EXPLICIT_CALL)
}

/// `sum / count`; null where the sum is, since all of these functions are strict.
pub fn quotient(sum: Node, count: Node) -> Node {
    let count = numeric_cast(pg_sys::F_NUMERIC_INT8, count);
    numeric(pg_sys::F_NUMERIC_DIV, &[sum, count])
}

/// `sum / count` of an interval.
pub fn interval_quotient(sum: Node, count: Node) -> Node {
    let count = function(
        pg_sys::F_FLOAT8_INT8,
        pg_sys::FLOAT8OID,
        &[count],
        COERCE_EXPLICIT_CAST,
    );
    function(
        pg_sys::F_INTERVAL_DIV,
        pg_sys::INTERVALOID,
        &[sum, count],
        COERCE_EXPLICIT_CALL,
    )
}

/// A text as a `character` of so many characters.
pub fn padded(text: Node, length: i32, collation: pg_sys::Oid) -> Node {
    let args = [text, constant_int4(length), constant_text(c" ")];
    let padded = collated(
        pg_sys::F_RPAD_TEXT_INT4_TEXT,
        pg_sys::TEXTOID,
        &args,
        collation,
        COERCE_EXPLICIT_CALL,
    );
    // SAFETY: makes a node.
    unsafe {
        let padded = padded.cast();
        pg_sys::makeRelabelType(
            padded,
            pg_sys::BPCHAROID,
            -1,
            collation,
            COERCE_IMPLICIT_CAST,
        )
        .cast()
    }
}

/// The texts of a list, with the delimiter between them.
pub fn joined(list: Node, delimiter: Node, collation: pg_sys::Oid) -> Node {
    collated(
        pg_sys::F_ARRAY_TO_STRING_ANYARRAY_TEXT,
        pg_sys::TEXTOID,
        &[list, node::copy(delimiter)],
        collation,
        COERCE_EXPLICIT_CALL,
    )
}

/// The numeric of the first condition that is true; null if none is.
pub fn case(branches: &[(Node, Node)]) -> Node {
    let whens = branches.iter().map(|(condition, result)| -> Node {
        let when = node::alloc::<pg_sys::CaseWhen>();
        // SAFETY: a new node.
        unsafe {
            (*when).expr = condition.cast();
            (*when).result = result.cast();
            (*when).location = -1;
        }
        when.cast()
    });
    let case = node::alloc::<pg_sys::CaseExpr>();
    // SAFETY: a new node.
    unsafe {
        (*case).casetype = pg_sys::NUMERICOID;
        (*case).args = node::list(whens);
        (*case).defresult =
            pg_sys::makeNullConst(pg_sys::NUMERICOID, -1, pg_sys::InvalidOid).cast();
        (*case).location = -1;
    }
    case.cast()
}

pub fn constant_int4(value: i32) -> Node {
    constant(pg_sys::INT4OID, 4, pg_sys::Datum::from(value))
}

pub fn constant_int8(value: i64) -> Node {
    constant(pg_sys::INT8OID, 8, pg_sys::Datum::from(value))
}

/// Of a type that is passed by value.
fn constant(ty: pg_sys::Oid, bytes: i32, value: pg_sys::Datum) -> Node {
    // SAFETY: makes a node.
    unsafe { pg_sys::makeConst(ty, -1, pg_sys::InvalidOid, bytes, value, false, true).cast() }
}

pub fn constant_text(value: &std::ffi::CStr) -> Node {
    // SAFETY: makes a text, and a node.
    unsafe {
        let text = pg_sys::cstring_to_text(value.as_ptr());
        pg_sys::makeConst(
            pg_sys::TEXTOID,
            -1,
            pg_sys::DEFAULT_COLLATION_OID,
            -1,
            pg_sys::Datum::from(text),
            false,
            false,
        )
        .cast()
    }
}
