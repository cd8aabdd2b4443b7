//! Projects in a zone: newtask(1), and prctl(1) for their controls. The zone's own /etc/project (project(5)) is the data base; who was put into which project, and controls that were changed, stand in files beside it.

use crate::call::{Answer, replace};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const DATABASE: &str = "/etc/project";
/// `PID PROJECT`, a line for each newtask that became its command.
const TASKS: &str = "/.hostsim/tasks";
/// Who changes either holds its lock: the kernel does one thing after the other, too.
const LOCK: &str = "/.hostsim/projects.lock";
/// `PROJECT CONTROL VALUE`: as they are now, whatever the data base says.
const CONTROLS: &str = "/.hostsim/controls";

/// Controls of projects that resource_controls(7) names and that a number bounds.
const KNOWN: [&str; 9] = [
    "project.cpu-cap",
    "project.cpu-shares",
    "project.max-contracts",
    "project.max-locked-memory",
    "project.max-lwps",
    "project.max-processes",
    "project.max-shm-ids",
    "project.max-shm-memory",
    "project.max-tasks",
];

/// A weight: nobody is denied anything by it.
const NO_DENY: &str = "project.cpu-shares";

/// A line of the data base: `NAME:NUMBER:COMMENT:USERS:GROUPS:ATTRIBUTES`.
#[derive(Debug, PartialEq, Eq)]
struct Project<'t> {
    name: &'t str,
    users: Vec<&'t str>,
    controls: Vec<(&'t str, u64)>,
}

fn project(line: &str) -> Option<Project<'_>> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, number, _, users, _, attributes] = fields.as_slice() else { return None };
    // MAXPROJID
    number.parse::<u32>().ok().filter(|n| *n <= i32::MAX.unsigned_abs())?;
    let controls = attributes.split(';').filter(|a| !a.is_empty()).map(control).collect::<Option<_>>()?;
    is_name(name).then_some(Project { name, users: users.split(',').collect(), controls })
}

/// Periods are the system's own, for users' and groups' default projects.
fn is_name(text: &str) -> bool {
    let special = text.starts_with("user.") || text.starts_with("group.");
    text.len() <= 64
        && (special || !text.contains('.'))
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// `NAME=(privileged,N,deny)`
fn control(text: &str) -> Option<(&str, u64)> {
    let (name, value) = text.split_once('=')?;
    // The kernel refuses what it may not deny by.
    let action = if name == NO_DENY { ",none)" } else { ",deny)" };
    let value = value.strip_prefix("(privileged,")?.strip_suffix(action)?;
    KNOWN.contains(&name).then_some((name, value.parse().ok()?))
}

fn controls() -> BTreeMap<(String, String), String> {
    let text = std::fs::read_to_string(CONTROLS).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Some(((words.next()?, words.next()?), words.next()?))
    };
    text.lines().filter_map(line).collect()
}

fn write_controls(all: &BTreeMap<(String, String), String>) -> Answer {
    let text: String = all.iter().map(|((p, c), v)| format!("{p} {c} {v}\n")).collect();
    match replace(Path::new(CONTROLS), text.as_bytes()) {
        Ok(()) => Answer::ok(),
        Err(e) => Answer::fail(format!("{CONTROLS}: {e}")),
    }
}

/// Until the file is closed, by the end or by exec.
fn locked() -> std::io::Result<File> {
    let lock = File::options().create(true).append(true).open(LOCK)?;
    lock.lock()?;
    Ok(lock)
}

