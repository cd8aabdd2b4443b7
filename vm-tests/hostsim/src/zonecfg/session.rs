//! Statements carried out on a configuration.

use super::table::{self, ALIASES};
use super::{Mode, verify};
use crate::call::Answer;
use crate::state::{Config, Resource, State, Zone, ZoneState};
use reddwarf_illumos::zonecfg::{Argument, Statement, Value, statements};
use std::path::{Path, PathBuf};

/// What follows a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    /// No further statements; what was done is kept if it may be.
    Stop,
    /// The program ends at once and keeps nothing.
    Fatal,
}

/// A resource between `add` or `select` and `end`.
pub(super) struct Open {
    pub(super) resource: Resource,
    /// Where it came from with `select`.
    pub(super) of: Option<usize>,
}

/// One run of zonecfg.
pub(super) struct Session<'s> {
    pub(super) state: &'s mut State,
    zone: String,
    mode: Mode,
    root: PathBuf,
    pub(super) config: Option<Config>,
    pub(super) open: Option<Open>,
    pub(super) line: usize,
    dirty: bool,
    deleted: bool,
    failed: bool,
    pub(super) out: String,
    err: String,
}

impl<'s> Session<'s> {
    pub(super) fn new(state: &'s mut State, zone: &str, mode: Mode, root: &Path) -> Self {
        let config = state.zones.get(zone).map(|z| z.config.clone());
        Self {
            state,
            zone: zone.to_owned(),
            mode,
            root: root.to_owned(),
            config,
            open: None,
            line: 0,
            dirty: false,
            deleted: false,
            failed: false,
            out: String::new(),
            err: String::new(),
        }
    }

    /// Says something that is no error to the exit code.
    pub(super) fn say(&mut self, message: &str) {
        match &self.mode {
            Mode::File(path) => self.err += &format!("On line {} of {path}:\n", self.line),
            Mode::Stdin => self.err += &format!("On line {}:\n", self.line),
            Mode::Arguments => {}
        }
        self.err += message;
        self.err += "\n";
    }

    /// An error.
    pub(super) fn error(&mut self, message: &str) {
        self.failed = true;
        self.say(message);
    }

    /// One statement as text.
    pub(super) fn text(&mut self, text: &str) -> Flow {
        match statements(text) {
            Ok(list) => {
                for statement in &list {
                    let flow = self.statement(statement);
                    if flow != Flow::On {
                        return flow;
                    }
                }
                Flow::On
            }
            Err(error) if error.what.contains("longer than 1023") => {
                self.err += "input string is too long\n";
                Flow::Fatal
            }
            Err(error) => {
                self.failed = true;
                let line = self.line;
                self.err += &match &self.mode {
                    Mode::File(path) => format!("syntax error on line {line} of {path}: {}\n", error.what),
                    Mode::Stdin => format!("syntax error on line {line}: {}\n", error.what),
                    Mode::Arguments => format!("syntax error: {}\n", error.what),
                };
                self.go_on()
            }
        }
    }

    fn go_on(&self) -> Flow {
        if matches!(self.mode, Mode::File(_)) { Flow::Stop } else { Flow::On }
    }

    fn statement(&mut self, statement: &Statement) -> Flow {
        let failed = std::mem::replace(&mut self.failed, false);
        let flow = match (statement.verb.as_str(), self.config.is_some()) {
            ("exit", _) => Flow::Stop,
            ("create", _) => self.create(&statement.arguments),
            ("help", _) => Flow::On,
            (verb, false) if is_verb(verb) => {
                self.error(&format!("{}: No such zone configured", self.zone.clone()));
                Flow::On
            }
            (verb, _) => {
                self.carry_out(verb, &statement.arguments);
                Flow::On
            }
        };
        let now = self.failed;
        self.failed |= failed;
        if now && flow == Flow::On { self.go_on() } else { flow }
    }

    fn carry_out(&mut self, verb: &str, arguments: &[Argument]) {
        match verb {
            "set" => self.set(arguments),
            "clear" => self.clear(arguments),
            "add" => self.add(arguments),
            "select" => self.select(arguments),
            "remove" => self.remove(arguments),
            "end" => self.end(),
            "cancel" => self.open = None,
            "info" => self.info(arguments),
            "export" => self.export(arguments),
            "verify" => {
                if let Err(what) = self.verified() {
                    self.error(&what);
                }
            }
            "commit" => self.commit(),
            "delete" => self.delete(arguments),
            "revert" => {
                self.config = self.state.zones.get(&self.zone).map(|z| z.config.clone());
                self.dirty = false;
            }
            other => {
                let text = format!("syntax error at '{other}'");
                self.error(&text);
            }
        }
    }

