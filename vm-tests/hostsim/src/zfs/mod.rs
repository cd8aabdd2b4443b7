//! zfs(8): options, and what each command does to the model and to directories.
//!
//! | file | holds |
//! |---|---|
//! | `tree.rs` | datasets as directories: made, copied, moved, destroyed |
//! | `properties.rs` | which properties there are, what they may be, where values come from |
//! | `show.rs` | list and get |
//! | `stream.rs` | send and receive |

mod properties;
mod show;
mod stream;
mod tree;

pub(crate) use properties::{mountpoint, source_of};
pub(crate) use tree::{backing, clone, copy_tree, destroy, make, snapshot};

use crate::call::{Answer, Call};
use crate::state::State;

/// What a command is called with: letters that were set, `-o` and `-t` words, the rest.
#[derive(Default)]
pub(super) struct Given<'a> {
    pub(super) letters: String,
    pub(super) options: Vec<&'a str>,
    pub(super) valued: Vec<(char, &'a str)>,
    pub(super) names: Vec<&'a str>,
}

impl<'a> Given<'a> {
    /// Sorts words: `plain` letters stand alone, `valued` ones take the next word. Anything else is a usage error.
    pub(super) fn parse(words: &[&'a str], plain: &str, valued: &str) -> Result<Self, String> {
        let mut given = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty() && given.names.is_empty()) else {
                given.names.push(word);
                continue;
            };
            for (at, letter) in letters.char_indices() {
                if plain.contains(letter) {
                    given.letters.push(letter);
                } else if valued.contains(letter) {
                    // Its value follows at once or as the next word.
                    let inline = letters.get(at + 1..).filter(|v| !v.is_empty());
                    let value = match inline {
                        Some(value) => value,
                        None => {
                            words.next().copied().ok_or_else(|| format!("missing argument for '{letter}' option"))?
                        }
                    };
                    given.valued.push((letter, value));
                    break;
                } else {
                    return Err(format!("invalid option '{letter}'"));
                }
            }
        }
        given.options = given.valued.iter().filter(|(l, _)| *l == 'o').map(|(_, v)| *v).collect();
        Ok(given)
    }

    pub(super) fn has(&self, letter: char) -> bool {
        self.letters.contains(letter)
    }

    pub(super) fn value(&self, letter: char) -> Option<&'a str> {
        self.valued.iter().rev().find(|(l, _)| *l == letter).map(|(_, v)| *v)
    }

    fn one(&self) -> Result<&'a str, String> {
        match self.names[..] {
            [one] => Ok(one),
            [] => Err("missing dataset argument".into()),
            _ => Err("too many arguments".into()),
        }
    }
}

/// An error of the command, or of its usage.
pub(super) enum Refusal {
    Error(String),
    Usage(String),
}

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Self::Error(what)
    }
}

type Done = Result<String, Refusal>;

/// One call of zfs.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words = call.words();
    let Some((&verb, rest)) = words.split_first() else {
        return Answer::usage("missing command\nusage: zfs command args ...");
    };
    if let Some(what) = rest.iter().find_map(|word| state.answers(word).err()) {
        return Answer::fail(what);
    }
    match command(state, verb, rest) {
        Ok(out) => Answer::out(out),
        Err(Refusal::Error(what)) => Answer::fail(what),
        Err(Refusal::Usage(what)) => Answer::usage(format!("{what}\nusage:\n\t{verb} ...")),
    }
}

fn given<'a>(words: &[&'a str], plain: &str, valued: &str) -> Result<Given<'a>, Refusal> {
    Given::parse(words, plain, valued).map_err(Refusal::Usage)
}

