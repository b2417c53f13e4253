//! Reading ranges of an object: from the cache what is there, from the origin what isn't.

use crate::cache::Cache;
use crate::checksum::PIECE_BYTES;
use crate::fetch;
use crate::flight::{Failure, Outcome, Wait};
use crate::object::{Admission, Error, Layout, Object, Origin};
use crate::part::{Chunk, Part, Pieces, cover_in_block, cut};
use crate::shard::{Hit, Shard};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::ops::Range;
use std::sync::Arc;

/// Up to that many bytes are read and checked by the reader's own thread, if they are in memory.
const INLINE_BYTES: usize = 256 << 10;

/// What a read returns.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// One for each range, in their order.
    pub parts: Vec<Pieces>,
    /// Bytes of `parts` that were in the cache.
    pub from_cache: u64,
    /// The other ones. The origin was asked for whole blocks, or somebody else had asked for them already.
    pub from_origin: u64,
}

/// A read that is under way.
struct Reading<'a> {
    shard: &'a Arc<Shard>,
    object: &'a Object,
    layout: Layout,
    parts: Vec<Part>,
    from_cache: u64,
    from_origin: u64,
    /// Chunks that have to be looked up again.
    again: Vec<Chunk>,
}

/// How the cache did with a chunk.
enum Tried {
    Read(Bytes),
    /// Not in memory, but maybe on the medium.
    Later,
    Damaged,
}

impl Cache {
    /// Reads ranges of an object, which must lie in it. The local disk's failures only cost time.
    ///
    /// A reader that is dropped stops nobody else. The bytes of all parts are in memory at the same time.
    pub async fn read<O: Origin>(
        self: &Arc<Self>,
        object: &Object,
        ranges: &[Range<u64>],
        admission: Admission,
        origin: Arc<O>,
    ) -> Result<Read, Error<O::Error>> {
        let layout = Layout::of(object, self.block_bytes()).map_err(Error::Invalid)?;
        let shard = self.shard(&object.location);
        let parts: Result<Vec<Part>, String> = ranges
            .iter()
            .map(|range| Part::new(range, layout))
            .collect();
        let parts = parts.map_err(Error::Invalid)?;
        let all = parts.iter().enumerate();
        let mut wanted: Vec<Chunk> = all.flat_map(|(at, part)| part.chunks(at, layout)).collect();
        let mut reading = Reading {
            shard,
            object,
            layout,
            parts,
            from_cache: 0,
            from_origin: 0,
            again: Vec::new(),
        };
        while !wanted.is_empty() {
            let call = self.next_call();
            let found = shard.look_up(object, wanted, admission, call);
            if !found.leads.is_empty() {
                let what = (object, layout);
                let own = origin.buffers();
                let buffers = own.as_ref().unwrap_or(self.buffers());
                fetch::start(shard, what, found.leads, call, &origin, &buffers.0);
            }
            if !found.hits.is_empty() {
                reading.read_hits(found.hits).await.ok_or(Error::Aborted)?;
            }
            if !found.waits.is_empty() {
                reading.wait::<O::Error>(found.waits).await?;
            }
            wanted = std::mem::take(&mut reading.again);
        }
        Ok(reading.finish())
    }
}

