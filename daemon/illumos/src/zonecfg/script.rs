//! The command file that makes a configuration from nothing. To be given to `zonecfg -z ZONE -f FILE` only for a zone that
//! is not there or `configured`: against an installed zone it would add to what is there, and say that all went well.

use super::config::{Attr, AttrKind, Fs, Net, RctlAction, RctlPriv, RctlValue, ZoneConfig};
use super::value::{AttrName, RctlName, Text};
use std::fmt::Write;

/// The file for [`ZoneConfig`]: blank (`-b`), since each distribution's template is another; every string quoted.
pub fn create(config: &ZoneConfig) -> String {
    let mut out = Script(String::from("create -F -b\n"));
    out.globals(config);
    for (name, values) in &config.rctls {
        out.rctl(name, values);
    }
    for net in &config.nets {
        out.net(net);
    }
    for (dir, fs) in &config.fs {
        out.fs(dir, fs);
    }
    for device in &config.devices {
        out.device(device);
    }
    for dataset in &config.datasets {
        out.dataset(dataset);
    }
    for (name, attr) in &config.attrs {
        out.attr(name, attr);
    }
    out.finish()
}

/// Statements being written.
#[derive(Default)]
pub(super) struct Script(String);

impl Script {
    /// One statement.
    pub(super) fn line(&mut self, line: std::fmt::Arguments<'_>) {
        #[cfg(test)]
        super::work::WRITTEN.set(super::work::WRITTEN.get() + 1);
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// The whole file. The commit comes last: what zonecfg found wrong before it leaves nothing behind.
    pub(super) fn finish(mut self) -> String {
        self.0.push_str("verify\ncommit\n");
        self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything outside of named resources.
    fn globals(&mut self, config: &ZoneConfig) {
        self.line(format_args!("set brand={}", config.brand));
        self.line(format_args!("set zonepath={}", config.zonepath));
        self.line(format_args!("set autoboot={}", config.autoboot));
        self.line(format_args!("set ip-type=exclusive"));
        for (name, value) in config.texts() {
            if let Some(value) = value {
                self.line(format_args!("set {name}={value}"));
            }
        }
        for (name, value) in config.numbers() {
            if let Some(value) = value {
                self.line(format_args!("set {name}={value}"));
            }
        }
        for (resource, members) in config.capped() {
            self.members(resource, &members);
        }
    }

    /// A resource of which there is one at most, unless none of its members is set.
    pub(super) fn members(&mut self, resource: &str, members: &[(&str, Option<String>)]) {
        if members.iter().all(|(_, value)| value.is_none()) {
            return;
        }
        self.line(format_args!("add {resource}"));
        for (name, value) in members {
            if let Some(value) = value {
                self.line(format_args!("set {name}={value}"));
            }
        }
        self.line(format_args!("end"));
    }

    pub(super) fn rctl(&mut self, name: &RctlName, values: &[RctlValue]) {
        self.line(format_args!("add rctl"));
        self.line(format_args!("set name={}", name.as_str()));
        for RctlValue { privilege, limit, action } in values {
            let privilege = match privilege {
                RctlPriv::Basic => "basic",
                RctlPriv::Privileged => "privileged",
            };
            let action = match action {
                RctlAction::None => "none",
                RctlAction::Deny => "deny",
            };
            // Never quoted: strings between parentheses are known to OmniOS and SmartOS only.
            self.line(format_args!("add value (priv={privilege},limit={limit},action={action})"));
        }
        self.line(format_args!("end"));
    }

    pub(super) fn net(&mut self, net: &Net) {
        self.line(format_args!("add net"));
        self.line(format_args!("set physical={}", net.physical));
        if let Some(address) = &net.allowed_address {
            self.line(format_args!("set allowed-address=\"{address}\""));
        }
        if let Some(router) = &net.defrouter {
            self.line(format_args!("set defrouter=\"{router}\""));
        }
        self.line(format_args!("end"));
    }

    pub(super) fn fs(&mut self, dir: &Text, fs: &Fs) {
        self.line(format_args!("add fs"));
        self.line(format_args!("set dir={dir}"));
        self.line(format_args!("set special={}", fs.special));
        self.line(format_args!("set type={}", fs.kind));
        if let Some(raw) = &fs.raw {
            self.line(format_args!("set raw={raw}"));
        }
        for option in &fs.options {
            self.line(format_args!("add options {option}"));
        }
        self.line(format_args!("end"));
    }

    pub(super) fn device(&mut self, pattern: &Text) {
        self.line(format_args!("add device\nset match={pattern}\nend"));
    }

    pub(super) fn dataset(&mut self, name: &Text) {
        self.line(format_args!("add dataset\nset name={name}\nend"));
    }

    pub(super) fn attr(&mut self, name: &AttrName, attr: &Attr) {
        let kind = match attr.kind {
            AttrKind::String => "string",
            AttrKind::Boolean => "boolean",
            AttrKind::Int => "int",
            AttrKind::Uint => "uint",
        };
        self.line(format_args!(
            "add attr\nset name=\"{}\"\nset type={kind}\nset value={}\nend",
            name.as_str(),
            attr.value
        ));
    }
}

/// A resource's name and its members' values.
type Members = (&'static str, Vec<(&'static str, Option<String>)>);

impl ZoneConfig {
    /// Properties that hold text and may be unset.
    pub(super) fn texts(&self) -> [(&'static str, Option<&Text>); 3] {
        [
            ("bootargs", self.bootargs.as_ref()),
            ("limitpriv", self.limitpriv.as_ref()),
            ("fs-allowed", self.fs_allowed.as_ref()),
        ]
    }

    /// Properties that hold numbers and may be unset.
    pub(super) fn numbers(&self) -> [(&'static str, Option<u64>); 3] {
        [("cpu-shares", self.cpu_shares), ("max-lwps", self.max_lwps), ("max-processes", self.max_processes)]
    }

    /// Resources of which there is one at most.
    pub(super) fn capped(&self) -> [Members; 3] {
        let bytes = |n: Option<u64>| n.map(|n| n.to_string());
        let text = |t: &Option<Text>| t.as_ref().map(ToString::to_string);
        let (memory, flags) = (&self.memory, &self.security_flags);
        [
            ("capped-cpu", vec![("ncpus", self.cpu_cap.map(|c| c.to_string()))]),
            (
                "capped-memory",
                vec![
                    ("physical", bytes(memory.physical)),
                    ("swap", bytes(memory.swap)),
                    ("locked", bytes(memory.locked)),
                ],
            ),
            (
                "security-flags",
                vec![("default", text(&flags.default)), ("lower", text(&flags.lower)), ("upper", text(&flags.upper))],
            ),
        ]
    }
}
