//! Bodies of the daemon's own routes under `/reddwarf/v1`, mirroring `daemon/api/src/types.rs`: change both together.
//! Unknown fields and variants are tolerated and absent ones are empty, so that a client and a daemon of different
//! versions understand each other as far as they can.

use crate::exit::Exit;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A Kubernetes `Status`: how every refusal comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    /// HTTP status.
    pub(crate) code: u16,
    /// `NotFound`, `Conflict`, ...
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
    /// `Success` or `Failure`.
    pub(crate) status: String,
    /// Kind, name and causes.
    pub(crate) details: Value,
    /// Findings in files, of our own routes.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Status {
    /// Reads the body of an answer with an HTTP status of 400 or more; a body that is no Status becomes one.
    pub(crate) fn parse(code: u16, body: &[u8]) -> Self {
        let mut status: Self = serde_json::from_slice(body).unwrap_or_default();
        status.code = code;
        if !status.diagnostics.is_empty() {
            // The message repeats the findings, which are shown in full.
            let what = status.message.split(':').next().unwrap_or_default();
            let count = status.diagnostics.len();
            status.message = format!("{what}: {count} finding{}", if count == 1 { "" } else { "s" });
        }
        if status.message.is_empty() {
            let text = String::from_utf8_lossy(body);
            let text = text.trim();
            status.message = match text {
                "" => format!("the daemon answered with HTTP status {code}"),
                text => format!(
                    "the daemon answered with HTTP status {code}: {}",
                    text.chars().take(400).collect::<String>()
                ),
            };
        }
        status
    }

    /// How to mend it, where that is known.
    pub(crate) fn help(&self) -> String {
        match (self.code, self.reason.as_str()) {
            (401 | 403, _) => "run it as root or as a member of the daemon's socket group".into(),
            (429 | 503, _) => "try again in a moment".into(),
            (500, _) => "look at `journalctl -u reddwarfd`".into(),
            _ => String::new(),
        }
    }
}

/// Text of one manifest file as the client read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FileText {
    /// Name for diagnostics; its extension picks YAML, JSON or TOML (`-` is YAML).
    pub(crate) name: String,
    /// Contents, UTF-8.
    pub(crate) text: String,
}

/// Files of a `plan` or `apply` request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FileSet {
    /// In the order given on the command line.
    pub(crate) files: Vec<FileText>,
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Worth knowing; nothing is refused.
    Warning,
    /// The document was refused.
    Error,
    /// Something that a newer daemon says.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One finding in a manifest, with its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Diagnostic {
    /// Error or warning.
    pub(crate) severity: Severity,
    /// Stable code, `RD0012`.
    pub(crate) code: String,
    /// File as shown to users.
    pub(crate) file: String,
    /// 1-based line; 0 when the finding concerns the whole file.
    pub(crate) line: u32,
    /// 1-based column in characters; 0 with `line` 0.
    pub(crate) column: u32,
    /// What is wrong.
    pub(crate) what: String,
    /// Why that is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) help: String,
    /// The source line and caret as a terminal shows them (no colour), rustc style.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) rendered: String,
}

/// `GET status`: the daemon, its sources and its pods on one screen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StatusReport {
    /// Daemon version, `0.1.0`.
    pub(crate) version: String,
    /// Name of this node.
    pub(crate) node: String,
    /// Host adapter in use: `linux`, `illumos` or `sim`.
    pub(crate) host: String,
    /// When the daemon started.
    pub(crate) started: Option<DateTime<Utc>>,
    /// Nothing is degraded: exit status 0 rather than 3.
    pub(crate) ready: bool,
    /// Named checks behind `ready`, in a fixed order.
    pub(crate) checks: Vec<Check>,
    /// Generation of the directory that is applied; 0 before the first.
    pub(crate) generation: u64,
    /// Latest revision of the store.
    pub(crate) revision: u64,
    /// Manifest directories, lowest layer first, with their files.
    pub(crate) sources: Vec<SourceStatus>,
    /// Pods with what a person asks first.
    pub(crate) pods: Vec<PodSummary>,
    /// Anything else that needs a person: a recovered database, a refused setting, a held prune.
    pub(crate) notices: Vec<String>,
    /// How Kubernetes clients reach the daemon; absent while it does not listen on TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubernetes: Option<KubernetesAccess>,
    /// The name server; absent when it is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dns: Option<DnsStatus>,
    /// Where volumes are kept; absent without a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage: Option<StorageStatus>,
}

