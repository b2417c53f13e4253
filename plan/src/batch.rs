//! Rows as columns in one message.
//!
//! ```text
//! 0        4         8
//! ├─ rows ─┼ buffers ┼─ buffers × { offset u32, length u32 } ─┼─ buffers, each 8-byte aligned ─┤
//! ```
//!
//! Offsets count from the start of the message, all numbers are little-endian. Buffers come depth
//! first over the columns' types. Every column has a validity bitmap (bit set: value present, least
//! significant bit first; length 0: no nulls), then
//!
//! * fixed-width types: one buffer of values; `Bool` takes a byte a value, `Decimal` 16
//! * `Text`, `Bytes`: `rows + 1` offsets of 4 bytes, then the bytes
//! * `List`: `rows + 1` offsets of 4 bytes, then the element column with `offsets[rows]` rows
//! * `Struct`: the fields' columns, of the same number of rows
//!
//! The reader checks every length and offset before it hands out a slice: the peer is not trusted.

use crate::types::LakeType;
use std::fmt;

/// A batch longer than this is refused by both sides.
pub const MAX_BATCH_BYTES: usize = u32::MAX as usize;

/// Why a batch could not be read or built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchError(&'static str);

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed batch: {}", self.0)
    }
}

impl std::error::Error for BatchError {}

/// Builds one column, value by value.
#[derive(Debug)]
pub struct ColumnBuilder {
    ty: LakeType,
    rows: usize,
    nulls: usize,
    validity: Vec<u8>,
    values: Vec<u8>,
    offsets: Vec<u32>,
    children: Vec<ColumnBuilder>,
}

impl ColumnBuilder {
    pub fn new(ty: &LakeType) -> Self {
        let children = match ty {
            LakeType::List { element, .. } => vec![ColumnBuilder::new(element)],
            LakeType::Struct(fields) => fields.iter().map(|f| ColumnBuilder::new(&f.ty)).collect(),
            _ => vec![],
        };
        let mut this = ColumnBuilder {
            ty: ty.clone(),
            rows: 0,
            nulls: 0,
            validity: vec![],
            values: vec![],
            offsets: vec![],
            children,
        };
        if this.has_offsets() {
            this.offsets.push(0);
        }
        this
    }

