//! The rows of a strict function's arguments, and arrays made from them.

use crate::engine::error::{internal, not_exact, wire};
use crate::engine::expr::Val;
use crate::engine::values::{Native, native};
use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use arrow::buffer::NullBuffer;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use pg_lake_plan::message::WireError;
use std::fmt::Write;
use std::sync::Arc;

const OTHER_TYPE: &str = "a function's argument has another type";
const TOO_LONG: &str = "the texts of a batch are too long for the engine";

/// Bytes by which the texts of one batch may be longer than the arguments.
const ROOM: usize = 256 << 20;

/// Bytes of the longest text that Postgres has: `MaxAllocSize` without a header.
const TEXT_BYTES: usize = 0x3fff_ffff - 4;

/// Texts are accounted for in steps of so many bytes; the first one is free.
const STEP: usize = 1 << 20;

/// As many as the frame has, or one if all arguments are constant.
pub(in crate::engine) struct Rows {
    pub(in crate::engine) count: usize,
    scalar: bool,
    nulls: Option<NullBuffer>,
    memory: Option<Arc<dyn MemoryPool>>,
}

impl Rows {
    /// `None` if the result is null for every row.
    pub(in crate::engine) fn of(args: &[Val]) -> Option<Rows> {
        if args.iter().any(Val::is_null_scalar) {
            return None;
        }
        let arrays = || args.iter().filter(|arg| !arg.is_scalar()).map(Val::array);
        let first = arrays().next();
        Some(Rows {
            count: first.map_or(1, |array| array.len()),
            scalar: first.is_none(),
            nulls: NullBuffer::union_many(arrays().map(|array| array.nulls())),
            memory: None,
        })
    }

    pub(super) fn within(self, memory: Option<&Arc<dyn MemoryPool>>) -> Rows {
        Rows {
            memory: memory.cloned(),
            ..self
        }
    }

