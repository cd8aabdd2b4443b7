//! The table of built-in kinds, read once from `schema/kinds.txt`.

use std::sync::LazyLock;

/// One column of a printed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name as the reference has it; headers print it in capitals.
    pub name: &'static str,
    /// Shown only by `-o wide`.
    pub wide: bool,
}

/// Everything the engine has to know about a kind: behaviour follows from this entry and the kind's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version without the group, for example `v1`.
    pub version: &'static str,
    /// For example `Pod`.
    pub kind: &'static str,
    /// For example `pods`.
    pub plural: &'static str,
    /// For example `pod`.
    pub singular: &'static str,
    /// For example `po`.
    pub short_names: Vec<&'static str>,
    /// For example `all`.
    pub categories: Vec<&'static str>,
    /// Does it live in a namespace?
    pub namespaced: bool,
    /// For example `status`, `scale`, `log`.
    pub subresources: Vec<&'static str>,
    /// What may be done with it, in alphabetical order, for example `create` and `get`.
    pub verbs: Vec<&'static str>,
    /// Is metadata.generation counted up with every change of the spec?
    pub has_generation: bool,
    /// Is it never stored, but answered by the daemon itself (reviews, lists of what is served)?
    pub is_virtual: bool,
    /// Since which version the reference advises against it, and the apiVersion and kind that it advises instead.
    pub deprecated: Option<(&'static str, Option<(&'static str, &'static str)>)>,
    /// The columns of its table.
    pub columns: Vec<Column>,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The plural with its group, as error messages name it: `pods`, `deployments.apps`.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Does it have this subresource?
    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.contains(&name)
    }

    /// May this be done with it (`get`, `deletecollection`, ...)?
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Is its status written apart from the rest?
    pub fn has_status(&self) -> bool {
        self.has_subresource("status")
    }

    /// What every answer about it warns of, in the reference's words.
    pub fn deprecation(&self) -> Option<String> {
        let (since, instead) = self.deprecated?;
        let instead = instead.map(|(version, kind)| format!("; use {version} {kind}")).unwrap_or_default();
        Some(format!("{} {} is deprecated in v{since}+{instead}", self.api_version(), self.kind))
    }

    /// Is this core/v1 `kind`?
    pub fn is_core(&self, kind: &str) -> bool {
        self.group.is_empty() && self.kind == kind
    }
}

/// All built-in kinds.
#[derive(Debug)]
pub struct KindTable(Vec<Kind>);

impl KindTable {
    /// All kinds; the preferred version of a group comes first.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter()
    }

    /// The kind with this apiVersion (`apps/v1`) and kind (`Deployment`).
    pub fn by_gvk(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.iter().find(|k| k.kind == kind && k.group == group && k.version == version)
    }

    /// The kind with this group (empty for core), version and plural.
    pub fn by_resource(&self, group: &str, version: &str, plural: &str) -> Option<&Kind> {
        self.iter().find(|k| k.plural == plural && k.group == group && k.version == version)
    }

    /// The preferred version of a resource of a group.
    pub fn by_group_resource(&self, group: &str, plural: &str) -> Option<&Kind> {
        self.iter().find(|k| k.plural == plural && k.group == group)
    }

    /// What a person typed: `po`, `pod`, `pods`, `Pod`, `deploy.apps`, `deployments.v1.apps`.
    pub fn by_alias(&self, alias: &str) -> Option<&Kind> {
        let alias = alias.to_ascii_lowercase();
        let (name, rest) = alias.split_once('.').unwrap_or((&alias, ""));
        let named = |k: &&Kind| k.plural == name || k.singular == name || k.short_names.contains(&name);
        self.iter().filter(named).find(|k| {
            rest.is_empty()
                || k.group == rest
                || rest.strip_prefix(k.version).and_then(|r| r.strip_prefix('.')) == Some(k.group)
        })
    }

    /// The kinds of a category such as `all`; one version of each.
    pub fn by_category(&self, category: &str) -> Vec<&Kind> {
        let mut found: Vec<&Kind> = Vec::new();
        for kind in self.iter().filter(|k| k.categories.contains(&category)) {
            if !found.iter().any(|f| f.group == kind.group && f.plural == kind.plural) {
                found.push(kind);
            }
        }
        found
    }

    /// The nearest name to a mistyped one, for "did you mean": a kind (`Pod`) when it begins with a capital, else a resource (`pods`).
    pub fn suggest(&self, typed: &str) -> Option<String> {
        let kind = typed.starts_with(|c: char| c.is_ascii_uppercase());
        crate::names::did_you_mean(typed, self.iter().map(|k| if kind { k.kind } else { k.plural }))
    }
}