    pub fn ty(&self) -> &LakeType {
        &self.ty
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    fn has_offsets(&self) -> bool {
        matches!(
            self.ty,
            LakeType::Text | LakeType::Bytes | LakeType::List { .. }
        )
    }

    #[inline]
    fn next_row(&mut self, valid: bool) {
        let bit = self.rows & 7;
        if bit == 0 {
            self.validity.push(0);
        }
        if valid {
            if let Some(last) = self.validity.last_mut() {
                *last |= 1 << bit;
            }
        } else {
            self.nulls += 1;
        }
        self.rows += 1;
    }

    /// Appends a null.
    pub fn push_null(&mut self) {
        if let Some(width) = self.ty.fixed_width() {
            self.values.resize(self.values.len() + width, 0);
        } else if self.has_offsets() {
            let last = self.offsets.last().copied().unwrap_or(0);
            self.offsets.push(last);
        } else {
            self.children.iter_mut().for_each(ColumnBuilder::push_null);
        }
        self.next_row(false);
    }

    /// Appends a value of a fixed-width type: its little-endian bytes, of exactly that width.
    #[inline]
    pub fn push_fixed<const N: usize>(&mut self, value: [u8; N]) {
        debug_assert_eq!(self.ty.fixed_width(), Some(N));
        self.values.extend_from_slice(&value);
        self.next_row(true);
    }

    /// Appends a value of `Text` or `Bytes`.
    #[inline]
    pub fn push_bytes(&mut self, value: &[u8]) -> Result<(), BatchError> {
        self.values.extend_from_slice(value);
        let end = u32::try_from(self.values.len())
            .map_err(|_| BatchError("more than 4 GiB in one column"))?;
        self.offsets.push(end);
        self.next_row(true);
        Ok(())
    }

    /// Appends a list whose elements `fill` pushes to the element column.
    pub fn push_list<E: From<BatchError>>(
        &mut self,
        fill: impl FnOnce(&mut ColumnBuilder) -> Result<(), E>,
    ) -> Result<(), E> {
        let element = self
            .children
            .first_mut()
            .ok_or(BatchError("not a list column"))?;
        fill(element)?;
        let end = u32::try_from(element.rows)
            .map_err(|_| BatchError("more than 2^32 elements in one column"))?;
        self.offsets.push(end);
        self.next_row(true);
        Ok(())
    }

    /// Appends a struct: `fill` pushes exactly one value to each field's column.
    pub fn push_struct<E: From<BatchError>>(
        &mut self,
        fill: impl FnOnce(&mut [ColumnBuilder]) -> Result<(), E>,
    ) -> Result<(), E> {
        fill(&mut self.children)?;
        self.next_row(true);
        if self.children.iter().any(|c| c.rows != self.rows) {
            return Err(BatchError("a struct's field was not given one value").into());
        }
        Ok(())
    }

    /// Bytes that this column takes so far.
    pub fn bytes(&self) -> usize {
        self.validity.len()
            + self.values.len()
            + self.offsets.len() * 4
            + self
                .children
                .iter()
                .map(ColumnBuilder::bytes)
                .sum::<usize>()
    }

    fn clear(&mut self) {
        self.rows = 0;
        self.nulls = 0;
        self.validity.clear();
        self.values.clear();
        self.offsets.clear();
        if self.has_offsets() {
            self.offsets.push(0);
        }
        self.children.iter_mut().for_each(ColumnBuilder::clear);
    }

    fn visit<'a>(&'a self, f: &mut dyn FnMut(Buffer<'a>)) {
        f(if self.nulls == 0 {
            Buffer::Bytes(&[])
        } else {
            Buffer::Bytes(&self.validity)
        });
        if self.has_offsets() {
            f(Buffer::Offsets(&self.offsets));
        }
        if !matches!(self.ty, LakeType::List { .. } | LakeType::Struct(_)) {
            f(Buffer::Bytes(&self.values));
        }
        for child in &self.children {
            child.visit(f);
        }
    }
}

enum Buffer<'a> {
    Bytes(&'a [u8]),
    Offsets(&'a [u32]),
}

impl Buffer<'_> {
    fn len(&self) -> usize {
        match self {
            Buffer::Bytes(b) => b.len(),
            Buffer::Offsets(o) => o.len() * 4,
        }
    }
}

/// Builds batches of one list of columns; buffers are reused from batch to batch.
#[derive(Debug)]
pub struct BatchBuilder {
    pub columns: Vec<ColumnBuilder>,
    rows: usize,
}

impl BatchBuilder {
    pub fn new<'a>(types: impl IntoIterator<Item = &'a LakeType>) -> Self {
        BatchBuilder {
            columns: types.into_iter().map(ColumnBuilder::new).collect(),
            rows: 0,
        }
    }

    /// Says that every column has been given one more value.
    #[inline]
    pub fn end_row(&mut self) {
        self.rows += 1;
        debug_assert!(self.columns.iter().all(|c| c.rows == self.rows));
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Length of the message that [`BatchBuilder::finish`] would make, apart from padding.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(ColumnBuilder::bytes).sum()
    }

    /// Replaces `out` by the message and starts the next batch.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BatchError> {
        out.clear();
        let mut count = 0;
        let mut total = 0;
        for column in &self.columns {
            column.visit(&mut |b| {
                count += 1;
                total += b.len().next_multiple_of(8);
            });
        }
        let head = 8 + count * 8;
        if head + total > MAX_BATCH_BYTES {
            return Err(BatchError("more than 4 GiB in one batch"));
        }
        out.reserve(head + total);
        out.extend_from_slice(&(self.rows as u32).to_le_bytes());
        out.extend_from_slice(&(count as u32).to_le_bytes());
        let mut at = head;
        for column in &self.columns {
            column.visit(&mut |b| {
                out.extend_from_slice(&(at as u32).to_le_bytes());
                out.extend_from_slice(&(b.len() as u32).to_le_bytes());
                at += b.len().next_multiple_of(8);
            });
        }
        for column in &self.columns {
            column.visit(&mut |b| {
                match b {
                    Buffer::Bytes(bytes) => out.extend_from_slice(bytes),
                    Buffer::Offsets(offsets) => offsets
                        .iter()
                        .for_each(|o| out.extend_from_slice(&o.to_le_bytes())),
                }
                out.resize(out.len().next_multiple_of(8), 0);
            });
        }
        self.rows = 0;
        self.columns.iter_mut().for_each(ColumnBuilder::clear);
        Ok(())
    }
}

