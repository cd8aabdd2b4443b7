//! prctl(1) and rcapadm(8) for running zones: bounds as they are now, whatever the configuration says.
//!
//! They stand in the configuration that the zone was booted with.

use crate::call::Answer;
use crate::state::{Config, Resource, State};
use crate::system::RCTLS;

/// Bounds that nobody may be denied anything by: they only weigh.
const NO_DENY: &str = "zone.cpu-shares";
/// Not among illumos-gate's.
const RESIDENT: &str = "zone.max-physical-memory";

#[derive(Default)]
struct Options<'a> {
    control: &'a str,
    privileged: bool,
    how: Option<char>,
    value: Option<&'a str>,
    denies: bool,
    zone: &'a str,
}

fn options<'a>(words: &[&'a str]) -> Option<Options<'a>> {
    let mut found = Options::default();
    let mut rest = words.iter().copied();
    let mut of_zone = false;
    while let Some(word) = rest.next() {
        match word {
            "-n" => found.control = rest.next()?,
            "-t" => found.privileged = rest.next()? == "privileged",
            "-v" => found.value = Some(rest.next()?),
            "-e" => found.denies = rest.next()? == "deny",
            "-i" => of_zone = rest.next()? == "zone",
            "-r" | "-s" | "-x" if found.how.is_none() => found.how = word.chars().nth(1),
            zone if !zone.starts_with('-') && found.zone.is_empty() => found.zone = zone,
            _ => return None,
        }
    }
    let whole = of_zone && !found.control.is_empty() && !found.zone.is_empty() && found.how.is_some();
    let valued = found.value.is_some() == matches!(found.how, Some('r' | 's'));
    (whole && valued).then_some(found)
}

fn of<'c>(config: &'c mut Config, control: &str) -> Option<&'c mut Resource> {
    config.resources.iter_mut().find(|r| r.kind == "rctl" && r.get("name") == control)
}

fn put(config: &mut Config, control: &str, limit: u64) {
    let action = if control == NO_DENY { "none" } else { "deny" };
    let value = vec![format!("(priv=privileged,limit={limit},action={action})")];
    match of(config, control) {
        Some(found) => {
            found.lists.insert("value".to_owned(), value);
        }
        None => config.resources.push(Resource {
            kind: "rctl".to_owned(),
            members: [("name".to_owned(), control.to_owned())].into(),
            lists: [("value".to_owned(), value)].into(),
        }),
    }
}

/// `prctl -n CONTROL [-t privileged] {-r|-s|-x} [-v VALUE] [-e deny] -i zone ZONE`
pub(crate) fn prctl(state: &mut State, words: &[&str]) -> Answer {
    let wrong = |what: &str| Answer::usage(format!("prctl: {what}\nusage: ..."));
    let Some(Options { control, privileged, how, value, denies, zone }) = options(words) else {
        return wrong("hostsim: not played with these options");
    };
    if !RCTLS.contains(&control) || (control == RESIDENT && state.system.is_gate()) {
        return wrong(&format!("failed to get resource control for {control}: Invalid argument"));
    }
    if denies && control == NO_DENY {
        return wrong("unable to enable deny on rctl with global flag 'no-deny'");
    }
    if how == Some('s') && !privileged {
        return wrong(&format!("basic values not allowed on rctl {control}"));
    }
    let value = match value.map(str::parse::<u64>) {
        Some(Err(_)) => return wrong("invalid -v value"),
        Some(Ok(value)) => value,
        None => 0,
    };
    let Some(config) = state.zones.get_mut(zone).filter(|z| z.state.is_up()).and_then(|z| z.booted.as_mut()) else {
        return Answer::fail(format!("prctl: {zone}: No controllable process found in task, project, or zone."));
    };
    let there = control == NO_DENY || of(config, control).is_some();
    let said = |what: &str| Answer::fail(format!("4711:\t/sbin/init\nprctl: {what}"));
    match how {
        Some('r') if !there && privileged => return said("no matching resource control to replace"),
        Some('r') if !there => return said("cannot modify system values"),
        Some('x') if !there => return said("no matching resource control found for deletion"),
        // A second value beside the first: nobody here wants that.
        Some('s') if there => return said("resource control already exists"),
        // The system's own value is left: all the shares that there are.
        Some('x') if control == NO_DENY => put(config, control, 65_535),
        Some('x') => config.resources.retain(|r| !(r.kind == "rctl" && r.get("name") == control)),
        _ => put(config, control, value),
    }
    Answer::ok()
}

/// `rcapadm -z ZONE -m BYTES`, of a system whose kernel leaves it to rcapd(8).
pub(crate) fn rcapadm(state: &mut State, zone: &str, bytes: &str) -> Answer {
    if !state.system.is_gate() {
        return Answer::fail("hostsim: rcapadm is played on illumos-gate only");
    }
    if state.services.get("svc:/system/rcap:default").is_none_or(|s| s.state != "online") {
        return Answer::fail("rcapadm: resource caps not configured");
    }
    let Ok(bytes) = bytes.parse::<u64>() else { return Answer::fail("invalid max-rss value") };
    let Some(config) = state.zones.get_mut(zone).filter(|z| z.state.is_up()).and_then(|z| z.booted.as_mut()) else {
        return Answer::fail(format!("zone '{zone}' must be running"));
    };
    config.resources.retain(|r| r.kind != "capped-memory");
    if bytes > 0 {
        config.resources.push(Resource {
            kind: "capped-memory".to_owned(),
            members: [("physical".to_owned(), bytes.to_string())].into(),
            ..Resource::default()
        });
    }
    Answer::ok()
}
