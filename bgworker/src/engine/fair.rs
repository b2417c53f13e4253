//! Cores, shared by queries and not by tasks.
//!
//! tokio's threads take tasks in turn, and a large query has many of them. So each task of a query is polled through a
//! gate, which knows how long all of the query's have computed. If that is longer than another query has that wants to
//! compute, the task goes to the end of the queue, again and again while the other one computes. Whether that one's tasks are in
//! the queue isn't known: where nothing comes of waiting, the task goes on after some microseconds.
//!
//! DataFusion starts tasks by itself; it asks a tracer about each, who puts it behind the gate of the task that started it.

use super::handed::locked;
use datafusion_common_runtime::{JoinSetTracer, set_join_set_tracer};
use futures::future::BoxFuture;
use std::any::Any;
use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::task::yield_now;

/// A query goes first until the others are ahead of it by less than that: about a batch.
const SLICE: u64 = nanoseconds(Duration::from_millis(2));

/// How far a query can get ahead of one that wants to compute. What others didn't want is not held against it.
const LEAD: u64 = nanoseconds(Duration::from_millis(20));

/// Who has computed, or was to, within that time wants to compute.
const RECENTLY: u64 = nanoseconds(Duration::from_millis(20));

/// So many times in a row a task lets others go first: more than a query has tasks in one thread's queue.
const WAIVED_MAX: u32 = 64;

/// So many times if nothing comes of it. The first one empties the thread's queue; then it looks at those of other threads.
const IN_VAIN_MAX: u32 = 2;

thread_local! {
    /// Of the task that is polled.
    static CURRENT: RefCell<Option<Arc<Share>>> = const { RefCell::new(None) };
}

const fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// The cores of an engine.
pub(super) struct Cores {
    /// The zero of its times.
    since: Instant,
    queries: Mutex<Vec<Arc<Share>>>,
    count: AtomicUsize,
}

/// What a query has had of them.
struct Share {
    cores: Arc<Cores>,
    /// Nanoseconds, of all its tasks; only differences count.
    used: AtomicU64,
    /// When it wanted to compute last.
    wanted: AtomicU64,
}

impl Cores {
    pub(super) fn new() -> Arc<Self> {
        // An earlier engine of this process may have done that.
        let _ = set_join_set_tracer(&Inherit);
        Arc::new(Cores {
            since: Instant::now(),
            queries: Mutex::default(),
            count: AtomicUsize::new(0),
        })
    }

    /// A new query. It is as far as the one that is behind all others.
    pub(super) fn enter(self: &Arc<Self>) -> Member {
        let now = self.now();
        let mut queries = locked(&self.queries);
        let least = queries.iter().filter(|query| query.wants(now));
        let least = least.map(|query| query.used.load(Ordering::Relaxed)).min();
        let share = Arc::new(Share {
            cores: self.clone(),
            used: AtomicU64::new(least.unwrap_or(0)),
            wanted: AtomicU64::new(now),
        });
        queries.push(share.clone());
        self.count.store(queries.len(), Ordering::Relaxed);
        Member(share)
    }

