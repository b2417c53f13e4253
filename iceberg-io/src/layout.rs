//! Partition specs and sort orders: what a table's metadata know of them, what a publication adds, and where a data
//! file belongs.
//!
//! A data file says itself how it is partitioned and sorted, by column ids, since a table may have changed its mind
//! between writing and publishing it. Specs and orders keep their ids for ever; one that is the same by columns and
//! transforms is used again, whatever its fields are called. A file of a spec that the table's columns no longer allow,
//! and that was never published, is published as unpartitioned: partition values only help to skip files.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use iceberg::spec::{
    Datum, Literal, NullOrder, PartitionSpec, PartitionSpecRef, Schema, SchemaRef, SortDirection,
    SortOrder, Struct, TableMetadata, TableMetadataBuilder, Transform, UnboundPartitionField,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::publish::{PublishFile, PublishRequest};

/// A transform of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionField {
    pub source_id: i32,
    /// As the spec spells it: `bucket[16]`.
    pub transform: String,
}

/// The partition of a data file; without fields it is in none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    pub fields: Vec<PartitionField>,
    /// One a field, in the spec's binary form of single values; `None` is null.
    pub values: Vec<Option<Vec<u8>>>,
}

/// A column that rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortField {
    pub source_id: i32,
    pub descending: bool,
    pub nulls_first: bool,
}

/// Where an entry of a data file, or of what deletes rows of it, belongs.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    pub(crate) spec: PartitionSpecRef,
    /// Has the spec's columns.
    pub(crate) schema: SchemaRef,
    pub(crate) partition: Struct,
}

/// The specs and sort orders of a table with those that a publication adds.
pub(crate) struct Layout {
    schema: SchemaRef,
    specs: Vec<PartitionSpecRef>,
    orders: Vec<SortOrder>,
    /// How many of them are in the metadata already.
    known_specs: usize,
    known_orders: usize,
    default_spec: i32,
    default_order: i64,
    last_field_id: i32,
}

impl Layout {
    /// Finds or makes what the table and its files need.
    pub(crate) fn resolve(
        metadata: &TableMetadata,
        schema: &SchemaRef,
        request: &PublishRequest,
    ) -> Result<Self> {
        let specs: Vec<_> = metadata.partition_specs_iter().cloned().collect();
        let orders: Vec<_> = metadata
            .sort_orders_iter()
            .map(|order| order.as_ref().clone())
            .collect();
        let mut layout = Self {
            schema: schema.clone(),
            known_specs: specs.len(),
            known_orders: orders.len(),
            specs,
            orders,
            default_spec: 0,
            default_order: SortOrder::unsorted_order().order_id,
            last_field_id: metadata.last_partition_id(),
        };
        for file in &request.files {
            if layout.allows(&file.partition.fields) {
                layout.spec_id(&file.partition.fields)?;
            }
            layout.order_id(&file.sort_order)?;
        }
        // What files of a dropped spec fall back to.
        layout.spec_id(&[])?;
        layout.default_spec = layout.spec_id(&request.partition_by)?;
        layout.default_order = layout
            .order_id(&request.sort_by)?
            .unwrap_or(layout.default_order);
        Ok(layout)
    }

    /// Whether the metadata say all of this.
    pub(crate) fn is_of(&self, metadata: &TableMetadata) -> bool {
        self.specs.len() == self.known_specs
            && self.orders.len() == self.known_orders
            && self.default_spec == metadata.default_partition_spec_id()
            && self.default_order == metadata.default_sort_order_id()
    }

