//! Files whose statistics show that every row passes a predicate.
//!
//! A DELETE asks: it need not look at the rows of such files. A file of which the statistics say too
//! little counts as one with rows that don't pass.

use super::Engine;
use super::error::{cancelled, protocol};
use super::prune::proof;
use super::source::{Source, shared};
use super::validate::validate;
use crate::arrow_types::scan_schema;
use pg_lake_plan::ir::Plan;
use pg_lake_plan::message::{Execute, WireError};
use pg_lake_plan::store::Store;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

impl Engine {
    /// For each file of a scan's request: whether all its rows pass the scan's predicate.
    ///
    /// It reads footers that are not in the cache on the calling thread.
    pub async fn covered(
        &self,
        request: &Execute,
        stores: Vec<Store>,
        cancel: &CancellationToken,
    ) -> Result<Vec<bool>, WireError> {
        validate(request, 1)?;
        let (Plan::Scan(scan), [table]) = (&request.fragment.root, request.tables.as_slice())
        else {
            return Err(protocol("only a scan has files that are covered"));
        };
        let proof = scan
            .predicate
            .as_ref()
            .and_then(|predicate| proof(predicate, &request.params));
        let Some(proof) = proof else {
            return Ok(vec![false; table.files.len()]);
        };
        let source = Source::new(
            scan,
            scan_schema(&scan.columns),
            None,
            vec![],
            shared(table.files.clone()),
            self.cache.clone(),
            Arc::default(),
            cancel.clone(),
            self.remote(request, stores),
        )?;
        let source = Arc::new(source);
        let mut covered = Vec::with_capacity(source.files.len());
        for index in 0..source.files.len() {
            tokio::task::yield_now().await;
            if cancel.is_cancelled() {
                return Err(cancelled());
            }
            covered.push(source.covers(index, &proof).await?);
        }
        Ok(covered)
    }
}
