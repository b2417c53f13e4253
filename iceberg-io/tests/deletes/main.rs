//! Deleted rows in what is published: delete files say exactly what is deleted, and are written only when that changes.
//!
//! `rig` checks at each publication that a reader finds deleted what was asked for.

mod rig;

use std::fs;

use iceberg::io::FileIO;
use iceberg::puffin::{CompressionCodec, DELETION_VECTOR_V1, PuffinReader};
use iceberg::spec::{DataFileFormat, ManifestStatus};
use pg_lake_iceberg::{ErrorKind, LocalStore, publish};

use crate::rig::{Deletes, Rig, deleted_rows, file, local};

/// The field that a deletion vector is about, the position of a row.
const ROW_POSITION_ID: i32 = 2_147_483_645;

async fn life_of_deletes(format_version: u8) {
    // What delete files of this version are called, and how many objects hold those of one publication.
    let (kind, objects) = match format_version {
        2 => ("position-delete-files", 2),
        _ => ("dvs", 1),
    };
    let mut rig = Rig::new(format_version);
    rig.publish(&[file("a", 10, &[]), file("b", 20, &[])]).await;
    assert_eq!(rig.operation().await, "append");
    assert_eq!(rig.delete_files_on_disk(), 0);

    let files = [file("a", 10, &[0, 3, 9]), file("b", 20, &[7])];
    rig.publish(&files).await;
    assert_eq!(rig.operation().await, "delete");
    assert_eq!(rig.summary("added-delete-files").await, 2);
    assert_eq!(rig.summary(&format!("added-{kind}")).await, 2);
    assert_eq!(rig.summary("added-position-deletes").await, 4);
    assert_eq!(rig.summary("total-records").await, 30);
    assert_eq!(rig.summary("changed-partition-count").await, 1);
    assert_eq!(rig.summary("removed-delete-files").await, 0);
    assert_eq!(rig.delete_files_on_disk(), objects);
    let first = rig.deletes().await;
    assert_eq!(first.manifests.len(), 1);
    assert_eq!(first.of("a").sequence_number(), Some(2));
    assert_eq!(first.of("a").status(), ManifestStatus::Added);
    assert!(rig.publish(&files).await.unchanged);

    // The same deletes: their manifest is carried over.
    rig.publish(&[files[0].clone(), files[1].clone(), file("c", 5, &[])])
        .await;
    assert_eq!(rig.operation().await, "append");
    assert_eq!(rig.deletes().await.manifests, first.manifests);
    assert_eq!(rig.delete_files_on_disk(), objects);

    // More deletes: one entry is replaced, the other one moves to another manifest as it is.
    let more = file("b", 20, &[7, 8]);
    rig.publish(&[files[0].clone(), more.clone(), file("c", 5, &[])])
        .await;
    assert_eq!(rig.operation().await, "delete");
    assert_eq!(rig.summary("added-delete-files").await, 1);
    assert_eq!(rig.summary("added-position-deletes").await, 2);
    assert_eq!(rig.summary("removed-delete-files").await, 1);
    assert_eq!(rig.summary(&format!("removed-{kind}")).await, 1);
    assert_eq!(rig.summary("removed-position-deletes").await, 1);
    let second = rig.deletes().await;
    assert_eq!(second.of("a").status(), ManifestStatus::Existing);
    assert_eq!(second.of("a").sequence_number(), Some(2));
    assert_eq!(second.of("a").data_file(), first.of("a").data_file());
    assert_eq!(second.of("b").status(), ManifestStatus::Added);
    assert_eq!(second.of("b").sequence_number(), Some(4));
    assert_eq!(second.gone.len(), 1);
    assert_eq!(second.gone[0].data_file(), first.of("b").data_file());
    assert_eq!(rig.delete_files_on_disk(), objects + 1);

    // A data file that goes takes its deletes with it.
    rig.publish(&[more, file("c", 5, &[])]).await;
    assert_eq!(rig.operation().await, "delete");
    assert_eq!(rig.summary("deleted-data-files").await, 1);
    assert_eq!(rig.summary("removed-position-deletes").await, 3);
    assert_eq!(rig.summary("added-delete-files").await, 0);
    assert_eq!(rig.deletes().await.gone.len(), 1);
    assert_eq!(rig.delete_files_on_disk(), objects + 1);
}

