//! `cargo xtask`: set-up, demo, tests and benchmarks of pg_lake.
//!
//! Only the standard library: it must compile in a second on a machine that has nothing yet.
//! What a command prints on stdout is meant for programs; everything else goes to stderr.

mod apt_sources;
mod bench;
mod cargo;
mod client;
mod cluster;
mod compare;
mod demo;
mod functions;
mod install;
mod os;
mod paths;
mod pg;
mod postgres;
mod process;
mod python;
mod stores;
mod test;
mod tidy;
mod timing;
mod tpch;
mod up;

use std::fmt::Display;
use std::process::ExitCode;

/// Expected failures are messages for the person at the terminal.
pub type Result<T> = std::result::Result<T, String>;

/// Says what was being done when something failed.
pub trait Context<T> {
    fn context(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Display) -> Result<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// Progress, on stderr.
pub fn say(text: &str) {
    if text.starts_with(' ') {
        eprintln!("{text}");
    } else {
        eprintln!("==> {text}");
    }
}

const HELP: &str = "\
cargo xtask <command>

  up        find or build PostgreSQL 17, build and install the extension, start a dev server
  down      stop the dev server
  psql      psql on the dev server
  demo      TPC-H in an iceberg table beside heap, read by DuckDB and pyiceberg
  test      the test suites
  bench     benchmarks, as JSON lines
  package   an archive of the built extension

`cargo xtask <command> --help` says more.

State (PostgreSQL, clusters, data, Python) is in $PG_LAKE_HOME, for root by default
/var/tmp/pg_lake, otherwise below the user's cache directory. Build products are in
$CARGO_TARGET_DIR, by default below the cache directory.
";

const UP: &str = "\
cargo xtask up [--pg-config FILE] [--fresh]

Finds PostgreSQL 17 (--pg-config or $PG_CONFIG, pg_config on PATH, the distribution's package,
else built from the distribution's source package), installs what is missing and says why, builds
and installs the extension and starts a server with it on 127.0.0.1. Can be repeated. Prints last,
on stdout, the environment of its clients:

  eval \"$(cargo xtask up)\" && psql

  --pg-config FILE  the pg_config of the PostgreSQL 17 to use
  --fresh           begin with an empty server
";
const DOWN: &str = "\
cargo xtask down [--destroy]

Stops the dev server.

  --destroy  remove its data, too
";
const PSQL: &str = "\
cargo xtask psql [arguments of psql]

Runs psql on the dev server (`up` starts it).
";
const DEMO: &str = "\
cargo xtask demo [--scale N]

`up`, then TPC-H (scale 1 by default): heap tables and iceberg tables loaded from the same files,
queries with their plans, publication, and the published tables read by DuckDB and pyiceberg.
Fails if any count or sum differs.
";
const TEST: &str = "\
cargo xtask test [suite…] [--long] [--accept] [--seed N] [--rounds N] [--seconds N]

Suites, in this order by default:
  tidy       formatting, clippy, crate edges, module docs, file sizes, links, docs/functions.md
  unit       cargo test of the crates that need no Postgres
  loom       the rings' models
  miri       the rings under Miri, where a nightly toolchain has it
  regress    SQL regression tests (ext/tests/pg_regress)
  isolation  isolation specs (isolation/)
  pg         end to end: crashes, faults, limits, documentation; `pg:NAME` runs one scenario
  readers    every kind of value read back by DuckDB and pyiceberg

Only by name, or with --long:
  crash               kill -9 at every crash point, some eight minutes; $PG_LAKE_SEED repeats a run
  tpch                the 22 queries of TPC-H at scale 1, on iceberg tables by the engine and on heap
  semantics           random queries, on iceberg tables by the engine and on heap
  sqlsmith            sqlsmith's random statements on heap and iceberg tables; no answer is compared, but
                      nothing may crash, panic or end with an internal error that heap doesn't have
  stores              tables in object stores of four kinds; `stores:NAME` runs one scenario
  faults              the same while requests fail, get lost or hang, and processes are killed;
                      `faults:NAME` runs one scenario
  postgres-regress    Postgres' own regression tests, with every table an iceberg table
  postgres-isolation  the same with its isolation tests
  postgres-regress-cold, postgres-isolation-cold
                      the same with rows that become cold before each statement
  postgres-regress-engine, postgres-isolation-engine
                      the same with lake.engine = on; what EXPLAIN shows and the order of rows
                      without ORDER BY are not compared

  --long    longer soaks, wider time limits
  --accept  let regress and isolation take their results as the expected output, and the
            postgres suites the differences of the tests that are listed
            (ext/tests/postgres); tidy makes the list in docs/functions.md again
  --seed    repeats a run of semantics or sqlsmith
  --rounds  of semantics: each has tables of its own and 1000 queries
  --seconds of sqlsmith: how long it runs, by default 300

Ends with one line `N passed, N failed, N skipped`.
";
const BENCH: &str = "\
cargo xtask bench <name>… [--scale N] [--memory MB,…]

  ring    latency and throughput of the rings (cargo bench)
  copy    COPY of TPC-H SF1 lineitem, iceberg beside heap
  insert  single-row INSERT by pgbench, iceberg beside heap
  insert.select  SF1 lineitem into another table: heap; iceberg by rows (lake.engine = off) and by batches
  tpcb    pgbench's TPC-B on hot tables, iceberg beside heap
  lookup  one cold, cached row by its primary key, iceberg beside heap
  flush   rows a second that become cold, without and with a primary key
  q1q6    TPC-H Q1 and Q6: heap, iceberg (warm), DuckDB on the published files
  count   count(*) of SF1 lineitem
  dml     UPDATE and DELETE of 1 % of SF1 lineitem, iceberg (cold rows) beside heap
  tpch    the 22 queries of TPC-H (warm, two cores): iceberg, DuckDB on the published files; --scale
          is that of the data, by default 1; --memory is what either may take, several in turn
  tpch.stream    rows a second of COPY (SELECT …) TO STDOUT from iceberg, beside heap
  tpch.dispatch  what a lowered query takes that has nothing to do, beside heap
  tpch.or        an OR of 20,000 arms
  tpch.beside    a query of 100,000 rows alone, and beside one and three sessions that run Q1, Q9 and Q18
  remote  tables in an object store on this machine (SeaweedFS), or one of its figures by name:
          remote.hit            a hit of the disk cache beside reading and checking the bytes
          remote.warm           Q1 and a wide scan, from the memory cache and from the disk
                                cache, beside a local table
          remote.cold           a scan of all columns, and lake.cache_warm, beside a client that
                                only reads the objects; then all by a network of a gigabit
          remote.latency        cold Q1 with 20 ms for each request, beside none
          remote.commit         single-row INSERT by pgbench, beside a local table
          remote.single_flight  what 16 sessions fetch of a file, beside its size

Prints JSON lines: medians, and ratios within the same run.
";
const PACKAGE: &str = "\
cargo xtask package

Builds the extension and writes a tar.gz of library, SQL, licence and README below the target
directory; prints its path.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = args.split_first() else {
        eprint!("{HELP}");
        return Ok(ExitCode::FAILURE);
    };
    let help = match command.as_str() {
        "up" => UP,
        "down" => DOWN,
        "psql" => PSQL,
        "demo" => DEMO,
        "test" => TEST,
        "bench" => BENCH,
        "package" => PACKAGE,
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        other => return Err(format!("no command {other:?}\n\n{HELP}")),
    };
    let asks_help = |arg: &String| arg == "--help" || arg == "-h";
    let forwards = command == "psql";
    if rest.first().is_some_and(asks_help) && (!forwards || rest.len() == 1) {
        print!("{help}");
        return Ok(ExitCode::SUCCESS);
    }
    let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
    match command.as_str() {
        "up" => {
            let mut options = Options::new(rest, help);
            let pg_config = options.value("--pg-config")?;
            let fresh = options.flag("--fresh");
            options.end()?;
            done(up::command(pg_config.as_deref(), fresh))
        }
        "down" => {
            let mut options = Options::new(rest, help);
            let destroy = options.flag("--destroy");
            options.end()?;
            done(up::down(destroy))
        }
        "psql" => up::psql(rest),
        "demo" => {
            let mut options = Options::new(rest, help);
            let scale = options.value("--scale")?.unwrap_or_else(|| "1".to_owned());
            options.end()?;
            done(demo::command(&scale))
        }
        "test" => {
            let mut options = Options::new(rest, help);
            let wishes = test::Wishes {
                long: options.flag("--long"),
                accept: options.flag("--accept"),
                seed: options.number("--seed")?,
                rounds: options.number("--rounds")?,
                seconds: options.number("--seconds")?,
            };
            test::command(&options.rest()?, wishes)
        }
        "bench" => {
            let mut options = Options::new(rest, help);
            let scale = options.value("--scale")?;
            let memory = options.value("--memory")?;
            let names = options.rest()?;
            done(bench::command(&names, scale.as_deref(), memory.as_deref()))
        }
        _ => {
            Options::new(rest, help).end()?;
            done(install::package())
        }
    }
}

/// The arguments of one command.
struct Options {
    left: Vec<String>,
    help: &'static str,
}

impl Options {
    fn new(args: &[String], help: &'static str) -> Options {
        Options {
            left: args.to_vec(),
            help,
        }
    }

