//! Lines of fields between colons, with `\:` and `\\` for the two characters themselves (dladm(8), zoneadm(8)).

/// The fields of one line, unescaped. A backslash before anything else stands for itself.
pub fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let next = match c {
            ':' => {
                fields.push(String::new());
                continue;
            }
            '\\' => chars.next_if(|c| matches!(c, ':' | '\\')).unwrap_or('\\'),
            other => other,
        };
        if let Some(last) = fields.last_mut() {
            last.push(next);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn colons_and_backslashes_are_unescaped() {
        assert_eq!(fields("rwa0:2\\:8\\:20\\:1e\\:0\\:7:0"), ["rwa0", "2:8:20:1e:0:7", "0"]);
        assert_eq!(fields("a\\\\:b"), ["a\\", "b"]);
        assert_eq!(fields("\\x\\"), ["\\x\\"]);
        assert_eq!(fields(""), [""]);
    }

    proptest! {
        #[test]
        fn what_was_escaped_comes_back(list in prop::collection::vec("[a:\\\\ é]{0,6}", 1..5)) {
            let line: Vec<_> = list.iter().map(|f| f.replace('\\', "\\\\").replace(':', "\\:")).collect();
            prop_assert_eq!(fields(&line.join(":")), list);
        }
    }
}
