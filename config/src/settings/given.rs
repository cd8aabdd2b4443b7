//! Values as given by flag, environment or file, before they are understood.

use super::cli::Cli;
use super::table::{Form, SETTINGS, setting};
use crate::diagnostic::{Diagnostic, Severity, codes};
use crate::limits::Limits;
use crate::node::{Entry, Findings, Node, NodeValue};
use crate::source::{At, Source};
use crate::toml_tables;
use reddwarf_objects::names::did_you_mean;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

/// Variables of this prefix that are read elsewhere: where settings are, and what stands in for the system's tools in tests.
const NO_SETTINGS: [&str; 2] = ["REDDWARF_CONFIG", "REDDWARF_TOOLS"];

/// Where a value was given.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    Flag,
    Environment,
    File(Arc<Source>, At),
}

impl Place {
    /// A finding about the setting that was given here.
    pub(super) fn finding(
        &self,
        severity: Severity,
        code: &'static str,
        key: &str,
        what: String,
        why: &str,
        help: &str,
    ) -> Diagnostic {
        match self {
            Self::Flag => {
                let flag = setting(key).map(|s| s.flag).unwrap_or(key);
                Diagnostic::file(severity, code, format!("--{flag}"), what, why, help)
            }
            Self::Environment => {
                let name = format!("REDDWARF_{}", key.to_ascii_uppercase());
                Diagnostic::file(severity, code, name, what, why, help)
            }
            Self::File(source, at) if severity == Severity::Warning => {
                Diagnostic::warning(code, source, *at, what, why, help)
            }
            Self::File(source, at) => Diagnostic::error(code, source, *at, what, why, help),
        }
    }
}

/// The texts of one setting and where they were given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) texts: Vec<String>,
    pub(super) place: Place,
}

/// All that was given, the strongest of each key.
#[derive(Debug, Default)]
pub(super) struct AllGiven {
    pub(super) values: BTreeMap<&'static str, Given>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl AllGiven {
    pub(super) fn collect(
        cli: &Cli,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        file: Option<&Arc<Source>>,
    ) -> Self {
        let mut all = Self::default();
        if let Some(file) = file {
            all.file(file);
        }
        all.environment(environment);
        for (key, values) in &cli.values {
            all.insert_os(key, values.iter().map(|v| (*v).clone()), Place::Flag);
        }
        all
    }

    fn insert_os(&mut self, key: &'static str, values: impl Iterator<Item = OsString>, place: Place) {
        let mut texts = Vec::new();
        for value in values {
            match value.into_string() {
                Ok(text) => texts.push(text),
                Err(value) => {
                    let what = format!("`{key}` is not UTF-8: {}", value.to_string_lossy());
                    self.bad(key, &place, what, "settings are text", "write it in UTF-8");
                    return;
                }
            }
        }
        self.values.insert(key, Given { texts, place });
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let mut variables: Vec<_> = variables.into_iter().collect();
        variables.sort();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|n| n.starts_with("REDDWARF_")) else { continue };
            if value.is_empty() || NO_SETTINGS.contains(&name) {
                continue;
            }
            let Some(known) = SETTINGS.iter().find(|s| s.environment() == name) else {
                let names: Vec<String> = SETTINGS.iter().map(|s| s.environment()).collect();
                let near = did_you_mean(name, names.iter().map(String::as_str));
                self.diagnostics.push(Diagnostic::file(
                    Severity::Warning,
                    codes::UNKNOWN_SETTING,
                    name,
                    "the environment variable is no setting",
                    "it starts with REDDWARF_ but has no effect here",
                    near.map(|n| format!("did you mean `{n}`?")).unwrap_or_else(|| "unset it".into()),
                ));
                continue;
            };
            let values: Vec<OsString> = match known.form {
                Form::List => std::env::split_paths(&value).map(Into::into).collect(),
                Form::Commas => match value.to_str() {
                    Some(text) => text.split(',').map(|part| part.trim().into()).collect(),
                    None => vec![value],
                },
                _ => vec![value],
            };
            self.insert_os(known.key, values.into_iter(), Place::Environment);
        }
    }

    fn file(&mut self, source: &Arc<Source>) {
        let mut findings = Findings::new(source);
        let root = toml_tables::parse_tree(&source.text, &Limits::default(), &mut findings);
        let entries = match root {
            Some(Node { value: NodeValue::Mapping(entries), .. }) => entries,
            _ => Vec::new(),
        };
        for entry in entries {
            let Some(known) = setting(&entry.key) else {
                unknown(&entry, &mut findings);
                continue;
            };
            let Some(texts) = texts(&entry.value, known.form) else {
                let wanted = match known.form {
                    Form::Text => "a text in quotes",
                    Form::Number => "a whole number",
                    Form::Quantity => "a quantity like \"500m\" or \"1Gi\"",
                    Form::Boolean => "true or false",
                    Form::List | Form::Commas => "a list of texts",
                };
                findings.error(
                    codes::BAD_SETTING,
                    entry.value.at,
                    format!("`{}` is {}", entry.key, entry.value.value.kind()),
                    &format!("it takes {wanted}"),
                    &format!("write {wanted}"),
                );
                continue;
            };
            self.values.insert(known.key, Given { texts, place: Place::File(source.clone(), entry.value.at) });
        }
        self.diagnostics.extend(findings.finish());
    }

    /// Reports a bad value where it was given.
    pub(super) fn bad(&mut self, key: &str, place: &Place, what: String, why: &str, help: &str) {
        self.report(codes::BAD_SETTING, key, place, what, why, help);
    }

    pub(super) fn report(&mut self, code: &'static str, key: &str, place: &Place, what: String, why: &str, help: &str) {
        self.diagnostics.push(place.finding(Severity::Error, code, key, what, why, help));
    }
}

fn unknown(entry: &Entry, findings: &mut Findings<'_>) {
    let dashed = entry.key.replace('-', "_");
    let near = if setting(&dashed).is_some() {
        Some(dashed)
    } else {
        did_you_mean(&entry.key, SETTINGS.iter().map(|s| s.key))
    };
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "see `reddwarfd --help` for the settings there are".to_owned(),
    };
    let why = "a setting that is misspelt would silently have no effect";
    findings.error(codes::UNKNOWN_SETTING, entry.at, format!("setting `{}` is not known", entry.key), why, &help);
}

fn texts(node: &Node, form: Form) -> Option<Vec<String>> {
    let text = match (&node.value, form) {
        (NodeValue::String(text), Form::Text | Form::Quantity) => text.clone(),
        (NodeValue::Number(n), Form::Quantity) => n.to_string(),
        (NodeValue::Number(n), Form::Number) if !n.is_f64() => n.to_string(),
        (NodeValue::Bool(b), Form::Boolean) => b.to_string(),
        (NodeValue::Sequence(items), Form::List | Form::Commas) => {
            return items.iter().map(|i| i.text().map(str::to_owned)).collect();
        }
        _ => return None,
    };
    Some(vec![text])
}