    fn leave(&self, share: &Arc<Share>) {
        let mut queries = locked(&self.queries);
        queries.retain(|query| !Arc::ptr_eq(query, share));
        self.count.store(queries.len(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        nanoseconds(self.since.elapsed())
    }
}

impl Share {
    fn wants(&self, now: u64) -> bool {
        now.saturating_sub(self.wanted.load(Ordering::Relaxed)) < RECENTLY
    }

    /// Whether another query is to go first: when that one's turn was last.
    fn last_turn_of_others(&self, now: u64) -> Option<u64> {
        let cores = &self.cores;
        if cores.count.load(Ordering::Relaxed) <= 1 {
            return None;
        }
        let (least, turn) = {
            let queries = locked(&cores.queries);
            let others = queries.iter();
            let others = others.filter(|other| !std::ptr::eq(Arc::as_ptr(other), self));
            let others = others.filter(|other| other.wants(now));
            let others = others.map(|other| {
                let used = other.used.load(Ordering::Relaxed);
                (used, other.wanted.load(Ordering::Relaxed))
            });
            others.min()?
        };
        let most = least.saturating_add(LEAD);
        let used = self.used.fetch_min(most, Ordering::Relaxed);
        (used > least.saturating_add(SLICE)).then_some(turn)
    }
}

/// A query that runs, until this is dropped.
pub(super) struct Member(Arc<Share>);

impl Member {
    /// A task of the query, which it starts with.
    pub(super) fn gated<T: 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Gated<T> {
        Gated::new(self.0.clone(), Box::pin(task))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.cores.leave(&self.0);
    }
}

/// A task of the query whose task is polled now, which starts it.
pub(super) fn gated<T: 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> BoxFuture<'static, T> {
    match CURRENT.with_borrow(Clone::clone) {
        Some(share) => Box::pin(Gated::new(share, Box::pin(task))),
        None => Box::pin(task),
    }
}

struct Inherit;

impl JoinSetTracer for Inherit {
    fn trace_future(
        &self,
        task: BoxFuture<'static, Box<dyn Any + Send>>,
    ) -> BoxFuture<'static, Box<dyn Any + Send>> {
        gated(task)
    }

    fn trace_block(
        &self,
        block: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        block
    }
}

/// A task behind the gate.
pub(super) struct Gated<T> {
    share: Arc<Share>,
    task: BoxFuture<'static, T>,
    /// How often in a row others went first.
    waived: u32,
    /// How often it made no difference, and the turn that it was to change.
    in_vain: u32,
    turn: u64,
}

impl<T> Gated<T> {
    fn new(share: Arc<Share>, task: BoxFuture<'static, T>) -> Self {
        Gated {
            share,
            task,
            waived: 0,
            in_vain: 0,
            turn: 0,
        }
    }

    /// Whether it lets others go first, whose last turn that was.
    fn waives(&mut self, turn: u64) -> bool {
        self.waived += 1;
        self.in_vain = match turn == self.turn {
            true => self.in_vain + 1,
            false => 0,
        };
        self.turn = turn;
        self.waived <= WAIVED_MAX && self.in_vain < IN_VAIN_MAX
    }
}

impl<T> Future for Gated<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        let start = this.share.cores.now();
        this.share.wanted.store(start, Ordering::Relaxed);
        if let Some(turn) = this.share.last_turn_of_others(start)
            && this.waives(turn)
        {
            // As tasks do that yield: whoever wakes itself goes before these.
            let _ = pin!(yield_now()).poll(context);
            return Poll::Pending;
        }
        (this.waived, this.in_vain) = (0, 0);
        let polled = {
            let _current = Current::set(&this.share);
            this.task.as_mut().poll(context)
        };
        let took = this.share.cores.now().saturating_sub(start);
        this.share.used.fetch_add(took, Ordering::Relaxed);
        polled
    }
}

/// The share of the task that is polled, until this is dropped.
struct Current(Option<Arc<Share>>);

