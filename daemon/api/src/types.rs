//! Bodies of the daemon's own routes under `/reddwarf/v1`, which stand beside the Kubernetes routes.
//! JSON, camelCase, absent fields left out. `reddwarfctl` mirrors this file: change both together.
//!
//! | route | request | answer |
//! |---|---|---|
//! | `GET status` | | [`StatusReport`] |
//! | `POST plan` | [`FileSet`] (empty: the current directory and objects) | [`PlanReport`] |
//! | `GET why/{plural}/{namespace or -}/{name}` | | [`WhyReport`] |
//! | `POST restart/{namespace}/{pod}?container=` | | [`Done`] |
//! | `POST apply?dryRun=&namespace=&prune=` | [`FileSet`] | [`ApplyReport`] (422 with diagnostics when a file is bad) |
//! | `GET generations` | | [`GenerationList`] |
//! | `GET generations/{n}` | | [`GenerationDetail`] |
//! | `GET generations/{a}/diff/{b}` | | [`GenerationDiff`] |
//! | `POST generations/{n}/rollback?write=true` | | [`RollbackReport`] |
//! | `GET images` | | [`ImageList`] |
//! | `POST images` | [`ImageImport`] | [`Image`] |
//! | `DELETE images?name=` | | [`Done`] |
//! | `POST images/pull` | [`ImagePull`] | [`ImagePullStatus`] |
//! | `GET images/pulls` | | [`ImagePullList`] |
//! | `POST images/build` | [`ImageBuild`] | [`ImageBuildStatus`] |
//! | `GET images/builds/ID` | | [`ImageBuildStatus`] |
//! | `POST images/prune?all=` | | [`ImagesPruned`] |
//! | `GET volumes` | | [`VolumeList`] |
//! | `POST volumes/{snapshot,snapshot-remove,rollback,clone,send,receive}` | [`VolumeRequest`] | [`Done`] |
//! | `POST reload` | | [`ReloadReport`] |
//! | `POST reconcile?allowPrune=true` | | [`Done`] |
//! | `POST shutdown?stopPods=true` | | [`Done`] |
//! | `POST backup` | [`BackupRequest`] | [`BackupReport`] |
//! | `POST restore` | [`RestoreRequest`] | [`Done`] |
//!
//! Errors are Kubernetes `Status` objects on these routes too.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Text of one manifest file as the client read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileText {
    /// Name for diagnostics; its extension picks YAML, JSON or TOML (`-` is YAML).
    pub name: String,
    /// Contents, UTF-8.
    pub text: String,
}

/// Files of a `plan` or `apply` request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSet {
    /// In the order given on the command line.
    #[serde(default)]
    pub files: Vec<FileText>,
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is refused.
    Warning,
    /// The document was refused.
    Error,
}

/// One finding in a manifest, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Stable code, `RD0012`.
    pub code: String,
    /// File as shown to users.
    pub file: String,
    /// 1-based line; 0 when the finding concerns the whole file.
    #[serde(default)]
    pub line: u32,
    /// 1-based column in characters; 0 with `line` 0.
    #[serde(default)]
    pub column: u32,
    /// What is wrong.
    pub what: String,
    /// Why that is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// The source line and caret as a terminal shows them (no colour), rustc style.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rendered: String,
}

/// `GET status`: the daemon, its sources and its pods on one screen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// Daemon version, `0.1.0`.
    pub version: String,
    /// Name of this node.
    pub node: String,
    /// Host adapter in use: `linux`, `illumos` or `sim`.
    pub host: String,
    /// When the daemon started.
    pub started: Option<DateTime<Utc>>,
    /// Nothing is degraded: exit status 0 rather than 3.
    pub ready: bool,
    /// Named checks behind `ready`, in a fixed order.
    pub checks: Vec<Check>,
    /// Generation of the directory that is applied; 0 before the first.
    pub generation: u64,
    /// Latest revision of the store.
    pub revision: u64,
    /// Manifest directories, lowest layer first, with their files.
    pub sources: Vec<SourceStatus>,
    /// Pods with what a person asks first.
    pub pods: Vec<PodSummary>,
    /// Anything else that needs a person: a recovered database, a refused setting, a held prune.
    pub notices: Vec<String>,
    /// How Kubernetes clients reach the daemon; absent while it does not listen on TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesAccess>,
    /// The name server; absent when it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsStatus>,
    /// Where volumes are kept; absent without a host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
}

