//! zpool(8): the pools that there are.

use crate::call::{Answer, Call};
use crate::state::State;

/// One call of zpool.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words = call.words();
    match words.as_slice() {
        ["list", rest @ ..] => list(state, rest),
        ["status", "-x"] => Answer::out("all pools are healthy\n"),
        ["get", ..] => Answer::fail("hostsim: zpool get is not played"),
        [other, ..] => Answer::usage(format!("unrecognized command '{other}'")),
        [] => Answer::usage("missing command"),
    }
}

fn list(state: &State, words: &[&str]) -> Answer {
    let (fields, names) = match words {
        ["-Hp" | "-pH", "-o", fields, names @ ..] | ["-H", "-p", "-o", fields, names @ ..] => (*fields, names),
        ["-H", "-o", fields, names @ ..] => (*fields, names),
        _ => return Answer::fail("hostsim: zpool list is played for programs only: -Hp -o"),
    };
    let pools: Vec<&String> = state.datasets.keys().filter(|n| !n.contains(['/', '@'])).collect();
    if let Some(missing) = names.iter().find(|n| !pools.iter().any(|p| p == *n)) {
        return Answer::fail(format!("cannot open '{missing}': no such pool"));
    }
    let mut out = String::new();
    for pool in pools.into_iter().filter(|p| names.is_empty() || names.contains(&p.as_str())) {
        let mut row = Vec::new();
        for field in fields.split(',') {
            row.push(match field {
                "name" => pool.clone(),
                "size" => (64_u64 << 30).to_string(),
                "alloc" | "allocated" => (1_u64 << 20).to_string(),
                "free" => ((64_u64 << 30) - (1 << 20)).to_string(),
                "cap" | "capacity" => "0".into(),
                "health" => state.pools.get(pool).cloned().unwrap_or_else(|| "ONLINE".into()),
                other => return Answer::usage(format!("bad property list: invalid property '{other}'")),
            });
        }
        out += &(row.join("\t") + "\n");
    }
    Answer::out(out)
}
