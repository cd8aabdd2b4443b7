//! One rule of a role (`PolicyRule`).

use crate::access::attributes::{Attributes, Target};
use crate::access::authorise::path_in;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a role allows: verbs on resources, or verbs on paths. A star stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) urls: Vec<String>,
}

const ALL: &str = "*";

/// Combinations of one rule that are compared one by one; a rule with more is not looked through.
const MOST_COMBINATIONS: usize = 100_000;

impl Rule {
    /// A rule on resources.
    pub(crate) fn on(verbs: &[&str], api_groups: &[&str], resources: &[&str]) -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Self { verbs: owned(verbs), api_groups: owned(api_groups), resources: owned(resources), ..Self::default() }
    }

    /// Does it allow this?
    pub(crate) fn allows(&self, what: &Attributes) -> bool {
        if !has(&self.verbs, &what.verb) {
            return false;
        }
        match &what.target {
            Target::Path(path) => path_in(&self.urls, path),
            Target::Resource(target) => {
                has(&self.api_groups, &target.group)
                    && has_resource(&self.resources, &target.resource, &target.subresource)
                    && (self.resource_names.is_empty() || self.resource_names.contains(&target.name))
            }
        }
    }

    /// What these rules together do not allow of this one, one verb on one thing each; nothing when they cover it.
    pub(crate) fn beyond(&self, rules: &[Self]) -> Vec<Self> {
        let names: Vec<Option<&String>> = match self.resource_names.is_empty() {
            true => vec![None],
            false => self.resource_names.iter().map(Some).collect(),
        };
        let of_resources = [self.verbs.len(), self.api_groups.len(), self.resources.len(), names.len()];
        if of_resources.iter().try_fold(1usize, |all, n| all.checked_mul(*n)).is_none_or(|n| n > MOST_COMBINATIONS) {
            return vec![self.clone()];
        }
        let resource_covered = |verb: &str, group: &str, resource: &str, name: Option<&String>| {
            rules.iter().any(|rule| {
                has(&rule.verbs, verb)
                    && has(&rule.api_groups, group)
                    && covers_resource(&rule.resources, resource)
                    && (rule.resource_names.is_empty() || name.is_some_and(|name| rule.resource_names.contains(name)))
            })
        };
        let mut beyond = Vec::new();
        for (group, resource) in self.api_groups.iter().flat_map(|g| self.resources.iter().map(move |r| (g, r))) {
            for (verb, name) in self.verbs.iter().flat_map(|verb| names.iter().map(move |name| (verb, *name))) {
                if !resource_covered(verb, group, resource, name) {
                    let resource_names = name.cloned().into_iter().collect();
                    beyond.push(Self { resource_names, ..Self::on(&[verb], &[group], &[resource]) });
                }
            }
        }
        let paths = self.verbs.iter().flat_map(|verb| self.urls.iter().map(move |url| (verb, url)));
        let uncovered =
            paths.filter(|(verb, url)| !rules.iter().any(|r| has(&r.verbs, verb) && covers_url(&r.urls, url)));
        beyond.extend(uncovered.map(|(verb, url)| Self {
            verbs: vec![verb.clone()],
            urls: vec![url.clone()],
            ..Self::default()
        }));
        beyond
    }
}

/// Rules as lines for people: those on the same things as one, with all their verbs.
pub(crate) fn summary(rules: impl IntoIterator<Item = Rule>) -> Vec<String> {
    let mut all = BTreeMap::<_, Vec<String>>::new();
    for rule in rules {
        let verbs = all.entry((rule.api_groups, rule.resources, rule.resource_names, rule.urls)).or_default();
        let new: Vec<String> = rule.verbs.into_iter().filter(|verb| !verbs.contains(verb)).collect();
        verbs.extend(new);
    }
    let line = |((api_groups, resources, resource_names, urls), verbs)| {
        Rule { verbs, api_groups, resources, resource_names, urls }.to_string()
    };
    all.into_iter().map(line).collect()
}

fn has(list: &[String], one: &str) -> bool {
    list.iter().any(|entry| entry == ALL || entry == one)
}

/// `pods`, `pods/log`, `*/scale`, `*`.
fn has_resource(list: &[String], resource: &str, subresource: &str) -> bool {
    list.iter().any(|entry| match entry.split_once('/') {
        _ if entry == ALL => true,
        None => entry == resource && subresource.is_empty(),
        Some((of, sub)) => sub == subresource && (of == resource || of == ALL),
    })
}

fn covers_resource(list: &[String], wanted: &str) -> bool {
    let any_of_subresource = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    list.iter().any(|entry| entry == ALL || entry == wanted || any_of_subresource.as_ref() == Some(entry))
}

