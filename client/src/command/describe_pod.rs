//! A pod in words.

use super::describe::field;
use crate::kube::{array, text};
use crate::output::printable;
use crate::pod_reason;
use chrono::{DateTime, Utc};
use reddwarf_objects::print;
use serde_json::Value;

/// Everything below a pod's metadata.
pub(crate) fn body(pod: &Value, now: DateTime<Utc>) -> String {
    let mut out = String::new();
    out.push_str(&field("Status", text(pod, "/status/phase")));
    let reason = pod_reason::reason(pod);
    if !reason.is_empty() {
        out.push_str(&field("Reason", &reason));
    }
    for (label, pointer) in [
        ("Node", "/spec/nodeName"),
        ("IP", "/status/podIP"),
        ("Started", "/status/startTime"),
        ("Restart", "/spec/restartPolicy"),
        ("Host name", "/spec/hostname"),
    ] {
        if !text(pod, pointer).is_empty() {
            out.push_str(&field(label, text(pod, pointer)));
        }
    }
    for (heading, specs, statuses) in [
        ("Init containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
    ] {
        let specs = array(pod, specs);
        if specs.is_empty() {
            continue;
        }
        out.push_str(&format!("{heading}:\n"));
        for spec in specs {
            let name = text(spec, "/name");
            let status = array(pod, statuses).iter().find(|s| text(s, "/name") == name).unwrap_or(&Value::Null);
            out.push_str(&container(spec, status, now));
        }
    }
    out.push_str(&conditions(pod));
    out.push_str(&volumes(pod));
    out
}

fn line(label: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("    {:<12} {}\n", format!("{label}:"), printable(value)) }
}

fn container(spec: &Value, status: &Value, now: DateTime<Utc>) -> String {
    let words = |pointer: &str| -> String {
        array(spec, pointer).iter().map(|w| shell_word(w.as_str().unwrap_or_default())).collect::<Vec<_>>().join(" ")
    };
    let mut out = format!("  {}:\n", printable(text(spec, "/name")));
    out.push_str(&line("Image", text(spec, "/image")));
    out.push_str(&line("ID", text(status, "/containerID")));
    out.push_str(&line("Command", &words("/command")));
    out.push_str(&line("Arguments", &words("/args")));
    out.push_str(&line("State", &state(&status["state"], now)));
    out.push_str(&line("Last state", &state(&status["lastState"], now)));
    let flag = |name: &str| status.get(name).and_then(Value::as_bool).map(|b| b.to_string()).unwrap_or_default();
    out.push_str(&line("Ready", &flag("ready")));
    out.push_str(&line("Restarts", &status.get("restartCount").map(Value::to_string).unwrap_or_default()));
    for (label, pointer) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        let map = spec.pointer(pointer).and_then(Value::as_object);
        let pairs: Vec<String> =
            map.into_iter().flatten().map(|(k, v)| format!("{k} {}", crate::report::cell(v))).collect();
        out.push_str(&line(label, &pairs.join(", ")));
    }
    for variable in array(spec, "/env") {
        out.push_str(&line("Variable", &environment(variable)));
    }
    for mount in array(spec, "/volumeMounts") {
        let read_only = if mount.get("readOnly") == Some(&Value::Bool(true)) { " (read-only)" } else { "" };
        out.push_str(&line(
            "Mount",
            &format!("{} from {}{read_only}", text(mount, "/mountPath"), text(mount, "/name")),
        ));
    }
    out
}

/// `Running since …`, `CrashLoopBackOff: …`, `ended …`.
fn state(state: &Value, now: DateTime<Utc>) -> String {
    let ago = |at: &str| {
        let time = DateTime::parse_from_rfc3339(at).ok().map(|t| t.with_timezone(&Utc));
        time.map(|t| format!("{at} ({} ago)", print::age(Some(t), now))).unwrap_or_default()
    };
    if let Some(running) = state.get("running").filter(|s| s.is_object()) {
        return format!("Running since {}", ago(text(running, "/startedAt")));
    }
    if let Some(waiting) = state.get("waiting").filter(|s| s.is_object()) {
        let message = text(waiting, "/message");
        let colon = if message.is_empty() { "" } else { ": " };
        return format!("Waiting, {}{colon}{message}", text(waiting, "/reason"));
    }
    if let Some(ended) = state.get("terminated").filter(|s| s.is_object()) {
        let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or_default();
        let message = text(ended, "/message");
        let colon = if message.is_empty() { "" } else { ": " };
        return format!(
            "{} with exit code {code} at {}{colon}{message}",
            text(ended, "/reason"),
            ago(text(ended, "/finishedAt"))
        );
    }
    String::new()
}

