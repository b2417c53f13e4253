//! What brings a session by each crash point.

use super::model::{Writer, maintain};
use crate::Result;
use crate::cluster::Cluster;
use crate::pg::must_fail;

/// What a session does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Load,
    Change,
    Truncate,
    Flush,
    Merge,
    Compact,
    Clustering,
    Publish,
    Sweep,
    Prepare,
}

use Driver::{Change, Clustering, Compact, Flush, Load, Merge, Prepare, Publish, Sweep, Truncate};

/// A point, what may bring a session there, and at which passage it dies at the latest.
pub struct Case {
    pub point: &'static str,
    pub drivers: &'static [Driver],
    pub passages: u64,
}

const fn case(point: &'static str, drivers: &'static [Driver], passages: u64) -> Case {
    Case {
        point,
        drivers,
        passages,
    }
}

/// Each point of the server has to be here. A point may have several lines.
pub const CASES: &[Case] = &[
    case("storage_created", &[Truncate], 3),
    case("storage_dropped", &[Truncate], 3),
    case("intent_written", &[Load, Flush, Publish], 3),
    case("data_file_created", &[Load, Flush, Publish], 3),
    case("data_file_written", &[Load, Flush, Publish], 3),
    case("data_file_synced", &[Load, Flush, Publish], 3),
    case("data_file_durable", &[Load, Flush, Publish], 3),
    case("sink_sent", &[Load, Flush, Publish], 3),
    case("sink_written", &[Load, Flush, Publish], 3),
    case("register_begin", &[Load, Flush], 3),
    case("register_end", &[Load, Flush, Prepare], 3),
    case("anchor_inserted", &[Change], 30),
    case("mark_inserted", &[Change, Prepare], 30),
    case("flush_encoded", &[Flush, Prepare], 3),
    case("flush_deleting", &[Flush], 10),
    case("flush_deleted", &[Flush], 3),
    case("entries_inserting", &[Flush], 5),
    case("entries_inserted", &[Flush], 2),
    case("merge_settled", &[Merge], 2),
    case("merge_folding", &[Merge], 4),
    case("merge_folded", &[Merge, Prepare], 4),
    case("compact_written", &[Compact], 3),
    case("compact_locked", &[Compact], 3),
    case("compact_replaced", &[Compact], 3),
    case("cluster_written", &[Clustering], 3),
    case("cluster_replaced", &[Clustering], 3),
    case("publish_begin", &[Publish], 4),
    // At least three files for each table that has changed.
    case("metadata_created", &[Publish], 8),
    case("metadata_written", &[Publish], 8),
    case("metadata_synced", &[Publish], 8),
    case("metadata_durable", &[Publish], 3),
    case("publish_written", &[Publish], 3),
    case("publish_moved", &[Publish], 3),
    case("hint_renamed", &[Publish, Sweep], 3),
    case("publication_written", &[Publish, Sweep], 3),
    case("file_removed", &[Sweep], 6),
    case("files_removed", &[Sweep], 4),
    case("sweep_intent", &[Sweep, Prepare], 3),
    case("sweep_publication", &[Sweep], 3),
    case("sweep_garbage", &[Sweep], 4),
    case("prepare_begin", &[Prepare], 3),
    case("prepare_end", &[Prepare], 3),
    case("commit_begin", &[Load, Change, Truncate], 3),
    case("commit_begin", &[Flush, Merge, Compact, Clustering], 3),
    case("commit_begin", &[Publish, Sweep], 3),
    case("commit_end", &[Load, Change, Truncate], 3),
    case("commit_end", &[Flush, Merge, Compact, Clustering], 3),
    case("commit_end", &[Publish, Sweep], 3),
];

/// One turn of a session.
pub fn turn(driver: Driver, writer: &mut Writer) -> String {
    match driver {
        Load => writer.loads(),
        Change => writer.changes_cold_rows(),
        Truncate => writer.truncates(),
        Flush => writer.makes_hot_rows() + &maintain("flush", FLUSHED),
        Merge => {
            writer.changes_cold_rows()
                + &writer.makes_hot_rows()
                + &maintain("flush", &["t"])
                + &maintain("merge", &["b", "t", "p"])
        }
        Compact => {
            writer.changes_cold_rows()
                + &writer.loads()
                + &maintain("flush", FLUSHED)
                + &maintain("merge", &["t"])
                + &maintain("compact", &["b", "t", "p"])
        }
        Clustering => writer.makes_hot_rows() + &maintain("flush", &["t"]) + &writer.clusters(),
        Publish => {
            writer.makes_hot_rows() + &writer.changes_cold_rows() + "CALL publish_twins();\n"
        }
        Sweep => {
            writer.loads_in_vain()
                + &writer.truncates()
                + "BEGIN;\nCALL publish_twins();\nROLLBACK;\nCALL publish_twins();\nSELECT lake.sweep();\n"
        }
        Prepare => writer.makes_hot_rows() + &writer.loads_in_vain() + &writer.prepares(),
    }
}

const FLUSHED: &[&str] = &["t", "b", "p", "l"];

/// The server's points are those of the list.
pub fn check_list(cluster: &Cluster) -> Result<()> {
    const BEFORE: &str = "The points are ";
    let error = must_fail(cluster, "SET lake.debug_crash = '?'", &[BEFORE])?;
    let names: Vec<&str> = error
        .split_once(BEFORE)
        .and_then(|(_, rest)| rest.lines().next())
        .unwrap_or_default()
        .trim_end_matches('.')
        .split(", ")
        .collect();
    let mut wrong = Vec::new();
    for name in &names {
        if !CASES.iter().any(|case| case.point == *name) {
            wrong.push(format!("nothing brings a session by point {name}"));
        }
    }
    for case in CASES {
        if !names.contains(&case.point) {
            wrong.push(format!("the server has no point {}", case.point));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}
