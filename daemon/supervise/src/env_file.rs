//! Variables from files of volumes (Kubernetes: `fileKeyRef`): lines `KEY=value`.

/// No such file is larger.
pub const LARGEST: u64 = 64 << 10;

/// The value of a key; the last one counts. Blank lines and lines that begin with `#` mean nothing. A value may stand in
/// quotes; one in single quotes may go over several lines.
pub fn value(text: &str, key: &str) -> Option<String> {
    let mut found = None;
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        rest = after;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        let (name, value) = (name.trim(), value.trim());
        let value = if let Some(open) = value.strip_prefix('\'') {
            match open.split_once('\'') {
                Some((inside, _)) => inside.to_owned(),
                None => {
                    let (more, after) = rest.split_once('\'').unwrap_or((rest, ""));
                    rest = after.split_once('\n').map_or("", |(_, after)| after);
                    format!("{open}\n{more}")
                }
            }
        } else {
            value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value).to_owned()
        };
        if name == key {
            found = Some(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_keys() {
        let text = "# a comment\n\nPLAIN=one two \n QUOTED = \"x y\"\nSINGLE='a #b'\nLONG='first\nsecond=2\nthird'\nEMPTY=\nPLAIN=last";
        for (key, expected) in [
            ("PLAIN", Some("last")),
            ("QUOTED", Some("x y")),
            ("SINGLE", Some("a #b")),
            ("LONG", Some("first\nsecond=2\nthird")),
            ("second", None),
            ("EMPTY", Some("")),
            ("NONE", None),
        ] {
            assert_eq!(value(text, key).as_deref(), expected, "{key}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[A=' \"\n#]{0,60}") {
            let _ = value(&text, "A");
        }
    }
}
