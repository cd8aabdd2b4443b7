//! As much of XML as manifests are written in; anything else is an error.

/// One element.
#[derive(Debug, Default)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    /// Where it holds text instead.
    pub(crate) text: String,
}

impl Element {
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    pub(crate) fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Element> {
        self.children.iter().filter(move |c| c.name == name)
    }
}

/// The root element of a document of a service.
pub(crate) fn parse(text: &str) -> Element {
    document(text, "service_bundle SYSTEM \"/usr/share/lib/xml/dtd/service_bundle.dtd.1\"")
}

/// The root element of a document with an XML declaration and this document type.
pub(crate) fn document(text: &str, kind: &str) -> Element {
    let mut rest = text;
    let declaration = "<?xml version=\"1.0\"?>";
    rest = rest.strip_prefix(declaration).expect("no XML declaration").trim_start();
    let kind = format!("<!DOCTYPE {kind}>");
    rest = rest.strip_prefix(kind.as_str()).expect("no document type").trim_start();
    let (root, rest) = element(skip(rest));
    assert_eq!(skip(rest), "", "something follows the root element");
    root
}

/// Without blanks and comments at its beginning.
fn skip(text: &str) -> &str {
    let text = text.trim_start();
    match text.strip_prefix("<!--") {
        Some(comment) => {
            let (inside, rest) = comment.split_once("-->").expect("a comment without its end");
            assert!(!inside.contains("--"), "two dashes in a comment");
            skip(rest)
        }
        None => text,
    }
}

fn element(text: &str) -> (Element, &str) {
    let text = text.strip_prefix('<').unwrap_or_else(|| panic!("text where an element should be: {text:.40}"));
    let end = text.find(|c: char| c.is_whitespace() || c == '/' || c == '>').unwrap();
    let mut found = Element { name: text[..end].to_owned(), ..Element::default() };
    let mut rest = text[end..].trim_start();
    while !rest.starts_with(['/', '>']) {
        let (name, value) = rest.split_once("=\"").expect("an attribute without a value");
        let (value, after) = value.split_once('"').expect("a value without its end");
        assert!(!value.contains(['<', '&']), "{value}");
        assert!(found.get(name).is_empty(), "{name} twice");
        found.attributes.push((name.to_owned(), value.to_owned()));
        rest = after.trim_start();
    }
    if let Some(rest) = rest.strip_prefix("/>") {
        return (found, rest);
    }
    rest = rest.strip_prefix('>').unwrap();
    if !skip(rest).starts_with('<') {
        let (text, after) = rest.split_once('<').expect("text without an end");
        let after = after.strip_prefix(format!("/{}>", found.name).as_str());
        found.text = text.trim().to_owned();
        return (found, after.expect("text and elements mixed"));
    }
    loop {
        rest = skip(rest);
        if let Some(after) = rest.strip_prefix("</") {
            let after =
                after.strip_prefix(found.name.as_str()).unwrap_or_else(|| panic!("{} is not ended", found.name));
            return (found, after.strip_prefix('>').unwrap());
        }
        let (child, after) = element(rest);
        found.children.push(child);
        rest = after;
    }
}
