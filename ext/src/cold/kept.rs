//! Results that arrive before they may be returned, in their order: up to `work_mem` of them in memory,
//! the others in a temporary file.

use crate::pg::temp_file::TempFile;
use crate::ring::call::Message;
use pgrx::pg_sys;
use std::collections::VecDeque;

/// First everything is put in, then everything is taken out.
#[derive(Default)]
pub struct Kept {
    batches: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Those behind `batches`.
    spilled: Option<Spilled>,
    last: Option<Message>,
}

struct Spilled {
    file: TempFile,
    /// Of the batches in it that have not been read.
    lengths: VecDeque<usize>,
    reading: bool,
}

impl Spilled {
    fn next(&mut self) -> Option<Vec<u8>> {
        let length = self.lengths.pop_front()?;
        if !self.reading {
            self.file.rewind();
            self.reading = true;
        }
        Some(self.file.read(length))
    }
}

fn memory_max() -> usize {
    // SAFETY: reads a global.
    unsafe { pg_sys::work_mem as usize * 1024 }
}

impl Kept {
    /// In the memory context of the query, which must be the current one.
    pub fn push(&mut self, batch: Vec<u8>) {
        if self.spilled.is_none() && self.bytes + batch.len() <= memory_max() {
            self.bytes += batch.len();
            self.batches.push_back(batch);
            return;
        }
        let spilled = self.spilled.get_or_insert_with(|| Spilled {
            file: TempFile::create(),
            lengths: VecDeque::new(),
            reading: false,
        });
        spilled.file.write(&batch);
        spilled.lengths.push_back(batch.len());
    }

    /// The message that ends the reply.
    pub fn end(&mut self, last: Message) {
        self.last = Some(last);
    }

    /// Takes the first of those that are left.
    pub fn next(&mut self) -> Option<Message> {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= batch.len();
            return Some(Message::Batch(batch));
        }
        if let Some(batch) = self.spilled.as_mut().and_then(Spilled::next) {
            return Some(Message::Batch(batch));
        }
        self.close();
        self.last.take()
    }

    /// Drops all of it.
    pub fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
        self.close();
        self.last = None;
    }

    fn close(&mut self) {
        if let Some(spilled) = self.spilled.take() {
            spilled.file.close();
        }
    }
}
