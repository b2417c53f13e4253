//! The rows that a running fragment is fed with: hot rows, and rows of plans that Postgres runs.
//!
//! The engine takes them in an order of its own, as a join reads one side to its end before it looks at
//! the other. So all feeds are filled side by side, and a full ring is waited for only when none has room.

use crate::am::hot::HotScan;
use crate::custom::encoding::Encoding;
use crate::guc;
use crate::pg::missing;
use crate::ring::call::{Call, Outgoing, Sent};
use crate::types::{PinnedSettings, ValueError};
use pg_lake_plan::batch::BatchBuilder;
use pgrx::pg_sys;
use std::rc::Rc;

const ROWS_PER_BATCH: usize = 8192;

/// Where the rows of a feed come from.
pub enum Origin {
    /// A scan, and its first row until that is taken.
    Hot(HotScan, Option<*mut pg_sys::TupleTableSlot>),
    Plan(*mut pg_sys::PlanState),
}

/// The feeds of a request, in the order of their streams.
pub struct Feeds {
    feeds: Vec<Feed>,
    contexts: Contexts,
}

#[derive(Clone, Copy)]
pub struct Contexts {
    /// Of the query: plans and scans run in it.
    pub query: pg_sys::MemoryContext,
    /// Below it, for what a batch leaves behind.
    pub batch: pg_sys::MemoryContext,
}

struct Feed {
    /// `None` when all its rows have been read.
    origin: Option<Origin>,
    encoding: Rc<Encoding>,
    builder: BatchBuilder,
    /// The batch on its way.
    message: Outgoing,
    /// The engine knows of the end, or reads no more.
    over: bool,
}

/// What [`Feeds::pump`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pumped {
    /// Nothing is left to be fed.
    Nothing,
    /// No ring has room.
    Full,
    /// Rows were read or sent: look at everything again before waiting.
    Rows,
}

impl Feeds {
    pub fn new(contexts: Contexts) -> Feeds {
        Feeds {
            feeds: vec![],
            contexts,
        }
    }

    pub fn add(&mut self, origin: Origin, encoding: Rc<Encoding>) {
        self.feeds.push(Feed {
            origin: Some(origin),
            builder: encoding.builder(),
            encoding,
            message: Outgoing::default(),
            over: false,
        });
    }

    pub fn count(&self) -> usize {
        self.feeds.len()
    }

    /// Whether a row may turn up that can't be fed.
    pub fn may_be_refused(&self) -> bool {
        self.feeds
            .iter()
            .any(|feed| feed.encoding.has_unstorable_values)
    }

    /// Gives each feed a batch, or the part of one that its ring has room for. An error: a row can't be
    /// fed.
    ///
    /// # Safety
    /// In the running executor, in the query's memory context. As of [`missing::exec_proc_node`].
    pub unsafe fn pump(&mut self, call: &mut Call) -> Result<Pumped, ValueError> {
        let mut pumped = Pumped::Nothing;
        for (number, feed) in self.feeds.iter_mut().enumerate() {
            if feed.over {
                continue;
            }
            if feed.message.is_sent() && feed.origin.is_some() {
                // SAFETY: by contract.
                unsafe { feed.read(self.contexts)? };
                // Whatever waits within a plan may have taken a wake-up that was for us.
                pumped = Pumped::Rows;
            }
            let sent = if feed.message.is_sent() {
                Sent::Whole
            } else {
                call.try_feed(number, &mut feed.message)
            };
            pumped = pumped.max(match sent {
                Sent::Nothing => Pumped::Full,
                Sent::Whole | Sent::Partly | Sent::Unwanted => Pumped::Rows,
            });
            match sent {
                Sent::Whole if feed.origin.is_none() => {
                    call.finish_feed(number);
                    feed.over = true;
                }
                Sent::Unwanted => feed.end(),
                Sent::Whole | Sent::Partly | Sent::Nothing => {}
            }
        }
        Ok(pumped)
    }

    /// Ends the scans; plans belong to whoever began them. Nothing more is fed.
    pub fn end(&mut self) {
        self.feeds.iter_mut().for_each(Feed::end);
    }
}

impl Feed {
    fn end(&mut self) {
        self.over = true;
        self.end_origin();
    }

    fn end_origin(&mut self) {
        if let Some(Origin::Hot(scan, _)) = self.origin.take() {
            scan.end();
        }
    }

    /// Reads the next batch, which may be the last.
    unsafe fn read(&mut self, contexts: Contexts) -> Result<(), ValueError> {
        crate::pg::check_for_interrupts();
        if self.encoding.needs_pinned_settings && matches!(self.origin, Some(Origin::Hot(..))) {
            let pinned = PinnedSettings::new();
            // SAFETY: by contract; errors of a scan are caught, and drop the settings.
            let read = unsafe { self.read_rows(contexts, Encoding::push) };
            drop(pinned);
            read?;
        } else {
            // The functions of a plan must not see these settings.
            // SAFETY: by contract.
            unsafe { self.read_rows(contexts, Encoding::push_pinned)? };
        }
        if self.builder.rows() > 0 {
            self.builder.finish(self.message.buffer())?;
        }
        // SAFETY: nothing in it is used any more.
        unsafe { pg_sys::MemoryContextReset(contexts.batch) };
        Ok(())
    }

    unsafe fn read_rows(
        &mut self,
        contexts: Contexts,
        push: unsafe fn(
            &Encoding,
            *mut pg_sys::TupleTableSlot,
            &mut BatchBuilder,
        ) -> Result<(), ValueError>,
    ) -> Result<(), ValueError> {
        let limit = guc::ring_bytes() as usize / 4;
        loop {
            let Some(origin) = &mut self.origin else {
                return Ok(());
            };
            // SAFETY: by contract. A row is used before the next one is asked for.
            unsafe {
                let row = origin.next();
                if row.is_null() {
                    self.end_origin();
                    return Ok(());
                }
                pg_sys::MemoryContextSwitchTo(contexts.batch);
                let pushed = push(&self.encoding, row, &mut self.builder);
                pg_sys::MemoryContextSwitchTo(contexts.query);
                pushed?;
            }
            let rows = self.builder.rows();
            if rows >= ROWS_PER_BATCH || (rows & 63 == 0 && self.builder.bytes() >= limit) {
                return Ok(());
            }
        }
    }
}

impl Origin {
    /// The next row, valid until the next call; null at the end.
    unsafe fn next(&mut self) -> *mut pg_sys::TupleTableSlot {
        match self {
            Origin::Hot(scan, first) => first
                .take()
                .or_else(|| scan.next())
                .unwrap_or(std::ptr::null_mut()),
            // SAFETY: by contract.
            Origin::Plan(node) => unsafe { missing::exec_proc_node(*node) },
        }
    }
}
