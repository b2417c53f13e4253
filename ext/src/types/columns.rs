//! Whole columns of batches that are stored without becoming datums.
//!
//! A value that passes through Postgres is decoded, checked, and encoded again. Where that gives what went
//! in, a column may be stored as it came. Whoever can't be sure lets Postgres form the rows, which raises
//! the errors that there are.

use super::decode::{END_DATE, END_TIMESTAMP, MIN_DATE, MIN_TIMESTAMP};
use super::mapping::same_layout;
use super::{Codec, EPOCH_SHIFT_DAYS, EPOCH_SHIFT_USECS, Node, Repr, USECS_PER_DAY};
use pg_lake_plan::batch::ColumnReader;
use pg_lake_plan::types::LakeType;
use pgrx::pg_sys;

impl Codec {
    /// Whether the column stores what comes from the engine as values of `typid` laid out as `lake`.
    /// `read`: they come from a table as they are there.
    pub fn stores(&self, lake: &LakeType, typid: pg_sys::Oid, read: bool) -> bool {
        let fits = match (lake, &self.lake) {
            (
                LakeType::Decimal { precision, scale },
                LakeType::Decimal {
                    precision: wider,
                    scale: same,
                },
            ) => precision <= wider && scale == same,
            (have, own) => same_layout(have, own),
        };
        fits && self.is_like(typid) && self.node.keeps_layout(read)
    }

    /// Whether values of a type are values of the column's.
    pub fn is_like(&self, typid: pg_sys::Oid) -> bool {
        let is_text = |typid| matches!(typid, pg_sys::TEXTOID | pg_sys::VARCHAROID);
        typid == self.typid || (is_text(typid) && is_text(self.typid))
    }

    /// Whether all values of a column that it [`Codec::stores`] are ones that Postgres and the file can hold.
    pub fn holds(&self, column: &ColumnReader<'_>) -> bool {
        self.node.holds(column)
    }
}

impl Node {
    /// Whether values are stored as the engine gives them.
    fn keeps_layout(&self, read: bool) -> bool {
        match &self.repr {
            // Postgres may print otherwise what the engine has made. Labels of enums can be renamed, and
            // other types of users print what they like. A column that was cidr becomes inet without being
            // written again, but inet has no mask of 32 bits in its text.
            Repr::Printed(_) => {
                let is_users = self.typid.to_u32() >= pg_sys::FirstNormalObjectId;
                read && !is_users && self.typid != pg_sys::INETOID
            }
            Repr::List(list) => list.element.keeps_layout(read),
            Repr::Struct(row) => row.fields.iter().flatten().all(|f| f.keeps_layout(read)),
            _ => true,
        }
    }

    fn holds(&self, column: &ColumnReader<'_>) -> bool {
        let int4 = |row| i32::from_le_bytes(column.fixed(row));
        let int8 = |row| i64::from_le_bytes(column.fixed(row));
        match &self.repr {
            Repr::Bool
            | Repr::Int4
            | Repr::Int8
            | Repr::Float4
            | Repr::Float8
            | Repr::Uuid
            | Repr::Varlena
            | Repr::Printed(_) => true,
            Repr::Int2 => each(column, |row| i16::try_from(int4(row)).is_ok()),
            Repr::Oid => each(column, |row| u32::try_from(int8(row)).is_ok()),
            Repr::Date => each(column, |row| {
                let days = int4(row).checked_sub(EPOCH_SHIFT_DAYS);
                days.is_some_and(|days| (MIN_DATE..END_DATE).contains(&days))
            }),
            Repr::Time => each(column, |row| (0..USECS_PER_DAY).contains(&int8(row))),
            Repr::Timestamp => each(column, |row| {
                let usecs = int8(row).checked_sub(EPOCH_SHIFT_USECS);
                usecs.is_some_and(|usecs| (MIN_TIMESTAMP..END_TIMESTAMP).contains(&usecs))
            }),
            Repr::Decimal { precision, .. } => {
                let Some(end) = 10u128.checked_pow(u32::from(*precision)) else {
                    return false;
                };
                each(column, |row| {
                    i128::from_le_bytes(column.fixed(row)).unsigned_abs() < end
                })
            }
            Repr::Image(len) => each(column, |row| column.bytes(row).len() == *len),
            Repr::Name => each(column, |row| {
                let bytes = column.bytes(row);
                bytes.len() < pg_sys::NAMEDATALEN as usize && !bytes.contains(&0)
            }),
            Repr::List(list) => {
                (column.children.first()).is_some_and(|elements| list.element.holds(elements))
            }
            Repr::Struct(row) => {
                let fields: Vec<&Node> = row.fields.iter().flatten().collect();
                fields.len() == column.children.len()
                    && (fields.iter().zip(&column.children)).all(|(f, column)| f.holds(column))
            }
        }
    }
}