/// The storage in `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StorageStatus {
    /// `zfs`, `btrfs` or `directory`.
    pub(crate) engine: String,
    /// Its place: a path or a dataset.
    pub(crate) place: String,
    /// Why this engine.
    pub(crate) why: String,
    /// What pods' root file systems are: `clones` of images on this storage, or `overlays`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) roots: String,
    /// Bytes that the place holds; 0 when that is not known.
    pub(crate) total_bytes: u64,
    /// Bytes that are free.
    pub(crate) free_bytes: u64,
    /// Why it can't be used just now; empty when it can.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) problem: String,
}

/// The name server in `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DnsStatus {
    /// Where names of services and pods end, `cluster.local`.
    pub(crate) domain: String,
    /// Addresses that it listens on, or means to.
    pub(crate) listeners: Vec<DnsListener>,
    /// Names that it knows.
    pub(crate) names: u64,
    /// Servers that are asked for all other names, the first first.
    pub(crate) upstreams: Vec<String>,
    /// How this host itself resolves names of services, or what to do so that it does.
    pub(crate) host: String,
}

/// One address of the name server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DnsListener {
    /// Address and port.
    pub(crate) address: String,
    /// It answers there.
    pub(crate) ok: bool,
    /// Why not; empty when it does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

/// The Kubernetes API over TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KubernetesAccess {
    /// Address it listens on, `127.0.0.1:6443`.
    pub(crate) listen: String,
    /// Path of the admin's kubeconfig.
    pub(crate) kubeconfig: String,
}

/// `GET kubeconfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Kubeconfig {
    /// Where the daemon keeps it.
    pub(crate) path: String,
    /// Its text: a secret.
    pub(crate) kubeconfig: String,
}

/// `POST tokens`: a bearer token for a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TokenRequest {
    /// User name.
    pub(crate) user: String,
    /// Groups.
    pub(crate) groups: Vec<String>,
    /// What it is for.
    pub(crate) description: String,
    /// Seconds from now; for ever when absent.
    pub(crate) expiration_seconds: Option<u64>,
}

/// Answer of `POST tokens`: the only time that the token is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TokenCreated {
    /// The token: a secret.
    pub(crate) token: String,
    /// What `GET tokens` shows of it.
    #[serde(flatten)]
    pub(crate) summary: TokenSummary,
    /// A kubeconfig with the token; empty while the API does not listen on TCP.
    pub(crate) kubeconfig: String,
}

/// `GET tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TokenList {
    /// Oldest first.
    pub(crate) items: Vec<TokenSummary>,
}

/// A token without its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TokenSummary {
    /// Tells tokens apart; revokes one.
    pub(crate) id: String,
    /// User name.
    pub(crate) user: String,
    /// Groups.
    pub(crate) groups: Vec<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    /// When it was made.
    pub(crate) created: Option<DateTime<Utc>>,
    /// When it ends; never when absent.
    pub(crate) expires: Option<DateTime<Utc>>,
}

/// One named check of `/readyz` and `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Check {
    /// `store`, `directory`, `node`, ...
    pub(crate) name: String,
    /// Passed.
    pub(crate) ok: bool,
    /// Why not; empty when passed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

/// One manifest directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SourceStatus {
    /// Absolute path.
    pub(crate) path: String,
    /// The last scan saw the whole directory (an incomplete scan deletes nothing).
    pub(crate) complete: bool,
    /// Why the directory could not be read; empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    /// When it was last read.
    pub(crate) scanned: Option<DateTime<Utc>>,
    /// Its files in name order.
    pub(crate) files: Vec<FileStatus>,
}

/// One manifest file and its verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FileStatus {
    /// Path as shown to users.
    pub(crate) path: String,
    /// What became of it.
    pub(crate) verdict: FileVerdict,
    /// Objects that it declares, `pods/default/web`.
    pub(crate) objects: Vec<String>,
    /// Findings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// What became of a manifest file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileVerdict {
    /// In force.
    Applied,
    /// Hidden by a file of the same relative name in a higher layer, or by `/dev/null`.
    Masked,
    /// Refused; what it declared before stays in force.
    Invalid,
    /// Read, but something that it declares was refused or waits.
    Partial,
    /// Not a manifest (an editor's backup, a dot file).
    Ignored,
    /// Something that a newer daemon says.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A pod in `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSummary {
    /// Namespace.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
    /// As `get pods` shows it: `Running`, `CrashLoopBackOff`, ...
    pub(crate) status: String,
    /// Containers ready / containers, `1/2`.
    pub(crate) ready: String,
    /// Restarts of all containers.
    pub(crate) restarts: u32,
    /// Pod address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) ip: String,
    /// Declaring file; empty for pods made through the API.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) source: String,
    /// Reason in one line when it is not as asked; empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// When it was made.
    pub(crate) created: Option<DateTime<Utc>>,
}

