//! dladm(8): data links and their properties.

use crate::call::{Answer, Call};
use crate::state::{Link, State};
use crate::system::is_link_name;

/// Words sorted by one command's options.
struct Given<'a> {
    flags: String,
    valued: Vec<(char, &'a str)>,
    names: Vec<&'a str>,
}

impl<'a> Given<'a> {
    fn parse(words: &[&'a str], flags: &str, valued: &str) -> Option<Self> {
        let mut given = Self { flags: String::new(), valued: Vec::new(), names: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.strip_prefix('-').filter(|w| !w.is_empty()) {
                None => given.names.push(word),
                Some(letters) => {
                    for letter in letters.chars() {
                        if flags.contains(letter) {
                            given.flags.push(letter);
                        } else if valued.contains(letter) && letters.len() == 1 {
                            given.valued.push((letter, words.next()?));
                        } else {
                            return None;
                        }
                    }
                }
            }
        }
        Some(given)
    }

    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    fn value(&self, of: char) -> Option<&'a str> {
        self.valued.iter().find(|(l, _)| *l == of).map(|(_, v)| *v)
    }

    fn properties(&self) -> Vec<(&'a str, &'a str)> {
        // A list's further values follow commas without a name.
        self.valued.iter().filter(|(l, _)| *l == 'p').filter_map(|(_, v)| v.split_once('=')).collect()
    }
}

fn error(message: impl AsRef<str>) -> Answer {
    Answer::fail(format!("dladm: {}", message.as_ref()))
}

fn usage(verb: &str) -> Answer {
    Answer { code: 1, ..Answer::usage(format!("usage: dladm {verb} ...")) }
}

/// One call of dladm.
pub(crate) fn run(call: &Call<'_>, state: &mut State) -> Answer {
    let words = call.words();
    let Some((&verb, rest)) = words.split_first() else { return usage("<subcommand>") };
    let (flags, valued) = match verb {
        "create-etherstub" | "delete-etherstub" | "delete-vnic" | "delete-vlan" => ("t", ""),
        "create-vnic" => ("tf", "lmvprn"),
        "create-vlan" => ("tf", "lv"),
        "rename-link" => ("", ""),
        "set-linkprop" | "reset-linkprop" => ("t", "p"),
        "show-link" => ("pP", "o"),
        // Its usage tells of -t, its parser knows none.
        "show-vnic" | "show-etherstub" => ("pP", "ol"),
        "show-linkprop" => ("cP", "op"),
        _ => return usage(verb),
    };
    let Some(given) = Given::parse(rest, flags, valued) else { return usage(verb) };
    let answer = match (verb, given.names.as_slice()) {
        ("create-etherstub", [name]) => create(state, name, "etherstub", &given),
        ("create-vnic", [name]) => create_vnic(state, name, &given),
        ("create-vlan", [name]) => create_vlan(state, name, &given),
        ("delete-etherstub", [name]) => delete(state, name, "etherstub", &given),
        ("delete-vnic", [name]) => delete(state, name, "vnic", &given),
        ("delete-vlan", [name]) => delete(state, name, "vlan", &given),
        ("rename-link", [from, to]) => rename(state, from, to),
        ("set-linkprop", [name]) => set(state, name, &given),
        ("reset-linkprop", [name]) => reset(state, name, &given),
        ("show-link" | "show-vnic" | "show-etherstub", names) => show(state, verb, names, &given),
        ("show-linkprop", names) => show_properties(state, names, &given),
        _ => return usage(verb),
    };
    answer.unwrap_or_else(|answer| answer)
}

type Outcome = Result<Answer, Answer>;

fn create(state: &mut State, name: &str, class: &str, given: &Given<'_>) -> Outcome {
    if !is_link_name(name) {
        return Err(error(format!("invalid link name '{name}'")));
    }
    if state.links.contains_key(name) {
        return Err(error(format!("{class} creation failed: object already exists")));
    }
    let link = Link { class: class.to_owned(), mtu: 9000, temporary: given.has('t'), ..Link::default() };
    state.links.insert(name.to_owned(), link);
    Ok(Answer::ok())
}

