//! JSON values as text: what `serde_json` writes, in a third of the instructions. For texts that are written by the thousand: what is
//! stored, rows of tables, the audit log.

use serde_json::Value;
use std::io::Write;

/// Appends a value as compact JSON.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        // Into memory: no way to fail.
        Value::Number(number) => drop(write!(out, "{number}")),
        Value::String(text) => write_text(text, out),
        Value::Array(list) => {
            out.push(b'[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(value, out);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            out.push(b'{');
            for (index, (name, value)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_field(name, value, out);
            }
            out.push(b'}');
        }
    }
}

/// Appends `"name":value`.
pub fn write_field(name: &str, value: &Value, out: &mut Vec<u8>) {
    write_text(name, out);
    out.push(b':');
    write(value, out);
}

/// Appends a text as JSON, in quotes.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    if is_plain(text) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Into memory: no way to fail.
        drop(serde_json::to_writer(out, text));
    }
}

/// Is a text the same between quotes?
pub fn is_plain(text: &str) -> bool {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    !words.iter().any(|word| needs_escape(u64::from_ne_bytes(*word))) && !rest.iter().any(|byte| is_special(*byte))
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Whether any of eight bytes is special (Hacker's Delight, 6-1: a byte is below n where subtracting n borrows).
fn needs_escape(word: u64) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let any_below = |word: u64, n: u64| word.wrapping_sub(EACH * n) & !word & (EACH * 0x80);
    let any_is = |byte: u8| any_below(word ^ (EACH * u64::from(byte)), 1);
    any_below(word, 0x20) | any_is(b'"') | any_is(b'\\') != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
            "[a-z\"\\\\\u{0}-\u{20}\u{7f}é😀]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(".{0,12}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_serde_writes(value in values()) {
            let mut text = Vec::new();
            write(&value, &mut text);
            prop_assert_eq!(String::from_utf8(text).unwrap(), value.to_string());
        }

        #[test]
        fn every_byte_is_seen_at_every_place(before in "[ -!#-\\[\\]-~é]{0,17}", byte in 0_u8..0x80, after in "[a-zé]{0,17}") {
            let text = format!("{before}{}{after}", char::from(byte));
            prop_assert_eq!(is_plain(&text), !is_special(byte));
        }
    }
}
