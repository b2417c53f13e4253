//! Types that are stored as text: what their output function prints, read back by their input
//! function, as `pg_dump` moves them. And the settings that this text must not depend on.
//!
//! Unsafe code: calls functions of types through fmgr.

use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

/// A memory context of our own, deleted when dropped.
#[derive(Debug)]
pub(super) struct Context(pub pg_sys::MemoryContext);

impl Context {
    /// Below `parent`, which must outlive it.
    ///
    /// # Safety
    /// On the main thread; `parent` is a valid context.
    pub unsafe fn new(parent: pg_sys::MemoryContext, name: &'static CStr) -> Context {
        // SAFETY: by contract; the name is kept by address and lives for ever.
        Context(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                name.as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            )
        })
    }

    /// Makes it the current context until the guard is dropped.
    pub fn enter(&self) -> Entered {
        // SAFETY: swaps a global of this thread for a context that is alive.
        Entered(unsafe { pg_sys::MemoryContextSwitchTo(self.0) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: created by `new`, never handed out to be deleted elsewhere.
        unsafe { pg_sys::MemoryContextDelete(self.0) }
    }
}

/// Goes back to the context that was current before, also when an error passes through.
pub(super) struct Entered(pg_sys::MemoryContext);

impl Drop for Entered {
    fn drop(&mut self) {
        // SAFETY: the caller's context outlives this scope.
        unsafe {
            pg_sys::MemoryContextSwitchTo(self.0);
        }
    }
}

/// Input and output function of a type.
#[derive(Debug)]
pub(super) struct Printed {
    /// What the functions print, and what they leave behind; emptied after each value.
    /// (Declared, and so dropped, before its parent.)
    scratch: Context,
    /// The functions' lookup data and whatever they cache there.
    _context: Context,
    output: *mut pg_sys::FmgrInfo,
    input: *mut pg_sys::FmgrInfo,
    typioparam: pg_sys::Oid,
    typmod: i32,
    needs_pinned_settings: bool,
}

impl Printed {
    /// # Safety
    /// On the main thread, in a transaction; `typid` is a type, not a domain.
    pub unsafe fn new(typid: pg_sys::Oid, typmod: i32) -> Printed {
        // SAFETY: catalog lookups; both FmgrInfo live in `context`, as long as `self`. A codec may
        // outlive the current context, hence the parent.
        unsafe {
            let context = Context::new(pg_sys::TopMemoryContext, c"pg_lake type functions");
            let scratch = Context::new(context.0, c"pg_lake printed value");
            let size = size_of::<pg_sys::FmgrInfo>();
            let output = pg_sys::MemoryContextAllocZero(context.0, size).cast();
            let input = pg_sys::MemoryContextAllocZero(context.0, size).cast();
            let mut function = pg_sys::InvalidOid;
            let mut is_varlena = false;
            pg_sys::getTypeOutputInfo(typid, &mut function, &mut is_varlena);
            pg_sys::fmgr_info_cxt(function, output, context.0);
            let mut typioparam = pg_sys::InvalidOid;
            pg_sys::getTypeInputInfo(typid, &mut function, &mut typioparam);
            pg_sys::fmgr_info_cxt(function, input, context.0);
            Printed {
                scratch,
                _context: context,
                output,
                input,
                typioparam,
                typmod,
                needs_pinned_settings: depends_on_settings(typid),
            }
        }
    }

    /// Whether [`PinnedSettings`] must be held around its functions.
    pub fn needs_pinned_settings(&self) -> bool {
        self.needs_pinned_settings
    }

    /// Calls `f` with the value's text.
    ///
    /// # Safety
    /// `datum` is a value of the type, not null.
    pub unsafe fn with_text<R>(&self, datum: pg_sys::Datum, f: impl FnOnce(&[u8]) -> R) -> R {
        let result = {
            let _entered = self.scratch.enter();
            // SAFETY: `output` is the type's; the text is not used after `f`.
            let text = unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(self.output, datum)) };
            f(text.to_bytes())
        };
        // SAFETY: nothing in it is used any more.
        unsafe { pg_sys::MemoryContextReset(self.scratch.0) };
        result
    }

    /// Reads a value, in the current memory context.
    ///
    /// # Safety
    /// On the main thread, in a transaction.
    pub unsafe fn datum(&self, text: &[u8]) -> pg_sys::Datum {
        // SAFETY: the copy is as long as the text and its terminator.
        unsafe {
            let copy = pg_sys::palloc(text.len() + 1).cast::<u8>();
            copy.copy_from_nonoverlapping(text.as_ptr(), text.len());
            copy.add(text.len()).write(0);
            let datum =
                pg_sys::InputFunctionCall(self.input, copy.cast(), self.typioparam, self.typmod);
            pg_sys::pfree(copy.cast());
            datum
        }
    }
}