/// What a planned step does to its pod, as `plan` marks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PlanAction {
    /// `+` something new.
    Create,
    /// `~` changed without a restart.
    Update,
    /// `~` a container restarts.
    Restart,
    /// `-/+` stopped and made anew.
    Recreate,
    /// `-` removed.
    Remove,
    /// `!` cannot proceed.
    Blocked,
    /// Something that a newer daemon says.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One line of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PlanStep {
    /// What it does.
    pub(crate) action: PlanAction,
    /// What it does it to: `pods/default/web`, `configmaps/default/site`.
    pub(crate) object: String,
    /// What happens, in words: `start container main`.
    pub(crate) what: String,
    /// Why.
    pub(crate) reason: String,
    /// `file:line` that caused it; empty for API objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) source: String,
    /// Fields that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<FieldChange>,
    /// Expected interruption in milliseconds; 0 for none.
    pub(crate) interruption_ms: u64,
}

/// One changed field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FieldChange {
    /// `spec.containers[0].image`.
    pub(crate) path: String,
    /// Before; absent when added. Values of Secrets are replaced by `<redacted>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) old: Option<Value>,
    /// After; absent when removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) new: Option<Value>,
}

/// `POST plan`: what would be done. Nothing was executed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PlanReport {
    /// Steps in order; empty when nothing is to do.
    pub(crate) steps: Vec<PlanStep>,
    /// Findings in the given files; an error here means that the plan leaves that document out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What could not be observed, so that the plan may be incomplete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unknown: Vec<String>,
}

/// `GET why/...`: from the source line to the last error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WhyReport {
    /// `pods/default/web`.
    pub(crate) object: String,
    /// It is as asked.
    pub(crate) ok: bool,
    /// One sentence.
    pub(crate) summary: String,
    /// Causes, outermost first: declared in, condition, planned step, last error.
    pub(crate) chain: Vec<WhyLink>,
}

/// One link of the chain of causes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WhyLink {
    /// Kind of link: `source`, `condition`, `container`, `plan`, `error`, `event`.
    pub(crate) kind: String,
    /// What is known.
    pub(crate) text: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<DateTime<Utc>>,
}

/// Verdict on one object of an `apply`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ApplyVerdict {
    /// Made.
    Created,
    /// Changed.
    Configured,
    /// Was already so.
    Unchanged,
    /// Not applied; see `message`.
    Refused,
    /// Waits until the object of the same name that is being deleted is gone.
    Pending,
    /// Deleted, or marked for deletion.
    Deleted,
    /// Something that a newer daemon says.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One object of an `apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AppliedObject {
    /// `v1`, `apps/v1`.
    pub(crate) api_version: String,
    /// `Pod`.
    pub(crate) kind: String,
    /// Plural with group, `pods`, `deployments.apps`.
    pub(crate) resource: String,
    /// Namespace; empty for cluster-wide kinds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
    /// What happened.
    pub(crate) verdict: ApplyVerdict,
    /// Why refused or pending; empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    /// HTTP status that a refusal would have on its own; 0 when not refused.
    pub(crate) code: u16,
    /// `file:line` of the document.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) source: String,
    /// Changed fields of a configured object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<FieldChange>,
    /// Fields that have no effect in this version, deprecated values, ...
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
}

impl AppliedObject {
    /// How a refusal ends the program.
    pub(crate) fn refusal(&self) -> Option<Exit> {
        (self.verdict == ApplyVerdict::Refused)
            .then(|| if self.code == 0 { Exit::Conflict } else { Exit::of_http(self.code) })
    }
}

/// `POST apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ApplyReport {
    /// In document order.
    pub(crate) objects: Vec<AppliedObject>,
    /// Findings in the files. With an error nothing at all is applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Revision that holds the result: watch from here to wait.
    pub(crate) revision: u64,
    /// Nothing was written.
    pub(crate) dry_run: bool,
}

/// `GET generations`, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GenerationList {
    /// Retained generations.
    pub(crate) items: Vec<GenerationSummary>,
}

/// One generation of the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GenerationSummary {
    /// Number, rising by one.
    pub(crate) number: u64,
    /// When it was committed.
    pub(crate) time: Option<DateTime<Utc>>,
    /// Files in it.
    pub(crate) files: u64,
    /// Objects that it declares.
    pub(crate) objects: u64,
    /// Errors in it.
    pub(crate) errors: u64,
    /// What led to it: `2 files changed`, `rollback to 7`.
    pub(crate) message: String,
    /// The one in force.
    pub(crate) current: bool,
}