/// The storage in `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// `zfs`, `btrfs` or `directory`.
    pub engine: String,
    /// Its place: a path or a dataset.
    pub place: String,
    /// Why this engine.
    pub why: String,
    /// What pods' root file systems are: `clones` of images on this storage, or `overlays`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub roots: String,
    /// Bytes that the place holds; 0 when that is not known.
    pub total_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Why it can't be used just now; empty when it can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// The name server in `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsStatus {
    /// Where names of services and pods end, `cluster.local`.
    pub domain: String,
    /// Addresses that it listens on, or means to.
    pub listeners: Vec<DnsListener>,
    /// Names that it knows.
    pub names: u64,
    /// Servers that are asked for all other names, the first first.
    pub upstreams: Vec<String>,
    /// How this host itself resolves names of services, or what to do so that it does.
    pub host: String,
}

/// One address of the name server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsListener {
    /// Address and port.
    pub address: String,
    /// It answers there.
    pub ok: bool,
    /// Why not; empty when it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The Kubernetes API over TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesAccess {
    /// Address it listens on, `127.0.0.1:6443`.
    pub listen: String,
    /// Path of the admin's kubeconfig.
    pub kubeconfig: String,
}

/// `GET kubeconfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kubeconfig {
    /// Where the daemon keeps it.
    pub path: String,
    /// Its text: a secret.
    pub kubeconfig: String,
}

/// `POST tokens`: a bearer token for a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenRequest {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What it is for.
    pub description: String,
    /// Seconds from now; for ever when absent.
    pub expiration_seconds: Option<u64>,
}

/// Answer of `POST tokens`: the only time that the token is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenCreated {
    /// The token: a secret.
    pub token: String,
    /// What `GET tokens` shows of it.
    #[serde(flatten)]
    pub summary: TokenSummary,
    /// A kubeconfig with the token; empty while the API does not listen on TCP.
    pub kubeconfig: String,
}

/// `GET tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenList {
    /// Oldest first.
    pub items: Vec<TokenSummary>,
}

/// A token without its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenSummary {
    /// Tells tokens apart; revokes one.
    pub id: String,
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was made.
    pub created: Option<DateTime<Utc>>,
    /// When it ends; never when absent.
    pub expires: Option<DateTime<Utc>>,
}

/// One named check of `/readyz` and `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// `store`, `directory`, `node`, ...
    pub name: String,
    /// Passed.
    pub ok: bool,
    /// Why not; empty when passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One manifest directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Absolute path.
    pub path: String,
    /// The last scan saw the whole directory (an incomplete scan deletes nothing).
    pub complete: bool,
    /// Why the directory could not be read; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was last read.
    pub scanned: Option<DateTime<Utc>>,
    /// Its files in name order.
    pub files: Vec<FileStatus>,
}

/// One manifest file and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStatus {
    /// Path as shown to users.
    pub path: String,
    /// What became of it.
    pub verdict: FileVerdict,
    /// Objects that it declares, `pods/default/web`.
    pub objects: Vec<String>,
    /// Findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// What became of a manifest file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileVerdict {
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
}

/// A pod in `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSummary {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// As `get pods` shows it: `Running`, `CrashLoopBackOff`, ...
    pub status: String,
    /// Containers ready / containers, `1/2`.
    pub ready: String,
    /// Restarts of all containers.
    pub restarts: u32,
    /// Pod address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Declaring file; empty for pods made through the API.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Reason in one line when it is not as asked; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it was made.
    pub created: Option<DateTime<Utc>>,
}

/// What a planned step does to its pod, as `plan` marks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PlanAction {
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
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStep {
    /// What it does.
    pub action: PlanAction,
    /// What it does it to: `pods/default/web`, `configmaps/default/site`.
    pub object: String,
    /// What happens, in words: `start container main`.
    pub what: String,
    /// Why.
    pub reason: String,
    /// `file:line` that caused it; empty for API objects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Fields that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// Expected interruption in milliseconds; 0 for none.
    #[serde(default)]
    pub interruption_ms: u64,
}

/// One changed field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// `spec.containers[0].image`.
    pub path: String,
    /// Before; absent when added. Values of Secrets are replaced by `<redacted>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<serde_json::Value>,
    /// After; absent when removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<serde_json::Value>,
}

impl Eq for FieldChange {}

/// `POST plan`: what would be done. Nothing was executed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// Steps in order; empty when nothing is to do.
    pub steps: Vec<PlanStep>,
    /// Findings in the given files; an error here means that the plan leaves that document out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// What could not be observed, so that the plan may be incomplete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// `GET why/...`: from the source line to the last error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyReport {
    /// `pods/default/web`.
    pub object: String,
    /// It is as asked.
    pub ok: bool,
    /// One sentence.
    pub summary: String,
    /// Causes, outermost first: declared in, condition, planned step, last error.
    pub chain: Vec<WhyLink>,
}

/// One link of the chain of causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyLink {
    /// Kind of link: `source`, `condition`, `container`, `plan`, `error`, `event`.
    pub kind: String,
    /// What is known.
    pub text: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
}

/// Verdict on one object of an `apply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApplyVerdict {
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
}

