//! What every command is given: the daemon, the namespace, and how to print.

use crate::cli::Cli;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{Output, Style};
use crate::wire::Done;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// The surroundings of a command.
pub(crate) struct Context {
    /// The daemon at the socket.
    pub(crate) daemon: Daemon,
    /// `-n`, when given.
    pub(crate) namespace: Option<String>,
    /// `-o`, when given.
    pub(crate) output: Option<Output>,
    /// `--quiet`: nothing but what was asked for.
    pub(crate) quiet: bool,
    /// Colours of standard output.
    pub(crate) style: Style,
    /// Colours of standard error.
    error_style: Style,
    /// Columns of the terminal; `None` when piped: then nothing is ever cut.
    pub(crate) width: Option<usize>,
}

impl Context {
    pub(crate) fn new(cli: &Cli) -> Self {
        let colour = !cli.no_color
            && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let terminal = std::io::stdout().is_terminal();
        Self {
            daemon: Daemon::new(&cli.socket),
            namespace: cli.namespace.clone(),
            output: cli.output.clone(),
            quiet: cli.quiet,
            style: Style { colour: colour && terminal },
            error_style: Style { colour: colour && std::io::stderr().is_terminal() },
            width: crate::terminal::size().filter(|_| terminal).map(|(columns, _)| usize::from(columns)),
        }
    }

    /// The namespace to work in.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// Wall time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        // The one place that reads the clock here: ages in tables; nothing decides by it.
        #[allow(clippy::disallowed_methods)]
        Utc::now()
    }

    /// Writes to standard output at once.
    pub(crate) fn print(&self, text: &str) -> Result<(), Error> {
        self.write(text.as_bytes())
    }

    /// Writes bytes to standard output at once.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::Output)
    }

    /// Prints a confirmation, unless `--quiet`.
    pub(crate) fn say(&self, text: &str) -> Result<(), Error> {
        if self.quiet { Ok(()) } else { self.print(&format!("{text}\n")) }
    }

    /// Tells something beside the output, unless `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.tell(&format!("{text}\n"));
        }
    }

    /// Warns on standard error.
    pub(crate) fn warn(&self, text: &str) {
        self.tell(&format!("{} {text}\n", self.error_style.warning("warning:")));
    }

    /// Writes to standard error; nobody is left to tell when that fails.
    pub(crate) fn tell(&self, text: &str) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Tells an error and gives its exit code.
    pub(crate) fn fail(&self, error: &Error) -> Exit {
        if let Error::Refused { status } = error {
            self.diagnostics(&status.diagnostics);
        }
        if !error.is_broken_pipe() {
            self.tell(&error.render(|t| self.error_style.bad(t)));
        }
        error.exit()
    }

    /// Shows findings on standard error.
    pub(crate) fn diagnostics(&self, diagnostics: &[crate::wire::Diagnostic]) {
        for diagnostic in diagnostics {
            self.tell(&diagnostic.text());
        }
    }

    /// Prints a report as JSON, YAML or jsonpath when `-o` asks for it. True when it did.
    pub(crate) fn structured(&self, report: &impl Serialize) -> Result<bool, Error> {
        let Some(output) = &self.output else { return Ok(false) };
        if matches!(output, Output::Wide | Output::Name) {
            return Ok(false);
        }
        let value =
            serde_json::to_value(report).map_err(|e| Error::broken("the report can't be written as JSON", e))?;
        self.print_value(output, &value)?;
        Ok(true)
    }

    /// Prints what the daemon did: its sentence, or all of it in a machine's format.
    pub(crate) fn done(&self, done: &Done) -> Result<(), Error> {
        if self.structured(done)? { Ok(()) } else { self.say(&done.message) }
    }

    /// Prints a value in a machine's format.
    pub(crate) fn print_value(&self, output: &Output, value: &Value) -> Result<(), Error> {
        self.print(&output.value(value)?)
    }
}
