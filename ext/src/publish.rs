//! Publication: writes the state of tables under one snapshot as Iceberg metadata.
//!
//! All tables are locked before the snapshot is taken (TRUNCATE isn't MVCC), and the pointers move
//! in the caller's transaction, so that all tables of a round share a snapshot (I7).

use crate::catalog::publication::Content;
use crate::catalog::storage::{self, Storage};
use crate::catalog::{data_file, garbage, intent, layout, options, publication, tablespace};
use crate::flush::{Relation, active_snapshot};
use crate::guc;
use crate::pg;
use crate::progress::{self, Command, Phase};
use crate::relation;
use crate::ring::call::ask;
use crate::sink::{Kind, Sink, table_columns};
use crate::sql::maintenance;
use pg_lake_crash::{CrashPoint, crash_point};
use pg_lake_plan::message::{Publish, PublishFile, Published, Reply, Request, WrittenFile};
use pgrx::pg_sys;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Publishes tables; returns the metadata location of each, `None` for tables without a storage.
pub fn publish(relids: &[pg_sys::Oid]) -> Vec<Option<String>> {
    let relations: Vec<Relation> = relids
        .iter()
        .map(|relid| Relation::for_maintenance(*relid, pg_sys::AccessShareLock as i32))
        .collect();
    // Only one round at a time may move a table's pointer, and it must not move back: all locks come
    // before the snapshot, in one order.
    let mut ordered: Vec<pg_sys::Oid> = relids.to_vec();
    ordered.sort_by_key(|oid| oid.to_u32());
    for relid in ordered {
        publication::lock(relid);
    }
    // SAFETY: pushed and popped here; an error pops it at abort.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let mut written = vec![];
    let locations = relations
        .iter()
        .map(|rel| {
            let publish = || publish_one(rel, &mut written);
            progress::report(Command::Publish, rel_oid(rel), publish)
        })
        .collect();
    // Nothing but the commit is left that may fail. After a rollback the sweep sets them back.
    written.into_iter().for_each(set_hint);
    // SAFETY: as above. A second publication in the same statement must see this one.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommandCounterIncrement();
    }
    locations
}

/// Metadata that the version hint has to name.
struct Written {
    metadata_location: String,
    commit_id: [u8; 16],
    /// The pointer moves there with the transaction.
    provisional: bool,
}

/// Makes the version hint name them.
fn set_hint(written: Written) {
    let reply = ask(Request::SetHint {
        metadata_location: written.metadata_location,
        commit_id: written.commit_id,
        provisional: written.provisional,
    });
    if reply != Reply::HintSet {
        maintenance::unexpected(&reply);
    }
}

