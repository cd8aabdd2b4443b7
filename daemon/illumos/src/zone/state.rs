//! What comes next for a zone: a total, pure function of its state and what is wanted of it.

use crate::zoneadm::ZoneState;

/// What is wanted of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Its processes run.
    Running,
    /// Complete, and nothing runs.
    Installed,
    /// Neither zone nor configuration.
    Absent,
}

/// One step towards a goal. Each is safe to repeat, and the state is read again after each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// There.
    Done,
    /// Write the configuration.
    Configure,
    /// Make its root: by clone, or by the brand's installation.
    Install,
    /// Take away what an installation left half-way, or all of its root.
    Uninstall,
    /// Start it.
    Boot,
    /// Kill all that runs in it.
    Halt,
    /// End an administrator's mount of it.
    Unmount,
    /// Remove the configuration.
    Delete,
    /// A state that this version does not know, or that a person must end: never touched.
    Leave(String),
}

/// What comes next. `None`: there is no such zone.
pub fn next(state: Option<&ZoneState>, goal: Goal) -> Next {
    use ZoneState as S;
    match (state, goal) {
        (Some(S::Other(word)), _) => {
            Next::Leave(format!("the zone is in a state that this version does not know: {word}"))
        }
        (Some(S::Unavailable), Goal::Running | Goal::Installed) => {
            Next::Leave("the zone can't be used on this system as it is: attach or uninstall it".to_owned())
        }

        (None, Goal::Absent) => Next::Done,
        (None, Goal::Running | Goal::Installed) => Next::Configure,

        (Some(S::Configured), Goal::Running | Goal::Installed) => Next::Install,
        (Some(S::Configured), Goal::Absent) => Next::Delete,

        // An installation that was cut off starts anew.
        (Some(S::Incomplete), _) => Next::Uninstall,
        (Some(S::Unavailable), Goal::Absent) => Next::Uninstall,

        (Some(S::Installed), Goal::Installed) => Next::Done,
        (Some(S::Installed), Goal::Running) => Next::Boot,
        (Some(S::Installed), Goal::Absent) => Next::Uninstall,

        (Some(S::Ready), Goal::Running) => Next::Boot,
        (Some(S::Ready), Goal::Installed | Goal::Absent) => Next::Halt,

        (Some(S::Running), Goal::Running) => Next::Done,
        (Some(S::Running), Goal::Installed | Goal::Absent) => Next::Halt,

        // On the way down; when something holds it there, another halt is what helps.
        (Some(S::ShuttingDown | S::Down), _) => Next::Halt,
        (Some(S::Mounted), _) => Next::Unmount,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where a step leads when it does what it says.
    fn after(step: &Next) -> Option<Option<ZoneState>> {
        Some(match step {
            Next::Configure => Some(ZoneState::Configured),
            Next::Install | Next::Halt | Next::Unmount => Some(ZoneState::Installed),
            Next::Uninstall => Some(ZoneState::Configured),
            Next::Boot => Some(ZoneState::Running),
            Next::Delete => None,
            Next::Done | Next::Leave(_) => return None,
        })
    }

    /// F27: every state as a starting point for every goal.
    #[test]
    fn f27_from_every_state_every_goal_is_reached_in_a_few_steps() {
        let states = ["configured", "incomplete", "installed", "ready", "mounted", "running", "shutting_down", "down"];
        let all = states.iter().map(|s| Some(ZoneState::of(s))).chain([None]);
        for start in all {
            for (goal, end) in [
                (Goal::Running, Some(ZoneState::Running)),
                (Goal::Installed, Some(ZoneState::Installed)),
                (Goal::Absent, None),
            ] {
                let mut state = start.clone();
                let mut steps = Vec::new();
                while let Some(then) = after(&next(state.as_ref(), goal)) {
                    steps.push(next(state.as_ref(), goal));
                    state = then;
                    assert!(steps.len() <= 4, "{start:?} → {goal:?}: {steps:?}");
                }
                assert_eq!(state, end, "{start:?} → {goal:?}: {steps:?}");
                assert_eq!(next(state.as_ref(), goal), Next::Done);
            }
        }
    }

    #[test]
    fn states_that_a_person_must_end_are_left_alone() {
        for goal in [Goal::Running, Goal::Installed, Goal::Absent] {
            assert!(matches!(next(Some(&ZoneState::Other("odd".into())), goal), Next::Leave(_)));
        }
        assert!(matches!(next(Some(&ZoneState::Unavailable), Goal::Running), Next::Leave(_)));
        assert_eq!(next(Some(&ZoneState::Unavailable), Goal::Absent), Next::Uninstall);
    }

    proptest! {
        /// Nothing that runs is ever uninstalled or deleted, whatever is wanted.
        #[test]
        fn nothing_is_destroyed_under_a_running_zone(word in "[a-z_]{1,14}") {
            for goal in [Goal::Running, Goal::Installed, Goal::Absent] {
                let state = ZoneState::of(&word);
                let step = next(Some(&state), goal);
                if !matches!(state, ZoneState::Configured | ZoneState::Incomplete | ZoneState::Installed | ZoneState::Unavailable) {
                    prop_assert!(!matches!(step, Next::Uninstall | Next::Delete | Next::Install | Next::Configure));
                }
            }
        }
    }
}
