//! Limits of single containers: the processes of one that has any are a project of its zone (project(5)), which has
//! resource controls of its own (resource_controls(7)) below the zone's.
//!
//! A zone's root may name projects in its /etc/project (project(5): a file for text editors; projadd(8) would want perl) and
//! begin tasks in them (newtask(1)), which sets their controls. The text that zlogin(1) runs does it: nothing of it is on the
//! host. Where a zone has no newtask, or may not set the controls, the pod's bounds alone hold. There is no control of
//! memory for a project: the kernel counts it for zones, rcapd(8) beside it would only page out, and bounds of address space
//! (`process.max-address-space`) end programs that reserve much and use little.

use crate::zlogin::quoted;
use reddwarf_host::ContainerName;
use reddwarf_host::spec::Resources;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Longest name of a container that is a project's own name with our prefix: PROJNAME_MAX is 64.
const NAME_MOST: usize = 56;
/// Processes of ours beside the container's: ctrun(1) and the starter.
const OURS: u64 = 2;
/// A weight, no bound.
const SHARES: &str = "project.cpu-shares";
/// Their threads.
const OUR_LWPS: u64 = 8;

/// The project of a container that has limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Project {
    name: String,
    /// By name, in the order of resource_controls(7).
    controls: Vec<(&'static str, u64)>,
}

impl Project {
    /// `None`: nothing of it can be bounded for a container alone.
    pub(crate) fn of(container: &ContainerName, resources: &Resources) -> Option<Self> {
        let controls = controls(resources);
        (!controls.is_empty()).then(|| Self { name: project_name(container), controls })
    }

    /// The shell's text that makes the project, anew, and runs `then` in it; without projects just `then`.
    pub(crate) fn begins(&self, then: &str) -> String {
        let (written, name) = (written(&self.name, &self.controls), quoted(&self.name));
        let enter = self.enter(then);
        format!("if {{ {written} && newtask -p {name} true; }} </dev/null 2>/dev/null; then {enter}; fi; {then}")
    }

    /// The same for a command beside the container's program: in its project, if that is there.
    pub(crate) fn joins(&self, then: &str) -> String {
        let name = quoted(&self.name);
        format!("if newtask -p {name} true </dev/null >/dev/null 2>&1; then {}; fi; {then}", self.enter(then))
    }

    fn enter(&self, then: &str) -> String {
        format!("exec newtask -p {} /bin/sh -c {}", quoted(&self.name), quoted(then))
    }

    /// The shell's text that gives the running project these controls, and takes away those that are not among them any
    /// more; `None`: there is nothing to do. Its exit status is not 0 where that can't be.
    pub(crate) fn changes(container: &ContainerName, before: &Resources, after: &Resources) -> Option<String> {
        let name = quoted(&project_name(container));
        let (before, after) = (controls(before), controls(after));
        if before == after {
            return None;
        }
        // Whoever joins it later gets what the file says.
        let mut text = format!("e=0; {} 2>/dev/null || e=3", written(&project_name(container), &after));
        let dropped = before.iter().filter(|(c, _)| !after.iter().any(|(a, _)| a == c));
        // Every project has one share; without the control it would have the most there are.
        let (one, gone): (Vec<_>, Vec<_>) = dropped.partition(|(control, _)| *control == SHARES);
        for (control, value) in after.iter().copied().chain(one.iter().map(|(control, _)| (*control, 1))) {
            let deny = if denies(control) { " -e deny" } else { "" };
            let set = |how: &str| format!("prctl -n {control} -t privileged -v {value}{deny} {how} -i project {name}");
            let _ = write!(text, "; {} 2>/dev/null || {} || e=3", set("-r"), set("-s"));
        }
        for (control, _) in gone {
            let _ = write!(text, "; prctl -n {control} -t privileged -x -i project {name} || e=3");
        }
        text.push_str("; exit $e");
        Some(text)
    }
}

