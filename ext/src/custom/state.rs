//! Executor callbacks of the node.

use crate::custom::direct::Direct;
use crate::custom::explain;
use crate::custom::leaf::Leaf;
use crate::custom::private::{Mode, ParamKind, Private, decode};
use crate::custom::{fragment, params, rights};
use crate::pg::missing;
use pg_lake_plan::ir::Fragment;
use pg_lake_plan::types::Value;
use pgrx::{pg_guard, pg_sys};

struct Methods(pg_sys::CustomScanMethods, pg_sys::CustomExecMethods);
// SAFETY: constant tables of functions.
unsafe impl Sync for Methods {}

static METHODS: Methods = Methods(
    pg_sys::CustomScanMethods {
        CustomName: c"Lake".as_ptr(),
        CreateCustomScanState: Some(create),
    },
    pg_sys::CustomExecMethods {
        CustomName: c"Lake".as_ptr(),
        BeginCustomScan: Some(begin),
        ExecCustomScan: Some(exec),
        EndCustomScan: Some(end),
        ReScanCustomScan: Some(rescan),
        MarkPosCustomScan: None,
        RestrPosCustomScan: None,
        EstimateDSMCustomScan: None,
        InitializeDSMCustomScan: None,
        ReInitializeDSMCustomScan: None,
        InitializeWorkerCustomScan: None,
        ShutdownCustomScan: None,
        ExplainCustomScan: Some(explain_node),
    },
);

/// What `CustomScan.methods` points to.
pub fn methods() -> *const pg_sys::CustomScanMethods {
    &raw const METHODS.0
}

/// Registers the node's name, by which parallel workers and copies of plans find its methods.
pub fn init() {
    // SAFETY: called once, in the postmaster.
    unsafe { pg_sys::RegisterCustomScanMethods(methods()) };
}

/// The executor's state of one node. `run` is made by `begin` and dropped by `end`, or, after an error,
/// when the memory that this is in goes.
#[repr(C)]
pub struct State {
    pub css: pg_sys::CustomScanState,
    run: *mut Run,
    gone: pg_sys::MemoryContextCallback,
}

/// What is being run.
pub struct Run {
    pub private: Private,
    pub work: Work,
    /// If a bulk load may take its batches.
    pub direct: Option<Direct>,
}

pub enum Work {
    Leaf(Leaf),
    Fragment(fragment::Fragment),
}

/// Which rows of a table a scan returns.
pub enum Returned {
    All,
    /// Those that pass the predicate of the fragment, which is a scan, with values of its parameters.
    Passing(Box<Fragment>, Vec<Option<Value>>),
}

/// What a leaf returns, before the quals of its plan; `None` for another node, and if it depends on
/// what has yet to be executed.
///
/// # Safety
/// A node that the executor has started.
pub unsafe fn returned(node: *mut pg_sys::CustomScanState) -> Option<Returned> {
    // SAFETY: by contract; the methods tell ours.
    unsafe {
        if (*node).methods != &raw const METHODS.1 {
            return None;
        }
        let run = run(node);
        let Work::Leaf(_) = run.work else {
            return None;
        };
        let Private {
            fragment, params, ..
        } = &run.private;
        if fragment.root.as_scan()?.predicate.is_none() {
            return Some(Returned::All);
        }
        if params.iter().any(|param| param.kind == ParamKind::Exec) {
            return None;
        }
        let (fragment, values) = params::bind(node, fragment, params)?;
        Some(Returned::Passing(Box::new(fragment), values))
    }
}

/// What a node of a started plan runs; `None` for one that isn't ours.
///
/// # Safety
/// It is one, and nobody else has what it runs meanwhile.
pub unsafe fn ours<'a>(node: *mut pg_sys::PlanState) -> Option<&'a mut Run> {
    let custom = node.cast::<pg_sys::CustomScanState>();
    // SAFETY: by contract; the tag and the methods tell ours.
    unsafe {
        let is_ours = (*node).type_ == pg_sys::NodeTag::T_CustomScanState
            && (*custom).methods == &raw const METHODS.1;
        is_ours.then(|| run(custom))
    }
}

fn run<'a>(node: *mut pg_sys::CustomScanState) -> &'a mut Run {
    // SAFETY: Postgres calls with nodes that `create` made and `begin` has initialised.
    unsafe { &mut *(*node.cast::<State>()).run }
}

