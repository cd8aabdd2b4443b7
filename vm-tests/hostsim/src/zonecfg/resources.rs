//! add, select, remove, end: resources and their members.

use super::session::{Open, Session, word};
use super::table::{self, CAPPED, Kind};
use crate::state::Resource;
use reddwarf_illumos::zonecfg::{Argument, Value};

/// `name=value` words behind a resource's kind.
type Qualifiers<'a> = Vec<(&'a str, &'a str)>;

fn qualifiers(arguments: &[Argument]) -> Result<Qualifiers<'_>, String> {
    if arguments.len() > 3 {
        return Err("syntax error: at most three qualifiers".into());
    }
    let pair = |argument| match argument {
        &Argument::Property(ref name, Value::Simple(ref value)) => Ok((name.as_str(), value.as_str())),
        _ => Err("syntax error: a qualifier is <property-name>=<property-value>".to_owned()),
    };
    arguments.iter().map(pair).collect()
}

fn fits(resource: &Resource, kind: &str, qualifiers: &Qualifiers<'_>) -> bool {
    resource.kind == kind && qualifiers.iter().all(|(name, value)| resource.get(name) == *value)
}

impl Session<'_> {
    pub(super) fn add(&mut self, arguments: &[Argument]) {
        if self.open.is_some() {
            return self.add_value(arguments);
        }
        let Some(kind) = single(arguments).and_then(table::resource) else {
            return self.error("syntax error: add wants a resource");
        };
        if kind.single && self.single_is_there(kind.name) {
            return self.error(&format!("The {} resource already exists.", kind.name));
        }
        let resource = Resource { kind: kind.name.to_owned(), ..Resource::default() };
        self.open = Some(Open { resource, of: None });
    }

    fn resources(&self) -> &[Resource] {
        self.config.as_ref().map_or(&[], |c| &c.resources)
    }

    /// Whether any control or resource behind a single one is there.
    fn single_is_there(&self, kind: &str) -> bool {
        let controls: Vec<_> = CAPPED.iter().filter(|(of, ..)| *of == kind).map(|(.., control)| *control).collect();
        self.resources().iter().any(|r| r.kind == kind || (r.kind == "rctl" && controls.contains(&r.get("name"))))
    }

    fn add_value(&mut self, arguments: &[Argument]) {
        let Some(open) = &mut self.open else { return };
        let (name, value) = match arguments {
            [Argument::Value(Value::Simple(name)), Argument::Value(value)] => (name.as_str(), value),
            _ => return self.error("syntax error: add wants a property and a value"),
        };
        let known = table::resource(&open.resource.kind).is_some_and(|k| k.lists.contains(&name));
        let values = match (open.resource.kind.as_str(), value) {
            _ if !known => Err(format!("syntax error at '{name}'")),
            ("rctl", Value::Complex(members)) => table::rctl_value(members).map(|v| vec![v]),
            ("rctl", _) => Err("A complex value was expected here.".into()),
            ("fs", Value::Simple(word)) => Ok(vec![word.clone()]),
            ("fs", Value::List(words)) => Ok(words.clone()),
            ("net" | "device", Value::Complex(members)) => {
                let inner: Vec<_> = members.iter().map(|(n, v)| format!("{n}={v}")).collect();
                Ok(vec![format!("({})", inner.join(","))])
            }
            _ => Err("A simple value was expected here.".into()),
        };
        match values {
            Ok(values) => open.resource.lists.entry(name.to_owned()).or_default().extend(values),
            Err(what) => self.error(&what),
        }
    }

    pub(super) fn set_member(&mut self, arguments: &[Argument]) {
        let system = self.state.system;
        let Some(open) = &mut self.open else { return };
        let [Argument::Property(name, value)] = arguments else {
            return self.error("syntax error: set wants <property-name>=<property-value>");
        };
        let kind = open.resource.kind.clone();
        if !table::resource(&kind).is_some_and(|k| table::has_member(system, k, name)) {
            return self.error(&format!("syntax error at '{name}': not a property of {kind}"));
        }
        match value {
            Value::Simple(value) => match table::member(&kind, name, value) {
                Ok(()) => {
                    open.resource.members.insert(name.clone(), value.clone());
                }
                Err(what) => self.error(&what),
            },
            Value::List(values) if kind == "fs" && name == "options" => {
                open.resource.lists.insert(name.clone(), values.clone());
            }
            Value::List(_) | Value::Complex(_) => self.error("A simple value was expected here."),
        }
    }

    pub(super) fn select(&mut self, arguments: &[Argument]) {
        if self.open.is_some() {
            return self.error("select is not allowed inside of a resource");
        }
        let [first, rest @ ..] = arguments else { return self.error("usage: select <resource-type>") };
        let Some(kind) = word(first).and_then(table::resource) else {
            return self.error("syntax error: select wants a resource");
        };
        if kind.single {
            return self.select_single(kind);
        }
        let found = qualifiers(rest).and_then(|q| self.find(kind, &q));
        match found {
            Ok(at) => {
                let resource = self.resources().get(at).cloned().unwrap_or_default();
                self.open = Some(Open { resource, of: Some(at) });
            }
            Err(what) => self.error(&what),
        }
    }

    /// Controls become members again.
    fn select_single(&mut self, kind: &'static Kind) {
        if !self.single_is_there(kind.name) {
            return self.error(&format!("No such {} resource", kind.name));
        }
        let mut open = Resource { kind: kind.name.to_owned(), ..Resource::default() };
        for resource in self.resources() {
            if resource.kind == kind.name {
                open.members.extend(resource.members.clone());
            }
            let control = CAPPED.iter().find(|(of, _, c)| *of == kind.name && resource.get("name") == *c);
            if let Some((_, member, _)) = control {
                let limit = resource.list("value").first().and_then(|v| table::rctl_limit(v)).unwrap_or_default();
                let text = if *member == "ncpus" { format!("{:.2}", hundredths(limit)) } else { limit.to_string() };
                open.members.insert((*member).to_owned(), text);
            }
        }
        // `end` puts all of it back.
        self.remove_kind(kind);
        self.open = Some(Open { resource: open, of: None });
    }

    /// The one resource that fits. On OmniOS and SmartOS, of several nets on a link the first, whatever else was said.
    fn find(&self, kind: &Kind, qualifiers: &Qualifiers<'_>) -> Result<usize, String> {
        if qualifiers.is_empty() {
            return Err("Insufficient specification".into());
        }
        let all = self.resources();
        if kind.name == "net" && !self.state.system.is_gate() {
            let physical = qualifiers.iter().find(|(name, _)| *name == "physical");
            if let Some((_, link)) = physical
                && all.iter().filter(|r| r.kind == "net" && r.get("physical") == *link).count() > 1
                && all.iter().any(|r| fits(r, "net", qualifiers))
                && qualifiers.len() > 1
            {
                let first = all.iter().position(|r| r.kind == "net" && r.get("physical") == *link);
                return first.ok_or_else(|| "No such net resource".to_owned());
            }
        }
        let found: Vec<usize> =
            all.iter().enumerate().filter(|(_, r)| fits(r, kind.name, qualifiers)).map(|(at, _)| at).collect();
        match found[..] {
            [one] => Ok(one),
            [] => Err(format!("No such {} resource", kind.name)),
            _ => Err("Insufficient specification".into()),
        }
    }

    pub(super) fn remove(&mut self, arguments: &[Argument]) {
        if self.open.is_some() {
            return self.remove_value(arguments);
        }
        let (force, rest) = match arguments {
            [first, rest @ ..] if word(first) == Some("-F") => (true, rest),
            all => (false, all),
        };
        let [first, rest @ ..] = rest else { return self.error("usage: remove <resource-type>") };
        let Some(kind) = word(first).and_then(table::resource) else {
            return self.error("syntax error: remove wants a resource");
        };
        if force && !rest.is_empty() {
            return self.error("syntax error: -F with qualifiers");
        }
        let there = self.resources().iter().filter(|r| r.kind == kind.name).count();
        if force || (rest.is_empty() && (kind.single || there == 1)) {
            // All of the type, without asking, also when there are none.
            self.remove_kind(kind);
            return;
        }
        match qualifiers(rest).and_then(|q| self.find(kind, &q)) {
            Ok(at) => {
                if let Some(config) = &mut self.config {
                    config.resources.remove(at);
                }
                self.changed();
            }
            Err(what) => self.error(&what),
        }
    }

    fn remove_kind(&mut self, kind: &Kind) {
        let controls: Vec<_> = CAPPED.iter().filter(|(of, ..)| *of == kind.name).map(|(.., c)| *c).collect();
        if let Some(config) = &mut self.config {
            config
                .resources
                .retain(|r| r.kind != kind.name && !(r.kind == "rctl" && controls.contains(&r.get("name"))));
        }
        self.changed();
    }

    fn remove_value(&mut self, arguments: &[Argument]) {
        let Some(open) = &mut self.open else { return };
        let (name, value) = match arguments {
            [Argument::Value(Value::Simple(name)), Argument::Value(Value::Simple(value))] => (name, value),
            _ => return self.error("syntax error: remove wants a property and a value"),
        };
        let list = open.resource.lists.entry(name.clone()).or_default();
        match list.iter().position(|v| v == value) {
            Some(at) => {
                list.remove(at);
            }
            None => self.error(&format!("{value}: No such property value")),
        }
    }

    pub(super) fn end(&mut self) {
        let Some(open) = &self.open else { return self.error("end: no resource is being specified") };
        let resource = open.resource.clone();
        let of = open.of;
        if let Err(what) = self.ready_to_end(&resource, of) {
            // The resource stays open.
            return self.error(&what);
        }
        self.open = None;
        self.changed();
        if CAPPED.iter().any(|(kind, ..)| *kind == resource.kind) {
            return self.end_capped(resource);
        }
        let Some(config) = &mut self.config else { return };
        match of.and_then(|at| config.resources.get_mut(at)) {
            Some(place) => *place = resource,
            None => config.resources.push(resource),
        }
    }

    /// Caps are kept as resource controls, but for physical memory on illumos-gate.
    fn end_capped(&mut self, resource: Resource) {
        let gate = self.state.system.is_gate();
        for (kind, member, control) in CAPPED {
            let value = resource.get(member);
            if *kind != resource.kind || value.is_empty() {
                continue;
            }
            if gate && *member == "physical" {
                let kept = Resource {
                    kind: resource.kind.clone(),
                    members: [((*member).to_owned(), value.to_owned())].into(),
                    ..Resource::default()
                };
                if let Some(config) = &mut self.config {
                    config.resources.push(kept);
                }
                continue;
            }
            let limit = match *member {
                "ncpus" => cap(value),
                _ => table::size(value),
            };
            self.put_rctl(control, &limit.unwrap_or_default().to_string(), "deny");
        }
    }

    fn ready_to_end(&self, resource: &Resource, of: Option<usize>) -> Result<(), String> {
        let Some(kind) = table::resource(&resource.kind) else { return Err("no such resource".into()) };
        let missing = kind.required.iter().find(|name| resource.get(name).is_empty());
        if let Some(name) = missing {
            return Err(format!("{name} not specified"));
        }
        self.fits_together(resource)?;
        let others = self.resources().iter().enumerate().filter(|(at, r)| Some(*at) != of && r.kind == resource.kind);
        for (_, other) in others {
            if let Some(key) = kind.key
                && other.get(key) == resource.get(key)
            {
                let value = resource.get(key);
                return Err(format!("A {} resource with the {key} '{value}' already exists.", kind.name));
            }
            let same = |name: &str| other.get(name) == resource.get(name);
            if kind.name == "net" && same("physical") && same("allowed-address") && same("address") && same("defrouter")
            {
                let link = resource.get("physical");
                return Err(format!("A net resource with the physical '{link}' already exists."));
            }
        }
        Ok(())
    }

    fn fits_together(&self, resource: &Resource) -> Result<(), String> {
        let get = |name| resource.get(name);
        match resource.kind.as_str() {
            "attr" => {
                let value = get("value");
                let fine = match get("type") {
                    "boolean" => matches!(value, "true" | "false"),
                    "int" => value.parse::<i64>().is_ok(),
                    "uint" => value.parse::<u64>().is_ok(),
                    _ => value.len() < 2048,
                };
                if fine { Ok(()) } else { Err(format!("invalid value {value} of type {}", get("type"))) }
            }
            "net" if !get("defrouter").is_empty() && get("allowed-address").is_empty() && get("address").is_empty() => {
                Err("defrouter requires allowed-address".into())
            }
            "rctl" if resource.list("value").is_empty() => Err("value not specified".into()),
            "capped-memory" => {
                if ["physical", "swap", "locked"].iter().all(|m| get(m).is_empty()) {
                    return Err("capped-memory: no property is set".into());
                }
                let (physical, locked) = (table::size(get("physical")), table::size(get("locked")));
                match (physical, locked) {
                    (Some(p), Some(l)) if l > p => {
                        Err("The locked cap must be less than or equal to the physical cap.".into())
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "hundredths of CPUs")]
fn hundredths(limit: u64) -> f64 {
    limit as f64 / 100.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a small positive number")]
fn cap(text: &str) -> Option<u64> {
    text.parse::<f64>().ok().map(|n| (n * 100.0).round() as u64)
}

fn single(arguments: &[Argument]) -> Option<&str> {
    match arguments {
        [one] => word(one),
        _ => None,
    }
}