fn covers_url(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| match entry.strip_suffix('*') {
        // A pattern is covered by a wider one.
        Some(start) => wanted.starts_with(start),
        None => entry == wanted,
    })
}

/// As the reference prints a rule in its refusals: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.urls),
            ("Verbs", &self.verbs),
        ];
        let shown = fields.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
            let list: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
            format!("{name}:[{}]", list.join(" "))
        });
        write!(f, "{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::attributes::ResourceTarget;

    fn on(verb: &'static str, group: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let [group, resource, subresource, name] = [group, resource, subresource, name].map(str::to_owned);
        Attributes::resource(verb, ResourceTarget { group, resource, subresource, name, ..Default::default() })
    }

    #[test]
    fn rules_allow_what_they_say() {
        let rule = Rule::on(&["get", "list"], &["", "apps"], &["pods", "pods/log", "*/scale"]);
        assert!(rule.allows(&on("get", "", "pods", "a")) && rule.allows(&on("get", "", "pods/log", "a")));
        assert!(rule.allows(&on("get", "apps", "deployments/scale", "a")));
        for no in [
            on("delete", "", "pods", "a"),
            on("get", "batch", "pods", "a"),
            on("get", "", "pods/exec", "a"),
            on("get", "", "secrets", ""),
        ] {
            assert!(!rule.allows(&no), "{no:?}");
        }
        let all = Rule::on(&["*"], &["*"], &["*"]);
        assert!(all.allows(&on("use", "x", "y/z", "a")));
        let named = Rule { resource_names: vec!["a".into()], ..Rule::on(&["get", "list"], &[""], &["pods"]) };
        assert!(named.allows(&on("get", "", "pods", "a")) && !named.allows(&on("get", "", "pods", "b")));
        assert!(!named.allows(&on("list", "", "pods", "")));
        let path = |path: &str| Attributes { verb: "get".into(), target: Target::Path(path.into()) };
        let urls =
            Rule { verbs: vec!["get".into()], urls: vec!["/metrics".into(), "/a/*".into()], ..Default::default() };
        assert!(urls.allows(&path("/metrics")) && urls.allows(&path("/a/b")) && !urls.allows(&path("/metrics/x")));
        assert!(!all.allows(&path("/metrics")) && !urls.allows(&on("get", "", "pods", "")));
    }

    #[test]
    fn rules_cover_what_they_allow_and_no_more() {
        let held = [Rule::on(&["get", "list"], &[""], &["pods"]), Rule::on(&["get"], &["apps"], &["*"])];
        let covered = |rule: Rule| rule.beyond(&held).is_empty();
        assert!(covered(Rule::on(&["get"], &[""], &["pods"])));
        assert!(covered(Rule::on(&["get"], &["apps"], &["deployments", "deployments/scale"])));
        assert!(covered(Rule { resource_names: vec!["x".into()], ..Rule::on(&["list"], &[""], &["pods"]) }));
        assert!(covered(Rule::default()));
        for wider in [
            Rule::on(&["*"], &[""], &["pods"]),
            Rule::on(&["get"], &["*"], &["pods"]),
            Rule::on(&["get"], &[""], &["*"]),
            Rule::on(&["get", "delete"], &[""], &["pods"]),
            Rule::on(&["get"], &["", "batch"], &["pods"]),
            Rule { verbs: vec!["get".into()], urls: vec!["/metrics".into()], ..Default::default() },
        ] {
            assert!(!covered(wider.clone()), "{wider}");
        }
        let named = [Rule { resource_names: vec!["x".into()], ..Rule::on(&["get"], &[""], &["pods"]) }];
        assert!(!Rule::on(&["get"], &[""], &["pods"]).beyond(&named).is_empty());
        let urls = [Rule { verbs: vec!["get".into()], urls: vec!["/a/*".into()], ..Default::default() }];
        let url = |url: &str| Rule { verbs: vec!["get".into()], urls: vec![url.into()], ..Default::default() };
        let covered = |one: &str| url(one).beyond(&urls).is_empty();
        assert!(covered("/a/b") && covered("/a/b/*") && !covered("*"));
        // What is told is what is missing, each thing once.
        let wide = Rule::on(&["get", "delete", "list"], &[""], &["pods", "nodes"]);
        let again = Rule { urls: vec!["/x".into()], ..Rule::on(&["get"], &[""], &["nodes"]) };
        assert_eq!(
            summary(wide.beyond(&held).into_iter().chain(again.beyond(&held))),
            [
                r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#,
                r#"{APIGroups:[""], Resources:["nodes"], Verbs:["get" "delete" "list"]}"#,
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#,
            ]
        );
        let shown = Rule::on(&["get"], &[""], &["pods"]).to_string();
        assert_eq!(shown, r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#);
    }
}
