//! The queue of queries: order, backends that have a turn, patience, loans.

use super::*;
use pg_lake_plan::ir::{Expr, ExprKind, JoinKey, Scan};
use pg_lake_plan::types::{LakeType, SqlType};
use std::future::poll_fn;
use std::task::Poll;
use tokio::task::{JoinHandle, yield_now};

/// Longer than any of these tests.
const PATIENCE: Duration = Duration::from_secs(600);

fn admission(queries: usize) -> Admission {
    let admission = Admission::new(0, 1);
    let patience = PATIENCE;
    admission.configure(QueueConfig { queries, patience });
    admission
}

/// Asks for a turn, and is in the queue when this returns.
async fn ask(admission: &Admission, proc: u32) -> JoinHandle<Turn> {
    let admission = admission.clone();
    let asked = tokio::spawn(async move { admission.turn(proc).await });
    settle().await;
    asked
}

/// Has other tasks do what they can do now.
async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

/// Those that run, and those that wait.
fn counts(admission: &Admission) -> (usize, usize) {
    admission.change(|queue| (queue.begun.len(), queue.waiting.len()))
}

#[tokio::test]
async fn who_came_first_begins_first() {
    let admission = admission(2);
    let (first, second) = (admission.turn(1).await, admission.turn(2).await);
    assert_eq!(first.waited(), Duration::ZERO);
    let third = ask(&admission, 3).await;
    let fourth = ask(&admission, 4).await;
    assert_eq!(counts(&admission), (2, 2));

    drop(second);
    settle().await;
    assert!(third.is_finished() && !fourth.is_finished());
    // Who comes now doesn't get ahead.
    let fifth = ask(&admission, 5).await;
    drop(first);
    settle().await;
    assert!(fourth.is_finished() && !fifth.is_finished());
    drop(third.await.expect("a turn"));
    let fifth = fifth.await.expect("a turn");
    drop((fourth.await.expect("a turn"), fifth));
    assert_eq!(counts(&admission), (0, 0));
}

#[tokio::test]
async fn a_backend_with_a_turn_does_not_wait() {
    let admission = admission(1);
    let outer = admission.turn(1).await;
    let other = ask(&admission, 2).await;
    let inner = admission.turn(1).await;
    assert_eq!(inner.waited(), Duration::ZERO);
    // Two of a backend that wait begin together.
    let another = ask(&admission, 2).await;
    drop(outer);
    settle().await;
    assert!(!other.is_finished());
    drop(inner);
    settle().await;
    assert!(other.is_finished() && another.is_finished());
    assert_eq!(counts(&admission), (2, 0));
}

#[tokio::test]
async fn nobody_waits_without_end() {
    let admission = admission(1);
    let patience = Duration::from_millis(40);
    admission.configure(QueueConfig {
        queries: 1,
        patience,
    });
    let since = Instant::now();
    let _first = admission.turn(1).await;
    let second = ask(&admission, 2).await;
    let third = ask(&admission, 3).await;
    let second = second.await.expect("a turn");
    assert!(second.waited() >= patience);
    // One after the other.
    let third = third.await.expect("a turn");
    assert!(third.waited() >= patience && since.elapsed() >= 2 * patience);
    // They have turns like any other: the next one waits for all.
    admission.configure(QueueConfig {
        queries: 1,
        patience: PATIENCE,
    });
    let fourth = ask(&admission, 4).await;
    drop((second, third));
    settle().await;
    assert!(!fourth.is_finished());
}

#[tokio::test]
async fn who_came_later_waits_for_what_is_left() {
    let admission = admission(1);
    let patience = LOOK_AGAIN;
    admission.configure(QueueConfig {
        queries: 1,
        patience,
    });
    let _first = admission.turn(1).await;
    let _second = ask(&admission, 2).await;
    let asked = Instant::now();
    let _third = ask(&admission, 3).await;
    let since = asked.elapsed();
    let left = admission.change(Queue::begin_overdue);
    assert!(left + since <= patience, "{left:?} after {since:?}");
}

#[tokio::test]
async fn new_patience_counts_for_who_waits() {
    let admission = admission(1);
    let _first = admission.turn(1).await;
    let second = ask(&admission, 2).await;
    assert!(!second.is_finished());
    admission.configure(QueueConfig {
        queries: 1,
        patience: Duration::from_millis(1),
    });
    let begun = timeout(Duration::from_secs(60), second).await;
    drop(begun.expect("soon").expect("a turn"));
}

