//! The audit log: one line of JSON for each request that changes something or opens a way into a container, in the form
//! of Kubernetes' audit events (audit.k8s.io/v1, level Metadata), so that its tools read it. Bodies, and so the contents
//! of Secrets, are never in it.

use crate::access::attributes::{Attributes, Target};
use crate::access::authenticate::Origin;
use crate::access::files::FileError;
use crate::access::principal::Principal;
use crate::access::reviews::user_info;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Where the audit log is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The file.
    pub path: PathBuf,
    /// Bytes of it before it is renamed to `FILE.1` and begun anew.
    pub bytes: u64,
    /// Old ones that are kept.
    pub files: u32,
}

/// Lines that may wait for the disk; then requests do.
const WAITING: usize = 1024;
/// Longer texts of clients are cut.
const LONGEST: usize = 4096;

/// What a request was, seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) principal: Option<Principal>,
    /// Who acted as that principal.
    pub(crate) impersonator: Option<String>,
    pub(crate) attributes: Option<Attributes>,
    /// Why it was let in.
    pub(crate) reason: String,
    pub(crate) allowed: bool,
}

/// A request that is over.
pub(crate) struct Done<'a> {
    pub(crate) id: &'a str,
    pub(crate) trace: &'a Trace,
    pub(crate) origin: &'a Origin,
    pub(crate) method: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) user_agent: &'a str,
    pub(crate) received: DateTime<Utc>,
    pub(crate) now: DateTime<Utc>,
    pub(crate) code: u16,
    /// The name that a new object was given.
    pub(crate) name: Option<&'a str>,
}

impl Done<'_> {
    /// Does it belong into the log?
    fn matters(&self) -> bool {
        match self.trace.attributes.as_ref().map(|a| (&a.target, a)) {
            Some((Target::Resource(target), what)) => {
                // Reviews are questions: they change nothing.
                let asks = target.resource.ends_with("reviews")
                    && matches!(target.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io");
                !what.reads() && !asks
            }
            _ => !matches!(self.method, "GET" | "HEAD" | "OPTIONS"),
        }
    }

    /// The event.
    fn event(&self) -> Value {
        let cut = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let trace = self.trace;
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": self.id,
            "stage": "ResponseComplete", "requestURI": cut(self.uri), "sourceIPs": [source(self.origin)],
            "userAgent": cut(self.user_agent), "responseStatus": {"code": self.code},
            "requestReceivedTimestamp": time(self.received), "stageTimestamp": time(self.now),
            "annotations": {
                "authorization.k8s.io/decision": if trace.allowed { "allow" } else { "forbid" },
                "authorization.k8s.io/reason": trace.reason,
                "reddwarf.io/latency-ms": (self.now - self.received).num_milliseconds().max(0).to_string(),
            },
        });
        let acting = trace.principal.as_ref().map(user_info).unwrap_or_else(|| json!({}));
        match &trace.impersonator {
            Some(name) => {
                event["user"] = json!({"username": name});
                event["impersonatedUser"] = acting;
            }
            None => event["user"] = acting,
        }
        event["verb"] = match &trace.attributes {
            Some(what) => what.verb.as_ref().into(),
            None => self.method.to_ascii_lowercase().into(),
        };
        if let Some(Target::Resource(target)) = trace.attributes.as_ref().map(|a| &a.target) {
            let name = if target.name.is_empty() { self.name.unwrap_or_default() } else { &target.name };
            let fields = [
                ("resource", target.resource.as_str()),
                ("namespace", &target.namespace),
                ("name", name),
                ("apiGroup", &target.group),
                ("apiVersion", &target.version),
                ("subresource", &target.subresource),
            ];
            let shown = fields.into_iter().filter(|(_, value)| !value.is_empty());
            event["objectRef"] = shown.map(|(key, value)| (key.to_owned(), value.into())).collect::<Map<_, _>>().into();
        }
        event
    }
}

/// An address, or the process at the socket.
fn source(origin: &Origin) -> String {
    match origin {
        Origin::Tls { peer, .. } => peer.ip().to_string(),
        Origin::Socket(principal) => match principal.pid {
            Some(pid) => format!("unix:pid={pid}"),
            None => "unix".to_owned(),
        },
        Origin::Refused(_) => "unix".to_owned(),
    }
}

/// The audit log; a thread of its own writes it.
pub(crate) struct Audit {
    /// `None` once it ends.
    lines: Option<mpsc::Sender<String>>,
    writer: Option<JoinHandle<()>>,
}

