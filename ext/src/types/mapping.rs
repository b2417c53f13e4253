//! Columns, results, composites, arrays and domains: which Iceberg type and which representation
//! they get. The rules are listed in `docs/types.md`; change both together.
//!
//! Unsafe code: reads catalog tuples and tuple descriptors.

use super::scalar::{numeric_typmod, scalar};
use super::text::{Context, Printed};
use super::{Codec, Composite, List, Node, Repr, ValueError};
use pg_lake_plan::types::{LakeType, StructField};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

/// Ids below this are columns' own: their `attnum`.
const NESTED_IDS: i32 = 1_000_000;
/// Ids that one column's nested fields and elements may take.
const NESTED_IDS_PER_COLUMN: i32 = 10_000;

/// Hands out the field ids inside one column, depth first, a list's element before what is inside
/// of it. A dropped attribute of a composite keeps its number.
struct NestedIds {
    next: i32,
    end: i32,
}

impl NestedIds {
    fn of_column(attnum: i16) -> NestedIds {
        let first = NESTED_IDS + attnum as i32 * NESTED_IDS_PER_COLUMN;
        NestedIds {
            next: first,
            end: first + NESTED_IDS_PER_COLUMN,
        }
    }

    fn take(&mut self, path: &str) -> Result<i32, ValueError> {
        if self.next == self.end {
            return Err(ValueError::new(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("column \"{path}\" has more than {NESTED_IDS_PER_COLUMN} nested fields"),
            ));
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

impl Codec {
    /// # Safety
    /// On the main thread, in a transaction; `att` is an attribute that is not dropped.
    pub unsafe fn for_attribute(att: &pg_sys::FormData_pg_attribute) -> Result<Codec, ValueError> {
        let name = name_of(&att.attname);
        // SAFETY: reads a global.
        let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
        if encoding != pg_sys::pg_enc::PG_UTF8 as i32 {
            return Err(ValueError::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "iceberg tables need a database whose encoding is UTF8".to_owned(),
            )
            .hint("Create the database with ENCODING 'UTF8' TEMPLATE template0."));
        }
        let mut ids = NestedIds::of_column(att.attnum);
        // SAFETY: by contract.
        let (lake, node) = unsafe {
            build(
                &mut ids,
                name.clone(),
                att.atttypid,
                att.atttypmod,
                att.attndims as i32,
            )?
        };
        Ok(Codec {
            attnum: att.attnum,
            name,
            typid: att.atttypid,
            typmod: att.atttypmod,
            collation: att.attcollation,
            lake,
            node,
        })
    }
}

/// All live columns of a tuple descriptor.
///
/// # Safety
/// On the main thread, in a transaction; `tupdesc` is valid.
pub unsafe fn codecs(tupdesc: pg_sys::TupleDesc) -> Result<Vec<Codec>, ValueError> {
    // SAFETY: by contract.
    unsafe {
        attributes(tupdesc)
            .iter()
            .filter(|att| !att.attisdropped)
            .map(|att| Codec::for_attribute(att))
            .collect()
    }
}

/// # Safety
/// `tupdesc` is valid for `'a`.
unsafe fn attributes<'a>(tupdesc: pg_sys::TupleDesc) -> &'a [pg_sys::FormData_pg_attribute] {
    // SAFETY: a descriptor's attributes follow it.
    unsafe { (*tupdesc).attrs.as_slice((*tupdesc).natts as usize) }
}

fn name_of(name: &pg_sys::NameData) -> String {
    let bytes = name.data.iter().map(|&c| c as u8).take_while(|&c| c != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

/// A codec for values of a type that come from the engine as `lake`, or go there. Raises an ERROR if the two
/// don't go together, which lowering rules out.
///
/// # Safety
/// On the main thread, in a transaction; `typid` is a type.
pub unsafe fn result_codec(lake: &LakeType, typid: pg_sys::Oid) -> Codec {
    // SAFETY: by contract.
    unsafe { find_codec(lake, typid) }.unwrap_or_else(|error| error.raise())
}

/// Whether values of a type can come from the engine as `lake`.
///
/// # Safety
/// As [`result_codec`].
pub unsafe fn has_codec(lake: &LakeType, typid: pg_sys::Oid) -> bool {
    // SAFETY: by contract.
    unsafe { find_codec(lake, typid) }.is_ok()
}

unsafe fn find_codec(lake: &LakeType, typid: pg_sys::Oid) -> Result<Codec, ValueError> {
    let path = "?column?".to_owned();
    let typmod = match lake {
        LakeType::Decimal { precision, scale } => numeric_typmod(*precision as i32, *scale as i32),
        _ => -1,
    };
    // SAFETY: by contract.
    let (own, node) =
        unsafe { build(&mut NestedIds::of_column(0), path.clone(), typid, typmod, 0)? };
    if !same_layout(&own, lake) {
        return Err(ValueError::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("a result of type {typid} is stored as {own:?}, not as {lake:?}"),
        ));
    }
    Ok(Codec {
        attnum: 0,
        name: path,
        typid,
        typmod: -1,
        collation: pg_sys::InvalidOid,
        lake: lake.clone(),
        node,
    })
}

/// Whether values of both look the same on the wire: the types without field ids and names.
pub(super) fn same_layout(a: &LakeType, b: &LakeType) -> bool {
    match (a, b) {
        (LakeType::List { element: a, .. }, LakeType::List { element: b, .. }) => same_layout(a, b),
        (LakeType::Struct(a), LakeType::Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_layout(&a.ty, &b.ty))
        }
        _ => a == b,
    }
}

/// Type and representation of anything.
///
/// # Safety
/// On the main thread, in a transaction; `typid` is a type.
unsafe fn build(
    ids: &mut NestedIds,
    path: String,
    typid: pg_sys::Oid,
    typmod: i32,
    ndims: i32,
) -> Result<(LakeType, Node), ValueError> {
    if let Some((lake, repr)) = scalar(typid, typmod) {
        return Ok((lake, Node { path, typid, repr }));
    }
    // SAFETY: by contract.
    let base = unsafe { BaseType::of(typid, typmod, ndims)? };
    let typid = base.typid;
    let (lake, repr) = if let Some(known) = scalar(typid, base.typmod) {
        known
    } else if base.typtype == pg_sys::TYPTYPE_PSEUDO {
        // SAFETY: the type exists; the string is copied.
        let type_name = unsafe { format_type(typid) };
        return Err(ValueError::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("column \"{path}\" has pseudo-type {type_name}, which cannot be stored"),
        ));
    } else {
        // SAFETY: by contract; the type is a composite where that is asked for.
        let nested = unsafe {
            if base.typtype == pg_sys::TYPTYPE_COMPOSITE {
                composite(ids, &path, typid)?
            } else {
                list(ids, &path, &base)?
            }
        };
        match nested {
            Some(nested) => nested,
            // SAFETY: by contract; a base type.
            None => unsafe {
                let printed = Printed::new(typid, base.typmod);
                (LakeType::Text, Repr::Printed(Box::new(printed)))
            },
        }
    };
    Ok((lake, Node { path, typid, repr }))
}

/// A type without the domains around it.
struct BaseType {
    typid: pg_sys::Oid,
    typmod: i32,
    typtype: u8,
    /// The most dimensions that the column or a domain declares.
    ndims: i32,
}

impl BaseType {
    /// As `getBaseTypeAndTypmod`, with the dimensions that domains declare.
    ///
    /// # Safety
    /// On the main thread, in a transaction.
    unsafe fn of(
        mut typid: pg_sys::Oid,
        mut typmod: i32,
        mut ndims: i32,
    ) -> Result<BaseType, ValueError> {
        loop {
            // SAFETY: the tuple is released after its fields have been copied.
            let (typtype, basetype, base_typmod, typndims) = unsafe {
                let id = pg_sys::SysCacheIdentifier::TYPEOID as i32;
                let tuple = pg_sys::SearchSysCache1(id, pg_sys::Datum::from(typid));
                if tuple.is_null() {
                    return Err(ValueError::new(
                        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                        format!("cache lookup failed for type {typid}"),
                    ));
                }
                let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
                let copied = (
                    (*form).typtype as u8,
                    (*form).typbasetype,
                    (*form).typtypmod,
                    (*form).typndims,
                );
                pg_sys::ReleaseSysCache(tuple);
                copied
            };
            if typtype != pg_sys::TYPTYPE_DOMAIN {
                return Ok(BaseType {
                    typid,
                    typmod,
                    typtype,
                    ndims,
                });
            }
            typid = basetype;
            typmod = base_typmod;
            ndims = ndims.max(typndims);
        }
    }
}

/// A one-dimensional array whose elements have a representation of their own; `None` if it is
/// something else, which is printed.
///
/// # Safety
/// As of [`build`].
unsafe fn list(
    ids: &mut NestedIds,
    path: &str,
    base: &BaseType,
) -> Result<Option<(LakeType, Repr)>, ValueError> {
    // The vectors count as arrays for get_element_type, but start at 0.
    let vector = matches!(base.typid, pg_sys::INT2VECTOROID | pg_sys::OIDVECTOROID);
    if base.ndims > 1 || vector {
        return Ok(None);
    }
    // SAFETY: catalog lookup.
    let typid = unsafe { pg_sys::get_element_type(base.typid) };
    if typid == pg_sys::InvalidOid {
        return Ok(None);
    }
    let first = ids.next;
    let element_id = ids.take(path)?;
    // SAFETY: by contract. An array's typmod is its elements'.
    let (lake, element) = unsafe { build(ids, format!("{path}[]"), typid, base.typmod, 0)? };
    if matches!(element.repr, Repr::Printed(_)) {
        ids.next = first;
        return Ok(None);
    }
    let mut list = List {
        element,
        typid,
        typlen: 0,
        typbyval: false,
        typalign: 0,
    };
    // SAFETY: catalog lookup.
    unsafe {
        pg_sys::get_typlenbyvalalign(
            typid,
            &mut list.typlen,
            &mut list.typbyval,
            &mut list.typalign,
        );
    }
    let lake = LakeType::List {
        element_id,
        element: Box::new(lake),
    };
    Ok(Some((lake, Repr::List(Box::new(list)))))
}

/// A composite type; `None` if it has no fields, which Parquet can't express.
///
/// # Safety
/// As of [`build`]; `typid` is a composite type.
unsafe fn composite(
    ids: &mut NestedIds,
    path: &str,
    typid: pg_sys::Oid,
) -> Result<Option<(LakeType, Repr)>, ValueError> {
    // SAFETY: the copy lives in `context`, which goes where it goes.
    let (context, tupdesc) = unsafe {
        let context = Context::new(pg_sys::TopMemoryContext, c"pg_lake composite type");
        let entered = context.enter();
        let tupdesc = pg_sys::lookup_rowtype_tupdesc_copy(typid, -1);
        drop(entered);
        (context, tupdesc)
    };
    let mut fields = vec![];
    let mut types = vec![];
    // SAFETY: just copied.
    for att in unsafe { attributes(tupdesc) } {
        let id = ids.take(path)?;
        if att.attisdropped {
            fields.push(None);
            continue;
        }
        let name = name_of(&att.attname);
        let inner = format!("{path}.{name}");
        let ndims = att.attndims as i32;
        // SAFETY: by contract.
        let (ty, node) = unsafe { build(ids, inner, att.atttypid, att.atttypmod, ndims)? };
        fields.push(Some(node));
        types.push(StructField { id, name, ty });
    }
    if types.is_empty() {
        return Ok(None);
    }
    let row = Composite {
        _context: context,
        tupdesc,
        fields,
    };
    Ok(Some((LakeType::Struct(types), Repr::Struct(Box::new(row)))))
}

/// A type's name as error messages show it.
///
/// # Safety
/// On the main thread, in a transaction.
pub(super) unsafe fn format_type(typid: pg_sys::Oid) -> String {
    // SAFETY: returns a palloc'd string, copied.
    unsafe {
        let raw = pg_sys::format_type_be(typid);
        let name = CStr::from_ptr(raw).to_string_lossy().into_owned();
        pg_sys::pfree(raw.cast());
        name
    }
}
