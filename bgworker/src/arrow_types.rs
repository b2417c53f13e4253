//! The Arrow type of each [`LakeType`], and the schemas that follow from it.
//!
//! One mapping for feeds, decoded files and results, so that batches of all three can meet in one
//! plan. `Int2` is an `Int32`, as its Iceberg type is `int`.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use pg_lake_iceberg::schema::{self as table, FieldType, TableSchema};
use pg_lake_plan::ir::ScanColumn;
use pg_lake_plan::message::TableColumn;
use pg_lake_plan::types::LakeType;
use std::sync::Arc;

/// Name of a list's element field, as Iceberg's specification has it.
pub const LIST_ELEMENT: &str = "element";

/// The zone of `timestamptz`.
pub const UTC: &str = "UTC";

/// The type that values of `ty` have in a record batch; nested fields carry no metadata.
pub fn arrow_type(ty: &LakeType) -> DataType {
    match ty {
        LakeType::Bool => DataType::Boolean,
        LakeType::Int2 | LakeType::Int4 => DataType::Int32,
        LakeType::Int8 => DataType::Int64,
        LakeType::Float4 => DataType::Float32,
        LakeType::Float8 => DataType::Float64,
        LakeType::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
        LakeType::Date => DataType::Date32,
        LakeType::Time => DataType::Time64(TimeUnit::Microsecond),
        LakeType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        LakeType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        LakeType::Text => DataType::Utf8,
        LakeType::Bytes => DataType::Binary,
        LakeType::Uuid => DataType::FixedSizeBinary(16),
        LakeType::List { element, .. } => DataType::List(Arc::new(Field::new(
            LIST_ELEMENT,
            arrow_type(element),
            true,
        ))),
        LakeType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .map(|f| Field::new(&f.name, arrow_type(&f.ty), true))
                .collect(),
        ),
    }
}

/// A nullable field for each (name, type).
pub fn arrow_schema<'a>(columns: impl IntoIterator<Item = (&'a str, &'a LakeType)>) -> SchemaRef {
    let fields: Vec<Field> = columns
        .into_iter()
        .map(|(name, ty)| Field::new(name, arrow_type(ty), true))
        .collect();
    Arc::new(Schema::new(fields))
}

/// The rows that a scan yields before its predicate, and thus what its feed holds.
pub fn scan_schema(columns: &[ScanColumn]) -> SchemaRef {
    arrow_schema(columns.iter().map(|c| (c.name.as_str(), &c.ty.lake)))
}

/// The table schema from which data files and Iceberg metadata are written; `to_arrow` of it gives
/// the Arrow schema with field ids.
pub fn table_schema(columns: &[TableColumn]) -> TableSchema {
    let fields = columns
        .iter()
        .map(|c| table_field(c.id, &c.name, &c.ty, c.required))
        .collect();
    // The id is that of a new table: a changed schema is given the table's next one.
    TableSchema {
        schema_id: 0,
        fields,
    }
}

fn table_field(id: i32, name: &str, ty: &LakeType, required: bool) -> table::Field {
    table::Field {
        id,
        name: name.to_owned(),
        ty: field_type(ty),
        required,
        doc: None,
    }
}

fn field_type(ty: &LakeType) -> FieldType {
    match ty {
        LakeType::Bool => FieldType::Boolean,
        LakeType::Int2 | LakeType::Int4 => FieldType::Int,
        LakeType::Int8 => FieldType::Long,
        LakeType::Float4 => FieldType::Float,
        LakeType::Float8 => FieldType::Double,
        LakeType::Decimal { precision, scale } => FieldType::Decimal {
            precision: u32::from(*precision),
            // A negative scale becomes one that is refused as larger than the precision.
            scale: u32::try_from(*scale).unwrap_or(u32::MAX),
        },
        LakeType::Date => FieldType::Date,
        LakeType::Time => FieldType::Time,
        LakeType::Timestamp => FieldType::Timestamp,
        LakeType::Timestamptz => FieldType::Timestamptz,
        LakeType::Text => FieldType::String,
        LakeType::Bytes => FieldType::Binary,
        LakeType::Uuid => FieldType::Uuid,
        LakeType::List {
            element_id,
            element,
        } => FieldType::List {
            element_id: *element_id,
            element: Box::new(field_type(element)),
        },
        LakeType::Struct(fields) => FieldType::Struct(
            fields
                .iter()
                .map(|f| table_field(f.id, &f.name, &f.ty, false))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use arrow::datatypes::Fields;
    use pg_lake_plan::types::StructField;

    fn column(ty: LakeType) -> TableColumn {
        TableColumn {
            id: 1,
            name: "c".into(),
            ty,
            required: false,
        }
    }

    fn without_metadata(data_type: &DataType) -> DataType {
        let strip =
            |f: &Field| Field::new(f.name(), without_metadata(f.data_type()), f.is_nullable());
        match data_type {
            DataType::List(element) => DataType::List(Arc::new(strip(element.as_ref()))),
            DataType::Struct(fields) => {
                DataType::Struct(fields.iter().map(|f| strip(f.as_ref())).collect::<Fields>())
            }
            other => other.clone(),
        }
    }

    #[test]
    fn what_is_written_has_the_types_of_what_is_scanned() {
        let list = LakeType::List {
            element_id: 2,
            element: Box::new(LakeType::Uuid),
        };
        let types = [
            LakeType::Bool,
            LakeType::Int2,
            LakeType::Int4,
            LakeType::Int8,
            LakeType::Float4,
            LakeType::Float8,
            LakeType::Decimal {
                precision: 12,
                scale: 2,
            },
            LakeType::Date,
            LakeType::Time,
            LakeType::Timestamp,
            LakeType::Timestamptz,
            LakeType::Text,
            LakeType::Bytes,
            LakeType::Uuid,
            list.clone(),
            LakeType::Struct(vec![StructField {
                id: 3,
                name: "f".into(),
                ty: list,
            }]),
        ];
        for ty in types {
            let schema = table_schema(&[column(ty.clone())])
                .to_arrow()
                .expect("a valid schema");
            assert_eq!(
                without_metadata(schema.field(0).data_type()),
                arrow_type(&ty),
                "{ty:?}"
            );
        }
    }

    #[test]
    fn impossible_decimals_are_refused() {
        let ty = LakeType::Decimal {
            precision: 4,
            scale: -1,
        };
        assert!(table_schema(&[column(ty)]).to_arrow().is_err());
    }
}