/// Whether a test holds for all rows that aren't null.
fn each(column: &ColumnReader<'_>, test: impl Fn(usize) -> bool) -> bool {
    (0..column.rows).all(|row| column.is_null(row) || test(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::List;
    use pg_lake_plan::batch::{BatchBuilder, BatchError, BatchReader, ColumnBuilder};

    fn node(repr: Repr) -> Node {
        Node {
            path: "c".to_owned(),
            typid: pg_sys::InvalidOid,
            repr,
        }
    }

    /// Of a column with a null and the value that `push` appends.
    fn holds(repr: Repr, lake: LakeType, push: impl FnOnce(&mut ColumnBuilder)) -> bool {
        let mut builder = BatchBuilder::new([&lake]);
        builder.columns[0].push_null();
        builder.end_row();
        push(&mut builder.columns[0]);
        builder.end_row();
        let mut bytes = vec![];
        builder.finish(&mut bytes).unwrap();
        let reader = BatchReader::parse(&bytes, [&lake]).unwrap();
        node(repr).holds(&reader.columns[0])
    }

    #[test]
    fn numbers() {
        let int2 = |value: i32| {
            holds(Repr::Int2, LakeType::Int2, |c| {
                c.push_fixed(value.to_le_bytes())
            })
        };
        assert!(int2(-32768) && int2(32767));
        assert!(!int2(-32769) && !int2(32768));
        let oid = |value: i64| {
            holds(Repr::Oid, LakeType::Int8, |c| {
                c.push_fixed(value.to_le_bytes())
            })
        };
        assert!(oid(0) && oid(u32::MAX.into()));
        assert!(!oid(-1) && !oid(i64::from(u32::MAX) + 1));
        let decimal = |value: i128| {
            let (precision, scale) = (4, 2);
            let lake = LakeType::Decimal {
                precision,
                scale: scale as i8,
            };
            holds(Repr::Decimal { precision, scale }, lake, |c| {
                c.push_fixed(value.to_le_bytes())
            })
        };
        assert!(decimal(9999) && decimal(-9999));
        assert!(!decimal(10_000) && !decimal(-10_000) && !decimal(i128::MIN));
    }

    #[test]
    fn dates_and_times() {
        let date = |value: i32| {
            holds(Repr::Date, LakeType::Date, |c| {
                c.push_fixed(value.to_le_bytes())
            })
        };
        assert!(date(MIN_DATE + EPOCH_SHIFT_DAYS) && date(END_DATE - 1 + EPOCH_SHIFT_DAYS));
        assert!(!date(MIN_DATE - 1 + EPOCH_SHIFT_DAYS) && !date(END_DATE + EPOCH_SHIFT_DAYS));
        assert!(!date(i32::MIN) && !date(i32::MAX));
        let timestamp = |value: i64| {
            holds(Repr::Timestamp, LakeType::Timestamp, |c| {
                c.push_fixed(value.to_le_bytes())
            })
        };
        assert!(timestamp(MIN_TIMESTAMP + EPOCH_SHIFT_USECS) && timestamp(i64::MAX));
        assert!(!timestamp(MIN_TIMESTAMP - 1 + EPOCH_SHIFT_USECS) && !timestamp(i64::MIN));
        let time = |value: i64| {
            holds(Repr::Time, LakeType::Time, |c| {
                c.push_fixed(value.to_le_bytes())
            })
        };
        assert!(time(0) && time(USECS_PER_DAY - 1));
        assert!(!time(-1) && !time(USECS_PER_DAY));
    }

    #[test]
    fn bytes_and_what_is_in_lists() {
        let name = |value: &[u8]| {
            holds(Repr::Name, LakeType::Text, |c| {
                c.push_bytes(value).unwrap();
            })
        };
        assert!(name(b"") && name(&[b'n'; 63]));
        assert!(!name(&[b'n'; 64]) && !name(b"a\0b"));
        let image = |value: &[u8]| {
            holds(Repr::Image(2), LakeType::Bytes, |c| {
                c.push_bytes(value).unwrap();
            })
        };
        assert!(image(b"ab") && !image(b"a") && !image(b"abc"));
        let list = |value: i32| {
            let list = List {
                element: node(Repr::Int2),
                typid: pg_sys::INT2OID,
                typlen: 2,
                typbyval: true,
                typalign: b's' as std::ffi::c_char,
            };
            let lake = LakeType::List {
                element_id: 1,
                element: Box::new(LakeType::Int2),
            };
            holds(Repr::List(Box::new(list)), lake, |c| {
                c.push_list::<BatchError>(|element| {
                    element.push_fixed(1i32.to_le_bytes());
                    element.push_fixed(value.to_le_bytes());
                    Ok(())
                })
                .unwrap();
            })
        };
        assert!(list(2) && !list(40_000));
    }
}
