//! Which queries may begin: as many that keep rows as the memory has useful shares for; others wait, in the order in which
//! they came.
//!
//! A wait here is none that Postgres sees, so that it could complete a deadlock: what has begun may wait for a lock of a
//! session that waits for its turn. Therefore
//!
//! * a backend that has a turn gets another one at once: its cursors and inner queries end together;
//! * a query that waits long for its backend, for rows to read or for rows to be taken, lends its turn meanwhile, and goes
//!   on without waiting;
//! * the first one begins out of turn if none has begun for as long as Postgres waits before it looks for deadlocks.
//!
//! So more queries may run than there are turns. What each of them gets is up to `memory`.

use super::handed::locked;
use pg_lake_plan::ir::{Aggregate, Join, JoinKind, Plan};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A query's useful share, and what its sorts and aggregations have in each thread.
const SHARE_BYTES: usize = 16 << 20;
const SHARE_OF_A_THREAD: usize = 4 << 20;

/// Who keeps no more rows than this needs no turn.
const FEW_ROWS: u32 = 10_000;

/// A query that waits for its backend longer than this lends its turn.
const LENT_AFTER: Duration = Duration::from_millis(100);

/// Who waits looks this often whether it is to begin: how long it has to wait may be set anew.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What can be set about turns.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// How many there are; 0: as many as the memory has shares.
    pub queries: usize,
    /// How long none of those that wait begins before one does out of turn.
    pub patience: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        QueueConfig {
            queries: 0,
            patience: Duration::from_secs(1),
        }
    }
}

/// The queue of an engine.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<Mutex<Queue>>);

#[derive(Debug)]
struct Queue {
    config: QueueConfig,
    /// Of all queries, and what of it is a share.
    memory: usize,
    share: usize,
    next_id: u64,
    begun: HashMap<u64, Begun>,
    waiting: VecDeque<Waiting>,
    /// When one of them began, or when the first one came.
    last_begun: Instant,
    /// They have begun, and aren't told yet.
    untold: Vec<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Begun {
    proc: u32,
    /// For how many things it waits that its backend is to do.
    loans: usize,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    proc: u32,
    begins: oneshot::Sender<()>,
}

impl Queue {
    fn turns(&self) -> usize {
        match self.config.queries {
            0 => (self.memory / self.share).max(1),
            queries => queries,
        }
    }

    fn has_room(&self) -> bool {
        let taken = self.begun.values().filter(|begun| begun.loans == 0);
        taken.count() < self.turns()
    }

    /// The number of a new query, and, if it has to wait, what tells that it begins.
    fn enter(&mut self, proc: u32) -> (u64, Option<oneshot::Receiver<()>>) {
        let id = self.next_id;
        self.next_id += 1;
        let is_known = self.begun.values().any(|begun| begun.proc == proc);
        if is_known || (self.waiting.is_empty() && self.has_room()) {
            self.begun.insert(id, Begun { proc, loans: 0 });
            return (id, None);
        }
        if self.waiting.is_empty() {
            self.last_begun = Instant::now();
        }
        let (begins, wait) = oneshot::channel();
        self.waiting.push_back(Waiting { id, proc, begins });
        (id, Some(wait))
    }

    fn leave(&mut self, id: u64) {
        self.begun.remove(&id);
        self.waiting.retain(|waiting| waiting.id != id);
    }

    /// Whoever waits for what there is begins.
    fn advance(&mut self) {
        while self.has_room() {
            let Some(first) = self.waiting.pop_front() else {
                break;
            };
            self.begin(first);
        }
    }

    /// The first one begins out of turn if none has for long. Returns how soon to look again.
    fn begin_overdue(&mut self) -> Duration {
        let patience = self.config.patience;
        if self.last_begun.elapsed() >= patience
            && let Some(first) = self.waiting.pop_front()
        {
            self.begin(first);
        }
        let left = patience.saturating_sub(self.last_begun.elapsed());
        left.min(LOOK_AGAIN)
    }

    /// With it begins what else its backend waits for.
    fn begin(&mut self, first: Waiting) {
        self.last_begun = Instant::now();
        let proc = first.proc;
        let (own, others): (VecDeque<Waiting>, VecDeque<Waiting>) =
            std::mem::take(&mut self.waiting)
                .into_iter()
                .partition(|waiting| waiting.proc == proc);
        self.waiting = others;
        for waiting in std::iter::once(first).chain(own) {
            self.begun.insert(waiting.id, Begun { proc, loans: 0 });
            self.untold.push(waiting.begins);
        }
    }
}

impl Admission {
    /// `memory`: bytes for all queries.
    pub(super) fn new(memory: usize, threads: usize) -> Self {
        Admission(Arc::new(Mutex::new(Queue {
            config: QueueConfig::default(),
            memory,
            share: SHARE_OF_A_THREAD
                .saturating_mul(threads)
                .saturating_add(SHARE_BYTES),
            next_id: 0,
            begun: HashMap::new(),
            waiting: VecDeque::new(),
            last_begun: Instant::now(),
            untold: vec![],
        })))
    }

