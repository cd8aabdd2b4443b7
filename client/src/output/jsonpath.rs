//! kubectl's JSONPath templates: `{.items[*].metadata.name}`, `{.status.podIP}`, indexes, slices, `..`, filters
//! `[?(@.type=="Ready")]`, quoted keys, `{range …}…{end}` and text between the braces
//! (<https://kubernetes.io/docs/reference/kubectl/jsonpath/>).

use serde_json::Value;

/// A template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath(Vec<Node>);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Path(Path),
    Range(Path, Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
struct Path {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    All,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Keys(Vec<String>),
    Deep(String),
    Filter(Path, Option<(Comparison, Value)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A template that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("the jsonpath template {template:?} can't be read at {rest:?}: {why}")]
    Syntax { template: String, rest: String, why: &'static str },
}

impl JsonPath {
    /// Reads a template; a bare path needs no braces.
    pub(crate) fn parse(template: &str) -> Result<Self, PathError> {
        let wrapped;
        let text = if template.contains('{') {
            template
        } else {
            let path = template.trim_start_matches('$');
            wrapped = if path.starts_with(['.', '[']) { format!("{{{path}}}") } else { format!("{{.{path}}}") };
            &wrapped
        };
        let mut parser = Parser { rest: text, template };
        let nodes = parser.nodes(false)?;
        Ok(Self(nodes))
    }

    /// The text for a value. What is not there gives nothing, as in kubectl.
    pub(crate) fn render(&self, value: &Value) -> String {
        let mut out = String::new();
        render(&self.0, value, &mut out);
        out
    }

    /// The values that the template's paths find; empty when something is not there.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = Vec::new();
        for node in &self.0 {
            if let Node::Path(path) = node {
                found.extend(path.find(value));
            }
        }
        found
    }
}

fn render(nodes: &[Node], value: &Value, out: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(path) => {
                let texts: Vec<String> = path.find(value).into_iter().map(text).collect();
                out.push_str(&texts.join(" "));
            }
            Node::Range(path, inner) => {
                for item in path.find(value) {
                    render(inner, item, out);
                }
            }
        }
    }
}

/// Texts as they are, everything else as JSON.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Path {
    fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.apply(value)).collect();
        }
        found
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Key(key) => value.get(key).into_iter().collect(),
            Self::Keys(keys) => keys.iter().filter_map(|key| value.get(key)).collect(),
            Self::All => children(value),
            Self::Index(index) => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                usize::try_from(from_end(*index, list.len())).ok().and_then(|i| list.get(i)).into_iter().collect()
            }
            Self::Slice(from, to) => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                let bound = |at: i64| usize::try_from(from_end(at, list.len())).unwrap_or(0).min(list.len());
                let (from, to) = (from.map_or(0, bound), to.map_or(list.len(), bound));
                list.get(from..to).into_iter().flatten().collect()
            }
            Self::Deep(key) => {
                let mut found = Vec::new();
                deep(value, key, &mut found);
                found
            }
            Self::Filter(path, comparison) => {
                children(value).into_iter().filter(|item| passes(path, comparison.as_ref(), item)).collect()
            }
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn from_end(index: i64, length: usize) -> i64 {
    if index < 0 { index + i64::try_from(length).unwrap_or(i64::MAX) } else { index }
}

fn deep<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    if key == "*" {
        found.extend(children(value));
    } else {
        found.extend(value.get(key));
    }
    for child in children(value) {
        deep(child, key, found);
    }
}

fn passes(path: &Path, comparison: Option<&(Comparison, Value)>, item: &Value) -> bool {
    let found = path.find(item);
    let Some((comparison, wanted)) = comparison else { return !found.is_empty() };
    found.iter().any(|value| {
        let order = match (value.as_f64(), wanted.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => Some(text(value).cmp(&text(wanted))),
        };
        match comparison {
            Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Comparison::NotEqual => order.is_some_and(std::cmp::Ordering::is_ne),
            Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    })
}

struct Parser<'a> {
    rest: &'a str,
    template: &'a str,
}