/// The table of built-in kinds.
pub fn kinds() -> &'static KindTable {
    static TABLE: LazyLock<KindTable> =
        LazyLock::new(|| KindTable(include_str!("../schema/kinds.txt").lines().filter_map(parse).collect()));
    &TABLE
}

/// Bodies of subresources and options that are no resources of their own: Scale, Eviction, TokenRequest, DeleteOptions, Status.
pub fn bodies() -> &'static KindTable {
    static TABLE: LazyLock<KindTable> =
        LazyLock::new(|| KindTable(include_str!("../schema/bodies.txt").lines().filter_map(parse).collect()));
    &TABLE
}

/// What may be done with a subresource, as the reference says.
pub fn subresource_verbs(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "attach" | "exec" | "portforward" => &["create", "get"],
        "binding" | "eviction" | "token" => &["create"],
        "finalize" => &["update"],
        "log" => &["get"],
        "proxy" => &["create", "delete", "get", "patch", "update"],
        _ => &["get", "patch", "update"],
    }
}

/// Verbs of a kind that is stored and has no exceptions.
const ALL_VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One line of kinds.txt; a comment or a malformed line is none (a test counts them).
fn parse(line: &'static str) -> Option<Kind> {
    if line.starts_with('#') {
        return None;
    }
    let mut words = line.splitn(11, ' ');
    let mut word = || words.next();
    let (group, version) = word().map(|v| v.split_once('/').unwrap_or(("", v)))?;
    let (kind, plural, singular, scope) = (word()?, word()?, word()?, word()?);
    let (short_names, categories, subresources) = (list(word()?), list(word()?), list(word()?));
    let verbs = list(word()?);
    let flags = list(word()?);
    let column = |name: &'static str| Column { name: name.trim_end_matches('*'), wide: name.ends_with('*') };
    Some(Kind {
        group,
        version,
        kind,
        plural,
        singular,
        short_names,
        categories,
        namespaced: scope == "namespaced",
        subresources,
        verbs: if verbs.is_empty() { ALL_VERBS.to_vec() } else { verbs },
        has_generation: flags.contains(&"generation"),
        is_virtual: flags.contains(&"virtual"),
        deprecated: flags.iter().find_map(|flag| flag.strip_prefix("deprecated=")).map(deprecated),
        columns: word().filter(|columns| *columns != "-").into_iter().flat_map(|c| c.split('|')).map(column).collect(),
    })
}

/// `1.33:discovery.k8s.io/v1/EndpointSlice`, or only the version.
fn deprecated(flag: &'static str) -> (&'static str, Option<(&'static str, &'static str)>) {
    match flag.split_once(':') {
        Some((since, instead)) => (since, instead.rsplit_once('/')),
        None => (flag, None),
    }
}

fn list(word: &'static str) -> Vec<&'static str> {
    if word == "-" { Vec::new() } else { word.split(',').collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_kind() {
        let lines = include_str!("../schema/kinds.txt").lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!(kinds().iter().count(), lines);
    }

    #[test]
    fn verbs_tell_the_stored_from_the_virtual() {
        let kind = |alias: &str| kinds().by_alias(alias).unwrap();
        assert!(kind("pods").allows("watch") && !kind("pods").is_virtual);
        assert!(kind("ns").allows("delete") && !kind("ns").allows("deletecollection"));
        assert!(kind("tokenreviews").is_virtual && kind("tokenreviews").verbs == ["create"]);
        assert!(kind("cs").verbs == ["get", "list"]);
        assert!(bodies().by_gvk("policy/v1", "Eviction").is_some());
    }

    #[test]
    fn what_is_deprecated_says_what_to_use() {
        let said = |alias: &str| kinds().by_alias(alias).unwrap().deprecation();
        let endpoints = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
        assert_eq!(said("ep").as_deref(), Some(endpoints));
        assert_eq!(said("cs").as_deref(), Some("v1 ComponentStatus is deprecated in v1.19+"));
        assert_eq!(kinds().iter().filter(|kind| kind.deprecated.is_some()).count(), 2);
    }

    #[test]
    fn aliases_find_their_kind() {
        for (alias, kind) in [
            ("po", "Pod"),
            ("Pods", "Pod"),
            ("deploy.apps", "Deployment"),
            ("deployments.v1.apps", "Deployment"),
            ("ev", "Event"),
        ] {
            assert_eq!(kinds().by_alias(alias).map(|k| k.kind), Some(kind), "{alias}");
        }
        assert_eq!(kinds().by_alias("hpa").map(|k| k.version), Some("v2"));
        assert!(kinds().by_alias("po.apps").is_none());
        assert_eq!(kinds().suggest("podz").as_deref(), Some("pods"));
        assert_eq!(kinds().suggest("Podd").as_deref(), Some("Pod"));
    }
}
