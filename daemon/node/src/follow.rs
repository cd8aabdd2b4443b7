//! Keeps what is wanted in step with the control plane's objects.

use crate::control_plane::ObjectChange;
use crate::desired::{
    ClaimFacts, ConfigBytes, ConfigData, Desired, PodIntent, ServiceFacts, ServicePort, VolumeFacts, VolumeSource,
};
use crate::key::PodKey;
use crate::status::gates;
use crate::translate::ROOT_CA;
use base64::Engine;
use reddwarf_host::spec::Sensitive;
use reddwarf_objects::Object;
use reddwarf_objects::admission::DEFAULT_SERVICE_ACCOUNT;
use reddwarf_objects::pod::{Container, HostPath, KeysProjection, Pod, Projection};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The driver in PersistentVolumes of this host's own storage (`spec.csi.driver`).
const STORAGE_DRIVER: &str = "volumes.reddwarf.io";

/// What a change means for the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Look at everything.
    pub all: bool,
    /// Look at these.
    pub pods: Vec<PodKey>,
    /// Pods that are gone from the registry, with the uid that they had.
    pub gone: Vec<(PodKey, String)>,
}

/// Takes a change into what is wanted; says which pods to look at.
pub fn apply(desired: &mut Desired, change: ObjectChange) -> Affected {
    match change {
        ObjectChange::All(objects) => {
            let before = std::mem::take(&mut desired.pods);
            desired.config = ConfigData::default();
            for object in objects {
                put(desired, object);
            }
            let pods = &desired.pods;
            desired.tokens.retain(|request| pods.get(&request.pod).is_some_and(|i| i.uid.as_str() == request.uid));
            let gone = before.into_iter().filter(|(key, _)| !desired.pods.contains_key(key));
            Affected { all: true, gone: gone.map(|(key, i)| (key, i.uid.to_string())).collect(), ..Affected::default() }
        }
        ObjectChange::Put(object) => Affected { pods: put(desired, *object), ..Affected::default() },
        ObjectChange::Gone(object) => gone(desired, &object),
    }
}

fn put(desired: &mut Desired, object: Object) -> Vec<PodKey> {
    let at = || (object.namespace().unwrap_or_default().to_owned(), object.name().to_owned());
    match object.kind() {
        "ConfigMap" => {
            let (at, data) = (at(), Arc::new(config_map(&object)));
            let users = users(desired, &at.0, |pod| uses(pod, Ref::ConfigMap, &at.1));
            desired.config.config_maps.insert(at, data);
            users
        }
        "Secret" => {
            let (at, data) = (at(), Arc::new(secret(&object)));
            let users = users(desired, &at.0, |pod| uses(pod, Ref::Secret, &at.1));
            desired.config.secrets.insert(at, data);
            users
        }
        // A running pod is not disturbed by services that come and go: only the next start looks at them.
        "Service" => {
            match service(&object) {
                Some(facts) => desired.config.services.insert(at(), Arc::new(facts)),
                None => desired.config.services.remove(&at()),
            };
            Vec::new()
        }
        "ServiceAccount" => {
            let (at, automount) = (at(), object.get("/automountServiceAccountToken").and_then(|v| v.as_bool()));
            let before = desired.config.accounts.insert(at.clone(), automount);
            if before == Some(automount) {
                return Vec::new();
            }
            desired.tokens.forget_refusals(&at.0);
            users(desired, &at.0, |pod| account_of(pod) == at.1)
        }
        "PersistentVolumeClaim" => {
            let (at, facts) = (at(), claim(&object));
            if desired.config.claims.get(&at) == Some(&facts) {
                return Vec::new();
            }
            let users = claim_users(desired, &at);
            desired.config.claims.insert(at, facts);
            users
        }
        "PersistentVolume" => {
            let facts = volume(&object);
            if desired.config.volumes.get(object.name()) == Some(&facts) {
                return Vec::new();
            }
            let users = volume_users(desired, &facts);
            desired.config.volumes.insert(object.name().to_owned(), facts);
            users
        }
        "Pod" => put_pod(desired, object),
        _ => Vec::new(),
    }
}

/// The account that a pod runs as.
pub(crate) fn account_of(pod: &Pod) -> &str {
    match pod.spec.service_account_name.as_str() {
        "" => DEFAULT_SERVICE_ACCOUNT,
        name => name,
    }
}