#[tokio::test]
async fn a_turn_is_lent_as_long_as_anything_is_waited_for() {
    let admission = admission(1);
    let first = admission.turn(1).await;
    let (row, another_row) = (Loan::of(&first), Loan::of(&first));
    drop(row);
    let second = ask(&admission, 2).await;
    assert!(second.is_finished());
    // Lent once, not for each row.
    let third = ask(&admission, 3).await;
    assert!(!third.is_finished());
    drop(another_row);
    drop(second.await.expect("a turn"));
    settle().await;
    assert!(!third.is_finished());
    drop(first);
    settle().await;
    assert!(third.is_finished());
}

#[tokio::test]
async fn who_is_cancelled_leaves_the_queue() {
    let admission = admission(1);
    let first = admission.turn(1).await;
    let second = ask(&admission, 2).await;
    let third = ask(&admission, 3).await;
    second.abort();
    settle().await;
    assert_eq!(counts(&admission), (1, 1));
    drop(first);
    settle().await;
    assert!(third.is_finished());
    // One that has been told to begin, and never heard of it.
    let fourth = ask(&admission, 4).await;
    drop(third.await.expect("a turn"));
    fourth.abort();
    settle().await;
    drop(fourth.await);
    assert_eq!(counts(&admission), (0, 0));
}

#[tokio::test]
async fn who_waits_for_its_backend_lends_its_turn() {
    let admission = admission(1);
    let first = admission.turn(1).await;
    let second = ask(&admission, 2).await;
    {
        let mut row = pin!(first.lent_for(std::future::pending::<()>()));
        poll_fn(|context| {
            assert!(row.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        settle().await;
        assert!(!second.is_finished());
        // Time passes.
        assert!(timeout(2 * LENT_AFTER, row).await.is_err());
        assert!(second.is_finished());
    }
    // It has gone on, and so there are two: the next one waits for both.
    let third = ask(&admission, 3).await;
    drop(second.await.expect("a turn"));
    settle().await;
    assert!(!third.is_finished());
    drop(first);
    settle().await;
    assert!(third.is_finished());
}

#[tokio::test]
async fn new_limits_count_at_once() {
    let admission = Admission::new(0, 1);
    let _first = admission.turn(1).await;
    let second = ask(&admission, 2).await;
    assert!(!second.is_finished());
    admission.set_memory(2 * (SHARE_BYTES + SHARE_OF_A_THREAD));
    settle().await;
    assert!(second.is_finished());
}

fn scan() -> Plan {
    Plan::Scan(Scan {
        table: 0,
        name: "t".to_owned(),
        columns: vec![],
        predicate: None,
    })
}

fn grouped(groups: Vec<Expr>, groups_estimate: f64, aggregates: Vec<Aggregate>) -> Plan {
    Plan::Aggregate {
        input: Box::new(scan()),
        groups,
        aggregates,
        sets: vec![],
        groups_estimate,
    }
}

fn joined(left_rows: f64, right_rows: f64, keys: Vec<JoinKey>) -> Plan {
    Plan::Join(Join {
        kind: JoinKind::Inner,
        left: Box::new(scan()),
        right: Box::new(scan()),
        keys,
        filter: None,
        left_rows,
        right_rows,
    })
}

fn sorted(fetch: Option<u64>) -> Plan {
    sorted_rows(scan(), fetch)
}

fn sorted_rows(input: Plan, fetch: Option<u64>) -> Plan {
    Plan::Sort {
        input: Box::new(input),
        keys: vec![],
        fetch,
    }
}

#[test]
fn only_who_keeps_rows_needs_a_turn() {
    let column = || Expr {
        ty: SqlType {
            lake: LakeType::Int8,
            oid: 0,
            typmod: -1,
            collation: 0,
        },
        kind: ExprKind::Column(0),
    };
    let key = || JoinKey {
        left: column(),
        right: column(),
    };
    for few in [
        scan(),
        grouped(vec![], 1.0, vec![]),
        grouped(vec![column()], 100.0, vec![]),
        joined(1e9, 100.0, vec![key()]),
        sorted(Some(10)),
        sorted_rows(grouped(vec![column()], 100.0, vec![]), None),
        sorted_rows(grouped(vec![], f64::NAN, vec![]), None),
        sorted_rows(sorted(Some(10)), None),
    ] {
        assert!(!keeps_rows(&few), "{few:?}");
    }
    for many in [
        grouped(vec![column()], 1e6, vec![]),
        grouped(vec![column()], f64::NAN, vec![]),
        joined(1e6, 1e9, vec![key()]),
        joined(1e9, 100.0, vec![]),
        sorted(None),
        sorted(Some(1_000_000)),
        sorted_rows(grouped(vec![column()], 1e6, vec![]), Some(10)),
        sorted_rows(joined(100.0, 100.0, vec![key()]), None),
        Plan::Limit {
            input: Box::new(sorted(None)),
            skip: 0,
            fetch: Some(1),
        },
    ] {
        assert!(keeps_rows(&many), "{many:?}");
    }
}
