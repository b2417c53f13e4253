//! A secret is in the credentials file, and nowhere that anybody sees.

use super::rig::{IMPATIENT, PREFIX, Rig, load};
use crate::cluster::{DATABASE, SUPERUSER};
use crate::pg::{must_fail, wait_until};
use crate::stores::proxy::{Action, Proxy, Rule};
use crate::stores::{self, Kind, Store};
use crate::test::Run;
use crate::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// The more is logged, the better.
const SETTINGS: &[(&str, &str)] = &[
    ("log_min_messages", "debug2"),
    ("log_statement", "all"),
    ("log_error_verbosity", "verbose"),
    ("debug_print_plan", "on"),
    ("lake.publish_interval", "1"),
    IMPATIENT,
];

/// Everything that a server shows while all goes well and while it doesn't.
pub fn secrets(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "secrets", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let rig = Rig::start(run, "secrets", &store, proxy.port(), SETTINGS)?;
    let mut shown = vec![("the notices of CREATE TABLESPACE", rig.notices.clone())];
    rig.change(&[&load(1, 20_000)])?;
    rig.sql("SELECT lake.publish('t')")?;
    shown.push(("EXPLAIN", explain(&rig)?));
    shown.push(("views", views(&rig, &[])?));
    shown.push(("refused tablespaces", refused(run, &rig, &store, &proxy)?));
    shown.push(("errors", errors(&rig, &proxy)?));
    shown.push((
        "views while a request is under way",
        under_way(&rig, &proxy)?,
    ));
    shown.push(("errors of the credentials file", file(&rig, &store)?));
    shown.push(("a dump", dump(&rig)?));
    let log = rig.cluster.log();
    let log = fs::read(&log).context(log.display())?;
    shown.push(("the log", String::from_utf8_lossy(&log).into_owned()));
    for secret in store.secrets() {
        // Of the rest there may be another spelling.
        let secret = secret.split('+').next().unwrap_or(secret);
        if let Some((place, text)) = shown.iter().find(|(_, text)| text.contains(secret)) {
            let line = text.lines().find(|line| line.contains(secret));
            return Err(format!("{place}: a secret is shown: {line:?}"));
        }
    }
    // A search that finds nothing may not have looked.
    let nothing = shown[1..].iter().find(|(_, text)| text.trim().is_empty());
    match nothing {
        Some((place, _)) => Err(format!("{place}: there is nothing")),
        None => Ok(()),
    }
}

fn explain(rig: &Rig) -> Result<String> {
    rig.evict()?;
    rig.sql(
        "EXPLAIN (ANALYZE, VERBOSE, COSTS, SETTINGS, BUFFERS, WAL) SELECT sum(id), max(v) FROM t WHERE id > 5;
         EXPLAIN (ANALYZE, VERBOSE, FORMAT json) UPDATE t SET n = n + 1 WHERE id = 7;
         SET lake.engine = off;
         EXPLAIN (ANALYZE, VERBOSE) SELECT sum(id), max(v) FROM t;",
    )
}

/// Rows of every view and table of the extension but these, and of Postgres' own that show settings or
/// statements.
fn views(rig: &Rig, without: &[&str]) -> Result<String> {
    let without = without.join(",");
    rig.sql(&format!(
        "SELECT format('SELECT %L, x::text FROM %s x', c.oid::regclass, c.oid::regclass)
         FROM pg_class c
         WHERE c.relnamespace = 'lake'::regnamespace AND c.relkind IN ('r', 'v', 'm')
           AND c.relname <> ALL ('{{{without}}}')
         \\gexec
         SELECT x::text FROM pg_stat_activity x;
         SELECT x::text FROM pg_settings x;
         SELECT x::text FROM pg_file_settings x;
         SELECT x::text FROM pg_tablespace x;
         SELECT x::text FROM pg_class x WHERE relname = 't';
         SELECT x::text FROM pg_stat_progress_copy x;
         SHOW ALL;
        "
    ))
}