/// Whether a type's text may depend on settings; `false` only where it is known not to.
///
/// # Safety
/// On the main thread, in a transaction.
unsafe fn depends_on_settings(typid: pg_sys::Oid) -> bool {
    let known = matches!(
        typid,
        pg_sys::NUMERICOID
            | pg_sys::JSONBOID
            | pg_sys::INETOID
            | pg_sys::CIDROID
            | pg_sys::MACADDROID
            | pg_sys::MACADDR8OID
            | pg_sys::BITOID
            | pg_sys::VARBITOID
            | pg_sys::INT4RANGEOID
            | pg_sys::INT8RANGEOID
            | pg_sys::NUMRANGEOID
    );
    // SAFETY: catalog lookup.
    !known && unsafe { pg_sys::get_typtype(typid) } as u8 != pg_sys::TYPTYPE_ENUM
}

/// A value as an error message shows it: at most 64 characters of its text.
///
/// # Safety
/// As of [`Printed::with_text`]; `typid` is not a domain.
#[cold]
pub(super) unsafe fn shown(typid: pg_sys::Oid, datum: pg_sys::Datum) -> String {
    // SAFETY: catalog lookup and the type's own function; the text is copied.
    let text = unsafe {
        let mut function = pg_sys::InvalidOid;
        let mut is_varlena = false;
        pg_sys::getTypeOutputInfo(typid, &mut function, &mut is_varlena);
        let raw = pg_sys::OidOutputFunctionCall(function, datum);
        let text = CStr::from_ptr(raw).to_string_lossy().into_owned();
        pg_sys::pfree(raw.cast());
        text
    };
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What `pg_dump` and postgres_fdw's `set_transmission_modes` pin, and what else a type's text
/// depends on.
const PINNED: [(&CStr, &CStr); 10] = [
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"xmloption", c"content"),
    (c"array_nulls", c"on"),
    (c"lc_monetary", c"C"),
    // names of regclass and the like inside arrays of several dimensions
    (c"search_path", c"pg_catalog"),
    (c"quote_all_identifiers", c"off"),
];

/// Holds the settings that the text of values depends on at fixed values, until it is dropped.
///
/// To be held only while a batch is converted, never while a plan, a trigger or a default
/// expression runs: the user's own functions would see these settings too.
#[must_use]
pub struct PinnedSettings {
    nest_level: c_int,
}

impl PinnedSettings {
    /// On the main thread, in a transaction. Guards must be dropped in the reverse order of their
    /// creation, as GUC nest levels are.
    pub fn new() -> PinnedSettings {
        // SAFETY: as postgres_fdw's set_transmission_modes(); if one of these raises an error, the
        // end of the (sub)transaction restores what was set.
        unsafe {
            let pinned = PinnedSettings {
                nest_level: pg_sys::NewGUCNestLevel(),
            };
            for (name, value) in PINNED {
                // Most have this value already, and asking is much cheaper than setting.
                let current = pg_sys::GetConfigOption(name.as_ptr(), true, false);
                if !current.is_null() && CStr::from_ptr(current) == value {
                    continue;
                }
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            pinned
        }
    }
}

impl Drop for PinnedSettings {
    fn drop(&mut self) {
        // After an error the end of the (sub)transaction does it, and a second error on the way
        // would end the process.
        if !std::thread::panicking() {
            // SAFETY: undoes exactly the level that `new` opened.
            unsafe { pg_sys::AtEOXact_GUC(true, self.nest_level) }
        }
    }
}
