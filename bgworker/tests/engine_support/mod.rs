//! Builders of fragments and Parquet files for the engine's tests.
#![allow(dead_code)]

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use pg_lake_bgworker::engine::{Engine, Feed, Fetcher};
use pg_lake_plan::PROTOCOL_VERSION;
use pg_lake_plan::ir::*;
use pg_lake_plan::message::{Execute, Fetch, Fetched, FileRef, ScanStats, TableInput, WireError};
use pg_lake_plan::rows::RowNumbers;
use pg_lake_plan::store::Store;
use pg_lake_plan::types::{LakeType, SqlType, Value};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

pub const NUMERIC: LakeType = LakeType::Decimal {
    precision: 12,
    scale: 2,
};

pub fn sql(lake: LakeType) -> SqlType {
    SqlType {
        lake,
        oid: 0,
        typmod: -1,
        collation: 0,
    }
}

pub fn expr(ty: LakeType, kind: ExprKind) -> Expr {
    Expr { ty: sql(ty), kind }
}

pub fn col(i: u32, ty: LakeType) -> Expr {
    expr(ty, ExprKind::Column(i))
}

pub fn constant(ty: LakeType, value: Value) -> Expr {
    expr(ty, ExprKind::Const(Some(value)))
}

pub fn int(v: i32) -> Expr {
    constant(LakeType::Int4, Value::I32(v))
}

pub fn compare(op: CompareOp, left: Expr, right: Expr) -> Expr {
    let (left, right) = (Box::new(left), Box::new(right));
    expr(LakeType::Bool, ExprKind::Compare { op, left, right })
}

pub fn arith(ty: LakeType, op: ArithmeticOp, left: Expr, right: Expr) -> Expr {
    let (left, right) = (Box::new(left), Box::new(right));
    expr(ty, ExprKind::Arithmetic { op, left, right })
}

pub fn aggregate(function: AggregateFunction, arg: Option<Expr>, ty: LakeType) -> Aggregate {
    Aggregate {
        function,
        arg,
        filter: None,
        distinct: false,
        ty: sql(ty),
        order: vec![],
    }
}

pub fn scan(types: &[LakeType], predicate: Option<Expr>) -> Plan {
    let columns = types
        .iter()
        .enumerate()
        .map(|(i, ty)| ScanColumn {
            name: format!("c{i}"),
            source: ColumnSource::Field(i as i32 + 1),
            ty: sql(ty.clone()),
            missing: None,
        })
        .collect();
    Plan::Scan(Scan {
        table: 0,
        name: "public.t".into(),
        columns,
        predicate,
    })
}

/// Writes columns with field ids 1, 2, … and returns the file without deleted rows.
pub fn write(path: &Path, columns: Vec<ArrayRef>, row_group: usize) -> FileRef {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(row_group))
        .build();
    write_with(path, columns, properties)
}

pub fn write_with(path: &Path, columns: Vec<ArrayRef>, properties: WriterProperties) -> FileRef {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let id = ("PARQUET:field_id".to_owned(), (i + 1).to_string());
            Field::new(format!("c{i}"), c.data_type().clone(), true)
                .with_metadata(HashMap::from([id]))
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    FileRef {
        path: path.to_str().unwrap().to_owned(),
        size: std::fs::metadata(path).unwrap().len(),
        checksums: vec![],
        rows: RowNumbers::consecutive(0, batch.num_rows() as u64),
        deleted: vec![],
        ranges: None,
    }
}

pub fn engine(spill: &Path) -> Engine {
    Engine::new(256 << 20, 64 << 20, spill.to_owned(), 2, None).unwrap()
}

pub fn request(root: Plan, files: Vec<FileRef>) -> Execute {
    Execute {
        fragment: Fragment {
            version: PROTOCOL_VERSION,
            root,
        },
        tables: vec![TableInput { files, feed: None }],
        params: vec![],
        memory_limit: 0,
        temp_file_limit: None,
        in_order: false,
        background: false,
    }
}

pub async fn run(
    engine: &Engine,
    request: Execute,
    feed: Option<Feed>,
) -> Result<(Vec<RecordBatch>, ScanStats), WireError> {
    let mut running = engine
        .execute(request, vec![], vec![feed], CancellationToken::new())
        .await?;
    let mut batches = vec![];
    while let Some(batch) = running.next().await? {
        batches.push(batch);
    }
    Ok((batches, running.stats()))
}

/// A feed of one batch of columns `c0`, `c1`, ….
pub fn feed(columns: Vec<ArrayRef>) -> Feed {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true))
        .collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    futures::stream::iter([Ok(batch)]).boxed()
}

/// Evaluates one expression over fed columns.
pub async fn evaluate(
    types: &[LakeType],
    columns: Vec<ArrayRef>,
    e: Expr,
) -> Result<ArrayRef, WireError> {
    let spill = tempfile::tempdir().unwrap();
    let plan = Plan::Project {
        input: Box::new(scan(types, None)),
        exprs: vec![e],
    };
    let (batches, _) = run(
        &engine(spill.path()),
        request(plan, vec![]),
        Some(feed(columns)),
    )
    .await?;
    assert_eq!(batches.len(), 1);
    Ok(batches[0].column(0).clone())
}

/// A directory as a store.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// That scans have fetched.
    pub bytes: AtomicU64,
    /// The ranges of each request that is no scan's.
    pub lookups: Mutex<Vec<Vec<(u64, u64)>>>,
}

impl Directory {
    pub fn new(path: &Path) -> Arc<Directory> {
        Arc::new(Directory {
            path: path.to_owned(),
            bytes: AtomicU64::new(0),
            lookups: Mutex::default(),
        })
    }
}

#[async_trait]
impl Fetcher for Directory {
    async fn fetch(
        &self,
        _stores: &[Store],
        request: Fetch,
    ) -> Result<(Vec<Bytes>, Fetched), WireError> {
        let name = request.location.strip_prefix("s3://lake/").unwrap();
        let content = Bytes::from(std::fs::read(self.path.join(name)).unwrap());
        let part = |(start, end): &(u64, u64)| content.slice(*start as usize..*end as usize);
        let parts: Vec<Bytes> = request.ranges.iter().map(part).collect();
        if request.scan {
            let bytes: usize = parts.iter().map(Bytes::len).sum();
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        } else {
            self.lookups.lock().unwrap().push(request.ranges);
        }
        Ok((parts, Fetched::default()))
    }
}
