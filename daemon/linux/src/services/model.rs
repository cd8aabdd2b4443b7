//! Our table for services as a value: chains, maps and sets by name. Two of them give the steps that lead from one to the other.
//!
//! Every rule bears a digest of its own text as its comment. So a table that was read back says by itself whether its
//! rules are as rendered, in whatever words nft prints them; maps and sets are compared element by element.

use super::words::{Element, Types};
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Elements of one `add element` command; nft takes them in one transaction all the same.
const PER_COMMAND: usize = 2000;

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
    reddwarf_host::hex(Sha256::digest(text.as_bytes()).get(..5).unwrap_or_default())
}

/// A map or a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elements {
    /// `map` or `set`.
    pub(crate) kind: &'static str,
    /// Absent: it was read back, and is or holds what nothing of ours does.
    pub(crate) types: Option<Types>,
    /// Once settled: in order, each key once. Elements that packets add (affinities) are not ours and not in here.
    pub(crate) elements: Vec<Element>,
}

impl Elements {
    pub(crate) fn new(types: Types) -> Self {
        Self { kind: types.kind(), types: Some(types), elements: Vec::new() }
    }

    /// Puts the elements in order. Of those with one key the last one stays.
    pub(crate) fn settle(&mut self) {
        self.elements.sort_by_key(|element| element.key);
        self.elements.dedup_by(|later, earlier| {
            let same = later.key == earlier.key;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
    }
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

    /// The elements of a map or set, which is made when it is not there.
    pub(crate) fn map(&mut self, name: impl Into<String>, types: Types) -> &mut Vec<Element> {
        &mut self.maps.entry(name.into()).or_insert_with(|| Elements::new(types)).elements
    }

    /// Puts all elements in order: once nothing is added any more.
    pub(crate) fn settle(&mut self) {
        self.maps.values_mut().for_each(Elements::settle);
    }

    /// The text that replaces the table, whatever it holds, in one transaction.
    pub(crate) fn replace(&self, table: &str) -> String {
        self.create(table).text(table)
    }

    /// What makes the table where there is none.
    pub(crate) fn create(&self, table: &str) -> Steps<'_> {
        let mut before = beginning(table);
        self.frame(nothing(), table, &mut before);
        Steps { before, elements: self.element_changes(nothing()), after: String::new() }
    }

    /// What leads from `old` to this. `None`: only replacing does (a base chain or a type is another one).
    pub(crate) fn change<'m>(&'m self, old: &'m Self, table: &str) -> Option<Steps<'m>> {
        let hook = self.chains.iter().any(|(name, chain)| old.chains.get(name).is_some_and(|o| o.hook != chain.hook));
        let types = self
            .maps
            .iter()
            .any(|(name, map)| old.maps.get(name).is_some_and(|o| o.kind != map.kind || o.types != map.types));
        if hook || types {
            return None;
        }
        let mut before = String::new();
        self.frame(old, table, &mut before);
        Some(Steps { before, elements: self.element_changes(old), after: self.leftovers(old, table) })
    }

    /// What is new, empty, and the rules.
    fn frame(&self, old: &Self, table: &str, text: &mut String) {
        for (name, map) in self.maps.iter().filter(|(name, _)| !old.maps.contains_key(*name)) {
            let Elements { kind, types: Some(types), .. } = map else { continue };
            let _ = writeln!(text, "add {kind} inet {table} {name} {{ {types} }}");
        }
        for (name, chain) in self.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
            if chain.hook.is_empty() {
                let _ = writeln!(text, "add chain inet {table} {name}");
            } else {
                let _ = writeln!(text, "add chain inet {table} {name} {{ {} }}", chain.hook);
            }
        }
        for name in self.chains.keys() {
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
            let before = old.maps.get(name).map_or(&[][..], |m| m.elements.as_slice());
            let Some(types) = map.types.filter(|_| *before != *map.elements) else { continue };
            let (gone, new) = differences(before, &map.elements);
            changes.push(ElementChange { add: false, name, types, elements: gone });
            changes.push(ElementChange { add: true, name, types, elements: new });
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
            let _ = writeln!(text, "flush {} inet {table} {name}", map.kind);
        }
        for (name, _) in chains() {
            let _ = writeln!(text, "delete chain inet {table} {name}");
        }
        for (name, map) in maps() {
            let _ = writeln!(text, "delete {} inet {table} {name}", map.kind);
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
                Some(other) if other.types != map.types || other.elements != map.elements => {
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

/// What only the first has and what only the second has, of two lists in order. A key with another value is in both.
fn differences<'m>(old: &'m [Element], new: &'m [Element]) -> (Vec<&'m Element>, Vec<&'m Element>) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return (gone, come),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.key.cmp(&b.key),
        };
        let before = old.next_if(|_| order != Ordering::Greater);
        let after = new.next_if(|_| order != Ordering::Less);
        if before != after {
            gone.extend(before);
            come.extend(after);
        }
    }
}

/// What leads from one table to another. Each step is one transaction; packets go by the old table until the second, and by
/// the new one from then on: what the first brings is not led to yet, what the third takes away is not led to any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Steps<'m> {
    /// Text for nft: new chains and maps, and rules.
    pub(crate) before: String,
    /// Elements.
    pub(crate) elements: Vec<ElementChange<'m>>,
    /// Text for nft: what goes.
    pub(crate) after: String,
}

impl Steps<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.elements.is_empty() && self.after.is_empty()
    }

    /// All of it as text.
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
    /// The map's name and types.
    pub(crate) name: &'m str,
    pub(crate) types: Types,
    pub(crate) elements: Vec<&'m Element>,
}

fn elements(text: &mut String, table: &str, change: &ElementChange<'_>) {
    let verb = if change.add { "add" } else { "delete" };
    let line = |element: &&Element| {
        let (key, value) = (change.types.key_text(element), change.types.value_text(element));
        if value.is_empty() || !change.add { key } else { format!("{key} : {value}") }
    };
    for chunk in change.elements.chunks(PER_COMMAND) {
        let list = chunk.iter().map(line).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "{verb} element inet {table} {} {{ {list} }}", change.name);
    }
}
