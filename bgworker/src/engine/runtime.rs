//! The engine: what all queries share, and how one starts.

use super::admission::{Admission, QueueConfig, Turn, keeps_rows};
use super::cache::Cache;
use super::error::{from_io, wire};
use super::fair::Cores;
use super::held::held;
use super::lower::Lowering;
use super::memory::{Budget, QueryPool};
use super::point::Heat;
use super::remote::{Fetcher, Remote};
use super::running::{Running, Usage};
use super::source::shared;
use super::stats::Counters;
use super::validate::validate;
use super::wide::rows_of_batches;
use super::{BATCH_ROWS, Feed};
use datafusion_execution::TaskContext;
use datafusion_execution::config::SessionConfig;
use datafusion_execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};
use datafusion_execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion_physical_plan::ExecutionPlan;
use pg_lake_plan::lateness::{may_end_late, rows_of_tables};
use pg_lake_plan::message::{Execute, WireError};
use pg_lake_plan::store::Store;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Queries keep this much even if the cache's share is the whole memory.
const LEAST_MEMORY: u64 = 16 << 20;

/// What a sort keeps free to be able to merge its spill files.
const SORT_RESERVATION: usize = 1 << 20;

/// A join looks whole numbers up in an array from the least to the largest of the kept side, instead of by their hash,
/// if more of its places than this are taken. A place has four bytes: at most 80 for a row, reserved before.
const LEAST_KEY_DENSITY: f64 = 0.05;

/// Runs fragments on the current tokio runtime.
pub struct Engine {
    pub(super) budget: Arc<Budget>,
    admission: Admission,
    cores: Arc<Cores>,
    pub(super) cache: Arc<Cache>,
    pub(super) heat: Arc<Heat>,
    fetcher: Option<Arc<dyn Fetcher>>,
    config: SessionConfig,
    /// Without memory and without disk: each query has its own.
    runtime: RuntimeEnv,
    spill_directory: PathBuf,
    threads: usize,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("budget", &self.budget)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// `memory`: bytes for queries and cache together; `memory_cache`: the cache's share of it.
    /// `spill_directory` is created where it is missing. Without a fetcher only local files are read.
    pub fn new(
        memory: u64,
        memory_cache: u64,
        spill_directory: PathBuf,
        threads: usize,
        fetcher: Option<Arc<dyn Fetcher>>,
    ) -> Result<Engine, WireError> {
        std::fs::create_dir_all(&spill_directory)
            .map_err(|e| from_io(&e, "could not create the spill directory"))?;
        let runtime = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .build()
            .map_err(|e| wire(&e))?;
        let threads = threads.max(1);
        let for_queries = for_queries(memory, memory_cache);
        Ok(Engine {
            budget: Arc::new(Budget::new(for_queries)),
            admission: Admission::new(for_queries, threads),
            cores: Cores::new(),
            cache: Arc::new(Cache::new(bytes(memory_cache))),
            heat: Arc::default(),
            fetcher,
            config: session_config(threads),
            runtime,
            spill_directory,
            threads,
        })
    }

    /// Has the queries of an engine that spills to this directory make theirs when they spill, not before: a full disk is in
    /// no other query's way. There is one such directory in a process, that of all its temporary files.
    pub fn spill_lazily(directory: &Path) {
        // The first one stays.
        let _ = tempfile::env::override_temp_dir(directory);
    }

    /// Changes the limits; running queries feel it at their next allocation.
    pub fn set_limits(&self, memory: u64, memory_cache: u64) {
        self.cache.set_limit(bytes(memory_cache));
        let for_queries = for_queries(memory, memory_cache);
        self.budget.set_limit(for_queries);
        self.admission.set_memory(for_queries);
    }

    /// For the queries that wait now, too.
    pub fn set_queue(&self, config: QueueConfig) {
        self.admission.configure(config);
    }

    /// Waits until a fragment of a backend may begin; `None`: it always may.
    pub(crate) async fn turn(&self, request: &Execute, proc: u32) -> Option<Turn> {
        match keeps_rows(&request.fragment.root) {
            true => Some(self.admission.turn(proc).await),
            false => None,
        }
    }

    /// Bytes that queries have reserved and the cache holds.
    pub fn memory_used(&self) -> u64 {
        (self.budget.used() + self.cache.used()) as u64
    }

    /// How a request reads files in stores.
    pub(super) fn remote(&self, request: &Execute, stores: Vec<Store>) -> Remote {
        Remote {
            fetcher: self.fetcher.clone(),
            stores: stores.into(),
            background: request.background,
        }
    }