    pub(super) fn zone_state(&self) -> Option<ZoneState> {
        self.state.zones.get(&self.zone).map(|z| z.state)
    }

    /// Whether the zone has files, or more.
    fn installed(&self) -> bool {
        self.zone_state().is_some_and(|s| s >= ZoneState::Incomplete && s != ZoneState::Unavailable)
    }

    fn create(&mut self, arguments: &[Argument]) -> Flow {
        let (mut force, mut template) = (false, Some("default".to_owned()));
        let mut words = arguments.iter();
        while let Some(argument) = words.next() {
            match word(argument) {
                Some("-F") => force = true,
                Some("-b") => template = None,
                Some("-t") => template = words.next().and_then(word).map(ToOwned::to_owned),
                _ => {
                    self.error("usage: create [-F] [ -a <path> |-b | -t <template> ]");
                    return Flow::On;
                }
            }
        }
        if self.installed() {
            // No error: what follows edits what is there.
            let text = format!("Zone {} already installed; create not allowed.", self.zone);
            self.say(&text);
            return Flow::On;
        }
        if self.zone_state().is_some() && !force {
            if matches!(self.mode, Mode::File(_) | Mode::Stdin) {
                self.error(
                    "Zone exists, input not from terminal and -F not specified:\ncreate command ignored, exiting.",
                );
                return Flow::Stop;
            }
            self.error("Zone exists, input not from terminal and -F not specified:\ncreate command ignored, exiting.");
            return Flow::On;
        }
        self.config = match template.as_deref() {
            None => Some(Config::default()),
            Some("default") => Some(self.default_template()),
            Some(name) => match self.state.zones.get(name) {
                Some(zone) => Some(zone.config.clone()),
                None => {
                    let text = format!("{name}: No such zone configured");
                    self.error(&text);
                    return Flow::On;
                }
            },
        };
        self.open = None;
        self.dirty = true;
        Flow::On
    }

    /// What `create` alone starts from: another thing on every distribution.
    fn default_template(&self) -> Config {
        let brand = if self.state.system.is_gate() { "ipkg" } else { "lipkg" };
        let globals = [("brand", brand), ("ip-type", "exclusive"), ("autoboot", "false")];
        Config { globals: globals.map(|(n, v)| (n.to_owned(), v.to_owned())).into(), resources: Vec::new() }
    }

    fn set(&mut self, arguments: &[Argument]) {
        if self.open.is_some() {
            return self.set_member(arguments);
        }
        let (name, value) = match arguments {
            [Argument::Property(name, Value::Simple(value))] => (name.as_str(), value.as_str()),
            [Argument::Value(Value::Simple(f)), Argument::Property(name, Value::Simple(value))]
                if f == "-F" && name == "zonepath" =>
            {
                return self.put(name, value);
            }
            _ => return self.error("syntax error: set wants <property-name>=<property-value>"),
        };
        if let Some((_, control, least, action)) = ALIASES.iter().find(|(alias, ..)| *alias == name) {
            return self.alias(name, control, value, *least, action);
        }
        if !table::has_global(self.state.system, name) {
            return self.error(&format!("syntax error at '{name}': no such property"));
        }
        if self.installed() && matches!(name, "zonepath" | "brand" | "zonename") {
            // Said, and passed over with success.
            let text = format!("Zone {} already installed; set {name} not allowed.", self.zone);
            return self.say(&text);
        }
        if let Err(what) = table::global(name, value) {
            return self.error(&what);
        }
        if name == "brand" && !self.is_brand(value) {
            return self.error(&format!("{value}: unknown brand."));
        }
        if name == "zonename" {
            return self.error("hostsim: renaming a zone is not played");
        }
        self.put(name, value);
    }

    fn is_brand(&self, name: &str) -> bool {
        let brands = self.root.parent().map(|d| d.join("brands").join(name).join("config.xml"));
        brands.is_some_and(|path| !name.contains('/') && path.is_file())
    }

    fn put(&mut self, name: &str, value: &str) {
        if let Some(config) = &mut self.config {
            config.globals.insert(name.to_owned(), value.to_owned());
        }
        self.dirty = true;
    }

    fn alias(&mut self, name: &str, control: &str, value: &str, least: u64, action: &str) {
        if !value.parse::<u64>().is_ok_and(|n| n >= least) {
            return self.error(&format!("{name} value {value} must be a number of at least {least}"));
        }
        self.put_rctl(control, value, action);
    }