/// One object of an `apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedObject {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// Plural with group, `pods`, `deployments.apps`.
    pub resource: String,
    /// Namespace; empty for cluster-wide kinds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What happened.
    pub verdict: ApplyVerdict,
    /// Why refused or pending; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// HTTP status that a refusal would have on its own, 409 when a file owns the object; 0 when not refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code: u16,
    /// `file:line` of the document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Changed fields of a configured object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// Fields that have no effect in this version, deprecated values, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `POST apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyReport {
    /// In document order.
    pub objects: Vec<AppliedObject>,
    /// Findings in the files. With an error nothing at all is applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// Revision that holds the result: watch from here to wait.
    pub revision: u64,
    /// Nothing was written.
    pub dry_run: bool,
}

/// `GET generations`, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationList {
    /// Retained generations.
    pub items: Vec<GenerationSummary>,
}

/// One generation of the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationSummary {
    /// Number, rising by one.
    pub number: u64,
    /// When it was committed.
    pub time: Option<DateTime<Utc>>,
    /// Files in it.
    pub files: u64,
    /// Objects that it declares.
    pub objects: u64,
    /// Errors in it.
    pub errors: u64,
    /// What led to it: `2 files changed`, `rollback to 7`.
    pub message: String,
    /// The one in force.
    pub current: bool,
}

/// `GET generations/{n}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationDetail {
    /// Summary.
    #[serde(flatten)]
    pub summary: GenerationSummary,
    /// Files with the digest of their contents.
    pub files_list: Vec<GenerationFile>,
    /// Objects, `pods/default/web`.
    pub objects_list: Vec<String>,
    /// Findings at the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// A file in a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationFile {
    /// Path as shown to users.
    pub path: String,
    /// `sha256:...` of the contents.
    pub digest: String,
}

/// `GET generations/{a}/diff/{b}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationDiff {
    /// From.
    pub from: u64,
    /// To.
    pub to: u64,
    /// Objects that differ.
    pub objects: Vec<ObjectDiff>,
    /// Files that differ: `+ web.yaml`, `~ db.yaml`, `- old.yaml`.
    pub files: Vec<String>,
}

/// One object that differs between two generations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectDiff {
    /// `pods/default/web`.
    pub object: String,
    /// `create`, `update` or `remove`.
    pub action: PlanAction,
    /// Changed fields of an update.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
}

/// `POST generations/{n}/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackReport {
    /// Generation that the rollback made.
    pub generation: u64,
    /// Verdict for each object.
    pub objects: Vec<AppliedObject>,
    /// Files rewritten in the directory (`?write=true`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files_written: Vec<String>,
    /// What a person must know, such as that the directory still holds the newer files.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// `POST images`: import from a path on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageImport {
    /// Absolute path of a rootfs directory, an OCI layout or an OCI/docker archive.
    pub source: String,
    /// Name to give it, `web:1`.
    pub name: String,
}

/// An image on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Content digest.
    pub id: String,
    /// Names.
    pub names: Vec<String>,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// ENTRYPOINT and CMD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What registries call it, by the names under which it came from them.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub pulled: std::collections::BTreeMap<String, String>,
    /// When a container was last started from it, or it came here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
}

/// `POST images/pull`: begin to fetch an image from its registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImagePull {
    /// The image as users write it, `nginx:1.29`.
    pub image: String,
}

/// A pull under way, or one that ended lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImagePullStatus {
    /// The image in full, `docker.io/library/nginx:1.29`.
    pub image: String,
    /// `waiting`, `resolving`, `fetching`, `unpacking`, `pulled` or `failed`.
    pub state: String,
    /// Bytes that are here of those that are to be fetched.
    pub bytes_done: u64,
    /// Bytes that are to be fetched.
    pub bytes_total: u64,
    /// Layers that are unpacked.
    pub layers_done: u32,
    /// Layers in all.
    pub layers_total: u32,
    /// Once pulled: `registry/repository@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_digest: Option<String>,
    /// Once pulled: bytes in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Once pulled: whether anything had to be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<bool>,
    /// Once it ended: how long it took from its turn on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_milliseconds: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `GET images/pulls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImagePullList {
    /// Newest last.
    pub items: Vec<ImagePullStatus>,
}

