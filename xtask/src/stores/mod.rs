//! Object stores on the loopback interface, for tests and benchmarks.
//!
//! * `install`: their programs, pinned
//! * `kinds`: which there are, how each is started, what a tablespace and a credentials file say of it
//! * `ports`: where they listen
//! * `objects`: what is in them, past the server that uses them
//! * `tablespace`: what a server is given for a tablespace in one
//! * `proxy`: faults between a store and its client

mod install;
mod kinds;
mod objects;
mod ports;
pub mod proxy;
mod tablespace;

pub use install::Programs;
pub use kinds::Kind;
pub use objects::Object;
pub use tablespace::Tablespace;

use crate::process::{self, Running, tail_of};
use crate::{Context, Result, os};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The bucket of every store.
pub const BUCKET: &str = "lake";
/// Within this a store must serve requests.
const READY: Duration = Duration::from_secs(40);
/// Ports that were free may be taken before a store has them.
const ATTEMPTS: usize = 3;
/// Processes of the store in a directory.
const PIDS: &str = "pids";

/// A running store, with the bucket. Dropping it kills it.
pub struct Store {
    kind: Kind,
    programs: Programs,
    /// Its data and configuration.
    dir: PathBuf,
    log: PathBuf,
    ports: Vec<u16>,
    processes: Mutex<Vec<Running>>,
}

impl Store {
    /// `dir` is empty and belongs to the server's user.
    pub fn start(programs: &Programs, kind: Kind, dir: &Path, log: &Path) -> Result<Store> {
        let mut store = Store {
            kind,
            programs: programs.clone(),
            dir: dir.to_owned(),
            log: log.to_owned(),
            ports: Vec::new(),
            processes: Mutex::new(Vec::new()),
        };
        let mut error = String::new();
        for _ in 0..ATTEMPTS {
            store.ports = kind.ports()?;
            match store.run() {
                Ok(()) => return Ok(store),
                Err(reason) => error = reason,
            }
            store.kill9();
        }
        Err(error)
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.ports.first().copied().unwrap_or(0)
    }

    /// Kills its processes, as a lost machine would.
    pub fn kill9(&self) {
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for process in processes.iter_mut() {
            process.kill9();
        }
        processes.clear();
        let _ = fs::remove_file(self.dir.join(PIDS));
    }

    /// Starts it where it was, with what it had.
    pub fn restart(&self) -> Result<()> {
        self.kill9();
        self.run()
    }

    fn run(&self) -> Result<()> {
        let mut started = Vec::new();
        for command in kinds::commands(self)? {
            started.push(command.cwd(&self.dir).log(&self.log).start()?);
        }
        let pids: String = started
            .iter()
            .map(|process| format!("{}\n", process.id()))
            .collect();
        fs::write(self.dir.join(PIDS), pids).context(self.dir.display())?;
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&mut started);
        self.listens()
            .and_then(|()| self.ready(READY))
            .map_err(|error| {
                format!(
                    "{} does not start: {error}\n{}\n(log: {})",
                    self.name(),
                    tail_of(&self.log, 20),
                    self.log.display()
                )
            })
    }

    /// Waits until it takes connections, or has ended.
    fn listens(&self) -> Result<()> {
        let deadline = Instant::now() + READY;
        let address = SocketAddr::from(([127, 0, 0, 1], self.port()));
        let moment = Duration::from_millis(50);
        while TcpStream::connect_timeout(&address, moment * 20).is_err() {
            let mut processes = self
                .processes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if processes.iter_mut().any(Running::has_ended) {
                return Err("it has ended".to_owned());
            }
            drop(processes);
            if Instant::now() > deadline {
                return Err(format!("not within {} s", READY.as_secs()));
            }
            sleep(moment);
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill9();
        kinds::clean_up(self);
    }
}

/// A store for a test of this name, in a directory of its own.
pub fn for_test(run: &mut crate::test::Run, test: &str, kind: Kind) -> Result<Store> {
    let programs = Programs::set_up()?;
    let name = format!("{test}-{}", kind.name());
    let dir = run.work_dir(&name)?;
    let log = run.log(&name);
    Store::start(&programs, kind, &dir, &log)
}

/// Kills what a test run that was killed has left running in this directory.
pub fn kill_left_over(dir: &Path) {
    let text = fs::read_to_string(dir.join(PIDS)).unwrap_or_default();
    let mut pids: Vec<u32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
    // Others may have the ids by now: a store works in its directory.
    pids.retain(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir));
    let _ = process::signal("KILL", &pids);
}

/// A file that nobody but the server's user may read.
fn secret_file(store: &Store, file: PathBuf, text: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    os::write_file(&file, text, store.programs.user())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).context(file.display())?;
    Ok(file)
}