/// A call of one of the tools inside of a zone.
pub(crate) fn run(tool: &str, words: &[&str]) -> Answer {
    let _held = match locked() {
        Ok(lock) => lock,
        Err(e) => return Answer::fail(format!("{LOCK}: {e}")),
    };
    match (tool, words) {
        ("newtask", ["-p", name, command, args @ ..]) => newtask(name, command, args),
        (
            "prctl",
            ["-n", control, "-t", "privileged", "-v", value, "-e", "deny", how @ ("-r" | "-s"), "-i", "project", name],
        ) if *control != NO_DENY => set(name, control, value, *how == "-r"),
        ("prctl", ["-n", NO_DENY, "-t", "privileged", "-v", value, how @ ("-r" | "-s"), "-i", "project", name]) => {
            set(name, NO_DENY, value, *how == "-r")
        }
        ("prctl", ["-n", control, "-t", "privileged", "-x", "-i", "project", name]) => {
            let mut all = controls();
            match all.remove(&((*name).to_owned(), (*control).to_owned())) {
                Some(_) => write_controls(&all),
                None => Answer::fail(format!("prctl: {control}: no such value")),
            }
        }
        _ => Answer::usage(format!("hostsim: {tool} is not played with these arguments")),
    }
}

/// Becomes the command.
fn newtask(name: &str, command: &str, args: &[&str]) -> Answer {
    let text = std::fs::read_to_string(DATABASE).unwrap_or_default();
    let Some(found) = text.lines().filter_map(project).find(|p| p.name == name) else {
        return Answer::fail(format!("newtask: unknown project \"{name}\""));
    };
    if !found.users.contains(&"root") {
        return Answer::fail(format!("newtask: user \"root\" is not a member of project \"{name}\""));
    }
    let mut now = controls();
    now.retain(|(project, _), _| project != name);
    now.extend(found.controls.iter().map(|(c, v)| ((name.to_owned(), (*c).to_owned()), v.to_string())));
    let set = write_controls(&now);
    if set.code != 0 {
        return set;
    }
    let line = format!("{} {name}\n", std::process::id());
    let noted = File::options().create(true).append(true).open(TASKS).and_then(|mut f| f.write_all(line.as_bytes()));
    if let Err(e) = noted {
        return Answer::fail(format!("{TASKS}: {e}"));
    }
    #[expect(clippy::disallowed_methods, reason = "what newtask does")]
    let error = Command::new(command).args(args).exec();
    Answer { code: 1, ..Answer::fail(format!("newtask: {command}: {error}")) }
}

fn set(name: &str, control: &str, value: &str, replaces: bool) -> Answer {
    let tasks = std::fs::read_to_string(TASKS).unwrap_or_default();
    if !tasks.lines().any(|l| l.split_once(' ').is_some_and(|(_, p)| p == name)) {
        return Answer::fail(format!("prctl: {name}: No controllable process found in task, project, or zone."));
    }
    if !KNOWN.contains(&control) || value.parse::<u64>().is_err() {
        return Answer::fail(format!("prctl: unknown resource control: {control}"));
    }
    let mut all = controls();
    let key = (name.to_owned(), control.to_owned());
    if replaces && !all.contains_key(&key) {
        return Answer::fail(format!("prctl: {control}: no value to replace"));
    }
    all.insert(key, value.to_owned());
    write_controls(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_controls_are_those_that_the_tools_take() {
        for name in ["rw-app", "rw-0123", "a"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "0a", "-a", "a b", "a:b", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
        assert_eq!(control("project.cpu-cap=(privileged,50,deny)"), Some(("project.cpu-cap", 50)));
        let line = "rw-app:100::root::project.cpu-cap=(privileged,5,deny);project.max-lwps=(privileged,9,deny)";
        let wanted = [("project.cpu-cap", 5), ("project.max-lwps", 9)];
        assert_eq!(project(line), Some(Project { name: "rw-app", users: vec!["root"], controls: wanted.to_vec() }));
        for bad in
            ["rw-app:x::root::", "rw-app:1:root", "rw-app:1::root::project.cpu-cap=5", "rw-app:4294967295::root::"]
        {
            assert_eq!(project(bad), None, "{bad}");
        }
        for bad in ["project.memory=(privileged,5,deny)", "project.cpu-cap=50", "project.cpu-cap=(privileged,x,deny)"] {
            assert_eq!(control(bad), None, "{bad}");
        }
    }
}
