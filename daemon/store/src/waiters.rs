//! Who waits for changes where: a commit wakes only the watchers of the places that it touched, however many others idle.
//!
//! A *place* is a prefix up to its last slash. Watchers of a place sit together in a [`Group`] that knows which commit
//! touched it last, so that one who has seen that commit is up to date with the whole store without looking.

use crate::Revision;
use crate::recent::RecentCommit;
use crate::shared::hold;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::Waker;

/// All groups.
#[derive(Debug)]
pub(crate) struct Waiters(Mutex<Groups>);

#[derive(Debug)]
struct Groups {
    by_place: HashMap<Box<str>, Arc<Group>>,
    /// Commits up to here have been told to the groups: what a new group must assume to have missed.
    told: Revision,
}

/// The watchers of a place.
#[derive(Debug)]
pub(crate) struct Group(Mutex<Seats>);

#[derive(Debug)]
struct Seats {
    /// The last commit that touched the place.
    touched: Revision,
    seats: Vec<Seat>,
    taken: usize,
}

#[derive(Debug)]
enum Seat {
    Free,
    /// Its watcher has something to do.
    Busy,
    /// Its watcher has seen everything and waits.
    Idle(Waker),
    /// Its watcher waited until a commit touched the place: before it, up to here, there was nothing.
    Woken(Revision),
}

/// What a watcher is to do.
pub(crate) enum Rest {
    /// Wait: it has seen everything up to this revision and will be woken.
    Wait(Revision),
    /// Look for what came after this revision.
    Look(Revision),
}

/// The place of a prefix.
fn place(prefix: &str) -> &str {
    prefix.rfind('/').and_then(|slash| prefix.get(..=slash)).unwrap_or_default()
}

impl Waiters {
    /// Nobody, in a store at `revision`.
    pub(crate) fn new(revision: Revision) -> Self {
        Self(Mutex::new(Groups { by_place: HashMap::new(), told: revision }))
    }

    /// A seat for a watcher of `prefix`.
    pub(crate) fn join(&self, prefix: &str) -> (Arc<Group>, usize) {
        let mut groups = hold(&self.0);
        let touched = groups.told;
        let new = || Arc::new(Group(Mutex::new(Seats { touched, seats: Vec::new(), taken: 0 })));
        let group = groups.by_place.entry(place(prefix).into()).or_insert_with(new).clone();
        let mut seats = hold(&group.0);
        seats.taken += 1;
        let free =
            seats.seats.iter().position(|seat| matches!(seat, Seat::Free)).filter(|_| seats.taken <= seats.seats.len());
        let index = free.unwrap_or(seats.seats.len());
        match seats.seats.get_mut(index) {
            Some(seat) => *seat = Seat::Busy,
            None => seats.seats.push(Seat::Busy),
        }
        drop(seats);
        (group, index)
    }

    /// The watcher is gone.
    pub(crate) fn leave(&self, prefix: &str, group: &Group, index: usize) {
        let mut groups = hold(&self.0);
        let mut seats = hold(&group.0);
        if let Some(seat) = seats.seats.get_mut(index) {
            *seat = Seat::Free;
        }
        seats.taken = seats.taken.saturating_sub(1);
        if seats.taken == 0 {
            groups.by_place.remove(place(prefix));
        }
    }

    /// Tells the groups about commits, in order, before anybody can read their revision; who is to be woken once they can.
    pub(crate) fn tell(&self, commits: &[Arc<RecentCommit>]) -> Vec<Waker> {
        let mut groups = hold(&self.0);
        let mut wakers = Vec::new();
        for commit in commits {
            groups.told = groups.told.max(commit.revision);
            if groups.by_place.is_empty() {
                continue;
            }
            for change in &commit.changes {
                let key = change.key.as_str();
                let ends = std::iter::once(0).chain(key.match_indices('/').map(|(slash, _)| slash + 1));
                for group in ends.filter_map(|end| groups.by_place.get(key.get(..end)?)) {
                    hold(&group.0).touch(commit.revision, &mut wakers);
                }
            }
        }
        wakers
    }

    /// Everything may have changed up to `revision` (or the store is closed): who is to be woken.
    pub(crate) fn tell_all(&self, revision: Revision) -> Vec<Waker> {
        let mut groups = hold(&self.0);
        groups.told = groups.told.max(revision);
        let mut wakers = Vec::new();
        for group in groups.by_place.values() {
            let mut seats = hold(&group.0);
            seats.touched = seats.touched.max(revision);
            for seat in &mut seats.seats {
                if matches!(seat, Seat::Idle(_))
                    && let Seat::Idle(waker) = std::mem::replace(seat, Seat::Busy)
                {
                    wakers.push(waker);
                }
            }
        }
        wakers
    }
}

impl Seats {
    fn touch(&mut self, revision: Revision, wakers: &mut Vec<Waker>) {
        if self.touched >= revision {
            return;
        }
        self.touched = revision;
        let before = Revision(revision.0.saturating_sub(1));
        for seat in &mut self.seats {
            if matches!(seat, Seat::Idle(_))
                && let Seat::Idle(waker) = std::mem::replace(seat, Seat::Woken(before))
            {
                wakers.push(waker);
            }
        }
    }

    /// Up to where the watcher in a seat has seen everything, knowing what its waking told.
    fn position(&self, index: usize, position: Revision) -> Revision {
        match self.seats.get(index) {
            Some(Seat::Woken(before)) => position.max(*before),
            _ => position,
        }
    }
}

impl Group {
    /// May the watcher at `position` wait? `newest` is a revision of the store read before this call.
    pub(crate) fn rest(&self, index: usize, position: Revision, newest: Revision, waker: &Waker) -> Rest {
        let mut seats = hold(&self.0);
        let position = seats.position(index, position);
        let quiet = seats.touched <= position;
        if let Some(seat) = seats.seats.get_mut(index) {
            match seat {
                Seat::Idle(known) if quiet && known.will_wake(waker) => {}
                _ if quiet => *seat = Seat::Idle(waker.clone()),
                _ => *seat = Seat::Busy,
            }
        }
        if quiet { Rest::Wait(position.max(newest)) } else { Rest::Look(position) }
    }

    /// Up to where a watcher at `position` would know everything, `newest` being read before this call.
    pub(crate) fn seen(&self, index: usize, position: Revision, newest: Revision) -> Revision {
        let seats = hold(&self.0);
        let position = seats.position(index, position);
        if seats.touched <= position { position.max(newest) } else { position }
    }
}