fn command(state: &mut State, verb: &str, words: &[&str]) -> Done {
    let none = |()| String::new();
    match verb {
        "create" => {
            let given = given(words, "ps", "oVb")?;
            let name = given.one().map_err(Refusal::Usage)?;
            Ok(tree::create(state, name, &given).map(none)?)
        }
        "snapshot" | "snap" => {
            let given = given(words, "r", "o")?;
            let name = given.one().map_err(Refusal::Usage)?;
            if given.has('r') {
                let (dataset, snap) = name.split_once('@').unwrap_or((name, ""));
                for below in tree::within(state, dataset) {
                    tree::snapshot(state, &format!("{below}@{snap}"))?;
                }
                return Ok(String::new());
            }
            tree::snapshot(state, name)?;
            for option in &given.options {
                properties::set(state, name, option)?;
            }
            Ok(String::new())
        }
        "clone" => {
            let given = given(words, "p", "o")?;
            match given.names[..] {
                [from, to] => Ok(tree::clone(state, from, to, &given.options).map(none)?),
                _ => Err(Refusal::Usage("missing source or target dataset argument".into())),
            }
        }
        "destroy" => {
            let given = given(words, "rfnvpd", "")?;
            let name = given.one().map_err(Refusal::Usage)?;
            if given.has('n') {
                return Ok(tree::would_destroy(state, name, given.has('r'), given.has('p'))?);
            }
            Ok(tree::destroy(state, name, given.has('r')).map(none)?)
        }
        "set" => {
            let given = given(words, "", "")?;
            let pairs: Vec<_> = given.names.iter().filter(|n| n.contains('=')).collect();
            let names: Vec<_> = given.names.iter().filter(|n| !n.contains('=')).collect();
            if pairs.is_empty() || names.is_empty() {
                return Err(Refusal::Usage("missing property=value or dataset argument".into()));
            }
            for name in names {
                tree::must_be(state, name)?;
                for pair in &pairs {
                    properties::set(state, name, pair)?;
                }
            }
            Ok(String::new())
        }
        "inherit" => {
            let given = given(words, "rS", "")?;
            let [property, name] = given.names[..] else {
                return Err(Refusal::Usage("missing dataset argument".into()));
            };
            tree::must_be(state, name)?;
            let names = if given.has('r') { tree::within(state, name) } else { vec![name.to_owned()] };
            for name in names {
                properties::inherit(state, &name, property)?;
            }
            Ok(String::new())
        }
        "list" => Ok(show::list(state, &given(words, "Hpr", "otdsS")?)?),
        "get" => Ok(show::get(state, &given(words, "Hpr", "otds")?)?),
        "rename" => {
            let given = given(words, "pfr", "")?;
            match given.names[..] {
                [from, to] => Ok(tree::rename(state, from, to).map(none)?),
                _ => Err(Refusal::Usage("missing target dataset argument".into())),
            }
        }
        "rollback" => {
            let given = given(words, "rf", "")?;
            let name = given.one().map_err(Refusal::Usage)?;
            Ok(tree::rollback(state, name, given.has('r')).map(none)?)
        }
        "promote" => Ok(tree::promote(state, given(words, "", "")?.one().map_err(Refusal::Usage)?).map(none)?),
        "hold" | "release" => {
            let given = given(words, "r", "")?;
            let [tag, name] = given.names[..] else { return Err(Refusal::Usage("missing tag or snapshot".into())) };
            tree::must_be(state, name)?;
            let done = state.datasets.get_mut(name).is_some_and(|d| match verb {
                "hold" => d.holds.insert(tag.to_owned()),
                _ => d.holds.remove(tag),
            });
            let wrong =
                if verb == "hold" { "tag already exists on this dataset" } else { "no such tag on this dataset" };
            if done { Ok(String::new()) } else { Err(Refusal::Error(format!("cannot {verb} '{name}': {wrong}"))) }
        }
        "mount" | "unmount" | "umount" => {
            let given = given(words, "fO", "o")?;
            let name = given.one().map_err(Refusal::Usage)?;
            Ok(tree::mount(state, name, verb == "mount").map(none)?)
        }
        "send" => Ok(stream::send(state, &given(words, "wLecpRv", "iI")?).map(none)?),
        "receive" | "recv" => Ok(stream::receive(state, &given(words, "Fuvd", "ox")?).map(none)?),
        "holds" | "diff" | "allow" | "bookmark" | "program" => {
            Err(Refusal::Error(format!("hostsim: zfs {verb} is not played")))
        }
        other => Err(Refusal::Usage(format!("unrecognized command '{other}'"))),
    }
}
