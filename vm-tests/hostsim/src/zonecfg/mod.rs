//! zonecfg(8): options, the three ways to give commands, and when what was done is kept.
//!
//! | file | holds |
//! |---|---|
//! | `session.rs` | statements carried out on a configuration |
//! | `resources.rs` | add, select, remove, end: resources and their members |
//! | `table.rs` | which properties and resources there are, and what their values may be |
//! | `verify.rs` | what must be there before a configuration is kept |
//! | `print.rs` | export and info |

mod print;
mod resources;
mod session;
mod table;
mod verify;

pub(crate) use table::is_known_rctl;

use crate::call::{Answer, Call, broken};
use crate::system::is_zone_name;
use session::{Flow, Session};

/// How commands come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// `-f FILE`: the first error ends it.
    File(String),
    /// `-f -`: as at a terminal, errors are passed over.
    Stdin,
    /// In the arguments: errors are passed over.
    Arguments,
}

const USAGE: &str =
    "usage:\tzonecfg help\n\tzonecfg -z <zone>\n\tzonecfg -z <zone> <command>\n\tzonecfg -z <zone> -f <command-file>";

/// One call of zonecfg.
pub(crate) fn run(call: &Call<'_>) -> Answer {
    let (mut zone, mut file, mut rest) = (None, None, Vec::new());
    let mut words = call.words().into_iter();
    while let Some(word) = words.next() {
        match word {
            "-z" => zone = words.next(),
            "-f" => file = words.next(),
            "-R" | "-u" => return broken(&format!("zonecfg {word} is not played")),
            option if option.starts_with('-') && rest.is_empty() => return Answer::usage(USAGE),
            command => {
                rest.push(command);
                rest.extend(words.by_ref());
            }
        }
    }
    let Some(zone) = zone else { return Answer::usage(USAGE) };
    if !is_zone_name(zone) {
        return Answer::usage(format!("{zone}: Bogus zone name\n{USAGE}"));
    }
    let (mode, text) = match (file, rest.is_empty()) {
        (Some("-"), true) => (Mode::Stdin, call.stdin().to_owned()),
        (Some(path), true) => match std::fs::read_to_string(path) {
            Ok(text) => (Mode::File(path.to_owned()), text),
            Err(_) => return Answer::fail(format!("could not open file {path}: No such file or directory")),
        },
        (None, false) => (Mode::Arguments, rest.join(" ")),
        (Some(_), false) => return Answer::usage(USAGE),
        (None, true) => return Answer::fail("hostsim: zonecfg is not played at a terminal"),
    };
    match call.sim.lock() {
        Ok(mut locked) => {
            let answer = whole(Session::new(&mut locked.state, zone, mode, &call.sim.root()), &text, call.statements);
            match locked.save() {
                Ok(_) => answer,
                Err(e) => broken(&e.to_string()),
            }
        }
        Err(e) => broken(&e.to_string()),
    }
}

/// All statements, or the first `most`, then the commit that nobody asked for.
fn whole(mut session: Session<'_>, text: &str, most: Option<usize>) -> Answer {
    let mut left = most.unwrap_or(usize::MAX);
    'lines: for (line, statements) in text.split('\n').enumerate() {
        for statement in split(statements) {
            session.line = line + 1;
            if left == 0 {
                session.error("internal error");
                break 'lines;
            }
            left -= 1;
            match session.text(statement) {
                Flow::On => {}
                Flow::Stop => break 'lines,
                Flow::Fatal => return session.fatal(),
            }
        }
    }
    session.finish()
}

/// The statements of a line: apart at semicolons that are not between quotes.
fn split(line: &str) -> Vec<&str> {
    let (mut from, mut quoted, mut found) = (0, false, Vec::new());
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            // What follows on this line is a comment, semicolons and all.
            '#' if !quoted && line.get(from..at).is_some_and(|before| before.trim().is_empty()) => return found,
            ';' if !quoted => {
                found.extend(line.get(from..at));
                from = at + 1;
            }
            _ => {}
        }
    }
    found.extend(line.get(from..));
    found
}
