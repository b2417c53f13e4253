//! Reading an object into the cache, for nobody.

use crate::cache::Cache;
use crate::fetch;
use crate::object::{Admission, Error, Layout, Object, Origin};
use crate::part::Chunk;
use crate::read::landed;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::Arc;

impl Cache {
    /// Fetches what the cache hasn't of an object. What it has is not looked at. As with reads, the last blocks may still be on
    /// their way to the disk afterwards, and the local disk's failures are none.
    pub async fn fill<O: Origin>(
        &self,
        object: &Object,
        origin: Arc<O>,
    ) -> Result<(), Error<O::Error>> {
        let layout = Layout::of(object, self.block_bytes()).map_err(Error::Invalid)?;
        let shard = self.shard(&object.location);
        // Checked by the layout: there aren't more.
        let blocks = 0..layout.blocks() as u32;
        let mut wanted: Vec<u32> = blocks.collect();
        while !wanted.is_empty() {
            let call = self.next_call();
            let chunks = wanted.drain(..).map(|block| Chunk {
                part: 0,
                block,
                within: 0..layout.block_len(block),
            });
            let found = shard.look_up(object, chunks.collect(), Admission::Normal, call);
            if !found.leads.is_empty() {
                let own = origin.buffers();
                let buffers = own.as_ref().unwrap_or(self.buffers());
                let what = (object, layout);
                fetch::start(shard, what, found.leads, call, &origin, &buffers.0);
            }
            let mut waits: FuturesUnordered<_> = found
                .waits
                .into_iter()
                .map(|(chunk, wait)| async move {
                    let own = wait.own;
                    (chunk.block, own, wait.landed().await)
                })
                .collect();
            while let Some((block, own, outcome)) = waits.next().await {
                match landed::<O::Error>(object, layout.offset(block), own, outcome)? {
                    Some(_) => shard.counters.misses.add(1),
                    None => wanted.push(block),
                }
            }
        }
        Ok(())
    }
}
