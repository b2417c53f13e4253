//! Each fault of each request. Whatever the fault, a statement gives the right answer or an error of the
//! store; the session goes on; once the fault is gone everything works, and the bucket has exactly the
//! objects that it should.

use super::rig::{IMPATIENT, Rig, TIMEOUT, load};
use super::session::{Outcome, cancelled};
use super::settled::{Metadata, no_uploads};
use super::targets::{TARGETS, Target};
use crate::Result;
use crate::pg::{same_server, started_at};
use crate::say;
use crate::stores::proxy::{Action, Proxy};
use crate::stores::{self, Kind, Store};
use crate::test::Run;
use std::time::{Duration, Instant};

const SLOW_DOWN: Action = Action::Status(503, Some(1));

const ACTIONS: &[Action] = &[
    Action::Latency(Duration::from_millis(200)),
    SLOW_DOWN,
    Action::Status(500, None),
    Action::Reset,
    Action::Truncate,
    Action::Flip,
    Action::Bandwidth(10_000),
    Action::BlackHole,
    Action::LostReply,
];

/// How often a request meets its fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Times {
    Once,
    Always,
}

/// From `pg_cancel_backend` to the error.
const CANCEL: Duration = Duration::from_secs(1);
const ROWS: u64 = 30_000;

/// All pairs; the store, the server and the proxy stay.
pub fn matrix(run: &mut Run) -> Result<()> {
    let limit = run.limit(30);
    let store = stores::for_test(run, "fault_matrix", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let mut matrix = Matrix::start(run, "fault_matrix", &store, &proxy)?;
    let started = Instant::now();
    for target in TARGETS {
        for action in ACTIONS {
            for times in [Times::Once, Times::Always] {
                if started.elapsed() > limit {
                    return Err("the time is over".to_owned());
                }
                matrix.cell(*target, *action, times)?;
            }
        }
        matrix.cancel(*target)?;
        say(&format!(
            "      {target:?}: {} s",
            started.elapsed().as_secs()
        ));
    }
    same_server(&matrix.rig.cluster, &matrix.server)?;
    matrix.rig.settled(&store, Metadata::Read(run.python()?))
}

/// A few of them.
pub fn smoke(run: &mut Run) -> Result<()> {
    let store = stores::for_test(run, "fault_smoke", Kind::SeaweedFs)?;
    let proxy = Proxy::start(store.port(), 1)?;
    let mut matrix = Matrix::start(run, "fault_smoke", &store, &proxy)?;
    for (target, action, times) in [
        (Target::Read, Action::Flip, Times::Always),
        (Target::ReadToChange, Action::Truncate, Times::Once),
        (Target::Put, SLOW_DOWN, Times::Once),
        (Target::Put, Action::LostReply, Times::Once),
        (Target::Metadata, Action::LostReply, Times::Always),
        (Target::Delete, Action::Reset, Times::Always),
    ] {
        matrix.cell(target, action, times)?;
    }
    matrix.cancel(Target::Read)?;
    matrix.cancel(Target::Put)?;
    same_server(&matrix.rig.cluster, &matrix.server)?;
    matrix.rig.settled(&store, Metadata::Read(run.python()?))
}

struct Matrix<'a> {
    rig: Rig,
    store: &'a Store,
    proxy: &'a Proxy,
    server: String,
    /// Of statements so far.
    number: u64,
}

impl<'a> Matrix<'a> {
    fn start(run: &mut Run, name: &str, store: &'a Store, proxy: &'a Proxy) -> Result<Matrix<'a>> {
        let rig = Rig::start(
            run,
            name,
            store,
            proxy.port(),
            &[IMPATIENT, ("lake.keep_snapshots", "2")],
        )?;
        rig.change(&[&load(1, ROWS)])?;
        Ok(Matrix {
            server: started_at(&rig.cluster)?,
            rig,
            store,
            proxy,
            number: 0,
        })
    }

    fn cell(&mut self, target: Target, action: Action, times: Times) -> Result<()> {
        self.faulty(target, action, times)
            .and_then(|()| self.recovered(target))
            .map_err(|error| format!("{target:?}, {}, {times:?}: {error}", action.name()))
    }

    /// The statement with its fault.
    fn faulty(&mut self, target: Target, action: Action, times: Times) -> Result<()> {
        let mut rules = target.rules(action);
        if times == Times::Once {
            rules = rules.into_iter().map(|rule| rule.times(1)).collect();
        }
        let mut attempt = 0;
        let (outcome, took) = loop {
            self.number += 1;
            attempt += 1;
            target.prepare(&self.rig)?;
            self.proxy.set(rules.clone());
            let started = Instant::now();
            let outcome = target.run(&self.rig, self.number);
            let took = started.elapsed();
            let hits = self.proxy.hits();
            self.proxy.clear();
            let outcome = outcome?;
            if hits > 0 {
                break (outcome, took);
            }
            // The maintainer may have been faster.
            if attempt == 3 {
                return Err("no such request was made".to_owned());
            }
        };
        if let Outcome::Failed(error) = &outcome
            && bearable(target, action, times)
        {
            return Err(format!("one fault was too much: {error}"));
        }
        if let Outcome::Done(_) = outcome
            && unbearable(target, action, times)
        {
            return Err("it has succeeded without its requests".to_owned());
        }
        let patience = Duration::from_secs(TIMEOUT * 10);
        // A trickle is not nothing.
        if took > patience && !matches!(action, Action::Bandwidth(_)) {
            return Err(format!("it took {} s", took.as_secs()));
        }
        Ok(())
    }

    /// The fault is gone, and with it all that it has done.
    fn recovered(&mut self, target: Target) -> Result<()> {
        // What was written is in the cache, however it has arrived in the store.
        self.rig.evict()?;
        self.rig.same("after the fault")?;
        self.number += 1;
        if let Outcome::Failed(error) = target.run(&self.rig, self.number)? {
            return Err(format!("without the fault: {error}"));
        }
        self.rig.same("when all is well again")?;
        // What metadata say is looked at in the end.
        self.rig.settled(self.store, Metadata::Any)?;
        no_uploads(self.store)
    }

    /// Nobody answers, and somebody doesn't want to wait.
    fn cancel(&mut self, target: Target) -> Result<()> {
        self.number += 1;
        let number = self.number;
        let result = target.prepare(&self.rig).and_then(|()| {
            self.proxy.set(target.rules(Action::BlackHole));
            let took = cancelled(&self.rig, &target.script(number), || self.proxy.hits() > 0);
            self.proxy.clear();
            match took? {
                took if took > CANCEL => Err(format!("it took {} ms", took.as_millis())),
                _ => Ok(()),
            }
        });
        result
            .and_then(|()| self.recovered(target))
            .map_err(|error| format!("{target:?}, cancelled in a black hole: {error}"))
    }
}

/// What a client must get over when it happens once.
fn bearable(target: Target, action: Action, times: Times) -> bool {
    match action {
        Action::Latency(_) => true,
        Action::Status(..) => times == Times::Once,
        Action::Flip => times == Times::Once && target.writes_content(),
        _ => false,
    }
}

/// What nothing can get over: the store hears nothing, or nothing arrives or comes back whole. A sweep may put
/// off what it can't do.
fn unbearable(target: Target, action: Action, times: Times) -> bool {
    let hopeless = match action {
        Action::Status(..) | Action::Reset | Action::BlackHole | Action::Truncate => true,
        Action::Flip => {
            matches!(target, Target::Read | Target::ReadToChange) || target.writes_content()
        }
        _ => false,
    };
    times == Times::Always && hopeless && !matches!(target, Target::List | Target::Delete)
}