/// An address without leading zeros; only of a single owner.
fn mac(text: &str) -> Option<String> {
    let bytes: Vec<u8> = text.split(':').map(|p| u8::from_str_radix(p, 16)).collect::<Result<_, _>>().ok()?;
    let unicast = bytes.first().is_some_and(|b| b & 1 == 0);
    let shown: Vec<String> = bytes.iter().map(|b| format!("{b:x}")).collect();
    (bytes.len() == 6 && unicast).then(|| shown.join(":"))
}

fn create_vnic(state: &mut State, name: &str, given: &Given<'_>) -> Outcome {
    let Some(over) = given.value('l') else { return Err(usage("create-vnic")) };
    if !is_link_name(name) {
        return Err(error(format!("invalid link name '{name}'")));
    }
    let Some(below) = state.links.get(over) else { return Err(error(format!("invalid link name '{over}'"))) };
    if !matches!(below.class.as_str(), "phys" | "etherstub" | "aggr" | "overlay" | "simnet") {
        return Err(error(format!("vnic creation over {over} failed: operation not supported")));
    }
    if below.temporary && !given.has('t') {
        return Err(error("can't create persistent object on top of temporary object"));
    }
    if state.links.contains_key(name) {
        return Err(error(format!("vnic creation over {over} failed: object already exists")));
    }
    let address = match given.value('m') {
        None | Some("auto" | "random") => {
            let n = state.number();
            format!("2:8:20:{:x}:{:x}:{:x}", (n >> 16) & 255, (n >> 8) & 255, n & 255)
        }
        Some(text) => mac(text).ok_or_else(|| error(format!("invalid MAC address '{text}'")))?,
    };
    let vid: u16 = match given.value('v') {
        None => 0,
        Some(text) => match text.parse() {
            Ok(vid) if (1..=4094).contains(&vid) => vid,
            _ => return Err(error(format!("invalid VLAN identifier '{text}'"))),
        },
    };
    if state.links.values().any(|l| l.over == over && l.mac == address && l.vid == vid) {
        return Err(error(format!("vnic creation over {over} failed: MAC address is already in use")));
    }
    let mtu = state.links.get(over).map_or(1500, |l| l.mtu);
    let mut link = Link {
        class: "vnic".into(),
        over: over.into(),
        mac: address,
        vid,
        mtu,
        temporary: given.has('t'),
        ..Link::default()
    };
    for (property, value) in given.properties() {
        check_property(property, value)?;
        link.properties.insert(property.to_owned(), value.to_owned());
    }
    state.links.insert(name.to_owned(), link);
    Ok(Answer::ok())
}

fn create_vlan(state: &mut State, name: &str, given: &Given<'_>) -> Outcome {
    let (Some(over), Some(vid)) = (given.value('l'), given.value('v')) else { return Err(usage("create-vlan")) };
    let Some(vid) = vid.parse::<u16>().ok().filter(|v| (1..=4094).contains(v)) else {
        return Err(error(format!("invalid VLAN identifier '{vid}'")));
    };
    if !state.links.contains_key(over) {
        return Err(error(format!("invalid link name '{over}'")));
    }
    create(state, name, "vlan", given)?;
    if let Some(link) = state.links.get_mut(name) {
        (link.over, link.vid) = (over.to_owned(), vid);
    }
    Ok(Answer::ok())
}

fn delete(state: &mut State, name: &str, class: &str, _given: &Given<'_>) -> Outcome {
    match state.links.get(name) {
        Some(link) if link.class == class => {}
        Some(_) => return Err(error(format!("{class} deletion failed: link is not a {class}"))),
        None if class == "vnic" => return Err(error(format!("invalid vnic name '{name}': object not found"))),
        None => return Err(error(format!("invalid link name '{name}'"))),
    }
    let owned = state.links.get(name).is_some_and(|l| l.zone.is_some());
    let plumbed = state.interfaces.contains_key(name);
    let carries = state.links.values().any(|l| l.over == name);
    if owned || plumbed || carries {
        return Err(error(format!("{class} deletion failed: link busy")));
    }
    state.links.remove(name);
    Ok(Answer::ok())
}

