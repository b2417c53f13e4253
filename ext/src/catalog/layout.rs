//! How the files of a table are partitioned and sorted, and which columns have Bloom filters in them: its options, checked
//! against its columns.

use super::layout_text::{self, Column};
use super::options::Options;
use crate::lower;
use crate::relation::{self, Info};
use crate::types::Codec;
use crate::{error, pg};
use pg_lake_plan::layout::{PartitionField, SortField, Transform};
use pg_lake_plan::types::LakeType;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;

/// By column numbers, which are Iceberg's field ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub partition_by: Vec<PartitionField>,
    pub sort_by: Vec<SortField>,
    /// Columns with a Bloom filter.
    pub bloom_filters: Vec<i32>,
}

impl Layout {
    /// Whether rows go to files as they come.
    pub fn is_plain(&self) -> bool {
        self.partition_by.is_empty() && self.sort_by.is_empty()
    }

    /// What sorted rows are sorted by if Iceberg compares the values as Postgres does, nothing otherwise: a reader may
    /// rely on it.
    pub fn order_of_files(&self, info: &Info) -> Vec<SortField> {
        let same = |key: &SortField| codec(info, key.source_id).is_some_and(has_icebergs_order);
        if self.sort_by.iter().all(same) {
            self.sort_by.clone()
        } else {
            vec![]
        }
    }
}

/// Floating point is not among them: to Iceberg, −0 is less than 0.
fn has_icebergs_order(codec: &Codec) -> bool {
    match codec.lake {
        LakeType::Bool
        | LakeType::Int2
        | LakeType::Int4
        | LakeType::Int8
        | LakeType::Decimal { .. }
        | LakeType::Date
        | LakeType::Time
        | LakeType::Timestamp
        | LakeType::Timestamptz
        | LakeType::Uuid => true,
        LakeType::Bytes => codec.typid == pg_sys::BYTEAOID,
        LakeType::Text => {
            matches!(
                codec.typid,
                pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::NAMEOID
            ) && lower::is_c(codec.collation)
        }
        LakeType::Float4 | LakeType::Float8 | LakeType::List { .. } | LakeType::Struct(_) => false,
    }
}

pub fn codec(info: &Info, source_id: i32) -> Option<&Codec> {
    info.codecs
        .iter()
        .find(|codec| i32::from(codec.attnum) == source_id)
}

/// The operator that sorts a column's values, if its type has an order.
pub fn ordering_operator(codec: &Codec, descending: bool) -> Option<pg_sys::Oid> {
    let flag = if descending {
        pg_sys::TYPECACHE_GT_OPR
    } else {
        pg_sys::TYPECACHE_LT_OPR
    };
    // SAFETY: an existing type; entries of the type cache are never freed.
    let operator = unsafe {
        let entry = pg_sys::lookup_type_cache(codec.typid, flag as i32);
        if descending {
            (*entry).gt_opr
        } else {
            (*entry).lt_opr
        }
    };
    (operator != pg_sys::InvalidOid).then_some(operator)
}

/// Why options don't go with a table's columns.
struct Misfit {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: &'static str,
}

impl Misfit {
    fn new(code: PgSqlErrorCode, message: String, hint: &'static str) -> Misfit {
        Misfit {
            code,
            message,
            detail: None,
            hint,
        }
    }

    fn invalid(message: String, hint: &'static str) -> Misfit {
        Misfit::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            message,
            hint,
        )
    }
}

/// The layout of a relation's files. What somebody has written into `pg_class` by hand, and that doesn't fit, counts
/// for nothing.
pub fn of(options: &Options, info: &Info) -> Layout {
    resolve(options, info).unwrap_or_default()
}

/// Raises an error if options don't go with the columns of a relation.
pub fn check(relation: pg_sys::Relation, options: &Options) {
    if !options.has_layout() {
        return;
    }
    if let Err(e) = resolve(options, &relation::info(relation)) {
        error::raise(e.code, &e.message, e.detail.as_deref(), Some(e.hint))
    }
}