impl<'a> Parser<'a> {
    fn fail<T>(&self, why: &'static str) -> Result<T, PathError> {
        let rest = self.rest.chars().take(30).collect();
        Err(PathError::Syntax { template: self.template.to_owned(), rest, why })
    }

    fn eat(&mut self, word: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(word) else { return false };
        self.rest = rest;
        true
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Text and braces up to the end, or to `{end}` inside a range.
    fn nodes(&mut self, in_range: bool) -> Result<Vec<Node>, PathError> {
        let mut nodes = Vec::new();
        loop {
            if self.rest.is_empty() {
                return if in_range { self.fail("{range} has no {end}") } else { Ok(nodes) };
            }
            let Some(open) = self.rest.find('{') else {
                nodes.push(Node::Text(unescape(self.rest)));
                self.rest = "";
                continue;
            };
            if open > 0 {
                nodes.push(Node::Text(unescape(&self.rest[..open])));
            }
            self.rest = &self.rest[open + 1..];
            self.blanks();
            if self.eat("end") {
                self.close()?;
                return if in_range { Ok(nodes) } else { self.fail("{end} has no {range}") };
            }
            if self.rest.starts_with("range") {
                self.eat("range");
                self.blanks();
                let path = self.path()?;
                self.close()?;
                nodes.push(Node::Range(path, self.nodes(true)?));
            } else if self.rest.starts_with(['"', '\'']) {
                let text = self.quoted()?;
                self.close()?;
                nodes.push(Node::Text(unescape(&text)));
            } else {
                let path = self.path()?;
                self.close()?;
                nodes.push(Node::Path(path));
            }
        }
    }

    fn close(&mut self) -> Result<(), PathError> {
        self.blanks();
        if self.eat("}") { Ok(()) } else { self.fail("expected }") }
    }

    fn path(&mut self) -> Result<Path, PathError> {
        let mut steps = Vec::new();
        if !self.eat("$") {
            self.eat("@");
        }
        loop {
            if self.eat("..") {
                let name = if self.eat("*") { "*".to_owned() } else { self.name()? };
                steps.push(Step::Deep(name));
            } else if self.eat(".") {
                if self.eat("*") {
                    steps.push(Step::All);
                } else if !self.rest.starts_with(['[', '}', ' ']) {
                    steps.push(Step::Key(self.name()?));
                }
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else {
                break;
            }
        }
        Ok(Path { steps })
    }

    /// A field's name; `\.` is a dot in it.
    fn name(&mut self) -> Result<String, PathError> {
        let mut name = String::new();
        let mut rest = self.rest.chars();
        loop {
            let mut ahead = rest.clone();
            match ahead.next() {
                Some('\\') => {
                    name.extend(ahead.next());
                    rest = ahead;
                }
                Some(c) if !".[]{}()=!<>, \"'".contains(c) => {
                    name.push(c);
                    rest = ahead;
                }
                _ => break,
            }
        }
        self.rest = rest.as_str();
        if name.is_empty() { self.fail("expected a field's name") } else { Ok(name) }
    }

    fn bracket(&mut self) -> Result<Step, PathError> {
        self.blanks();
        let step = if self.eat("*") {
            Step::All
        } else if self.eat("?(") {
            self.filter()?
        } else if self.rest.starts_with(['"', '\'']) {
            let mut keys = vec![self.quoted()?];
            while self.eat(",") {
                self.blanks();
                keys.push(self.quoted()?);
            }
            Step::Keys(keys)
        } else {
            let from = self.number();
            if self.eat(":") {
                Step::Slice(from, self.number())
            } else {
                match from {
                    Some(index) => Step::Index(index),
                    None => return self.fail("expected an index, a slice, *, a quoted key or ?( in []"),
                }
            }
        };
        self.blanks();
        if self.eat("]") { Ok(step) } else { self.fail("expected ]") }
    }

    fn number(&mut self) -> Option<i64> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(self.rest.len());
        let number = self.rest[..end].parse().ok()?;
        self.rest = &self.rest[end..];
        Some(number)
    }

    fn filter(&mut self) -> Result<Step, PathError> {
        self.blanks();
        let path = self.path()?;
        self.blanks();
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let comparison = match comparisons.into_iter().find(|(word, _)| self.eat(word)) {
            Some((_, comparison)) => {
                self.blanks();
                Some((comparison, self.literal()?))
            }
            None => None,
        };
        self.blanks();
        if self.eat(")") { Ok(Step::Filter(path, comparison)) } else { self.fail("expected )") }
    }

    fn literal(&mut self) -> Result<Value, PathError> {
        if self.rest.starts_with(['"', '\'']) {
            return Ok(Value::from(self.quoted()?));
        }
        let end = self.rest.find([')', ' ']).unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        self.rest = &self.rest[end..];
        Ok(serde_json::from_str(word).unwrap_or_else(|_| Value::from(word)))
    }

    fn quoted(&mut self) -> Result<String, PathError> {
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return self.fail("expected a quote");
        };
        let body = &self.rest[1..];
        match body.find(quote) {
            Some(end) => {
                self.rest = &body[end + 1..];
                Ok(body[..end].to_owned())
            }
            None => self.fail("the quote does not end"),
        }
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn of(template: &str, value: &Value) -> String {
        JsonPath::parse(template).unwrap().render(value)
    }

    #[test]
    fn the_templates_that_people_use() {
        let list = json!({"items": [
            {"metadata": {"name": "a", "labels": {"x.io/y": "1"}}, "status": {"podIP": "10.0.0.1", "n": 1}},
            {"metadata": {"name": "b"}, "status": {"podIP": "10.0.0.2", "n": 2,
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}},
        ]});
        for (template, expected) in [
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].status.podIP}", "10.0.0.1"),
            ("{.items[-1].metadata.name}", "b"),
            ("{.items[0:1].metadata.name}", "a"),
            ("{.items[:].metadata.name}", "a b"),
            ("{.items[0].metadata.labels.x\\.io/y}", "1"),
            ("{.items[0].metadata.labels['x.io/y']}", "1"),
            ("{.items[1].status.conditions[?(@.type==\"Ready\")].status}", "True"),
            ("{.items[?(@.status.n>1)].metadata.name}", "b"),
            ("{.items[?(@.status.conditions)].metadata.name}", "b"),
            ("{range .items[*]}{.metadata.name}{\"\\t\"}{.status.podIP}{\"\\n\"}{end}", "a\t10.0.0.1\nb\t10.0.0.2\n"),
            ("name={.items[0].metadata.name}", "name=a"),
            ("{..podIP}", "10.0.0.1 10.0.0.2"),
            (".items[0].metadata", "{\"labels\":{\"x.io/y\":\"1\"},\"name\":\"a\"}"),
            ("$.items[1].metadata.name", "b"),
            ("{.nothing.here}", ""),
        ] {
            assert_eq!(of(template, &list), expected, "{template}");
        }
        assert_eq!(of("{.a}", &json!({"a": true})), "true");
        assert_eq!(of("{@}", &json!({"a": 1})), "{\"a\":1}");
    }

    #[test]
    fn bad_templates_say_where() {
        for template in ["{.a", "{.a[}", "{.a[0}", "{range .a}", "{end}", "{.a[?(@.b==1]}", "{['a}"] {
            let error = JsonPath::parse(template).unwrap_err().to_string();
            assert!(error.contains("can't be read at"), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_template_panics(template in "[{}\\[\\].*@$?()'\"a-c0-9:=<>!,\\\\ -]{0,24}") {
            if let Ok(path) = JsonPath::parse(&template) {
                let _ = path.render(&json!({"a": [{"b": 1}, 2], "c": "x"}));
            }
        }
    }
}