    /// Where a new data file belongs.
    pub(crate) fn place(&self, file: &PublishFile) -> Result<Placement> {
        let Partition { fields, values } = &file.partition;
        let placement = |spec: &PartitionSpecRef, partition| Placement {
            spec: spec.clone(),
            schema: self.schema.clone(),
            partition,
        };
        if !self.allows(fields) {
            return Ok(placement(self.find_spec(&[])?, Struct::empty()));
        }
        let spec = self.find_spec(fields)?;
        let types = spec.partition_type(&self.schema)?;
        let invalid = || {
            let message = format!(
                "file \"{}\" has other partition values than fields",
                file.path
            );
            Error::new(ErrorKind::InvalidInput, message)
        };
        if types.fields().len() != values.len() {
            return Err(invalid());
        }
        let literals = types
            .fields()
            .iter()
            .zip(values)
            .map(|(field, value)| {
                let Some(bytes) = value else { return Ok(None) };
                let ty = field.field_type.as_primitive_type().ok_or_else(invalid)?;
                let datum = Datum::try_from_bytes(bytes, ty.clone())
                    .map_err(|e| invalid().with_source(e))?;
                Ok(Some(Literal::from(datum)))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(placement(spec, literals.into_iter().collect()))
    }

    /// The id of the order that a file's rows are in, if they are in one.
    pub(crate) fn order_of(&self, file: &PublishFile) -> Option<i32> {
        let fields = self.sort_fields(&file.sort_order)?;
        let order = self.orders.iter().find(|order| order.fields == fields)?;
        i32::try_from(order.order_id).ok()
    }

    /// Adds to the metadata what they lack. The schema must have been added before.
    pub(crate) fn add_to(&self, mut builder: TableMetadataBuilder) -> Result<TableMetadataBuilder> {
        for spec in &self.specs[self.known_specs..] {
            builder = builder.add_partition_spec(spec.as_ref().clone().into_unbound())?;
        }
        for order in &self.orders[self.known_orders..] {
            builder = builder.add_sort_order(order.clone())?;
        }
        Ok(builder
            .set_default_partition_spec(self.default_spec)?
            .set_default_sort_order(self.default_order)?)
    }

    /// Checks that specs and orders got the ids under which manifests refer to them.
    pub(crate) fn check(&self, metadata: &TableMetadata) -> Result<()> {
        let specs = self.specs[self.known_specs..].iter().all(|spec| {
            metadata
                .partition_spec_by_id(spec.spec_id())
                .is_some_and(|added| added.fields() == spec.fields())
        });
        let orders = self.orders[self.known_orders..].iter().all(|order| {
            metadata
                .sort_order_by_id(order.order_id)
                .is_some_and(|added| added.fields == order.fields)
        });
        if specs && orders && self.default_spec == metadata.default_partition_spec_id() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Internal,
            "a new partition spec or sort order got another id than expected",
        ))
    }

    /// Whether the schema has the fields' columns, of types that they are for.
    fn allows(&self, fields: &[PartitionField]) -> bool {
        fields.iter().all(|field| {
            let column = self.schema.field_by_id(field.source_id);
            let transform = field.transform.parse::<Transform>();
            matches!((column, transform), (Some(column), Ok(transform))
                if transform.result_type(&column.field_type).is_ok())
        })
    }

    fn find_spec(&self, fields: &[PartitionField]) -> Result<&PartitionSpecRef> {
        self.specs
            .iter()
            .find(|spec| is_spec(spec, fields))
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a partition spec is missing"))
    }

    fn spec_id(&mut self, fields: &[PartitionField]) -> Result<i32> {
        if let Some(known) = self.specs.iter().find(|spec| is_spec(spec, fields)) {
            return Ok(known.spec_id());
        }
        let highest = self.specs.iter().map(|spec| spec.spec_id()).max();
        let id = highest.map_or(0, |highest| highest + 1);
        let mut taken: HashSet<String> = names(self.specs.iter().map(Arc::as_ref));
        let mut unbound = Vec::with_capacity(fields.len());
        for field in fields {
            let transform: Transform = field.transform.parse()?;
            // The spec has a field keep its id from spec to spec; ours keep their name, too.
            let known = self
                .specs
                .iter()
                .flat_map(|spec| spec.fields())
                .find(|known| known.source_id == field.source_id && known.transform == transform);
            let (field_id, name) = match known {
                Some(known) => (known.field_id, known.name.clone()),
                None => {
                    self.last_field_id += 1;
                    let name = free_name(field.source_id, transform, &self.schema, &taken);
                    (self.last_field_id, name)
                }
            };
            taken.insert(name.clone());
            unbound.push(UnboundPartitionField {
                source_id: field.source_id,
                field_id: Some(field_id),
                name,
                transform,
            });
        }
        let mut builder = PartitionSpec::builder(self.schema.clone()).with_spec_id(id);
        for field in unbound {
            builder = builder.add_unbound_field(field)?;
        }
        self.specs.push(Arc::new(builder.build()?));
        Ok(id)
    }

    /// `None` for rows that aren't sorted, or by a column that is gone.
    fn order_id(&mut self, fields: &[SortField]) -> Result<Option<i64>> {
        let Some(fields) = self.sort_fields(fields) else {
            return Ok(None);
        };
        if let Some(known) = self.orders.iter().find(|order| order.fields == fields) {
            return Ok(Some(known.order_id));
        }
        let unsorted = SortOrder::unsorted_order().order_id;
        let highest = self.orders.iter().map(|order| order.order_id).max();
        let order_id = highest.unwrap_or(unsorted) + 1;
        self.orders.push(SortOrder { order_id, fields });
        Ok(Some(order_id))
    }

