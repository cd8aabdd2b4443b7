//! `/healthz`, `/livez`, `/readyz` with named checks, and `/metrics`.

use crate::discovery::{not_found, text_response};
use crate::serve::body::Body;
use crate::serve::counters::{counter, gauge, head, line};
use crate::serve::dispatch::Call;
use crate::types::Check;
use crate::wire::error::ApiError;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use reddwarf_objects::kinds;
use reddwarf_objects::partial::Partial;
use reddwarf_registry::ListQuery;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A probe. `?verbose` lists the checks, `?exclude=NAME` leaves some out, `/readyz/NAME` asks one.
///
/// # Errors
/// None but those of the type.
pub(crate) fn answer(call: &Call, path: &[&str]) -> Result<Response<Body>, ApiError> {
    let probe = path.first().copied().unwrap_or_default();
    let mut checks = vec![Check { name: "ping".into(), ok: true, message: String::new() }];
    if call.state.stop.is_cancelled() {
        checks.push(Check { name: "shutdown".into(), ok: false, message: "the daemon is stopping".into() });
    }
    // Alive is who answers; ready is who can work. `/healthz` is the old name of both.
    if probe != "livez" {
        checks.extend(call.state.deps.runtime.checks());
    }
    if let [_, name] = path {
        checks.retain(|c| c.name == *name);
        if checks.is_empty() {
            return Ok(not_found());
        }
    }
    let excluded = |check: &Check| call.query.all("exclude").any(|name| name == check.name);
    let ok = checks.iter().all(|check| check.ok || excluded(check));
    let code = if ok { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    if ok && !call.query.flag("verbose") {
        return Ok(text_response(code, "ok"));
    }
    let mut text = String::new();
    for check in &checks {
        // Into memory: no way to fail.
        let _ = match (excluded(check), check.ok) {
            (true, _) => writeln!(text, "[+]{} excluded: ok", check.name),
            (false, true) => writeln!(text, "[+]{} ok", check.name),
            (false, false) => writeln!(text, "[-]{} failed: {}", check.name, check.message),
        };
    }
    let unknown = |name: &&str| !name.is_empty() && checks.iter().all(|check| check.name != *name);
    let unknown: Vec<String> = call.query.all("exclude").filter(unknown).map(|name| format!("{name:?}")).collect();
    if !unknown.is_empty() {
        let _ = writeln!(text, "warn: some health checks cannot be excluded: no matches for {}", unknown.join(","));
    }
    let _ = writeln!(text, "{probe} check {}", if ok { "passed" } else { "failed" });
    Ok(text_response(code, text))
}

/// `/metrics`, Prometheus text format 0.0.4.
///
/// # Errors
/// 500 when the store can't be read.
pub(crate) fn metrics(call: &Call) -> Result<Response<Body>, ApiError> {
    let deps = &call.state.deps;
    let mut out = String::new();
    let directory = deps.directory.gauges();
    gauge(&mut out, "reddwarf_generation", "Generation of the manifest directory in force.", directory.generation);
    gauge(&mut out, "reddwarf_manifests", "Manifest files in force.", directory.manifests);
    gauge(&mut out, "reddwarf_manifests_invalid", "Manifest files refused now.", directory.manifests_invalid);
    pods(call, &mut out)?;
    let store = deps.registry.store().stats();
    gauge(&mut out, "reddwarf_store_revision", "Newest revision.", deps.registry.revision());
    gauge(&mut out, "reddwarf_store_file_bytes", "Size of the database file.", store.file_bytes);
    gauge(&mut out, "reddwarf_store_history_bytes", "Earlier values kept in history.", store.history_bytes);
    counter(&mut out, "reddwarf_store_commits_total", "Transactions that changed something.", store.commits);
    counter(
        &mut out,
        "reddwarf_store_batches_total",
        "Durable commits; several transactions share one.",
        store.batches,
    );
    counter(&mut out, "reddwarf_store_conflicts_total", "Transactions refused by an expectation.", store.conflicts);
    counter(&mut out, "reddwarf_store_failures_total", "Transactions failed by the disk.", store.failures);
    let registry = deps.registry.counters();
    head(&mut out, "reddwarf_registry_operations_total", "counter", "Store operations that the registry asked for.");
    for (operation, count) in [
        ("get", registry.gets),
        ("list", registry.lists),
        ("commit", registry.commits),
        ("retry", registry.retries),
        ("watch", registry.watches),
        ("unchanged", registry.unchanged),
    ] {
        line(&mut out, &format!("reddwarf_registry_operations_total{{operation=\"{operation}\"}}"), count);
    }
    call.state.counters.render(&mut out);
    out.push_str(&deps.runtime.metrics());
    let mut response = text_response(StatusCode::OK, out);
    let content = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content);
    Ok(response)
}

/// Pods by phase; every phase has a line, so that alerts see zeros.
fn pods(call: &Call, out: &mut String) -> Result<(), ApiError> {
    let mut phases: BTreeMap<String, u64> =
        ["Pending", "Running", "Succeeded", "Failed", "Unknown"].map(|p| (p.to_owned(), 0)).into();
    if let Some(kind) = kinds().by_group_resource("", "pods") {
        let phase = Partial::new(["/status/phase"]);
        call.state.deps.registry.visit(&ListQuery::all(kind), None, |pod| {
            let pod = pod.partial(&phase)?;
            *phases.entry(pod.get_str("/status/phase").unwrap_or("Unknown").to_owned()).or_default() += 1;
            Ok(())
        })?;
    }
    head(out, "reddwarf_pods", "gauge", "Pods by phase.");
    for (phase, count) in phases {
        line(out, &format!("reddwarf_pods{{phase=\"{phase}\"}}"), count);
    }
    Ok(())
}
