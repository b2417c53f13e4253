//! One scanned relation: its attributes as the engine sees them, and which of them are scanned.

use super::Lowered;
use super::node::string;
use crate::cold::MissingValues;
use crate::types::Codec;
use pg_lake_plan::ir::{ColumnSource, Expr, ExprKind, Scan, ScanColumn};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::pg_sys;

/// `ctid` in lists of attribute numbers, and the row number in [`Table::attnums`].
pub const CTID: i16 = pg_sys::SelfItemPointerAttributeNumber as i16;

/// A relation and the columns of its scan, which grow as expressions ask for them.
#[derive(Debug)]
pub struct Table {
    pub rtindex: u32,
    name: String,
    attributes: Vec<Attribute>,
    columns: Vec<ScanColumn>,
    attnums: Vec<i16>,
}

#[derive(Debug)]
struct Attribute {
    dropped: bool,
    name: String,
    /// Or why the column can't be scanned.
    ty: Lowered<SqlType>,
    missing: Option<Value>,
}

impl Table {
    /// The relation must be locked, as those of a plan are.
    pub fn open(rtindex: u32, relid: pg_sys::Oid) -> Table {
        // SAFETY: the lock is held; attributes are copied before the relation is closed.
        let (name, attributes) = unsafe {
            let rel = pg_sys::table_open(relid, pg_sys::NoLock as i32);
            let descriptor = (*rel).rd_att;
            let first = (&raw const (*descriptor).attrs).cast::<pg_sys::FormData_pg_attribute>();
            let missing = MissingValues::of(rel, descriptor);
            let attributes = (0..(*descriptor).natts as usize)
                .map(|i| attribute(descriptor, &missing, &*first.add(i)))
                .collect();
            let schema = pg_sys::get_namespace_name((*(*rel).rd_rel).relnamespace);
            let relname = pg_sys::get_rel_name(relid);
            let name = string(pg_sys::quote_qualified_identifier(schema, relname));
            pg_sys::table_close(rel, pg_sys::NoLock as i32);
            (name, attributes)
        };
        Table {
            rtindex,
            name,
            attributes,
            columns: vec![],
            attnums: vec![],
        }
    }

    /// Attribute numbers of all columns that aren't dropped.
    pub fn live(&self) -> Vec<i16> {
        (1..)
            .zip(&self.attributes)
            .filter(|(_, attribute)| !attribute.dropped)
            .map(|(attnum, _)| attnum)
            .collect()
    }

    /// Number of the scan's columns so far.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Number of an attribute in the scan's output. [`CTID`] is the row number.
    pub fn column(&mut self, attnum: i16) -> Lowered<u32> {
        if let Some(at) = self.attnums.iter().position(|a| *a == attnum) {
            return Ok(at as u32);
        }
        let column = if attnum == CTID {
            ScanColumn {
                name: "ctid".to_owned(),
                source: ColumnSource::RowNumber,
                ty: sql_type(LakeType::Int8, pg_sys::INT8OID),
                missing: None,
            }
        } else {
            let attribute = usize::try_from(attnum)
                .ok()
                .and_then(|n| self.attributes.get(n.checked_sub(1)?))
                .ok_or_else(|| format!("system columns of {} stay in Postgres", self.name))?;
            ScanColumn {
                name: attribute.name.clone(),
                source: ColumnSource::Field(attnum.into()),
                ty: attribute.ty.clone()?,
                missing: attribute.missing.clone(),
            }
        };
        self.columns.push(column);
        self.attnums.push(attnum);
        Ok(self.columns.len() as u32 - 1)
    }

    /// The attribute behind each of the scan's columns, and its type.
    pub fn columns(&self) -> impl Iterator<Item = (i16, &SqlType)> {
        let types = self.columns.iter().map(|column| &column.ty);
        self.attnums.iter().copied().zip(types)
    }

    /// An attribute as an expression.
    pub fn expr(&mut self, attnum: i16) -> Lowered<Expr> {
        let at = self.column(attnum)?;
        Ok(Expr {
            ty: self.columns[at as usize].ty.clone(),
            kind: ExprKind::Column(at),
        })
    }

    /// The scan, as a numbered table of its fragment, and the attributes behind its columns.
    pub fn into_scan(self, table: u32, predicates: Vec<Expr>) -> (Scan, Vec<i16>) {
        let scan = Scan {
            table,
            name: self.name,
            columns: self.columns,
            predicate: super::control::conjunction(predicates),
        };
        (scan, self.attnums)
    }
}

/// # Safety
/// `attribute` is one of `descriptor`, whose relation is open.
unsafe fn attribute(
    descriptor: pg_sys::TupleDesc,
    missing: &MissingValues,
    attribute: &pg_sys::FormData_pg_attribute,
) -> Attribute {
    let name = string(attribute.attname.data.as_ptr());
    let mut this = Attribute {
        dropped: attribute.attisdropped,
        ty: Err(format!("column \"{name}\" is dropped")),
        name,
        missing: None,
    };
    if this.dropped {
        return this;
    }
    // SAFETY: a live attribute.
    let codec = match unsafe { Codec::for_attribute(attribute) } {
        Ok(codec) => codec,
        Err(error) => {
            this.ty = Err(error.to_string());
            return this;
        }
    };
    this.missing = missing.get(&codec);
    if attribute.atthasmissing {
        let mut null = true;
        // SAFETY: the attribute has a missing value.
        unsafe { pg_sys::getmissingattr(descriptor, attribute.attnum.into(), &mut null) };
        if this.missing.is_none() && !null {
            this.ty = Err(format!(
                "the default that column \"{}\" was added with isn't known to the engine",
                this.name
            ));
            return this;
        }
    }
    this.ty = Ok(SqlType {
        lake: codec.lake,
        oid: codec.typid.to_u32(),
        typmod: codec.typmod,
        collation: codec.collation.to_u32(),
    });
    this
}

/// A type without typmod and collation.
pub fn sql_type(lake: LakeType, typid: pg_sys::Oid) -> SqlType {
    SqlType {
        lake,
        oid: typid.to_u32(),
        typmod: -1,
        collation: 0,
    }
}

/// Postgres' estimate of a relation's rows, hot and cold.
pub fn estimated_rows(relid: pg_sys::Oid) -> f64 {
    let (mut pages, mut tuples, mut visible) = (0, 0.0, 0.0);
    // SAFETY: the relation is locked by the query; the access method fills the numbers in.
    unsafe {
        let rel = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        pg_sys::estimate_rel_size(
            rel,
            std::ptr::null_mut(),
            &mut pages,
            &mut tuples,
            &mut visible,
        );
        pg_sys::table_close(rel, pg_sys::NoLock as i32);
    }
    tuples
}