#[tokio::test]
async fn life_of_position_deletes() {
    life_of_deletes(2).await;
}

#[tokio::test]
async fn life_of_deletion_vectors() {
    life_of_deletes(3).await;
}

#[tokio::test]
async fn a_file_may_begin_with_deleted_rows() {
    for format_version in [2, 3] {
        let mut rig = Rig::new(format_version);
        let rows: Vec<u32> = (0..100_000).filter(|row| row % 3 == 0).collect();
        // Longer than what bounds are shortened to.
        let name = "directory/".repeat(20) + "file";
        rig.publish(&[file(&name, 100_000, &rows)]).await;
        assert_eq!(rig.operation().await, "overwrite");
        assert_eq!(rig.summary("added-records").await, 100_000);
        assert_eq!(rig.summary("added-position-deletes").await, 33_334);
        let deletes = rig.deletes().await;
        let entry = deletes.of(&name);
        assert_eq!(entry.sequence_number(), Some(1));
        let file = entry.data_file();
        let size = match format_version {
            2 => file.file_size_in_bytes(),
            _ => file.content_size_in_bytes().unwrap() as u64,
        };
        assert_eq!(rig.summary("added-files-size").await, 10_000_000 + size);
        assert_eq!(rig.summary("total-files-size").await, 10_000_000 + size);
    }
}

#[tokio::test]
async fn other_rows_of_the_same_number_are_noticed() {
    for format_version in [2, 3] {
        let mut rig = Rig::new(format_version);
        rig.publish(&[file("a", 10, &[1, 5, 9])]).await;
        rig.publish(&[file("a", 10, &[1, 6, 9])]).await;
        rig.publish(&[file("a", 10, &[1, 9])]).await;
        // Rows come back: that is no mere delete.
        assert_eq!(rig.operation().await, "overwrite");
        rig.publish(&[file("a", 10, &[])]).await;
        assert_eq!(rig.operation().await, "overwrite");
        assert_eq!(rig.summary("removed-position-deletes").await, 2);
    }
}

#[tokio::test]
async fn a_puffin_footer_says_what_the_manifest_says() {
    let mut rig = Rig::new(3);
    rig.publish(&[file("a", 10, &[1]), file("b", 10, &[2, 3])])
        .await;
    let entries = rig.deletes().await.alive;
    let location = entries[0].file_path();
    assert_eq!(location, entries[1].file_path());
    let input = FileIO::new_with_fs().new_input(location).unwrap();
    let reader = PuffinReader::new(input);
    let blobs = reader.file_metadata().await.unwrap().blobs();
    assert_eq!(blobs.len(), 2);
    for (blob, entry) in blobs.iter().zip(&entries) {
        let entry = entry.data_file();
        assert_eq!(blob.blob_type(), DELETION_VECTOR_V1);
        assert_eq!(blob.fields(), [ROW_POSITION_ID]);
        assert_eq!((blob.snapshot_id(), blob.sequence_number()), (-1, -1));
        assert_eq!(blob.compression_codec(), CompressionCodec::None);
        assert_eq!(Some(blob.offset() as i64), entry.content_offset());
        assert_eq!(Some(blob.length() as i64), entry.content_size_in_bytes());
        let properties = blob.properties();
        assert_eq!(
            properties["referenced-data-file"],
            entry.referenced_data_file().unwrap()
        );
        assert_eq!(properties["cardinality"], entry.record_count().to_string());
    }
}

