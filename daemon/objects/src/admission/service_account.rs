//! A pod's account: its name, its token in the pod, its pull secrets.

use super::{DEFAULT_SERVICE_ACCOUNT, Refusal};
use crate::{names, object::Object, pod::can_mount};
use serde_json::{Value, json};

/// Where containers look for the token.
pub(super) const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// A little over an hour: a token is renewed when it has been used for one.
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn admit(pod: &mut Object, account: Option<&Object>, entropy: u64) -> Result<(), Refusal> {
    if pod.annotation(MIRROR).is_some() {
        return Ok(());
    }
    let name = super::service_account_of(pod).to_owned();
    pod.set("/spec/serviceAccountName", name.as_str());
    pod.set("/spec/serviceAccount", name.as_str());
    let Some(account) = account else {
        // The default account of a new namespace is made in a moment: a pod need not wait for it.
        if name == DEFAULT_SERVICE_ACCOUNT {
            return Ok(());
        }
        let namespace = pod.namespace().unwrap_or("default");
        let text = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(Refusal(text));
    };
    if mounts_token(pod, account) && can_mount("projected") {
        mount_token(pod, entropy);
    }
    if let Some(secrets) = account.map().get("imagePullSecrets").filter(|list| is_filled(list))
        && !pod.get("/spec/imagePullSecrets").is_some_and(is_filled)
    {
        pod.set("/spec/imagePullSecrets", secrets.clone());
    }
    Ok(())
}

fn is_filled(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty())
}

/// The pod says whether it wants the token, else its account does, else it does.
pub(super) fn mounts_token(pod: &Object, account: &Object) -> bool {
    let asked = |value: Option<&Value>| value.and_then(Value::as_bool);
    asked(pod.get("/spec/automountServiceAccountToken"))
        .or_else(|| asked(account.map().get("automountServiceAccountToken")))
        .unwrap_or(true)
}

pub(super) fn mount_token(pod: &mut Object, entropy: u64) {
    let volumes = pod.get("/spec/volumes").and_then(Value::as_array);
    let mut own = volumes.into_iter().flatten().filter_map(|volume| volume.get("name")?.as_str());
    let there = own.find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let name = there.clone().unwrap_or_else(|| names::generate_name(VOLUME_PREFIX, entropy));
    let Some(spec) = pod.map_mut().get_mut("spec").and_then(Value::as_object_mut) else { return };
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if !mounts.iter().any(|mount| mount.get("mountPath").is_some_and(|path| path == TOKEN_PATH)) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
                used = true;
            }
        }
    }
    if used && there.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if !volumes.is_array() {
            *volumes = json!([]);
        }
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&name));
        }
    }
}

/// What [`mount_token`] added to a pod stays when the pod is declared again without it, by someone who replaces lists.
pub(super) fn keep_token(old: &Object, new: &mut Object) {
    let list = |object: &Object, pointer: &str| object.get(pointer).and_then(Value::as_array).cloned();
    let named = |value: &Value, name: &Value| value.get("name") == Some(name);
    let volumes = list(old, "/spec/volumes").unwrap_or_default();
    let given = |v: &&Value| v.get("name").and_then(Value::as_str).is_some_and(|n| n.starts_with(VOLUME_PREFIX));
    let Some(volume) = volumes.iter().find(given) else { return };
    let name = volume.get("name").cloned().unwrap_or_default();
    for field in ["/spec/initContainers", "/spec/containers"] {
        let (Some(before), Some(mut containers)) = (list(old, field), list(new, field)) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let same = before.iter().find(|b| b.get("name") == container.get("name"));
            let mounts = same.and_then(|b| b.get("volumeMounts")).and_then(Value::as_array);
            let Some(mount) = mounts.and_then(|m| m.iter().find(|m| named(m, &name))) else { continue };
            let own = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(own) = own.as_array_mut() else { continue };
            if !own.iter().any(|m| m.get("mountPath") == mount.get("mountPath")) {
                own.push(mount.clone());
            }
        }
        new.set(field, containers);
    }
    let mut own = list(new, "/spec/volumes").unwrap_or_default();
    if !own.iter().any(|v| named(v, &name)) {
        own.push(volume.clone());
        new.set("/spec/volumes", own);
    }
}

/// The token, the authority to check the server with, and the namespace.
fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}
