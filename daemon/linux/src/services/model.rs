//! Our table for services as a value: chains, maps and sets by name. Two of them give the steps that lead from one to the other.
//!
//! Every rule bears a digest of its own text as its comment. So a table that was read back says by itself whether its
//! rules are as rendered, in whatever words nft prints them; maps and sets are compared element by element.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Elements of one `add element` command; nft takes them in one transaction all the same.
const PER_COMMAND: usize = 2000;

/// The chain whose rules say that the table is whole: they are made after all elements.
pub(crate) const LAST_CHAIN: &str = "whole";

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// `type … hook … priority …; policy accept;` of a base chain; empty for others.
    pub(crate) hook: &'static str,
    /// Its rules, each with its digest as comment.
    pub(crate) rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its text; empty when it was read back.
    pub(crate) text: String,
    /// Of its text.
    pub(crate) digest: String,
}

impl Rule {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let digest = digest(&text);
        Self { text, digest }
    }
}

/// Eight letters that stand for a text.
pub(crate) fn digest(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(5).fold(String::with_capacity(10), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A map or a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elements {
    /// `map` or `set`.
    pub(crate) is_map: bool,
    /// `type ipv4_addr . inet_proto . inet_service : verdict;` and further lines.
    pub(crate) declaration: String,
    /// Key to value; sets have empty values. Elements that packets add (affinities) are not ours and not in here.
    pub(crate) elements: BTreeMap<String, String>,
}

/// A whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) chains: BTreeMap<String, Chain>,
    pub(crate) maps: BTreeMap<String, Elements>,
}

impl Model {
    /// Adds rules to a chain, which is made when it is not there.
    pub(crate) fn chain(&mut self, name: impl Into<String>, hook: &'static str) -> &mut Chain {
        let chain = self.chains.entry(name.into()).or_default();
        if !hook.is_empty() {
            chain.hook = hook;
        }
        chain
    }

    /// A map, which is made when it is not there.
    pub(crate) fn map(&mut self, name: impl Into<String>, declaration: &str) -> &mut BTreeMap<String, String> {
        let map = self.maps.entry(name.into()).or_default();
        if map.declaration.is_empty() {
            *map = Elements { is_map: true, declaration: declaration.to_owned(), elements: BTreeMap::new() };
        }
        &mut map.elements
    }

    /// A set, which is made when it is not there.
    pub(crate) fn set(&mut self, name: impl Into<String>, declaration: &str) -> &mut BTreeMap<String, String> {
        let set = self.maps.entry(name.into()).or_default();
        if set.declaration.is_empty() {
            set.declaration = declaration.to_owned();
        }
        &mut set.elements
    }

    /// The text that replaces the table, whatever it holds, in one transaction.
    pub(crate) fn replace(&self, table: &str) -> String {
        let mut text = beginning(table);
        self.frame(nothing(), table, &mut text);
        for change in self.element_changes(nothing()) {
            elements(&mut text, table, &change);
        }
        self.rules(LAST_CHAIN, nothing(), table, &mut text);
        text
    }

    /// What makes the table where there is none.
    pub(crate) fn create(&self, table: &str) -> Steps<'_> {
        let mut before = beginning(table);
        self.frame(nothing(), table, &mut before);
        let mut after = String::new();
        self.rules(LAST_CHAIN, nothing(), table, &mut after);
        Steps { before, elements: self.element_changes(nothing()), after }
    }

    /// What leads from `old` to this. `None`: only replacing does (a base chain or a type is another one).
    pub(crate) fn change<'m>(&'m self, old: &'m Self, table: &str) -> Option<Steps<'m>> {
        let hook = self.chains.iter().any(|(name, chain)| old.chains.get(name).is_some_and(|o| o.hook != chain.hook));
        let kind = self.maps.iter().any(|(name, map)| {
            old.maps.get(name).is_some_and(|o| o.is_map != map.is_map || o.declaration != map.declaration)
        });
        if hook || kind {
            return None;
        }
        let mut before = String::new();
        self.frame(old, table, &mut before);
        let mut after = String::new();
        self.rules(LAST_CHAIN, old, table, &mut after);
        after.push_str(&self.leftovers(old, table));
        Some(Steps { before, elements: self.element_changes(old), after })
    }

    /// What is new, empty, and the rules.
    fn frame(&self, old: &Self, table: &str, text: &mut String) {
        for (name, map) in self.maps.iter().filter(|(name, _)| !old.maps.contains_key(*name)) {
            let kind = if map.is_map { "map" } else { "set" };
            let _ = writeln!(text, "add {kind} inet {table} {name} {{ {} }}", map.declaration);
        }
        for (name, chain) in self.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
            if chain.hook.is_empty() {
                let _ = writeln!(text, "add chain inet {table} {name}");
            } else {
                let _ = writeln!(text, "add chain inet {table} {name} {{ {} }}", chain.hook);
            }
        }
        for name in self.chains.keys().filter(|name| *name != LAST_CHAIN) {
            self.rules(name, old, table, text);
        }
    }

    /// The rules of one chain, if they are others.
    fn rules(&self, name: &str, old: &Self, table: &str, text: &mut String) {
        let Some(chain) = self.chains.get(name) else { return };
        let before = old.chains.get(name);
        if before.is_some_and(|b| same_rules(b, chain)) {
            return;
        }
        if before.is_some_and(|b| !b.rules.is_empty()) {
            let _ = writeln!(text, "flush chain inet {table} {name}");
        }
        for rule in &chain.rules {
            let _ = writeln!(text, "add rule inet {table} {name} {} comment \"{}\"", rule.text, rule.digest);
        }
    }

    /// Elements that differ: of each map first what goes, then what comes. Those of maps that go stay until they do.
    fn element_changes<'m>(&'m self, old: &'m Self) -> Vec<ElementChange<'m>> {
        let mut changes = Vec::new();
        for (name, map) in &self.maps {
            let before = old.maps.get(name).map_or(&nothing_in().elements, |m| &m.elements);
            // Both are in order: comparing all of them costs less than looking for each.
            if *before == map.elements {
                continue;
            }
            let differs =
                |other: &BTreeMap<String, String>, key: &String, value: &String| other.get(key) != Some(value);
            let pair = |(key, value): (&'m String, &'m String)| (key.as_str(), value.as_str());
            let gone = before.iter().filter(|(key, value)| differs(&map.elements, key, value)).map(pair).collect();
            let new = map.elements.iter().filter(|(key, value)| differs(before, key, value)).map(pair).collect();
            changes.push(ElementChange { add: false, name, map, elements: gone });
            changes.push(ElementChange { add: true, name, map, elements: new });
        }
        changes.retain(|change| !change.elements.is_empty());
        changes
    }

    /// What nothing leads to any more. Chains that go may lead to one another and to maps that go: empty first.
    fn leftovers(&self, old: &Self, table: &str) -> String {
        let mut text = String::new();
        let chains = || old.chains.iter().filter(|(name, _)| !self.chains.contains_key(*name));
        let maps = || old.maps.iter().filter(|(name, _)| !self.maps.contains_key(*name));
        for (name, _) in chains() {
            let _ = writeln!(text, "flush chain inet {table} {name}");
        }
        for (name, map) in maps() {
            let kind = if map.is_map { "map" } else { "set" };
            let _ = writeln!(text, "flush {kind} inet {table} {name}");
        }
        for (name, _) in chains() {
            let _ = writeln!(text, "delete chain inet {table} {name}");
        }
        for (name, map) in maps() {
            let kind = if map.is_map { "map" } else { "set" };
            let _ = writeln!(text, "delete {kind} inet {table} {name}");
        }
        text
    }

    /// How a table that was found differs from this one, in words.
    pub(crate) fn drift(&self, found: &Self) -> Vec<String> {
        let mut drift = Vec::new();
        for (name, chain) in &self.chains {
            match found.chains.get(name) {
                None => drift.push(format!("chain {name} is missing")),
                Some(other) if other.hook != chain.hook => drift.push(format!("chain {name} hangs elsewhere")),
                Some(other) if !same_rules(other, chain) => drift.push(format!("the rules of chain {name} changed")),
                Some(_) => {}
            }
        }
        for (name, map) in &self.maps {
            match found.maps.get(name) {
                None => drift.push(format!("map {name} is missing")),
                Some(other) if other.elements != map.elements => {
                    drift.push(format!("the elements of map {name} changed"));
                }
                Some(_) => {}
            }
        }
        let ours: BTreeSet<&String> = self.chains.keys().chain(self.maps.keys()).collect();
        let foreign = found.chains.keys().chain(found.maps.keys()).filter(|name| !ours.contains(name));
        drift.extend(foreign.map(|name| format!("{name} is not ours")));
        drift
    }
}

