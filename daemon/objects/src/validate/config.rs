//! Rules of ConfigMaps and Secrets.

use super::rules::{Errors, entries, invalid_all, text};
use crate::{
    field::{FieldError, FieldPath},
    names,
};
use serde_json::Value;

/// The largest ConfigMap or Secret: 1 MiB of data.
const DATA_MAX: usize = 1 << 20;

pub(super) fn check_config_map(value: &Value, errors: &mut Errors) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        let path = FieldPath::of(field);
        for (key, item) in entries(value, field) {
            let at = path.map_key(key);
            invalid_all(&at, key, names::config_key(key), errors);
            if field == "data" && value.get("binaryData").is_some_and(|binary| binary.get(key).is_some()) {
                errors.push(FieldError::invalid(&at, key, "duplicate of key present in binaryData"));
            }
            size += item.as_str().map_or(0, |text| if field == "data" { text.len() } else { text.len() / 4 * 3 });
        }
    }
    if size > DATA_MAX {
        errors.push(FieldError::too_long(&FieldPath::root(), DATA_MAX));
    }
}

pub(super) fn check_secret(value: &Value, errors: &mut Errors) {
    let path = FieldPath::of("data");
    let mut size = 0;
    for (key, item) in entries(value, "data") {
        invalid_all(&path.map_key(key), key, names::config_key(key), errors);
        size += item.as_str().map_or(0, |text| text.len() / 4 * 3);
    }
    if size > DATA_MAX {
        errors.push(FieldError::too_long(&path, DATA_MAX));
    }
    let has = |key: &str| value.get("data").is_some_and(|data| data.get(key).is_some());
    let mut need = |key: &str| {
        if !has(key) {
            errors.push(FieldError::required(&path.map_key(key), ""));
        }
    };
    match text(value, "type") {
        "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().for_each(need),
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/dockercfg" => need(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => need(".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            ["username", "password"].into_iter().for_each(need)
        }
        "kubernetes.io/service-account-token" => {
            let name =
                value.pointer("/metadata/annotations/kubernetes.io~1service-account.name").and_then(Value::as_str);
            if name.is_none_or(str::is_empty) {
                let at = FieldPath::of("metadata.annotations").map_key("kubernetes.io/service-account.name");
                errors.push(FieldError::required(&at, ""));
            }
        }
        _ => {}
    }
}
