//! Functions of texts (`varlena.c`, `oracle_compat.c`). Positions and lengths count characters.

use super::argument;
use super::rows::{Rows, Texts, i32s};
use crate::engine::error::{not_exact, out_of_range};
use crate::engine::expr::Val;
use crate::engine::values::from_i32;
use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use pg_lake_plan::function::Side;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::sync::Arc;

/// Where character `n` (from 0) begins; the text's end if it is shorter.
fn offset(text: &str, n: usize) -> usize {
    match text.as_bytes().get(..n) {
        // Each character has at least one byte.
        None => text.len(),
        Some(start) if start.is_ascii() => n,
        Some(_) => text.char_indices().nth(n).map_or(text.len(), |(at, _)| at),
    }
}

fn prefix(text: &str, n: usize) -> &str {
    text.get(..offset(text, n)).unwrap_or_default()
}

fn suffix(text: &str, from: usize) -> &str {
    text.get(offset(text, from)..).unwrap_or_default()
}

fn length(text: &str) -> i64 {
    text.chars().count() as i64
}

fn size(n: i64) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// `text_substring`
fn slice(text: &str, from: i32, count: Option<i32>) -> &str {
    let start = suffix(text, size(i64::from(from) - 1));
    // An end that overflows lies behind every text's.
    match count.and_then(|count| from.checked_add(count)) {
        None => start,
        Some(end) => prefix(start, size(i64::from(end) - i64::from(from.max(1)))),
    }
}

pub(super) fn substring(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (text, from) = (Texts::of(argument(args, 0)?)?, i32s(argument(args, 1)?)?);
    let count = args.get(2).map(i32s).transpose()?;
    rows.texts(&[&text], |row, out| {
        let count = count.map(|count| count.at(row));
        if count.is_some_and(|count| count < 0) {
            let message = "negative substring length not allowed";
            return Err(WireError::new(ErrorCode::Substring, message));
        }
        out.append(slice(text.at(row), from.at(row), count))
    })
}

/// `text_overlay`
pub(super) fn overlay(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (text, new) = (
        Texts::of(argument(args, 0)?)?,
        Texts::of(argument(args, 1)?)?,
    );
    let from = i32s(argument(args, 2)?)?;
    let count = args.get(3).map(i32s).transpose()?;
    rows.texts(&[&text, &new], |row, out| {
        let (text, new, from) = (text.at(row), new.at(row), from.at(row));
        if from <= 0 {
            let message = "negative substring length not allowed";
            return Err(WireError::new(ErrorCode::Substring, message));
        }
        let replaced = count.map_or_else(|| length(new), |count| count.at(row).into());
        let end = i32::try_from(i64::from(from) + replaced)
            .map_err(|_| out_of_range("integer out of range"))?;
        out.append(slice(text, 1, Some(from - 1)))?;
        out.append(new)?;
        out.append(slice(text, end, None))
    })
}

pub(super) fn left(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (text, count) = (Texts::of(argument(args, 0)?)?, i32s(argument(args, 1)?)?);
    rows.texts(&[&text], |row, out| {
        let (text, count) = (text.at(row), i64::from(count.at(row)));
        let kept = if count < 0 {
            length(text) + count
        } else {
            count
        };
        out.append(prefix(text, size(kept)))
    })
}

pub(super) fn right(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (text, count) = (Texts::of(argument(args, 0)?)?, i32s(argument(args, 1)?)?);
    rows.texts(&[&text], |row, out| {
        let (text, count) = (text.at(row), count.at(row));
        let left_out = if count == i32::MIN {
            let what =
                "right() of all but 2147483648 characters differs between versions of Postgres";
            return Err(not_exact(what));
        } else if count < 0 {
            -i64::from(count)
        } else {
            length(text) - i64::from(count)
        };
        out.append(suffix(text, size(left_out)))
    })
}

pub(super) fn trim(rows: &Rows, side: Side, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let set = args.get(1).map(Texts::of).transpose()?;
    rows.texts(&[&text], |row, out| {
        let set = set.as_ref().map_or(" ", |set| set.at(row));
        let mut rest = text.at(row);
        if side != Side::End {
            rest = rest.trim_start_matches(|c: char| set.contains(c));
        }
        if side != Side::Start {
            rest = rest.trim_end_matches(|c: char| set.contains(c));
        }
        out.append(rest)
    })
}

/// Texts that `f` changes without making them longer.
pub(super) fn rewritten(
    rows: &Rows,
    args: &[Val],
    f: impl Fn(&mut String),
) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let mut changed = String::new();
    rows.texts(&[&text], |row, out| {
        changed.clear();
        changed.push_str(text.at(row));
        f(&mut changed);
        out.append(&changed)
    })
}