fn put_pod(desired: &mut Desired, object: Object) -> Vec<PodKey> {
    let intent = match PodIntent::from_object(object) {
        Ok(intent) => intent,
        Err(error) => {
            tracing::error!(%error, "a pod can't be read and is left as it is");
            return Vec::new();
        }
    };
    let node = &intent.pod.spec.node_name;
    let key = intent.key.clone();
    if !node.is_empty() && *node != desired.settings.node_name {
        // Another node's pod; ours no longer, if it ever was.
        return if desired.pods.remove(&key).is_some() { vec![key] } else { Vec::new() };
    }
    let before = desired.pods.insert(key.clone(), Arc::new(intent));
    let after = desired.pods.get(&key);
    let same = before.as_ref().zip(after).is_some_and(|(b, a)| {
        b.uid == a.uid
            && b.pod == a.pod
            && b.deleting == a.deleting
            && b.finished == a.finished
            && b.source == a.source
            && gates(b) == gates(a)
    });
    if same {
        return Vec::new();
    }
    let mut affected = after.map(|intent| rivals(desired, intent)).unwrap_or_default();
    affected.push(key);
    affected
}

/// Pods that wait, perhaps, for a claim that only one pod at a time may have, and that this pod mounts.
fn rivals(desired: &Desired, intent: &PodIntent) -> Vec<PodKey> {
    let claims = intent.pod.spec.volumes.iter().filter_map(|v| v.claim_name(&intent.key.name));
    let at = claims.map(|name| (intent.key.namespace.clone(), name));
    let at = at.filter(|at| desired.config.claims.get(at).is_some_and(|claim| claim.one_pod));
    at.flat_map(|at| claim_users(desired, &at)).filter(|key| *key != intent.key).collect()
}

fn gone(desired: &mut Desired, object: &Object) -> Affected {
    let at = (object.namespace().unwrap_or_default().to_owned(), object.name().to_owned());
    let mut affected = Affected::default();
    match object.kind() {
        "ConfigMap" => {
            affected.pods = users(desired, &at.0, |pod| uses(pod, Ref::ConfigMap, &at.1));
            desired.config.config_maps.remove(&at);
        }
        "Secret" => {
            affected.pods = users(desired, &at.0, |pod| uses(pod, Ref::Secret, &at.1));
            desired.config.secrets.remove(&at);
        }
        "Service" => drop(desired.config.services.remove(&at)),
        "ServiceAccount" => drop(desired.config.accounts.remove(&at)),
        "PersistentVolumeClaim" => {
            affected.pods = claim_users(desired, &at);
            desired.config.claims.remove(&at);
        }
        "PersistentVolume" => {
            if let Some(facts) = desired.config.volumes.remove(object.name()) {
                affected.pods = volume_users(desired, &facts);
            }
        }
        "Pod" => {
            let key = PodKey::new(at.0, at.1);
            // Not its successor of the same name.
            let uid = object.uid().unwrap_or_default();
            if desired.pods.get(&key).is_some_and(|i| i.uid.as_str() == uid) {
                affected.pods = desired.pods.remove(&key).map(|intent| rivals(desired, &intent)).unwrap_or_default();
            }
            desired.tokens.retain(|request| request.uid != uid);
            affected.gone.push((key.clone(), uid.to_owned()));
            affected.pods.push(key);
        }
        _ => {}
    }
    affected
}

/// Pods that mount a claim.
fn claim_users(desired: &Desired, (namespace, name): &(String, String)) -> Vec<PodKey> {
    users(desired, namespace, |pod| {
        pod.spec.volumes.iter().any(|v| v.claim_name(&pod.metadata.name).as_deref() == Some(name))
    })
}

/// Pods that mount the claim that a volume is for.
fn volume_users(desired: &Desired, volume: &VolumeFacts) -> Vec<PodKey> {
    let claim = volume.claim.as_ref().map(|(namespace, name, _)| (namespace.clone(), name.clone()));
    claim.map(|at| claim_users(desired, &at)).unwrap_or_default()
}

fn claim(object: &Object) -> ClaimFacts {
    let bound = object.get_str("/status/phase") == Some("Bound");
    ClaimFacts {
        uid: object.uid().unwrap_or_default().to_owned(),
        volume: object.get_str("/spec/volumeName").filter(|name| bound && !name.is_empty()).map(str::to_owned),
        owners: object.owner_references().into_iter().map(|o| o.uid).collect(),
        leaving: object.deletion_timestamp().is_some(),
        block: object.get_str("/spec/volumeMode") == Some("Block"),
        one_pod: words(object, "/spec/accessModes").any(|mode| mode == "ReadWriteOncePod"),
    }
}

fn volume(object: &Object) -> VolumeFacts {
    let text = |pointer: &str| object.get_str(pointer).unwrap_or_default().to_owned();
    let claim = object.get("/spec/claimRef").filter(|v| v.is_object());
    let claim =
        claim.map(|_| (text("/spec/claimRef/namespace"), text("/spec/claimRef/name"), text("/spec/claimRef/uid")));
    let source = if object.get_str("/spec/csi/driver") == Some(STORAGE_DRIVER) {
        VolumeSource::Storage(text("/spec/csi/volumeHandle"))
    } else if let Some(path) = object.get_str("/spec/local/path") {
        VolumeSource::Local(path.to_owned())
    } else if object.get("/spec/hostPath").is_some() {
        VolumeSource::HostPath(HostPath { path: text("/spec/hostPath/path"), kind: text("/spec/hostPath/type") })
    } else {
        let known = ["csi", "nfs", "iscsi", "fc", "rbd", "cephfs", "flexVolume"];
        let field = known.iter().find(|f| object.get(&format!("/spec/{f}")).is_some());
        VolumeSource::Other((*field.unwrap_or(&"its source")).to_owned())
    };
    let read_only = object.get("/spec/csi/readOnly") == Some(&Value::Bool(true));
    let mount_options = words(object, "/spec/mountOptions").map(str::to_owned).collect();
    VolumeFacts { claim, source, read_only, mount_options }
}

