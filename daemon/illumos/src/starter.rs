//! The starter: our own program inside of a zone. It makes a container's surroundings ready (files of /etc, volumes, root,
//! user, directory), starts the container's program and says how that goes, since zlogin(1) takes death by a signal for
//! success.
//!
//! It runs as the zone's root, in the zone: whatever a pod puts into its way leads nowhere but into the zone itself.
//! Paths are relative to where zlogin begins, the zone's root.

mod surroundings;

use crate::terminal::Terminal;
use crate::tree;
use nix::unistd::{Gid, Uid};
use reddwarf_host::spec::{EnvFile, UserSpec};
use reddwarf_supervise::files::{read_json, write_atomically};
use reddwarf_supervise::{env_file, user};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

/// Its first argument.
pub const ARGUMENT: &str = "__zone-start";
/// The same for the half that becomes the program.
pub const BECOME: &str = "__zone-become";

/// What to start; lies where the zone can only read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Where a terminal's size is written, from the zone's root.
    #[serde(default)]
    pub(crate) size: PathBuf,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) env_files: Vec<StartEnvFile>,
    pub(crate) working_dir: String,
    pub(crate) user: UserSpec,
    pub(crate) strict_groups: bool,
    /// Its root file system; absent: the zone's own.
    pub(crate) root: Option<PathBuf>,
    /// The zone's host name; empty: as it is.
    #[serde(default)]
    pub(crate) hostname: String,
    /// Files for /etc.
    pub(crate) etc: PathBuf,
    pub(crate) mounts: Vec<StartMount>,
    /// Where to say how it goes, without ending.
    pub(crate) out: PathBuf,
    /// Its surroundings are there already: a command beside a container's own program.
    pub(crate) joins: bool,
    pub(crate) tty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartMount {
    pub(crate) source: PathBuf,
    /// Absolute, within the container.
    pub(crate) target: String,
    pub(crate) read_only: bool,
    /// The program does without it where nothing can be mounted: not every /dev takes a file for last words.
    #[serde(default)]
    pub(crate) optional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartEnvFile {
    /// The volume, as the zone sees it.
    pub(crate) source: PathBuf,
    pub(crate) file: EnvFile,
}

/// What ended before the program could run.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    /// As a shell says it: 126 not executable, 127 not there, 128 anything else.
    code: i32,
    kind: Kind,
    message: String,
}

/// Whose fault it is that a program did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// Its own: there is no such program. An end like any other.
    Program,
    /// The pod's: what it asks for can't be.
    Invalid,
    /// Anything else.
    Other,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Program => "-",
            Self::Invalid => "invalid",
            Self::Other => "other",
        }
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let what = what.into();
    move |e| Failure { code: 128, kind: Kind::Other, message: format!("{what}: {e}") }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure { code: 128, kind: Kind::Invalid, message: message.into() }
}

/// Runs the starter for the file named by `args`.
pub fn main(args: &[OsString]) -> ExitCode {
    let Some(file) = args.first() else {
        eprintln!("usage: {ARGUMENT} FILE (started by reddwarfd itself, in a zone)");
        return ExitCode::from(2);
    };
    let start = match read_json::<Start>(Path::new(file)) {
        Ok(Some(start)) => start,
        Ok(None) | Err(_) => {
            eprintln!("reddwarfd: {} can't be read", Path::new(file).display());
            return ExitCode::from(125);
        }
    };
    match run(&start, Path::new(file)) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(failure) => {
            say_end(&start.out, failure.code, None, failure.kind, &failure.message);
            ExitCode::from(u8::try_from(failure.code).unwrap_or(255))
        }
    }
}

fn run(start: &Start, file: &Path) -> Result<i32, Failure> {
    let own = std::env::current_exe().map_err(failed("our own program"))?;
    tree::keep_orphans();
    let mounted = if start.joins { Vec::new() } else { surroundings::make(start)? };
    let result = attend(start, file, &own);
    surroundings::unmount(&mounted);
    let status = result?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    say_end(&start.out, code, status.signal(), Kind::Program, "");
    Ok(code)
}