    fn flag(&mut self, name: &str) -> bool {
        let before = self.left.len();
        self.left.retain(|arg| arg != name);
        self.left.len() != before
    }

    /// `--name value` or `--name=value`.
    fn value(&mut self, name: &str) -> Result<Option<String>> {
        let start = format!("{name}=");
        let Some(at) = self
            .left
            .iter()
            .position(|arg| arg == name || arg.starts_with(&start))
        else {
            return Ok(None);
        };
        let arg = self.left.remove(at);
        if let Some(value) = arg.strip_prefix(&start) {
            return Ok(Some(value.to_owned()));
        }
        if at < self.left.len() {
            return Ok(Some(self.left.remove(at)));
        }
        Err(format!("{name} needs a value\n\n{}", self.help))
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>> {
        let value = self.value(name)?;
        let number = value.map(|text| text.parse().context(format!("{name} {text}")));
        number.transpose()
    }

    /// What is left must be names.
    fn rest(self) -> Result<Vec<String>> {
        match self.left.iter().find(|arg| arg.starts_with('-')) {
            Some(unknown) => Err(format!("no option {unknown}\n\n{}", self.help)),
            None => Ok(self.left),
        }
    }

    fn end(self) -> Result<()> {
        let help = self.help;
        match self.rest()?.first() {
            Some(unknown) => Err(format!("what is {unknown:?} for?\n\n{help}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_apart() {
        let args: Vec<String> = ["--a", "--b=1", "x", "--c", "2"]
            .map(str::to_owned)
            .to_vec();
        let mut options = Options::new(&args, "");
        assert!(options.flag("--a"));
        assert!(!options.flag("--d"));
        assert_eq!(options.value("--b"), Ok(Some("1".to_owned())));
        assert_eq!(options.value("--c"), Ok(Some("2".to_owned())));
        assert_eq!(options.rest(), Ok(vec!["x".to_owned()]));
    }
}