/// Writes a batch whose buffers exist already (Arrow's): give them in the order of the module's text.
pub fn write_buffers(rows: usize, buffers: &[&[u8]], out: &mut Vec<u8>) -> Result<(), BatchError> {
    out.clear();
    let head = 8 + buffers.len() * 8;
    let total: usize = buffers.iter().map(|b| b.len().next_multiple_of(8)).sum();
    if head + total > MAX_BATCH_BYTES {
        return Err(BatchError("more than 4 GiB in one batch"));
    }
    out.reserve(head + total);
    out.extend_from_slice(&(rows as u32).to_le_bytes());
    out.extend_from_slice(&(buffers.len() as u32).to_le_bytes());
    let mut at = head;
    for b in buffers {
        out.extend_from_slice(&(at as u32).to_le_bytes());
        out.extend_from_slice(&(b.len() as u32).to_le_bytes());
        at += b.len().next_multiple_of(8);
    }
    for b in buffers {
        out.extend_from_slice(b);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    Ok(())
}

/// One column of a batch that was received; all its buffers have been checked.
#[derive(Clone, Debug)]
pub struct ColumnReader<'a> {
    pub rows: usize,
    validity: &'a [u8],
    values: &'a [u8],
    offsets: &'a [u8],
    width: usize,
    pub children: Vec<ColumnReader<'a>>,
}

impl<'a> ColumnReader<'a> {
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        !self.validity.is_empty() && self.validity[row >> 3] & (1 << (row & 7)) == 0
    }

    /// The value's little-endian bytes; `N` is the type's width.
    #[inline]
    pub fn fixed<const N: usize>(&self, row: usize) -> [u8; N] {
        let mut value = [0; N];
        if self.width == N {
            value.copy_from_slice(&self.values[row * N..row * N + N]);
        }
        value
    }

    /// Bytes of a `Text` or `Bytes` value.
    #[inline]
    pub fn bytes(&self, row: usize) -> &'a [u8] {
        let (start, end) = self.range(row);
        self.values.get(start..end).unwrap_or(&[])
    }

    /// First element and end of a list's value in its element column.
    #[inline]
    pub fn range(&self, row: usize) -> (usize, usize) {
        (self.offset(row), self.offset(row + 1))
    }

    #[inline]
    fn offset(&self, i: usize) -> usize {
        let mut raw = [0; 4];
        raw.copy_from_slice(&self.offsets[i * 4..i * 4 + 4]);
        u32::from_le_bytes(raw) as usize
    }

    /// Raw buffers, for conversion to Arrow: (validity bitmap or empty, offsets or empty, values).
    pub fn buffers(&self) -> (&'a [u8], &'a [u8], &'a [u8]) {
        (self.validity, self.offsets, self.values)
    }
}

/// A batch that was received.
#[derive(Clone, Debug)]
pub struct BatchReader<'a> {
    pub rows: usize,
    pub columns: Vec<ColumnReader<'a>>,
}

impl<'a> BatchReader<'a> {
    /// Checks the whole message against the types that the receiver expects.
    pub fn parse<'t>(
        bytes: &'a [u8],
        types: impl IntoIterator<Item = &'t LakeType>,
    ) -> Result<Self, BatchError> {
        let mut cursor = Cursor {
            bytes,
            next: 0,
            count: word(bytes, 4)?,
        };
        let rows = word(bytes, 0)?;
        let columns = types
            .into_iter()
            .map(|ty| cursor.column(ty, rows))
            .collect::<Result<Vec<_>, _>>()?;
        if cursor.next != cursor.count {
            return Err(BatchError("number of buffers"));
        }
        Ok(BatchReader { rows, columns })
    }
}

fn word(bytes: &[u8], at: usize) -> Result<usize, BatchError> {
    let raw = bytes
        .get(at..at + 4)
        .ok_or(BatchError("shorter than its header"))?;
    let mut le = [0; 4];
    le.copy_from_slice(raw);
    Ok(u32::from_le_bytes(le) as usize)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    next: usize,
    count: usize,
}