/// References are named, never resolved: a Secret's value does not appear.
fn environment(variable: &Value) -> String {
    let name = text(variable, "/name");
    for (pointer, what) in [("/valueFrom/secretKeyRef", "secret"), ("/valueFrom/configMapKeyRef", "configmap")] {
        if let Some(reference) = variable.pointer(pointer) {
            return format!("{name} from key {} of {what} {}", text(reference, "/key"), text(reference, "/name"));
        }
    }
    match text(variable, "/valueFrom/fieldRef/fieldPath") {
        "" => format!("{name}={}", text(variable, "/value")),
        field => format!("{name} from field {field}"),
    }
}

fn conditions(pod: &Value) -> String {
    let conditions = array(pod, "/status/conditions");
    if conditions.is_empty() {
        return String::new();
    }
    let mut out = String::from("Conditions:\n");
    for condition in conditions {
        let why: Vec<&str> =
            [text(condition, "/reason"), text(condition, "/message")].into_iter().filter(|w| !w.is_empty()).collect();
        let line = format!(
            "  {:<27} {:<8} {}",
            text(condition, "/type"),
            text(condition, "/status"),
            printable(&why.join(": "))
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn volumes(pod: &Value) -> String {
    let volumes = array(pod, "/spec/volumes");
    if volumes.is_empty() {
        return String::new();
    }
    let mut out = String::from("Volumes:\n");
    for volume in volumes {
        let map = volume.as_object().into_iter().flatten();
        let (kind, source) =
            map.filter(|(k, _)| *k != "name").map(|(k, v)| (k.as_str(), v)).next().unwrap_or(("", &Value::Null));
        let detail =
            ["/name", "/secretName", "/path", "/claimName"].iter().map(|p| text(source, p)).find(|t| !t.is_empty());
        let line = format!("  {:<12} {kind} {}", text(volume, "/name"), printable(detail.unwrap_or_default()));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A word as a shell would need it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_in_words() {
        let pod = json!({
            "spec": {"nodeName": "box", "restartPolicy": "Always",
                "containers": [{"name": "main", "image": "local/box:1", "command": ["sh", "-c", "exit 3"],
                    "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                    "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "word"}}}, {"name": "B", "value": "c"}],
                    "volumeMounts": [{"name": "paint", "mountPath": "/paint", "readOnly": true}]}],
                "volumes": [{"name": "paint", "configMap": {"name": "colours"}}]},
            "status": {"phase": "Running", "podIP": "10.88.0.2",
                "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
                "containerStatuses": [{"name": "main", "ready": false, "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}}}]},
        });
        assert_eq!(
            body(&pod, "2026-01-01T00:00:10Z".parse().unwrap()),
            "Status:        Running\nReason:        main: exit code 3\nNode:          box\nIP:            10.88.0.2\n\
             Restart:       Always\nContainers:\n  main:\n    Image:       local/box:1\n    Command:     sh -c 'exit 3'\n    \
             State:       Waiting, CrashLoopBackOff\n    Last state:  Error with exit code 3 at 2026-01-01T00:00:00Z (10s ago)\n    \
             Ready:       false\n    Restarts:    2\n    Limits:      cpu 500m, memory 64Mi\n    \
             Variable:    A from key word of secret key\n    Variable:    B=c\n    Mount:       /paint from paint (read-only)\n\
             Conditions:\n  Ready                       False    ContainersNotReady\nVolumes:\n  paint        configMap colours\n"
        );
    }
}
