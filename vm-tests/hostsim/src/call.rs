//! One call of a tool: where its system is, what goes wrong with it, what is noted of it.

use crate::fault::{self, Action};
use crate::state::State;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::{Pid, getpid, getppid};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::cell::OnceCell;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a tool printed, and its exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// 0 for success, 1 for errors, 2 for usage, with most tools.
    pub code: i32,
}

impl Answer {
    /// Success without a word.
    pub(crate) fn ok() -> Self {
        Self::default()
    }

    /// Success with something on standard output.
    pub(crate) fn out(text: impl Into<String>) -> Self {
        Self { out: text.into(), ..Self::default() }
    }

    /// An error of code 1, with its newline added.
    pub(crate) fn fail(message: impl Into<String>) -> Self {
        Self { err: message.into() + "\n", code: 1, ..Self::default() }
    }

    /// A usage error.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, ..Self::fail(message) }
    }
}

/// The directory of one played system.
#[derive(Clone, Debug)]
pub struct Sim {
    dir: PathBuf,
}

/// The model while nobody else can read or change it.
pub struct Locked {
    /// What it is now; [`Locked::save`] keeps it.
    pub state: State,
    /// The text that it was read from.
    before: String,
    path: PathBuf,
    _lock: Flock<File>,
}

impl Locked {
    /// Keeps the model; says whether it is another one than before.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&mut self) -> std::io::Result<bool> {
        let text = serde_json::to_string(&self.state)?;
        if text == self.before {
            return Ok(false);
        }
        replace(&self.path, text.as_bytes())?;
        self.before = text;
        Ok(true)
    }
}

/// Puts a whole file in place of another.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    File::create(&temporary)?.write_all(bytes)?;
    std::fs::rename(temporary, path)
}

impl Sim {
    /// The system in this directory.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the tools are.
    pub fn tools(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Where datasets and zones are, standing for `/`.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        self.dir.join("state").join(name)
    }

    /// The model, locked.
    ///
    /// # Errors
    /// The disk's, and a model that can't be read.
    pub fn lock(&self) -> std::io::Result<Locked> {
        let lock = self.flock("lock")?;
        let path = self.kept("model.json");
        let before = std::fs::read_to_string(&path)?;
        Ok(Locked { state: serde_json::from_str(&before)?, before, path, _lock: lock })
    }

    fn flock(&self, name: &str) -> std::io::Result<Flock<File>> {
        let file = File::options().create(true).truncate(false).write(true).open(self.kept(name))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// Changes the model in one step.
    ///
    /// # Errors
    /// As [`Sim::lock`].
    pub fn change<T>(&self, with: impl FnOnce(&mut State) -> T) -> std::io::Result<T> {
        let mut locked = self.lock()?;
        let result = with(&mut locked.state);
        locked.save()?;
        Ok(result)
    }

    /// What goes wrong with this call.
    fn fault(&self, call: &Call<'_>) -> Result<Option<Action>, String> {
        let Ok(text) = std::fs::read_to_string(self.dir.join("faults")) else { return Ok(None) };
        let rules = fault::parse(&text)?;
        let kept = self.kept("faults.json");
        let _lock = self.flock("faults.lock").map_err(|e| e.to_string())?;
        // Counted anew when the plan is another one.
        let read =
            std::fs::read_to_string(&kept).ok().and_then(|t| serde_json::from_str::<(String, Vec<u64>)>(&t).ok());
        let mut counts = read.filter(|(of, _)| *of == text).map(|(_, counts)| counts).unwrap_or_default();
        let action = fault::choose(&rules, &mut counts, call.tool, &call.args, call.changes());
        let bytes = serde_json::to_vec(&(text, counts)).map_err(|e| e.to_string())?;
        replace(&kept, &bytes).map_err(|e| e.to_string())?;
        Ok(action)
    }
}

/// One line of the transcript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The tool's name.
    pub tool: String,
    /// Its arguments.
    pub argv: Vec<String>,
    /// SHA-256 of what it read from standard input, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// How it ended; `None` when a fault keeps it from ending.
    pub rc: Option<i32>,
    /// Whether it changes the system: no question.
    pub changing: bool,
    /// Whether its caller wants to hear English.
    #[serde(default)]
    pub c_locale: bool,
    /// What went wrong on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The process that called.
    pub caller: i32,
}

/// One call.
pub struct Call<'s> {
    /// The system that it is about.
    pub sim: &'s Sim,
    /// The tool's name.
    pub tool: &'s str,
    /// Its arguments.
    pub args: Vec<String>,
    /// How many statements it carries out before it fails.
    pub(crate) statements: Option<usize>,
    stdin: OnceCell<String>,
    /// Opened at the beginning: who has gone into a zone does not find it any more.
    transcript: Option<File>,
}

