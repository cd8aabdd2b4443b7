//! ready, boot, halt, shutdown, reboot, unmount.

use super::{Operation, Step, halted, links};
use crate::brand::Brand;
use crate::call::Answer;
use crate::platform;
use crate::state::{Process, State, ZoneState};
use std::path::Path;
use std::time::Duration;

/// How often zoneadm looks whether zoneadmd has done it.
const LOOK: Duration = Duration::from_millis(5);
/// zones(7): the stop method's time, in milliseconds.
const SHUTDOWN: u64 = 100_000;

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

impl Operation<'_> {
    pub(super) fn ready(&self) -> Step<Answer> {
        self.step(|state| self.bring_up(state)).map(|()| Answer::ok())
    }

    /// From installed to ready.
    fn bring_up(&self, state: &mut State) -> Step {
        let zone = state.zones.get(&self.zone).ok_or_else(|| self.error("No such zone configured"))?;
        match zone.state {
            ZoneState::Installed => {}
            ZoneState::Ready => return Err(self.error("zone is already ready")),
            ZoneState::Running => return Err(self.error("ready operation is invalid while zone is running")),
            ZoneState::Incomplete => return Err(self.error("zone is incomplete; uninstall required.")),
            ZoneState::Configured | ZoneState::Unavailable => return Err(self.error("must be installed before ready.")),
            ZoneState::Mounted => return Err(self.error("zone is mounted; unmount required.")),
            ZoneState::ShuttingDown | ZoneState::Down => return Err(self.error("zone is shutting down")),
        }
        let config = zone.config.clone();
        // zoneadm's verify_fs_special(): whatever the kind, but for zfs, and below `/`, where zones are booted from.
        for fs in config.all("fs").filter(|f| f.get("type") != "zfs") {
            if !Path::new("/").join(fs.get("special")).exists() {
                return Err(self.error(format!(
                    "could not verify fs {}: could not access {}: No such file or directory",
                    fs.get("dir"),
                    fs.get("special")
                )));
            }
            if state.nfs.iter().any(|mounted| Path::new(fs.get("special")).starts_with(mounted)) {
                return Err(self.error(format!(
                    "cannot verify fs {}: NFS mounted file-system.\n\tA local file-system must be used.",
                    fs.get("special")
                )));
            }
        }
        for dataset in config.all("dataset") {
            if !state.datasets.contains_key(dataset.get("name")) {
                return Err(
                    self.error(format!("could not verify zfs dataset {}: dataset does not exist", dataset.get("name")))
                );
            }
            // verify_datasets()
            if crate::zfs::source_of(state, dataset.get("name"), "mountpoint").starts_with("inherited") {
                return Err(self.error(format!(
                    "could not verify zfs dataset {}: mountpoint cannot be inherited",
                    dataset.get("name")
                )));
            }
        }
        if let Err(answer) = self.take_links(state, &config) {
            links::give_back(state, &self.zone);
            return Err(answer);
        }
        for dataset in config.all("dataset") {
            if let Some(found) = state.datasets.get_mut(dataset.get("name")) {
                found.local.insert("zoned".into(), "on".into());
            }
        }
        state.next_zone += 1;
        let id = state.next_zone;
        if let Some(zone) = state.zones.get_mut(&self.zone) {
            (zone.state, zone.id, zone.booted) = (ZoneState::Ready, Some(id), Some(config));
        }
        Ok(())
    }

    pub(super) fn boot(&self, options: &[&str]) -> Step<Answer> {
        let plain = options.first().is_none_or(|o| *o == "--" || *o == "-s" || *o == "-m" || *o == "-i");
        if !plain {
            return Err(Answer::usage(super::USAGE));
        }
        let (times, zone) = self.step(|state| {
            let zone = state.zones.get(&self.zone).ok_or_else(|| self.error("No such zone configured"))?;
            match zone.state {
                // Said, but no error.
                ZoneState::Running => Err(Answer { code: 0, ..self.error("zone is already booted") }),
                ZoneState::Ready => Ok(()),
                ZoneState::Configured | ZoneState::Unavailable => Err(self.error("must be installed before boot.")),
                _ => self.bring_up(state),
            }?;
            Ok((state.times, state.zones.get(&self.zone).cloned().unwrap_or_default()))
        })?;
        pause(times.boot);
        for control in zone.config.all("rctl").map(|r| r.get("name")) {
            if !crate::zonecfg::is_known_rctl(control) {
                return Err(self.roll_back(&format!("could not set rctl {control}: Invalid argument")));
            }
        }
        if zone.config.global("brand") == "bhyve"
            && let Err(what) = self.step(|state| Ok(crate::bhyve::check(state, &zone.config)))?
        {
            return Err(self.roll_back(&what));
        }
        let init = match platform::start(self.call.sim, &self.zone, &zone.config) {
            Ok(init) => init,
            Err(what) => return Err(self.roll_back(&what)),
        };
        self.existing(|zone| {
            (zone.state, zone.init, zone.booted_at) = (ZoneState::Running, Some(init), platform::wall());
            Ok(Answer::ok())
        })
    }

    /// A boot that fails leaves the zone installed.
    fn roll_back(&self, what: &str) -> Answer {
        let undone = self.step(|state| {
            halted(state, &self.zone);
            Ok(())
        });
        undone.err().unwrap_or_else(|| self.error(what))
    }

    /// OmniOS' bhyve brand, before a machine that runs is halted: its guest is asked to shut down, for half an hour (support,
    /// prestate 4:2).
    fn wait_for_guest(&self) -> Step {
        let zone = self.zone()?;
        let Some(init) = zone.init.filter(|_| zone.config.global("brand") == "bhyve") else { return Ok(()) };
        if !zone.deaf {
            platform::ask_to_end(init);
        }
        platform::wait_for_end(init, 1_800_000);
        Ok(())
    }

    pub(super) fn halt(&self) -> Step<Answer> {
        self.wait_for_guest()?;
        let init = self.existing(|zone| match zone.state {
            ZoneState::Running | ZoneState::ShuttingDown | ZoneState::Ready | ZoneState::Down => {
                zone.state = ZoneState::ShuttingDown;
                Ok(zone.init)
            }
            ZoneState::Installed => Err(Answer { code: 0, ..self.error("zone is already halted") }),
            ZoneState::Mounted => Err(self.error("zone is mounted; unmount required.")),
            other => Err(self.error(format!("must be running before halt (it is {}).", other.word()))),
        })?;
        platform::kill(init);
        if let Some(init) = init {
            platform::wait_for_end(init, 5000);
        }
        self.gone()
    }

    /// The end of a halt or a shutdown.
    fn gone(&self) -> Step<Answer> {
        self.step(|state| {
            halted(state, &self.zone);
            let down = state.zones.get(&self.zone).is_some_and(|z| z.state == ZoneState::Down);
            if down {
                return Ok(self.error("unable to unmount file systems in zone\nunable to destroy zone"));
            }
            Ok(Answer::ok())
        })
    }

    pub(super) fn shutdown(&self, options: &[&str]) -> Step<Answer> {
        let again = match options {
            [] => false,
            ["-r"] => true,
            ["--", ..] => false,
            _ => return Err(Answer::usage(super::USAGE)),
        };
        let Ok(lock) = self.lock_zone() else { return Err(self.error("shutdown already in progress")) };
        let zone = self.zone()?;
        let Some(init) = zone.init.filter(|_| zone.state == ZoneState::Running) else {
            return Err(self.error("not running"));
        };
        let times = self.step(|state| Ok(state.times))?;
        let limit = if times.shutdown_limit == 0 { SHUTDOWN } else { times.shutdown_limit };
        let hook = Brand::of(self.call.sim, &zone.config).shutdown();
        if zone.deaf || !self.asked_to_end(init, hook.as_deref(), times.shutdown, limit) {
            if zone.deaf {
                pause(limit);
            }
            return Err(self.error("unable to shutdown zone"));
        }
        let answer = self.gone()?;
        drop(lock);
        if again { self.boot(&[]) } else { Ok(answer) }
    }

    /// Whether init ended in time.
    fn asked_to_end(&self, init: Process, hook: Option<&str>, takes: u64, limit: u64) -> bool {
        pause(takes.min(limit));
        if takes >= limit {
            return false;
        }
        match hook {
            Some(command) if !platform::hook(self.call.sim, &self.zone, command) => return false,
            Some(_) => {}
            None => platform::ask_to_end(init),
        }
        let mut waited = takes;
        while init.lives() {
            if waited >= limit {
                return false;
            }
            std::thread::sleep(LOOK);
            waited += u64::try_from(LOOK.as_millis()).unwrap_or(1);
        }
        true
    }

    pub(super) fn reboot(&self) -> Step<Answer> {
        let zone = self.zone()?;
        if zone.state != ZoneState::Running {
            return Err(self.error("not running"));
        }
        platform::kill(zone.init);
        if let Some(init) = zone.init {
            platform::wait_for_end(init, 5000);
        }
        self.gone()?;
        self.boot(&[])
    }

    pub(super) fn unmount(&self) -> Step<Answer> {
        self.existing(|zone| match zone.state {
            ZoneState::Mounted => {
                (zone.state, zone.id) = (ZoneState::Installed, None);
                Ok(Answer::ok())
            }
            _ => Err(self.error("zone is not mounted")),
        })
    }
}
