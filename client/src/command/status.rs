//! `status`: daemon, manifest files and pods on one screen.

use crate::command::image::size;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Style;
use crate::output::table::{Cell, Table};
use crate::wire::{DnsStatus, FileVerdict, StatusReport, StorageStatus};
use chrono::{DateTime, Utc};
use reddwarf_objects::print;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Show it again every two seconds, until interrupted
    #[arg(short, long)]
    watch: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    loop {
        let report: StatusReport = match context.daemon.get("/reddwarf/v1/status").await {
            Ok(report) => report,
            Err(e) if arguments.watch && e.is_connection() => {
                context.fail(&e);
                tokio::time::sleep(Duration::from_secs(2)).await;
                continue;
            }
            Err(e) => return Err(e),
        };
        if !context.structured(&report)? {
            let text = render(&report, context.style, context.width, context.now());
            let clear = if arguments.watch && context.width.is_some() { "\x1b[H\x1b[2J" } else { "" };
            context.print(&format!("{clear}{text}"))?;
        }
        if !arguments.watch {
            return Ok(if report.ready { Exit::Ok } else { Exit::Degraded });
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

fn render(report: &StatusReport, style: Style, width: Option<usize>, now: DateTime<Utc>) -> String {
    let state = if report.ready { style.good("ready") } else { style.bad("degraded") };
    let up = report.started.map(|t| format!(", up {}", print::age(Some(t), now))).unwrap_or_default();
    let mut text = format!(
        "reddwarfd {} on {} ({}): {state}{up}, generation {}, revision {}\n",
        report.version, report.node, report.host, report.generation, report.revision
    );
    if let Some(kubernetes) = &report.kubernetes {
        text.push_str(&format!("Kubernetes API on {}, kubeconfig {}\n", kubernetes.listen, kubernetes.kubeconfig));
    }
    if let Some(dns) = &report.dns {
        text.push_str(&name_server(dns));
    }
    if let Some(storage) = &report.storage {
        text.push_str(&storage_line(storage));
    }
    for check in report.checks.iter().filter(|c| !c.ok) {
        text.push_str(&format!("{} {}: {}\n", style.bad("!"), check.name, crate::output::printable(&check.message)));
    }
    for notice in &report.notices {
        text.push_str(&format!("{} {}\n", style.warning("!"), crate::output::printable(notice)));
    }
    text.push('\n');
    text.push_str(&sources(report, style, now));
    text.push_str(&troubled_files(report, style));
    text.push('\n');
    text.push_str(&pods(report, style, width, now));
    text
}

/// `Storage: btrfs at /srv/volumes (/srv is on btrfs), 12.0 GiB of 20.0 GiB free`.
fn storage_line(storage: &StorageStatus) -> String {
    let StorageStatus { engine, place, why, roots, total_bytes, free_bytes, .. } = storage;
    let room = if *total_bytes == 0 {
        String::new()
    } else {
        format!(", {} of {} free", size(*free_bytes), size(*total_bytes))
    };
    let roots = if roots.is_empty() { String::new() } else { format!("; pods' roots: {roots}") };
    format!("{}\n", crate::output::printable(&format!("Storage: {engine} at {place} ({why}){room}{roots}")))
}

fn name_server(dns: &DnsStatus) -> String {
    let at: Vec<&str> = dns.listeners.iter().filter(|l| l.ok).map(|l| l.address.as_str()).collect();
    let at = if at.is_empty() { "nowhere".to_owned() } else { at.join(", ") };
    let others = if dns.upstreams.is_empty() { "nobody".to_owned() } else { dns.upstreams.join(", ") };
    let text = format!(
        "DNS of {} on {at}, {} names, others from {others}\nDNS on this host: {}",
        dns.domain, dns.names, dns.host
    );
    format!("{}\n", crate::output::printable(&text).replace("\\n", "\n"))
}

fn sources(report: &StatusReport, style: Style, now: DateTime<Utc>) -> String {
    if report.sources.is_empty() {
        return "No manifest directories are configured.\n".into();
    }
    let mut table = Table::new(["SOURCE", "FILES", "STATE", "READ", "REASON"]);
    for source in &report.sources {
        let bad = source.files.iter().filter(|f| f.verdict == FileVerdict::Invalid).count();
        let state = match (source.complete, bad) {
            (false, _) => Cell::status("incomplete"),
            (true, 0) => Cell::status("ok"),
            (true, _) => Cell::status("invalid"),
        };
        let read = source.scanned.map(|t| format!("{} ago", print::age(Some(t), now))).unwrap_or_default();
        let files = source.files.iter().filter(|f| f.verdict != FileVerdict::Ignored).count();
        table.push(vec![
            source.path.as_str().into(),
            files.to_string().into(),
            state,
            read.into(),
            source.message.as_str().into(),
        ]);
    }
    table.render(style, None)
}

/// Files that are not simply in force, with their findings.
fn troubled_files(report: &StatusReport, style: Style) -> String {
    let mut text = String::new();
    for file in report.sources.iter().flat_map(|s| &s.files) {
        let word = match file.verdict {
            FileVerdict::Invalid => style.bad("refused"),
            FileVerdict::Partial => style.warning("in part refused or waiting"),
            FileVerdict::Masked => "masked".to_owned(),
            FileVerdict::Applied if !file.diagnostics.is_empty() => style.warning("applied with warnings"),
            _ => continue,
        };
        text.push_str(&format!("\n{}: {word}\n", crate::output::printable(&file.path)));
        for diagnostic in &file.diagnostics {
            text.push_str(&diagnostic.text());
        }
    }
    text
}

fn pods(report: &StatusReport, style: Style, width: Option<usize>, now: DateTime<Utc>) -> String {
    if report.pods.is_empty() {
        return "No pods.\n".into();
    }
    let mut table = Table::new(["NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "IP", "AGE", "SOURCE", "REASON"]);
    for pod in &report.pods {
        let source = if pod.source.is_empty() { "API" } else { &pod.source };
        table.push(vec![
            pod.namespace.as_str().into(),
            pod.name.as_str().into(),
            pod.ready.as_str().into(),
            Cell::status(&pod.status),
            pod.restarts.to_string().into(),
            pod.ip.as_str().into(),
            print::age(pod.created, now).into(),
            source.into(),
            pod.reason.as_str().into(),
        ]);
    }
    table.render(style, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_screen_tells_it_all() {
        let report: StatusReport = serde_json::from_value(json!({
            "version": "0.1.0", "node": "box", "host": "linux", "started": "2026-01-01T00:00:00Z", "ready": false,
            "generation": 4, "revision": 17, "fromTheFuture": true,
            "checks": [{"name": "store", "ok": true}, {"name": "directory", "ok": false, "message": "1 file is refused"}],
            "notices": ["7 objects would be deleted at once: reddwarfctl reconcile --allow-prune"],
            "sources": [{"path": "/etc/reddwarf.d", "complete": true, "scanned": "2026-01-01T00:01:00Z", "files": [
                {"path": "/etc/reddwarf.d/web.yaml", "verdict": "applied", "objects": ["pods/default/web"]},
                {"path": "/etc/reddwarf.d/bad.yaml", "verdict": "invalid", "objects": [], "diagnostics": [
                    {"severity": "error", "code": "RD0103", "file": "/etc/reddwarf.d/bad.yaml", "line": 5, "column": 3,
                     "what": "unknown field containres", "help": "did you mean containers?"}]}]}],
            "pods": [
                {"namespace": "default", "name": "web", "status": "Running", "ready": "1/1", "restarts": 0, "ip": "10.88.0.2",
                 "source": "/etc/reddwarf.d/web.yaml", "created": "2026-01-01T00:00:30Z"},
                {"namespace": "shop", "name": "db", "status": "CrashLoopBackOff", "ready": "0/1", "restarts": 3,
                 "reason": "main: exit code 3", "created": "2026-01-01T00:00:00Z"}],
        }))
        .unwrap();
        let now = "2026-01-01T00:01:30Z".parse().unwrap();
        assert_eq!(
            render(&report, Style::default(), None, now),
            "reddwarfd 0.1.0 on box (linux): degraded, up 90s, generation 4, revision 17\n\
             ! directory: 1 file is refused\n\
             ! 7 objects would be deleted at once: reddwarfctl reconcile --allow-prune\n\
             \n\
             SOURCE            FILES   STATE     READ      REASON\n\
             /etc/reddwarf.d   2       invalid   30s ago\n\
             \n\
             /etc/reddwarf.d/bad.yaml: refused\n\
             /etc/reddwarf.d/bad.yaml:5:3: unknown field containres, did you mean containers?\n\
             \n\
             NAMESPACE   POD   READY   STATUS             RESTARTS   IP          AGE   SOURCE                     REASON\n\
             default     web   1/1     Running            0          10.88.0.2   60s   /etc/reddwarf.d/web.yaml\n\
             shop        db    0/1     CrashLoopBackOff   3                      90s   API                        main: exit code 3\n"
        );
    }
}
