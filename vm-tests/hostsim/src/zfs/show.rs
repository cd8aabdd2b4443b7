//! list and get.

use super::{Given, Refusal, properties, tree};
use crate::state::State;

/// The datasets that a command is about.
fn chosen(state: &State, given: &Given<'_>, kinds: &[&str], all_if_none: bool) -> Result<Vec<String>, Refusal> {
    let depth =
        given.value('d').map(|d| d.parse::<usize>().map_err(|_| Refusal::Usage(format!("{d} is not an integer"))));
    let depth = depth.transpose()?.or(if given.has('r') { Some(usize::MAX) } else { None });
    let mut found = Vec::new();
    let fits = |name: &str| {
        state.datasets.get(name).is_some_and(|d| kinds.contains(&"all") || kinds.contains(&d.kind.as_str()))
    };
    if given.names.is_empty() && all_if_none {
        return Ok(tree::sorted(state).into_iter().filter(|n| fits(n)).collect());
    }
    for name in &given.names {
        if !state.datasets.contains_key(*name) {
            return Err(Refusal::Error(format!("cannot open '{name}': dataset does not exist")));
        }
        match depth {
            // Named alone, it is shown whatever it is.
            None => found.push((*name).to_owned()),
            Some(depth) => {
                let level = |n: &str| n.matches(['/', '@']).count() - name.matches(['/', '@']).count();
                let below = tree::sorted(state).into_iter().filter(|n| tree::is_within(n, name));
                found.extend(below.filter(|n| fits(n) && level(n) <= depth));
            }
        }
    }
    Ok(found)
}

fn kinds<'a>(given: &Given<'a>, default: &'a str) -> Result<Vec<&'a str>, Refusal> {
    let kinds: Vec<&str> = given.value('t').unwrap_or(default).split(',').collect();
    let full = kinds.iter().map(|k| match *k {
        "fs" | "filesystem" => Ok("filesystem"),
        "vol" | "volume" => Ok("volume"),
        "snap" | "snapshot" => Ok("snapshot"),
        "all" => Ok("all"),
        other => Err(Refusal::Usage(format!("invalid type '{other}'"))),
    });
    full.collect()
}

pub(super) fn list(state: &State, given: &Given<'_>) -> Result<String, Refusal> {
    if !given.has('H') {
        return Err(Refusal::Error("hostsim: zfs list is played for programs only: -H is missing".into()));
    }
    let columns: Vec<&str> =
        given.value('o').unwrap_or("name,used,avail,refer,mountpoint").split(',').map(properties::full_name).collect();
    if let Some(bad) = columns.iter().find(|c| !properties::is_known(c)) {
        return Err(Refusal::Usage(format!("bad property list: invalid property '{bad}'")));
    }
    let names = chosen(state, given, &kinds(given, "filesystem,volume")?, true)?;
    let row = |name: &String| {
        let fields: Vec<String> = columns.iter().map(|c| properties::get(state, name, c).0).collect();
        fields.join("\t") + "\n"
    };
    Ok(names.iter().map(row).collect())
}

pub(super) fn get(state: &State, given: &Given<'_>) -> Result<String, Refusal> {
    if !given.has('H') {
        return Err(Refusal::Error("hostsim: zfs get is played for programs only: -H is missing".into()));
    }
    let mut given = Given {
        names: given.names.clone(),
        letters: given.letters.clone(),
        options: Vec::new(),
        valued: given.valued.clone(),
    };
    if given.names.is_empty() {
        return Err(Refusal::Usage("missing property argument".into()));
    }
    let wanted = given.names.remove(0);
    let wanted: Vec<&str> = wanted.split(',').map(properties::full_name).collect();
    if let Some(bad) = wanted.iter().find(|p| **p != "all" && !properties::is_known(p)) {
        return Err(Refusal::Usage(format!("bad property list: invalid property '{bad}'")));
    }
    let columns: Vec<&str> = given.value('o').unwrap_or("name,property,value,source").split(',').collect();
    let sources: Option<Vec<&str>> = given.value('s').map(|s| s.split(',').collect());
    let mut out = String::new();
    for name in chosen(state, &given, &kinds(&given, "all")?, true)? {
        let all = state.datasets.get(&name).map(properties::all).unwrap_or_default();
        let names = wanted.iter().flat_map(|p| if *p == "all" { all.clone() } else { vec![(*p).to_owned()] });
        for property in names {
            let (value, source) = properties::get(state, &name, &property);
            let kind = source.split(' ').next().unwrap_or_default();
            if sources.as_ref().is_some_and(|s| !s.contains(&kind)) {
                continue;
            }
            let field = |column: &&str| match *column {
                "name" => Ok(name.clone()),
                "property" => Ok(property.clone()),
                "value" => Ok(value.clone()),
                "source" => Ok(source.clone()),
                "received" => Ok("-".into()),
                other => Err(Refusal::Usage(format!("invalid column name '{other}'"))),
            };
            let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
            out += &(fields.join("\t") + "\n");
        }
    }
    Ok(out)
}