fn resolve(options: &Options, info: &Info) -> Result<Layout, Misfit> {
    let mut layout = Layout::default();
    for key in options.partition_keys() {
        let codec = find(info, &key.column, "partition_by")?;
        let field = PartitionField {
            source_id: i32::from(codec.attnum),
            transform: key.transform,
        };
        check_transform(codec, key.transform)?;
        check_redundant(codec, &layout.partition_by, key.transform)?;
        check_decimals(info, codec, &layout.partition_by, key.transform)?;
        layout.partition_by.push(field);
    }
    for key in options.sort_keys() {
        let codec = find(info, &key.column, "sort_by")?;
        let source_id = i32::from(codec.attnum);
        if layout.sort_by.iter().any(|key| key.source_id == source_id) {
            return Err(Misfit::invalid(
                format!("option sort_by names column \"{}\" twice", codec.name),
                "Leave the second one out: it changes nothing.",
            ));
        }
        let nested = matches!(codec.lake, LakeType::List { .. } | LakeType::Struct(_));
        if nested || ordering_operator(codec, key.descending).is_none() {
            return Err(Misfit::invalid(
                format!(
                    "rows can't be sorted by column \"{}\" of type {}",
                    codec.name,
                    type_name(codec)
                ),
                "Sort by columns of types that have an order and aren't nested.",
            ));
        }
        layout.sort_by.push(SortField {
            source_id,
            descending: key.descending,
            nulls_first: key.nulls_first,
        });
    }
    for column in options.filtered_columns() {
        let codec = find(info, &column, "bloom_filter_columns")?;
        let source_id = i32::from(codec.attnum);
        if layout.bloom_filters.contains(&source_id) {
            return Err(Misfit::invalid(
                format!(
                    "option bloom_filter_columns names column \"{}\" twice",
                    codec.name
                ),
                "Leave the second one out: it changes nothing.",
            ));
        }
        check_filter(codec)?;
        layout.bloom_filters.push(source_id);
    }
    Ok(layout)
}

fn find<'a>(info: &'a Info, column: &Column, option: &str) -> Result<&'a Codec, Misfit> {
    info.codecs
        .iter()
        .find(|codec| codec.name == column.name)
        .ok_or_else(|| {
            Misfit::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!(
                    "column \"{}\" named in option {option} does not exist",
                    column.name
                ),
                "Name columns of the table, in double quotes where SQL needs them.",
            )
        })
}

fn check_transform(codec: &Codec, transform: Transform) -> Result<(), Misfit> {
    if (transform, &codec.lake) == (Transform::Identity, &LakeType::Uuid) {
        return Err(Misfit::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!(
                "partitioning by the values of column \"{}\" of type uuid is not supported",
                codec.name
            ),
            "Use bucket(n, column): each value would have a file of its own.",
        ));
    }
    if transform.accepts(&codec.lake) {
        return Ok(());
    }
    let mut misfit = Misfit::invalid(
        format!(
            "transform {transform} can't be applied to column \"{}\" of type {}",
            codec.name,
            type_name(codec)
        ),
        "Use another transform, or the column alone.",
    );
    misfit.detail = match (transform, &codec.lake) {
        (Transform::Truncate(_), LakeType::Decimal { precision, .. }) => Some(format!(
            "A number of {precision} digits that is truncated like this needs more bytes than Iceberg has for one."
        )),
        (Transform::Bucket(_), _) => Some(
            "\"bucket\" is for types that are neither boolean, floating point nor nested in Iceberg.".to_owned(),
        ),
        (Transform::Truncate(_), _) => {
            Some("\"truncate\" is for integers, decimals, text and bytea.".to_owned())
        }
        (Transform::Hour, _) => Some("\"hour\" is for timestamps.".to_owned()),
        (Transform::Identity, _) => Some("The type is nested in Iceberg.".to_owned()),
        _ => Some("\"year\", \"month\" and \"day\" are for dates and timestamps.".to_owned()),
    };
    Err(misfit)
}

fn check_redundant(
    codec: &Codec,
    before: &[PartitionField],
    transform: Transform,
) -> Result<(), Misfit> {
    let other = before.iter().find(|field| {
        field.source_id == i32::from(codec.attnum) && field.transform.is_redundant_with(&transform)
    });
    match other {
        None => Ok(()),
        Some(other) => Err(Misfit::invalid(
            format!(
                "option partition_by has both {} and {transform} of column \"{}\"",
                other.transform, codec.name
            ),
            "Leave one of them out.",
        )),
    }
}

