//! What is wrong with a text that is no JSON, in the words of the reference's parser (Go's encoding/json): clients and people
//! know them.

/// The first mistake; none when the text is JSON.
pub(crate) fn error(bytes: &[u8]) -> Option<String> {
    let mut scan = Scan { bytes, at: 0 };
    scan.document().err().map(|mistake| match mistake {
        Mistake::End => "unexpected end of JSON input".to_owned(),
        Mistake::Character(byte, place) => format!("invalid character {} {place}", quoted(byte)),
    })
}

enum Mistake {
    End,
    Character(u8, String),
}

type Step = Result<(), Mistake>;

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Nesting that is followed; deeper text is taken as it is.
const DEPTH: u32 = 200;

impl Scan<'_> {
    fn peek(&self) -> Result<u8, Mistake> {
        self.bytes.get(self.at).copied().ok_or(Mistake::End)
    }

    fn space(&mut self) {
        while self.peek().is_ok_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn wrong(&self, place: impl Into<String>) -> Step {
        Err(Mistake::Character(self.peek()?, place.into()))
    }

    fn document(&mut self) -> Step {
        self.value(0)?;
        self.space();
        if self.at < self.bytes.len() { self.wrong("after top-level value") } else { Ok(()) }
    }

    fn value(&mut self, depth: u32) -> Step {
        self.space();
        match self.peek()? {
            _ if depth > DEPTH => {
                self.at = self.bytes.len();
                Ok(())
            }
            b'{' => self.map(depth),
            b'[' => self.list(depth),
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.wrong("looking for beginning of value"),
        }
    }

    fn map(&mut self, depth: u32) -> Step {
        self.at += 1;
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            if self.peek()? != b'"' {
                return self.wrong("looking for beginning of object key string");
            }
            self.string()?;
            self.space();
            if self.peek()? != b':' {
                return self.wrong("after object key");
            }
            self.at += 1;
            self.value(depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.wrong("after object key:value pair"),
            }
        }
    }

    fn list(&mut self, depth: u32) -> Step {
        self.at += 1;
        self.space();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.wrong("after array element"),
            }
        }
    }

    fn string(&mut self) -> Step {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    self.escape()?;
                }
                0..0x20 => return self.wrong("in string literal"),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Step {
        match self.peek()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.at += 1,
            b'u' => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.peek()?.is_ascii_hexdigit() {
                        return self.wrong("in \\u hexadecimal character escape");
                    }
                }
                self.at += 1;
            }
            _ => return self.wrong("in string escape code"),
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Step {
        for expected in word.bytes() {
            if self.peek()? != expected {
                return self.wrong(format!("in literal {word} (expecting '{}')", char::from(expected)));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn digits(&mut self, place: &str) -> Step {
        if !self.peek()?.is_ascii_digit() {
            return self.wrong(place);
        }
        while self.peek().is_ok_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Step {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek().is_ok_and(|b| b == b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if self.peek().is_ok_and(|b| matches!(b, b'e' | b'E')) {
            self.at += 1;
            if self.peek().is_ok_and(|b| matches!(b, b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }
}

/// A byte as the reference shows it.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::error;
    use proptest::prelude::*;

    #[test]
    fn mistakes_in_the_references_words() {
        for (text, wanted) in [
            ("{", "unexpected end of JSON input"),
            ("", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("[trux]", "invalid character 'x' in literal true (expecting 'e')"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("-a", "invalid character 'a' in numeric literal"),
        ] {
            assert_eq!(error(text.as_bytes()).as_deref(), Some(wanted), "{text}");
        }
    }

    proptest! {
        #[test]
        fn json_has_no_mistake_and_other_text_has_one(text in "[\\[\\]{}:,\"a1e.tru\\\\ -]{0,12}") {
            let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            // Lone surrogates and numbers beyond a double are syntax to one and sense to the other.
            if is_json {
                prop_assert_eq!(error(text.as_bytes()), None);
            } else if error(text.as_bytes()).is_none() {
                prop_assert!(text.contains("\\u") || text.contains('e'));
            }
        }
    }
}
