//! Label and field selectors.
//!
//! Source: Kubernetes "Labels and Selectors" and "Field Selectors"; error texts as recorded from kube-apiserver 1.36.

use crate::{kind::Kind, names, object::Object};
use serde_json::Value;

/// A selector that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// Which labels an object must have. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<LabelRequirement>);

/// One condition on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: String,
    /// The condition.
    pub condition: LabelCondition,
}

/// What is asked of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelCondition {
    /// It is there with one of these values (`=`, `==`, `in`).
    In(Vec<String>),
    /// It is absent or has none of these values (`!=`, `notin`).
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
    /// It is a whole number above this one (`>`).
    Above(i64),
    /// It is a whole number below this one (`<`).
    Below(i64),
}

impl LabelSelector {
    /// Reads `app=web,tier!=db,env in (a, b),!old,new`.
    ///
    /// # Errors
    /// [`SelectorError`] with the reference's text (`unable to parse requirement: ...`).
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let tokens = tokens(text);
        let mut at = 0;
        let mut requirements = Vec::new();
        while let Some(first) = tokens.get(at) {
            if !is_word(first) && *first != "!" {
                return Err(SelectorError(format!("found '{first}', expected: !, identifier, or 'end of string'")));
            }
            requirements.push(
                requirement(&tokens, &mut at)
                    .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?,
            );
            match tokens.get(at) {
                None => break,
                Some(&",") => {
                    let next = tokens.get(at + 1).copied().unwrap_or_default();
                    if !is_word(next) && next != "!" {
                        return Err(SelectorError(format!("found '{next}', expected: identifier after ','")));
                    }
                    at += 1;
                }
                Some(other) => return Err(SelectorError(format!("found '{other}', expected: ',' or 'end of string'"))),
            }
        }
        Ok(Self(requirements))
    }

    /// Reads the JSON form with matchLabels and matchExpressions.
    ///
    /// # Errors
    /// [`SelectorError`] for an unknown operator.
    pub fn from_value(value: &Value) -> Result<Self, SelectorError> {
        let labels = value.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
        let mut requirements: Vec<LabelRequirement> = labels
            .filter_map(|(key, value)| {
                let condition = LabelCondition::In(vec![value.as_str()?.to_owned()]);
                Some(LabelRequirement { key: key.clone(), condition })
            })
            .collect();
        for expression in value.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            let condition = match text("operator") {
                "In" => LabelCondition::In(values),
                "NotIn" => LabelCondition::NotIn(values),
                "Exists" => LabelCondition::Exists,
                "DoesNotExist" => LabelCondition::DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            requirements.push(LabelRequirement { key: text("key").to_owned(), condition });
        }
        Ok(Self(requirements))
    }

    /// The conditions.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.0
    }

    /// Does it select everything?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does it select this object?
    pub fn matches(&self, object: &Object) -> bool {
        self.matches_labels(|key| object.label(key))
    }

    /// Does it select something with these labels?
    pub fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| {
            let value = label(&requirement.key);
            let number = || value.and_then(|v| v.parse::<i64>().ok());
            match &requirement.condition {
                LabelCondition::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
                LabelCondition::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| x != v)),
                LabelCondition::Exists => value.is_some(),
                LabelCondition::DoesNotExist => value.is_none(),
                LabelCondition::Above(least) => number().is_some_and(|n| n > *least),
                LabelCondition::Below(most) => number().is_some_and(|n| n < *most),
            }
        })
    }
}