pub(super) fn reverse(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let mut reversed = String::new();
    rows.texts(&[&text], |row, out| {
        reversed.clear();
        reversed.extend(text.at(row).chars().rev());
        out.append(&reversed)
    })
}

fn numbers(rows: &Rows, f: impl Fn(usize) -> usize) -> ArrayRef {
    let values = rows.map(|row| i32::try_from(f(row)).unwrap_or(i32::MAX));
    from_i32(values, rows.nulls(), &DataType::Int32)
}

/// Some measure of a text.
pub(super) fn measured(
    rows: &Rows,
    args: &[Val],
    f: impl Fn(&str) -> usize,
) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    Ok(numbers(rows, |row| f(text.at(row))))
}

/// Where a part begins, from 1; 0 if it isn't there.
pub(super) fn position(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let part = Texts::of(argument(args, 1)?)?;
    Ok(numbers(rows, |row| {
        let text = text.at(row);
        let before = text.find(part.at(row)).and_then(|at| text.get(..at));
        before.map_or(0, |before| before.chars().count() + 1)
    }))
}

pub(super) fn starts_with(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let start = Texts::of(argument(args, 1)?)?;
    let test = |row| text.at(row).starts_with(start.at(row));
    let values = BooleanBuffer::collect_bool(rows.count, test);
    Ok(Arc::new(BooleanArray::new(values, rows.nulls())))
}

pub(super) fn replace(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let from = Texts::of(argument(args, 1)?)?;
    let to = Texts::of(argument(args, 2)?)?;
    rows.texts(&[&text], |row, out| {
        let (mut rest, from, to) = (text.at(row), from.at(row), to.at(row));
        if from.is_empty() {
            return out.append(rest);
        }
        while let Some((before, after)) = rest.split_once(from) {
            out.append(before)?;
            out.append(to)?;
            rest = after;
        }
        out.append(rest)
    })
}

pub(super) fn concat(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let first = Texts::of(argument(args, 0)?)?;
    let second = Texts::of(argument(args, 1)?)?;
    rows.texts(&[&first, &second], |row, out| {
        out.append(first.at(row))?;
        out.append(second.at(row))
    })
}

/// So many characters Postgres pads a text to in every database: each is counted as four bytes of UTF8, out of 1 GB.
const PADDED: usize = (0x3fff_ffff - 4) / 4;

/// `lpad` (`before`) and `rpad`: a longer text is cut off at its end by both.
pub(super) fn pad(rows: &Rows, args: &[Val], before: bool) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let wanted = i32s(argument(args, 1)?)?;
    let fill = Texts::of(argument(args, 2)?)?;
    rows.texts(&[&text], |row, out| {
        let (text, fill) = (text.at(row), fill.at(row));
        let wanted = size(wanted.at(row).into());
        let kept = prefix(text, wanted);
        if wanted > PADDED && !fill.is_empty() {
            return Err(not_exact("a text may be padded to more than it can have"));
        }
        if !before {
            out.append(kept)?;
        }
        let width = fill.chars().count();
        let missing = wanted.saturating_sub(kept.chars().count());
        if let (Some(times), Some(rest)) = (missing.checked_div(width), missing.checked_rem(width))
        {
            out.expect(missing)?;
            for _ in 0..times {
                out.append(fill)?;
            }
            out.append(prefix(fill, rest))?;
        }
        if before { out.append(kept) } else { Ok(()) }
    })
}

