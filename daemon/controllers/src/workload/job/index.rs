//! Sets of completion indexes as Jobs print them: `0-2,4`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// More would not fit into a Job (`completions` of an Indexed Job is bounded by the reference, too).
const MOST: i64 = 1_000_000;

/// Reads `0-2,4`; what can't be read is left out.
pub(super) fn parse(text: &str) -> BTreeSet<i64> {
    let ranges = text.split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.trim().parse::<i64>().ok()?, to.trim().parse::<i64>().ok()?))
    });
    ranges.flat_map(|(from, to)| from.max(0)..=to.min(MOST)).collect()
}

/// Prints a set; three and more in a row as a range.
pub(super) fn print(indexes: &BTreeSet<i64>) -> String {
    let mut out = String::new();
    let mut run: Option<(i64, i64)> = None;
    for index in indexes {
        run = match run {
            Some((from, to)) if to + 1 == *index => Some((from, *index)),
            Some(done) => {
                print_run(&mut out, done);
                Some((*index, *index))
            }
            None => Some((*index, *index)),
        };
    }
    run.into_iter().for_each(|run| print_run(&mut out, run));
    out
}

fn print_run(out: &mut String, (from, to): (i64, i64)) {
    if !out.is_empty() {
        out.push(',');
    }
    // Writing into a String has no way to fail.
    let _ = match to - from {
        0 => write!(out, "{from}"),
        1 => write!(out, "{from},{to}"),
        _ => write!(out, "{from}-{to}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_the_reference_prints_them() {
        for (indexes, text) in
            [(vec![], ""), (vec![3], "3"), (vec![1, 2], "1,2"), (vec![0, 1, 2, 4, 7, 8, 9], "0-2,4,7-9")]
        {
            assert_eq!(print(&indexes.into_iter().collect()), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(indexes in proptest::collection::btree_set(0_i64..60, 0..40)) {
            prop_assert_eq!(parse(&print(&indexes)), indexes);
        }

        #[test]
        fn nothing_panics(text in "[0-9,x -]{0,20}") {
            let _ = parse(&text);
        }
    }
}
