//! What goes to standard output: formats for machines, tables for people.

pub(crate) mod jsonpath;
pub(crate) mod table;

use crate::error::Error;
use jsonpath::JsonPath;
use serde_json::Value;

/// `-o`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Indented JSON.
    Json,
    /// YAML.
    Yaml,
    /// A table with more columns.
    Wide,
    /// `pod/web`.
    Name,
    /// A template over the JSON.
    JsonPath(JsonPath),
    /// Findings of `validate` for code hosts and editors.
    Sarif,
}

impl Output {
    /// Reads the argument of `-o`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "wide" => Ok(Self::Wide),
            "name" => Ok(Self::Name),
            "sarif" => Ok(Self::Sarif),
            _ => match text.strip_prefix("jsonpath=") {
                Some(template) => JsonPath::parse(template).map(Self::JsonPath).map_err(|e| e.to_string()),
                None => Err("use json, yaml, wide, name, jsonpath=TEMPLATE (and sarif for validate)".into()),
            },
        }
    }

    /// The text of a value; wide and name have none for values in general.
    pub(crate) fn value(&self, value: &Value) -> Result<String, Error> {
        match self {
            Self::Json => serde_json::to_string_pretty(value)
                .map(|text| text + "\n")
                .map_err(|e| Error::broken("the answer can't be written as JSON", e)),
            Self::Yaml => Ok(reddwarf_config::emit_yaml(value)),
            Self::JsonPath(path) => Ok(path.render(value)),
            Self::Wide | Self::Name | Self::Sarif => Err(Error::usage(
                "this output format does not fit this command",
                "use -o json, yaml or jsonpath=TEMPLATE",
            )),
        }
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    /// Use ANSI colours.
    pub(crate) colour: bool,
}

/// How a text is painted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it is.
    #[default]
    Plain,
    /// Green: as asked.
    Good,
    /// Yellow: on its way, or worth a look.
    Warning,
    /// Red: not as asked.
    Bad,
    /// Bold: a heading.
    Bold,
}

impl Style {
    /// `text`, painted when colours are on.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Good => "32",
            Paint::Warning => "33",
            Paint::Bad => "31",
            Paint::Bold => "1",
            Paint::Plain => return text.to_owned(),
        };
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint(Paint::Good, text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.paint(Paint::Warning, text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint(Paint::Bad, text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint(Paint::Bold, text)
    }
}

/// The paint of a status word of `get` and `status`.
pub(crate) fn status_paint(word: &str) -> Paint {
    match word {
        "Running" | "Ready" | "Succeeded" | "Completed" | "Active" | "Bound" | "ok" | "applied" => Paint::Good,
        "Pending" | "Terminating" | "ContainerCreating" | "PodInitializing" | "Unknown" | "masked" | "partial" => {
            Paint::Warning
        }
        "Failed" | "Error" | "OOMKilled" | "NotReady" | "invalid" | "Evicted" => Paint::Bad,
        other if other.contains("BackOff") || other.contains("Err") => Paint::Bad,
        other if other.starts_with("Init:") => Paint::Warning,
        _ => Paint::Plain,
    }
}

/// Control characters of foreign texts as escapes, so that no file name or message can drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}