fn rename(state: &mut State, from: &str, to: &str) -> Outcome {
    if !is_link_name(to) {
        return Err(error(format!("invalid link name '{to}'")));
    }
    if state.links.contains_key(to) {
        return Err(error("rename operation failed: object already exists"));
    }
    if state.interfaces.contains_key(from) {
        return Err(error("rename operation failed: link busy"));
    }
    let Some(link) = state.links.remove(from) else { return Err(error(format!("invalid link name '{from}'"))) };
    for other in state.links.values_mut().filter(|l| l.over == from) {
        other.over = to.to_owned();
    }
    state.links.insert(to.to_owned(), link);
    Ok(Answer::ok())
}

const PROPERTIES: &[&str] = &[
    "allowed-dhcp-cids",
    "allowed-ips",
    "cpus",
    "forward",
    "maxbw",
    "mtu",
    "pool",
    "priority",
    "promisc-filtered",
    "protection",
    "secondary-macs",
    "stp",
    "zone",
];

fn check_property(name: &str, value: &str) -> Result<(), Answer> {
    if !PROPERTIES.contains(&name) {
        return Err(error(format!("invalid link property '{name}'")));
    }
    let fine = match name {
        "priority" => matches!(value, "low" | "medium" | "high"),
        "mtu" => value.parse::<u32>().is_ok_and(|n| (1280..=9194).contains(&n)),
        "protection" => {
            value.split(',').all(|p| matches!(p, "mac-nospoof" | "restricted" | "ip-nospoof" | "dhcp-nospoof"))
        }
        "maxbw" => match bandwidth(value) {
            Some(bits) if bits < 1_200_000 => return Err(error("minimum value for maxbw is 1200K")),
            found => found.is_some(),
        },
        _ => !value.is_empty(),
    };
    if fine { Ok(()) } else { Err(error(format!("cannot set link property '{name}': invalid argument"))) }
}

