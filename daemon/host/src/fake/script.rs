//! What a fake container's process does: a handful of shell words, read from its argv or set by the test.

use crate::spec::Signal;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A process of the fake host, step by step. After the last step it exits with code 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// What it does about signals; those not named here end it, as a process without handlers.
    pub on_signal: Vec<(Signal, Reaction)>,
    /// Memory in use; a limit below it kills the process at its start (or refuses an update in place).
    pub memory_bytes: u64,
}

/// One step of a [`Script`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Nothing, for so long.
    Sleep(Duration),
    /// Nothing, for ever.
    SleepForever,
    /// A line on standard output.
    Print(String),
    /// A line on standard error.
    Complain(String),
    /// A line that becomes the whole of a file; only the termination message's file is kept.
    Write(String, String),
    /// Ends with this code.
    Exit(i32),
    /// Dies of this signal.
    Die(i32),
    /// Is killed by the kernel for want of memory.
    OutOfMemory,
    /// Copies standard input to standard output (exec only; a container without input ends at once).
    Copy,
    /// Sends back what comes to this TCP port, for ever.
    Listen(u16),
    /// Could not be executed at all: code 126 or 127 and the host's words.
    CannotExecute(i32, String),
}

/// What a process does about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reaction {
    /// Goes on as if nothing were.
    Ignore,
    /// Ends with `code` after `after`.
    Exit {
        /// How long it takes.
        after: Duration,
        /// With which code.
        code: i32,
    },
    /// Can't even be killed (uninterruptible sleep); only for SIGKILL.
    Stuck,
}

impl Script {
    /// Runs until it is stopped.
    pub fn forever() -> Self {
        Self::of([Step::SleepForever])
    }

    /// Exits with `code` after `after`.
    pub fn exits(after: Duration, code: i32) -> Self {
        Self::of([Step::Sleep(after), Step::Exit(code)])
    }

    /// Runs for ever and ignores its stop signal; only SIGKILL ends it.
    pub fn ignores_term() -> Self {
        Self::forever().reacting(Signal::Sigterm, Reaction::Ignore)
    }

    /// Runs for ever and takes `after` to end, with `code`, once told SIGTERM.
    pub fn ends_slowly(after: Duration, code: i32) -> Self {
        Self::forever().reacting(Signal::Sigterm, Reaction::Exit { after, code })
    }

    /// Can't be killed at all, like a process in uninterruptible sleep.
    pub fn stuck() -> Self {
        Self::ignores_term().reacting(Signal::Sigkill, Reaction::Stuck)
    }

    /// Is killed for want of memory after `after`.
    pub fn runs_out_of_memory(after: Duration) -> Self {
        Self::of([Step::Sleep(after), Step::OutOfMemory])
    }

    /// These steps.
    pub fn of(steps: impl Into<Vec<Step>>) -> Self {
        Self { steps: steps.into(), ..Self::default() }
    }

    /// The same with a reaction to a signal.
    #[must_use]
    pub fn reacting(mut self, signal: Signal, reaction: Reaction) -> Self {
        self.on_signal.retain(|(s, _)| *s != signal);
        self.on_signal.push((signal, reaction));
        self
    }

    /// What it does about `signal`, when it says.
    pub fn reaction(&self, signal: Signal) -> Option<Reaction> {
        self.on_signal.iter().find(|(s, _)| *s == signal).map(|(_, r)| *r)
    }

    /// Reads a command line: `true`, `false`, `echo WORDS [>&2|> PATH]`, `sleep N[s|m|h]|infinity`, `cat`, `listen PORT`, `exit N`,
    /// `trap '' TERM`, `trap 'exit N' TERM`, `kill -SIGNAL $$`, `oom`, `tail -n1 /dev/zero`, and `sh -c` with such commands joined by `;`
    /// or `&&`. A program under `/nonexistent` is not found. Whatever else is taken for a server: it runs until
    /// it is told to stop.
    pub fn parse(argv: &[String]) -> Self {
        let mut script = Self { memory_bytes: 1 << 20, ..Self::default() };
        let program = argv.first().map(String::as_str).unwrap_or_default();
        if base_name(program) == "sh" && argv.get(1).is_some_and(|flag| flag == "-c") {
            let text = argv.get(2).map(String::as_str).unwrap_or_default();
            for command in split_commands(text) {
                script.add(&split_words(&command));
            }
        } else {
            script.add(argv);
        }
        script
    }