/// In a manifest, decimals are of a type that is called like their precision and scale, and that may be defined once.
fn check_decimals(
    info: &Info,
    field: &Codec,
    before: &[PartitionField],
    transform: Transform,
) -> Result<(), Misfit> {
    let is_decimal = |transform: Transform, codec: &Codec| {
        codec.lake.is_decimal() && matches!(transform, Transform::Identity | Transform::Truncate(_))
    };
    let same = before.iter().any(|known| {
        codec(info, known.source_id)
            .is_some_and(|other| is_decimal(known.transform, other) && other.lake == field.lake)
    });
    if is_decimal(transform, field) && same {
        return Err(Misfit::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!(
                "option partition_by has two fields of type {}",
                type_name(field)
            ),
            "Use bucket(n, column) for one of them.",
        ));
    }
    Ok(())
}

/// A Bloom filter knows the bytes of values: those that Postgres holds equal must have the same ones.
fn check_filter(codec: &Codec) -> Result<(), Misfit> {
    let is_text = codec.lake == LakeType::Text;
    // SAFETY: a catalog look-up of an existing type.
    let is_exact = match unsafe { pg_sys::getBaseType(codec.typid) } {
        pg_sys::INT2OID
        | pg_sys::INT4OID
        | pg_sys::INT8OID
        | pg_sys::DATEOID
        | pg_sys::TIMEOID
        | pg_sys::TIMESTAMPOID
        | pg_sys::TIMESTAMPTZOID
        | pg_sys::UUIDOID
        | pg_sys::BYTEAOID => true,
        pg_sys::NUMERICOID => codec.lake.is_decimal(),
        pg_sys::TEXTOID | pg_sys::VARCHAROID => lower::is_deterministic(codec.collation),
        _ => false,
    };
    if is_exact {
        return Ok(());
    }
    let mut misfit = Misfit::invalid(
        format!(
            "column \"{}\" of type {} can't have a Bloom filter",
            codec.name,
            type_name(codec)
        ),
        "Name columns of integers, numeric(p,s), dates, times, timestamps, uuid, bytea, or text and varchar under a deterministic collation.",
    );
    if is_text || codec.lake.is_float() {
        misfit.detail = Some("Values that are equal may be stored as different bytes.".to_owned());
    }
    Err(misfit)
}

fn type_name(codec: &Codec) -> String {
    // SAFETY: an existing type; the string is copied.
    unsafe {
        let name = pg_sys::format_type_with_typemod(codec.typid, codec.typmod);
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// Which options name a column, each with the text that it has if the column is called otherwise.
pub fn renamed(options: &Options, old: &str, new: &str) -> Vec<(&'static CStr, String)> {
    let rename = |text: &Option<String>, columns: Vec<Column>| {
        let places: Vec<_> = columns
            .into_iter()
            .filter(|column| column.name == old)
            .map(|column| column.place)
            .collect();
        let text = text.as_ref().filter(|_| !places.is_empty())?;
        Some(layout_text::with_names(text, places, new))
    };
    let partition_keys = options.partition_keys().into_iter().map(|key| key.column);
    let sort_keys = options.sort_keys().into_iter().map(|key| key.column);
    let partition_by = rename(&options.partition_by, partition_keys.collect());
    let sort_by = rename(&options.sort_by, sort_keys.collect());
    let filtered = rename(&options.bloom_filter_columns, options.filtered_columns());
    [
        (super::options::PARTITION_BY, partition_by),
        (super::options::SORT_BY, sort_by),
        (super::options::BLOOM_FILTER_COLUMNS, filtered),
    ]
    .into_iter()
    .filter_map(|(name, text)| Some((name, text?)))
    .collect()
}

/// Raises an error if the relation's options name a column that is no longer there.
pub fn refuse_drop(relid: pg_sys::Oid, options: &Options, column: &str) {
    if let Some((option, _)) = renamed(options, column, column).first() {
        let option = option.to_string_lossy();
        error::raise(
            PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            &format!(
                "cannot drop column \"{column}\" of iceberg table {}",
                pg::qualified_name(relid)
            ),
            Some(&format!("Its option {option} names the column.")),
            Some(&format!("Use ALTER TABLE … RESET ({option}) first.")),
        );
    }
}

/// Raises an error: a partition spec names a column that was dropped.
pub fn refuse_drop_of_source(relid: pg_sys::Oid, column: &str) -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
        &format!(
            "cannot drop column \"{column}\" of iceberg table {}",
            pg::qualified_name(relid)
        ),
        Some("Files of the table, or what it has published, are partitioned by the column."),
        Some(
            "ALTER TABLE … SET ACCESS METHOD heap and back to iceberg begins a new Iceberg table.",
        ),
    )
}
