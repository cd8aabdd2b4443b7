//! Long bodies piece by piece: compact JSON in, the form asked for out. What is in memory is one piece.

use crate::wire::accept::{Form, Media};
use crate::wire::answer::GZIP_ABOVE;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reddwarf_config::emit_yaml;
use serde_json::{Map, Value};
use std::io::Write;

/// A list on its way out: head, elements, tail.
#[derive(Debug)]
pub(crate) struct ListRender {
    style: Style,
    /// The field that holds the elements: `items`, `rows`.
    field: &'static str,
    empty: bool,
}

#[derive(Debug)]
enum Style {
    Compact,
    Pretty(Indenter),
    Yaml,
}

impl ListRender {
    pub(crate) fn new(form: Form, field: &'static str) -> Self {
        let style = match form {
            Form { media: Media::Yaml, .. } => Style::Yaml,
            Form { pretty: true, .. } => Style::Pretty(Indenter::default()),
            _ => Style::Compact,
        };
        Self { style, field, empty: true }
    }

    /// The beginning: `fields` are those of the list besides its elements, in order.
    pub(crate) fn head(&mut self, fields: &[(&str, &Value)]) -> Vec<u8> {
        if matches!(self.style, Style::Yaml) {
            let map: Map<String, Value> = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).clone())).collect();
            return emit_yaml(&Value::Object(map)).into_bytes();
        }
        let mut text = Vec::with_capacity(256);
        text.push(b'{');
        for (name, value) in fields {
            // Into memory: no way to fail.
            let _ = write!(text, "\"{name}\":{value},");
        }
        let _ = write!(text, "\"{}\":[", self.field);
        self.json(text)
    }

    /// What the text of the next elements begins with.
    pub(crate) fn start(&self) -> &'static str {
        match self.style {
            Style::Yaml => "[",
            Style::Compact | Style::Pretty(_) if self.empty => "",
            Style::Compact | Style::Pretty(_) => ",",
        }
    }

    /// Elements as JSON with commas between them, after [`ListRender::start`].
    pub(crate) fn elements(&mut self, mut json: Vec<u8>) -> Vec<u8> {
        if json.len() == self.start().len() {
            json.clear();
            return json;
        }
        let first = std::mem::replace(&mut self.empty, false);
        if matches!(self.style, Style::Yaml) {
            json.push(b']');
            let start = if first { format!("{}:\n", self.field) } else { String::new() };
            // What we wrote ourselves is JSON.
            let elements: Value = serde_json::from_slice(&json).unwrap_or_default();
            return (start + &emit_yaml(&elements)).into_bytes();
        }
        self.json(json)
    }

    /// The end.
    pub(crate) fn tail(&mut self) -> Vec<u8> {
        match self.style {
            Style::Yaml if self.empty => format!("{}: []\n", self.field).into_bytes(),
            Style::Yaml => Vec::new(),
            Style::Pretty(_) => {
                let mut end = self.json(b"]}".to_vec());
                end.push(b'\n');
                end
            }
            Style::Compact => b"]}".to_vec(),
        }
    }

    fn json(&mut self, text: Vec<u8>) -> Vec<u8> {
        match &mut self.style {
            Style::Pretty(indenter) => indenter.feed(&text),
            Style::Compact | Style::Yaml => text,
        }
    }
}

/// Indents compact JSON that comes in pieces, two blanks a level as `serde_json`'s pretty printer.
#[derive(Debug, Default)]
pub(crate) struct Indenter {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The last byte opened a map or list: whether it is empty is not known yet.
    opened: bool,
}

impl Indenter {
    /// The next piece.
    pub(crate) fn feed(&mut self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() * 2);
        for &byte in text {
            if self.in_string {
                self.in_string = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                out.push(byte);
                continue;
            }
            let closes = matches!(byte, b'}' | b']');
            if closes {
                self.depth = self.depth.saturating_sub(1);
            }
            if closes != self.opened {
                self.line(&mut out);
            }
            self.opened = false;
            out.push(byte);
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    self.opened = true;
                }
                b',' => self.line(&mut out),
                b':' => out.push(b' '),
                _ => {}
            }
        }
        out
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

