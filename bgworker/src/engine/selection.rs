//! Which rows of a file a query may see: its wanted ranges without its deleted rows.

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;
use pg_lake_plan::message::FileRef;
use std::ops::Range;

/// The visible rows of a window of a file.
#[derive(Debug, PartialEq)]
pub(super) enum Selection {
    All,
    None,
    Some(BooleanBuffer),
}

/// Half-open runs of visible positions within `window`, ascending.
pub(super) fn runs(file: &FileRef, window: Range<u64>) -> Vec<Range<u64>> {
    let mut runs = vec![];
    let whole = [(window.start, window.end)];
    let wanted = match &file.ranges {
        None => whole.as_slice(),
        Some(ranges) => {
            let first = ranges.partition_point(|&(_, end)| end <= window.start);
            ranges.get(first..).unwrap_or(&[])
        }
    };
    let mut deleted = deleted(file, &window)
        .iter()
        .map(|&d| u64::from(d))
        .peekable();
    for &(start, end) in wanted {
        if start >= window.end {
            break;
        }
        let mut start = start.max(window.start);
        let end = end.min(window.end);
        while deleted.next_if(|&d| d < start).is_some() {}
        while let Some(gap) = deleted.next_if(|&d| d < end) {
            if start < gap {
                runs.push(start..gap);
            }
            start = gap + 1;
        }
        if start < end {
            runs.push(start..end);
        }
    }
    runs
}

/// Number of visible rows of `window`.
pub(super) fn count(file: &FileRef, window: Range<u64>) -> u64 {
    if file.ranges.is_none() {
        return window.end - window.start - deleted(file, &window).len() as u64;
    }
    runs(file, window)
        .iter()
        .map(|run| run.end - run.start)
        .sum()
}

/// The visible rows as bits, the first standing for `window.start`.
pub(super) fn select(file: &FileRef, window: Range<u64>) -> Selection {
    let gone = deleted(file, &window);
    if file.ranges.is_none() && gone.is_empty() {
        return Selection::All;
    }
    let rows = (window.end - window.start) as usize;
    let visible_runs = if file.ranges.is_some() {
        runs(file, window.clone())
    } else {
        vec![]
    };
    if file.ranges.is_some() && visible_runs.is_empty() {
        return Selection::None;
    }
    let mut bits = BooleanBufferBuilder::new(rows);
    let mut visible = 0;
    if file.ranges.is_none() {
        bits.append_n(rows, true);
        for &position in gone {
            bits.set_bit((u64::from(position) - window.start) as usize, false);
        }
        visible = rows - gone.len();
    } else {
        for run in visible_runs {
            let (start, end) = (run.start - window.start, run.end - window.start);
            bits.append_n(start as usize - bits.len(), false);
            bits.append_n((end - start) as usize, true);
            visible += (end - start) as usize;
        }
        bits.append_n(rows - bits.len(), false);
    }
    match visible {
        0 => Selection::None,
        n if n == rows => Selection::All,
        _ => Selection::Some(bits.finish()),
    }
}

/// The visible rows of several windows, one after the other.
pub(super) fn select_runs(file: &FileRef, windows: &[Range<u64>]) -> Selection {
    let mut bits = BooleanBufferBuilder::new(0);
    for window in windows {
        let rows = (window.end - window.start) as usize;
        match select(file, window.clone()) {
            Selection::All => bits.append_n(rows, true),
            Selection::None => bits.append_n(rows, false),
            Selection::Some(own) => bits.append_buffer(&own),
        }
    }
    let bits = bits.finish();
    match bits.count_set_bits() {
        n if n == bits.len() => Selection::All,
        0 => Selection::None,
        _ => Selection::Some(bits),
    }
}

fn deleted<'a>(file: &'a FileRef, window: &Range<u64>) -> &'a [u32] {
    let first = file
        .deleted
        .partition_point(|&d| u64::from(d) < window.start);
    let after = file.deleted.partition_point(|&d| u64::from(d) < window.end);
    file.deleted.get(first..after).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::rows::RowNumbers;

    fn file(deleted: &[u32], ranges: Option<Vec<(u64, u64)>>) -> FileRef {
        FileRef {
            path: String::new(),
            size: 0,
            checksums: vec![],
            rows: RowNumbers::consecutive(0, 100),
            deleted: deleted.to_vec(),
            ranges,
        }
    }

    fn bits(selection: Selection) -> Vec<usize> {
        match selection {
            Selection::Some(bits) => bits.set_indices().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn deleted_rows_are_cut_out_of_ranges() {
        let f = file(&[3, 11, 12, 50], Some(vec![(2, 5), (10, 14), (60, 70)]));
        assert_eq!(runs(&f, 0..20), vec![2..3, 4..5, 10..11, 13..14]);
        assert_eq!(count(&f, 0..100), 14);
        assert_eq!(bits(select(&f, 1..14)), vec![1, 3, 9, 12]);
        assert_eq!(select(&f, 20..40), Selection::None);
        assert_eq!(select(&f, 61..64), Selection::All);
    }

    #[test]
    fn windows_are_selected_one_after_the_other() {
        let f = file(&[3, 11, 12], None);
        assert_eq!(bits(select_runs(&f, &[2..4, 11..14, 20..21])), [0, 4, 5]);
        assert_eq!(select_runs(&f, &[0..3, 4..11]), Selection::All);
        assert_eq!(select_runs(&f, &[3..4, 11..13]), Selection::None);
    }

    #[test]
    fn without_ranges_everything_else_is_visible() {
        let f = file(&[0, 9], None);
        assert_eq!(runs(&f, 0..12), vec![1..9, 10..12]);
        assert_eq!(count(&f, 0..10), 8);
        assert_eq!(bits(select(&f, 8..11)), vec![0, 2]);
        assert_eq!(select(&f, 20..30), Selection::All);
    }
}
