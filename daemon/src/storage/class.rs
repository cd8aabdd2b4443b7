//! Storage classes: the one that is always there, and what others may ask for.

use super::US;
use reddwarf_controllers::volume::{PROVISIONER, ProvisionError, Request};
use reddwarf_host::storage::Tuning;
use reddwarf_host::{DatasetSpec, Limits, StorageEngine};
use reddwarf_objects::{Object, names::did_you_mean};
use reddwarf_registry::{ListQuery, Registry, RegistryError, WriteOptions};
use serde_json::json;
use std::collections::BTreeMap;

/// The class that every daemon with storage has.
pub(crate) const CLASS: &str = "reddwarf";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Makes our class unless it is there; it is the default one unless another says that it is.
pub(super) async fn default_class(registry: &Registry) -> Result<(), RegistryError> {
    let Some(kind) = reddwarf_objects::kinds().by_gvk("storage.k8s.io/v1", "StorageClass") else { return Ok(()) };
    let all = registry.list(&ListQuery::all(kind))?.items;
    if all.iter().any(|class| class.name() == CLASS) {
        return Ok(());
    }
    let other = all.iter().any(|class| class.annotation(DEFAULT_CLASS) == Some("true"));
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {DEFAULT_CLASS: if other { "false" } else { "true" }}},
        "provisioner": PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    });
    let Ok(class) = Object::from_value(class) else { return Ok(()) };
    match registry.create(&US, class, WriteOptions::default()).await {
        Ok(_) | Err(RegistryError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a storage class may say in `parameters`.
const PARAMETERS: [&str; 5] = ["engine", "quota", "reservation", "compression", "recordsize"];

/// A class's parameters, understood.
pub(super) fn spec(engine: &dyn StorageEngine, request: &Request) -> Result<DatasetSpec, ProvisionError> {
    let bad = |text: String| Err(ProvisionError(text));
    let about = engine.about();
    let (mut quota, mut reservation, mut tuning) = (about.features.quota, false, Tuning::default());
    for (key, value) in &request.parameters {
        let flag = || match value.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(ProvisionError(format!("parameter {key}: {other:?} must be true or false"))),
        };
        match key.as_str() {
            "engine" if *value == about.kind.as_str() => {}
            "engine" => {
                return bad(format!(
                    "parameter engine: the class wants {value}, this host's storage is {}",
                    about.kind
                ));
            }
            "quota" => quota = flag()?,
            "reservation" => reservation = flag()?,
            "compression" => tuning.compression = Some(value.clone()),
            "recordsize" => match reddwarf_objects::Quantity::from_value(&json!(value)).map(|q| q.units()) {
                Ok(bytes) if bytes >= 512 && bytes.count_ones() == 1 => {
                    tuning.record_size_bytes = u64::try_from(bytes).ok();
                }
                _ => return bad(format!("parameter recordsize: {value:?} must be a power of two such as 16Ki")),
            },
            other => {
                let near = did_you_mean(other, PARAMETERS.into_iter()).map(|near| format!(", did you mean {near}?"));
                let known = PARAMETERS.join(", ");
                return bad(format!("unknown parameter {other:?}{}; known are {known}", near.unwrap_or_default()));
            }
        }
    }
    if quota && !about.features.quota {
        let kind = about.kind;
        return bad(format!("parameter quota: the engine {kind} can't keep volumes to a size; btrfs and zfs can"));
    }
    if reservation && !about.features.reservation {
        return bad(format!("parameter reservation: the engine {} can't keep room free; zfs can", about.kind));
    }
    let marks = BTreeMap::from([
        ("owner".to_owned(), request.uid.clone()),
        ("claim".to_owned(), format!("{}/{}", request.namespace, request.claim)),
    ]);
    let bytes = Some(request.bytes).filter(|b| *b > 0);
    let limits = Limits {
        quota_bytes: bytes.filter(|_| quota || !about.features.quota),
        reservation_bytes: bytes.filter(|_| reservation),
    };
    Ok(DatasetSpec { marks, limits, tuning })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_host::fake::MemoryEngine;

    fn request(parameters: &[(&str, &str)]) -> Request {
        Request {
            name: "pvc-u".into(),
            namespace: "d".into(),
            claim: "c".into(),
            uid: "u".into(),
            bytes: 100,
            parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn parameters_are_understood_or_refused_with_what_to_write() {
        let engine = MemoryEngine::new("/x");
        let said = |parameters: &[(&str, &str)]| spec(&engine, &request(parameters)).map_err(|e| e.0);
        let plain = said(&[("engine", "memory"), ("compression", "lz4"), ("recordsize", "16Ki")]).unwrap();
        assert_eq!((plain.tuning.compression.as_deref(), plain.tuning.record_size_bytes), (Some("lz4"), Some(16384)));
        assert_eq!(plain.limits.quota_bytes, Some(100), "noted where it can't be kept");
        for (parameters, part) in [
            (&[("engine", "zfs")][..], "the class wants zfs, this host's storage is memory"),
            (&[("quota", "yes")], "must be true or false"),
            (&[("quota", "true")], "can't keep volumes to a size"),
            (&[("reservation", "true")], "can't keep room free"),
            (&[("recordsize", "3000")], "power of two"),
            (&[("compresion", "on")], "did you mean compression?"),
        ] {
            let error = said(parameters).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