#[tokio::test]
async fn a_lost_or_damaged_vector_is_written_again() {
    let mut rig = Rig::new(3);
    let files = [file("a", 10, &[1])];
    rig.publish(&files).await;
    for damage in [true, false] {
        let found = rig.deletes().await;
        let old = found.of("a").data_file();
        let place = local(old.file_path());
        match damage {
            true => {
                let mut content = fs::read(&place).unwrap();
                content[old.content_offset().unwrap() as usize + 20] ^= 1;
                fs::write(&place, content).unwrap();
            }
            false => fs::remove_file(&place).unwrap(),
        }
        assert!(!rig.publish(&files).await.unchanged);
        assert_eq!(rig.deletes().await.gone[0].file_path(), old.file_path());
    }
}

#[tokio::test]
async fn an_upgraded_table_keeps_position_deletes_until_they_change() {
    let mut rig = Rig::new(2);
    let kept = file("a", 10, &[1]);
    rig.publish(&[kept.clone(), file("b", 10, &[2])]).await;
    let old = rig.deletes().await;
    rig.format_version = 3;
    rig.publish(&[kept.clone(), file("b", 10, &[2])]).await;
    assert_eq!(rig.deletes().await.manifests, old.manifests);
    rig.publish(&[kept, file("b", 10, &[2, 3])]).await;
    let new = rig.deletes().await;
    assert_eq!(new.of("a").data_file(), old.of("a").data_file());
    assert_eq!(new.of("b").file_format(), DataFileFormat::Puffin);
    assert_eq!(rig.summary("added-dvs").await, 1);
    assert_eq!(rig.summary("removed-position-delete-files").await, 1);
}

#[tokio::test]
async fn expired_snapshots_name_the_delete_files_they_leave() {
    for format_version in [2, 3] {
        let mut rig = Rig::new(format_version);
        rig.keep_snapshots = 2;
        let mut removed = vec![];
        for round in 0..6 {
            let rows: Vec<u32> = (0..=round).collect();
            let files = [file("a", 10, &rows), file("b", 10, &[5])];
            removed.extend(rig.publish(&files).await.removed_files);
        }
        // Six versions of the deletes of a, of which two snapshots are kept; the first object of version 3 is kept too,
        // as it has those of b.
        removed.retain(|location| location.contains("/data/"));
        let expected = match format_version {
            2 => 4,
            _ => 3,
        };
        assert_eq!(removed.len(), expected, "{removed:?}");
        for location in &removed {
            fs::remove_file(local(location)).unwrap();
        }
        let metadata = rig.metadata().await;
        assert_eq!(metadata.snapshots().len(), 2);
        for snapshot in metadata.snapshots() {
            let deletes = Deletes::read(&metadata, snapshot).await;
            assert_eq!(deletes.alive.len(), 2);
            for entry in &deletes.alive {
                deleted_rows(entry.data_file());
            }
        }
        // Those of b and the last ones of a go with the last snapshots that have them.
        let mut left = vec![];
        for name in ["c", "d", "e"] {
            left.extend(rig.publish(&[file(name, 1, &[])]).await.removed_files);
        }
        left.retain(|location| location.contains("/data/"));
        for location in &left {
            fs::remove_file(local(location)).unwrap();
        }
        assert_eq!(rig.delete_files_on_disk(), 0);
    }
}

#[tokio::test]
async fn impossible_positions_are_refused_and_leave_nothing() {
    for format_version in [2, 3] {
        let mut rig = Rig::new(format_version);
        rig.publish(&[file("a", 10, &[])]).await;
        for deleted in [vec![3, 3], vec![5, 2], vec![0, 10]] {
            let request = rig.request(&[file("a", 10, &deleted)]);
            let error = publish(&LocalStore, request).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(rig.delete_files_on_disk(), 0);
        // The last row is one of them.
        rig.publish(&[file("a", 10, &[0, 9])]).await;
    }
}
