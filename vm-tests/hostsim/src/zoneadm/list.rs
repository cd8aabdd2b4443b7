//! `zoneadm list`.

use crate::call::Answer;
use crate::state::{State, Zone, ZoneState};
use crate::system::System;

/// `-c` all, `-i` the installed, else those that are up; `-p` for programs, `-v` for people, `-n` without the global zone.
pub(super) fn list(state: &State, only: Option<&str>, args: &[&str]) -> Answer {
    let mut flags = Vec::new();
    for arg in args {
        match arg.strip_prefix('-') {
            Some(letters) if !letters.is_empty() && letters.chars().all(|c| "cipvn".contains(c)) => {
                flags.extend(letters.chars())
            }
            _ => return Answer::usage(super::USAGE),
        }
    }
    let has = |flag| flags.contains(&flag);
    if (has('p') && has('v')) || (only.is_some() && (has('c') || has('i') || has('n'))) {
        return Answer::usage("usage:\tzoneadm list [-cipv]: these options can not be used together");
    }
    if let Some(name) = only {
        return match (name, state.zones.get(name)) {
            ("global", _) => Answer::out(global(state.system, has('p'))),
            (_, Some(zone)) => Answer::out(line(state.system, name, zone, has('p'))),
            (_, None) => Answer::fail(format!("zoneadm: zone '{name}': No such zone configured")),
        };
    }
    let shown = |zone: &Zone| has('c') || zone.state.is_up() || (has('i') && zone.state >= ZoneState::Installed);
    let mut out = if has('n') { String::new() } else { global(state.system, has('p')) };
    for (name, zone) in state.zones.iter().filter(|(_, z)| shown(z)) {
        out += &line(state.system, name, zone, has('p'));
    }
    Answer::out(out)
}

fn global(system: System, parsable: bool) -> String {
    match (parsable, system) {
        (false, _) => "global\n".into(),
        (true, System::Gate) => "0:global:running:/::ipkg:shared\n".into(),
        (true, _) => "0:global:running:/::ipkg:shared:0\n".into(),
    }
}

fn line(system: System, name: &str, zone: &Zone, parsable: bool) -> String {
    if !parsable {
        return format!("{name}\n");
    }
    let id = zone.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    // Of all fields only the zonepath is escaped.
    let path = zone.config.global("zonepath").replace(':', "\\:");
    let stack = if zone.config.global("ip-type") == "exclusive" { "excl" } else { "shared" };
    let mut text =
        format!("{id}:{name}:{}:{path}:{}:{}:{stack}", zone.state.word(), zone.uuid, zone.config.global("brand"));
    if !system.is_gate() {
        text += &format!(":{}", zone.debug_id);
    }
    text + "\n"
}
