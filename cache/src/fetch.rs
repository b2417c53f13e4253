//! Fetching what is missing: neighbouring blocks in one request, each request in a task of its own.
//!
//! A task goes on when the reader that started it goes away, unless nobody waits for any of its blocks when its turn comes.

use crate::checksum::Sums;
use crate::flight::{Failure, Key, Lead};
use crate::object::{Layout, Object, Origin};
use crate::shard::Shard;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// What one request asks for at most, if blocks aren't larger.
const RUN_BYTES: u64 = 8 << 20;
/// Requests that one read has under way.
const RUNS_PER_CALL: usize = 8;
/// What requests may hold at one time until it is in the cache, over all reads.
const BUFFER_BYTES: u64 = 128 << 20;
/// What a permit for that stands for.
const PERMIT_BYTES: u64 = 64 << 10;

/// The permits for [`BUFFER_BYTES`].
pub(crate) fn buffers() -> Arc<Semaphore> {
    Arc::new(Semaphore::new((BUFFER_BYTES / PERMIT_BYTES) as usize))
}

/// Neighbouring blocks that are fetched by one request.
struct Run {
    shard: Arc<Shard>,
    object: Object,
    layout: Layout,
    call: u64,
    /// Ascending.
    leads: Vec<Lead>,
}

/// A block with the right bytes.
struct Checked {
    block: u32,
    bytes: Bytes,
    sums: Sums,
}

/// Starts the tasks that fetch the blocks of `leads`. They are the reader's of that `call`.
pub(crate) fn start<O: Origin>(
    shard: &Arc<Shard>,
    (object, layout): (&Object, Layout),
    mut leads: Vec<Lead>,
    call: u64,
    origin: &Arc<O>,
    buffers: &Arc<Semaphore>,
) {
    leads.sort_by_key(|lead| lead.block);
    let most = (RUN_BYTES / layout.block_bytes).max(1) as usize;
    let mut runs: Vec<Run> = Vec::new();
    for lead in leads {
        match runs.last_mut() {
            Some(run) if run.leads.len() < most && run.is_followed_by(lead.block) => {
                run.leads.push(lead);
            }
            _ => runs.push(Run {
                shard: shard.clone(),
                object: object.clone(),
                layout,
                call,
                leads: vec![lead],
            }),
        }
    }
    let turns = Arc::new(Semaphore::new(RUNS_PER_CALL));
    for run in runs {
        tokio::spawn(fly(run, origin.clone(), turns.clone(), buffers.clone()));
    }
}

async fn fly<O: Origin>(
    mut run: Run,
    origin: Arc<O>,
    turns: Arc<Semaphore>,
    buffers: Arc<Semaphore>,
) {
    let Ok(turn) = turns.acquire().await else {
        return;
    };
    let Ok(_buffer) = buffers.acquire_many(run.permits()).await else {
        return;
    };
    let leads = std::mem::take(&mut run.leads);
    run.leads = run.shard.wanted(&run.object, leads, run.call);
    let Some(range) = run.range() else {
        return;
    };
    let got = run.get(&*origin, range).await;
    // The next request goes out while the bytes of this one are checked and written. What that holds is bounded by the buffers.
    drop(turn);
    let bytes = match got {
        Ok(bytes) => bytes,
        Err(failure) => {
            let blocks: Vec<u32> = run.leads.iter().map(|lead| lead.block).collect();
            return run.fail(&blocks, &failure);
        }
    };
    let Some((mut checked, doubtful)) = run.check(bytes).await else {
        return;
    };
    run.land(&checked);
    for block in doubtful {
        match run.get_again(&*origin, block).await {
            Ok(right) => {
                run.land(std::slice::from_ref(&right));
                checked.push(right);
            }
            Err(failure) => run.fail(&[block], &failure),
        }
    }
    run.keep(checked).await;
}

impl Run {
    fn is_followed_by(&self, block: u32) -> bool {
        let last = self.leads.last().map(|lead| lead.block);
        last.and_then(|last| last.checked_add(1)) == Some(block)
    }

    /// The bytes of its blocks in the object.
    fn range(&self) -> Option<Range<u64>> {
        let (first, last) = (self.leads.first()?, self.leads.last()?);
        Some(self.layout.offset(first.block)..self.block_range(last.block).end)
    }

    fn block_range(&self, block: u32) -> Range<u64> {
        let start = self.layout.offset(block);
        start..start + self.layout.block_len(block) as u64
    }

