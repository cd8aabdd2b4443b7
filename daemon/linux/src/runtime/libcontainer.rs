//! Containers by the libcontainer crate (youki). Only ever called in a single-threaded process: it clones.

use super::{OciRuntime, Order, StartFailure, Streams};
use crate::program::{self, ProgramError};
use crate::seccomp::Filter;
use caps::{CapSet, Capability};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::fcntl::OFlag;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use tracing::field::{Field, Visit};

pub(crate) struct Libcontainer;

/// What it takes to install a filter without no_new_privs, and to give that up afterwards.
const TO_INSTALL: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SETPCAP];

impl OciRuntime for Libcontainer {
    /// Our executor installs the filter last of all, when libcontainer has already reduced the process to what the
    /// config says. Where no_new_privs doesn't stand in, it must still hold CAP_SYS_ADMIN then; taken out of the
    /// bounding set, it does not survive execve(2).
    fn ask_for_filter(&self, config: &mut Value, _oci: &Value) {
        let process = &mut config["process"];
        if process["noNewPrivileges"] == Value::Bool(true) {
            return;
        }
        let granted = process["capabilities"]["bounding"].clone();
        let mut held: Vec<Value> = granted.as_array().cloned().unwrap_or_default();
        let missing: Vec<Value> =
            TO_INSTALL.iter().map(|c| c.to_string().into()).filter(|c| !held.contains(c)).collect();
        config["annotations"][SHED] = missing.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ").into();
        held.extend(missing);
        for set in ["bounding", "permitted", "effective"] {
            config["process"]["capabilities"][set] = held.clone().into();
        }
    }

    /// Not in the way that it is built here: its own way takes libbpf, in C.
    fn filters_devices(&self) -> bool {
        false
    }

    fn run(&self, order: Order<'_>) -> Result<u32, StartFailure> {
        let errors = ErrorLog::install(&order.bundle.join("errors"));
        self.create(order).map_err(|failure| with_details(failure, errors))
    }
}

impl Libcontainer {
    fn create(&self, order: Order<'_>) -> Result<u32, StartFailure> {
        let Order { id, bundle, state, streams, made, filter } = order;
        let (told, tell) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| StartFailure::host(format!("pipe: {e}")))?;
        let executor = TellingExecutor { tell: Rc::new(tell), filter: filter.map(Rc::new) };
        let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::Linux)
            .with_executor(executor)
            .with_root_path(state)
            .map_err(|e| failure(&e))?;
        builder = match streams {
            Streams::Pipes { stdin, stdout, stderr } => {
                builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr)
            }
            Streams::Terminal { socket } => builder.with_console_socket(Some(socket)),
        };
        let mut container = builder.as_init(bundle).with_systemd(false).build().map_err(|e| failure(&e))?;
        let Some(pid) = container.pid().and_then(|p| u32::try_from(p.as_raw()).ok()) else {
            return Err(StartFailure::host("libcontainer made no process"));
        };
        made(pid).map_err(|e| StartFailure::host(format!("take process {pid} from the daemon's cgroup: {e}")))?;
        container.start().map_err(|e| failure(&e))?;
        match program::await_exec(told) {
            Ok(None) => Ok(pid),
            Ok(Some(error)) => Err(StartFailure::Program(error)),
            Err(e) => Err(StartFailure::host(format!("waiting for the program to run: {e}"))),
        }
    }
}

/// Errors of the init process are about what the spec asks (a mount target in a read-only place, a working directory
/// that is a file): the container's own. Everything before is the host's.
fn failure(error: &LibcontainerError) -> StartFailure {
    let text = chain(error);
    match text.split_once("error in executing process : ") {
        Some((_, reason)) => {
            StartFailure::Program(ProgramError { code: 128, message: format!("container set-up: {reason}") })
        }
        None => StartFailure::host(format!("libcontainer: {text}")),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let more = e.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = e.source();
    }
    text
}

/// Runs the program with exactly the spec's environment, and tells why when it can't. The pipe closes by itself when
/// the program runs.
#[derive(Clone)]
struct TellingExecutor {
    tell: Rc<OwnedFd>,
    filter: Option<Rc<Filter>>,
}

/// Annotation with the capabilities that are held for the filter's sake alone.
const SHED: &str = "io.reddwarf.shed";

impl TellingExecutor {
    /// Puts this process under its filter. Nothing but execve(2) comes after it.
    fn confine(&self, spec: &Spec) -> Result<(), ProgramError> {
        let Some(filter) = &self.filter else { return Ok(()) };
        let failed = |what: &str, e: &dyn std::fmt::Display| ProgramError {
            code: 128,
            message: format!("container set-up: {what}: {e}"),
        };
        let shed = spec.annotations().as_ref().and_then(|a| a.get(SHED)).map(String::as_str).unwrap_or_default();
        // CAP_SETPCAP, which dropping takes, comes last.
        for name in shed.split_whitespace() {
            let capability = name.parse::<Capability>().map_err(|e| failed("capabilities", &e))?;
            caps::drop(None, CapSet::Bounding, capability).map_err(|e| failed("give up capabilities", &e))?;
        }
        filter.install().map_err(|e| failed("install the system call filter", &e))
    }
}

impl Executor for TellingExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref();
        let argv = process.and_then(|p| p.args().clone()).unwrap_or_default();
        let env = process.and_then(|p| p.env().clone()).unwrap_or_default();
        let error = match self.confine(spec) {
            Ok(()) => program::exec(&argv, &env),
            Err(error) => error,
        };
        program::report_and_exit(&self.tell.as_raw_fd(), &error)
    }

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        // execve(2) itself is the check: anything before it could be wrong by the time it is made.
        Ok(())
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

/// libcontainer tells the deeper cause of a failure only to its log, in whichever of its processes it happened: a file
/// that all of them have open gathers the errors.
struct ErrorLog {
    file: File,
}

impl ErrorLog {
    fn install(path: &Path) -> Option<File> {
        let file = File::options().read(true).append(true).create(true).open(path).ok()?;
        let mine = file.try_clone().ok()?;
        // Set at most once: a creator process makes one container.
        tracing::subscriber::set_global_default(Self { file }).ok()?;
        Some(mine)
    }
}

impl tracing::Subscriber for ErrorLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        line.0.push('\n');
        let _ = (&self.file).write_all(line.0.as_bytes());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// An event as `message field=value …`.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text =
            if field.name() == "message" { format!("{value:?}") } else { format!(" {}={value:?}", field.name()) };
        self.0.push_str(&text);
    }
}

/// Adds the first error, which is the deepest.
fn with_details(failure: StartFailure, errors: Option<File>) -> StartFailure {
    let mut text = String::new();
    if let Some(mut file) = errors {
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    }
    let Some(first) = text.lines().next().filter(|l| !l.is_empty()) else { return failure };
    match failure {
        StartFailure::Program(ProgramError { code, message }) if code == 128 => {
            StartFailure::Program(ProgramError { code, message: format!("{message}: {first}") })
        }
        StartFailure::Host { kind, message } => StartFailure::Host { kind, message: format!("{message}: {first}") },
        other @ StartFailure::Program(_) => other,
    }
}