impl<'a> Cursor<'a> {
    fn buffer(&mut self) -> Result<&'a [u8], BatchError> {
        if self.next >= self.count {
            return Err(BatchError("number of buffers"));
        }
        let at = 8 + self.next * 8;
        let (start, len) = (word(self.bytes, at)?, word(self.bytes, at + 4)?);
        self.next += 1;
        start
            .checked_add(len)
            .and_then(|end| self.bytes.get(start..end))
            .ok_or(BatchError("buffer outside the message"))
    }

    fn column(&mut self, ty: &LakeType, rows: usize) -> Result<ColumnReader<'a>, BatchError> {
        let validity = self.buffer()?;
        if !validity.is_empty() && validity.len() < rows.div_ceil(8) {
            return Err(BatchError("validity bitmap too short"));
        }
        let mut column = ColumnReader {
            rows,
            validity,
            values: &[],
            offsets: &[],
            width: ty.fixed_width().unwrap_or(0),
            children: vec![],
        };
        if column.width > 0 {
            column.values = self.buffer()?;
            if column.values.len() < rows * column.width {
                return Err(BatchError("values too short"));
            }
            return Ok(column);
        }
        match ty {
            LakeType::Text | LakeType::Bytes => {
                let end = self.offsets(&mut column)?;
                column.values = self.buffer()?;
                if end > column.values.len() {
                    return Err(BatchError("offset outside the values"));
                }
            }
            LakeType::List { element, .. } => {
                let end = self.offsets(&mut column)?;
                column.children.push(self.column(element, end)?);
            }
            LakeType::Struct(fields) => {
                for field in fields {
                    column.children.push(self.column(&field.ty, rows)?);
                }
            }
            _ => return Err(BatchError("type without a layout")),
        }
        Ok(column)
    }

    /// Reads and checks the offsets, returns the last.
    fn offsets(&mut self, column: &mut ColumnReader<'a>) -> Result<usize, BatchError> {
        column.offsets = self.buffer()?;
        if column.offsets.len() < (column.rows + 1) * 4 {
            return Err(BatchError("offsets too short"));
        }
        let mut last = 0;
        for i in 0..=column.rows {
            let offset = column.offset(i);
            if offset < last || (i == 0 && offset != 0) {
                return Err(BatchError("offsets not ascending"));
            }
            last = offset;
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn types() -> Vec<LakeType> {
        vec![
            LakeType::Int4,
            LakeType::Text,
            LakeType::List {
                element_id: 9,
                element: Box::new(LakeType::Int8),
            },
        ]
    }

    type Row = (Option<i32>, Option<String>, Option<Vec<i64>>);

    fn build(rows: &[Row]) -> Vec<u8> {
        let types = types();
        let mut builder = BatchBuilder::new(&types);
        for (a, b, c) in rows {
            match a {
                Some(v) => builder.columns[0].push_fixed(v.to_le_bytes()),
                None => builder.columns[0].push_null(),
            }
            match b {
                Some(v) => builder.columns[1].push_bytes(v.as_bytes()).unwrap(),
                None => builder.columns[1].push_null(),
            }
            match c {
                Some(list) => builder.columns[2]
                    .push_list::<BatchError>(|e| {
                        list.iter().for_each(|v| e.push_fixed(v.to_le_bytes()));
                        Ok(())
                    })
                    .unwrap(),
                None => builder.columns[2].push_null(),
            }
            builder.end_row();
        }
        let mut out = vec![];
        builder.finish(&mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            rows in prop::collection::vec((any::<Option<i32>>(), any::<Option<String>>(), any::<Option<Vec<i64>>>()), 0..50)
        ) {
            let bytes = build(&rows);
            let types = types();
            let reader = BatchReader::parse(&bytes, &types).unwrap();
            prop_assert_eq!(reader.rows, rows.len());
            for (i, (a, b, c)) in rows.iter().enumerate() {
                let [ints, texts, lists] = &reader.columns[..] else { unreachable!() };
                prop_assert_eq!((!ints.is_null(i)).then(|| i32::from_le_bytes(ints.fixed(i))), *a);
                prop_assert_eq!((!texts.is_null(i)).then(|| texts.bytes(i)), b.as_ref().map(String::as_bytes));
                let list = (!lists.is_null(i)).then(|| {
                    let (start, end) = lists.range(i);
                    (start..end).map(|k| i64::from_le_bytes(lists.children[0].fixed(k))).collect::<Vec<_>>()
                });
                prop_assert_eq!(&list, c);
            }
        }

        #[test]
        fn damage_is_an_error_or_harmless(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
        ) {
            let rows: Vec<_> = (0..20).map(|i| (Some(i), Some(format!("row {i}")), Some(vec![i as i64; i as usize]))).collect();
            let mut bytes = build(&rows);
            let i = at.index(bytes.len());
            bytes[i] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            let types = types();
            if let Ok(reader) = BatchReader::parse(&bytes, &types) {
                for i in 0..reader.rows {
                    let _ = reader.columns[0].fixed::<4>(i);
                    let _ = reader.columns[1].bytes(i);
                    let (start, end) = reader.columns[2].range(i);
                    for k in start..end {
                        let _ = reader.columns[2].children[0].fixed::<8>(k);
                    }
                }
            }
        }
    }
}