    fn sort_fields(&self, fields: &[SortField]) -> Option<Vec<iceberg::spec::SortField>> {
        if fields.is_empty() {
            return None;
        }
        fields
            .iter()
            .map(|field| {
                let column = self.schema.field_by_id(field.source_id)?;
                column
                    .field_type
                    .is_primitive()
                    .then_some(iceberg::spec::SortField {
                        source_id: field.source_id,
                        transform: Transform::Identity,
                        direction: match field.descending {
                            true => SortDirection::Descending,
                            false => SortDirection::Ascending,
                        },
                        null_order: match field.nulls_first {
                            true => NullOrder::First,
                            false => NullOrder::Last,
                        },
                    })
            })
            .collect()
    }
}

fn is_spec(spec: &PartitionSpec, fields: &[PartitionField]) -> bool {
    spec.fields().len() == fields.len()
        && spec.fields().iter().zip(fields).all(|(known, field)| {
            known.source_id == field.source_id && known.transform.to_string() == field.transform
        })
}

fn names<'a>(specs: impl Iterator<Item = &'a PartitionSpec>) -> HashSet<String> {
    specs
        .flat_map(|spec| spec.fields())
        .map(|field| field.name.clone())
        .collect()
}

/// The name of a partition field: that of the column, with the transform if there is one, as Avro accepts it. It must
/// not be that of another column or field.
fn free_name(
    source_id: i32,
    transform: Transform,
    schema: &Schema,
    taken: &HashSet<String>,
) -> String {
    let mut column: String = schema
        .name_by_field_id(source_id)
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if column.starts_with(|c: char| c.is_ascii_digit()) {
        column.insert(0, '_');
    }
    let mut name = match transform {
        Transform::Identity => column,
        Transform::Bucket(buckets) => format!("{column}_bucket_{buckets}"),
        Transform::Truncate(width) => format!("{column}_trunc_{width}"),
        _ => format!("{column}_{transform}"),
    };
    let is_own = |id: i32| transform == Transform::Identity && id == source_id;
    let collides = |name: &str| {
        schema
            .field_by_name(name)
            .is_some_and(|field| !is_own(field.id))
            || taken.contains(name)
    };
    while collides(&name) {
        name.push('_');
    }
    name
}

/// Renames partition fields that a new column is called like, in all specs: Iceberg has both in one name space, and
/// whoever names a column knows nothing of it. Their ids are what identifies them.
pub(crate) fn make_room(metadata: TableMetadata, schema: &Schema) -> Result<TableMetadata> {
    let was_column = |name: &str| {
        metadata
            .schemas_iter()
            .any(|known| known.field_by_name(name).is_some())
    };
    let collides = |field: &iceberg::spec::PartitionField| {
        schema.field_by_name(&field.name).is_some_and(|column| {
            let is_own = field.transform == Transform::Identity && column.id == field.source_id;
            !(is_own && was_column(&field.name))
        })
    };
    let in_the_way: BTreeSet<(i32, String)> = metadata
        .partition_specs_iter()
        .flat_map(|spec| spec.fields())
        .filter(|field| collides(field))
        .map(|field| (field.field_id, field.name.clone()))
        .collect();
    if in_the_way.is_empty() {
        return Ok(metadata);
    }
    let mut taken = names(metadata.partition_specs_iter().map(Arc::as_ref));
    let mut renamed = Vec::new();
    for (field_id, name) in in_the_way {
        let mut free = name.clone();
        while taken.contains(&free) || was_column(&free) || schema.field_by_name(&free).is_some() {
            free.push('_');
        }
        taken.insert(free.clone());
        renamed.push((field_id, name, free));
    }
    let failed = |e: serde_json::Error| {
        let message = "could not rename a partition field in table metadata";
        Error::new(ErrorKind::Internal, message).with_source(e)
    };
    // The library's builder never renames one, so this goes by way of JSON.
    let mut json = serde_json::to_value(&metadata).map_err(failed)?;
    let specs = json["partition-specs"].as_array_mut();
    for field in specs
        .into_iter()
        .flatten()
        .filter_map(|spec| spec["fields"].as_array_mut())
        .flatten()
    {
        let new = renamed.iter().find(|(field_id, name, _)| {
            field["field-id"] == *field_id && field["name"] == name.as_str()
        });
        if let Some((_, _, free)) = new {
            field["name"] = free.as_str().into();
        }
    }
    serde_json::from_value(json).map_err(failed)
}
