//! Which of a child's output columns its parent looks at.
//!
//! Postgres lets a scan return the whole row where its parent doesn't care, since that is free for
//! a heap page. Reading every column from Parquet isn't: the others are left out (null) instead.

use super::node::{array, attnos, get, nodes};
use pgrx::pg_sys;

/// Numbers (from 1) of the outputs of `parent`'s outer (`OUTER_VAR`) or inner (`INNER_VAR`) child
/// that `parent` uses, or `None` if it may pass on all of them.
pub fn outputs(parent: *mut pg_sys::Plan, side: i32) -> Option<Vec<i16>> {
    let node = parent.cast();
    // SAFETY: a plan node of the tree.
    let plan = unsafe { &*parent };
    let mut lists = vec![plan.targetlist, plan.qual];
    let mut used = vec![];
    let join = |lists: &mut Vec<*mut pg_sys::List>, join: &pg_sys::Join| lists.push(join.joinqual);
    if let Some(agg) = get::<pg_sys::Agg>(node) {
        if !agg.chain.is_null() || !agg.groupingSets.is_null() {
            return None;
        }
        used.extend(array(agg.grpColIdx, agg.numCols));
    } else if let Some(hash) = get::<pg_sys::HashJoin>(node) {
        join(&mut lists, &hash.join);
        lists.extend([hash.hashclauses, hash.hashkeys]);
    } else if let Some(merge) = get::<pg_sys::MergeJoin>(node) {
        join(&mut lists, &merge.join);
        lists.push(merge.mergeclauses);
    } else if let Some(nest) = get::<pg_sys::NestLoop>(node) {
        join(&mut lists, &nest.join);
        for param in nodes(nest.nestParams) {
            let param = get::<pg_sys::NestLoopParam>(param)?;
            used.extend(attnos(param.paramval.cast(), side));
        }
    } else if let Some(result) = get::<pg_sys::Result>(node) {
        used.extend(attnos(result.resconstantqual, side));
    } else if get::<pg_sys::ProjectSet>(node).is_none() {
        return None;
    }
    for list in lists {
        used.extend(attnos(list.cast(), side));
    }
    used.iter().all(|attno| *attno > 0).then_some(used)
}