/// Words and operators of a label selector.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let special = |c: char| "=!(),<>".contains(c);
        let length = if rest.starts_with("==") || rest.starts_with("!=") {
            2
        } else if rest.starts_with(special) {
            1
        } else {
            rest.find(|c: char| special(c) || c.is_whitespace()).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

fn is_word(token: &str) -> bool {
    !token.is_empty() && !token.starts_with(['=', '!', '(', ')', ',', '<', '>'])
}

fn requirement(tokens: &[&str], at: &mut usize) -> Result<LabelRequirement, String> {
    let mut next = || {
        let token = tokens.get(*at).copied().unwrap_or_default();
        *at += 1;
        token
    };
    let first = next();
    let absent = first == "!";
    let key = if absent { next() } else { first };
    if !is_word(key) {
        return Err(format!("found '{key}', expected: identifier"));
    }
    // The reference has no path to name here.
    let problems = names::qualified_name(key);
    if !problems.is_empty() {
        return Err(format!("<nil>: Invalid value: {key:?}: {}", problems.join("; ")));
    }
    let of = |condition| Ok(LabelRequirement { key: key.to_owned(), condition });
    if absent {
        return of(LabelCondition::DoesNotExist);
    }
    if matches!(tokens.get(*at), None | Some(&",")) {
        return of(LabelCondition::Exists);
    }
    let operator = tokens.get(*at).copied().unwrap_or_default();
    *at += 1;
    match operator {
        "=" | "==" => of(LabelCondition::In(checked(key, vec![single_value(tokens, at)?])?)),
        "!=" => of(LabelCondition::NotIn(checked(key, vec![single_value(tokens, at)?])?)),
        "in" => of(LabelCondition::In(checked(key, value_set(tokens, at)?)?)),
        "notin" => of(LabelCondition::NotIn(checked(key, value_set(tokens, at)?)?)),
        "<" | ">" => {
            let value = single_value(tokens, at)?;
            let number = value.parse().map_err(|_| {
                format!("values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer")
            })?;
            checked(key, vec![value])?;
            of(if operator == ">" { LabelCondition::Above(number) } else { LabelCondition::Below(number) })
        }
        other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    }
}

/// The values if each of them may be a label's, in the order in which the reference numbers them.
fn checked(key: &str, mut values: Vec<String>) -> Result<Vec<String>, String> {
    values.sort_unstable();
    values.dedup();
    if values.is_empty() {
        return Err("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned());
    }
    let errors: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(index, value)| (index, value, names::label_value(value)))
        .filter(|(_, _, problems)| !problems.is_empty())
        .map(|(index, value, problems)| {
            format!("values[{index}][{key}]: Invalid value: {value:?}: {}", problems.join("; "))
        })
        .collect();
    match errors.as_slice() {
        [] => Ok(values),
        [only] => Err(only.clone()),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

/// One value; an empty one when the requirement ends here.
fn single_value(tokens: &[&str], at: &mut usize) -> Result<String, String> {
    match tokens.get(*at).copied() {
        None | Some(",") => Ok(String::new()),
        Some(token) if is_word(token) => {
            *at += 1;
            Ok(token.to_owned())
        }
        Some(other) => Err(format!("found '{other}', expected: identifier")),
    }
}

/// `(a, b)`. A place without a word is an empty value.
fn value_set(tokens: &[&str], at: &mut usize) -> Result<Vec<String>, String> {
    let peek = |at: usize| tokens.get(at).copied().unwrap_or_default();
    let open = peek(*at);
    *at += 1;
    match (open, peek(*at)) {
        ("(", ")") => {
            *at += 1;
            return Ok(Vec::new());
        }
        ("(", next) if next != "," && !is_word(next) => {
            return Err(format!("found '{next}', expected: ',', ')' or identifier"));
        }
        ("(", _) => {}
        (other, _) => return Err(format!("found '{other}' expected: '('")),
    }
    let mut values = Vec::new();
    loop {
        let (token, next) = (peek(*at), peek(*at + 1));
        *at += 1;
        match token {
            "," => {
                if values.is_empty() {
                    values.push(String::new());
                }
                if matches!(next, ")" | ",") {
                    values.push(String::new());
                    *at += 1;
                }
                if next == ")" {
                    return Ok(values);
                }
            }
            word if is_word(word) => {
                values.push(word.to_owned());
                match next {
                    "," => {}
                    ")" => {
                        *at += 1;
                        return Ok(values);
                    }
                    other => return Err(format!("found '{other}', expected: ',' or ')'")),
                }
            }
            other => return Err(format!("found '{other}', expected: ',', or identifier")),
        }
    }
}

/// Which values an object's fields must have. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

/// One condition on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field, for example `status.phase`.
    pub field: String,
    /// The value to compare with.
    pub value: String,
    /// Must it be equal, or must it differ?
    pub equal: bool,
}

const COMMON_FIELDS: [&str; 2] = ["metadata.name", "metadata.namespace"];

/// What objects can be selected by, besides their name and namespace.
fn known_fields(kind: &Kind) -> &'static [&'static str] {
    match (kind.group, kind.kind) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Secret") => &["type"],
        ("", "Namespace") => &["status.phase"],
        ("", "ReplicationController") => &["status.replicas"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("batch", "Job") => &["status.successful"],
        ("apps", "ReplicaSet") => &["status.replicas"],
        ("certificates.k8s.io", "CertificateSigningRequest") => &["spec.signerName"],
        _ => &[],
    }
}

impl FieldSelector {
    /// Reads `metadata.name=web,status.phase!=Failed` for `kind`.
    ///
    /// # Errors
    /// [`SelectorError`] with the reference's text, also for a field that can't be selected by.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        let mut wanted = Vec::new();
        let mut terms = split_terms(text);
        terms.sort_unstable();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let cant = || SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let position = term.find('=').ok_or_else(cant)?;
            let (field, equal) = match term[..position].strip_suffix('!') {
                Some(field) => (field, false),
                None => (&term[..position], true),
            };
            let value = term[position + 1..].strip_prefix('=').unwrap_or(&term[position + 1..]);
            let value = unescape(value).map_err(|e| SelectorError(format!("invalid field selector: {e}")))?;
            wanted.push((field, value, equal));
        }
        for (field, value, equal) in wanted {
            check_field(kind, field)?;
            requirements.push(FieldRequirement { field: field.to_owned(), value, equal });
        }
        Ok(Self(requirements))
    }

    /// Does it select everything?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The conditions.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// The name that an object must have, when the selector asks for exactly one.
    pub fn exact_name(&self) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.field == "metadata.name").map(|r| r.value.as_str())
    }

    /// JSON pointers of all that [`FieldSelector::matches`] looks at.
    pub fn pointers(&self) -> Vec<String> {
        self.0.iter().flat_map(|requirement| pointers(&requirement.field)).collect()
    }

    /// Does it select this object?
    pub fn matches(&self, object: &Object) -> bool {
        self.0
            .iter()
            .all(|requirement| field_equals(object, &requirement.field, &requirement.value) == requirement.equal)
    }
}