pub(super) fn repeat(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let (text, count) = (Texts::of(argument(args, 0)?)?, i32s(argument(args, 1)?)?);
    rows.texts(&[&text], |row, out| {
        let (text, count) = (text.at(row), size(count.at(row).into()));
        if text.is_empty() {
            return Ok(());
        }
        let bytes = text.len().checked_mul(count);
        out.expect(bytes.ok_or_else(|| not_exact("a text is too long for the engine"))?)?;
        for _ in 0..count {
            out.append(text)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::call;
    use super::super::support::*;
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;
    use datafusion_execution::memory_pool::{GreedyMemoryPool, MemoryPool};
    use pg_lake_plan::function::Function;
    use pg_lake_plan::types::LakeType;

    fn one(function: Function, args: &[Val]) -> String {
        let result = result(function, &LakeType::Text, args);
        result.as_string::<i32>().value(0).to_owned()
    }

    fn number(function: Function, args: &[Val]) -> i32 {
        let result = result(function, &LakeType::Int4, args);
        result.as_primitive::<Int32Type>().value(0)
    }

    #[test]
    fn texts_are_made_within_the_memory_of_the_query() {
        let limit = 8 << 20;
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(limit));
        let repeat = |count| {
            let args = [text("0123456789"), int(count)];
            call(Function::Repeat, &LakeType::Text, &args, Some(&pool))
        };
        assert!(repeat(300_000).is_ok());
        assert_eq!(pool.reserved(), 0);
        let refused = repeat(900_000).map(|_| ()).expect_err("too much");
        assert_eq!(refused.code, ErrorCode::OutOfMemory);
        assert_eq!(refused.hint.as_deref(), Some("Raise lake.worker_memory."));
        assert_eq!(pool.reserved(), 0);
    }

    // strings.out
    #[test]
    fn substrings() {
        let of = |text_: &str, from, count: Option<i32>| {
            let mut args = vec![text(text_), int(from)];
            args.extend(count.map(int));
            one(Function::Substring, &args)
        };
        for (from, count, expected) in [
            (4, None, "4567890"),
            (4, Some(3), "456"),
            (2, Some(i32::MAX), "234567890"),
            (-10, Some(i32::MAX), "1234567890"),
            (i32::MIN, Some(i32::MAX), ""),
            (0, Some(2), "1"),
            (-1, Some(1), ""),
            (11, Some(1), ""),
            (10, Some(5), "0"),
            (1, Some(0), ""),
            (i32::MIN, None, "1234567890"),
        ] {
            assert_eq!(of("1234567890", from, count), expected, "{from} {count:?}");
        }
        assert_eq!(of("äöüß", 2, Some(2)), "öü");
        assert_eq!(of("a€bc", 3, None), "bc");
        let args = [text("string"), int(-10), int(-2_147_483_646)];
        let error = error(Function::Substring, &LakeType::Text, &args);
        assert_eq!(error.code, ErrorCode::Substring);
        assert_eq!(error.message, "negative substring length not allowed");
    }

    // strings.out
    #[test]
    fn overlays() {
        let of = |text_: &str, new: &str, from, count: Option<i32>| {
            let mut args = vec![text(text_), text(new), int(from)];
            args.extend(count.map(int));
            one(Function::Overlay, &args)
        };
        assert_eq!(of("abcdef", "45", 4, None), "abc45f");
        assert_eq!(of("yabadoo", "daba", 5, None), "yabadaba");
        assert_eq!(of("yabadoo", "daba", 5, Some(0)), "yabadabadoo");
        assert_eq!(of("babosa", "ubb", 2, Some(4)), "bubba");
        assert_eq!(of("äöü", "€", 2, None), "ä€ü");
        assert_eq!(of("abc", "x", 2, Some(-5)), "axabc");
        assert_eq!(of("abc", "x", 9, None), "abcx");
        let args = [text("abc"), text("x"), int(0)];
        let refused = error(Function::Overlay, &LakeType::Text, &args);
        assert_eq!(refused.code, ErrorCode::Substring);
        let args = [text("abc"), text("x"), int(2), int(i32::MAX)];
        let refused = error(Function::Overlay, &LakeType::Text, &args);
        assert_eq!(refused.code, ErrorCode::OutOfRange);
    }

    #[test]
    fn a_negative_length_of_a_null_is_no_error() {
        let args = [texts(&[None, Some("abc")]), ints(&[Some(1), None]), int(-1)];
        let result = result(Function::Substring, &LakeType::Text, &args);
        assert_eq!(result.null_count(), 2);
    }

    // text.out
    #[test]
    fn left_and_right() {
        let ends = |n| {
            let args = [text("ahoj"), int(n)];
            (one(Function::Left, &args), one(Function::Right, &args))
        };
        for (n, left, right) in [
            (-5, "", ""),
            (-4, "", ""),
            (-3, "a", "j"),
            (-1, "aho", "hoj"),
            (0, "", ""),
            (1, "a", "j"),
            (4, "ahoj", "ahoj"),
            (5, "ahoj", "ahoj"),
            (i32::MAX, "ahoj", "ahoj"),
        ] {
            assert_eq!(ends(n), (left.to_owned(), right.to_owned()), "{n}");
        }
        assert_eq!(one(Function::Left, &[text("äöü"), int(-1)]), "äö");
        assert_eq!(one(Function::Right, &[text("äöü"), int(2)]), "öü");
    }

    #[test]
    fn trimming() {
        let trim = |side, args: &[Val]| one(Function::Trim(side), args);
        assert_eq!(
            trim(Side::Both, &[text("  bunch o blanks  ")]),
            "bunch o blanks"
        );
        assert_eq!(trim(Side::Start, &[text("  x\t ")]), "x\t ");
        assert_eq!(trim(Side::End, &[text(" x\t  ")]), " x\t");
        assert_eq!(
            trim(Side::Both, &[text("xxxxsome Xsxxx"), text("x")]),
            "some Xs"
        );
        assert_eq!(trim(Side::Start, &[text("zzzytest"), text("xyz")]), "test");
        assert_eq!(trim(Side::End, &[text("ääaä"), text("ä")]), "ääa");
        assert_eq!(trim(Side::Both, &[text("abc"), text("")]), "abc");
        assert_eq!(trim(Side::Both, &[text("aaa"), text("a")]), "");
    }

    #[test]
    fn letters_and_lengths() {
        assert_eq!(one(Function::Lower, &[text("TEXT Ä")]), "text Ä");
        assert_eq!(one(Function::Upper, &[text("straße")]), "STRAßE");
        assert_eq!(one(Function::Reverse, &[text("abcdé")]), "édcba");
        assert_eq!(number(Function::Length, &[text("josé")]), 4);
        assert_eq!(number(Function::OctetLength, &[text("josé")]), 5);
    }

    #[test]
    fn parts() {
        let position = |a, b| number(Function::Position, &[text(a), text(b)]);
        assert_eq!(position("1234567890", "4"), 4);
        assert_eq!(position("1234567890", "67"), 6);
        assert_eq!(position("abc", "x"), 0);
        assert_eq!(position("abc", ""), 1);
        assert_eq!(position("", ""), 1);
        assert_eq!(position("", "a"), 0);
        assert_eq!(position("äöü", "ü"), 3);
        let replace = |a, b, c| one(Function::Replace, &[text(a), text(b), text(c)]);
        assert_eq!(replace("abcdef", "de", "45"), "abc45f");
        assert_eq!(replace("yabadabadoo", "ba", "123"), "ya123da123doo");
        assert_eq!(replace("yabadoo", "bad", ""), "yaoo");
        assert_eq!(replace("aaa", "aa", "b"), "ba");
        assert_eq!(replace("abc", "", "x"), "abc");
        let args = [texts(&[Some("ab"), Some("b"), None]), text("a")];
        let starts = result(Function::StartsWith, &LakeType::Bool, &args);
        let starts: Vec<Option<bool>> = starts.as_boolean().iter().collect();
        assert_eq!(starts, [Some(true), Some(false), None]);
    }

    // strings.out
    #[test]
    fn padding() {
        let left = |a, n, fill| one(Function::PadLeft, &[text(a), int(n), text(fill)]);
        let right = |a, n, fill| one(Function::PadRight, &[text(a), int(n), text(fill)]);
        assert_eq!(left("hi", 5, "xy"), "xyxhi");
        assert_eq!(left("hi", 5, " "), "   hi");
        assert_eq!(left("hi", -5, "xy"), "");
        assert_eq!(left("hello", 2, ""), "he");
        assert_eq!(left("hi", 5, ""), "hi");
        assert_eq!(right("hi", 5, "xy"), "hixyx");
        assert_eq!(right("hi", -5, "xy"), "");
        assert_eq!(right("hello", 2, "x"), "he");
        assert_eq!(right("ä", 3, "öü"), "äöü");
        let long = [text("hi"), int(i32::MAX), text("x")];
        let refused = error(Function::PadLeft, &LakeType::Text, &long);
        assert_eq!(refused.code, ErrorCode::NotExact);
    }

    // oracle_compat.c: "requested length too large", whatever there is to pad
    #[test]
    fn lengths_that_postgres_may_refuse() {
        let code = |text_: &str, wanted, fill| {
            let args = [text(text_), int(wanted), text(fill)];
            let padded = call(Function::PadRight, &LakeType::Text, &args, None);
            padded.map(drop).map_err(|error| error.code)
        };
        assert_eq!(code("a", 268_435_455, "x"), Err(ErrorCode::NotExact));
        assert_eq!(code("a", i32::MAX, ""), Ok(()));
    }

    #[test]
    fn concatenation() {
        let args = [texts(&[Some("a"), None, Some("")]), text("€")];
        let joined = result(Function::Concat, &LakeType::Text, &args);
        let joined: Vec<Option<&str>> = joined.as_string::<i32>().iter().collect();
        assert_eq!(joined, [Some("a€"), None, Some("€")]);
        assert_eq!(one(Function::Repeat, &[text("Pg"), int(4)]), "PgPgPgPg");
        assert_eq!(one(Function::Repeat, &[text("Pg"), int(-4)]), "");
        let long = [text("Pg"), int(i32::MAX)];
        let error = error(Function::Repeat, &LakeType::Text, &long);
        assert_eq!(error.code, ErrorCode::NotExact);
    }
}