    pub(in crate::engine) fn nulls(&self) -> Option<NullBuffer> {
        self.nulls.clone()
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// The array with a value for each row.
    pub(in crate::engine) fn wrap(&self, array: ArrayRef) -> Val {
        if self.scalar {
            Val::Scalar(array)
        } else {
            Val::Array(array)
        }
    }

    /// `f` of each row, also of those that are null.
    pub(in crate::engine) fn map<T>(&self, f: impl FnMut(usize) -> T) -> Vec<T> {
        (0..self.count).map(f).collect()
    }

    /// `f` of each row that isn't null; the first failure as an error.
    pub(super) fn try_map<T: Default, E>(
        &self,
        mut f: impl FnMut(usize) -> Result<T, E>,
        error: impl FnOnce(E) -> WireError,
    ) -> Result<Vec<T>, WireError> {
        let mut values = Vec::with_capacity(self.count);
        for row in 0..self.count {
            if self.is_null(row) {
                values.push(T::default());
                continue;
            }
            match f(row) {
                Ok(value) => values.push(value),
                Err(failure) => return Err(error(failure)),
            }
        }
        Ok(values)
    }

    /// A text for each row that isn't null, of which `f` appends the parts. `inputs` are the texts that they are
    /// made from.
    pub(super) fn texts(
        &self,
        inputs: &[&Texts<'_>],
        mut f: impl FnMut(usize, &mut Output<'_>) -> Result<(), WireError>,
    ) -> Result<ArrayRef, WireError> {
        self.some_texts(inputs, |row, out| f(row, out).map(|()| true))
    }

    /// The same, and null where `f` says that there is none; it has appended nothing then.
    pub(super) fn some_texts(
        &self,
        inputs: &[&Texts<'_>],
        mut f: impl FnMut(usize, &mut Output<'_>) -> Result<bool, WireError>,
    ) -> Result<ArrayRef, WireError> {
        let bytes: usize = inputs.iter().map(|texts| texts.bytes()).sum();
        let mut output = Output {
            written: 0,
            begun: 0,
            free: STEP,
            memory: self.memory.as_ref(),
            reserved: None,
            builder: StringBuilder::with_capacity(self.count, bytes.min(ROOM)),
            // The offsets in an array of texts have 32 bits.
            room: bytes.saturating_add(ROOM).min(i32::MAX as usize),
        };
        for row in 0..self.count {
            output.begun = output.written;
            if !self.is_null(row) && f(row, &mut output)? {
                output.builder.append_value("");
            } else {
                output.builder.append_null();
            }
        }
        Ok(Arc::new(output.builder.finish()))
    }
}

/// The text of one row after the other.
pub(super) struct Output<'a> {
    builder: StringBuilder,
    room: usize,
    written: usize,
    /// What had been written when the row began.
    begun: usize,
    /// So many bytes may be written before more memory is asked for.
    free: usize,
    memory: Option<&'a Arc<dyn MemoryPool>>,
    /// Nothing while the texts are short.
    reserved: Option<MemoryReservation>,
}

impl Output<'_> {
    /// Adds to the row's text.
    pub(super) fn append(&mut self, part: &str) -> Result<(), WireError> {
        self.expect(part.len())?;
        self.room -= part.len();
        self.written += part.len();
        // A builder takes everything.
        let _ = self.builder.write_str(part);
        Ok(())
    }

    /// Makes sure that there is room, and memory, for so many bytes.
    pub(super) fn expect(&mut self, bytes: usize) -> Result<(), WireError> {
        let wanted = self.written.saturating_add(bytes);
        if bytes > self.room || wanted - self.begun > TEXT_BYTES {
            return Err(not_exact(TOO_LONG));
        }
        if wanted > self.free {
            let more = (wanted - self.free).max(STEP);
            if let Some(pool) = self.memory {
                let register = || MemoryConsumer::new("LakeText").register(pool);
                // The builder copies what it has when it grows.
                self.reserved
                    .get_or_insert_with(register)
                    .try_grow(more.saturating_mul(2))
                    .map_err(|e| wire(&e))?;
            }
            self.free += more;
        }
        Ok(())
    }
}

/// An argument: a value for each row, or one for all.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Column<'a, T> {
    values: &'a [T],
    /// 0 for one value.
    step: usize,
}

impl<T: Copy + Default> Column<'_, T> {
    #[inline]
    pub(in crate::engine) fn at(&self, row: usize) -> T {
        self.values
            .get(row * self.step)
            .copied()
            .unwrap_or_default()
    }
}

fn step(arg: &Val) -> usize {
    usize::from(!arg.is_scalar())
}

macro_rules! columns {
    ($($name:ident: $native:ident($ty:ty)),* $(,)?) => {
        $(pub(in crate::engine) fn $name(arg: &Val) -> Result<Column<'_, $ty>, WireError> {
            match native(arg.array()) {
                Some(Native::$native(values)) => Ok(Column { values, step: step(arg) }),
                _ => Err(internal(OTHER_TYPE)),
            }
        })*
    };
}

columns!(
    i32s: I32(i32),
    i64s: I64(i64),
    i128s: I128(i128),
    f64s: F64(f64),
);

/// An argument of texts.
pub(super) struct Texts<'a> {
    array: &'a StringArray,
    step: usize,
}

impl<'a> Texts<'a> {
    pub(super) fn of(arg: &'a Val) -> Result<Texts<'a>, WireError> {
        let array = arg.array().as_any().downcast_ref();
        Ok(Texts {
            array: array.ok_or_else(|| internal(OTHER_TYPE))?,
            step: step(arg),
        })
    }

    #[inline]
    pub(super) fn at(&self, row: usize) -> &'a str {
        self.array.value(row * self.step)
    }

    fn bytes(&self) -> usize {
        let offsets = self.array.value_offsets();
        let at = |offset: Option<&i32>| offset.map_or(0, |at| usize::try_from(*at).unwrap_or(0));
        at(offsets.last()) - at(offsets.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::message::ErrorCode;

    #[test]
    fn a_text_is_no_longer_than_postgres_has_them() {
        let mut output = Output {
            builder: StringBuilder::new(),
            room: i32::MAX as usize,
            written: 0,
            begun: 0,
            free: usize::MAX,
            memory: None,
            reserved: None,
        };
        output.append("before").expect("room");
        output.begun = output.written;
        output.append("four").expect("room");
        assert!(output.expect(TEXT_BYTES - 4).is_ok());
        let refused = output.expect(TEXT_BYTES - 3).expect_err("too long");
        assert_eq!(refused.code, ErrorCode::NotExact);
    }
}
