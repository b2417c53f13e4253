//! A Postgres cluster that xtask runs: the dev server, or a throwaway one of a test.
//!
//! Servers listen on 127.0.0.1 and on a socket below their directory, trust local connections,
//! and run as the server's user.

use crate::os::{self, User};
use crate::postgres::Postgres;
use crate::process::{self, Cmd, Output};
use crate::{Context, Result};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The database that `up` and the tests make.
pub const DATABASE: &str = "lake";
/// The superuser of every cluster.
pub const SUPERUSER: &str = "postgres";

/// A cluster: `data`, `sock`, `log` and `port` below one directory.
pub struct Cluster {
    pub pg: Postgres,
    pub user: Option<User>,
    pub dir: PathBuf,
    pub port: u16,
    /// Stop and remove it when it goes out of scope, and keep its log in this file.
    throwaway: Option<PathBuf>,
    /// How long a statement of a test may take.
    pub limit: Duration,
}

impl Cluster {
    /// The cluster in this directory, whether or not it exists or runs.
    pub fn at(pg: &Postgres, user: Option<&User>, dir: &Path) -> Cluster {
        let port = fs::read_to_string(dir.join("port"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        Cluster {
            pg: pg.clone(),
            user: user.cloned(),
            dir: dir.to_owned(),
            port,
            throwaway: None,
            limit: Duration::from_secs(600),
        }
    }

    /// A test's cluster: it goes away with the value; its log is kept in `log`.
    pub fn into_throwaway(mut self, log: PathBuf) -> Cluster {
        self.throwaway = Some(log);
        self.limit = Duration::from_secs(180);
        self
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn socket_dir(&self) -> PathBuf {
        let dir = self.dir.join("sock");
        // A socket's path has about a hundred bytes.
        if dir.as_os_str().len() < 80 {
            dir
        } else {
            std::env::temp_dir()
        }
    }

    pub fn exists(&self) -> bool {
        self.data().join("PG_VERSION").is_file()
    }

    /// A command of Postgres', as the server's user, without our environment's `PG…`.
    pub fn tool(&self, program: impl AsRef<Path>) -> Cmd {
        let mut command = Cmd::new(self.pg.bindir.join(program))
            .user(self.user.as_ref())
            .cwd(&self.dir)
            .limit(self.limit)
            .unset("LD_LIBRARY_PATH")
            .unset("LC_ALL")
            .env("LC_MESSAGES", "C");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command = command.unset(&name);
            }
        }
        command
    }

    /// Make the data directory, with these lines of configuration.
    pub fn init(&self, settings: &[(&str, &str)]) -> Result<()> {
        os::make_dir(&self.dir, self.user.as_ref())?;
        os::make_dir(&self.dir.join("sock"), self.user.as_ref())?;
        self.tool("initdb")
            .arg("-D")
            .arg(self.data())
            .args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync", "--no-instructions"])
            .ok()
            .context("initdb")?;
        self.configure(settings)
    }

    /// Replace our part of the configuration.
    pub fn configure(&self, settings: &[(&str, &str)]) -> Result<()> {
        let mut text = String::from("# Written by `cargo xtask`; later lines win.\n");
        let socket = self.socket_dir().display().to_string();
        let fixed = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", socket.as_str()),
        ];
        for (name, value) in fixed.iter().chain(settings) {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        os::write_file(&self.data().join("xtask.conf"), &text, self.user.as_ref())?;
        let main = self.data().join("postgresql.conf");
        let old = fs::read_to_string(&main).context(main.display())?;
        let include = "include 'xtask.conf'";
        if old.lines().any(|line| line == include) {
            return Ok(());
        }
        os::write_file(&main, &format!("{old}\n{include}\n"), self.user.as_ref())
    }

    /// Whether the postmaster lives. `pg_ctl status` takes one that was killed and not yet reaped
    /// (in a container without an init) for a running one.
    pub fn running(&self) -> bool {
        let Ok((pid, _)) = self.postmaster() else {
            return false;
        };
        let at_work = fs::read_link(format!("/proc/{pid}/cwd"));
        process::alive(pid)
            && match (at_work, self.data().canonicalize()) {
                (Ok(cwd), Ok(data)) => cwd == data,
                // Not ours to see, in some containers even for root: believe the file.
                _ => true,
            }
    }

    /// Remove the lock files of a postmaster that was killed, for the same reason.
    fn clear_dead_locks(&self) {
        if !self.running() {
            let _ = fs::remove_file(self.data().join("postmaster.pid"));
            let lock = format!(".s.PGSQL.{}.lock", self.port);
            let _ = fs::remove_file(self.socket_dir().join(lock));
        }
    }

    /// Start the server, on the port that it had if that is free.
    pub fn start(&mut self) -> Result<()> {
        self.clear_dead_locks();
        let mut error = String::new();
        for _ in 0..3 {
            if self.port == 0 || TcpListener::bind(("127.0.0.1", self.port)).is_err() {
                self.port = free_port()?;
            }
            os::write_file(
                &self.dir.join("port"),
                &format!("{}\n", self.port),
                self.user.as_ref(),
            )?;
            let before = fs::metadata(self.log()).map(|m| m.len()).unwrap_or(0);
            let output = self
                .tool("pg_ctl")
                // Otherwise every error would carry the library's own call stack.
                .unset("RUST_BACKTRACE")
                .args(["start", "-w", "-t", "120", "-s", "-D"])
                .arg(self.data())
                .arg("-l")
                .arg(self.log())
                .arg("-o")
                .arg(format!("-p {}", self.port))
                .limit(Duration::from_secs(150))
                .run()?;
            if output.success() {
                return Ok(());
            }
            let log = fs::read(self.log()).unwrap_or_default();
            let new = log.get(before as usize..).unwrap_or_default();
            let new = String::from_utf8_lossy(new);
            error = format!(
                "the server does not start ({}):\n{}",
                self.log().display(),
                process::tail(&new, 20)
            );
            // Somebody took the port in between.
            if !new.contains("could not bind") {
                break;
            }
            self.port = 0;
        }
        Err(error)
    }

    pub fn stop(&self, mode: &str) -> Result<()> {
        if !self.running() {
            return Ok(());
        }
        self.tool("pg_ctl")
            .args(["stop", "-w", "-t", "120", "-s", "-m", mode, "-D"])
            .arg(self.data())
            .limit(Duration::from_secs(150))
            .ok()
            .map(drop)
            .context("stopping the server")
    }

    pub fn restart(&mut self) -> Result<()> {
        self.stop("fast")?;
        self.start()
    }

    /// The postmaster's process id, and when it started (seconds since 1970).
    pub fn postmaster(&self) -> Result<(u32, u64)> {
        let file = self.data().join("postmaster.pid");
        let text = fs::read_to_string(&file).context(file.display())?;
        let mut lines = text.lines();
        let pid = lines.next().and_then(|line| line.trim().parse().ok());
        let started = lines.nth(1).and_then(|line| line.trim().parse().ok());
        match (pid, started) {
            (Some(pid), Some(started)) => Ok((pid, started)),
            _ => Err(format!("{} is not what Postgres writes", file.display())),
        }
    }

    /// Kill the postmaster and all its children with SIGKILL, as a lost machine would.
    pub fn kill9(&self) -> Result<()> {
        let (postmaster, _) = self.postmaster()?;
        let mut all = process::descendants(postmaster);
        all.push(postmaster);
        process::signal("KILL", &all)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while all.iter().any(|&pid| process::alive(pid)) {
            if Instant::now() > deadline {
                return Err("killed server processes are still there after 20 s".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// psql on a database, for scripts: unaligned, tuples only, stops at the first error.
    pub fn psql(&self, database: &str) -> Cmd {
        self.tool("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-F", "\t", "-P", "null=null", "-h", "127.0.0.1", "-p"])
            .arg(self.port.to_string())
            .args(["-U", SUPERUSER, "-d", database])
    }

    /// Run SQL in a database: the rows, columns separated by tabs; or the error's text.
    pub fn sql_in(&self, database: &str, sql: &str) -> Result<String> {
        let output = self.psql(database).stdin(sql).run()?;
        answer(output)
    }

    pub fn sql(&self, sql: &str) -> Result<String> {
        self.sql_in(DATABASE, sql)
    }

    /// Create a database with the extension.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.sql_in("postgres", &format!("CREATE DATABASE {name}"))?;
        self.sql_in(name, "CREATE EXTENSION pg_lake").map(drop)
    }

    /// The environment of this server's clients.
    pub fn client_env(&self) -> [(&'static str, String); 4] {
        [
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", SUPERUSER.to_owned()),
            ("PGDATABASE", DATABASE.to_owned()),
        ]
    }
}

/// psql's answer, or what it complained of.
pub fn answer(output: Output) -> Result<String> {
    if output.success() {
        return Ok(output.stdout.trim_end().to_owned());
    }
    if output.timed_out {
        return Err(format!(
            "psql: no end after {} s\n{}",
            output.elapsed.as_secs(),
            output.stderr.trim_end()
        ));
    }
    Err(output.stderr.trim_end().to_owned())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(log) = self.throwaway.take() {
            let _ = self.stop("immediate");
            let _ = fs::copy(self.log(), log);
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener
        .local_addr()
        .context("looking for a free port")?
        .port())
}
