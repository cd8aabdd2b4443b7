//! The smallest command file from one configuration to another, and what of it a running zone sees only after its next
//! boot.

use super::config::ZoneConfig;
use super::script::Script;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// How names of attributes of ours begin, quoted.
const OURS: &str = "\"io-reddwarf";

/// What leads from one configuration to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// To be given to `zonecfg -z ZONE -f FILE`; never holds `create`.
    pub script: String,
    /// Properties and resources that take effect at the zone's next boot only, by zonecfg's names.
    pub after_boot: BTreeSet<&'static str>,
}

/// A difference that no edit of a zone can bridge: it must be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} can't be changed: the zone must be made anew")]
pub struct Rebuild(pub &'static str);

/// From `live` to `wanted`; `None` when they are the same.
///
/// # Errors
/// [`Rebuild`] when brand or zonepath differ.
pub fn edit(live: &ZoneConfig, wanted: &ZoneConfig) -> Result<Option<Edit>, Rebuild> {
    if live.brand != wanted.brand {
        return Err(Rebuild("brand"));
    }
    if live.zonepath != wanted.zonepath {
        return Err(Rebuild("zonepath"));
    }
    let mut changes = Changes::default();
    changes.globals(live, wanted);
    changes.capped(live, wanted);
    changes.nets(live, wanted);
    let ZoneConfig { rctls, fs, devices, datasets, attrs, .. } = wanted;
    changes.keyed("rctl", "name", &live.rctls, rctls, |n| n.as_str().to_owned(), |s, n, v| s.rctl(n, v));
    changes.keyed("fs", "dir", &live.fs, fs, ToString::to_string, Script::fs);
    changes.keyed("device", "match", &set(&live.devices), &set(devices), ToString::to_string, |s, d, ()| s.device(d));
    changes
        .keyed("dataset", "name", &set(&live.datasets), &set(datasets), ToString::to_string, |s, d, ()| s.dataset(d));
    changes.keyed("attr", "name", &live.attrs, attrs, |n| format!("\"{}\"", n.as_str()), Script::attr);
    Ok(changes.finish())
}

#[derive(Default)]
struct Changes {
    script: Script,
    after_boot: BTreeSet<&'static str>,
}

fn set<T: Ord>(values: &BTreeSet<T>) -> BTreeMap<&T, ()> {
    values.iter().map(|v| (v, ())).collect()
}

impl Changes {
    fn finish(self) -> Option<Edit> {
        if self.script.is_empty() {
            return None;
        }
        Some(Edit { script: self.script.finish(), after_boot: self.after_boot })
    }

    fn globals(&mut self, live: &ZoneConfig, wanted: &ZoneConfig) {
        if live.autoboot != wanted.autoboot {
            self.script.line(format_args!("set autoboot={}", wanted.autoboot));
        }
        for ((name, was), (_, is)) in live.texts().into_iter().zip(wanted.texts()) {
            self.property(name, was, is);
        }
        for ((name, was), (_, is)) in live.numbers().into_iter().zip(wanted.numbers()) {
            self.property(name, was, is);
        }
    }

    fn property<T: PartialEq + Display>(&mut self, name: &'static str, was: Option<T>, is: Option<T>) {
        if was == is {
            return;
        }
        match is {
            Some(value) => self.script.line(format_args!("set {name}={value}")),
            None => self.script.line(format_args!("clear {name}")),
        }
        self.after_boot.insert(name);
    }

    /// Removed and made again as a whole: which of its members are resource controls differs between systems.
    fn capped(&mut self, live: &ZoneConfig, wanted: &ZoneConfig) {
        for ((resource, was), (_, is)) in live.capped().into_iter().zip(wanted.capped()) {
            if was == is {
                continue;
            }
            if was.iter().any(|(_, value)| value.is_some()) {
                self.script.line(format_args!("remove -F {resource}"));
            }
            self.script.members(resource, &is);
            self.after_boot.insert(resource);
        }
    }

    /// All at once: with two on one link OmniOS and SmartOS would change or remove the wrong one, and say nothing.
    fn nets(&mut self, live: &ZoneConfig, wanted: &ZoneConfig) {
        if live.nets == wanted.nets {
            return;
        }
        if !live.nets.is_empty() {
            self.script.line(format_args!("remove -F net"));
        }
        for net in &wanted.nets {
            self.script.net(net);
        }
        self.after_boot.insert("net");
    }

    /// Resources with a name of their own: what went or changed is removed, what is new or changed added.
    fn keyed<K: Ord, V: PartialEq>(
        &mut self,
        resource: &'static str,
        member: &str,
        live: &BTreeMap<K, V>,
        wanted: &BTreeMap<K, V>,
        text: impl Fn(&K) -> String,
        add: impl Fn(&mut Script, &K, &V),
    ) {
        let mut at_boot = false;
        // Attributes are words for us, whom nothing that runs asks, or for brands, which read them at a boot.
        let mut read_at_boot = |key: &str| at_boot |= resource != "attr" || !key.starts_with(OURS);
        for (key, _) in live.iter().filter(|(key, value)| wanted.get(key) != Some(value)) {
            self.script.line(format_args!("remove {resource} {member}={}", text(key)));
            read_at_boot(&text(key));
        }
        for (key, value) in wanted.iter().filter(|(key, value)| live.get(key) != Some(value)) {
            add(&mut self.script, key, value);
            read_at_boot(&text(key));
        }
        if at_boot {
            self.after_boot.insert(resource);
        }
    }
}