/// `POST images/build`: make an image of another, of files of the host, and of what commands change in a pod of their
/// own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageBuild {
    /// Name to give it, `local/web:1`.
    pub name: String,
    /// The image below, by name; pulled when it is not here.
    pub from: Option<String>,
    /// Or a root file system: absolute path of all that can be imported.
    pub rootfs: Option<String>,
    /// Files to put over it, in this order.
    pub files: Vec<ImageBuildFile>,
    /// Commands, each the argv of a program in the image. Root runs them.
    pub run: Vec<Vec<String>>,
    /// Where their pods are made; `default` when absent.
    pub namespace: Option<String>,
    /// ENTRYPOINT; that of the image below when absent.
    pub entrypoint: Option<Vec<String>>,
    /// CMD; that of the image below when absent, unless there is another entrypoint.
    pub cmd: Option<Vec<String>>,
    /// `NAME=value`, over those of the image below.
    pub env: Vec<String>,
    /// WORKDIR; that of the image below when absent.
    pub workdir: Option<String>,
    /// USER; that of the image below when absent.
    pub user: Option<String>,
    /// STOPSIGNAL; that of the image below when absent.
    pub stop_signal: Option<String>,
}

/// Files for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageBuildFile {
    /// Absolute path of a file, or of a directory whose content is meant.
    pub source: String,
    /// Absolute path in the image.
    pub target: String,
    /// User and group id of all of it, root's when absent.
    pub owner: Option<(u32, u32)>,
}

/// How far a build is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageBuildStatus {
    /// For `GET images/builds/ID`.
    pub id: String,
    /// The image's name.
    pub name: String,
    /// `preparing`, `running`, `built` or `failed`.
    pub state: String,
    /// What is being done, in words.
    pub doing: String,
    /// What commands printed, from `output_from` on: the newest of it.
    pub output: String,
    /// How many bytes came before `output`.
    pub output_from: u64,
    /// Once built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Once it ended: how long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_milliseconds: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST images/prune`: what was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImagesPruned {
    /// Names, or ids of what had none.
    pub removed: Vec<String>,
    /// Bytes that they took, layers that others still have included.
    pub bytes: u64,
}

/// `GET images`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageList {
    /// Images in name order.
    pub items: Vec<Image>,
}

/// `GET volumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeList {
    /// Volumes of the host's storage in name order.
    pub items: Vec<StoredVolume>,
}

/// A volume of the host's storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredVolume {
    /// Its name there (`spec.csi.volumeHandle` of its PersistentVolume).
    pub name: String,
    /// The claim that it was made for, `namespace/name`.
    pub claim: String,
    /// Whether a PersistentVolume says that it is its; without one nobody can mount it.
    pub known: bool,
    /// The size that it is kept to, or that was asked for where the engine can't; 0: none.
    pub quota_bytes: u64,
    /// What its files take.
    pub used_bytes: u64,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<VolumeSnapshot>,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshot {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Option<DateTime<Utc>>,
}

/// What is to be done with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeAction {
    /// Keep its files as they are now, as `snapshot`.
    Snapshot,
    /// Forget `snapshot`.
    SnapshotRemove,
    /// Give it the files of `snapshot`.
    Rollback,
    /// Make a volume of `snapshot`'s files, set aside for the claim `to`.
    Clone,
    /// Write `snapshot` to the file `path`, or what changed since the snapshot `since`.
    Send,
    /// Make a volume of the file `path`, set aside for the claim `volume`, with the snapshot `snapshot`; an increment goes to
    /// the volume of that claim.
    Receive,
}

impl VolumeAction {
    /// By its name in the route.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "snapshot" => Self::Snapshot,
            "snapshot-remove" => Self::SnapshotRemove,
            "rollback" => Self::Rollback,
            "clone" => Self::Clone,
            "send" => Self::Send,
            "receive" => Self::Receive,
            _ => return None,
        })
    }
}

/// Body of `POST volumes/ACTION`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeRequest {
    /// Namespace of the claims that are named.
    pub namespace: String,
    /// A claim's name, or a volume's.
    pub volume: String,
    /// A snapshot's name.
    pub snapshot: String,
    /// The older snapshot of an increment; empty for a whole stream.
    pub since: String,
    /// Absolute path of a file on the daemon's host.
    pub path: String,
    /// The claim that a clone is for.
    pub to: String,
}

/// `POST reload`: the directory was read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReloadReport {
    /// Generation in force afterwards.
    pub generation: u64,
    /// Whether this reload made it.
    pub changed: bool,
    /// Verdict for each object that is not unchanged.
    pub objects: Vec<AppliedObject>,
    /// Findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// An acknowledgement with a sentence for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// What was done.
    pub message: String,
}

/// `POST backup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupRequest {
    /// Absolute path of a file that does not exist yet, on the daemon's host.
    pub path: String,
}

/// Answer of `POST backup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// Where it was written.
    pub path: String,
    /// Revision that it holds.
    pub revision: u64,
    /// Bytes.
    pub size_bytes: u64,
}

/// `POST restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreRequest {
    /// Absolute path of a backup on the daemon's host.
    pub path: String,
}

/// Is there nothing to say?
fn is_zero(code: &u16) -> bool {
    *code == 0
}