/// The shell's text that puts a project into the zone's /etc/project, in place of what was there of this name.
fn written(project: &str, controls: &[(&str, u64)]) -> String {
    let action = |name| if denies(name) { "deny" } else { "none" };
    let controls: Vec<_> =
        controls.iter().map(|(name, most)| format!("{name}=(privileged,{most},{})", action(name))).collect();
    let line = quoted(&format!("{project}:{}::root::{}", number(project), controls.join(";")));
    let others = quoted(&format!("^{project}:"));
    format!("{{ grep -v {others} /etc/project; echo {line}; }} >/etc/project.rw && mv /etc/project.rw /etc/project")
}

/// Whether the control may say no. The kernel refuses that of shares, and newtask(1) with it the whole project.
fn denies(control: &str) -> bool {
    control != SHARES
}

fn controls(resources: &Resources) -> Vec<(&'static str, u64)> {
    let Resources { cpu_request_millis, cpu_limit_millis, pids_limit, .. } = resources;
    [
        ("project.cpu-cap", cpu_limit_millis.map(|m| m.div_ceil(10).max(1))),
        (SHARES, cpu_request_millis.map(|m| m.clamp(1, 65_535))),
        ("project.max-lwps", pids_limit.map(|most| most.saturating_add(OUR_LWPS))),
        ("project.max-processes", pids_limit.map(|most| most.saturating_add(OURS))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// A project's number, above those that people give.
fn number(project: &str) -> u32 {
    let digest = Sha256::digest(project.as_bytes());
    let some = digest.iter().take(4).fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
    1_000_000 + some % 1_000_000_000
}

/// A letter first; a digest where the whole would be too long. No period: the system keeps it for its own projects
/// (project(5)); names of containers have no underline.
fn project_name(container: &ContainerName) -> String {
    let name = container.as_str();
    if name.len() <= NAME_MOST {
        return format!("rw-{name}");
    }
    let digest = Sha256::digest(name.as_bytes());
    let short = reddwarf_host::hex(digest.get(..16).unwrap_or_default());
    format!("rw_{short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ContainerName {
        ContainerName::new(text).unwrap()
    }

    #[test]
    fn a_container_with_limits_is_a_project_with_controls() {
        let resources = Resources {
            cpu_limit_millis: Some(505),
            cpu_request_millis: Some(250),
            pids_limit: Some(64),
            memory_limit_bytes: Some(1 << 20),
            ..Resources::default()
        };
        let project = Project::of(&name("app"), &resources).unwrap();
        assert_eq!(
            project.begins("exec it"),
            format!(
                "if {{ {{ grep -v '^rw-app:' /etc/project; echo 'rw-app:{}::root::project.cpu-cap=(privileged,51,deny);\
                 project.cpu-shares=(privileged,250,none);project.max-lwps=(privileged,72,deny);\
                 project.max-processes=(privileged,66,deny)'; }} >/etc/project.rw && mv /etc/project.rw /etc/project && \
                 newtask -p 'rw-app' true; }} </dev/null 2>/dev/null; then exec newtask -p 'rw-app' /bin/sh -c 'exec it'; \
                 fi; exec it",
                number("rw-app")
            )
        );
        assert_eq!(
            project.joins("it's"),
            "if newtask -p 'rw-app' true </dev/null >/dev/null 2>&1; then exec newtask -p 'rw-app' /bin/sh -c \
             'it'\\''s'; fi; it's"
        );
        // Only memory: nothing that a project could bound.
        let memory = Resources { memory_limit_bytes: Some(1 << 30), ..Resources::default() };
        assert_eq!(Project::of(&name("app"), &memory), None);
    }

    #[test]
    fn changed_limits_are_set_and_dropped_ones_taken_away() {
        let before = Resources {
            cpu_limit_millis: Some(500),
            cpu_request_millis: Some(7),
            pids_limit: Some(10),
            ..Resources::default()
        };
        let after = Resources { cpu_limit_millis: Some(1000), ..Resources::default() };
        assert_eq!(
            Project::changes(&name("app"), &before, &after).unwrap(),
            format!(
                "e=0; {{ grep -v '^rw-app:' /etc/project; echo 'rw-app:{}::root::project.cpu-cap=(privileged,100,deny)'; \
                 }} >/etc/project.rw && mv /etc/project.rw /etc/project 2>/dev/null || e=3; prctl -n project.cpu-cap -t \
                 privileged -v 100 -e deny -r -i project 'rw-app' 2>/dev/null || prctl -n project.cpu-cap -t privileged -v \
                 100 -e deny -s -i project 'rw-app' || e=3; prctl -n project.cpu-shares -t privileged -v 1 -r -i project \
                 'rw-app' 2>/dev/null || prctl -n project.cpu-shares -t privileged -v 1 -s -i project 'rw-app' || e=3; prctl \
                 -n project.max-lwps -t privileged -x -i project 'rw-app' \
                 || e=3; prctl -n project.max-processes -t privileged -x -i project 'rw-app' || e=3; exit $e",
                number("rw-app")
            )
        );
        assert_eq!(Project::changes(&name("app"), &before, &before), None);
    }

    #[test]
    fn every_containers_name_makes_a_projects_name() {
        for text in ["0", "app", &"a".repeat(63)] {
            let project = project_name(&name(text));
            assert!(project.len() <= 64 && project.starts_with("rw") && !project.contains('.'), "{project}");
        }
        assert_ne!(project_name(&name(&"a".repeat(63))), project_name(&name(&"a".repeat(62))));
    }

    /// A project's controls: name, most, action.
    type Controls = Vec<(String, u64, String)>;

    /// A line of project(5), strictly: name, number, no comment, root as its user, no groups, attributes.
    fn parsed(line: &str) -> Option<(String, u32, Controls)> {
        let [name, number, "", "root", "", attributes] = line.split(':').collect::<Vec<_>>()[..] else { return None };
        let attribute = |text: &str| {
            let (control, value) = text.split_once('=')?;
            let value = value.strip_prefix("(privileged,")?.strip_suffix(')')?;
            let (most, action) = value.split_once(',')?;
            Some((control.to_owned(), most.parse().ok()?, action.to_owned()))
        };
        Some((name.to_owned(), number.parse().ok()?, attributes.split(';').map(attribute).collect::<Option<_>>()?))
    }

    fn controlled() -> impl proptest::strategy::Strategy<Value = Resources> {
        use proptest::prelude::*;
        let number = || prop::option::of(any::<u64>());
        (number(), number(), number()).prop_map(|(cpu_request_millis, cpu_limit_millis, pids_limit)| Resources {
            cpu_request_millis,
            cpu_limit_millis,
            pids_limit,
            ..Resources::default()
        })
    }

    proptest::proptest! {
        /// The line says what the container may have, and no name is in anybody's way: the text that writes it has one quoted
        /// word for the line and one for what it replaces.
        #[test]
        fn a_line_of_etc_project_means_its_container(text in "[a-z0-9-]{1,63}|[ -~\n]{1,63}", resources in controlled()) {
            use crate::zlogin::words::{self, Word};
            let Ok(container) = ContainerName::new(&text) else {
                proptest::prop_assert!(!text.bytes().all(|b| b.is_ascii_lowercase()), "{text:?} is a name");
                return Ok(());
            };
            let Some(project) = Project::of(&container, &resources) else { return Ok(()) };
            let words = words::of(&written(&project.name, &project.controls)).unwrap();
            let quoted: Vec<&str> =
                words.iter().filter_map(|w| if let Word::Quoted(w) = w { Some(w.as_str()) } else { None }).collect();
            let [others, line] = quoted[..] else { panic!("{words:?}") };
            proptest::prop_assert_eq!(others, format!("^{}:", project.name));
            let action = |control: &str| if control == SHARES { "none" } else { "deny" };
            let controls: Vec<_> =
                project.controls.iter().map(|(c, most)| ((*c).to_owned(), *most, action(c).to_owned())).collect();
            proptest::prop_assert_eq!(parsed(line.trim_end_matches(';')), Some((project.name.clone(), number(&project.name), controls)));
        }
    }
}
