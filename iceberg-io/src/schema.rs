//! A table's schema: names, types and the field ids by which Iceberg knows columns for ever.
//!
//! This is the description that crosses process boundaries (serde). From it come the Iceberg schema of the metadata and
//! the Arrow schema of the data files, whose fields carry their ids as `PARQUET:field_id`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{
    DataType, Field as ArrowField, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit,
};
use iceberg::spec::{
    ListType, NestedField, PrimitiveType, Schema as IcebergSchema, StructType, Type,
};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Arrow's key for an extension type's name, and the name that makes Parquet's UUID out of 16 bytes.
const EXTENSION_NAME_KEY: &str = "ARROW:extension:name";
const UUID_EXTENSION: &str = "arrow.uuid";

/// The widest decimal of Iceberg.
const MAX_DECIMAL_PRECISION: u32 = 38;

/// A schema. `schema_id` is used for a new table; a changed schema of an existing table gets the table's next id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    pub schema_id: i32,
    pub fields: Vec<Field>,
}

/// A column, or a field of a struct.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    pub id: i32,
    pub name: String,
    pub ty: FieldType,
    pub required: bool,
    pub doc: Option<String>,
}

/// The Iceberg types that a table can have. List elements are always optional, as in Postgres.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldType {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Decimal {
        precision: u32,
        scale: u32,
    },
    Date,
    Time,
    Timestamp,
    Timestamptz,
    String,
    Binary,
    Uuid,
    Fixed(u32),
    List {
        element_id: i32,
        element: Box<FieldType>,
    },
    Struct(Vec<Field>),
}

impl TableSchema {
    /// The schema as Iceberg metadata has it, with the ids as given. Fails on duplicate ids or names.
    pub fn to_iceberg(&self) -> Result<IcebergSchema> {
        let fields = iceberg_fields(&self.fields)?;
        IcebergSchema::builder()
            .with_schema_id(self.schema_id)
            .with_fields(fields)
            .build()
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "invalid table schema").with_source(e))
    }

    /// The schema of the table's data files.
    pub fn to_arrow(&self) -> Result<SchemaRef> {
        Ok(Arc::new(ArrowSchema::new(arrow_fields(&self.fields)?)))
    }
}

fn iceberg_fields(fields: &[Field]) -> Result<Vec<Arc<NestedField>>> {
    fields
        .iter()
        .map(|field| {
            let nested = NestedField::new(
                field.id,
                &field.name,
                iceberg_type(&field.ty)?,
                field.required,
            );
            Ok(Arc::new(match &field.doc {
                Some(doc) => nested.with_doc(doc),
                None => nested,
            }))
        })
        .collect()
}

fn iceberg_type(ty: &FieldType) -> Result<Type> {
    let primitive = match ty {
        FieldType::Boolean => PrimitiveType::Boolean,
        FieldType::Int => PrimitiveType::Int,
        FieldType::Long => PrimitiveType::Long,
        FieldType::Float => PrimitiveType::Float,
        FieldType::Double => PrimitiveType::Double,
        FieldType::Decimal { precision, scale } => {
            check_decimal(*precision, *scale)?;
            PrimitiveType::Decimal {
                precision: *precision,
                scale: *scale,
            }
        }
        FieldType::Date => PrimitiveType::Date,
        FieldType::Time => PrimitiveType::Time,
        FieldType::Timestamp => PrimitiveType::Timestamp,
        FieldType::Timestamptz => PrimitiveType::Timestamptz,
        FieldType::String => PrimitiveType::String,
        FieldType::Binary => PrimitiveType::Binary,
        FieldType::Uuid => PrimitiveType::Uuid,
        FieldType::Fixed(length) => PrimitiveType::Fixed(u64::from(*length)),
        FieldType::List {
            element_id,
            element,
        } => {
            let element = NestedField::list_element(*element_id, iceberg_type(element)?, false);
            return Ok(Type::List(ListType::new(Arc::new(element))));
        }
        FieldType::Struct(fields) => {
            return Ok(Type::Struct(StructType::new(iceberg_fields(fields)?)));
        }
    };
    Ok(Type::Primitive(primitive))
}

fn arrow_fields(fields: &[Field]) -> Result<Fields> {
    fields
        .iter()
        .map(|field| arrow_field(field.id, &field.name, &field.ty, !field.required))
        .collect()
}