    fn permits(&self) -> u32 {
        let bytes = self.range().map_or(0, |range| range.end - range.start);
        bytes.min(BUFFER_BYTES).div_ceil(PERMIT_BYTES) as u32
    }

    async fn get<O: Origin>(&self, origin: &O, range: Range<u64>) -> Result<Bytes, Failure> {
        let counters = &self.shard.counters;
        let _in_flight = counters.in_flight();
        let started = Instant::now();
        let got = origin.get(range).await;
        counters.answered(started.elapsed());
        match got {
            Ok(bytes) => {
                counters.bytes_from_store.add(bytes.len() as u64);
                Ok(bytes)
            }
            Err(error) => Err(Failure::Origin(Arc::new(error))),
        }
    }

    /// Fetches one block whose bytes were wrong. If they are wrong again that is the object's fault.
    async fn get_again<O: Origin>(&self, origin: &O, block: u32) -> Result<Checked, Failure> {
        tracing::warn!(
            "bytes from {} of \"{}\" don't match their checksum, they are fetched again",
            self.layout.offset(block),
            self.object.location
        );
        let bytes = self.get(origin, self.block_range(block)).await?;
        let sums = Sums::of(&bytes);
        if !self.is_right(block, &bytes, &sums) {
            return Err(Failure::Corrupt);
        }
        Ok(Checked { block, bytes, sums })
    }

    fn is_right(&self, block: u32, bytes: &[u8], sums: &Sums) -> bool {
        bytes.len() == self.layout.block_len(block)
            && self.object.checksums.get(block as usize) == Some(&sums.whole)
    }

    /// Divides the run's bytes. The second list has the blocks that aren't right. `None`: the runtime is going down.
    async fn check(&mut self, bytes: Bytes) -> Option<(Vec<Checked>, Vec<u32>)> {
        let start = self.range()?.start;
        let parts: Vec<(u32, Bytes)> = self
            .leads
            .iter()
            .map(|lead| {
                let range = self.block_range(lead.block);
                let (from, to) = (range.start - start, range.end - start);
                let part = match to <= bytes.len() as u64 {
                    true => bytes.slice(from as usize..to as usize),
                    false => Bytes::new(),
                };
                (lead.block, part)
            })
            .collect();
        let summed = spawn_blocking(move || {
            let sum = |(block, bytes): (u32, Bytes)| {
                let sums = Sums::of(&bytes);
                Checked { block, bytes, sums }
            };
            parts.into_iter().map(sum).collect::<Vec<_>>()
        });
        let (right, wrong): (Vec<_>, Vec<_>) = summed
            .await
            .ok()?
            .into_iter()
            .partition(|part| self.is_right(part.block, &part.bytes, &part.sums));
        Some((right, wrong.into_iter().map(|part| part.block).collect()))
    }

    /// Gives blocks to those who wait.
    fn land(&self, checked: &[Checked]) {
        for part in checked {
            if let Some(lead) = self.leads.iter().find(|lead| lead.block == part.block) {
                lead.land(Ok(part.bytes.clone()));
            }
        }
    }

    /// Tells those who wait. Who comes later tries again.
    fn fail(&mut self, blocks: &[u32], failure: &Failure) {
        for block in blocks {
            self.shard.end_flight(&self.key(*block), self.call);
            if let Some(at) = self.leads.iter().position(|lead| lead.block == *block) {
                self.leads.remove(at).land(Err(failure.clone()));
            }
        }
    }

    /// Writes blocks to the cache, those that somebody wants there.
    async fn keep(&self, mut checked: Vec<Checked>) {
        let admissions = self.leads.iter().map(|lead| (lead.block, lead.admission()));
        let admissions: Vec<_> = admissions.collect();
        checked.sort_by_key(|part| part.block);
        let (shard, object) = (self.shard.clone(), self.object.clone());
        let kept = spawn_blocking(move || {
            for part in checked {
                let of_block = |(block, _): &&(u32, _)| *block == part.block;
                if let Some((_, admission)) = admissions.iter().find(of_block)
                    && *admission != crate::Admission::Bypass
                {
                    shard.keep(&object, part.block, &part.bytes, part.sums, *admission);
                }
            }
        });
        // Who waited has the bytes already.
        let _ = kept.await;
    }

    fn key(&self, block: u32) -> Key {
        Key {
            location: self.object.location.clone(),
            size: self.object.size,
            block,
        }
    }
}

/// Also when it panics, or when the runtime goes down.
impl Drop for Run {
    fn drop(&mut self) {
        for lead in &self.leads {
            self.shard.end_flight(&self.key(lead.block), self.call);
        }
    }
}
