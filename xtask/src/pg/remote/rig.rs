//! A server with a tablespace in an object store, an iceberg table there, and a heap table that gets the
//! same statements in the same transactions.

use crate::Result;
use crate::cluster::Cluster;
use crate::pg::must_be;
use crate::stores::{Store, Tablespace};
use crate::test::Run;
use std::time::Duration;

pub const TABLESPACE: &str = "lake_remote";
/// Of the tablespace's objects.
pub const PREFIX: &str = "some/prefix";
/// `lake.store_timeout` where requests fail, in seconds: an attempt has a part of it, and must have an end on
/// a busy machine, too.
pub const TIMEOUT: u64 = 6;
/// The setting.
pub const IMPATIENT: (&str, &str) = ("lake.store_timeout", "6s");
/// Of a statement, whatever happens to its requests.
const STATEMENT: Duration = Duration::from_secs(150);

/// Nothing happens in the background, columns are decoded anew each time.
const SETTINGS: &[(&str, &str)] = &[
    ("lake.flush_interval", "-1"),
    ("lake.flush_rows", "-1"),
    ("lake.publish_interval", "-1"),
    ("lake.auto_compact", "off"),
    ("lake.memory_cache_size", "0"),
    ("lake.store_timeout", "30s"),
];

const TABLES: &str = "
    CREATE TABLE h (id int, n bigint, v text);
    CREATE PROCEDURE compare(setting text) LANGUAGE plpgsql AS $$
    DECLARE r record;
    BEGIN
        PERFORM set_config('lake.engine', setting, true);
        SELECT count(*) AS n, min(x::text) AS one INTO r
        FROM ((TABLE h EXCEPT ALL TABLE t) UNION ALL (TABLE t EXCEPT ALL TABLE h)) x;
        IF r.n <> 0 THEN
            RAISE EXCEPTION 'the twins have parted, lake.engine = %: % rows, one is %', setting, r.n, left(r.one, 100);
        END IF;
    END $$;";

/// What a session of a test begins with: everything that is loaded becomes files.
pub const BULK: &str = "SET lake.bulk_rows = 0;\n";

pub struct Rig {
    pub cluster: Cluster,
    /// What locations in the bucket begin with.
    pub root: String,
    /// What was said when the tablespace was created.
    pub notices: String,
    pub tablespace: Tablespace,
}

impl Rig {
    /// `port`: the store's, or that of a proxy.
    pub fn start(
        run: &mut Run,
        name: &str,
        store: &Store,
        port: u16,
        settings: &[(&str, &str)],
    ) -> Result<Rig> {
        let dir = run.work_dir(&format!("{name}-tablespace"))?;
        let tablespace = Tablespace::new(TABLESPACE, store, port, PREFIX, &dir)?;
        let credentials = tablespace.credentials.display().to_string();
        let ours = [("lake.credentials_file", credentials.as_str())];
        let all: Vec<(&str, &str)> = SETTINGS
            .iter()
            .copied()
            .chain(ours)
            .chain(settings.iter().copied())
            .collect();
        let mut cluster = run.cluster(name, &all)?;
        cluster.limit = STATEMENT;
        let rig = Rig {
            notices: tablespace.create(&cluster)?,
            cluster,
            root: store.root(),
            tablespace,
        };
        rig.sql(&format!("{}; {TABLES}", Rig::create_table()))?;
        Ok(rig)
    }

    fn create_table() -> String {
        format!(
            "CREATE TABLE t (id int, n bigint, v text) USING iceberg
             WITH (target_file_size = '32MB') TABLESPACE {TABLESPACE}"
        )
    }

    pub fn sql(&self, sql: &str) -> Result<String> {
        self.cluster.sql(sql)
    }

    /// A transaction with each statement for both tables, whose name is `{}` in it.
    pub fn change(&self, statements: &[&str]) -> Result<()> {
        self.sql(&format!("{BULK}{}", transaction(statements)))
            .map(drop)
    }

    /// Both tables have the same rows, whoever reads them.
    pub fn same(&self, when: &str) -> Result<()> {
        self.sql("CALL compare('on'); CALL compare('off');")
            .map(drop)
            .map_err(|error| format!("{when}: {error}"))
    }

    /// The table's files have to be fetched from the store again.
    pub fn evict(&self) -> Result<()> {
        self.sql("SELECT lake.cache_evict('t')").map(drop)
    }

    /// The locations of the table's data files.
    pub fn files(&self) -> Result<Vec<String>> {
        let paths =
            self.sql("SELECT path FROM lake.data_files WHERE table_name = 't' ORDER BY row_start")?;
        let paths: Vec<String> = paths.lines().map(str::to_owned).collect();
        match paths.iter().find(|path| !path.starts_with(&self.root)) {
            Some(path) => Err(format!("{path} is not in {}", self.root)),
            None => Ok(paths),
        }
    }

    /// The key of a location in the bucket.
    pub fn key<'a>(&self, location: &'a str) -> Result<&'a str> {
        location
            .strip_prefix(&self.root)
            .ok_or_else(|| format!("{location} is not in {}", self.root))
    }

    pub fn count(&self, expected: u64, what: &str) -> Result<()> {
        must_be(
            &self.sql("SELECT count(*) FROM t")?,
            &expected.to_string(),
            what,
        )
    }
}

/// Each statement for both tables, whose name is `{}` in it, in one transaction.
pub fn transaction(statements: &[&str]) -> String {
    let mut text = String::from("BEGIN;\n");
    for statement in statements {
        for table in ["h", "t"] {
            text.push_str(&statement.replace("{}", table));
            text.push_str(";\n");
        }
    }
    text.push_str("COMMIT;\n");
    text
}

/// A load of rows, of which each takes some seventy bytes however it is compressed.
pub fn load(first: u64, last: u64) -> String {
    format!("INSERT INTO {{}} {}", rows(first, last))
}

pub fn rows(first: u64, last: u64) -> String {
    format!(
        "SELECT g, g * 7, 'row ' || g || encode(sha512(g::text::bytea), 'hex') \
         FROM generate_series({first}, {last}) g"
    )
}
