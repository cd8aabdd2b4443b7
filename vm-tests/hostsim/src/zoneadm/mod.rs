//! zoneadm(8): options, the list, and one operation a zone at a time.
//!
//! | file | holds |
//! |---|---|
//! | `list.rs` | `zoneadm list` |
//! | `install.rs` | install, clone, uninstall, attach, detach, mark: zones and their files |
//! | `run.rs` | ready, boot, halt, shutdown, reboot, mount: zones that are up |
//! | `links.rs` | what happens to data links as zones come up and go down |

mod install;
mod links;
mod list;
mod run;

use crate::call::{Answer, Call, Locked, broken};
use crate::state::{State, Zone, ZoneState};
use crate::system::is_zone_name;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;

pub(crate) use links::{give_back, halted};

const USAGE: &str =
    "usage:\tzoneadm help\n\tzoneadm [-z <zone>] [-u <uuid>] list\n\tzoneadm {-z <zone>|-u <uuid>} <command>";

/// One operation on one zone.
pub(super) struct Operation<'c> {
    pub(super) call: &'c Call<'c>,
    pub(super) zone: String,
    /// What follows the operation's name.
    pub(super) args: Vec<&'c str>,
}

/// How an operation on the model ends: not at all, or with an answer.
pub(super) type Step<T = ()> = Result<T, Answer>;

/// One call of zoneadm.
pub(crate) fn run(call: &Call<'_>) -> Answer {
    let words = call.words();
    let (zone, rest) = match words[..] {
        ["-z", zone, ref rest @ ..] => (Some(zone), rest.to_vec()),
        ref rest => (None, rest.to_vec()),
    };
    let Some((&verb, args)) = rest.split_first() else { return Answer::usage(USAGE) };
    if verb == "list" {
        return match call.sim.lock() {
            Ok(mut locked) => {
                settle(&mut locked.state);
                let answer = list::list(&locked.state, zone, args);
                match locked.save() {
                    Ok(_) => answer,
                    Err(e) => broken(&e.to_string()),
                }
            }
            Err(e) => broken(&e.to_string()),
        };
    }
    let Some(zone) = zone else { return Answer::usage(USAGE) };
    if !is_zone_name(zone) {
        return Answer::fail(format!("zoneadm: zone '{zone}': Invalid zone name"));
    }
    let operation = Operation { call, zone: zone.to_owned(), args: args.to_vec() };
    operation.answer(verb).unwrap_or_else(|answer| answer)
}

/// Zones whose init died without anybody asking are down: the kernel halts them.
fn settle(state: &mut State) {
    let dead: Vec<String> = state
        .zones
        .iter()
        .filter(|(_, z)| z.state == ZoneState::Running && z.init.is_some_and(|i| !i.lives()))
        .map(|(name, _)| name.clone())
        .collect();
    for name in dead {
        halted(state, &name);
    }
}

impl Operation<'_> {
    fn answer(&self, verb: &str) -> Step<Answer> {
        let words = self.args.as_slice();
        match (verb, words) {
            ("verify", []) => self.existing(|_| Ok(())).map(|()| Answer::ok()),
            ("install", options) => self.alone(|this| this.install(options)),
            ("clone", options) => self.alone(|this| this.clone_from(options)),
            ("uninstall", options) => self.alone(|this| this.uninstall(options)),
            ("attach", options) => self.alone(|this| this.attach(options)),
            ("detach", []) => self.alone(Self::detach),
            ("mark", ["incomplete"]) => self.alone(Self::mark),
            ("ready", []) => self.alone(Self::ready),
            ("boot", options) => self.alone(|this| this.boot(options)),
            ("halt", []) => self.alone(Self::halt),
            // A second one says so by itself.
            ("shutdown", options) => self.shutdown(options),
            ("reboot", _) => self.alone(Self::reboot),
            ("unmount", []) => self.alone(Self::unmount),
            _ => Err(Answer::usage(USAGE)),
        }
    }

    /// `zoneadm: zone 'X': …`, code 1.
    pub(super) fn error(&self, message: impl AsRef<str>) -> Answer {
        Answer::fail(format!("zoneadm: zone '{}': {}", self.zone, message.as_ref()))
    }

    /// As the only operation on its zone.
    fn alone(&self, with: impl FnOnce(&Self) -> Step<Answer>) -> Step<Answer> {
        let _lock = self.lock_zone()?;
        with(self)
    }

    fn lock_zone(&self) -> Step<Flock<File>> {
        let path = self.call.sim.kept(&format!("zone-{}.lock", self.zone));
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|e| broken(&e.to_string()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| self.error("another zoneadm may have an operation in progress"))
    }

    pub(super) fn locked(&self) -> Step<Locked> {
        let mut locked = self.call.sim.lock().map_err(|e| broken(&e.to_string()))?;
        settle(&mut locked.state);
        Ok(locked)
    }

    /// One step on the model.
    pub(super) fn step<T>(&self, with: impl FnOnce(&mut State) -> Step<T>) -> Step<T> {
        let mut locked = self.locked()?;
        let result = with(&mut locked.state)?;
        locked.save().map_err(|e| broken(&e.to_string()))?;
        Ok(result)
    }

    /// One step on a zone that is configured at least.
    pub(super) fn existing<T>(&self, with: impl FnOnce(&mut Zone) -> Step<T>) -> Step<T> {
        self.step(|state| {
            let zone = state.zones.get_mut(&self.zone).ok_or_else(|| self.error("No such zone configured"))?;
            with(zone)
        })
    }

    /// The zone as it is.
    pub(super) fn zone(&self) -> Step<Zone> {
        self.existing(|zone| Ok(zone.clone()))
    }
}
