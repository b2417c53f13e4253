//! A reverse proxy that puts faults between an object store and its client.
//!
//! It speaks HTTP/1.1 on a port of the loopback interface and passes each request on to the store, with
//! the header `Host` as it is, so that signatures made for the proxy's address hold. Rules say what
//! happens to which requests; they are replaced at any time. It must not hang: all sockets have
//! time-outs, threads are bounded, and dropping it ends every connection.
//!
//! * `rules`: which requests, what happens to them
//! * `http`: reading and writing messages
//! * `serve`: one connection

pub mod http;
mod rules;
mod serve;
#[cfg(test)]
mod tests;

pub use rules::{Action, Rule};

use crate::pg::random::Random;
use crate::{Context, Result};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Connections that are served at once.
const CONNECTIONS_MAX: usize = 256;
/// Requests that are remembered.
const REQUESTS_MAX: usize = 20_000;
/// To connect to the store.
const CONNECT: Duration = Duration::from_secs(5);
/// A socket on which nothing has happened for so long is closed.
const IDLE: Duration = Duration::from_secs(120);
/// A thread that wakes up late makes up for it, so far: the rate is right on average.
const NETWORK_CATCHES_UP: Duration = Duration::from_millis(10);
/// The end of what a dropped proxy waits for.
const LAST: Duration = Duration::from_secs(5);

/// A request that has been served or come to grief.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// As it was sent, without the query.
    pub path: String,
    pub query: String,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of the store's answer.
    pub sent: u64,
    /// What the client was told; `None` if it got no whole answer.
    pub status: Option<u16>,
    /// What happened to it.
    pub actions: Vec<&'static str>,
}

/// A running proxy.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    store: SocketAddr,
    state: Mutex<State>,
    /// Rules were replaced, a connection has ended, or the proxy is about to.
    changed: Condvar,
    stopping: AtomicBool,
    /// When all that was sent by [`Action::Network`] has arrived.
    network: Mutex<Instant>,
}

struct State {
    random: Random,
    rules: Vec<Rule>,
    /// How often the rules were replaced.
    generation: u64,
    requests: VecDeque<Request>,
    /// Bytes that GET requests got, by path.
    read: BTreeMap<String, u64>,
    /// The sockets of each connection.
    sockets: HashMap<(u64, Side), TcpStream>,
    connections: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Client,
    Store,
}

impl Proxy {
    /// For the store on this port of the loopback interface. The seed decides what happens by chance.
    pub fn start(store: u16, seed: u64) -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("the proxy's port")?;
        let port = listener.local_addr().context("the proxy's port")?.port();
        let shared = Arc::new(Shared {
            store: SocketAddr::from(([127, 0, 0, 1], store)),
            state: Mutex::new(State {
                random: Random::new(seed),
                rules: Vec::new(),
                generation: 0,
                requests: VecDeque::new(),
                read: BTreeMap::new(),
                sockets: HashMap::new(),
                connections: 0,
            }),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            network: Mutex::new(Instant::now()),
        });
        let served = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &served));
        Ok(Proxy {
            shared,
            port,
            acceptor: Some(acceptor),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Replaces the rules. What waits by an old one goes on, but what nobody ever answers.
    pub fn set(&self, rules: Vec<Rule>) {
        let mut state = self.shared.state();
        state.rules = rules;
        state.generation += 1;
        *self.shared.network() = Instant::now();
        self.shared.changed.notify_all();
    }

    pub fn clear(&self) {
        self.set(Vec::new());
    }

    /// How often the present rules have had their way.
    pub fn hits(&self) -> u64 {
        self.shared.state().rules.iter().map(|rule| rule.hits).sum()
    }

    /// The last requests that have ended, in the order in which they did.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.iter().cloned().collect()
    }

    /// Bytes that GET requests got, by path.
    pub fn read(&self) -> BTreeMap<String, u64> {
        self.shared.state().read.clone()
    }

    /// Forgets requests and bytes.
    pub fn forget(&self) {
        let mut state = self.shared.state();
        state.requests.clear();
        state.read.clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        {
            let state = self.shared.state();
            for socket in state.sockets.values() {
                let _ = socket.shutdown(Shutdown::Both);
            }
            self.shared.changed.notify_all();
        }
        // It waits for a connection.
        let _ = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], self.port)), CONNECT);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let deadline = Instant::now() + LAST;
        let mut state = self.shared.state();
        while state.connections > 0 && Instant::now() < deadline {
            state = self.shared.wait(state, Duration::from_millis(100));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, limit)
            .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Waits, but not longer than the rules of this generation are there.
    fn pause(&self, generation: u64, time: Duration) {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stopping() || state.generation != generation {
                return;
            }
            state = self.wait(state, left);
        }
    }

    fn network(&self) -> MutexGuard<'_, Instant> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many bytes have come by the network, after those that others have sent before. What is sent by
    /// rules that have been replaced doesn't keep others waiting.
    fn transmit(&self, generation: u64, bandwidth: u64, bytes: usize) {
        let time = Duration::from_secs_f64(bytes as f64 / bandwidth as f64);
        let now = Instant::now();
        let arrives = {
            // Not let go of before the network is: it is another one for the rules that follow.
            let state = self.state();
            if state.generation != generation {
                return;
            }
            let mut network = self.network();
            let earliest = now.checked_sub(NETWORK_CATCHES_UP).unwrap_or(now);
            *network = (*network).max(earliest) + time;
            *network
        };
        self.pause(generation, arrives.saturating_duration_since(now));
    }

    /// Has a socket closed when the proxy goes.
    fn register(&self, connection: u64, side: Side, socket: &TcpStream) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(IDLE))?;
        socket.set_write_timeout(Some(IDLE))?;
        let copy = socket.try_clone()?;
        self.state().sockets.insert((connection, side), copy);
        if self.stopping() {
            socket.shutdown(Shutdown::Both)?;
        }
        Ok(())
    }

    /// Closes the other handles of a connection's sockets.
    fn forget(&self, connection: u64) {
        let mut state = self.state();
        for side in [Side::Client, Side::Store] {
            state.sockets.remove(&(connection, side));
        }
    }
}

/// Gives each connection a thread, as long as there are few enough.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in 0_u64.. {
        let accepted = listener.accept();
        if shared.stopping() {
            return;
        }
        let Ok((client, _)) = accepted else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let mut state = shared.state();
        while state.connections >= CONNECTIONS_MAX && !shared.stopping() {
            state = shared.wait(state, Duration::from_millis(100));
        }
        state.connections += 1;
        drop(state);
        let served = Arc::clone(shared);
        let started = thread::Builder::new().spawn(move || {
            serve::connection(client, connection, &served);
            end(&served, connection);
        });
        if started.is_err() {
            end(shared, connection);
        }
    }
}

fn end(shared: &Shared, connection: u64) {
    shared.forget(connection);
    shared.state().connections -= 1;
    shared.changed.notify_all();
}
