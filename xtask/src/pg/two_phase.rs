//! Deletions of whole files in prepared transactions: they show to nobody and hold everybody off until
//! they are ended, whatever maintenance does meanwhile and however often the server starts.

use super::crash::parquet_files;
use super::{must_be, must_fail, wait_until};
use crate::Result;
use crate::cluster::{Cluster, DATABASE, answer};
use crate::process::Running;
use crate::test::Run;
use std::time::Duration;

/// A DELETE of an iceberg table, `t_…`, and of its heap twin, `h_…`.
struct Case {
    name: &'static str,
    filter: &'static str,
    /// Files that are deleted as a whole.
    files: u32,
    /// Rows of the table without those that are deleted.
    left: u32,
    commit: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "all_kept",
        filter: "",
        files: 4,
        left: 0,
        commit: false,
    },
    Case {
        name: "all_gone",
        filter: "",
        files: 4,
        left: 0,
        commit: true,
    },
    // Two files, and some rows of the third.
    Case {
        name: "some_kept",
        filter: " WHERE id <= 650",
        files: 2,
        left: 560,
        commit: false,
    },
    Case {
        name: "some_gone",
        filter: " WHERE id <= 650",
        files: 2,
        left: 560,
        commit: true,
    },
];

/// In each of four files.
const FILE_ROWS: u32 = 300;
/// Of a table, the last ones of them hot.
const ROWS: u32 = 1210;
/// A row of a file that each case deletes.
const ROW: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn prepared_deletes(run: &mut Run) -> Result<()> {
    let mut cluster = run.cluster(
        "prepared_deletes",
        &[
            ("autovacuum", "off"),
            ("lake.auto_compact", "off"),
            ("lake.flush_rows", "-1"),
            ("lake.flush_interval", "-1"),
            ("lake.publish_interval", "-1"),
        ],
    )?;
    for case in CASES {
        case.make(&cluster)?;
        case.prepare(&cluster)?;
    }
    held(&cluster, "prepared")?;
    maintain(&cluster)?;
    held(&cluster, "after maintenance")?;
    cluster.kill9()?;
    cluster.start()?;
    held(&cluster, "after a crash")?;
    maintain(&cluster)?;
    held(&cluster, "after a crash and maintenance")?;
    cluster.restart()?;
    held(&cluster, "after a restart")?;

    let waiting = waiting_updates(&cluster)?;
    maintain(&cluster)?;
    for case in CASES {
        case.end(&cluster)?;
    }
    for (case, table, session) in waiting {
        let found = if case.commit {
            String::new()
        } else {
            ROW.to_string()
        };
        must_be(
            &answer(session.wait()?)?,
            &found,
            &format!("an update of {table}"),
        )?;
    }
    ended(&cluster, "after the end")?;
    wait_until(PATIENCE, "deletions of whole files are merged", || {
        maintain(&cluster)?;
        Ok(cluster.sql("SELECT count(*) FROM lake.file_mark")? == "0")
    })?;
    ended(&cluster, "after the merge")?;
    must_be(
        &cluster.sql("SELECT count(*) FROM lake.data_files WHERE table_name = 't_all_gone'")?,
        "0",
        "files of the table that was emptied",
    )?;
    wait_until(PATIENCE, "files that nobody needs are removed", || {
        cluster.sql("SELECT lake.sweep()")?;
        let there = parquet_files(&cluster.data()).len();
        Ok(cluster.sql("SELECT count(*) FROM lake.data_file")? == there.to_string())
    })?;
    for case in CASES.iter().filter(|case| !case.commit) {
        case.delete_again(&cluster)?;
    }
    Ok(())
}

impl Case {
    fn tables(&self) -> [String; 2] {
        [format!("h_{}", self.name), format!("t_{}", self.name)]
    }

    fn make(&self, cluster: &Cluster) -> Result<()> {
        let [heap, cold] = self.tables();
        let rows = |from: u32, to: u32| format!("SELECT g, g FROM generate_series({from}, {to}) g");
        let files: String = (0..4)
            .map(|n| {
                let rows = rows(n * FILE_ROWS + 1, (n + 1) * FILE_ROWS);
                format!("INSERT INTO {cold} {rows};\n")
            })
            .collect();
        let script = format!(
            "CREATE TABLE {heap} (id int, n bigint);
             CREATE TABLE {cold} (id int, n bigint) USING iceberg;
             INSERT INTO {heap} {};
             INSERT INTO {cold} {};
             SET lake.bulk_rows = 0;
             {files}",
            rows(1, ROWS),
            rows(4 * FILE_ROWS + 1, ROWS)
        );
        cluster.sql(&script).map(drop)
    }

