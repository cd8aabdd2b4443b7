//! Statements → configuration. Reads what `export` prints, and carries out our own files on values, so that tests can
//! hold a file to its meaning.

use super::config::{Attr, AttrKind, Fs, Memory, Net, RctlAction, RctlPriv, RctlValue, SecurityFlags, ZoneConfig};
use super::grammar::{Argument, GrammarError, Statement, Value, statements};
use super::value::{AttrName, CpuCap, RctlName, Text, ValueError};
use std::str::FromStr;

/// A text that is no configuration of a zone of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterpretError {
    /// Not zonecfg input at all.
    #[error("zonecfg input")]
    Grammar(#[from] GrammarError),
    /// A statement that does not fit.
    #[error("zonecfg input: line {line}: {what}")]
    Statement {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Brand or zonepath are not set, or a resource is left open: zonecfg would not save it.
    #[error("zonecfg input: {0}")]
    Unfinished(&'static str),
}

/// What `zonecfg -z ZONE export` printed. Compare this, not its text: it prints bounds as resource controls and lists
/// one by one.
///
/// # Errors
/// [`InterpretError`], also for resources and properties that we never make: such a zone is not ours to change.
pub fn export(text: &str) -> Result<ZoneConfig, InterpretError> {
    interpret(text, None)
}

/// The configuration after a command file, begun from `live` or from nothing.
///
/// # Errors
/// [`InterpretError`] where zonecfg would complain or leave the file without effect.
pub fn interpret(text: &str, live: Option<ZoneConfig>) -> Result<ZoneConfig, InterpretError> {
    let mut session = Session {
        brand_set: live.is_some(),
        path_set: live.is_some(),
        config: live.unwrap_or_else(placeholder),
        open: None,
    };
    for statement in statements(text)? {
        let line = statement.line;
        session.carry_out(&statement).map_err(|what| InterpretError::Statement { line, what })?;
    }
    if session.open.is_some() {
        return Err(InterpretError::Unfinished("a resource has no end"));
    }
    if !(session.brand_set && session.path_set) {
        return Err(InterpretError::Unfinished("brand and zonepath must be set"));
    }
    Ok(session.config)
}

fn placeholder() -> ZoneConfig {
    // Replaced before anybody sees it: an input that sets no brand or zonepath is refused.
    ZoneConfig::new(Text::unset(), Text::unset())
}

struct Session {
    config: ZoneConfig,
    brand_set: bool,
    path_set: bool,
    open: Option<Resource>,
}

/// A resource between `add` and `end`.
struct Resource {
    kind: String,
    members: Vec<(String, Value)>,
}

type Done<T = ()> = Result<T, String>;

impl Session {
    fn carry_out(&mut self, statement: &Statement) -> Done {
        let Statement { verb, arguments, .. } = statement;
        match (verb.as_str(), arguments.as_slice()) {
            ("create", _) => {
                self.config = placeholder();
                (self.brand_set, self.path_set) = (false, false);
            }
            ("verify" | "commit", []) if self.open.is_none() => {}
            ("set", [Argument::Property(name, value)]) => match &mut self.open {
                Some(resource) => resource.members.push((name.clone(), value.clone())),
                None => self.set(name, simple(value)?)?,
            },
            ("add", [Argument::Value(Value::Simple(name)), Argument::Value(value)]) => match &mut self.open {
                Some(resource) => resource.members.push((name.clone(), value.clone())),
                None => return Err(format!("add {name} with a value outside of a resource")),
            },
            ("add", [Argument::Value(Value::Simple(kind))]) if self.open.is_none() => {
                self.open = Some(Resource { kind: kind.clone(), members: Vec::new() });
            }
            ("end", []) => match self.open.take() {
                Some(resource) => self.end(&resource)?,
                None => return Err("end of nothing".into()),
            },
            ("clear", [Argument::Value(Value::Simple(name))]) if self.open.is_none() => self.clear(name)?,
            ("remove", arguments) if self.open.is_none() => self.remove(arguments)?,
            (verb, _) => return Err(format!("{verb}: not understood here")),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Done {
        let config = &mut self.config;
        match name {
            "brand" => {
                config.brand = text(value)?;
                self.brand_set = true;
            }
            "zonepath" => {
                config.zonepath = text(value)?;
                self.path_set = true;
            }
            "autoboot" => config.autoboot = number(value)?,
            "ip-type" if value == "exclusive" => {}
            "bootargs" => config.bootargs = Some(text(value)?),
            "limitpriv" => config.limitpriv = Some(text(value)?),
            "fs-allowed" => config.fs_allowed = Some(text(value)?),
            "cpu-shares" => config.cpu_shares = Some(number(value)?),
            "max-lwps" => config.max_lwps = Some(number(value)?),
            "max-processes" => config.max_processes = Some(number(value)?),
            other => return Err(format!("property {other}={value:?} is not one that we set")),
        }
        Ok(())
    }

    fn clear(&mut self, name: &str) -> Done {
        let config = &mut self.config;
        match name {
            "bootargs" => config.bootargs = None,
            "limitpriv" => config.limitpriv = None,
            "fs-allowed" => config.fs_allowed = None,
            "cpu-shares" => config.cpu_shares = None,
            "max-lwps" => config.max_lwps = None,
            "max-processes" => config.max_processes = None,
            other => return Err(format!("property {other} can't be cleared")),
        }
        Ok(())
    }

    fn remove(&mut self, arguments: &[Argument]) -> Done {
        let config = &mut self.config;
        let word = |argument: &Argument| match argument {
            Argument::Value(Value::Simple(word)) => Some(word.clone()),
            Argument::Value(_) | Argument::Property(..) => None,
        };
        let words: Vec<_> = arguments.iter().filter_map(word).collect();
        let kinds: Vec<&str> = words.iter().map(String::as_str).collect();
        let found = match (kinds.as_slice(), arguments) {
            (["-F", "net"], [_, _]) => !std::mem::take(&mut config.nets).is_empty(),
            (["-F", "capped-memory"], [_, _]) => std::mem::take(&mut config.memory) != Memory::default(),
            (["-F", "capped-cpu"], [_, _]) => config.cpu_cap.take().is_some(),
            (["-F", "security-flags"], [_, _]) => {
                std::mem::take(&mut config.security_flags) != SecurityFlags::default()
            }
            ([kind], [_, Argument::Property(name, value)]) => {
                let value = simple(value)?;
                match (*kind, name.as_str()) {
                    ("fs", "dir") => config.fs.remove(&text(value)?).is_some(),
                    ("device", "match") => config.devices.remove(&text(value)?),
                    ("dataset", "name") => config.datasets.remove(&text(value)?),
                    ("attr", "name") => config.attrs.remove(&said(AttrName::new(value))?).is_some(),
                    ("rctl", "name") => config.rctls.remove(&said(RctlName::new(value))?).is_some(),
                    (kind, name) => return Err(format!("remove {kind} {name}=: not understood")),
                }
            }
            _ => return Err("remove: not understood".into()),
        };
        if found { Ok(()) } else { Err("remove: no such resource".into()) }
    }

    fn end(&mut self, resource: &Resource) -> Done {
        let config = &mut self.config;
        match resource.kind.as_str() {
            "net" => {
                resource.knows(&["physical", "allowed-address", "defrouter"])?;
                config.nets.push(Net {
                    physical: text(resource.needs("physical")?)?,
                    allowed_address: resource.may("allowed-address")?.map(number).transpose()?,
                    defrouter: resource.may("defrouter")?.map(number).transpose()?,
                });
            }
            "fs" => {
                resource.knows(&["dir", "special", "type", "raw", "options"])?;
                let fs = Fs {
                    special: text(resource.needs("special")?)?,
                    kind: text(resource.needs("type")?)?,
                    raw: resource.may("raw")?.map(text).transpose()?,
                    options: resource.all("options").into_iter().map(text).collect::<Done<_>>()?,
                };
                new(config.fs.insert(text(resource.needs("dir")?)?, fs).is_none())?;
            }
            "device" => new(config.devices.insert(text(resource.only("match")?)?))?,
            "dataset" => new(config.datasets.insert(text(resource.only("name")?)?))?,
            "attr" => {
                resource.knows(&["name", "type", "value"])?;
                let kind = attr_kind(resource.needs("type")?)?;
                let attr = Attr { kind, value: text(resource.needs("value")?)? };
                new(config.attrs.insert(said(AttrName::new(resource.needs("name")?))?, attr).is_none())?;
            }
            "capped-cpu" => config.cpu_cap = Some(cpus(resource.only("ncpus")?)?),
            "capped-memory" => {
                resource.knows(&["physical", "swap", "locked"])?;
                let bytes = |name| -> Done<Option<u64>> { resource.may(name)?.map(size).transpose() };
                let memory = &mut config.memory;
                memory.physical = bytes("physical")?.or(memory.physical);
                memory.swap = bytes("swap")?.or(memory.swap);
                memory.locked = bytes("locked")?.or(memory.locked);
            }
            "security-flags" => {
                resource.knows(&["default", "lower", "upper"])?;
                let flags = |name| -> Done<Option<Text>> { resource.may(name)?.map(text).transpose() };
                config.security_flags =
                    SecurityFlags { default: flags("default")?, lower: flags("lower")?, upper: flags("upper")? };
            }
            "rctl" => {
                resource.knows(&["name", "value"])?;
                rctl(config, resource)?;
            }
            other => return Err(format!("resource {other} is not one that we make")),
        }
        Ok(())
    }
}

impl Resource {
    fn all(&self, name: &str) -> Vec<&str> {
        let mut all = Vec::new();
        for (_, value) in self.members.iter().filter(|(n, _)| n == name) {
            match value {
                Value::Simple(word) => all.push(word.as_str()),
                Value::List(words) => all.extend(words.iter().map(String::as_str)),
                Value::Complex(_) => {}
            }
        }
        all
    }

    fn may(&self, name: &str) -> Done<Option<&str>> {
        match self.all(name).as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(format!("{} has more than one {name}", self.kind)),
        }
    }

    fn needs(&self, name: &str) -> Done<&str> {
        self.may(name)?.ok_or_else(|| format!("{} without {name}", self.kind))
    }

    fn only(&self, name: &str) -> Done<&str> {
        self.knows(&[name])?;
        self.needs(name)
    }

    fn knows(&self, names: &[&str]) -> Done {
        match self.members.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            Some((name, _)) => Err(format!("{} has a member {name} that we never set", self.kind)),
            None => Ok(()),
        }
    }
}

/// A resource control: one that we know by a short name goes to its own field.
fn rctl(config: &mut ZoneConfig, resource: &Resource) -> Done {
    let name = resource.needs("name")?;
    let values = resource.members.iter().filter(|(name, _)| name == "value").map(|(_, value)| match value {
        Value::Complex(members) => rctl_value(members),
        Value::Simple(_) | Value::List(_) => Err("a resource control's value is (priv=…,limit=…,action=…)".into()),
    });
    let values = values.collect::<Done<Vec<_>>>()?;
    let plain = match values.as_slice() {
        [RctlValue { privilege: RctlPriv::Privileged, limit, .. }] => Some(*limit),
        _ => None,
    };
    let place = match name {
        "zone.cpu-shares" => Some(&mut config.cpu_shares),
        "zone.max-lwps" => Some(&mut config.max_lwps),
        "zone.max-processes" => Some(&mut config.max_processes),
        "zone.max-physical-memory" => Some(&mut config.memory.physical),
        "zone.max-swap" => Some(&mut config.memory.swap),
        "zone.max-locked-memory" => Some(&mut config.memory.locked),
        _ => None,
    };
    match (name, place, plain) {
        (_, Some(place), Some(limit)) => new(place.replace(limit).is_none()),
        ("zone.cpu-cap", _, Some(limit)) => {
            let hundredths = u32::try_from(limit).map_err(|_| "zone.cpu-cap is out of range".to_owned())?;
            new(config.cpu_cap.replace(said(CpuCap::from_hundredths(hundredths))?).is_none())
        }
        _ => new(config.rctls.insert(said(RctlName::new(name))?, values).is_none()),
    }
}

fn rctl_value(members: &[(String, String)]) -> Done<RctlValue> {
    let member = |name: &str| {
        let found = members.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        found.ok_or_else(|| format!("a resource control's value without {name}"))
    };
    let privilege = match member("priv")? {
        "basic" => RctlPriv::Basic,
        "privileged" => RctlPriv::Privileged,
        other => return Err(format!("priv={other:?}")),
    };
    let action = match member("action")? {
        "none" => RctlAction::None,
        "deny" => RctlAction::Deny,
        other => return Err(format!("action={other:?}")),
    };
    Ok(RctlValue { privilege, limit: number(member("limit")?)?, action })
}

fn attr_kind(word: &str) -> Done<AttrKind> {
    match word {
        "string" => Ok(AttrKind::String),
        "boolean" => Ok(AttrKind::Boolean),
        "int" => Ok(AttrKind::Int),
        "uint" => Ok(AttrKind::Uint),
        other => Err(format!("an attribute of type {other:?}")),
    }
}

/// Bytes, with a suffix or without; with a suffix the number may have a fraction.
fn size(word: &str) -> Done<u64> {
    let error = || format!("{word:?} is no size");
    let shift = match word.bytes().last().map(|b| b.to_ascii_lowercase()) {
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        Some(b't') => 40,
        _ => return number(word),
    };
    let (whole, fraction) = word[..word.len() - 1].split_once('.').unwrap_or((&word[..word.len() - 1], ""));
    let unit = 1_u128 << shift;
    let mut bytes = u128::from(whole.parse::<u64>().map_err(|_| error())?) * unit;
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).ok().filter(|n| *n <= 9).ok_or_else(error)?;
        bytes += u128::from(fraction.parse::<u64>().map_err(|_| error())?) * unit / 10_u128.pow(digits);
    }
    u64::try_from(bytes).map_err(|_| error())
}

/// `1.5` CPUs; at most two digits after the point count.
fn cpus(word: &str) -> Done<CpuCap> {
    let error = || format!("{word:?} is no number of CPUs");
    let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error());
    }
    let digits: String = fraction.chars().chain("00".chars()).take(2).collect();
    let hundredths = whole.parse::<u32>().ok().and_then(|w| w.checked_mul(100)).ok_or_else(error)?;
    let fraction = digits.parse::<u32>().map_err(|_| error())?;
    said(CpuCap::from_hundredths(hundredths.checked_add(fraction).ok_or_else(error)?))
}

fn simple(value: &Value) -> Done<&str> {
    match value {
        Value::Simple(word) => Ok(word),
        Value::List(_) | Value::Complex(_) => Err("one word is expected".into()),
    }
}

fn said<T>(result: Result<T, ValueError>) -> Done<T> {
    result.map_err(|e| e.to_string())
}

fn text(value: &str) -> Done<Text> {
    said(Text::new(value))
}

fn number<T: FromStr>(word: &str) -> Done<T> {
    word.parse().map_err(|_| format!("{word:?} can't be read"))
}

fn new(fresh: bool) -> Done {
    if fresh { Ok(()) } else { Err("a resource of that name already exists".into()) }
}
