//! One shard: its blocks, its files, its flights.
//!
//! `state` is locked for look-ups and changes in memory. What does I/O is spread over the other files here: `keep.rs` puts blocks
//! in and takes them out, `open.rs` brings a shard up, `journal.rs` writes the index.

mod journal;
mod keep;
mod open;
#[cfg(test)]
mod tests;

use crate::checksum::Sums;
use crate::directory::Directory;
use crate::disk::{Disk, SegmentFile};
use crate::flight::{Flights, Key, Lead, Wait};
use crate::lock;
use crate::object::{Admission, Object};
use crate::part::Chunk;
use crate::space::Space;
use crate::stats::{Counters, ShardStats};
use journal::Journal;
pub(crate) use open::Setup;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

pub(crate) struct Shard {
    number: u32,
    block_bytes: u64,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
    pub(crate) counters: Counters,
    /// Locked before `state`.
    journal: Mutex<Journal>,
    commit_is_due: AtomicBool,
    /// Read by who writes blocks; `false`: the shard was closed.
    writable: RwLock<bool>,
}

struct State {
    directory: Directory,
    space: Space,
    flights: Flights,
    /// Why the shard is off for good.
    off: Option<String>,
    failing: Option<Failing>,
}

/// The disk refused a block. Until a while has passed it isn't asked again.
struct Failing {
    reason: String,
    until: Instant,
}

/// A block that is in the cache. It may be gone, and its slot another one's, when it is read.
pub(crate) struct Hit {
    pub(crate) file: Arc<SegmentFile>,
    /// Where the block begins in the file.
    pub(crate) offset: u64,
    pub(crate) sums: Sums,
    pub(crate) generation: u64,
}

/// What a look-up found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) hits: Vec<(Chunk, Hit)>,
    pub(crate) waits: Vec<(Chunk, Wait)>,
    /// What the caller has to have fetched.
    pub(crate) leads: Vec<Lead>,
}

impl Shard {
    /// Looks all chunks up at one time. `call` is the reader.
    pub(crate) fn look_up(
        self: &Arc<Self>,
        object: &Object,
        chunks: Vec<Chunk>,
        admission: Admission,
        call: u64,
    ) -> Found {
        let mut found = Found::default();
        let mut wrong = Vec::new();
        let mut last = None;
        let mut state = lock(&self.state);
        for chunk in chunks {
            // A read that takes several parts of a block uses it once.
            let counts =
                admission == Admission::Normal && last.replace(chunk.block) != Some(chunk.block);
            let block = match counts {
                true => state.directory.use_block(object, chunk.block),
                false => state.directory.get(object, chunk.block),
            };
            if let Some(block) = block {
                if object.checksums.get(chunk.block as usize) == Some(&block.sums.whole) {
                    let hit = Hit {
                        file: block.slot.file.clone(),
                        offset: block.slot.range(self.block_bytes).start,
                        sums: block.sums.clone(),
                        generation: block.generation,
                    };
                    found.hits.push((chunk, hit));
                    continue;
                }
                wrong.extend(state.directory.remove(&object.location, chunk.block));
            }
            let key = Key {
                location: object.location.clone(),
                size: object.size,
                block: chunk.block,
            };
            let (wait, lead) = state.flights.join(key, admission, call);
            found.leads.extend(lead);
            found.waits.push((chunk, wait));
        }
        drop(state);
        if !wrong.is_empty() {
            self.drop_wrong(object, wrong);
        }
        found
    }

    /// Ends a flight that isn't in the cache.
    pub(crate) fn end_flight(&self, key: &Key, call: u64) {
        lock(&self.state).flights.end(key, call);
    }

    /// Ends the flights that nobody waits for, and returns the others.
    pub(crate) fn wanted(&self, object: &Object, leads: Vec<Lead>, call: u64) -> Vec<Lead> {
        let mut state = lock(&self.state);
        leads
            .into_iter()
            .filter(|lead| {
                if !lead.is_wanted() {
                    let key = Key {
                        location: object.location.clone(),
                        size: object.size,
                        block: lead.block,
                    };
                    state.flights.end(&key, call);
                    return false;
                }
                true
            })
            .collect()
    }

    /// Whether these blocks of an object are all there.
    pub(crate) fn has(&self, object: &Object, mut blocks: impl Iterator<Item = u32>) -> bool {
        let state = lock(&self.state);
        blocks.all(|block| {
            let found = state.directory.get(object, block);
            found.is_some_and(|found| {
                object.checksums.get(block as usize) == Some(&found.sums.whole)
            })
        })
    }

    /// Where these blocks of an object are, if all of them are there. `uses`: that counts as a use of each.
    pub(crate) fn hits(&self, object: &Object, blocks: &[u32], uses: bool) -> Option<Vec<Hit>> {
        let mut state = lock(&self.state);
        let is_there = |block: &u32| {
            let found = state.directory.get(object, *block);
            found.is_some_and(|found| {
                object.checksums.get(*block as usize) == Some(&found.sums.whole)
            })
        };
        if !blocks.iter().all(is_there) {
            return None;
        }
        let mut hits = Vec::with_capacity(blocks.len());
        for block in blocks {
            let found = match uses {
                true => state.directory.use_block(object, *block),
                false => state.directory.get(object, *block),
            }?;
            hits.push(Hit {
                file: found.slot.file.clone(),
                offset: found.slot.range(self.block_bytes).start,
                sums: found.sums.clone(),
                generation: found.generation,
            });
        }
        Some(hits)
    }

    /// Bytes of the object that are in the cache.
    pub(crate) fn bytes_of(&self, object: &Object) -> u64 {
        lock(&self.state).directory.bytes_of(object)
    }

    pub(crate) fn stats(&self) -> ShardStats {
        let mut stats = ShardStats {
            shard: self.number,
            ..ShardStats::default()
        };
        self.counters.fill(&mut stats);
        let state = lock(&self.state);
        stats.capacity = state.space.capacity();
        stats.bytes = state.space.allocated();
        stats.blocks = state.directory.len();
        let failing = state.failing.as_ref().map(|failing| &failing.reason);
        stats.off = state.off.as_ref().or(failing).cloned();
        stats
    }
}
