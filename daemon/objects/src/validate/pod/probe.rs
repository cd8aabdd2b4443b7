//! Rules of probes and lifecycle hooks.

use crate::{
    names,
    validate::{
        at::{At, Errors},
        rules,
    },
};

/// The hooks and probes of a container that may have them.
pub(super) fn check_all(container: &At<'_, '_>, grace: Option<i64>, errors: &mut Errors) {
    if let Some(lifecycle) = container.given("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.given(hook) {
                check_handler(&handler, grace, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.given(name) {
            check_probe(name, &probe, grace, errors);
        }
    }
}

fn check_probe(name: &str, probe: &At<'_, '_>, grace: Option<i64>, errors: &mut Errors) {
    check_handler(probe, grace, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.not_negative(errors, field);
    }
    let own_grace = probe.child("terminationGracePeriodSeconds");
    if probe.number("terminationGracePeriodSeconds").is_some_and(|seconds| seconds <= 0) {
        own_grace.invalid(errors, "must be greater than 0");
    }
    if name == "readinessProbe" {
        if !own_grace.value.is_null() {
            own_grace.invalid(errors, "must not be set for readinessProbes");
        }
    } else if probe.number("successThreshold").unwrap_or(0) != 1 {
        let found = probe.number("successThreshold").unwrap_or(0);
        probe.child("successThreshold").invalid_value(errors, found, "must be 1");
    }
}

fn check_handler(handler: &At<'_, '_>, grace: Option<i64>, kinds: &[&'static str], errors: &mut Errors) {
    let mut found = false;
    for kind in kinds {
        let Some(action) = handler.given(kind) else { continue };
        if found {
            action.forbidden(errors, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" if !action.filled("command") => action.child("command").required(errors, ""),
            "httpGet" => check_http_get(&action, errors),
            "tcpSocket" | "grpc" => rules::port_or_name(&action.child("port"), errors),
            "sleep" => {
                let seconds = action.number("seconds").unwrap_or(0);
                if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                    let message = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    action.invalid_value(errors, seconds, message);
                }
            }
            _ => {}
        }
    }
    if !found {
        handler.required(errors, "must specify a handler type");
    }
}

fn check_http_get(get: &At<'_, '_>, errors: &mut Errors) {
    get.require(errors, "path");
    rules::port_or_name(&get.child("port"), errors);
    let scheme = get.text("scheme");
    if !["HTTP", "HTTPS"].contains(&scheme) {
        get.child("scheme").not_supported(errors, scheme, &["HTTP", "HTTPS"]);
    }
    let headers = get.child("httpHeaders");
    for header in headers.items() {
        headers.invalid_all(errors, header.text("name"), names::http_header_name(header.text("name")));
    }
}