impl Current {
    fn set(share: &Arc<Share>) -> Self {
        Current(CURRENT.replace(Some(share.clone())))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion_common_runtime::SpawnedTask;
    use futures::task::noop_waker;
    use std::sync::atomic::AtomicBool;

    fn is_polled(member: &Member) -> bool {
        let polled = Arc::new(AtomicBool::new(false));
        let seen = polled.clone();
        let task = async move { seen.store(true, Ordering::Relaxed) };
        let mut task = Box::pin(member.gated(task));
        let waker = noop_waker();
        let _ = task.as_mut().poll(&mut Context::from_waker(&waker));
        polled.load(Ordering::Relaxed)
    }

    fn add(member: &Member, used: u64) {
        member.0.used.fetch_add(used, Ordering::Relaxed);
    }

    /// It wants to compute, however long the test takes.
    fn want(member: &Member) {
        member.0.wanted.store(u64::MAX, Ordering::Relaxed);
    }

    fn used(member: &Member) -> u64 {
        member.0.used.load(Ordering::Relaxed)
    }

    #[test]
    fn who_is_ahead_lets_others_go_first() {
        let cores = Cores::new();
        let large = cores.enter();
        add(&large, 1 << 40);
        assert!(is_polled(&large), "alone");
        want(&large);
        let small = cores.enter();
        assert!(used(&small) >= 1 << 40, "it begins where the other one is");
        add(&large, 1000 * LEAD);
        want(&small);
        assert!(!is_polled(&large));
        assert!(
            used(&large) <= used(&small) + LEAD,
            "not more is held against it"
        );
        want(&large);
        assert!(is_polled(&small));
        // Who doesn't want to compute is in nobody's way.
        small.0.wanted.store(0, Ordering::Relaxed);
        while cores.now() < RECENTLY {
            std::hint::spin_loop();
        }
        assert!(is_polled(&large));
        want(&small);
        assert!(!is_polled(&large));
        drop(small);
        assert!(is_polled(&large));
    }

    /// How often a task of a query that is ahead gives its poll back; the other one's last turn is what `turn` says.
    fn waived(turn: impl Fn(u64) -> u64) -> u64 {
        let cores = Cores::new();
        let (large, small) = (cores.enter(), cores.enter());
        let mut task = Box::pin(large.gated(async {}));
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        let mut times = 0;
        loop {
            add(&large, LEAD);
            small.0.wanted.store(turn(times), Ordering::Relaxed);
            if task.as_mut().poll(&mut context).is_ready() {
                return times;
            }
            times += 1;
        }
    }

    #[test]
    fn a_task_waives_so_often_in_a_row_only() {
        assert_eq!(waived(|times| u64::MAX - times), u64::from(WAIVED_MAX));
        assert_eq!(waived(|_| u64::MAX), u64::from(IN_VAIN_MAX));
    }

    #[tokio::test]
    async fn tasks_of_tasks_are_the_same_query() {
        let cores = Cores::new();
        let member = cores.enter();
        let own = member.0.clone();
        let is_own = move || {
            CURRENT
                .with_borrow(|share| share.as_ref().is_some_and(|share| Arc::ptr_eq(share, &own)))
        };
        let checked = member.gated(async move {
            let inherits = is_own.clone();
            let inner = SpawnedTask::spawn(async move { inherits() });
            let inner = inner.join().await.expect("no panic");
            inner && is_own()
        });
        assert!(tokio::spawn(checked).await.expect("no panic"));
        assert!(CURRENT.with_borrow(Option::is_none));
    }

    /// One thread, and a query of many tasks: the one of few gets as much.
    #[tokio::test]
    async fn many_tasks_get_no_more_than_one() {
        const TASKS: usize = 10;
        const STEPS: usize = 40;
        let cores = Cores::new();
        let (large, small) = (cores.enter(), cores.enter());
        let steps = Arc::new(AtomicUsize::new(0));
        let step = || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(1) {
                std::hint::spin_loop();
            }
        };
        let mut tasks = vec![];
        for _ in 0..TASKS {
            let steps = steps.clone();
            tasks.push(tokio::spawn(large.gated(async move {
                for _ in 0..STEPS {
                    step();
                    steps.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                }
            })));
        }
        let of_small = tokio::spawn(small.gated(async move {
            for _ in 0..STEPS {
                step();
                yield_now().await;
            }
        }));
        of_small.await.expect("no panic");
        let of_large = steps.load(Ordering::Relaxed);
        drop(small);
        for task in tasks {
            task.await.expect("no panic");
        }
        // Without a gate it would be about ten times as many.
        assert!(of_large < STEPS * TASKS / 2, "{of_large} steps");
        assert_eq!(steps.load(Ordering::Relaxed), STEPS * TASKS);
    }
}
