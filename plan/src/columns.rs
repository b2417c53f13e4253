//! Batches that are put together from columns of others, without a look at their values.

use crate::batch::{BatchError, ColumnReader, write_buffers};

impl<'a> ColumnReader<'a> {
    /// Whether a value is null.
    pub fn has_nulls(&self) -> bool {
        (0..self.rows).any(|row| self.is_null(row))
    }

    /// In the order of [`crate::batch`].
    fn collect(&self, buffers: &mut Vec<&'a [u8]>) {
        let (validity, offsets, values) = self.buffers();
        buffers.push(validity);
        // There is one offset more than rows.
        if !offsets.is_empty() {
            buffers.push(offsets);
        }
        if self.children.is_empty() {
            buffers.push(values);
        }
        for child in &self.children {
            child.collect(buffers);
        }
    }
}

/// Replaces `out` by a message with these columns, each of which has `rows` rows.
pub fn write_columns(
    rows: usize,
    columns: &[&ColumnReader<'_>],
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let mut buffers = vec![];
    for column in columns {
        debug_assert_eq!(column.rows, rows);
        column.collect(&mut buffers);
    }
    write_buffers(rows, &buffers, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BatchReader};
    use crate::types::{LakeType, StructField};

    fn types() -> Vec<LakeType> {
        let field = |id: i32, ty| StructField {
            id,
            name: format!("f{id}"),
            ty,
        };
        vec![
            LakeType::Int4,
            LakeType::Text,
            LakeType::List {
                element_id: 9,
                element: Box::new(LakeType::Text),
            },
            LakeType::Struct(vec![field(1, LakeType::Int8), field(2, LakeType::Bytes)]),
        ]
    }

    /// Three rows; the second one is null in every column.
    fn batch() -> Vec<u8> {
        let types = types();
        let mut builder = BatchBuilder::new(&types);
        for row in 0..3i32 {
            let [number, text, list, fields] = builder.columns.as_mut_slice() else {
                unreachable!()
            };
            if row == 1 {
                for column in &mut builder.columns {
                    column.push_null();
                }
                builder.end_row();
                continue;
            }
            number.push_fixed(row.to_le_bytes());
            text.push_bytes(format!("row {row}").as_bytes()).unwrap();
            list.push_list::<BatchError>(|element| {
                (0..row).try_for_each(|i| element.push_bytes(&[i as u8; 3]))
            })
            .unwrap();
            fields
                .push_struct::<BatchError>(|columns| {
                    columns[0].push_fixed(i64::from(row).to_le_bytes());
                    columns[1].push_bytes(&[row as u8])
                })
                .unwrap();
            builder.end_row();
        }
        let mut out = vec![];
        builder.finish(&mut out).unwrap();
        out
    }

    #[test]
    fn columns_change_places() {
        let (bytes, types) = (batch(), types());
        let reader = BatchReader::parse(&bytes, &types).unwrap();
        let order = [3, 1, 0, 2, 1];
        let columns: Vec<_> = order.iter().map(|at| &reader.columns[*at]).collect();
        let mut out = vec![];
        write_columns(reader.rows, &columns, &mut out).unwrap();
        let moved = order.map(|at| types[at].clone());
        let moved = BatchReader::parse(&out, &moved).unwrap();
        assert_eq!(moved.rows, 3);
        for (column, at) in moved.columns.iter().zip(order) {
            let before = &reader.columns[at];
            assert!(column.has_nulls() && column.is_null(1));
            assert_eq!(column.buffers(), before.buffers());
        }
        assert_eq!(moved.columns[1].bytes(2), b"row 2");
        assert_eq!(moved.columns[3].range(2), (0, 2));
        assert_eq!(moved.columns[3].children[0].bytes(1), [1; 3]);
        assert_eq!(
            moved.columns[0].children[0].fixed::<8>(2),
            2i64.to_le_bytes()
        );
    }

    #[test]
    fn all_in_their_places_are_the_same_message() {
        let (bytes, types) = (batch(), types());
        let reader = BatchReader::parse(&bytes, &types).unwrap();
        let columns: Vec<_> = reader.columns.iter().collect();
        let mut out = vec![];
        write_columns(reader.rows, &columns, &mut out).unwrap();
        assert_eq!(out, bytes);
    }
}