fn words<'o>(object: &'o Object, pointer: &str) -> impl Iterator<Item = &'o str> {
    object.get(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// What a pod may refer to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ref {
    ConfigMap,
    Secret,
}

fn users(desired: &Desired, namespace: &str, uses: impl Fn(&Pod) -> bool) -> Vec<PodKey> {
    let pods = desired.pods.iter().filter(|(key, _)| key.namespace == namespace);
    pods.filter(|(_, intent)| uses(&intent.pod)).map(|(key, _)| key.clone()).collect()
}

fn uses(pod: &Pod, kind: Ref, name: &str) -> bool {
    let in_volume = pod.spec.volumes.iter().any(|v| {
        let projections = || v.projected.iter().flat_map(|p| &p.sources);
        let projected = |of: fn(&Projection) -> &Option<KeysProjection>| {
            projections().any(|source| of(source).as_ref().is_some_and(|keys| keys.name == name))
        };
        match kind {
            Ref::ConfigMap => v.config_map.as_ref().is_some_and(|c| c.name == name) || projected(|p| &p.config_map),
            Ref::Secret => v.secret.as_ref().is_some_and(|s| s.secret_name == name) || projected(|p| &p.secret),
        }
    });
    // A file's pod gets its account's token, and with it the API's certificate, without naming them.
    let in_volume = in_volume || (kind == Ref::ConfigMap && name == ROOT_CA);
    let ephemeral = pod.spec.ephemeral_containers.iter().map(|c| &c.container);
    let mut all = pod.spec.init_containers.iter().chain(&pod.spec.containers).chain(ephemeral);
    let for_pulls = kind == Ref::Secret && pod.spec.image_pull_secrets.iter().any(|s| s.name == name);
    in_volume || for_pulls || all.any(|c| in_env(c, kind, name))
}

fn in_env(container: &Container, kind: Ref, name: &str) -> bool {
    let from = container.env_from.iter().any(|e| {
        let reference = if kind == Ref::ConfigMap { &e.config_map_ref } else { &e.secret_ref };
        reference.as_ref().is_some_and(|r| r.name == name)
    });
    from || container.env.iter().filter_map(|e| e.value_from.as_ref()).any(|s| {
        let reference = if kind == Ref::ConfigMap { &s.config_map_key_ref } else { &s.secret_key_ref };
        reference.as_ref().is_some_and(|r| r.name == name)
    })
}

fn service(object: &Object) -> Option<ServiceFacts> {
    let address = object.get_str("/spec/clusterIP")?.parse().ok()?;
    let ports = object.get("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let text = |port: &Value, field: &str| port.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let ports = ports.filter_map(|port| {
        let number = port.get("port").and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok())?;
        let protocol = Some(text(port, "protocol")).filter(|p| !p.is_empty()).unwrap_or_else(|| "TCP".to_owned());
        Some(ServicePort { name: text(port, "name"), protocol, port: number })
    });
    Some(ServiceFacts { address, ports: ports.collect() })
}

fn config_map(object: &Object) -> ConfigBytes {
    let mut bytes = texts(object, "/data");
    bytes.extend(decoded(object, "/binaryData"));
    bytes
}

fn secret(object: &Object) -> ConfigBytes {
    let mut bytes = decoded(object, "/data");
    // Admission folds stringData into data; where it did not, it still counts.
    bytes.extend(texts(object, "/stringData"));
    bytes
}

fn texts(object: &Object, pointer: &str) -> ConfigBytes {
    entries(object, pointer).map(|(k, v)| (k, Sensitive::new(v.into_bytes()))).collect()
}

fn decoded(object: &Object, pointer: &str) -> ConfigBytes {
    let decode = |v: String| base64::engine::general_purpose::STANDARD.decode(v.as_bytes()).ok();
    entries(object, pointer).filter_map(|(k, v)| Some((k, Sensitive::new(decode(v)?)))).collect()
}

fn entries(object: &Object, pointer: &str) -> impl Iterator<Item = (String, String)> {
    let map = object.get(pointer).and_then(|v| v.as_object()).cloned().unwrap_or_default();
    let texts: BTreeMap<String, String> =
        map.into_iter().filter_map(|(k, v)| v.as_str().map(|text| (k, text.to_owned()))).collect();
    texts.into_iter()
}
