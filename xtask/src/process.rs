//! Child processes: with a time limit, captured or logged output, and another user's identity.
//!
//! A child stays in our process group, so that an interrupt from the terminal reaches it; when a
//! limit passes, the child and its descendants are killed by their process ids.

use crate::os::User;
use crate::{Context, Result};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A command to be run.
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    unset: Vec<OsString>,
    cwd: Option<PathBuf>,
    stdin: Option<String>,
    user: Option<User>,
    limit: Duration,
    log: Option<PathBuf>,
    show: bool,
    progress: Option<String>,
}

/// How a command ended.
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub timed_out: bool,
    pub elapsed: Duration,
}

impl Output {
    pub fn success(&self) -> bool {
        self.code == Some(0) && !self.timed_out
    }
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        Cmd {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            unset: Vec::new(),
            cwd: None,
            stdin: None,
            user: None,
            limit: Duration::from_secs(600),
            log: None,
            show: false,
            progress: None,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        for arg in args {
            self.args.push(arg.as_ref().to_owned());
        }
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Cmd {
        self.envs
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub fn unset(mut self, name: impl AsRef<OsStr>) -> Cmd {
        self.unset.push(name.as_ref().to_owned());
        self
    }

    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Cmd {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    pub fn stdin(mut self, text: impl Into<String>) -> Cmd {
        self.stdin = Some(text.into());
        self
    }

    /// Run as this user; `None` leaves ours.
    pub fn user(mut self, user: Option<&User>) -> Cmd {
        self.user = user.cloned();
        self
    }

    pub fn limit(mut self, limit: Duration) -> Cmd {
        self.limit = limit;
        self
    }

    /// Append both outputs to this file instead of capturing them.
    pub fn log(mut self, file: impl AsRef<Path>) -> Cmd {
        self.log = Some(file.as_ref().to_owned());
        self
    }

    /// Let the user see both outputs, on stderr.
    pub fn show(mut self) -> Cmd {
        self.show = true;
        self
    }

    /// Say what is being waited for, every ten seconds.
    pub fn progress(mut self, label: impl Into<String>) -> Cmd {
        self.progress = Some(label.into());
        self
    }

    fn describe(&self) -> String {
        let mut text = self.program.to_string_lossy().into_owned();
        for arg in self.args.iter().take(6) {
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        if self.args.len() > 6 {
            text.push_str(" …");
        }
        text
    }

    pub fn start(self) -> Result<Running> {
        let what = self.describe();
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        if let Some(user) = &self.user {
            command
                .uid(user.uid)
                .gid(user.gid)
                .env("HOME", &user.home)
                .env("USER", &user.name)
                .env("LOGNAME", &user.name);
        }
        for name in &self.unset {
            command.env_remove(name);
        }
        for (name, value) in &self.envs {
            command.env(name, value);
        }
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        command.stdin(if self.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        if let Some(log) = &self.log {
            if let Some(dir) = log.parent() {
                fs::create_dir_all(dir).context(dir.display())?;
            }
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .context(log.display())?;
            let second = file.try_clone().context(log.display())?;
            command.stdout(file).stderr(second);
        } else if self.show {
            command.stdout(std::io::stderr()).stderr(Stdio::inherit());
        } else {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot run {what}: {error}"))?;
        if let (Some(text), Some(mut pipe)) = (self.stdin, child.stdin.take()) {
            // A child that ends early closes the pipe; its exit status tells what happened.
            thread::spawn(move || {
                let _ = pipe.write_all(text.as_bytes());
            });
        }
        let stdout = child.stdout.take().map(Capture::start);
        let stderr = child.stderr.take().map(Capture::start);
        Ok(Running {
            what,
            child,
            stdout,
            stderr,
            started: Instant::now(),
            limit: self.limit,
            progress: self.progress,
        })
    }

    /// Run to the end, or to the limit.
    pub fn run(self) -> Result<Output> {
        self.start()?.wait()
    }

    /// Run, and expect success: the captured stdout.
    pub fn ok(self) -> Result<String> {
        let what = self.describe();
        let log = self.log.clone();
        let limit = self.limit;
        let output = self.run()?;
        if output.success() {
            return Ok(output.stdout);
        }
        let mut message = if output.timed_out {
            format!("{what}: no end after {} s", limit.as_secs())
        } else {
            match output.code {
                Some(code) => format!("{what}: exit code {code}"),
                None => format!("{what}: killed by a signal"),
            }
        };
        let detail = match &log {
            Some(log) => format!("{}\n(log: {})", tail_of(log, 30), log.display()),
            None if output.stderr.trim().is_empty() => tail(&output.stdout, 30),
            None => tail(&output.stderr, 30),
        };
        if !detail.trim().is_empty() {
            message.push('\n');
            message.push_str(detail.trim_end());
        }
        Err(message)
    }
}

/// What a pipe has delivered so far, read by a thread of its own.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    done: Receiver<()>,
}

impl Capture {
    fn start(mut pipe: impl Read + Send + 'static) -> Capture {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (sender, done) = channel();
        let shared = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut chunk = [0_u8; 16 * 1024];
            while let Ok(n) = pipe.read(&mut chunk) {
                if n == 0 {
                    break;
                }
                if let Ok(mut bytes) = shared.lock() {
                    bytes.extend_from_slice(&chunk[..n]);
                }
            }
            // Nobody listens any more once the output was taken.
            let _ = sender.send(());
        });
        Capture { bytes, done }
    }

    /// A descendant may hold the pipe open after the child's end: wait for it only so long.
    fn take(self) -> String {
        let _ = self.done.recv_timeout(Duration::from_secs(5));
        match self.bytes.lock() {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        }
    }
}

/// A command under way. Dropping it kills what is still running.
pub struct Running {
    what: String,
    child: Child,
    stdout: Option<Capture>,
    stderr: Option<Capture>,
    started: Instant,
    limit: Duration,
    progress: Option<String>,
}

impl Running {
    /// Whether it has come to its end by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it and its descendants, and waits for its end.
    pub fn kill9(&mut self) {
        if !self.has_ended() {
            kill_tree(self.child.id());
            let _ = self.child.wait();
        }
    }

    pub fn wait(mut self) -> Result<Output> {
        let mut pause = Duration::from_millis(1);
        let mut told = Duration::ZERO;
        let mut timed_out = false;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => return Err(format!("{}: {error}", self.what)),
            }
            let elapsed = self.started.elapsed();
            if elapsed > self.limit && !timed_out {
                timed_out = true;
                kill_tree(self.child.id());
            }
            if let Some(label) = &self.progress
                && elapsed >= told + Duration::from_secs(10)
            {
                told = elapsed;
                crate::say(&format!("    {label} … {} s", elapsed.as_secs()));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        let elapsed = self.started.elapsed();
        Ok(Output {
            code: status.code(),
            stdout: self.stdout.take().map(Capture::take).unwrap_or_default(),
            stderr: self.stderr.take().map(Capture::take).unwrap_or_default(),
            timed_out,
            elapsed,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// (process, parent, state) of every process, from /proc.
fn processes() -> Vec<(u32, u32, char)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // "pid (comm) state ppid …": comm may hold anything, so start after the last ')'.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let mut fields = rest.split_whitespace();
        let state = fields.next().and_then(|s| s.chars().next()).unwrap_or('?');
        let parent = fields.next().and_then(|s| s.parse().ok()).unwrap_or(0);
        all.push((pid, parent, state));
    }
    all
}

/// Whether this process still runs; one that waits to be reaped doesn't.
pub fn alive(pid: u32) -> bool {
    processes()
        .iter()
        .any(|&(p, _, state)| p == pid && state != 'Z' && state != 'X')
}

/// The processes that descend from `pid`, itself excluded.
pub fn descendants(pid: u32) -> Vec<u32> {
    let all = processes();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(all.iter().filter(|p| p.1 == parent).map(|p| p.0));
        next += 1;
    }
    found.remove(0);
    found
}

/// Send a signal ("TERM", "KILL", …) to processes that we started.
pub fn signal(name: &str, pids: &[u32]) -> Result<()> {
    if pids.is_empty() {
        return Ok(());
    }
    // The shell's own `kill`: the program of that name isn't installed everywhere.
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let status = Command::new("sh")
        .arg("-c")
        // One that has ended meanwhile is as good as signalled.
        .arg(format!(
            "for p in {}; do kill -{name} $p || [ ! -d /proc/$p ] || exit 1; done",
            list.join(" ")
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("kill")?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cannot send {name} to {}", list.join(" ")))
    }
}

fn kill_tree(pid: u32) {
    let mut pids = descendants(pid);
    pids.push(pid);
    // Some may have ended by themselves meanwhile: that is what we want.
    let _ = signal("KILL", &pids);
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The last lines of a file; empty if it can't be read.
pub fn tail_of(file: &Path, lines: usize) -> String {
    match fs::read(file) {
        Ok(bytes) => tail(&String::from_utf8_lossy(&bytes), lines),
        Err(_) => String::new(),
    }
}

/// A number of `/proc/<pid>/status`, in kB where the file gives sizes.
pub fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