/// Bits a second.
fn bandwidth(text: &str) -> Option<u64> {
    let (number, unit) = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => (text.get(..text.len() - 1)?, 1000),
        b'M' => (text.get(..text.len() - 1)?, 1_000_000),
        b'G' => (text.get(..text.len() - 1)?, 1_000_000_000),
        _ => (text, 1_000_000),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn set(state: &mut State, name: &str, given: &Given<'_>) -> Outcome {
    let pairs = given.properties();
    if pairs.is_empty() {
        return Err(usage("set-linkprop"));
    }
    let zones: Vec<String> = state.zones.iter().filter(|(_, z)| z.state.is_up()).map(|(n, _)| n.clone()).collect();
    let Some(link) = state.links.get_mut(name) else { return Err(error(format!("invalid link name '{name}'"))) };
    for (property, value) in pairs {
        check_property(property, value)?;
        match property {
            "zone" if value == "global" => link.zone = None,
            "zone" if zones.iter().any(|z| z == value) => link.zone = Some(value.to_owned()),
            "zone" => return Err(error("cannot set link property 'zone': invalid argument")),
            "mtu" => link.mtu = value.parse().unwrap_or(link.mtu),
            _ => {
                link.properties.insert(property.to_owned(), value.to_owned());
            }
        }
    }
    Ok(Answer::ok())
}

fn reset(state: &mut State, name: &str, given: &Given<'_>) -> Outcome {
    let Some(link) = state.links.get_mut(name) else { return Err(error(format!("invalid link name '{name}'"))) };
    match given.value('p') {
        None => link.properties.clear(),
        Some("zone") => link.zone = None,
        Some(property) if PROPERTIES.contains(&property) => {
            link.properties.remove(property);
        }
        Some(other) => return Err(error(format!("invalid link property '{other}'"))),
    }
    Ok(Answer::ok())
}

/// Fields with colons between them, escaped; a single one is printed as it is.
pub(crate) fn row(fields: &[String]) -> String {
    let escaped = |f: &String| f.replace('\\', "\\\\").replace(':', "\\:");
    match fields {
        [one] => format!("{one}\n"),
        all => all.iter().map(escaped).collect::<Vec<_>>().join(":") + "\n",
    }
}

fn show(state: &State, verb: &str, names: &[&str], given: &Given<'_>) -> Outcome {
    let Some(fields) = given.value('o').filter(|_| given.has('p')) else {
        return Err(Answer::fail(format!("dladm: {verb} is played for programs only: -p with -o")));
    };
    let fields: Vec<&str> = fields.split(',').collect();
    let known: &[&str] = match verb {
        "show-link" => &["link", "class", "mtu", "state", "bridge", "over"],
        "show-vnic" if state.system.is_gate() => &["link", "over", "speed", "macaddress", "macaddrtype", "vid"],
        "show-vnic" => &["link", "over", "speed", "macaddress", "macaddrtype", "vid", "zone"],
        _ => &["link"],
    };
    if let Some(bad) = fields.iter().find(|f| !known.contains(&f.to_ascii_lowercase().as_str())) {
        return Err(error(format!("invalid output field '{bad}'")));
    }
    let class = match verb {
        "show-vnic" => Some("vnic"),
        "show-etherstub" => Some("etherstub"),
        _ => None,
    };
    let fits = |link: &Link| class.is_none_or(|c| link.class == c) && !(given.has('P') && link.temporary);
    if let Some(missing) = names.iter().find(|n| !state.links.get(**n).is_some_and(fits)) {
        let what = if verb == "show-vnic" { "vnic" } else { "link" };
        return Err(error(format!("invalid {what} name '{missing}': object not found")));
    }
    let over = given.value('l');
    let chosen = state.links.iter().filter(|(name, link)| {
        fits(link) && (names.is_empty() || names.contains(&name.as_str())) && over.is_none_or(|o| link.over == o)
    });
    let text = chosen.map(|(name, link)| {
        let field = |f: &&str| match f.to_ascii_lowercase().as_str() {
            "link" => name.clone(),
            "class" => link.class.clone(),
            "mtu" => link.mtu.to_string(),
            "state" => if link.class == "etherstub" { "unknown" } else { "up" }.to_owned(),
            "over" => link.over.clone(),
            "speed" => "0".to_owned(),
            "macaddress" => link.mac.clone(),
            "macaddrtype" => "random".to_owned(),
            "vid" => link.vid.to_string(),
            "zone" => link.zone.clone().unwrap_or_else(|| "--".into()),
            _ => String::new(),
        };
        row(&fields.iter().map(field).collect::<Vec<_>>())
    });
    Ok(Answer::out(text.collect::<String>()))
}

fn show_properties(state: &State, names: &[&str], given: &Given<'_>) -> Outcome {
    let Some(fields) = given.value('o').filter(|_| given.has('c')) else {
        return Err(Answer::fail("dladm: show-linkprop is played for programs only: -c with -o"));
    };
    let fields: Vec<&str> = fields.split(',').collect();
    let wanted: Vec<&str> = given.value('p').map_or_else(|| PROPERTIES.to_vec(), |p| p.split(',').collect());
    if let Some(bad) = wanted.iter().find(|p| !PROPERTIES.contains(p)) {
        return Err(error(format!("invalid link property '{bad}'")));
    }
    if let Some(missing) = names.iter().find(|n| !state.links.contains_key(**n)) {
        return Err(error(format!("invalid link name '{missing}'")));
    }
    let mut out = String::new();
    for (name, link) in state.links.iter().filter(|(n, _)| names.is_empty() || names.contains(&n.as_str())) {
        for property in &wanted {
            let value = match *property {
                "zone" => link.zone.clone().unwrap_or_default(),
                "mtu" => link.mtu.to_string(),
                other => link.properties.get(other).cloned().unwrap_or_default(),
            };
            let field = |f: &&str| match *f {
                "link" => Ok(name.clone()),
                "property" => Ok((*property).to_owned()),
                "perm" => Ok("rw".to_owned()),
                "value" => Ok(value.clone()),
                "default" | "possible" => Ok(String::new()),
                other => Err(error(format!("invalid output field '{other}'"))),
            };
            out += &row(&fields.iter().map(field).collect::<Result<Vec<_>, _>>()?);
        }
    }
    Ok(Answer::out(out))
}
