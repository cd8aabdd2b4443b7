//! Cells of the kinds that the API itself is about: admission, certificates, flow control, groups and their servers.

use super::{Cells, NONE, UNKNOWN, UNSET, human_duration};
use chrono::TimeDelta;
use serde_json::Value;

pub(super) fn cell(cells: &Cells<'_>, column: &str) -> Option<Value> {
    match (cells.kind.kind, column) {
        ("ComponentStatus", "Status" | "Message" | "Error") => Some(component(cells, column)),
        ("APIService", "Service" | "Available") => Some(api_service(cells, column)),
        ("MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration", "Webhooks") => {
            Some(cells.list("/webhooks").len().into())
        }
        ("ValidatingAdmissionPolicy", "Validations") => Some(cells.list("/spec/validations").len().into()),
        ("MutatingAdmissionPolicy", "Mutations") => Some(cells.list("/spec/mutations").len().into()),
        (_, "ParamKind") => Some(match cells.text("/spec/paramKind/kind") {
            "" => UNSET.into(),
            kind => format!("{}/{kind}", cells.text("/spec/paramKind/apiVersion")).into(),
        }),
        (_, "PolicyName") => Some(cells.text("/spec/policyName").into()),
        (_, "ParamRef") => Some(param_ref(cells)),
        ("CertificateSigningRequest", column) => certificate(cells, column),
        ("FlowSchema", column) => flow_schema(cells, column),
        ("PriorityLevelConfiguration", column) => priority_level(cells, column),
        _ => None,
    }
}

/// The condition of a type.
fn condition<'a>(cells: &Cells<'a>, pointer: &str, kind: &str) -> Option<&'a Value> {
    cells.list(pointer).iter().find(|c| c.get("type").is_some_and(|t| t == kind))
}

fn text<'a>(value: Option<&'a Value>, field: &str) -> &'a str {
    value.and_then(|v| v.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn component(cells: &Cells<'_>, column: &str) -> Value {
    let healthy = condition(cells, "/conditions", "Healthy");
    match (column, healthy) {
        ("Status", None) => "Unknown".into(),
        ("Status", healthy) => (if text(healthy, "status") == "True" { "Healthy" } else { "Unhealthy" }).into(),
        ("Message", healthy) => text(healthy, "message").into(),
        (_, healthy) => text(healthy, "error").into(),
    }
}

fn api_service(cells: &Cells<'_>, column: &str) -> Value {
    if column == "Service" {
        return match cells.text("/spec/service/name") {
            "" => "Local".into(),
            name => format!("{}/{name}", cells.text("/spec/service/namespace")).into(),
        };
    }
    let available = condition(cells, "/status/conditions", "Available");
    match text(available, "status") {
        "" => "Unknown".into(),
        "True" => "True".into(),
        status => format!("{status} ({})", text(available, "reason")).into(),
    }
}

fn param_ref(cells: &Cells<'_>) -> Value {
    match (cells.text("/spec/paramRef/namespace"), cells.text("/spec/paramRef/name")) {
        (_, "") => UNSET.into(),
        // Whether the parameters are in a namespace can't be told from here.
        ("", name) => format!("*/{name}").into(),
        (namespace, name) => format!("{namespace}/{name}").into(),
    }
}

fn certificate(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "SignerName" => cells.text_or("/spec/signerName", NONE),
        "Requestor" => cells.text("/spec/username").into(),
        "RequestedDuration" => match cells.object.get("/spec/expirationSeconds").and_then(Value::as_i64) {
            Some(seconds) => human_duration(TimeDelta::try_seconds(seconds).unwrap_or_default()).into(),
            None => NONE.into(),
        },
        "Condition" => {
            let has = |kind| condition(cells, "/status/conditions", kind).is_some();
            let mut words = vec![match (has("Denied"), has("Approved")) {
                (true, _) => "Denied",
                (false, true) => "Approved",
                (false, false) => "Pending",
            }];
            words.extend(has("Failed").then_some("Failed"));
            words.extend((!cells.text("/status/certificate").is_empty()).then_some("Issued"));
            words.join(",").into()
        }
        _ => return None,
    })
}

fn flow_schema(cells: &Cells<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "PriorityLevel" => cells.text_or("/spec/priorityLevelConfiguration/name", NONE),
        "MatchingPrecedence" => cells.number("/spec/matchingPrecedence").into(),
        "DistinguisherMethod" => cells.text_or("/spec/distinguisherMethod/type", NONE),
        "MissingPL" => match text(condition(cells, "/status/conditions", "Dangling"), "status") {
            "" => "?".into(),
            status => status.into(),
        },
        _ => return None,
    })
}

fn priority_level(cells: &Cells<'_>, column: &str) -> Option<Value> {
    let number = |pointer: &str| cells.object.get(pointer).cloned().filter(Value::is_number);
    Some(match column {
        "Type" => cells.text_or("/spec/type", UNKNOWN),
        "NominalConcurrencyShares" => number("/spec/limited/nominalConcurrencyShares").unwrap_or_else(|| NONE.into()),
        "Queues" => number("/spec/limited/limitResponse/queuing/queues").unwrap_or_else(|| NONE.into()),
        "HandSize" => number("/spec/limited/limitResponse/queuing/handSize").unwrap_or_else(|| NONE.into()),
        "QueueLengthLimit" => {
            number("/spec/limited/limitResponse/queuing/queueLengthLimit").unwrap_or_else(|| NONE.into())
        }
        _ => return None,
    })
}