fn same_rules(a: &Chain, b: &Chain) -> bool {
    a.rules.len() == b.rules.len() && a.rules.iter().zip(&b.rules).all(|(a, b)| a.digest == b.digest)
}

/// Empties whatever there is: the first line lets the second succeed when there is no table yet.
fn beginning(table: &str) -> String {
    format!("table inet {table}\ndelete table inet {table}\ntable inet {table}\n")
}

fn nothing() -> &'static Model {
    static NOTHING: Model = Model { chains: BTreeMap::new(), maps: BTreeMap::new() };
    &NOTHING
}

fn nothing_in() -> &'static Elements {
    static NOTHING: Elements = Elements { is_map: false, declaration: String::new(), elements: BTreeMap::new() };
    &NOTHING
}

/// What leads from one table to another. Each step is one transaction; packets go by the old table until the second, and by
/// the new one from then on: what the first brings is not led to yet, what the third takes away is not led to any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Steps<'m> {
    /// Text for nft: new chains and maps, and rules.
    pub(crate) before: String,
    /// Elements.
    pub(crate) elements: Vec<ElementChange<'m>>,
    /// Text for nft: what says that the table is whole, and what goes.
    pub(crate) after: String,
}

impl Steps<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.elements.is_empty() && self.after.is_empty()
    }

    /// All of it as text.
    #[cfg(test)]
    pub(crate) fn text(&self, table: &str) -> String {
        let mut text = self.before.clone();
        self.elements.iter().for_each(|change| elements(&mut text, table, change));
        text + &self.after
    }
}

/// Elements that come to one map, or go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ElementChange<'m> {
    pub(crate) add: bool,
    /// The map's name, and the map: its types.
    pub(crate) name: &'m str,
    pub(crate) map: &'m Elements,
    /// Keys and values.
    pub(crate) elements: Vec<(&'m str, &'m str)>,
}

fn elements(text: &mut String, table: &str, change: &ElementChange<'_>) {
    let verb = if change.add { "add" } else { "delete" };
    let line = |(key, value): &(&str, &str)| {
        if value.is_empty() || !change.add { (*key).to_owned() } else { format!("{key} : {value}") }
    };
    for chunk in change.elements.chunks(PER_COMMAND) {
        let list = chunk.iter().map(line).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "{verb} element inet {table} {} {{ {list} }}", change.name);
    }
}