/// `GET generations/{n}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GenerationDetail {
    /// Summary.
    #[serde(flatten)]
    pub(crate) summary: GenerationSummary,
    /// Files with the digest of their contents.
    pub(crate) files_list: Vec<GenerationFile>,
    /// Objects, `pods/default/web`.
    pub(crate) objects_list: Vec<String>,
    /// Findings at the time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// A file in a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GenerationFile {
    /// Path as shown to users.
    pub(crate) path: String,
    /// `sha256:...` of the contents.
    pub(crate) digest: String,
}

/// `GET generations/{a}/diff/{b}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GenerationDiff {
    /// From.
    pub(crate) from: u64,
    /// To.
    pub(crate) to: u64,
    /// Objects that differ.
    pub(crate) objects: Vec<ObjectDiff>,
    /// Files that differ: `+ web.yaml`, `~ db.yaml`, `- old.yaml`.
    pub(crate) files: Vec<String>,
}

/// One object that differs between two generations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ObjectDiff {
    /// `pods/default/web`.
    pub(crate) object: String,
    /// `create`, `update` or `remove`.
    pub(crate) action: PlanAction,
    /// Changed fields of an update.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<FieldChange>,
}

/// `POST generations/{n}/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RollbackReport {
    /// Generation that the rollback made.
    pub(crate) generation: u64,
    /// Verdict for each object.
    pub(crate) objects: Vec<AppliedObject>,
    /// Files rewritten in the directory (`?write=true`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) files_written: Vec<String>,
    /// What a person must know, such as that the directory still holds the newer files.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

/// `POST images`: import from a path on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ImageImport {
    /// Absolute path of a rootfs directory, an OCI layout or an OCI/docker archive.
    pub(crate) source: String,
    /// Name to give it, `web:1`.
    pub(crate) name: String,
}

/// An image on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Image {
    /// Content digest.
    pub(crate) id: String,
    /// Names.
    pub(crate) names: Vec<String>,
    /// Bytes on disk.
    pub(crate) size_bytes: u64,
    /// ENTRYPOINT and CMD.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    /// What registries call it, by the names under which it came from them.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) pulled: std::collections::BTreeMap<String, String>,
    /// When a container was last started from it, or it came here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_used: Option<String>,
}

/// `POST images/pull`: begin to fetch an image from its registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImagePull {
    /// The image as users write it, `nginx:1.29`.
    pub(crate) image: String,
}

/// A pull under way, or one that ended lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImagePullStatus {
    /// The image in full, `docker.io/library/nginx:1.29`.
    pub(crate) image: String,
    /// `waiting`, `resolving`, `fetching`, `unpacking`, `pulled` or `failed`.
    pub(crate) state: String,
    /// Bytes that are here of those that are to be fetched.
    pub(crate) bytes_done: u64,
    /// Bytes that are to be fetched.
    pub(crate) bytes_total: u64,
    /// Layers that are unpacked.
    pub(crate) layers_done: u32,
    /// Layers in all.
    pub(crate) layers_total: u32,
    /// Once pulled: `registry/repository@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repo_digest: Option<String>,
    /// Once pulled: bytes in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size_bytes: Option<u64>,
    /// Once pulled: whether anything had to be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fetched: Option<bool>,
    /// Once it ended: how long it took from its turn on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) took_milliseconds: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// `GET images/pulls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImagePullList {
    /// Newest last.
    pub(crate) items: Vec<ImagePullStatus>,
}

/// `POST images/build`: make an image of another, of files of the host, and of what commands change in a pod of their
/// own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ImageBuild {
    /// Name to give it, `local/web:1`.
    pub(crate) name: String,
    /// The image below, by name; pulled when it is not here.
    pub(crate) from: Option<String>,
    /// Or a root file system: absolute path of all that can be imported.
    pub(crate) rootfs: Option<String>,
    /// Files to put over it, in this order.
    pub(crate) files: Vec<ImageBuildFile>,
    /// Commands, each the argv of a program in the image. Root runs them.
    pub(crate) run: Vec<Vec<String>>,
    /// Where their pods are made; `default` when absent.
    pub(crate) namespace: Option<String>,
    /// ENTRYPOINT; that of the image below when absent.
    pub(crate) entrypoint: Option<Vec<String>>,
    /// CMD; that of the image below when absent, unless there is another entrypoint.
    pub(crate) cmd: Option<Vec<String>>,
    /// `NAME=value`, over those of the image below.
    pub(crate) env: Vec<String>,
    /// WORKDIR; that of the image below when absent.
    pub(crate) workdir: Option<String>,
    /// USER; that of the image below when absent.
    pub(crate) user: Option<String>,
    /// STOPSIGNAL; that of the image below when absent.
    pub(crate) stop_signal: Option<String>,
}