fn check_field(kind: &Kind, field: &str) -> Result<(), SelectorError> {
    let known = known_fields(kind);
    if COMMON_FIELDS.contains(&field) || known.contains(&field) {
        return Ok(());
    }
    Err(SelectorError(if known.is_empty() {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    }))
}

/// Parts between commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// `\\`, `\,` and `\=` stand for the character itself; nothing else may be escaped.
fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("invalid escape sequence: \\{other}"));
                }
            },
            // The reference prints the character's number.
            ',' | '=' => return Err(format!("unescaped character in value: {}", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn field_equals(object: &Object, field: &str, wanted: &str) -> bool {
    match field {
        "metadata.namespace" => object.namespace().unwrap_or_default() == wanted,
        "spec.hostNetwork" | "spec.unschedulable" => {
            let set = object.get(&pointer(field)) == Some(&Value::Bool(true));
            (if set { "true" } else { "false" }) == wanted
        }
        "status.podIPs" => {
            let ips = object.get("/status/podIPs").and_then(Value::as_array).into_iter().flatten();
            let ips: Vec<&str> = ips.filter_map(|ip| ip.get("ip")?.as_str()).collect();
            ips.contains(&wanted) || ips.is_empty() && wanted.is_empty()
        }
        // Events have two names for the same things in their two API groups.
        "source" => {
            text_at(
                object,
                &["/source/component", "/reportingComponent", "/deprecatedSource/component", "/reportingController"],
            ) == wanted
        }
        "reportingComponent" | "reportingController" => {
            text_at(object, &["/reportingComponent", "/reportingController"]) == wanted
        }
        "status.successful" => number_at(object, "/status/succeeded") == wanted,
        "status.replicas" => number_at(object, "/status/replicas") == wanted,
        _ => match field.strip_prefix("involvedObject.").or_else(|| field.strip_prefix("regarding.")) {
            Some(part) => {
                text_at(object, &[&format!("/involvedObject/{part}"), &format!("/regarding/{part}")]) == wanted
            }
            None => text_at(object, &[&pointer(field)]) == wanted,
        },
    }
}

/// Where [`field_equals`] looks for a field.
fn pointers(field: &str) -> Vec<String> {
    let of = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    match field {
        "source" => {
            of(&["/source/component", "/reportingComponent", "/deprecatedSource/component", "/reportingController"])
        }
        "reportingComponent" | "reportingController" => of(&["/reportingComponent", "/reportingController"]),
        "status.successful" => of(&["/status/succeeded"]),
        _ => match field.strip_prefix("involvedObject.").or_else(|| field.strip_prefix("regarding.")) {
            Some(part) => vec![format!("/involvedObject/{part}"), format!("/regarding/{part}")],
            None => vec![pointer(field)],
        },
    }
}

fn pointer(field: &str) -> String {
    format!("/{}", field.replace('.', "/"))
}

fn text_at<'a>(object: &'a Object, pointers: &[&str]) -> &'a str {
    pointers.iter().find_map(|pointer| object.get_str(pointer).filter(|text| !text.is_empty())).unwrap_or_default()
}