impl Audit {
    /// Opens the log, making its directory. One that can't be written now is tried again with each line.
    ///
    /// # Errors
    /// When its writer can't be started.
    pub(crate) fn open(settings: &AuditSettings) -> Result<Self, FileError> {
        let failed = |op| {
            let path = settings.path.clone();
            move |source| FileError { op, path, source }
        };
        let mut log = Log { settings: settings.clone(), file: None, failing: false };
        log.write("");
        let (lines, mut waiting) = mpsc::channel::<String>(WAITING);
        let write = move || {
            while let Some(first) = waiting.blocking_recv() {
                let mut batch = first;
                while batch.len() < 64 << 10
                    && let Ok(next) = waiting.try_recv()
                {
                    batch.push_str(&next);
                }
                log.write(&batch);
            }
        };
        let writer =
            std::thread::Builder::new().name("audit".into()).spawn(write).map_err(failed("start the writer of"))?;
        Ok(Self { lines: Some(lines), writer: Some(writer) })
    }

    /// Notes a request that is over, if it belongs into the log. Waits while the disk does not keep up.
    pub(crate) async fn note(&self, done: Done<'_>) {
        if !done.matters() {
            return;
        }
        let mut line = done.event().to_string();
        line.push('\n');
        if let Some(lines) = &self.lines {
            // The writer ends with us only.
            drop(lines.send(line).await);
        }
    }
}

impl Drop for Audit {
    /// Waits for the last lines.
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

/// The file.
struct Log {
    settings: AuditSettings,
    /// With its size.
    file: Option<(File, u64)>,
    failing: bool,
}

impl Log {
    fn open(&mut self) -> io::Result<()> {
        if let Some(directory) = self.settings.path.parent().filter(|d| !d.exists()) {
            DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
            .open(&self.settings.path)?;
        let size = file.metadata()?.len();
        self.file = Some((file, size));
        Ok(())
    }

    fn write(&mut self, lines: &str) {
        match (self.try_write(lines), self.failing) {
            (Ok(()), was_failing) => {
                self.failing = false;
                if was_failing {
                    tracing::info!(file = %self.settings.path.display(), "the audit log is written again");
                }
            }
            (Err(error), false) => {
                self.failing = true;
                self.file = None;
                tracing::error!(%error, file = %self.settings.path.display(), "the audit log can't be written: requests go on without it");
            }
            (Err(_), true) => self.file = None,
        }
    }

    fn try_write(&mut self, lines: &str) -> io::Result<()> {
        // Others (logrotate) may have moved it away.
        if self.file.as_ref().is_none_or(|(file, _)| !is_at(file, &self.settings.path)) {
            self.open()?;
        }
        let full =
            self.file.as_ref().is_some_and(|(_, size)| *size > 0 && size + lines.len() as u64 > self.settings.bytes);
        if full {
            self.rotate()?;
            self.open()?;
        }
        let Some((file, size)) = &mut self.file else { return Ok(()) };
        file.write_all(lines.as_bytes())?;
        *size += lines.len() as u64;
        Ok(())
    }

    /// FILE becomes FILE.1, that FILE.2, and so on; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let path = &self.settings.path;
        let old = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
        let keep = self.settings.files;
        if keep == 0 {
            return std::fs::remove_file(path);
        }
        for n in (1..keep).rev() {
            match std::fs::rename(old(n), old(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        std::fs::rename(path, old(1))
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| a.ino() == b.ino() && a.dev() == b.dev();
    matches!((file.metadata(), std::fs::symlink_metadata(path)), (Ok(a), Ok(b)) if same(&a, &b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: &Path, bytes: u64, files: u32) -> Log {
        Log { settings: AuditSettings { path: path.to_owned(), bytes, files }, file: None, failing: false }
    }

    #[test]
    fn e14_the_log_is_bounded_private_and_survives_being_moved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut log = log(&path, 100, 2);
        for n in 0..40 {
            log.write(&format!("{{\"line\": {n:010}}}\n"));
        }
        let mut names: Vec<String> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2"]);
        let newest = std::fs::read_to_string(&path).unwrap();
        assert!(newest.ends_with("{\"line\": 0000000039}\n") && newest.len() <= 100, "{newest}");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        log.write("next\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "next\n");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        log.write("lost\n");
        let settings = AuditSettings { path: path.clone(), bytes: 100, files: 1 };
        assert!(Audit::open(&settings).is_ok(), "a log that can't be written keeps no daemon from starting");
        std::fs::remove_dir(&path).unwrap();
        log.write("again\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "again\n");
    }
}