/// Starts the program and waits for its end.
fn attend(start: &Start, file: &Path, own: &Path) -> Result<ExitStatus, Failure> {
    let word = Word::new(&start.out).map_err(failed("make a pipe"))?;
    let terminal = start.tty.then(Terminal::open).transpose().map_err(failed("open a terminal"))?;
    #[expect(clippy::disallowed_methods, reason = "in the zone: it becomes the container's program")]
    let mut command = Command::new(own);
    command.arg(BECOME).arg(file).env_clear();
    match &terminal {
        // It makes a session of its own, which the leader of a group can't.
        Some(terminal) => {
            command.arg(&terminal.path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        None => {
            command.process_group(0);
        }
    }
    let mut child = command.spawn().map_err(failed("start"))?;
    if let Some(failure) = word.hear(&mut child) {
        let _ = child.wait();
        return Err(failure);
    }
    let pid = child.id();
    say_started(&start.out, pid, std::process::id()).map_err(failed("say that it runs"))?;
    let relay = terminal.map(|t| t.relay(start));
    let status = child.wait().map_err(failed("wait"))?;
    if let Some(relay) = relay {
        relay.finish();
    }
    if !start.joins {
        // Whatever it left behind ends with it, and so do commands beside it.
        tree::end(std::process::id(), false);
        end_commands(&start.out);
    }
    Ok(status)
}

/// How commands beside a container are named: `exec-NAME.ATTEMPT-…`.
pub(crate) fn command_prefix(container: &str) -> String {
    format!("exec-{container}-")
}

/// Ends commands that run beside a container that has ended.
fn end_commands(out: &Path) {
    let (Some(dir), Some(name)) = (out.parent(), out.file_name().and_then(|n| n.to_str())) else { return };
    let prefix = command_prefix(name);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(file) = entry.file_name().into_string() else { continue };
        let Some(command) = file.strip_suffix(".started").filter(|c| c.starts_with(&prefix)) else { continue };
        let command = dir.join(command);
        if let (Some((_, starter)), None) = (read_started(&command), read_ended(&command)) {
            tree::end(starter, false);
        }
    }
}

/// Becomes the program. Only plain calls of the system, in the order that rights are lost.
pub fn become_program(args: &[OsString]) -> ExitCode {
    let Some(Ok(Some(start))) = args.first().map(|file| read_json::<Start>(Path::new(file))) else {
        return ExitCode::from(125);
    };
    // Closed by the program's beginning; opened before the root changes.
    let Ok(mut word) = fs::OpenOptions::new().write(true).open(word_file(&start.out)) else {
        return ExitCode::from(125);
    };
    if word.write_all(b".").is_err() {
        return ExitCode::from(125);
    }
    let result = args.get(1).map_or(Ok(()), |path| take_terminal(Path::new(path))).and_then(|()| replace(&start));
    let failure = match result {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    if let Ok(text) = serde_json::to_vec(&failure) {
        let _ = word.write_all(&text);
    }
    ExitCode::from(u8::try_from(failure.code).unwrap_or(255))
}

/// A session of its own, whose first terminal that is opened is its own.
fn take_terminal(path: &Path) -> Result<(), Failure> {
    nix::unistd::setsid().map_err(|e| failed("setsid")(e.into()))?;
    let terminal = fs::OpenOptions::new().read(true).write(true).open(path).map_err(failed("open the terminal"))?;
    let taken = nix::unistd::dup2_stdin(&terminal)
        .and_then(|()| nix::unistd::dup2_stdout(&terminal))
        .and_then(|()| nix::unistd::dup2_stderr(&terminal));
    taken.map_err(|e| failed("take the terminal")(e.into()))
}

enum Never {}

fn replace(start: &Start) -> Result<Never, Failure> {
    let mut env = start.env.clone();
    for StartEnvFile { source, file } in &start.env_files {
        let text = read_small(&source.join(&file.path)).ok();
        match text.as_deref().and_then(|text| env_file::value(text, &file.key)) {
            Some(value) => {
                env.retain(|(name, _)| *name != file.name);
                env.push((file.name.clone(), value));
            }
            None if file.optional => {}
            None => return Err(invalid(format!("variable {}: no key {} in {}", file.name, file.key, file.path))),
        }
    }
    if let Some(root) = &start.root {
        nix::unistd::chroot(root).map_err(|e| failed("change root")(e.into()))?;
        std::env::set_current_dir("/").map_err(failed("change root"))?;
    }
    let passwd = read_small(Path::new("/etc/passwd")).unwrap_or_default();
    let group = read_small(Path::new("/etc/group")).unwrap_or_default();
    let who = user::resolve(&start.user, &passwd, &group, start.strict_groups).map_err(|e| invalid(e.to_string()))?;
    if start.root.is_some() {
        let _ = fs::create_dir_all(&start.working_dir);
    }
    std::env::set_current_dir(&start.working_dir)
        .map_err(|e| invalid(format!("working directory {}: {e}", start.working_dir)))?;
    let groups: Vec<Gid> = who.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    nix::unistd::setgroups(&groups).map_err(|e| failed("setgroups")(e.into()))?;
    nix::unistd::setgid(Gid::from_raw(who.gid)).map_err(|e| failed("setgid")(e.into()))?;
    nix::unistd::setuid(Uid::from_raw(who.uid)).map_err(|e| failed("setuid")(e.into()))?;
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), who.home.filter(|h| !h.is_empty()).unwrap_or_else(|| "/".to_owned())));
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let path = path.unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let Some((program, rest)) = start.argv.split_first() else { return Err(invalid("no program is named")) };
    let found = find(program, &path)?;
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    #[expect(clippy::disallowed_methods, reason = "becomes the container's program: nothing is awaited")]
    let error = Command::new(found).arg0(program).args(rest).env_clear().envs(env).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    Err(Failure { code, kind: Kind::Program, message: format!("exec {program}: {error}") })
}

