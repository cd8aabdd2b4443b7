//! Who writes.

use std::fmt;

/// Who makes a write; decides what it may change and is kept in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// The manifest directory. Its objects name their file in [`crate::Declared::source`]; the text here says which
    /// file or directory led to the write, for the history.
    File(String),
    /// A client of the API.
    Api {
        /// User name, as the peer's credentials or token give it: `root`, `alice`.
        user: String,
    },
    /// A part of the daemon: `node`, `controller/replicaset`, `registry`. May write any field.
    System(&'static str),
}

impl Author {
    /// The owner of what it writes in managedFields, where the write does not name one.
    pub(crate) fn manager(&self) -> String {
        match self {
            Self::File(source) => source.clone(),
            Self::Api { .. } => "unknown".to_owned(),
            Self::System(part) => format!("reddwarf-{}", part.replace('/', "-")),
        }
    }

    /// Is this a client of the API, bound by ownership?
    pub fn is_api(&self) -> bool {
        matches!(self, Self::Api { .. })
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::Api { user } => write!(f, "api:{user}"),
            Self::System(part) => write!(f, "system:{part}"),
        }
    }
}
