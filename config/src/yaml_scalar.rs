//! Scalars of the YAML 1.2.2 core schema (<https://yaml.org/spec/1.2.2/#103-core-schema>).

use crate::diagnostic::codes;
use crate::node::{Findings, NodeValue};
use crate::source::At;
use saphyr_parser::{ScalarStyle, Tag};
use serde_json::Number;
use std::borrow::Cow;

/// The value of a scalar under `key` (empty outside a mapping); `None` when it was refused.
pub(crate) fn resolve(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    key: &str,
    at: At,
    findings: &mut Findings<'_>,
) -> Option<NodeValue> {
    let Some(tag) = tag else {
        return match style {
            ScalarStyle::Plain => plain(text, key, at, findings),
            _ => Some(NodeValue::String(text.into_owned())),
        };
    };
    let suffix = match (tag.is_yaml_core_schema(), &*tag.handle, &*tag.suffix) {
        (true, _, suffix) => suffix,
        (false, "!", "") | (false, "", "!") => "str",
        _ => "?",
    };
    if suffix == "str" {
        return Some(NodeValue::String(text.into_owned()));
    }
    if !matches!(suffix, "null" | "bool" | "int" | "float") {
        unknown_tag(tag, at, findings);
        return None;
    }
    let value = plain(Cow::Borrowed(&text), key, at, findings)?;
    let fits = match (&value, suffix) {
        (NodeValue::Null, "null") | (NodeValue::Bool(_), "bool") | (NodeValue::Number(_), "float") => true,
        (NodeValue::Number(n), "int") => !n.is_f64(),
        _ => false,
    };
    if !fits {
        findings.error(
            codes::UNKNOWN_TAG,
            at,
            format!("`{text}` is not what its tag `!!{suffix}` says"),
            "a tag must fit its value",
            "remove the tag",
        );
        return None;
    }
    Some(value)
}

pub(crate) fn unknown_tag(tag: &Tag, at: At, findings: &mut Findings<'_>) {
    let shown = if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() };
    findings.error(
        codes::UNKNOWN_TAG,
        at,
        format!("tag `{shown}` is not known here"),
        "manifests are plain data: only !!str, !!int, !!float, !!bool, !!null, !!seq and !!map mean something",
        "remove the tag",
    );
}

fn plain(text: Cow<'_, str>, key: &str, at: At, findings: &mut Findings<'_>) -> Option<NodeValue> {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(NodeValue::Null),
        "true" | "True" | "TRUE" => return Some(NodeValue::Bool(true)),
        "false" | "False" | "FALSE" => return Some(NodeValue::Bool(false)),
        _ => {}
    }
    match number(&text) {
        None => Some(NodeValue::String(text.into_owned())),
        Some(Parsed::Number(number)) => Some(NodeValue::Number(number)),
        Some(Parsed::Octal(number)) => {
            // The two field names that are file modes, where everybody means octal.
            if !matches!(key, "mode" | "defaultMode") {
                findings.warning(
                    codes::OCTAL,
                    at,
                    format!("`{text}` is read as octal, that is {number}"),
                    "kubectl reads a leading zero so",
                    "write the decimal number, or put a text in quotes",
                );
            }
            Some(NodeValue::Number(number))
        }
        Some(Parsed::Unrepresentable) => {
            findings.error(
                codes::BAD_NUMBER,
                at,
                format!("number `{text}` can't be represented"),
                "JSON, in which Kubernetes objects are kept, has neither infinities nor numbers this large",
                "write a smaller number, or put it in quotes if it is meant as text",
            );
            None
        }
    }
}

enum Parsed {
    Number(Number),
    Octal(Number),
    Unrepresentable,
}

/// A number, if the plain text is one by the core schema.
fn number(text: &str) -> Option<Parsed> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        b'0'..=b'9' | b'.' => ("", text),
        _ => return None,
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Parsed::Unrepresentable);
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            let valid = !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix));
            return valid.then(|| match u64::from_str_radix(rest, radix) {
                Ok(n) => Parsed::Number(n.into()),
                Err(_) => Parsed::Unrepresentable,
            });
        }
    }
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Some(integer(sign, digits));
    }
    is_float(digits).then(|| match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(n) => Parsed::Number(n),
        None => Parsed::Unrepresentable,
    })
}

fn integer(sign: &str, digits: &str) -> Parsed {
    let octal = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b < b'8');
    let radix = if octal { 8 } else { 10 };
    let signed = || i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Number::from);
    let unsigned = || u64::from_str_radix(digits, radix).ok().filter(|_| sign.is_empty()).map(Number::from);
    match signed().or_else(unsigned) {
        Some(n) if octal && digits.bytes().any(|b| b != b'0') => Parsed::Octal(n),
        Some(n) => Parsed::Number(n),
        None => Parsed::Unrepresentable,
    }
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, the sign already taken.
fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(i) => (&digits[..i], Some(&digits[i + 1..])),
        None => (digits, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && all_digits(e)
    });
    mantissa_ok && exponent_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_schema() {
        let shown = |text: &str| match number(text) {
            None => "text".to_owned(),
            Some(Parsed::Number(n)) => n.to_string(),
            Some(Parsed::Octal(n)) => format!("octal {n}"),
            Some(Parsed::Unrepresentable) => "refused".to_owned(),
        };
        let cases = [
            ("0", "0"),
            ("-19", "-19"),
            ("+3", "3"),
            ("0o7", "7"),
            ("0x3A", "58"),
            ("0644", "octal 420"),
            ("0899", "899"),
            ("0.", "0.0"),
            ("-0.0", "-0.0"),
            (".5", "0.5"),
            ("+12e03", "12000.0"),
            ("-2E+05", "-200000.0"),
            ("1e999", "refused"),
            (".inf", "refused"),
            ("-.Inf", "refused"),
            (".nan", "refused"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551616", "refused"),
            ("-9223372036854775809", "refused"),
            ("1_000", "text"),
            ("1.2.3", "text"),
            ("10.88.0.1", "text"),
            ("-", "text"),
            (".", "text"),
            ("1e", "text"),
            ("500m", "text"),
            ("0x", "text"),
            ("12:30", "text"),
            ("0b1", "text"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
