//! The dev server: `up`, `down`, `psql`.

use crate::cluster::{Cluster, DATABASE};
use crate::postgres::{self, Postgres};
use crate::{Context, Result, install, os, paths, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::UNIX_EPOCH;

/// What the dev server and the benchmarks run with.
pub const SETTINGS: &[(&str, &str)] = &[
    ("shared_preload_libraries", "pg_lake"),
    ("wal_level", "logical"),
    ("max_connections", "50"),
    ("shared_buffers", "512MB"),
    ("max_worker_processes", "24"),
    ("max_prepared_transactions", "10"),
    ("max_wal_size", "4GB"),
];

fn dir() -> PathBuf {
    paths::state().join("dev")
}

/// Which `pg_config` the dev server was made with, for `psql` and `down`.
fn remembered() -> PathBuf {
    dir().join("pg_config")
}

pub fn command(pg_config: Option<&str>, fresh: bool) -> Result<()> {
    let cluster = up(pg_config, fresh)?;
    for (name, value) in cluster.client_env() {
        println!("export {name}={value}");
    }
    Ok(())
}

/// Make the dev server run with the extension as it is in the checkout.
pub fn up(pg_config: Option<&str>, fresh: bool) -> Result<Cluster> {
    let pg = postgres::find_or_build(pg_config)?;
    let lib = install::build(&pg, None)?;
    install::install(&pg, &lib)?;
    let user = os::server_user()?;
    let mut cluster = Cluster::at(&pg, user.as_ref(), &dir());
    if fresh {
        remove(&cluster)?;
    }
    if !cluster.exists() {
        say(&format!("making a cluster in {}", cluster.dir.display()));
        cluster.init(SETTINGS)?;
    }
    os::write_file(
        &remembered(),
        &format!("{}\n", pg.pg_config.display()),
        user.as_ref(),
    )?;
    if cluster.running() {
        if started_before_install(&cluster)? {
            say("restarting the server: the library has changed");
            cluster.configure(SETTINGS)?;
            cluster.restart()?;
        }
    } else {
        cluster.configure(SETTINGS)?;
        cluster.start()?;
    }
    let known = cluster.sql_in(
        "postgres",
        &format!("SELECT count(*) FROM pg_database WHERE datname = '{DATABASE}'"),
    )?;
    if known == "0" {
        cluster.create_database(DATABASE)?;
        remember_scripts(&cluster)?;
    } else {
        if cluster.sql("SELECT count(*) FROM pg_extension WHERE extname = 'pg_lake'")? == "0" {
            cluster.sql("CREATE EXTENSION pg_lake")?;
            remember_scripts(&cluster)?;
        }
        if is_outdated(&cluster)? {
            say("the SQL scripts have changed since this database got its extension:");
            say("    `cargo xtask up --fresh` begins with an empty server");
        }
    }
    say(&format!(
        "PostgreSQL {} listens on 127.0.0.1:{}",
        pg.version, cluster.port
    ));
    Ok(cluster)
}

/// Whether the dev server's extension was created by other scripts than these.
pub fn is_outdated(cluster: &Cluster) -> Result<bool> {
    let old = fs::read_to_string(scripts_file(cluster)).unwrap_or_default();
    Ok(old != scripts()?)
}

fn scripts_file(cluster: &Cluster) -> PathBuf {
    cluster.dir.join("extension.sql")
}

fn scripts() -> Result<String> {
    let file = paths::repo().join("sql").join("pg_lake--0.1.0.sql");
    fs::read_to_string(&file).context(file.display())
}

fn remember_scripts(cluster: &Cluster) -> Result<()> {
    os::write_file(&scripts_file(cluster), &scripts()?, cluster.user.as_ref())
}

fn started_before_install(cluster: &Cluster) -> Result<bool> {
    let (_, started) = cluster.postmaster()?;
    let lib = cluster.pg.pkglibdir.join("pg_lake.so");
    let modified = fs::metadata(&lib)
        .and_then(|meta| meta.modified())
        .context(lib.display())?;
    Ok(modified
        .duration_since(UNIX_EPOCH)
        .is_ok_and(|since| since.as_secs() >= started))
}

fn existing() -> Result<Cluster> {
    let file = remembered();
    let Ok(text) = fs::read_to_string(&file) else {
        return Err("there is no dev server: `cargo xtask up` makes one".to_owned());
    };
    let user = os::server_user()?;
    let pg = Postgres::ask(Path::new(text.trim()), user.as_ref())?;
    Ok(Cluster::at(&pg, user.as_ref(), &dir()))
}

fn remove(cluster: &Cluster) -> Result<()> {
    cluster.stop("fast")?;
    if cluster.dir.exists() {
        say(&format!("removing {}", cluster.dir.display()));
        fs::remove_dir_all(&cluster.dir).context(cluster.dir.display())?;
    }
    Ok(())
}

pub fn down(destroy: bool) -> Result<()> {
    let Ok(cluster) = existing() else {
        say("there is no dev server");
        return Ok(());
    };
    if destroy {
        return remove(&cluster);
    }
    cluster.stop("fast")?;
    say("the dev server is stopped");
    Ok(())
}

pub fn psql(args: &[String]) -> Result<ExitCode> {
    let cluster = existing()?;
    if !cluster.running() {
        return Err("the dev server does not run: `cargo xtask up` starts it".to_owned());
    }
    let status = Command::new(cluster.pg.bin("psql"))
        .args(args)
        .envs(cluster.client_env())
        .status()
        .context("psql")?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    ))
}
