//! Why a read or write was refused. The API turns these into `Status` objects; texts follow kube-apiserver's.

use reddwarf_objects::apply::ApplyError;
use reddwarf_objects::patch::PatchError;
use reddwarf_objects::{FieldError, ObjectKey};
use reddwarf_store::{CommitError, Revision, StoreError};

/// A refused or failed operation.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such object: 404.
    #[error("{} \"{}\" not found", .0.group_resource(), .0.name)]
    NotFound(ObjectKey),
    /// The name is taken: 409.
    #[error("{} \"{}\" already exists", .0.group_resource(), .0.name)]
    AlreadyExists(ObjectKey),
    /// The object changed under the writer (stale resourceVersion): 409.
    #[error(
        "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to the latest version and try again",
        .0.group_resource(), .0.name
    )]
    Conflict(ObjectKey),
    /// A precondition of a delete does not hold: 409. The reference names the Kind here.
    #[error("Operation cannot be fulfilled on {} \"{name}\": {message}", qualified(kind, group))]
    Precondition {
        /// Kind, `Pod`.
        kind: String,
        /// API group of the kind.
        group: String,
        /// Name.
        name: String,
        /// Which precondition, what was found.
        message: String,
    },
    /// A file declares the object and so decides over these fields (or over its existence): 409.
    #[error("Operation cannot be fulfilled on {} \"{}\": {}", key.group_resource(), key.name, owned_text(source_file, *line, fields))]
    FileOwned {
        /// The object.
        key: Box<ObjectKey>,
        /// The declaring file as shown to users.
        source_file: String,
        /// The line of the first field, or of the object, where it is known.
        line: Option<u32>,
        /// Fields the write would have changed; empty for a delete.
        fields: Vec<String>,
    },
    /// Bad fields: 422.
    #[error("{} \"{name}\" is invalid: {}", qualified(kind, group), join(errors))]
    Invalid {
        /// Kind, `Pod`.
        kind: String,
        /// API group of the kind.
        group: String,
        /// Name, possibly empty.
        name: String,
        /// What is wrong where.
        errors: Vec<FieldError>,
    },
    /// Well-formed, but not allowed now: 403.
    #[error("{} \"{}\" is forbidden: {message}", key.group_resource(), key.name)]
    Forbidden {
        /// The object.
        key: ObjectKey,
        /// Why.
        message: String,
    },
    /// Its namespace is being deleted and takes nothing new: 403.
    #[error(
        "{} \"{}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
        key.group_resource(), key.name
    )]
    Terminating {
        /// The object.
        key: Box<ObjectKey>,
        /// The namespace.
        namespace: String,
    },
    /// An eviction would leave fewer pods than a budget allows: 429.
    #[error("Cannot evict pod as it would violate the pod's disruption budget.")]
    Budget {
        /// Which budget, what it needs and has.
        message: String,
        /// After how many seconds to try again, where that is known.
        retry_seconds: Option<u32>,
    },
    /// A pod has a node already, or is going: 409.
    #[error("Operation cannot be fulfilled on pods/binding \"{name}\": {message}")]
    Binding {
        /// Name of the pod.
        name: String,
        /// Why.
        message: String,
    },
    /// What the reference does not do either: 500.
    #[error("{0}")]
    Unsupported(String),
    /// A patch can't be carried out: 400, 413, 422 or 500, see [`PatchError`].
    #[error(transparent)]
    Patch(PatchError),
    /// An apply can't be carried out: 400, 409 or 500, see [`ApplyError`].
    #[error(transparent)]
    Apply(ApplyError),
    /// The gate refused; its own error says how to answer.
    #[error(transparent)]
    Refused(Box<dyn std::error::Error + Send + Sync>),
    /// The request makes no sense: 400.
    #[error("{0}")]
    BadRequest(String),
    /// A list or watch asks for a revision that is no longer retained: 410.
    #[error("too old resource version: {asked} ({oldest})")]
    Expired {
        /// Asked for.
        asked: Revision,
        /// Oldest retained.
        oldest: Revision,
    },
    /// A list asks for a revision that does not exist yet: 504.
    #[error("Timeout: Too large resource version: {asked}, current: {current}")]
    TooLarge {
        /// Asked for.
        asked: Revision,
        /// Newest.
        current: Revision,
    },
    /// Many writers fight over one object; try again: 429.
    #[error("{} \"{}\" changed {attempts} times while writing it; try again", key.group_resource(), key.name)]
    Contended {
        /// The object.
        key: ObjectKey,
        /// How often it was tried.
        attempts: u32,
    },
    /// The store refused a transaction for a reason of its own: 500 or 503.
    #[error("the store could not write: {0}")]
    Commit(#[source] CommitError),
    /// The store could not be read: 500.
    #[error("the store could not be read: {0}")]
    Store(#[from] StoreError),
    /// A stored object can't be read: 500.
    #[error("stored object {key} is damaged: {why}; delete it or restore a backup")]
    Damaged {
        /// Its key in the store.
        key: String,
        /// Why.
        why: String,
    },
}

/// What a user reads when a file owns the object.
fn owned_text(source: &str, line: Option<u32>, fields: &[String]) -> String {
    let place = place(source, line);
    if fields.is_empty() {
        format!("it is declared by {place}; remove it from that file and the daemon deletes it")
    } else {
        format!("it is declared by {place}; change {} there", fields.join(", "))
    }
}

/// `/etc/reddwarf.d/web.yaml:7`.
fn place(source: &str, line: Option<u32>) -> String {
    match line {
        Some(line) => format!("{source}:{line}"),
        None => source.to_owned(),
    }
}

/// `Pod`, `Deployment.apps`.
fn qualified(kind: &str, group: &str) -> String {
    if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") }
}

fn join(errors: &[FieldError]) -> String {
    match errors {
        [one] => one.to_string(),
        many => {
            let mut texts: Vec<String> = Vec::with_capacity(many.len());
            for error in many {
                let text = error.to_string();
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
            if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) }
        }
    }
}