    /// Sets a resource control to one value.
    pub(super) fn put_rctl(&mut self, control: &str, limit: &str, action: &str) {
        self.drop_rctl(control);
        let value = format!("(priv=privileged,limit={limit},action={action})");
        let resource = Resource {
            kind: "rctl".into(),
            members: [("name".to_owned(), control.to_owned())].into(),
            lists: [("value".to_owned(), vec![value])].into(),
        };
        if let Some(config) = &mut self.config {
            config.resources.push(resource);
        }
        self.dirty = true;
    }

    /// Whether there was one.
    pub(super) fn drop_rctl(&mut self, control: &str) -> bool {
        let Some(config) = &mut self.config else { return false };
        let before = config.resources.len();
        config.resources.retain(|r| !(r.kind == "rctl" && r.get("name") == control));
        self.dirty |= config.resources.len() != before;
        config.resources.len() != before
    }

    fn clear(&mut self, arguments: &[Argument]) {
        let [argument] = arguments else { return self.error("usage: clear <property-name>") };
        let Some(name) = word(argument) else { return self.error("usage: clear <property-name>") };
        if let Some(open) = &mut self.open {
            let gone = open.resource.members.remove(name).is_some() | open.resource.lists.remove(name).is_some();
            if !gone {
                self.error(&format!("{name}: No such property"));
            }
            return;
        }
        if let Some((_, control, ..)) = ALIASES.iter().find(|(alias, ..)| *alias == name) {
            if !self.drop_rctl(control) {
                self.error(&format!("{name}: No such resource"));
            }
            return;
        }
        if matches!(name, "zonename" | "zonepath" | "brand") || !table::has_global(self.state.system, name) {
            return self.error(&format!("{name}: can not be cleared"));
        }
        if let Some(config) = &mut self.config {
            config.globals.remove(name);
        }
        self.dirty = true;
    }

    fn delete(&mut self, arguments: &[Argument]) {
        if arguments.iter().filter_map(word).ne(["-F"]) {
            return self.error("Input not from terminal and -F not specified: delete command ignored, exiting.");
        }
        if self.zone_state().is_some_and(ZoneState::is_up) {
            let text = format!("{}: Zone state is invalid for the requested operation", self.zone);
            return self.error(&text);
        }
        if self.state.zones.remove(&self.zone).is_none() {
            let text = format!("{}: No such zone configured", self.zone);
            return self.error(&text);
        }
        (self.config, self.open, self.dirty, self.deleted) = (None, None, false, true);
    }

    fn verified(&self) -> Result<(), String> {
        let Some(config) = &self.config else { return Err(format!("{}: No such zone configured", self.zone)) };
        verify::config(self.state.system, &self.zone, config)
    }

    pub(super) fn changed(&mut self) {
        self.dirty = true;
    }

    fn commit(&mut self) {
        if self.open.is_some() {
            return self.error("commit is not allowed inside of a resource");
        }
        if let Err(what) = self.verified() {
            let text = format!("{what}\n{}: Configuration not saved", self.zone);
            return self.error(&text);
        }
        self.save();
    }

    fn save(&mut self) {
        let Some(config) = self.config.clone() else { return };
        self.dirty = false;
        if let Some(zone) = self.state.zones.get_mut(&self.zone) {
            zone.config = config;
            return;
        }
        let debug_id = self.state.number();
        self.state.zones.insert(self.zone.clone(), Zone { config, debug_id, ..Zone::default() });
    }

    /// The end of all input: what may be kept is, with an error or without.
    pub(super) fn finish(mut self) -> Answer {
        if self.dirty && self.open.is_none() && !self.deleted {
            match self.verified() {
                Ok(()) => self.save(),
                Err(what) => {
                    self.failed = true;
                    self.err += &format!("{what}\n{}: Configuration not saved\n", self.zone);
                }
            }
        } else if self.open.is_some() {
            self.failed = true;
            self.err += &format!("{}: Configuration not saved\n", self.zone);
        }
        Answer { out: self.out, err: self.err, code: i32::from(self.failed) }
    }

    /// The end in the middle.
    pub(super) fn fatal(self) -> Answer {
        Answer { out: self.out, err: self.err, code: 1 }
    }
}

fn is_verb(verb: &str) -> bool {
    const VERBS: &[&str] = &[
        "set", "clear", "add", "select", "remove", "end", "cancel", "info", "export", "verify", "commit", "delete",
        "revert",
    ];
    VERBS.contains(&verb)
}

/// A plain word.
pub(super) fn word(argument: &Argument) -> Option<&str> {
    match argument {
        Argument::Value(Value::Simple(word)) => Some(word),
        Argument::Value(_) | Argument::Property(..) => None,
    }
}
