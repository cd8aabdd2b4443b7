//! What a request is about, as authorisation, audit and metrics see it: found in the request line alone, by the same
//! decoded path segments that the routes use.

use crate::wire::error::ApiError;
use crate::wire::request::Query;
use hyper::Method;
use std::borrow::Cow;

/// A verb on a resource or a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `get`, `list`, `create`, ...; of a path the method in lower case.
    pub(crate) verb: Cow<'static, str>,
    /// On what.
    pub(crate) target: Target,
}

/// On what a verb is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An object or a collection of objects.
    Resource(ResourceTarget),
    /// Anything else: `/version`, `/apis`, `/reddwarf/v1/status`.
    Path(String),
}

/// An object or a collection. An empty namespace is all of them or none, an empty name all objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourceTarget {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ResourceTarget {
    /// `pods/log`, or without a subresource `pods`.
    pub(crate) fn full_resource(&self) -> Cow<'_, str> {
        match self.subresource.as_str() {
            "" => Cow::Borrowed(&self.resource),
            sub => Cow::Owned(format!("{}/{sub}", self.resource)),
        }
    }
}

/// Subresources that open a way into a container: a right of their own, whatever the method.
const WAYS_IN: [&str; 3] = ["exec", "attach", "portforward"];

impl Attributes {
    /// Reads a request line.
    ///
    /// # Errors
    /// 400 for names that would be other paths.
    pub(crate) fn of(method: &Method, segments: &[String], query: &Query) -> Result<Self, ApiError> {
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => {
                let verb = match method.as_str() {
                    "GET" => Cow::Borrowed("get"),
                    "POST" => Cow::Borrowed("post"),
                    other => Cow::Owned(other.to_ascii_lowercase()),
                };
                return Ok(Self { verb, target: Target::Path(format!("/{}", parts.join("/"))) });
            }
        };
        let mut target = resource(group, version, rest)?;
        let way_in = WAYS_IN.contains(&target.subresource.as_str());
        let named = !target.name.is_empty();
        let verb = match (method.as_str(), named) {
            ("GET" | "HEAD" | "POST", _) if way_in => "create",
            ("GET" | "HEAD", true) => "get",
            ("GET" | "HEAD", false) if query.flag("watch") => "watch",
            ("GET" | "HEAD", false) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "delete",
            ("DELETE", false) => "deletecollection",
            _ => "other",
        };
        if !named && let Some(name) = query.get("fieldSelector").and_then(only_name) {
            name.clone_into(&mut target.name);
        }
        Ok(Self { verb: Cow::Borrowed(verb), target: Target::Resource(target) })
    }

    /// Does it change nothing? Ways into a container change what they like.
    pub(crate) fn reads(&self) -> bool {
        matches!(self.verb.as_ref(), "get" | "list" | "watch" | "head" | "options")
    }

    /// The verb on an object, for a check of its own.
    pub(crate) fn resource(verb: impl Into<Cow<'static, str>>, target: ResourceTarget) -> Self {
        Self { verb: verb.into(), target: Target::Resource(target) }
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Result<ResourceTarget, ApiError> {
    let of_namespace = |tail: &[&str]| tail.first().is_none_or(|t| matches!(*t, "status" | "finalize"));
    let (namespace, rest) = match rest {
        // A namespace lies in itself: its roles may speak of it.
        ["namespaces", name, tail @ ..] if group.is_empty() && of_namespace(tail) => (*name, rest),
        ["namespaces", name, tail @ ..] if !tail.is_empty() => (*name, tail),
        _ => ("", rest),
    };
    let part = |index: usize| rest.get(index).copied().unwrap_or_default();
    for name in [namespace, part(0), part(1), part(2)] {
        if matches!(name, "." | "..") || name.contains(['/', '%', '\0']) {
            return Err(ApiError::bad_request(format!(
                "invalid name {name:?} in the URL: it may not be '.' or '..' nor contain '/' or '%'"
            )));
        }
    }
    Ok(ResourceTarget {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: part(0).to_owned(),
        subresource: part(2).to_owned(),
        namespace: namespace.to_owned(),
        name: part(1).to_owned(),
    })
}

/// The one name that a field selector leaves.
fn only_name(selector: &str) -> Option<&str> {
    selector.split(',').find_map(|term| {
        let (field, value) = term.split_once('=')?;
        (field.trim() == "metadata.name").then(|| value.trim_start_matches('=').trim()).filter(|v| !v.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::request::segments;

    fn of(method: &str, url: &str) -> Attributes {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let query = Query::parse(Some(query)).unwrap();
        Attributes::of(&method.parse().unwrap(), &segments(path).unwrap(), &query).unwrap()
    }

    #[test]
    fn request_lines_have_verbs_and_targets() {
        for (method, url, verb, namespace, resource, name) in [
            ("GET", "/api/v1/pods", "list", "", "pods", ""),
            ("GET", "/api/v1/namespaces/a/pods?watch=true", "watch", "a", "pods", ""),
            ("GET", "/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Db", "watch", "a", "pods", "b"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get", "a", "pods/log", "b"),
            ("GET", "/api/v1/namespaces/a/pods/b/exec?command=sh", "create", "a", "pods/exec", "b"),
            ("GET", "/api/v1/namespaces/a", "get", "a", "namespaces", "a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update", "a", "namespaces/finalize", "a"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "create", "a", "deployments", ""),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b/scale", "patch", "a", "deployments/scale", "b"),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection", "a", "pods", ""),
            ("DELETE", "/api/v1/nodes/x", "delete", "", "nodes", "x"),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "create",
                "",
                "selfsubjectaccessreviews",
                "",
            ),
        ] {
            let found = of(method, url);
            let Target::Resource(target) = &found.target else { panic!("{url}") };
            let got = (found.verb.as_ref(), target.namespace.as_str(), &*target.full_resource(), target.name.as_str());
            assert_eq!(got, (verb, namespace, resource, name), "{method} {url}");
        }
        for (method, url, verb, path) in [
            ("GET", "/api", "get", "/api"),
            ("GET", "/api/v1", "get", "/api/v1"),
            ("GET", "/apis/apps/v1/", "get", "/apis/apps/v1"),
            ("POST", "//reddwarf/v1/apply", "post", "/reddwarf/v1/apply"),
            ("GET", "/", "get", "/"),
        ] {
            let found = of(method, url);
            assert_eq!((found.verb.as_ref(), &found.target), (verb, &Target::Path(path.to_owned())), "{method} {url}");
        }
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        for path in [
            "/api/v1/namespaces/a/pods/..%2fx",
            "/api/v1/namespaces/%2e%2e/pods",
            "/api/v1/nodes/a%2Fb",
            "/api/v1/nodes/%2525",
        ] {
            let segments = segments(path).unwrap();
            let refused = Attributes::of(&Method::GET, &segments, &Query::default()).unwrap_err();
            assert_eq!(refused.code, 400, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_request_line_panics(method in "[A-Z]{1,8}", path in ".{0,60}", query in ".{0,60}") {
            let (Ok(segments), Ok(query)) = (segments(&path), Query::parse(Some(&query))) else { return Ok(()) };
            drop(Attributes::of(&method.parse().unwrap(), &segments, &query));
        }
    }
}
