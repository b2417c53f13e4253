//! A lake process: the main thread's side of it.
//!
//! The main thread never works and never blocks, but for [`Service::stop`]: it passes doorbells on
//! to the runtime and sleeps on its latch, so that signals and the death of the postmaster are seen
//! at once.

use crate::client::Client;
use crate::engine::{Engine, QueueConfig};
use crate::io::{Io, IoConfig};
use crate::request::{self, Context, Role};
use crate::runtime;
use crate::transport::{Streams, WakeProc};
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_ring::{Region, StreamState, WorkerSlot};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// What a lake process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Execute`: no network, no writing.
    Engine,
    /// `Write`, `Publish` and files.
    Io,
}

/// How a lake process is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its worker slot in the region; 0 is the engine's.
    pub slot: u32,
    pub kind: Kind,
    pub threads: usize,
    /// Bytes.
    pub memory: u64,
    /// Bytes of the decoded-column cache.
    pub memory_cache: u64,
    /// Of the engine.
    pub queue: QueueConfig,
    /// Of an I/O worker.
    pub io: IoConfig,
    /// For what doesn't fit into memory.
    pub spill_directory: PathBuf,
    pub pid: u32,
    /// Its own proc number.
    pub proc: u32,
}

/// A running lake process.
pub struct Service {
    runtime: Runtime,
    context: Arc<Context>,
    /// Of this process' own requests to workers.
    client: Arc<Client>,
}

impl Service {
    /// Starts the runtime and opens the slot for requests. All signals must be blocked in the
    /// calling thread, as the runtime's threads inherit its mask.
    pub fn start(region: Region, config: Config, wake: WakeProc) -> Result<Service, WireError> {
        let slot = region.worker(config.slot).ok_or_else(|| {
            let message = format!("there is no lake worker slot {}", config.slot);
            WireError::new(ErrorCode::Internal, message)
        })?;
        let name = match config.kind {
            Kind::Engine => "lake engine",
            Kind::Io => "lake worker",
        };
        let runtime = runtime::build(name, config.threads)?;
        let client = Arc::new(Client::new(region, slot, config.proc, wake));
        let role = {
            // The engine may spawn tasks.
            let _runtime = runtime.enter();
            match config.kind {
                Kind::Engine => {
                    Engine::spill_lazily(&config.spill_directory);
                    let engine = Engine::new(
                        config.memory,
                        config.memory_cache,
                        config.spill_directory,
                        config.threads,
                        Some(client.clone()),
                    )?;
                    engine.set_queue(config.queue);
                    Role::Engine(engine)
                }
                Kind::Io => {
                    let workers = region.layout().workers.saturating_sub(1);
                    let client = client.clone();
                    Role::Io(Io::new(slot, workers, config.memory, &config.io, client))
                }
            }
        };
        // What an earlier process of this slot counted as in use is gone with it.
        let counters = slot.counters();
        counters.tasks.store(0, Ordering::Relaxed);
        counters.memory_bytes.store(0, Ordering::Relaxed);
        counters.memory_peak.store(0, Ordering::Relaxed);

        let incarnation = slot.start(config.pid, config.proc);
        wake_orphans(&region, &slot, wake);
        let streams = Streams::new(region, slot, incarnation, wake);
        Ok(Service {
            runtime,
            client,
            context: Arc::new(Context {
                streams,
                region,
                role,
            }),
        })
    }

    /// Takes what the doorbells announce. To be called after each wake-up of the latch, which was
    /// reset before; never blocks.
    pub fn serve(&self) {
        let slot = *self.context.streams.slot();
        slot.take_stream_events(|index| self.context.streams.on_event(index));
        self.client.on_wake();
        slot.take_requests(|_, reference| {
            let report = self.context.report(reference);
            self.runtime
                .spawn(request::run(self.context.clone(), reference, report));
        });
        self.context.count_memory();
    }

    /// New limits, in bytes, and settings, for what begins from now on.
    pub fn set_limits(&self, memory: u64, memory_cache: u64, queue: QueueConfig, io: &IoConfig) {
        let _runtime = self.runtime.enter();
        match &self.context.role {
            Role::Engine(engine) => {
                engine.set_limits(memory, memory_cache);
                engine.set_queue(queue);
            }
            Role::Io(role) => role.set_limits(memory, io),
        }
    }

    /// Cancels all requests and gives them up to `timeout` to end; then gives the streams back, if
    /// nobody can be writing to them any more (or else the slot's next process does).
    pub fn stop(self, timeout: Duration) {
        let Service {
            runtime, context, ..
        } = self;
        let deadline = Instant::now() + timeout;
        context.streams.cancel_all();
        let slot = *context.streams.slot();
        // Most of the time is for tasks to end in good order, the rest for threads.
        let patience = timeout.mul_f32(0.75);
        runtime.block_on(async {
            let _ = tokio::time::timeout(patience, async {
                while context.streams.held() > 0
                    || slot.counters().tasks.load(Ordering::Relaxed) > 0
                {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    // What was announced meanwhile is left to the next process, but whoever waits
                    // for room or rows must still be heard.
                    slot.take_stream_events(|index| context.streams.on_event(index));
                }
            })
            .await;
        });
        runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
        if context.streams.held() == 0 {
            slot.stop();
            context.streams.wake_stream_waiters();
            wake_orphans(&context.region, &slot, |proc| context.streams.wake(proc));
        }
    }
}

/// Wakes the backends whose streams of this slot just failed with the process that served them, and
/// those that wait for free streams.
fn wake_orphans(region: &Region, slot: &WorkerSlot, wake: impl Fn(u32)) {
    for index in 0..region.layout().streams {
        let Some(info) = region.stream_info(index) else {
            continue;
        };
        if info.worker == slot.slot()
            && info.state != StreamState::Free
            && let Some(proc) = info.proc
        {
            wake(proc);
        }
    }
    region.drain_stream_waiters(wake);
}