#[pg_guard]
unsafe extern "C-unwind" fn create(_scan: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: a zeroed node of our size with its tag set, as extensible nodes are made.
    unsafe {
        let state = pg_sys::palloc0(size_of::<State>()).cast::<State>();
        (*state).css.ss.ps.type_ = pg_sys::NodeTag::T_CustomScanState;
        (*state).css.methods = &raw const METHODS.1;
        (*state).gone.func = Some(gone);
        (*state).gone.arg = state.cast();
        pg_sys::MemoryContextRegisterResetCallback(
            pg_sys::CurrentMemoryContext,
            &raw mut (*state).gone,
        );
        state.cast()
    }
}

/// Drops what a failed query's node had outside of Postgres' memory.
///
/// It calls nothing of Postgres but for contexts that codecs have of their own, below the top one: scans,
/// temporary files and plans are no more than addresses to a `Run`, and its request's streams are their
/// resource owner's. Those have been released by then, or are released later.
#[pg_guard]
unsafe extern "C-unwind" fn gone(state: *mut std::ffi::c_void) {
    // SAFETY: registered with the context that the state is in, which is still whole.
    drop(unsafe { take(&mut *state.cast::<State>()) });
}

/// What a node runs, which it gives away.
fn take(state: &mut State) -> Option<Box<Run>> {
    let run = std::mem::replace(&mut state.run, std::ptr::null_mut());
    // SAFETY: null, or made by `begin` and owned by the state.
    (!run.is_null()).then(|| unsafe { Box::from_raw(run) })
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    eflags: i32,
) {
    // SAFETY: arguments of the callback.
    unsafe {
        let plan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
        let private = decode((*plan).custom_private);
        rights::check(&private.called);
        let work = match private.mode {
            Mode::Leaf => Work::Leaf(Leaf::begin(node, plan, &private)),
            Mode::Fragment => {
                let fragment = fragment::Fragment::begin(node, plan, &private, estate, eflags);
                Work::Fragment(fragment)
            }
        };
        (*node.cast::<State>()).run = Box::into_raw(Box::new(Run {
            private,
            work,
            direct: None,
        }));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn exec(
    node: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: arguments of the callback.
    unsafe {
        if let Run {
            work: Work::Fragment(fragment),
            private,
            ..
        } = run(node)
        {
            fragment.start(node, private);
            if fragment.replaced() {
                return fragment.next_of_plan(node);
            }
            let slot = missing::ExecScan(&mut (*node).ss, Some(next), Some(recheck));
            // The engine may turn out not to be exact at its first answer.
            if fragment.replaced() {
                return fragment.next_of_plan(node);
            }
            return slot;
        }
        missing::ExecScan(&mut (*node).ss, Some(next), Some(recheck))
    }
}

/// The next row before quals and projection; an empty slot at the end.
#[pg_guard]
unsafe extern "C-unwind" fn next(scan: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    let node = scan.cast::<pg_sys::CustomScanState>();
    let run = run(node);
    match &mut run.work {
        Work::Leaf(leaf) => leaf.next(node, &run.private, run.direct.as_mut()),
        Work::Fragment(fragment) => fragment.next(node, run.direct.as_mut()),
    }
}

/// Rows that EvalPlanQual substitutes come to leaves only: fragments over such tables aren't made.
#[pg_guard]
unsafe extern "C-unwind" fn recheck(
    scan: *mut pg_sys::ScanState,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    let node = scan.cast::<pg_sys::CustomScanState>();
    match &run(node).work {
        // SAFETY: arguments of the callback.
        Work::Leaf(leaf) => unsafe { leaf.recheck(node, slot) },
        Work::Fragment(_) => true,
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: called once for each node that was begun.
    let run = take(unsafe { &mut *node.cast::<State>() });
    match run.map(|run| run.work) {
        Some(Work::Leaf(leaf)) => leaf.end(),
        Some(Work::Fragment(fragment)) => fragment.end(),
        None => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: arguments of the callback.
    unsafe {
        match &mut run(node).work {
            Work::Leaf(leaf) => leaf.rescan(),
            Work::Fragment(fragment) => fragment.rescan(node),
        }
        pg_sys::ExecScanReScan(&mut (*node).ss);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn explain_node(
    node: *mut pg_sys::CustomScanState,
    _ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    explain::show(run(node), es);
}
