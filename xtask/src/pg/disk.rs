//! A disk that is full while files are written to it.

use super::crash::parquet_files;
use super::{must_be, must_fail, same_server, started_at, wait_until};
use crate::Result;
use crate::cluster::Cluster;
use crate::os::{self, User};
use crate::process::Cmd;
use crate::test::Run;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Twice as much as fits: 64 random bytes in each text, which no compression makes less of.
const TOO_MUCH: &str =
    "SELECT g, encode(sha512(g::text::bytea), 'hex') FROM generate_series(1, 500000) g";

/// A file system of 16 MB, for as long as the value lives.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path, user: Option<&User>) -> Result<SmallDisk> {
        Cmd::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
            .arg(path)
            .limit(Duration::from_secs(30))
            .ok()?;
        let disk = SmallDisk {
            path: path.to_owned(),
        };
        os::give(path, user)?;
        Ok(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let umount = || Cmd::new("umount").limit(Duration::from_secs(30));
        if umount().arg(&self.path).ok().is_err() {
            // Something still looks at it: it goes with the last one that does.
            let _ = umount().arg("-l").arg(&self.path).ok();
        }
    }
}

/// Why there can be no small disk here, if there can't.
pub fn cannot_mount(run: &Run) -> Option<String> {
    if !os::is_root() {
        return Some("only root can mount a small file system".to_owned());
    }
    let error = run
        .work_dir("disk_full_probe")
        .and_then(|dir| SmallDisk::mount(&dir, None))
        .err()?;
    let reason = error.lines().last().unwrap_or_default();
    Some(format!("a small file system can't be mounted: {reason}"))
}

/// A load, and a move of a table, fail as `disk_full`, leave nothing behind, and the table can be used
/// as before.
pub fn disk_full(run: &mut Run) -> Result<()> {
    let dir = run.work_dir("disk_full_mount")?;
    // Before the cluster, and so unmounted after it has stopped.
    let disk = SmallDisk::mount(&dir, run.user.as_ref())?;
    let cluster = run.cluster(
        "disk_full",
        &[
            ("lake.flush_interval", "-1"),
            ("lake.publish_interval", "-1"),
            // The files of a table are compared.
            ("lake.auto_compact", "off"),
        ],
    )?;
    cluster.sql(&format!(
        "CREATE TABLESPACE small LOCATION '{}'",
        disk.path.display()
    ))?;
    cluster.sql("CREATE TABLE t (id int, note text) USING iceberg TABLESPACE small")?;
    let server = started_at(&cluster)?;
    let file = cluster.dir.join("rows");
    cluster.sql(&format!("COPY ({TOO_MUCH}) TO '{}'", file.display()))?;
    let loads = [
        format!("INSERT INTO t {TOO_MUCH}"),
        format!("COPY t FROM '{}'", file.display()),
    ];
    for load in &loads {
        // The only file can't be written; several can, before one that can't.
        for size in ["256MB", "4MB"] {
            fails(&cluster, &disk, load, size)
                .map_err(|error| format!("files of {size}, {load}: {error}"))?;
        }
    }
    move_fails(&cluster, &disk)?;
    same_server(&cluster, &server)?;

    cluster.sql(
        "SET lake.bulk_rows = 0;
         INSERT INTO t SELECT g, 'note ' || g FROM generate_series(1, 1000) g;",
    )?;
    must_be(
        &cluster.sql("SELECT count(*), sum(id), count(note) FROM t")?,
        "1000\t500500\t1000",
        "the rows of a load that fits",
    )?;
    must_be(
        &parquet_files(&disk.path).len().to_string(),
        "1",
        "files of a load that fits",
    )?;
    cluster.sql("DROP TABLE t")?;
    swept(&cluster, "garbage")?;
    nothing_left(&disk)?;
    cluster.sql("DROP TABLESPACE small").map(drop)
}

fn fails(cluster: &Cluster, disk: &SmallDisk, load: &str, size: &str) -> Result<()> {
    let script = format!(
        "\\set VERBOSITY verbose\nSET lake.bulk_rows = 0;\n\
         SET lake.target_file_size = '{size}';\n{load};\n"
    );
    // disk_full
    must_fail(cluster, &script, &["53100:"])?;
    // A worker removes what it wrote before it answers; the sweep has only the intent to remove.
    nothing_left(disk).map_err(|error| format!("before the sweep, {error}"))?;
    swept(cluster, "intent")?;
    nothing_left(disk)?;
    must_be(
        &cluster.sql("SELECT count(*) FROM lake.data_files WHERE table_name = 't'")?,
        "0",
        "registered files",
    )?;
    must_be(
        &cluster.sql("SELECT count(*) FROM t")?,
        "0",
        "rows of a load that failed",
    )
}

/// A table that is too large comes from another disk.
fn move_fails(cluster: &Cluster, disk: &SmallDisk) -> Result<()> {
    cluster.sql(&format!(
        "SET lake.target_file_size = '4MB';
         CREATE TABLE large (id int, note text) USING iceberg;
         INSERT INTO large {TOO_MUCH};"
    ))?;
    let state = "SELECT count(*), sum(id), (SELECT string_agg(path, ',' ORDER BY path)
                   FROM lake.data_files WHERE table_name = 'large') FROM large";
    let before = cluster.sql(state)?;
    let script = "\\set VERBOSITY verbose\nALTER TABLE large SET TABLESPACE small;\n";
    must_fail(cluster, script, &["53100:"])?;
    nothing_left(disk).map_err(|error| format!("before the sweep, {error}"))?;
    must_be(&cluster.sql(state)?, &before, "a table that wasn't moved")?;
    cluster.sql("DROP TABLE large")?;
    swept(cluster, "intent")
}

/// Sweep until this table of the catalog is empty: a transaction that has just ended may still be
/// in somebody's snapshot, and the maintainer sweeps, too.
pub fn swept(cluster: &Cluster, table: &str) -> Result<()> {
    let what = format!("lake.{table} is swept");
    wait_until(Duration::from_secs(30), &what, || {
        cluster.sql("SELECT lake.sweep()")?;
        Ok(cluster.sql(&format!("SELECT count(*) FROM lake.{table}"))? == "0")
    })
}

fn nothing_left(disk: &SmallDisk) -> Result<()> {
    match parquet_files(&disk.path).first() {
        Some(file) => Err(format!("{} is left", file.display())),
        None => Ok(()),
    }
}
