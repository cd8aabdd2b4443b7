//! Fields that are accepted and stored but have no effect in this version.

use crate::{field::FieldPath, object::Object};
use serde_json::Value;

/// Fields below spec. A value that asks for nothing (absent, empty, false, the default) gives no warning.
const SPEC: &[(&str, &str)] = &[
    ("priority", "pods do not preempt one another: it only says who is evicted last"),
    ("priorityClassName", "pods do not preempt one another: it only says who is evicted last"),
    ("resourceClaims", "devices are not claimed"),
    ("runtimeClassName", "choose the zone's brand with the annotation reddwarf.io/zone-brand"),
    ("schedulingGroup", "the pod starts without waiting for its group"),
    ("topologySpreadConstraints", "the pod runs on this host"),
];

/// Fields below spec.affinity; required node affinity is looked at.
const AFFINITY: &[(&str, &str)] = &[
    ("podAffinity", "pods are placed without regard to others"),
    ("podAntiAffinity", "pods are placed without regard to others"),
];

/// Fields below spec.securityContext.
const POD_SECURITY: &[(&str, &str)] = &[
    ("seLinuxOptions", "SELinux labels are not applied"),
    ("windowsOptions", "this host does not run Windows containers"),
];

/// Fields of every container.
const CONTAINER: &[(&str, &str)] = &[("volumeDevices", "block devices are not given to containers")];

/// Fields of every container's securityContext.
const SECURITY: &[(&str, &str)] = &[
    ("seLinuxOptions", "SELinux labels are not applied"),
    ("windowsOptions", "this host does not run Windows containers"),
];

/// Volume sources that can be mounted; all others can't. With `projected` among them admission gives pods their account's token.
const VOLUMES: &[&str] = &[
    "name",
    "emptyDir",
    "configMap",
    "secret",
    "hostPath",
    "downwardAPI",
    "projected",
    "persistentVolumeClaim",
    "ephemeral",
];

/// Can a volume of this source be mounted?
pub fn can_mount(source: &str) -> bool {
    VOLUMES.contains(&source)
}

/// The fields of a pod that are accepted but have no effect in this version, each with a sentence for people. They are shown as
/// warnings wherever the pod is shown: nothing is silently ignored. Empty for objects that are no pods.
pub fn not_yet_supported(pod: &Object) -> Vec<(FieldPath, String)> {
    let Some(spec) = pod.spec().filter(|_| pod.kind() == "Pod") else { return Vec::new() };
    // Paths are made once something is to be said: of most pods there is nothing.
    let path = || FieldPath::of("spec");
    let mut warnings = Warnings(Vec::new());
    warnings.table(SPEC, spec, path);
    if let Some(context) = spec.get("securityContext") {
        warnings.table(POD_SECURITY, context, || path().child("securityContext"));
    }
    if let Some(affinity) = spec.get("affinity") {
        warnings.table(AFFINITY, affinity, || path().child("affinity"));
    }
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in elements(spec, field) {
            warnings.container(container, || path().child(field).index(index));
        }
    }
    for (index, volume) in elements(spec, "volumes") {
        warnings.volume(volume, || path().child("volumes").index(index));
    }
    warnings.0
}

struct Warnings(Vec<(FieldPath, String)>);

impl Warnings {
    fn add(&mut self, path: FieldPath, effect: &str) {
        self.0.push((path, format!("has no effect in this version: {effect}")));
    }

    fn table(&mut self, table: &[(&str, &str)], value: &Value, path: impl Fn() -> FieldPath) {
        for (field, effect) in table {
            if value.get(*field).is_some_and(asks_for_something) {
                self.add(path().child(*field), effect);
            }
        }
    }

    fn container(&mut self, container: &Value, path: impl Fn() -> FieldPath) {
        self.table(CONTAINER, container, &path);
        if let Some(context) = container.get("securityContext") {
            self.table(SECURITY, context, || path().child("securityContext"));
        }
        if container.get("resources").and_then(|r| r.get("claims")).is_some_and(asks_for_something) {
            self.add(path().child("resources").child("claims"), "devices are not claimed");
        }
    }

    fn volume(&mut self, volume: &Value, path: impl Fn() -> FieldPath) {
        for (source, _) in volume.as_object().into_iter().flatten() {
            if !VOLUMES.contains(&source.as_str()) {
                self.add(
                    path().child(source),
                    "volumes of this kind can't be mounted: containers that mount it are not started",
                );
            }
        }
        let medium = volume.get("emptyDir").and_then(|source| source.get("medium")).and_then(Value::as_str);
        if medium.is_some_and(|medium| medium.starts_with("HugePages")) {
            self.add(
                path().child("emptyDir").child("medium"),
                "huge pages are not given to containers: they are not started",
            );
        }
        for (index, source) in elements(volume.get("projected").unwrap_or(&Value::Null), "sources") {
            if source.get("podCertificate").is_some_and(asks_for_something) {
                self.add(
                    path().child("projected").child("sources").index(index).child("podCertificate"),
                    "no certificates are issued: containers that mount it are not started",
                );
            }
        }
    }
}

fn elements<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_ignored_is_said() {
        let mut pod = Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "hostPID": false, "affinity": {"podAffinity": {"x": 1}}, "nodeSelector": {"a": "b"},
            "containers": [{"name": "c", "image": "i", "livenessProbe": {"tcpSocket": {"port": 80}}, "ports": [{"containerPort": 80, "hostPort": 8080}]}],
            "volumes": [{"name": "d", "nfs": {"server": "s", "path": "/x"}}, {"name": "e"}]}}))
        .unwrap();
        crate::default(pod.known_kind().unwrap(), &mut pod);
        let texts: Vec<_> = not_yet_supported(&pod).iter().map(|(path, text)| format!("{path} {text}")).collect();
        assert_eq!(
            texts,
            [
                "spec.affinity.podAffinity has no effect in this version: pods are placed without regard to others",
                "spec.volumes[0].nfs has no effect in this version: volumes of this kind can't be mounted: containers that mount it are not started",
            ]
        );
    }
}