impl<'s> Call<'s> {
    pub(crate) fn new(sim: &'s Sim, tool: &'s str, args: Vec<String>) -> Self {
        let transcript = File::options().create(true).append(true).open(sim.dir.join("transcript")).ok();
        Self { sim, tool, args, statements: None, stdin: OnceCell::new(), transcript }
    }

    /// The arguments as texts.
    pub(crate) fn words(&self) -> Vec<&str> {
        self.args.iter().map(String::as_str).collect()
    }

    /// All of standard input.
    pub(crate) fn stdin(&self) -> &str {
        self.stdin.get_or_init(|| {
            let mut bytes = Vec::new();
            // What can't be read is as good as nothing.
            let _ = std::io::stdin().read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// Whether it changes the system, by its words alone.
    pub(crate) fn changes(&self) -> bool {
        let words = self.words();
        let has = |word: &str| words.contains(&word);
        let verb = words.iter().find(|w| !w.starts_with('-')).copied().unwrap_or_default();
        match self.tool {
            "zoneadm" => !(has("list") || has("verify")),
            "zonecfg" => !["info", "export"].iter().any(|v| words.iter().skip(2).any(|w| w.starts_with(v))),
            "dladm" | "ilbadm" => !verb.starts_with("show"),
            "ipadm" => !verb.starts_with("show"),
            "route" => !(has("get") || has("show")),
            "zfs" => {
                !(matches!(verb, "list" | "get" | "holds" | "diff")
                    || (verb == "destroy" && words.iter().any(|w| w.starts_with("-n"))))
            }
            "zpool" => !matches!(verb, "list" | "get" | "status"),
            "ipnat" => !(has("-n") || words.iter().any(|w| w.starts_with("-l"))),
            "ipf" => !(has("-V") || has("-n")),
            // What runs in a zone may change it.
            "svcadm" | "zlogin" | "ctrun" | "pkill" => true,
            "prctl" => ["-r", "-s", "-x"].iter().any(|w| has(w)),
            "rcapadm" => has("-m"),
            "svccfg" => !has("validate") && !has("export"),
            _ => false,
        }
    }

    pub(crate) fn note(&self, rc: Option<i32>, fault: Option<&Action>) {
        let digest = |text: &String| Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        let line = Line {
            tool: self.tool.to_owned(),
            argv: self.args.clone(),
            stdin: self.stdin.get().map(digest),
            rc,
            changing: self.changes(),
            c_locale: std::env::var_os("LC_ALL").is_some_and(|locale| locale == "C"),
            fault: fault.map(|f| format!("{f:?}")),
            caller: getppid().as_raw(),
        };
        let Ok(mut text) = serde_json::to_string(&line) else { return };
        text.push('\n');
        // One write: lines of calls at the same time do not mix.
        let _ = self.transcript.as_ref().map(|mut file| file.write_all(text.as_bytes()));
    }

    fn answer(&self) -> Answer {
        match self.tool {
            "zoneadm" => crate::zoneadm::run(self),
            "zonecfg" => crate::zonecfg::run(self),
            "zlogin" => crate::zlogin::run(self),
            "pfexec" => crate::zlogin::pfexec(self),
            "ppriv" => crate::privileges::ppriv(self),
            "ctrun" => crate::privileges::ctrun(self),
            tool => match self.sim.lock() {
                Ok(mut locked) => {
                    let answer = self.on(tool, &mut locked.state);
                    match locked.save() {
                        Ok(_) => answer,
                        Err(e) => broken(&e.to_string()),
                    }
                }
                Err(e) => broken(&format!("{}: {e}", self.sim.dir.display())),
            },
        }
    }

    fn on(&self, tool: &str, state: &mut State) -> Answer {
        match tool {
            "dladm" => crate::dladm::run(self, state),
            "ipadm" => crate::ipadm::run(self, state),
            "route" | "netstat" => crate::route::run(self, state),
            "zfs" => crate::zfs::run(self, state),
            "zpool" => crate::zpool::run(self, state),
            "ipnat" => crate::ipnat::run(self, state),
            "ipf" => crate::ipf::run(self, state),
            "ipfstat" => crate::ipf::stat(self, state),
            "ilbadm" => crate::ilbadm::run(self, state),
            "svcs" | "svcprop" | "svccfg" | "svcadm" => crate::smf::run(self, state),
            _ => crate::figures::run(self, state),
        }
    }
}

/// The model itself is in the way: no tool would say this.
pub(crate) fn broken(what: &str) -> Answer {
    Answer { err: format!("hostsim: {what}\n"), code: 70, ..Answer::default() }
}

/// Where the program was called from, and as what.
fn called() -> Option<(PathBuf, String)> {
    let zeroth = PathBuf::from(std::env::args_os().next()?);
    let path = if zeroth.is_absolute() { zeroth } else { std::env::current_exe().ok()? };
    Some((path.parent()?.parent()?.to_owned(), path.file_name()?.to_string_lossy().into_owned()))
}

/// What the program does: the exit code.
pub fn main() -> i32 {
    let Some((dir, tool)) = called() else { return 70 };
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let sim = Sim::at(dir);
    if tool == "hostsim" {
        return crate::platform::main(&sim, &args);
    }
    if crate::platform::is_inside(&sim) {
        return print(&crate::smf::inside_a_zone(&sim, &tool, &args));
    }
    // Hooks and scripts of brands call `ipf` and the like by name.
    if std::env::var_os("PATH").is_none_or(|path| !path.to_string_lossy().contains("/usr/sbin")) {
        return print(&broken(&format!("{tool} was called without a PATH")));
    }
    let mut call = Call::new(&sim, &tool, args);
    let action = match sim.fault(&call) {
        Ok(action) => action,
        Err(what) => return print(&broken(&what)),
    };
    if let Some(Action::Partial(statements)) = &action {
        call.statements = Some(*statements);
    }
    if let Some(answer) = before(&call, action.as_ref()) {
        call.note(Some(answer.code), action.as_ref());
        return print(&answer);
    }
    let answer = after(&call, action.as_ref(), call.answer());
    call.note(Some(answer.code), action.as_ref());
    print(&answer)
}

/// What goes wrong before anything is done.
fn before(call: &Call<'_>, action: Option<&Action>) -> Option<Answer> {
    match action? {
        Action::FailBefore(code, text) => Some(failed(call, *code, text)),
        Action::Flood(bytes) => Some(failed(call, 1, &"x".repeat(*bytes))),
        Action::Lie => Some(Answer::ok()),
        Action::Slow(milliseconds) => {
            std::thread::sleep(Duration::from_millis(*milliseconds));
            None
        }
        Action::Hang => {
            call.note(None, action);
            forever()
        }
        Action::Crash => {
            call.note(None, action);
            let _ = raise(Signal::SIGABRT);
            forever()
        }
        Action::KillCaller => {
            call.note(None, action);
            kill_caller();
            std::process::exit(137)
        }
        Action::FailAfter(..)
        | Action::Partial(_)
        | Action::HangAfter
        | Action::Truncate(_)
        | Action::CrashAfter
        | Action::KillCallerAfter => None,
    }
}

/// What goes wrong once it is done.
fn after(call: &Call<'_>, action: Option<&Action>, mut answer: Answer) -> Answer {
    // Tools speak their caller's language.
    if std::env::var_os("LC_ALL").is_none_or(|locale| locale != "C") && !answer.err.is_empty() {
        answer.err = format!("{}: Vorgang fehlgeschlagen (LC_ALL is not C)\n", call.tool);
    }
    match action {
        Some(Action::FailAfter(code, text)) => failed(call, *code, text),
        Some(Action::Truncate(bytes)) => {
            let out = answer.out.as_bytes();
            let kept = out.get(..*bytes).unwrap_or(out);
            Answer { out: String::from_utf8_lossy(kept).into_owned(), ..answer }
        }
        Some(Action::HangAfter) => {
            call.note(None, action);
            forever()
        }
        Some(Action::CrashAfter) => {
            call.note(None, action);
            let _ = raise(Signal::SIGABRT);
            forever()
        }
        Some(Action::KillCallerAfter) => {
            call.note(None, action);
            kill_caller();
            std::process::exit(137)
        }
        _ => answer,
    }
}

fn failed(call: &Call<'_>, code: i32, text: &str) -> Answer {
    Answer { out: String::new(), err: format!("{}: {text}\n", call.tool), code }
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn kill_caller() {
    let caller = getppid();
    // Never init, nor ourselves: an orphaned call has nobody left to kill.
    if caller.as_raw() > 1 && caller != getpid() {
        let _ = kill(caller, Signal::SIGKILL);
    }
    let _: Pid = caller;
}

fn print(answer: &Answer) -> i32 {
    // Whoever called may be gone.
    let _ = std::io::stdout().write_all(answer.out.as_bytes());
    let _ = std::io::stderr().write_all(answer.err.as_bytes());
    answer.code
}
