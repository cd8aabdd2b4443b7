//! Rules of volumes.

use super::rules::{Errors, items, list, no_backsteps, relative_path, require, require_name, text};
use crate::{
    field::{FieldError, FieldPath},
    names,
    quantity::Quantity,
};
use serde_json::Value;
use std::collections::BTreeSet;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks all volumes of a pod's spec and gives their names.
pub(super) fn check_all(spec: &Value, path: &FieldPath, errors: &mut Errors) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for (at, volume) in items(spec, path, "volumes") {
        require_name(volume, &at, "name", names::dns1123_label, errors);
        let name = text(volume, "name");
        if !name.is_empty() && !seen.insert(name.to_owned()) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        check_source(volume, &at, errors);
    }
    seen
}

fn check_source(volume: &Value, path: &FieldPath, errors: &mut Errors) {
    let mut sources = volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name");
    let Some((name, source)) = sources.next() else {
        errors.push(FieldError::required(path, "must specify a volume type"));
        return;
    };
    for (extra, _) in sources {
        errors.push(FieldError::forbidden(&path.child(extra), "may not specify more than 1 volume type"));
    }
    let path = &path.child(name);
    match name.as_str() {
        "emptyDir" => check_empty_dir(source, path, errors),
        "hostPath" => {
            if require(source, path, "path", errors) {
                no_backsteps(text(source, "path"), &path.child("path"), errors);
            }
            let kind = text(source, "type");
            if !HOST_PATH_TYPES.contains(&kind) {
                errors.push(FieldError::not_supported(&path.child("type"), kind, HOST_PATH_TYPES));
            }
        }
        "configMap" => check_keys(source, path, "name", errors),
        "secret" => check_keys(source, path, "secretName", errors),
        "downwardAPI" => check_mode(source, path, "defaultMode", errors),
        "persistentVolumeClaim" => {
            require(source, path, "claimName", errors);
        }
        _ => {}
    }
}

fn check_empty_dir(source: &Value, path: &FieldPath, errors: &mut Errors) {
    if let Some(limit) = source.get("sizeLimit")
        && Quantity::from_value(limit).is_ok_and(|quantity| quantity.is_negative())
    {
        let message = "SizeLimit field must be a valid resource quantity";
        errors.push(FieldError::forbidden(&path.child("sizeLimit"), message));
    }
}

fn check_keys(source: &Value, path: &FieldPath, name: &str, errors: &mut Errors) {
    require(source, path, name, errors);
    check_mode(source, path, "defaultMode", errors);
    for (at, item) in items(source, path, "items") {
        require(item, &at, "key", errors);
        if require(item, &at, "path", errors) {
            let file = text(item, "path");
            relative_path(file, &at.child("path"), errors);
            if file.starts_with("..") && file.split('/').all(|part| part != "..") {
                errors.push(FieldError::invalid(&at.child("path"), file, "must not start with '..'"));
            }
        }
        check_mode(item, &at, "mode", errors);
    }
    let mut paths = BTreeSet::new();
    let twice = list(source, "items")
        .iter()
        .map(|item| text(item, "path"))
        .find(|file| !file.is_empty() && !paths.insert(*file));
    if let Some(file) = twice {
        let at = path.child("items");
        errors.push(FieldError::invalid(&at, file, "conflicting duplicate paths"));
    }
}

fn check_mode(value: &Value, path: &FieldPath, key: &str, errors: &mut Errors) {
    if let Some(mode) = value.get(key).and_then(Value::as_i64)
        && !(0..=0o777).contains(&mode)
    {
        let message = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(&path.child(key), mode, message));
    }
}