/// Tablespaces with a wrong secret, without the right to write, without an entry, and with a secret
/// among the options.
fn refused(run: &mut Run, rig: &Rig, store: &Store, proxy: &Proxy) -> Result<String> {
    let location = run.work_dir("secrets-refused")?;
    let mut said = String::new();
    for credential in ["wrong", "reader", "nobody"] {
        let create = format!(
            "CREATE TABLESPACE refused LOCATION '{}' WITH ({})",
            location.display(),
            store.options(proxy.port(), PREFIX, credential)
        );
        let error = must_fail(&rig.cluster, &create, &["error"])
            .map_err(|error| format!("credential {credential}: {error}"))?;
        said.push_str(&error);
    }
    let options = store.options(proxy.port(), PREFIX, "main");
    for option in ["secret_access_key", "account_key"] {
        let create = format!(
            "CREATE TABLESPACE refused LOCATION '{}' WITH ({options}, {option} = 'x')",
            location.display()
        );
        said.push_str(&must_fail(&rig.cluster, &create, &["hint"])?);
    }
    Ok(said)
}

/// Statements that a refusing, a silent and a broken store fails.
fn errors(rig: &Rig, proxy: &Proxy) -> Result<String> {
    let statements = [
        format!(
            "SET lake.bulk_rows = 0; {}",
            load(100_001, 101_000).replace("{}", "t")
        ),
        "SELECT lake.cache_evict('t'); SELECT sum(id), max(v) FROM t".to_owned(),
        "UPDATE t SET n = n + 1 WHERE id = 3; SELECT lake.publish('t')".to_owned(),
    ];
    let mut said = String::new();
    for action in [
        Action::Status(403, None),
        Action::Status(500, None),
        Action::BlackHole,
        Action::Reset,
    ] {
        proxy.set(vec![Rule::new(action)]);
        for statement in &statements {
            let script = format!(
                "\\set VERBOSITY verbose\nSET client_min_messages = debug1;\n{statement};\n"
            );
            let failed = must_fail(&rig.cluster, &script, &["error:"]);
            said.push_str(&failed.map_err(|error| format!("{}: {error}", action.name()))?);
        }
    }
    proxy.clear();
    Ok(said)
}

/// A credentials file that others may read, with another secret, and with a line that is none: errors, until
/// it is as before.
fn file(rig: &Rig, store: &Store) -> Result<String> {
    const WAIT: Duration = Duration::from_secs(30);
    let path = &rig.tablespace.credentials;
    let good = fs::read_to_string(path).context(path.display())?;
    let write = |text: &str, mode: u32| {
        fs::write(path, text)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
            .context(path.display())
    };
    let query = || {
        rig.evict()?;
        rig.sql("\\set VERBOSITY verbose\nSELECT sum(id), max(v) FROM t;")
    };
    let other = good.replace(store.secrets()[0], store.secrets()[2]);
    let malformed = good.replace("secret_access_key = ", "secret_access_key ");
    let mut said = String::new();
    for (text, mode, states) in [
        (&good, 0o644, "F0000:"),
        (&other, 0o600, "28000:"),
        (&malformed, 0o600, "F0000:"),
    ] {
        write(text, mode)?;
        // A worker doesn't look at it each time.
        wait_until(WAIT, states, || match query() {
            Ok(_) => Ok(false),
            Err(error) if error.contains(states) => {
                said.push_str(&error);
                Ok(true)
            }
            Err(error) => Err(error),
        })?;
        write(&good, 0o600)?;
        wait_until(WAIT, "the file is good again", || query().map(|_| true))?;
    }
    Ok(said)
}

/// What others see while a statement waits for the store.
fn under_way(rig: &Rig, proxy: &Proxy) -> Result<String> {
    rig.evict()?;
    proxy.set(vec![Rule::new(Action::BlackHole)]);
    let session = rig
        .cluster
        .psql(DATABASE)
        .stdin("SELECT sum(id), max(v) FROM t;")
        .start()?;
    wait_until(
        Duration::from_secs(60),
        "a request",
        || Ok(proxy.hits() > 0),
    )?;
    // Snapshots are read from the store.
    let seen = views(rig, &["snapshots"])?;
    proxy.clear();
    let output = session.wait()?;
    Ok(seen + &output.stderr)
}

/// What a dump of the whole server says of the tablespace.
fn dump(rig: &Rig) -> Result<String> {
    rig.cluster
        .tool("pg_dumpall")
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            SUPERUSER,
            "--tablespaces-only",
            "-p",
        ])
        .arg(rig.cluster.port.to_string())
        .ok()
}