fn publish_one(rel: &Relation, written: &mut Vec<Written>) -> Option<String> {
    let storage = storage::of_relation(rel.0)?;
    storage::incarnation(); // an error in a copy of a database
    let info = relation::info(rel.0);
    let mut files: Vec<PublishFile> = data_file::list_written(storage.id, active_snapshot())
        .into_iter()
        .map(|(file, deleted)| PublishFile {
            file: absolute(file),
            hot_image: false,
            deleted,
        })
        .collect();
    let previous = publication::find(storage.id);
    let keep = guc::keep_snapshots();
    let (hot, hot_digest) = hot_image(rel, &storage);
    let hot_paths: Vec<String> = hot.iter().map(|f| f.path.clone()).collect();
    let columns = table_columns(&info);
    let layout = layout::of(&options::of(rel_oid(rel)), &info);
    let mut digest = DefaultHasher::new();
    format!("{columns:?} {} {layout:?}", storage.format_version).hash(&mut digest);
    storage.directory.hash(&mut digest);
    pg::qualified_name(rel_oid(rel)).hash(&mut digest);
    for file in &files {
        (&file.file.path, &file.deleted).hash(&mut digest);
    }
    hot_digest.hash(&mut digest);
    let digest = digest.finish() as i64;
    if let Some(previous) = &previous
        && previous.digest == digest
        && previous.retains_at_most(keep)
    {
        // In a store, a write that was given up long ago may have come after the last one.
        if tablespace::location(&storage.directory).is_some() {
            written.push(Written {
                metadata_location: previous.metadata_location.clone(),
                commit_id: storage::random_uuid(),
                provisional: false,
            });
        }
        // The hot image that was just written belongs to nobody: the sweeper takes it.
        return Some(previous.metadata_location.clone());
    }
    files.extend(hot.into_iter().map(|file| PublishFile {
        file: absolute(file),
        hot_image: true,
        deleted: vec![],
    }));
    let mut properties = vec![
        ("write.format.default".to_owned(), "parquet".to_owned()),
        ("pg_lake.table".to_owned(), pg::qualified_name(rel_oid(rel))),
    ];
    let filtered = columns
        .iter()
        .filter(|column| layout.bloom_filters.contains(&column.id));
    properties.extend(filtered.map(|column| {
        let property = format!("write.parquet.bloom-filter-enabled.column.{}", column.name);
        (property, "true".to_owned())
    }));
    let timestamp_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64);
    progress::phase(Phase::WritingMetadata, None);
    let commit_id = storage::random_uuid();
    // Of what the worker is going to write, all of which has the id in its name.
    let intent = intent::announce_publication(storage.id, &storage.directory, &commit_id);
    crash_point(CrashPoint::PublishBegin);
    let partitioned_by: Vec<i32> = files
        .iter()
        .flat_map(|file| &file.file.partition.fields)
        .chain(&layout.partition_by)
        .map(|field| field.source_id)
        .collect();
    let contents = files.iter().map(|published| Content {
        path: &published.file.path,
        size: published.file.size,
        rows: published.file.rows,
        deleted: published.deleted.len() as u64,
    });
    let contents = publication::contents(contents.collect());
    let reply = ask(Request::Publish(Publish {
        location: pg::absolute(&storage.directory),
        table_uuid: storage.uuid,
        format_version: storage.format_version,
        columns,
        partition_by: layout.partition_by,
        sort_by: layout.sort_by,
        properties,
        previous_metadata: previous.as_ref().map(|p| p.metadata_location.clone()),
        files,
        timestamp_ms,
        commit_id,
        keep_snapshots: keep,
    }));
    let Reply::Published(published) = reply else {
        maintenance::unexpected(&reply)
    };
    crash_point(CrashPoint::PublishWritten);
    if let Some(damage) = &published.damage {
        let table = pg::qualified_name(rel_oid(rel));
        crate::error::warn(
            &format!("table \"{table}\" was published anew, without earlier snapshots"),
            Some(&format!(
                "What was published before is damaged or missing: {damage}."
            )),
        );
    }
    if !published.unchanged {
        let oldest = publication::set(
            storage.id,
            &published,
            digest,
            keep,
            partitioned_by,
            contents,
        );
        let expired = publication::add_hot_image(storage.id, &hot_paths, keep as usize);
        retire(&storage, &published, expired, oldest);
        written.push(Written {
            metadata_location: published.metadata_location.clone(),
            commit_id,
            provisional: true,
        });
        crash_point(CrashPoint::PublishMoved);
    }
    // With this transaction's end the files belong to the pointer, or to the sweeper.
    intent::forget(intent);
    Some(published.metadata_location)
}

fn rel_oid(rel: &Relation) -> pg_sys::Oid {
    // SAFETY: the relation is open.
    unsafe { (*rel.0).rd_id }
}

/// Discards files, of hot images among others, that the metadata no longer refer to: the last snapshot
/// that did is older than the oldest one that they retain.
fn retire(storage: &Storage, published: &Published, hot_images: Vec<String>, oldest: i64) {
    let removed = published.removed.iter().map(|path| pg::relative(path));
    for path in hot_images.into_iter().chain(removed) {
        garbage::add_expired(storage.id, &path, oldest - 1);
    }
}

/// Writes the hot rows that the snapshot sees, if there are any, to a file for each partition: the
/// files and a digest of the rows.
fn hot_image(rel: &Relation, storage: &Storage) -> (Vec<WrittenFile>, Option<u64>) {
    progress::phase(
        Phase::WritingHotRows,
        Some(crate::am::estimate_hot_rows(rel.0)),
    );
    let mut sink: Option<Sink> = None;
    crate::am::hot::scan(rel.0, active_snapshot(), |slot| {
        let sink = sink.get_or_insert_with(|| {
            Sink::open(rel.0, storage, relation::info(rel.0), Kind::HotImage)
        });
        sink.push(slot);
        progress::rows_done(sink.rows);
        true
    });
    let digest = sink.as_mut().map(Sink::digest);
    let files = sink.map(|sink| sink.finish().files).unwrap_or_default();
    progress::files_written(&files);
    (files, digest)
}

fn absolute(mut file: WrittenFile) -> WrittenFile {
    file.path = pg::absolute(&file.path);
    file
}