    fn prepare(&self, cluster: &Cluster) -> Result<()> {
        let Case { name, filter, .. } = self;
        let [heap, cold] = self.tables();
        let marks = cluster.sql(&format!(
            "BEGIN;
             DELETE FROM {heap}{filter};
             DELETE FROM {cold}{filter};
             SELECT count(*) FROM lake.file_mark;
             PREPARE TRANSACTION '{name}';"
        ))?;
        must_be(
            &marks,
            &self.files.to_string(),
            &format!("whole files of {cold}"),
        )
    }

    fn end(&self, cluster: &Cluster) -> Result<()> {
        let end = if self.commit { "COMMIT" } else { "ROLLBACK" };
        cluster
            .sql(&format!("{end} PREPARED '{}'", self.name))
            .map(drop)
    }

    /// The twins are the same, and have so many rows, in the engine and without it.
    fn alike(&self, cluster: &Cluster, rows: u32, when: &str) -> Result<()> {
        let [heap, cold] = self.tables();
        for setting in ["on", "off"] {
            let found = cluster.sql(&format!(
                "SET lake.engine = {setting};
                 SELECT count(*) FROM {cold};
                 SELECT count(*) FROM ((TABLE {heap} EXCEPT ALL TABLE {cold})
                                       UNION ALL (TABLE {cold} EXCEPT ALL TABLE {heap})) d;"
            ))?;
            let what =
                format!("rows of {cold} and those that differ, {when}, lake.engine = {setting}");
            must_be(&found, &format!("{rows}\n0"), &what)?;
        }
        Ok(())
    }

    /// What was rolled back hasn't left anything that keeps files from being deleted as a whole.
    fn delete_again(&self, cluster: &Cluster) -> Result<()> {
        let [heap, cold] = self.tables();
        let marked = cluster.sql(&format!(
            "BEGIN;
             DELETE FROM {heap};
             DELETE FROM {cold};
             SELECT count(*) > 0 FROM lake.file_mark WHERE xmin = pg_current_xact_id()::xid;
             COMMIT;"
        ))?;
        must_be(&marked, "t", &format!("whole files of {cold}, once more"))?;
        self.alike(cluster, 0, "deleted once more")
    }
}

/// Nobody sees the deletions, and nobody can lock what they delete.
fn held(cluster: &Cluster, when: &str) -> Result<()> {
    for case in CASES {
        case.alike(cluster, ROWS, when)?;
        for table in case.tables() {
            let lock = |policy: &str| {
                format!("SELECT id FROM {table} WHERE id <= 650 FOR UPDATE {policy}")
            };
            must_fail(cluster, &lock("NOWAIT"), &["could not obtain lock"])
                .map_err(|error| format!("{table}, {when}: {error}"))?;
            let what = format!("rows of {table} that can be locked, {when}");
            must_be(&cluster.sql(&lock("SKIP LOCKED"))?, "", &what)?;
        }
    }
    Ok(())
}

/// The deletions have been committed or rolled back, and updates of a row have come after them.
fn ended(cluster: &Cluster, when: &str) -> Result<()> {
    CASES.iter().try_for_each(|case| {
        let rows = if case.commit { case.left } else { ROWS };
        case.alike(cluster, rows, when)
    })
}

fn maintain(cluster: &Cluster) -> Result<()> {
    let mut script = String::new();
    for case in CASES {
        let [_, cold] = case.tables();
        for function in ["flush", "merge", "compact"] {
            script.push_str(&format!("SELECT lake.{function}('{cold}');\n"));
        }
        script.push_str(&format!("VACUUM {cold};\n"));
    }
    script.push_str("SELECT lake.sweep();\n");
    cluster.sql(&script).map(drop)
}

/// Updates of a row of each table; returns when all of them wait for a prepared transaction.
fn waiting_updates(cluster: &Cluster) -> Result<Vec<(&'static Case, String, Running)>> {
    let mut waiting = Vec::new();
    for case in CASES {
        for table in case.tables() {
            let session = cluster
                .psql(DATABASE)
                .env("PGAPPNAME", "waiting")
                .stdin(format!(
                    "UPDATE {table} SET n = -n WHERE id = {ROW} RETURNING id;\n"
                ))
                .start()?;
            waiting.push((case, table, session));
        }
    }
    wait_until(PATIENCE, "updates wait for prepared transactions", || {
        // That is what process 0 stands for.
        let blocked = cluster.sql(
            "SELECT count(*) FROM pg_stat_activity
             WHERE application_name = 'waiting' AND 0 = ANY (pg_blocking_pids(pid))",
        )?;
        Ok(blocked == waiting.len().to_string())
    })?;
    Ok(waiting)
}
