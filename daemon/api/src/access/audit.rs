//! The audit log: one line of JSON for each request that changes something or opens a way into a container, in the form
//! of Kubernetes' audit events (audit.k8s.io/v1, level Metadata), so that its tools read it. Bodies, and so the contents
//! of Secrets, are never in it.

use crate::access::attributes::{Attributes, Target};
use crate::access::authenticate::Origin;
use crate::access::files::FileError;
use crate::access::principal::{Principal, UserInfo};
use chrono::{DateTime, Utc};
use reddwarf_objects::json;
use reddwarf_objects::object::micro_timestamp;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
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
/// How long a line waits for others to be written with it.
const LINGER: Duration = Duration::from_millis(5);
/// Longer texts of clients are cut.
const LONGEST: usize = 4096;

/// What a request was, seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) principal: Option<Arc<Principal>>,
    /// Who acted as that principal.
    pub(crate) impersonator: Option<String>,
    pub(crate) attributes: Option<Arc<Attributes>>,
    /// Why it was let in.
    pub(crate) reason: String,
    pub(crate) allowed: bool,
    pub(crate) notes: Notes,
}

/// What admission notes of a request: annotations of its event, by key. Shared by all who deal with the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Notes {
    pub(crate) fn add(&self, notes: Vec<(&'static str, String)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(notes);
    }

    fn all(&self) -> BTreeMap<&'static str, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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

    /// The event as a line of JSON; fields in order of their names, as everywhere.
    fn line(&self) -> String {
        let trace = self.trace;
        let acting = trace.principal.as_deref().map(Principal::info).unwrap_or_default();
        let (user, impersonated) = match &trace.impersonator {
            Some(name) => (UserInfo::named(name), Some(acting)),
            None => (acting, None),
        };
        let target = trace.attributes.as_ref().and_then(|what| match &what.target {
            Target::Resource(target) => Some(target),
            Target::Path(_) => None,
        });
        let verb = match &trace.attributes {
            Some(what) => Cow::Borrowed(what.verb.as_ref()),
            None => Cow::Owned(self.method.to_ascii_lowercase()),
        };
        let latency = (self.now - self.received).num_milliseconds().max(0);
        let mut line = Line(Vec::with_capacity(1024));
        line.text(
            r#"{"annotations":{"authorization.k8s.io/decision":"#,
            if trace.allowed { "allow" } else { "forbid" },
        );
        line.text(r#","authorization.k8s.io/reason":"#, &trace.reason);
        for (key, text) in &trace.notes.all() {
            line.text(&format!(r#","{key}":"#), cut(text));
        }
        line.text(r#","reddwarf.io/latency-ms":"#, &latency.to_string());
        line.text(r#"},"apiVersion":"audit.k8s.io/v1","auditID":"#, self.id);
        if let Some(user) = &impersonated {
            line.value(r#","impersonatedUser":"#, user);
        }
        line.plain(r#","kind":"Event","level":"Metadata","#);
        if let Some(target) = target {
            line.plain(r#""objectRef":{"#);
            let name = if target.name.is_empty() { self.name.unwrap_or_default() } else { &target.name };
            for (field, text) in [
                (r#""apiGroup":"#, target.group.as_str()),
                (r#""apiVersion":"#, &target.version),
                (r#""name":"#, name),
                (r#""namespace":"#, &target.namespace),
                (r#""resource":"#, &target.resource),
                (r#""subresource":"#, &target.subresource),
            ] {
                if !text.is_empty() {
                    line.text(field, text);
                    line.plain(",");
                }
            }
            line.0.pop_if(|last| *last == b',');
            line.plain("},");
        }
        line.text(r#""requestReceivedTimestamp":"#, &micro_timestamp(self.received));
        line.text(r#","requestURI":"#, cut(self.uri));
        line.text(&format!(r#","responseStatus":{{"code":{}}},"sourceIPs":["#, self.code), &source(self.origin));
        line.text(r#"],"stage":"ResponseComplete","stageTimestamp":"#, &micro_timestamp(self.now));
        line.value(r#","user":"#, &user);
        line.text(r#","userAgent":"#, cut(self.user_agent));
        line.text(r#","verb":"#, &verb);
        line.plain("}\n");
        // Texts in, text out.
        String::from_utf8(line.0).unwrap_or_default()
    }
}

/// A line of JSON that is put together from what is the same in all lines and the texts between.
struct Line(Vec<u8>);

impl Line {
    fn plain(&mut self, json: &str) {
        self.0.extend_from_slice(json.as_bytes());
    }

    /// JSON and a text after it.
    fn text(&mut self, json: &str, text: &str) {
        self.plain(json);
        json::write_text(text, &mut self.0);
    }

    /// JSON and another value after it.
    fn value<T: Serialize>(&mut self, json: &str, value: &T) {
        self.plain(json);
        // Into memory: no way to fail.
        drop(serde_json::to_writer(&mut self.0, value));
    }
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(LONGEST).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
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
                // Those that come in quick succession are written together.
                std::thread::sleep(LINGER);
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
        if let Some(lines) = &self.lines {
            // The writer ends with us only.
            drop(lines.send(done.line()).await);
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