/// Files for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ImageBuildFile {
    /// Absolute path of a file, or of a directory whose content is meant.
    pub(crate) source: String,
    /// Absolute path in the image.
    pub(crate) target: String,
    /// User and group id of all of it, root's when absent.
    pub(crate) owner: Option<(u32, u32)>,
}

/// How far a build is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ImageBuildStatus {
    /// For `GET images/builds/ID`.
    pub(crate) id: String,
    /// The image's name.
    pub(crate) name: String,
    /// `preparing`, `running`, `built` or `failed`.
    pub(crate) state: String,
    /// What is being done, in words.
    pub(crate) doing: String,
    /// What commands printed, from `output_from` on: the newest of it.
    pub(crate) output: String,
    /// How many bytes came before `output`.
    pub(crate) output_from: u64,
    /// Once built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<Image>,
    /// Once it ended: how long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) took_milliseconds: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// `POST images/prune`: what was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImagesPruned {
    /// Names, or ids of what had none.
    pub(crate) removed: Vec<String>,
    /// Bytes that they took, layers that others still have included.
    pub(crate) bytes: u64,
}

/// `GET images`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ImageList {
    /// Images in name order.
    pub(crate) items: Vec<Image>,
}

/// `GET volumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeList {
    /// Volumes of the host's storage in name order.
    pub(crate) items: Vec<StoredVolume>,
}

/// A volume of the host's storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StoredVolume {
    /// Its name there.
    pub(crate) name: String,
    /// The claim that it was made for, `namespace/name`.
    pub(crate) claim: String,
    /// Whether a PersistentVolume says that it is its.
    pub(crate) known: bool,
    /// The size that it is kept to, or that was asked for; 0: none.
    pub(crate) quota_bytes: u64,
    /// What its files take.
    pub(crate) used_bytes: u64,
    /// Its snapshots, the oldest first.
    pub(crate) snapshots: Vec<VolumeSnapshot>,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeSnapshot {
    /// Its name.
    pub(crate) name: String,
    /// When it was made.
    pub(crate) created: Option<DateTime<Utc>>,
}

/// Body of `POST volumes/ACTION`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeRequest {
    /// Namespace of the claims that are named.
    pub(crate) namespace: String,
    /// A claim's name, or a volume's.
    pub(crate) volume: String,
    /// A snapshot's name.
    pub(crate) snapshot: String,
    /// The older snapshot of an increment; empty for a whole stream.
    pub(crate) since: String,
    /// Absolute path of a file on the daemon's host.
    pub(crate) path: String,
    /// The claim that a clone is for.
    pub(crate) to: String,
}

/// `POST reload`: the directory was read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReloadReport {
    /// Generation in force afterwards.
    pub(crate) generation: u64,
    /// Whether this reload made it.
    pub(crate) changed: bool,
    /// Verdict for each object that is not unchanged.
    pub(crate) objects: Vec<AppliedObject>,
    /// Findings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// An acknowledgement with a sentence for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Done {
    /// What was done.
    pub(crate) message: String,
}

/// `POST backup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BackupRequest {
    /// Absolute path of a file that does not exist yet, on the daemon's host.
    pub(crate) path: String,
}

/// Answer of `POST backup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BackupReport {
    /// Where it was written.
    pub(crate) path: String,
    /// Revision that it holds.
    pub(crate) revision: u64,
    /// Bytes.
    pub(crate) size_bytes: u64,
}

/// `POST restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RestoreRequest {
    /// Absolute path of a backup on the daemon's host.
    pub(crate) path: String,
}

impl Diagnostic {
    /// The finding as a terminal shows it.
    pub(crate) fn text(&self) -> String {
        if !self.rendered.is_empty() {
            return format!("{}\n", self.rendered.trim_end());
        }
        let place = match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}:{}", self.file, self.column),
        };
        let parts: Vec<&str> =
            [&self.what, &self.why, &self.help].into_iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
        format!("{place}: {}\n", parts.join(", "))
    }

    /// Does it keep what it concerns from being applied?
    pub(crate) fn is_error(&self) -> bool {
        self.severity != Severity::Warning
    }
}

impl AppliedObject {
    /// `pod/web`, as `-o name` has it.
    pub(crate) fn short(&self) -> String {
        let kind = self.kind.to_lowercase();
        match self.resource.split_once('.') {
            Some((_, group)) => format!("{kind}.{group}/{}", self.name),
            None => format!("{kind}/{}", self.name),
        }
    }
}