impl Reading<'_> {
    /// Reads what is in the cache. `None`: that can't go on, as the runtime is going down.
    async fn read_hits(&mut self, hits: Vec<(Chunk, Hit)>) -> Option<()> {
        let covers = hits
            .iter()
            .map(|(chunk, _)| cover_in_block(chunk, self.layout).len());
        let mut later = Vec::new();
        if covers.sum::<usize>() <= INLINE_BYTES {
            for (chunk, hit) in hits {
                match try_hit(&chunk, &hit, self.layout, false) {
                    Tried::Later => later.push((chunk, hit)),
                    tried => self.tried(chunk, &hit, tried)?,
                }
            }
        } else {
            later = hits;
        }
        if later.is_empty() {
            return Some(());
        }
        let layout = self.layout;
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::with_capacity(later.len());
            for (chunk, hit) in later {
                let tried = try_hit(&chunk, &hit, layout, true);
                all.push((chunk, hit, tried));
            }
            all
        });
        for (chunk, hit, tried) in read.await.ok()? {
            self.tried(chunk, &hit, tried)?;
        }
        Some(())
    }

    fn tried(&mut self, chunk: Chunk, hit: &Hit, tried: Tried) -> Option<()> {
        if let Tried::Read(bytes) = tried {
            let len = bytes.len() as u64;
            self.parts.get_mut(chunk.part)?.put(&chunk, bytes)?;
            self.from_cache += len;
            self.shard.counters.hits.add(1);
            self.shard.counters.bytes_from_cache.add(len);
            return Some(());
        }
        self.shard
            .drop_damaged(self.object, chunk.block, hit.generation);
        self.again.push(chunk);
        Some(())
    }

    /// Takes what is fetched as it comes.
    async fn wait<E: Clone + 'static>(
        &mut self,
        waits: Vec<(Chunk, Wait)>,
    ) -> Result<(), Error<E>> {
        let mut waits: FuturesUnordered<_> = waits
            .into_iter()
            .map(|(chunk, wait)| async move {
                let own = wait.own;
                (chunk, own, wait.landed().await)
            })
            .collect();
        while let Some((chunk, own, outcome)) = waits.next().await {
            let offset = self.layout.offset(chunk.block);
            let Some(block) = landed::<E>(self.object, offset, own, outcome)? else {
                self.again.push(chunk);
                continue;
            };
            let put = cut(block, chunk.within.clone())
                .and_then(|bytes| self.parts.get_mut(chunk.part)?.put(&chunk, bytes));
            put.ok_or(Error::Aborted)?;
            self.from_origin += chunk.within.len() as u64;
            self.shard.counters.misses.add(1);
        }
        Ok(())
    }

    fn finish(self) -> Read {
        Read {
            parts: self.parts.into_iter().map(Part::finish).collect(),
            from_cache: self.from_cache,
            from_origin: self.from_origin,
        }
    }
}

/// What has become of a block that `object` has at `offset`: its bytes, or `None` if it has to be looked up again.
pub(crate) fn landed<E: Clone + 'static>(
    object: &Object,
    offset: u64,
    own: bool,
    outcome: Option<Outcome>,
) -> Result<Option<Bytes>, Error<E>> {
    match outcome {
        Some(Ok(block)) => Ok(Some(block)),
        Some(Err(Failure::Corrupt)) => Err(Error::Corrupt {
            location: object.location.clone(),
            offset,
        }),
        Some(Err(Failure::Origin(error))) => match error.downcast_ref::<E>() {
            Some(error) => Err(Error::Origin(error.clone())),
            // Another kind of origin's: ours may do better.
            None => Ok(None),
        },
        // Its leader panicked.
        None if own => Err(Error::Aborted),
        None => Ok(None),
    }
}

/// Reads the pieces that a chunk touches, and checks them.
fn try_hit(chunk: &Chunk, hit: &Hit, layout: Layout, may_wait: bool) -> Tried {
    let cover = cover_in_block(chunk, layout);
    let mut buffer = vec![0; cover.len()];
    let offset = hit.offset + cover.start as u64;
    if may_wait {
        if hit.file.read(&mut buffer, offset).is_err() {
            return Tried::Damaged;
        }
    } else if !hit.file.read_now(&mut buffer, offset) {
        return Tried::Later;
    }
    if !hit.sums.match_pieces(cover.start / PIECE_BYTES, &buffer) {
        return Tried::Damaged;
    }
    let within = chunk.within.start - cover.start..chunk.within.end - cover.start;
    match cut(buffer.into(), within) {
        Some(bytes) => Tried::Read(bytes),
        None => Tried::Damaged,
    }
}