fn number_at(object: &Object, pointer: &str) -> String {
    object.get(pointer).and_then(Value::as_i64).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod(labels: Value) -> Object {
        Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "labels": labels},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}))
        .unwrap()
    }

    #[test]
    fn labels() {
        let web = pod(json!({"app": "web", "n": "5"}));
        for (selector, selected) in [
            ("", true),
            ("app=web", true),
            ("app == web , n", true),
            ("app!=web", false),
            ("tier!=db", true),
            ("app in (db, web)", true),
            ("tier in (,db)", false),
            ("app notin (,)", true),
            ("app notin (db,web)", false),
            ("!app", false),
            ("!tier", true),
            ("n>4,n<6", true),
            ("app=", false),
        ] {
            assert_eq!(LabelSelector::parse(selector).unwrap().matches(&web), selected, "{selector}");
        }
    }

    #[test]
    fn label_errors_are_the_references() {
        for (selector, error) in [
            ("=x", "found '=', expected: !, identifier, or 'end of string'"),
            ("!=x", "found '!=', expected: !, identifier, or 'end of string'"),
            ("!,a", "unable to parse requirement: found ',', expected: identifier"),
            ("a,,b", "found ',', expected: identifier after ','"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
            ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
            ("a in (b,", "unable to parse requirement: found '', expected: ',', or identifier"),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            (
                "a_=b",
                "unable to parse requirement: <nil>: Invalid value: \"a_\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
            (
                "a in (z,_)",
                "unable to parse requirement: values[0][a]: Invalid value: \"_\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ] {
            assert_eq!(LabelSelector::parse(selector).unwrap_err().0, error, "{selector}");
        }
    }

    #[test]
    fn fields() {
        let kind = crate::kinds().by_gvk("v1", "Pod").unwrap();
        let web = pod(json!({}));
        for (selector, selected) in [
            ("metadata.name=web", true),
            ("metadata.name==web,status.phase!=Failed", true),
            ("spec.nodeName=n2", false),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
        ] {
            assert_eq!(FieldSelector::parse(kind, selector).unwrap().matches(&web), selected, "{selector}");
        }
        assert_eq!(FieldSelector::parse(kind, "data.a=b").unwrap_err().0, "field label not supported: data.a");
        let config_map = crate::kinds().by_gvk("v1", "ConfigMap").unwrap();
        assert_eq!(
            FieldSelector::parse(config_map, "data.a=b").unwrap_err().0,
            "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        for (selector, error) in [
            ("x", "invalid selector: 'x'; can't understand 'x'"),
            ("status.phase=a\\b", "invalid field selector: invalid escape sequence: \\b"),
            ("status.phase=a\\", "invalid field selector: invalid escape sequence: \\"),
            ("status.phase=a=b", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(FieldSelector::parse(kind, selector).unwrap_err().0, error);
        }
    }

    #[test]
    fn what_a_selector_looks_at_is_enough_to_decide() {
        let text = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e", "namespace": "n"}, "type": "Normal", "reason": "R",
            "involvedObject": {"kind": "Pod", "name": "web", "uid": "u"}, "source": {"component": "node"}, "reportingComponent": "c"});
        let kind = crate::kinds().by_gvk("v1", "Event").unwrap();
        let whole = Object::from_value(text.clone()).unwrap();
        let selectors = known_fields(kind).iter().chain(&COMMON_FIELDS).flat_map(|field| {
            ["Normal", "R", "Pod", "web", "u", "node", "c", "e", "n", "other", ""]
                .map(|value| format!("{field}={value}"))
        });
        for selector in selectors {
            let selector = FieldSelector::parse(kind, &selector).unwrap();
            let pointers = selector.pointers();
            let part =
                crate::partial::Partial::new(pointers.iter().map(String::as_str)).read(text.to_string().as_bytes());
            assert_eq!(selector.matches(&part.unwrap()), selector.matches(&whole), "{selector:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[a-z=!(),<> .\\\\]{0,30}") {
            let kind = crate::kinds().by_gvk("v1", "Pod").unwrap();
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(kind, &text);
        }
    }
}
