//! A pod stays for five minutes on a node that is not ready or can't be reached.

use crate::object::Object;
use serde_json::{Value, json};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

pub(super) fn fill(pod: &mut Object) {
    let mut list = pod.get("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let before = list.len();
    for taint in TAINTS {
        if !list[..before].iter().any(|toleration| tolerates(toleration, taint)) {
            list.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
    if list.len() > before {
        pod.set("/spec/tolerations", list);
    }
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    (text("key") == taint || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
}
