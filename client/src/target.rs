//! Which objects the command line names: `pods`, `pods web db`, `pods,svc`, `pod/web cm/site`, `all`.

use crate::error::Error;
use reddwarf_objects::{Kind, kinds};

/// All objects of a kind, or one.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    /// `None` for all of the kind.
    pub(crate) name: Option<String>,
}

impl Target {
    /// `pod/web`, `deployment.apps/web`.
    pub(crate) fn short(kind: &Kind, name: &str) -> String {
        if kind.group.is_empty() {
            format!("{}/{name}", kind.singular)
        } else {
            format!("{}.{}/{name}", kind.singular, kind.group)
        }
    }
}

/// Reads the arguments of `get`, `describe`, `delete` and `wait`.
pub(crate) fn targets(arguments: &[String]) -> Result<Vec<Target>, Error> {
    let Some((first, names)) = arguments.split_first() else {
        return Err(Error::usage(
            "no resource is named",
            "name one: `reddwarfctl get pods`, `reddwarfctl get pod/web`",
        ));
    };
    if arguments.iter().any(|a| a.contains('/')) {
        return arguments.iter().map(|a| slashed(a)).collect();
    }
    let mut found = Vec::new();
    for alias in first.split(',').filter(|a| !a.is_empty()) {
        for kind in kinds_of(alias)? {
            // `pods,all` names pods twice.
            let again = found.iter().any(|t: &Target| std::ptr::eq(t.kind, kind) && t.name.is_none());
            if names.is_empty() && !again {
                found.push(Target { kind, name: None });
            }
            let names = names.iter().flat_map(|n| n.split(',')).filter(|n| !n.is_empty());
            found.extend(names.map(|name| Target { kind, name: Some(name.to_owned()) }));
        }
    }
    if found.is_empty() {
        return Err(Error::usage(format!("{first:?} names no resource"), "write `pods`, `pod web` or `pod/web`"));
    }
    Ok(found)
}

/// `pod/web`, or a bare name, which is a pod's: for `logs`, `exec`, `restart`, `why`.
pub(crate) fn one(argument: &str) -> Result<(&'static Kind, String), Error> {
    if argument.contains('/') {
        let target = slashed(argument)?;
        return Ok((target.kind, target.name.unwrap_or_default()));
    }
    Ok((kind("pods")?, argument.to_owned()))
}

/// The pod that an argument names.
pub(crate) fn pod(argument: &str) -> Result<String, Error> {
    let (kind, name) = one(argument)?;
    if kind.is_core("Pod") {
        return Ok(name);
    }
    Err(Error::usage(format!("{argument} is no pod"), format!("name a pod: `{name}` or `pod/{name}`")))
}

/// The kind that a person typed.
pub(crate) fn kind(alias: &str) -> Result<&'static Kind, Error> {
    kinds().by_alias(alias).ok_or_else(|| {
        let help = match kinds().suggest(alias) {
            Some(near) => format!("did you mean {near}?"),
            None => {
                "kinds are named as in Kubernetes: pods (po), configmaps (cm), services (svc), nodes (no), …".into()
            }
        };
        Error::usage(format!("the server has no resource type {alias:?}"), help)
    })
}

fn kinds_of(alias: &str) -> Result<Vec<&'static Kind>, Error> {
    let category = kinds().by_category(alias);
    if category.is_empty() { Ok(vec![kind(alias)?]) } else { Ok(category) }
}

fn slashed(argument: &str) -> Result<Target, Error> {
    match argument.split_once('/') {
        Some((alias, name)) if !alias.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Target { kind: kind(alias)?, name: Some(name.to_owned()) })
        }
        _ => Err(Error::usage(
            format!("{argument:?} is not of the form KIND/NAME"),
            "either all arguments have it (`pod/web cm/site`) or none (`pods web db`)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        match targets(&arguments) {
            Ok(found) => {
                found.iter().map(|t| format!("{} {}", t.kind.plural, t.name.as_deref().unwrap_or("*"))).collect()
            }
            Err(e) => vec![format!("{e}: {}", e.help())],
        }
    }

    #[test]
    fn every_way_to_name_objects() {
        assert_eq!(shown(&["po"]), ["pods *"]);
        assert_eq!(shown(&["Pod", "web", "db"]), ["pods web", "pods db"]);
        assert_eq!(shown(&["pods", "web,db"]), ["pods web", "pods db"]);
        assert_eq!(shown(&["po,po"]), ["pods *"]);
        assert_eq!(shown(&["po,svc"]), ["pods *", "services *"]);
        assert_eq!(shown(&["po,svc", "web"]), ["pods web", "services web"]);
        assert_eq!(shown(&["pod/web", "cm/site"]), ["pods web", "configmaps site"]);
        assert_eq!(shown(&["deploy.apps/web"]), ["deployments web"]);
        assert!(shown(&["all"]).contains(&"deployments *".to_owned()));
        assert_eq!(shown(&["podz"]), ["the server has no resource type \"podz\": did you mean pods?"]);
        assert!(shown(&["pod/web", "db"])[0].contains("KIND/NAME"));
    }

    #[test]
    fn a_bare_name_is_a_pods() {
        assert_eq!(pod("web").unwrap(), "web");
        assert_eq!(pod("po/web").unwrap(), "web");
        assert!(pod("cm/web").is_err());
    }
}