    fn add(&mut self, words: &[String]) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some((program, args)) = words.split_first() else { return };
        match (base_name(program), args) {
            ("exec", rest) => self.add(&rest.iter().map(ToString::to_string).collect::<Vec<_>>()),
            ("true" | ":" | "cd" | "set", _) => {}
            ("false", _) => self.steps.push(Step::Exit(1)),
            ("exit", rest) => self.steps.push(Step::Exit(number(rest.first()).unwrap_or(0))),
            ("echo", [rest @ .., ">", path]) => self.steps.push(Step::Write((*path).to_owned(), rest.join(" "))),
            ("echo", [rest @ .., ">&2" | "1>&2"]) => self.steps.push(Step::Complain(rest.join(" "))),
            ("echo", rest) => self.steps.push(Step::Print(rest.join(" "))),
            ("sleep", rest) => {
                self.steps.push(rest.first().and_then(|t| duration(t)).map_or(Step::SleepForever, Step::Sleep))
            }
            ("cat", []) => self.steps.push(Step::Copy),
            ("listen", [port]) if port.parse::<u16>().is_ok() => {
                self.steps.extend(port.parse().map(Step::Listen));
            }
            // The latter keeps a line without an end in memory.
            ("oom", _) | ("tail", [_, "/dev/zero"]) => self.steps.push(Step::OutOfMemory),
            ("trap", [action, signals @ ..]) => self.trap(action, signals),
            ("kill", [signal, "$$"]) => {
                self.steps
                    .push(Step::Die(parse_signal(signal.trim_start_matches('-')).map_or(15, Signal::linux_number)));
            }
            _ if program.starts_with("/nonexistent") => {
                let message = format!(
                    "unable to start container process: exec: {program:?}: stat {program}: no such file or directory (or its interpreter)"
                );
                self.steps.push(Step::CannotExecute(127, message));
            }
            // `while :; do …; done` and everything unknown: a server.
            _ => self.steps.push(Step::SleepForever),
        }
    }

    fn trap(&mut self, action: &str, signals: &[&str]) {
        let reaction = match action.strip_prefix("exit") {
            Some(code) => Reaction::Exit { after: Duration::ZERO, code: code.trim().parse().unwrap_or(0) },
            None => Reaction::Ignore,
        };
        for signal in signals.iter().filter_map(|s| parse_signal(s)) {
            *self = std::mem::take(self).reacting(signal, reaction);
        }
    }
}

/// `a; b && c` to its commands; quotes protect.
fn split_commands(text: &str) -> Vec<String> {
    let mut commands = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (None, ';' | '\n' | '&') if !commands.last().is_some_and(|l| c == '&' && l.ends_with('>')) => {
                commands.push(String::new());
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), _) if q == c => quote = None,
            _ => {}
        }
        if let Some(last) = commands.last_mut() {
            last.push(c);
        }
    }
    commands
}

/// Words of one command; quotes keep a word together and may make an empty one.
fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if q == c => quote = None,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn base_name(program: &str) -> &str {
    if program.starts_with("/nonexistent") { program } else { program.rsplit('/').next().unwrap_or(program) }
}

fn number(text: Option<&&str>) -> Option<i32> {
    text?.parse().ok()
}

/// `3`, `0.5`, `3s`, `2m`, `1h`; `None` for `infinity` and the like.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = match text.char_indices().last()? {
        (at, 's') => (text.get(..at)?, 1.0),
        (at, 'm') => (text.get(..at)?, 60.0),
        (at, 'h') => (text.get(..at)?, 3600.0),
        _ => (text, 1.0),
    };
    Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * unit).ok()
}

fn parse_signal(text: &str) -> Option<Signal> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(argv: &[&str]) -> Vec<Step> {
        Script::parse(&argv.iter().map(ToString::to_string).collect::<Vec<_>>()).steps
    }

    #[test]
    fn command_lines_are_read() {
        assert_eq!(steps(&["sleep", "1.5"]), [Step::Sleep(Duration::from_millis(1500))]);
        assert_eq!(steps(&["/bin/sleep", "infinity"]), [Step::SleepForever]);
        assert_eq!(
            steps(&["sh", "-c", "echo 'a; b' c; echo oops >&2 && sleep 2m; exit 7"]),
            [
                Step::Print("a; b c".into()),
                Step::Complain("oops".into()),
                Step::Sleep(Duration::from_secs(120)),
                Step::Exit(7)
            ]
        );
        assert_eq!(steps(&["nginx", "-g", "daemon off;"]), [Step::SleepForever]);
        assert_eq!(steps(&["sh", "-c", "kill -KILL $$"]), [Step::Die(9)]);
        assert!(matches!(steps(&["/nonexistent/x"])[..], [Step::CannotExecute(127, _)]));
    }

    #[test]
    fn traps_are_reactions() {
        let read = |text: &str| Script::parse(&["sh".into(), "-c".into(), text.into()]);
        let script = read("trap '' TERM; trap 'exit 3' INT; sleep 100000");
        assert_eq!(script.reaction(Signal::Sigterm), Some(Reaction::Ignore));
        assert_eq!(script.reaction(Signal::Sigint), Some(Reaction::Exit { after: Duration::ZERO, code: 3 }));
        assert_eq!(script.reaction(Signal::Sighup), None);
    }
}