/// Compresses pieces of a long body for clients that take it.
pub(crate) struct Zip(Option<GzEncoder<Vec<u8>>>);

impl Zip {
    /// `wanted` and long enough for it to be worth while.
    pub(crate) fn new(wanted: bool, at_least: usize) -> Self {
        let worth = wanted && at_least > GZIP_ABOVE;
        Self(worth.then(|| GzEncoder::new(Vec::new(), Compression::fast())))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The next piece; perhaps nothing yet.
    pub(crate) fn piece(&mut self, text: impl AsRef<[u8]> + Into<Bytes>) -> Bytes {
        match &mut self.0 {
            None => text.into(),
            Some(encoder) => {
                // Into memory: no way to fail.
                let _ = encoder.write_all(text.as_ref());
                std::mem::take(encoder.get_mut()).into()
            }
        }
    }

    /// What is still inside.
    pub(crate) fn end(self) -> Bytes {
        self.0.and_then(|encoder| encoder.finish().ok()).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::accept::Shape;
    use proptest::prelude::*;
    use serde_json::json;

    fn rendered(media: Media, pretty: bool, elements: &[Value], cut: usize) -> String {
        let mut render = ListRender::new(Form { media, shape: Shape::Whole, pretty }, "items");
        let metadata = json!({"resourceVersion": "7"});
        let mut out = render.head(&[("kind", &json!("AList")), ("metadata", &metadata)]);
        for piece in elements.chunks(cut.max(1)) {
            let texts: Vec<String> = piece.iter().map(Value::to_string).collect();
            out.extend(render.elements((render.start().to_owned() + &texts.join(",")).into_bytes()));
        }
        out.extend(render.tail());
        String::from_utf8(out).unwrap()
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(json!(null)), any::<i32>().prop_map(Value::from), "[ -~]{0,6}".prop_map(Value::from)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\]{0,3}", inner, 0..3)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_form_says_the_same(elements in prop::collection::vec(value(), 0..6), cut in 1_usize..4) {
            let wanted = json!({"kind": "AList", "metadata": {"resourceVersion": "7"}, "items": elements.clone()});
            let compact = rendered(Media::Json, false, &elements, cut);
            prop_assert_eq!(&serde_json::from_str::<Value>(&compact).unwrap(), &wanted);
            let pretty = rendered(Media::Json, true, &elements, cut);
            let unindented = serde_json::from_str::<Value>(&pretty).unwrap();
            prop_assert_eq!(&unindented, &wanted);
            let yaml = rendered(Media::Yaml, false, &elements, cut);
            let limits = reddwarf_config::Limits::default();
            let (read, findings) = reddwarf_config::parse_file("x.yaml", yaml.as_bytes(), &limits);
            prop_assert!(findings.iter().all(|f| !f.is_error()), "{yaml}\n{findings:?}");
            prop_assert_eq!(&read[0].value, &wanted);
        }

        #[test]
        fn indented_as_serde_would(value in value()) {
            let indented = Indenter::default().feed(value.to_string().as_bytes());
            prop_assert_eq!(String::from_utf8(indented).unwrap(), serde_json::to_string_pretty(&value).unwrap());
        }
    }

    #[test]
    fn compressed_pieces_are_one_stream() {
        let mut zip = Zip::new(true, GZIP_ABOVE + 1);
        let mut packed = zip.piece(vec![b'a'; 100_000]).to_vec();
        packed.extend(zip.piece(vec![b'b'; 100_000]));
        packed.extend(zip.end());
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut text).unwrap();
        assert!(text.len() == 200_000 && text[99_999] == b'a' && text[100_000] == b'b');
    }
}
