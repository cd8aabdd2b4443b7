//! Why a pod is not as asked, in one line: the REASON column of `get pods` and the last words of `wait`.

use crate::kube::{array, condition, text};
use serde_json::Value;

/// Empty when there is nothing to explain.
pub(crate) fn reason(pod: &Value) -> String {
    if text(pod, "/status/phase") == "Succeeded" {
        return String::new();
    }
    let statuses = array(pod, "/status/initContainerStatuses").iter().chain(array(pod, "/status/containerStatuses"));
    for status in statuses {
        let found = container(status);
        if !found.is_empty() {
            return one_line(&format!("{}: {found}", text(status, "/name")));
        }
    }
    let own = text(pod, "/status/message");
    if !own.is_empty() {
        return one_line(own);
    }
    if !text(pod, "/status/reason").is_empty() {
        return text(pod, "/status/reason").to_owned();
    }
    for kind in ["PodScheduled", "Initialized", "ContainersReady", "Ready"] {
        if let Some(condition) = condition(pod, kind).filter(|c| text(c, "/status") == "False") {
            let message = text(condition, "/message");
            if !message.is_empty() {
                return one_line(message);
            }
        }
    }
    String::new()
}

/// The same of an object of any kind, never empty.
pub(crate) fn seen(object: &Value) -> String {
    let (reason, phase) = (reason(object), text(object, "/status/phase"));
    match (reason.is_empty(), phase.is_empty()) {
        (false, _) => reason,
        (true, false) => format!("it is {phase}"),
        (true, true) => "it is there but not so yet".into(),
    }
}

fn container(status: &Value) -> String {
    if let Some(waiting) = status.pointer("/state/waiting").filter(|w| !w.is_null()) {
        let (reason, message) = (text(waiting, "/reason"), text(waiting, "/message"));
        let last = ended(&status["lastState"]["terminated"]);
        return match (reason, message) {
            ("CrashLoopBackOff", _) if !last.is_empty() => {
                if message.is_empty() {
                    last
                } else {
                    format!("{last}; {message}")
                }
            }
            ("ContainerCreating" | "PodInitializing" | "", "") => String::new(),
            (reason, "") => reason.to_owned(),
            (_, message) => message.to_owned(),
        };
    }
    ended(&status["state"]["terminated"])
}

/// How a container ended, when that was not well.
fn ended(terminated: &Value) -> String {
    let code = terminated.get("exitCode").and_then(Value::as_i64).unwrap_or(0);
    let (reason, message) = (text(terminated, "/reason"), text(terminated, "/message"));
    if terminated.is_null() || (code == 0 && matches!(reason, "" | "Completed")) {
        return String::new();
    }
    let mut said = match terminated.get("signal").and_then(Value::as_i64) {
        Some(signal) if signal > 0 => format!("killed by signal {signal}"),
        _ => format!("exit code {code}"),
    };
    if !matches!(reason, "" | "Error" | "Completed") {
        said = format!("{said} ({reason})");
    }
    if message.is_empty() { said } else { format!("{said}: {message}") }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(status: Value) -> String {
        reason(&json!({"status": status}))
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_told() {
        let container = |state: Value, last: Value| json!({"phase": "Running", "containerStatuses": [{"name": "main", "state": state, "lastState": last}]});
        assert_eq!(of(container(json!({"running": {}}), json!({}))), "");
        assert_eq!(
            of(container(
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}),
                json!({"terminated": {"exitCode": 3, "reason": "Error"}})
            )),
            "main: exit code 3; back-off 10s"
        );
        assert_eq!(
            of(container(json!({"waiting": {"reason": "ImagePullBackOff", "message": "no image\nx"}}), json!({}))),
            "main: no image x"
        );
        assert_eq!(
            of(container(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), json!({}))),
            "main: exit code 137 (OOMKilled)"
        );
        assert_eq!(of(container(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}), json!({}))), "");
        assert_eq!(
            of(
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "no room"}]})
            ),
            "no room"
        );
    }
}