    /// Starts a fragment whose files are local or in `stores`. `feeds` has an entry for each of the request's tables.
    pub async fn execute(
        &self,
        request: Execute,
        stores: Vec<Store>,
        feeds: Vec<Option<Feed>>,
        cancel: CancellationToken,
    ) -> Result<Running, WireError> {
        validate(&request, feeds.len())?;
        let counters = Arc::new(Counters::of_tables(request.tables.len()));
        let remote = self.remote(&request, stores);
        let config = match rows_of_batches(&request) {
            BATCH_ROWS => self.config.clone(),
            few => self.config.clone().with_batch_size(few),
        };
        let pool = Arc::new(QueryPool::new(self.budget.clone(), request.memory_limit));
        let rows = rows_of_tables(&request.tables, feeds.iter().map(Option::is_some));
        let holds = may_end_late(&request.fragment.root, &rows, &request.params);
        let mut lowering = Lowering {
            tables: (request.tables.into_iter())
                .map(|table| Some(shared(table.files)))
                .collect(),
            feeds,
            params: request.params,
            cache: self.cache.clone(),
            counters: counters.clone(),
            cancel: cancel.clone(),
            remote,
            threads: if request.in_order { 1 } else { self.threads },
            memory: pool.clone(),
            sought: HashMap::new(),
            work: None,
        };
        let mut plan = lowering.root(&request.fragment.root)?;
        if holds {
            plan = held(plan, &cancel);
        }
        let disk = self.disk(plan.as_ref(), request.temp_file_limit)?;
        let runtime = RuntimeEnv {
            memory_pool: pool.clone(),
            disk_manager: disk,
            ..self.runtime.clone()
        };
        let usage = Usage {
            plan,
            pool,
            counters,
        };
        let context = TaskContext::new(
            None,
            String::from("lake"),
            config,
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            Arc::new(runtime),
        );
        let types = request.fragment.root.output();
        let member = self.cores.enter();
        Ok(Running::start(
            types,
            Arc::new(context),
            usage,
            member,
            cancel,
        ))
    }

    /// Where a plan spills to: a directory of its own, since it has a limit of its own (in kilobytes). It is removed with
    /// the last of the query's tasks.
    fn disk(
        &self,
        plan: &dyn ExecutionPlan,
        limit: Option<u64>,
    ) -> Result<Arc<DiskManager>, WireError> {
        // Most short ones do.
        if only_passes_rows(plan) {
            return Ok(self.runtime.disk_manager.clone());
        }
        let mode = match tempfile::env::temp_dir() == self.spill_directory {
            true => DiskManagerMode::OsTmpDirectory,
            false => DiskManagerMode::Directories(vec![self.spill_directory.clone()]),
        };
        DiskManagerBuilder::default()
            .with_mode(mode)
            .with_max_temp_directory_size(limit.map_or(u64::MAX, |kb| kb.saturating_mul(1024)))
            .build()
            .map(Arc::new)
            .map_err(|e| wire(&e))
    }
}

/// Whether a plan keeps no rows, and so needs no disk.
fn only_passes_rows(plan: &dyn ExecutionPlan) -> bool {
    let passes = matches!(
        plan.name(),
        "LakeScanExec"
            | "StepExec"
            | "AppendExec"
            | "CooperativeExec"
            | "CoalescePartitionsExec"
            | "GlobalLimitExec"
            | "LocalLimitExec"
    );
    let inputs = plan.children();
    passes
        && inputs
            .into_iter()
            .all(|input| only_passes_rows(input.as_ref()))
}

fn session_config(threads: usize) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_target_partitions(threads)
        .with_sort_spill_reservation_bytes(SORT_RESERVATION);
    config
        .options_mut()
        .execution
        .perfect_hash_join_min_key_density = LEAST_KEY_DENSITY;
    config
}

fn bytes(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn for_queries(memory: u64, memory_cache: u64) -> usize {
    bytes(memory.saturating_sub(memory_cache).max(LEAST_MEMORY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;
    use datafusion_physical_plan::empty::EmptyExec;

    #[test]
    fn a_query_has_no_directory_until_it_spills() {
        // Other tests have their files there, too.
        let directory = std::env::temp_dir();
        Engine::spill_lazily(&directory);
        let engine = Engine::new(64 << 20, 0, directory.clone(), 1, None).expect("an engine");
        let plan = EmptyExec::new(Arc::new(Schema::empty()));
        let disk = engine.disk(&plan, Some(1)).expect("a disk");
        assert!(disk.temp_dir_paths().is_empty());
        let _file = disk.create_tmp_file("a test").expect("a file");
        let made = disk.temp_dir_paths();
        assert_eq!(made.len(), 1);
        assert!(made.iter().all(|path| path.starts_with(&directory)));
    }
}