/// How the half that becomes the program tells that it could not: a pipe that the program's beginning closes.
struct Word {
    path: PathBuf,
    from: fs::File,
}

fn word_file(out: &Path) -> PathBuf {
    with_ending(out, "word")
}

impl Word {
    fn new(out: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = word_file(out);
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let from = fs::OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
        Ok(Self { path, from })
    }

    /// Waits until the program runs; what kept it from running, if anything did.
    fn hear(mut self, child: &mut Child) -> Option<Failure> {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.from.read(&mut buffer) {
                // Nobody has it open: not yet, or not any more.
                Ok(0) if !said.is_empty() => break,
                Ok(0) => {
                    if !matches!(child.try_wait(), Ok(None)) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(n) => said.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        match said.split_first() {
            Some((b'.', [])) => None,
            Some((b'.', failure)) => {
                Some(serde_json::from_slice(failure).unwrap_or_else(|_| invalid("died too early")))
            }
            _ => Some(Failure {
                code: 128,
                kind: Kind::Other,
                message: "the program's process died too early".to_owned(),
            }),
        }
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A program as a shell finds it.
fn find(program: &str, path: &str) -> Result<PathBuf, Failure> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let found = path.split(':').map(|dir| Path::new(dir).join(program)).find(|p| p.is_file());
    let message = || format!("exec {program}: no such program in {path}");
    found.ok_or_else(|| Failure { code: 127, kind: Kind::Program, message: message() })
}

fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(u64::from(u32::MAX).min(user::LARGEST)).read_to_string(&mut text)?;
    Ok(text)
}

/// The file where the end is said.
pub(crate) fn ended_file(out: &Path) -> PathBuf {
    with_ending(out, "ended")
}

/// The file where the start is said.
pub(crate) fn started_file(out: &Path) -> PathBuf {
    with_ending(out, "started")
}

fn with_ending(out: &Path, ending: &str) -> PathBuf {
    let mut path = out.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}

fn say(out: &Path, ending: &str, text: &str) -> io::Result<()> {
    write_atomically(&with_ending(out, ending), text.as_bytes(), 0o600)
}

/// Says that a program runs: its process, and the one that will tell its end.
pub(crate) fn say_started(out: &Path, pid: impl std::fmt::Display, starter: u32) -> io::Result<()> {
    say(out, "started", &format!("{pid} {starter}\n"))
}

pub(crate) fn say_end(out: &Path, code: i32, signal: Option<i32>, kind: Kind, message: &str) {
    let message = message.replace('\n', " ");
    let (signal, kind) = (signal.unwrap_or_default(), kind.word());
    if let Err(e) = say(out, "ended", &format!("{code} {signal} {kind} {message}\n")) {
        eprintln!("reddwarfd: {}: {e}", out.display());
    }
}

/// How a program ended, as said inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    /// What kept the program from running, where it did not.
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

/// Reads what was said inside: a small plain file, whoever wrote it. No link is followed.
pub(crate) fn read_said(path: &Path) -> Option<String> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    text.ends_with('\n').then_some(text)
}

/// The program's first process and the starter.
pub(crate) fn read_started(out: &Path) -> Option<(u32, u32)> {
    let text = read_said(&started_file(out))?;
    let (pid, starter) = text.trim_end().split_once(' ')?;
    Some((pid.parse().ok()?, starter.parse().ok()?))
}

/// How it ended; `None`: nothing was said.
pub(crate) fn read_ended(out: &Path) -> Option<Ended> {
    let text = read_said(&ended_file(out))?;
    let mut words = text.trim_end_matches('\n').splitn(4, ' ');
    let code = words.next()?.parse().ok()?;
    let signal = words.next()?.parse().ok().filter(|s| *s != 0);
    let kind = match words.next()? {
        "invalid" => Kind::Invalid,
        "other" => Kind::Other,
        _ => Kind::Program,
    };
    Some(Ended { code, signal, kind, message: words.next().unwrap_or_default().to_owned() })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write where nobody else reads")]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_inside_is_read_without_trust() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("app.0");
        assert_eq!(read_ended(&out), None);
        say_end(&out, 139, Some(11), Kind::Invalid, "two\nlines");
        let (code, signal, kind, message) = (139, Some(11), Kind::Invalid, "two lines".into());
        assert_eq!(read_ended(&out), Some(Ended { code, signal, kind, message }));
        say(&out, "started", "12 11\n").unwrap();
        assert_eq!(read_started(&out), Some((12, 11)));
        fs::write(started_file(&out), "12 1").unwrap();
        assert_eq!(read_started(&out), None, "half a line");
        fs::remove_file(ended_file(&out)).unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "0 0 - secret\n").unwrap();
        std::os::unix::fs::symlink(&secret, ended_file(&out)).unwrap();
        assert_eq!(read_ended(&out), None, "a link of the pod's leads nowhere");
    }
}