    pub(super) fn set_memory(&self, memory: usize) {
        self.change(|queue| queue.memory = memory);
    }

    pub(super) fn configure(&self, config: QueueConfig) {
        self.change(|queue| queue.config = config);
    }

    /// Waits for a turn. Dropping the future leaves the queue.
    pub(super) async fn turn(&self, proc: u32) -> Turn {
        let since = Instant::now();
        let (id, wait) = self.change(|queue| queue.enter(proc));
        // From here on it is in the queue, and leaves it when it is dropped.
        let mut turn = Turn {
            admission: self.clone(),
            id,
            waited: Duration::ZERO,
        };
        if let Some(mut wait) = wait {
            let mut left = self.change(Queue::begin_overdue);
            while timeout(left, &mut wait).await.is_err() {
                left = self.change(Queue::begin_overdue);
            }
            turn.waited = since.elapsed();
        }
        turn
    }

    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = locked(&self.0);
        let result = change(&mut queue);
        queue.advance();
        let untold = std::mem::take(&mut queue.untold);
        drop(queue);
        // Whom it wakes may come back here: not under the lock.
        for begins in untold {
            // Who waits no more leaves by itself.
            let _ = begins.send(());
        }
        result
    }
}

/// A query's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    admission: Admission,
    id: u64,
    waited: Duration,
}

impl Turn {
    /// For the turn.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    /// Waits for something that the backend is to do.
    pub(crate) async fn lent_for<T>(&self, step: impl Future<Output = T>) -> T {
        let mut step = pin!(step);
        if let Ok(done) = timeout(LENT_AFTER, step.as_mut()).await {
            return done;
        }
        let _loan = Loan::of(self);
        step.await
    }

    fn count_loans(&self, change: impl FnOnce(usize) -> usize) {
        self.admission.change(|queue| {
            if let Some(begun) = queue.begun.get_mut(&self.id) {
                begun.loans = change(begun.loans);
            }
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.admission.change(|queue| queue.leave(self.id));
    }
}

/// Others may have the turn meanwhile.
struct Loan<'a>(&'a Turn);

impl<'a> Loan<'a> {
    fn of(turn: &'a Turn) -> Self {
        turn.count_loans(|loans| loans + 1);
        Loan(turn)
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.0.count_loans(|loans| loans.saturating_sub(1));
    }
}

/// Whether a plan keeps more than a few rows, by Postgres' estimates, and so needs a turn.
pub(super) fn keeps_rows(plan: &Plan) -> bool {
    let keeps = match plan {
        Plan::Join(join) => !are_few(kept_rows(join)),
        Plan::Window(window) => !has_few_rows(&window.input),
        Plan::Aggregate {
            groups,
            aggregates,
            groups_estimate,
            ..
        } => {
            let keeps_values =
                |aggregate: &Aggregate| aggregate.distinct || aggregate.function.is_ordered();
            let has_many = !groups.is_empty() && !are_few(*groups_estimate);
            has_many || aggregates.iter().any(keeps_values)
        }
        Plan::Sort { input, fetch, .. } => !is_few(*fetch) && !has_few_rows(input),
        Plan::Scan(_)
        | Plan::Filter { .. }
        | Plan::Project { .. }
        | Plan::Append { .. }
        | Plan::Limit { .. }
        | Plan::ProjectSet(_)
        | Plan::OneRow
        | Plan::WorkTable(_) => false,
        // How many there will be isn't known.
        Plan::RecursiveUnion(_) => true,
    };
    keeps || plan.inputs().into_iter().any(keeps_rows)
}

/// Whether no more than a few rows come out of a plan, as far as that is known: of scans and joins it isn't.
fn has_few_rows(plan: &Plan) -> bool {
    match plan {
        Plan::OneRow => true,
        Plan::Aggregate {
            groups,
            groups_estimate,
            ..
        } => groups.is_empty() || are_few(*groups_estimate),
        Plan::Sort { input, fetch, .. } | Plan::Limit { input, fetch, .. } => {
            is_few(*fetch) || has_few_rows(input)
        }
        Plan::Filter { input, .. } | Plan::Project { input, .. } => has_few_rows(input),
        Plan::Window(window) => has_few_rows(&window.input),
        Plan::Scan(_)
        | Plan::Join(_)
        | Plan::Append { .. }
        | Plan::ProjectSet(_)
        | Plan::RecursiveUnion(_)
        | Plan::WorkTable(_) => false,
    }
}

fn is_few(limit: Option<u64>) -> bool {
    limit.is_some_and(|rows| rows <= u64::from(FEW_ROWS))
}

/// An estimate that is no number is of many.
fn are_few(rows: f64) -> bool {
    rows <= f64::from(FEW_ROWS)
}

/// Of the side that a join keeps, which is the smaller one where it has the choice.
fn kept_rows(join: &Join) -> f64 {
    match join.kind {
        JoinKind::Inner | JoinKind::Left | JoinKind::Full | JoinKind::Semi | JoinKind::Anti
            if !join.keys.is_empty() =>
        {
            join.left_rows.min(join.right_rows)
        }
        _ => join.left_rows.max(join.right_rows),
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
