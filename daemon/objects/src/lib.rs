//! Kubernetes objects: pure, no I/O.
//!
//! A kind is a row of `schema/kinds.txt` ([`kinds`]) and a type of `schema/types.txt` ([`schema`]); nothing else in the project
//! knows the shape of a kind. What happens to an object on its way in, for files and for API requests alike:
//!
//! ```text
//! JSON value ─ Object::from_value ─ schema::check ─ default ─ validate ─ (validate_update) ─→ stored
//!                                   unknown field    fill in   rules of     immutable
//!                                   wrong type       defaults  the kind     fields
//! ```
//!
//! | to do | look in |
//! |---|---|
//! | read or change any object | [`object`], [`key`]; only some fields of its text: [`partial`] |
//! | say what is wrong with it | [`field`] (texts as kube-apiserver's) |
//! | know kinds and fields | [`kind`], [`schema`] |
//! | fill in and check | [`default`](mod@default), [`validate`](mod@validate), [`names`], [`quantity`] |
//! | what the namespace and the classes around a new object do to it | [`admission`] |
//! | read a pod to run it, write its status | [`pod`] |
//! | compare and merge | [`diff`], [`patch`], [`selector`] |
//! | server-side apply, who owns which field | [`apply`] |
//! | read Kubernetes' protobuf | [`protobuf`] |
//! | kinds in two versions | [`convert`] |
//! | print values as JSON, quickly | [`json`] |
//! | describe all of it to clients | [`openapi`] |
//! | read certificates and requests for them | [`der`] |
//! | show to people | [`print`](mod@print) |

pub mod admission;
pub mod apply;
pub mod convert;
pub mod default;
pub mod der;
pub mod diff;
pub mod field;
pub mod json;
pub mod key;
pub mod kind;
pub mod names;
pub mod object;
pub mod openapi;
pub mod partial;
pub mod patch;
pub mod pod;
pub mod print;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod validate;

pub use default::default;
pub use field::{FieldError, FieldPath, FieldReason, Segment};
pub use key::ObjectKey;
pub use kind::{Column, Kind, KindTable, bodies, kinds, subresource_verbs};
pub use object::{Object, ObjectError, OwnerReference};
pub use quantity::Quantity;
pub use validate::{validate, validate_update};

/// Type of Secrets that hold a token of a ServiceAccount.
pub const ACCOUNT_TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
/// Annotation of such a Secret: the ServiceAccount's name.
pub const ACCOUNT_NAME_ANNOTATION: &str = "kubernetes.io/service-account.name";
/// Annotation: path of the declaring file as shown to users; absent on objects that belong to the API.
pub const SOURCE_ANNOTATION: &str = "reddwarf.io/source";
/// Annotation of a pod: the brand of its zone; `oci` when absent.
pub const ZONE_BRAND_ANNOTATION: &str = "reddwarf.io/zone-brand";
/// Annotation of a pod: ZFS datasets of the host's that it administers itself, with commas between them (illumos).
pub const ZONE_DATASETS_ANNOTATION: &str = "reddwarf.io/zone-datasets";
/// Annotation of a pod: an opaque token; a new value asks for a restart.
pub const RESTART_REQUESTED_ANNOTATION: &str = "reddwarf.io/restart-requested";
/// Annotation of a node: how many zones it runs.
pub const ZONE_COUNT_ANNOTATION: &str = "reddwarf.io/zone-count";
/// Annotation of a node: its zones in one line.
pub const ZONE_SUMMARY_ANNOTATION: &str = "reddwarf.io/zone-summary";
/// Label of a node: the brands it can run.
pub const ZONE_BRANDS_LABEL: &str = "reddwarf.io/zone-brands";
/// The brand that runs OCI images: the default.
pub const BRAND_OCI: &str = "oci";
/// The brand that needs no image: the host's own /usr, read-only.
pub const BRAND_SPARSE: &str = "sparse";
/// reddwarf's own brand: the host's own /usr, read-only, for containers that name no image.
pub const BRAND_REDDWARF: &str = "reddwarf";

/// The brand that is a virtual machine: its one container stands for it, and runs nothing of the pod's.
pub const BRAND_BHYVE: &str = "bhyve";
/// How annotations of a pod of that brand begin that say what its machine is like: the rest is an attribute of the brand.
pub const MACHINE_ANNOTATION_PREFIX: &str = "bhyve.reddwarf.io/";

/// Whether containers in zones of a brand may do without an image.
#[must_use]
pub fn brings_programs(brand: &str) -> bool {
    [BRAND_SPARSE, BRAND_REDDWARF, BRAND_BHYVE].contains(&brand)
}