fn arrow_field(id: i32, name: &str, ty: &FieldType, nullable: bool) -> Result<ArrowField> {
    let mut metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), id.to_string())]);
    if matches!(ty, FieldType::Uuid) {
        metadata.insert(EXTENSION_NAME_KEY.to_string(), UUID_EXTENSION.to_string());
    }
    Ok(ArrowField::new(name, arrow_type(ty)?, nullable).with_metadata(metadata))
}

fn arrow_type(ty: &FieldType) -> Result<DataType> {
    Ok(match ty {
        FieldType::Boolean => DataType::Boolean,
        FieldType::Int => DataType::Int32,
        FieldType::Long => DataType::Int64,
        FieldType::Float => DataType::Float32,
        FieldType::Double => DataType::Float64,
        FieldType::Decimal { precision, scale } => {
            let (precision, scale) = check_decimal(*precision, *scale)?;
            DataType::Decimal128(precision, scale)
        }
        FieldType::Date => DataType::Date32,
        FieldType::Time => DataType::Time64(TimeUnit::Microsecond),
        FieldType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        FieldType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        FieldType::String => DataType::Utf8,
        FieldType::Binary => DataType::Binary,
        FieldType::Uuid => DataType::FixedSizeBinary(16),
        FieldType::Fixed(length) => {
            let length = i32::try_from(*length).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!("fixed({length}) is longer than a value can be"),
                )
            })?;
            DataType::FixedSizeBinary(length)
        }
        // Parquet's and Iceberg's name of the element, so that the file is as the formats prescribe.
        FieldType::List {
            element_id,
            element,
        } => DataType::List(Arc::new(arrow_field(
            *element_id,
            "element",
            element,
            true,
        )?)),
        FieldType::Struct(fields) => DataType::Struct(arrow_fields(fields)?),
    })
}

/// Checks a decimal against Iceberg's limits and gives it in Arrow's integer types.
fn check_decimal(precision: u32, scale: u32) -> Result<(u8, i8)> {
    let invalid = || {
        Error::new(
            ErrorKind::InvalidInput,
            format!("decimal({precision}, {scale}) is not an Iceberg type"),
        )
    };
    if precision == 0 || precision > MAX_DECIMAL_PRECISION || scale > precision {
        return Err(invalid());
    }
    Ok((
        u8::try_from(precision).map_err(|_| invalid())?,
        i8::try_from(scale).map_err(|_| invalid())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(id: i32, name: &str, ty: FieldType) -> Field {
        Field {
            id,
            name: name.to_string(),
            ty,
            required: false,
            doc: None,
        }
    }

    #[test]
    fn ids_survive_in_both_schemas() {
        let point = FieldType::Struct(vec![
            field(11, "x", FieldType::Double),
            field(12, "y", FieldType::Double),
        ]);
        let schema = TableSchema {
            schema_id: 4,
            fields: vec![
                field(7, "id", FieldType::Uuid),
                field(
                    3,
                    "tags",
                    FieldType::List {
                        element_id: 9,
                        element: Box::new(FieldType::String),
                    },
                ),
                field(10, "point", point),
            ],
        };
        let iceberg = schema.to_iceberg().unwrap();
        assert_eq!(iceberg.schema_id(), 4);
        assert_eq!(iceberg.name_by_field_id(9), Some("tags.element"));
        assert_eq!(iceberg.name_by_field_id(12), Some("point.y"));
        let arrow = schema.to_arrow().unwrap();
        assert_eq!(arrow.field(0).metadata()[PARQUET_FIELD_ID_META_KEY], "7");
        assert_eq!(
            arrow.field(0).metadata()[EXTENSION_NAME_KEY],
            UUID_EXTENSION
        );
        let DataType::List(element) = arrow.field(1).data_type() else {
            panic!("not a list")
        };
        assert_eq!(element.metadata()[PARQUET_FIELD_ID_META_KEY], "9");
    }

    #[test]
    fn impossible_schemas_are_refused() {
        let twice = TableSchema {
            schema_id: 0,
            fields: vec![field(1, "a", FieldType::Int), field(1, "b", FieldType::Int)],
        };
        assert!(twice.to_iceberg().is_err());
        let wide = FieldType::Decimal {
            precision: 39,
            scale: 0,
        };
        assert!(
            TableSchema {
                schema_id: 0,
                fields: vec![field(1, "a", wide)]
            }
            .to_arrow()
            .is_err()
        );
    }
}
