//! Rules of ConfigMaps and Secrets.

use super::at::{At, Errors};
use crate::{ACCOUNT_NAME_ANNOTATION, ACCOUNT_TOKEN_TYPE};
use crate::{field::FieldPath, names};
use base64::{Engine, prelude::BASE64_STANDARD};

/// The largest ConfigMap or Secret: 1 MiB of data.
const DATA_MAX: usize = 1 << 20;

pub(super) fn check_config_map(map: &At<'_, '_>, errors: &mut Errors) {
    let mut size = 0;
    let binary = map.child("binaryData");
    for (key, item) in map.child("data").entries() {
        item.invalid_all(errors, key, names::config_key(key));
        if binary.has(key) {
            item.invalid_value(errors, key, "duplicate of key present in binaryData");
        }
        size += item.str().len();
    }
    for (key, item) in binary.entries() {
        item.invalid_all(errors, key, names::config_key(key));
        size += item.str().len() / 4 * 3;
    }
    if size > DATA_MAX {
        // As the reference prints the whole object: `[]`.
        errors.push(crate::field::FieldError::too_long(&FieldPath::root().map_key(""), DATA_MAX));
    }
}

pub(super) fn check_secret(secret: &At<'_, '_>, errors: &mut Errors) {
    let data = secret.child("data");
    let mut size = 0;
    for (key, item) in data.entries() {
        item.invalid_all(errors, key, names::config_key(key));
        size += item.str().len() / 4 * 3;
    }
    if size > DATA_MAX {
        data.too_long(errors, DATA_MAX);
    }
    let mut need = |key: &'static str| {
        if !data.has(key) {
            data.map_key(key).required(errors, "");
        }
    };
    match secret.text("type") {
        "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().for_each(need),
        "kubernetes.io/ssh-auth" if data.text("ssh-privatekey").is_empty() => {
            data.map_key("ssh-privatekey").required(errors, "");
        }
        "kubernetes.io/dockercfg" => check_json(&data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => check_json(&data, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !data.has("username") && !data.has("password") => {
            ["username", "password"].into_iter().for_each(&mut need);
        }
        ACCOUNT_TOKEN_TYPE => {
            let metadata = secret.child("metadata");
            let annotations = metadata.child("annotations");
            if annotations.text(ACCOUNT_NAME_ANNOTATION).is_empty() {
                annotations.map_key(ACCOUNT_NAME_ANNOTATION).required(errors, "");
            }
        }
        _ => {}
    }
}

/// A map in JSON that must be there. What it holds is never shown.
fn check_json(data: &At<'_, '_>, key: &'static str, errors: &mut Errors) {
    let at = data.map_key(key);
    let Some(encoded) = at.value.as_str() else { return at.required(errors, "") };
    let text: String = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let decoded = BASE64_STANDARD.decode(text).unwrap_or_default();
    let problem = match serde_json::from_slice::<serde_json::Value>(&decoded) {
        Ok(serde_json::Value::Object(_)) => return,
        Ok(_) => "json: cannot unmarshal the value into Go value of type map[string]interface {}".to_owned(),
        Err(_) if decoded.is_empty() => "unexpected end of JSON input".to_owned(),
        Err(error) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(_) => "invalid character looking for beginning of value".to_owned(),
    };
    at.invalid_value(errors, "<secret contents redacted>", problem);
}
