//! Where objects lie in the store: `k8s/{org}/{project}/{group or core}/{plural}/{namespace or -}/{name}`, with the
//! default tenant `-`/`-` (requirement B12). A kind that is served in several groups or versions lies where its stored version
//! does.

use crate::RegistryError;
use reddwarf_objects::convert::{stored_group, stored_kind};
use reddwarf_objects::{Kind, ObjectKey, kinds};
use reddwarf_store::Key;

/// Prefix of all objects of the default tenant.
pub const OBJECT_PREFIX: &str = "k8s/-/-/";
/// Prefix of the last declared form of each object that a file or `apply` declares (the base of the three-way merge).
pub const APPLIED_PREFIX: &str = "applied/-/-/";

/// Prefix of all objects of a kind, or of those in one namespace.
pub fn kind_prefix(kind: &Kind, namespace: Option<&str>) -> String {
    let group = match stored_group(kind.group, kind.plural) {
        "" => "core",
        group => group,
    };
    match namespace {
        Some(namespace) => format!("{OBJECT_PREFIX}{group}/{}/{namespace}/", kind.plural),
        None => format!("{OBJECT_PREFIX}{group}/{}/", kind.plural),
    }
}

/// Key of an object in the store.
///
/// # Errors
/// [`RegistryError::BadRequest`] when a part of the name can't be part of a key (empty, a slash, a control character).
pub fn store_key(key: &ObjectKey) -> Result<Key, RegistryError> {
    joined(OBJECT_PREFIX, key)
}

/// Key of an object's last declared form in the store.
///
/// # Errors
/// As [`store_key`].
pub fn applied_key(key: &ObjectKey) -> Result<Key, RegistryError> {
    joined(APPLIED_PREFIX, key)
}

fn joined(prefix: &str, key: &ObjectKey) -> Result<Key, RegistryError> {
    let group = match stored_group(&key.group, &key.resource) {
        "" => "core",
        group => group,
    };
    let mut segments: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
    segments.extend([group, &key.resource, key.namespace.as_deref().unwrap_or("-"), &key.name]);
    Key::from_segments(&segments).map_err(|e| RegistryError::BadRequest(format!("{key} is no usable name: {e}")))
}

/// The object that a store key belongs to; `None` for keys that are no objects.
pub fn object_key(key: &Key) -> Option<ObjectKey> {
    let rest = key.as_str().strip_prefix(OBJECT_PREFIX)?;
    let mut parts = rest.split('/');
    let (group, resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some(ObjectKey {
        group: if group == "core" { String::new() } else { group.to_owned() },
        resource: resource.to_owned(),
        namespace: (namespace != "-").then(|| namespace.to_owned()),
        name: name.to_owned(),
    })
}

/// The kind of a key, in the version in which its objects are stored.
///
/// # Errors
/// [`RegistryError::BadRequest`] for a resource that we do not know.
pub fn kind_of(key: &ObjectKey) -> Result<&'static Kind, RegistryError> {
    kinds()
        .by_group_resource(&key.group, &key.resource)
        .map(stored_kind)
        .ok_or_else(|| RegistryError::BadRequest(format!("unknown resource {}", key.group_resource())))
}
