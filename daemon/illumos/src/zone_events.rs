//! Changes of zones' states, as the kernel tells of them (`sysevent` asks it to; tests play it).
//!
//! What is told is never taken as the state: it makes somebody look, at once and once more a moment later, because the kernel tells
//! just before it does. Polling goes on: where nothing is told, or something is lost, a change is found by the next pass.

use crate::host::Shared;
use crate::sandbox;
use crate::zoneadm::ZoneState;
use reddwarf_host::{HostEvent, SandboxId};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Changes that may wait to be looked at.
const WAITING_MOST: usize = 1024;

/// From the last thing told of a zone to the second look at it.
const AGAIN: Duration = Duration::from_millis(500);

/// One change, in the kernel's words (`ZONE_EVENT_…` of `<sys/zone.h>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneChange {
    /// The zone's name.
    pub zone: String,
    /// What it was: `running`.
    pub from: String,
    /// What it becomes: `shutting_down`.
    pub to: String,
}

/// Tells a host of changes, from any thread, without ever waiting.
#[derive(Clone, Debug)]
pub struct ZoneTeller {
    changes: mpsc::Sender<ZoneChange>,
    lost: Arc<AtomicBool>,
}

impl ZoneTeller {
    /// Tells of a change.
    pub fn tell(&self, change: ZoneChange) {
        if self.changes.try_send(change).is_err() {
            // There is one to come, after which this is seen.
            self.lost.store(true, Ordering::SeqCst);
        }
    }

    /// Tells that there was a change that can't be told.
    pub fn tell_lost(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.tell(ZoneChange { zone: String::new(), from: String::new(), to: String::new() });
    }
}

/// What a host is told.
pub struct ZoneEvents {
    changes: mpsc::Receiver<ZoneChange>,
    lost: Arc<AtomicBool>,
}

/// A way to tell a host of changes.
pub fn channel() -> (ZoneTeller, ZoneEvents) {
    let (send, changes) = mpsc::channel(WAITING_MOST);
    let lost = Arc::new(AtomicBool::new(false));
    (ZoneTeller { changes: send, lost: lost.clone() }, ZoneEvents { changes, lost })
}

/// What keeps telling; it ends with the host.
pub(crate) type Source = Box<dyn Any + Send + Sync>;

/// What this system's kernel tells, if it does.
pub(crate) fn of_kernel() -> (Option<Source>, Option<ZoneEvents>) {
    #[cfg(target_os = "illumos")]
    {
        let (teller, events) = channel();
        match crate::sysevent::subscribe(teller) {
            Ok(source) => return (Some(Box::new(source)), Some(events)),
            Err(why) => tracing::warn!(why, "zones' states are looked at, not told: ends of zones are noticed later"),
        }
    }
    (None, None)
}

/// A kernel's word as zoneadm(8) shows such a zone.
fn zone_state(word: &str) -> Option<ZoneState> {
    match word {
        // It leaves the kernel, or comes into it.
        "uninitialized" => Some(ZoneState::Installed),
        "initialized" | "ready" => Some(ZoneState::Ready),
        "running" => Some(ZoneState::Running),
        // Down and dying too.
        "shutting_down" => Some(ZoneState::ShuttingDown),
        _ => None,
    }
}

/// Whether a change is worth a look; `None`: a word is not known.
fn matters(change: &ZoneChange) -> Option<bool> {
    let (from, to) = (zone_state(&change.from)?, zone_state(&change.to)?);
    // Who makes a zone ready boots it next.
    Some(from != to && to != ZoneState::Ready)
}

/// Has the pods looked at whose zones changed, for as long as there is the host and somebody tells.
pub(crate) async fn follow(shared: Weak<Shared>, mut events: ZoneEvents) {
    let mut again: BTreeMap<SandboxId, Instant> = BTreeMap::new();
    let mut said = false;
    loop {
        let next = again.values().min().copied();
        let wait = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // Either may be dropped and begun anew.
        let change = tokio::select! {
            change = events.changes.recv() => match change {
                Some(change) => Some(change),
                None => return,
            },
            () = wait => None,
        };
        let Some(shared) = shared.upgrade() else { return };
        // Nobody may be listening.
        let tell = |event| drop(shared.events.send(event));
        if events.lost.swap(false, Ordering::SeqCst) {
            tell(HostEvent::Everything);
        }
        let now = Instant::now();
        match change {
            None => again.retain(|id, at| {
                if *at <= now {
                    tell(HostEvent::Sandbox(id.clone()));
                }
                *at > now
            }),
            Some(change) => match (matters(&change), ours(&shared, &change)) {
                (_, None) | (Some(false), _) => {}
                (Some(true), Some(id)) => {
                    tell(HostEvent::Sandbox(id.clone()));
                    again.insert(id, now + AGAIN);
                }
                (None, _) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::info!(
                            ?change,
                            "the kernel has words for states of zones that this version does not know"
                        );
                    }
                }
            },
        }
    }
}

/// The sandbox whose zone it is; `None`: somebody else's.
fn ours(shared: &Shared, change: &ZoneChange) -> Option<SandboxId> {
    let id = SandboxId::new(change.zone.as_str()).ok()?;
    matches!(sandbox::own_mark(shared, &id), Ok(Some(_))).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from: &str, to: &str) -> ZoneChange {
        ZoneChange { zone: "a".into(), from: from.into(), to: to.into() }
    }

    #[test]
    fn ends_and_starts_matter_and_ways_there_do_not() {
        // A boot and a halt, as zone.c tells of them.
        let boot = ["uninitialized", "initialized", "ready", "ready", "running"];
        let halt = ["running", "shutting_down", "shutting_down", "shutting_down", "shutting_down", "uninitialized"];
        let told = |words: &[&str]| {
            words
                .windows(2)
                .filter(|w| matters(&change(w[0], w[1])).unwrap())
                .map(|w| w[1].to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&boot), ["running"]);
        assert_eq!(told(&halt), ["shutting_down", "uninitialized"]);
        assert_eq!(matters(&change("ready", "shutting_down")), Some(true), "a boot that failed");
        assert_eq!(matters(&change("running", "hibernating")), None);
        assert_eq!(matters(&change("", "running")), None);
    }

    #[test]
    fn more_than_can_wait_is_known_as_lost() {
        let (teller, events) = channel();
        for _ in 0..WAITING_MOST {
            teller.tell(change("running", "shutting_down"));
        }
        assert!(!events.lost.load(Ordering::SeqCst));
        teller.tell(change("running", "shutting_down"));
        assert!(events.lost.load(Ordering::SeqCst));
        drop(events);
        teller.tell_lost();
    }
}
