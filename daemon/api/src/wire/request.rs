//! From a request line to what is asked: path segments, query, Kubernetes route.

use crate::wire::error::ApiError;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use reddwarf_objects::{Kind, kinds};

/// The path, split at slashes and decoded. A segment that decodes to something with a slash stays one segment.
pub(crate) fn segments(path: &str) -> Result<Vec<String>, ApiError> {
    path.split('/').filter(|s| !s.is_empty()).map(|s| decode(s, false)).collect()
}

/// The query's pairs, decoded, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key, true)?, decode(value, true)?))
        });
        Ok(Self(pairs.collect::<Result<_, ApiError>>()?))
    }

    /// The first value; an empty one counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a key.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// `1`, `true` (and a bare key) are true, as for Kubernetes.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0.iter().find(|(k, _)| k == key).is_some_and(|(_, v)| !matches!(v.as_str(), "0" | "false" | "False"))
    }

    /// Is the key there, whatever its value?
    pub(crate) fn given(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// A number.
    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        self.get(key).map(str::parse).transpose().map_err(|_| {
            let value = self.get(key).unwrap_or_default();
            ApiError::bad_request(format!("{key}: Invalid value: \"{value}\": must be a number"))
        })
    }
}

/// `/api/v1/watch/...` and `/apis/G/V/watch/...` as clients from before 1.11 ask: the same as without `watch`, with
/// `?watch=true`, an object being watched as its collection with a selector. `None` for other paths.
pub(crate) fn legacy_watch(segments: &[String], query: &Query) -> Option<(Vec<String>, Query)> {
    let at = match segments.first().map(String::as_str)? {
        "api" => 2,
        "apis" => 3,
        _ => return None,
    };
    if segments.get(at)? != "watch" || segments.len() == at + 1 {
        return None;
    }
    let mut path = segments.to_vec();
    path.remove(at);
    let mut query = query.clone();
    query.0.retain(|(key, _)| key != "watch");
    query.0.push(("watch".to_owned(), "true".to_owned()));
    let rest = path.len() - at;
    let in_namespace = path.get(at).is_some_and(|first| first == "namespaces") && rest > 2;
    if rest == if in_namespace { 4 } else { 2 } {
        let name = path.pop()?;
        let given = query.get("fieldSelector").map(|given| format!("{given},")).unwrap_or_default();
        query.0.retain(|(key, _)| key != "fieldSelector");
        query.0.push(("fieldSelector".to_owned(), format!("{given}metadata.name={name}")));
    }
    Some((path, query))
}

/// Percent-decodes; in queries a plus is a space.
pub(crate) fn decode(text: &str, plus: bool) -> Result<String, ApiError> {
    let bad = || ApiError::bad_request(format!("the URL has a bad escape in {text:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
                let value = digit(rest.next())? * 16 + digit(rest.next())?;
                u8::try_from(value).map_err(|_| bad())?
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

/// A request about Kubernetes objects.
#[derive(Clone, Debug)]
pub(crate) struct ResourceRequest {
    pub(crate) kind: &'static Kind,
    /// Absent for cluster-wide kinds and for lists over all namespaces.
    pub(crate) namespace: Option<String>,
    /// Absent for collections.
    pub(crate) name: Option<String>,
    /// `status`, `log`, ...
    pub(crate) subresource: Option<String>,
}

impl ResourceRequest {
    /// Finds the resource in a path below `/api/v1` or `/apis/{group}/{version}`.
    ///
    /// # Errors
    /// 404 for resources and subresources that there are not.
    pub(crate) fn parse(group: &str, version: &str, rest: &[String]) -> Result<Self, ApiError> {
        let kind_of = |plural: &str| kinds().by_resource(group, version, plural).ok_or_else(ApiError::unknown_resource);
        let parts: Vec<&str> = rest.iter().map(String::as_str).collect();
        let namespace_itself = |tail: &[&str]| tail.first().is_none_or(|t| matches!(*t, "status" | "finalize"));
        let request = match parts.as_slice() {
            ["namespaces", name, tail @ ..] if group.is_empty() && namespace_itself(tail) => {
                let subresource = tail.first().map(|s| (*s).to_owned());
                Self { kind: kind_of("namespaces")?, namespace: None, name: Some((*name).to_owned()), subresource }
            }
            ["namespaces", namespace, plural, tail @ ..] => {
                let kind = kind_of(plural)?;
                // What comes after proxy is the pod's own path.
                let proxied = tail.get(1) == Some(&"proxy");
                if !kind.namespaced || (tail.len() > 2 && !proxied) {
                    return Err(ApiError::unknown_resource());
                }
                let part = |index: usize| tail.get(index).map(|s| (*s).to_owned());
                Self { kind, namespace: Some((*namespace).to_owned()), name: part(0), subresource: part(1) }
            }
            [plural] => Self { kind: kind_of(plural)?, namespace: None, name: None, subresource: None },
            // What comes after proxy is the node's own path.
            [plural, name, tail @ ..] if tail.len() <= 1 || tail.first() == Some(&"proxy") => {
                let kind = kind_of(plural)?;
                if kind.namespaced {
                    return Err(ApiError::unknown_resource());
                }
                let subresource = tail.first().map(|s| (*s).to_owned());
                Self { kind, namespace: None, name: Some((*name).to_owned()), subresource }
            }
            _ => return Err(ApiError::unknown_resource()),
        };
        match &request.subresource {
            // Ours, and so in no discovery: the end of a pod that its node declares.
            Some(sub) if sub == "finalize" && request.kind.is_core("Pod") => Ok(request),
            Some(sub) if !request.kind.has_subresource(sub) => Err(ApiError::unknown_resource()),
            _ => Ok(request),
        }
    }

    /// The Kubernetes verb of a request, for logs, metrics and authorisation.
    pub(crate) fn verb(&self, method: &Method, watch: bool) -> &'static str {
        match (method.as_str(), self.name.is_some()) {
            ("GET", false) if watch => "watch",
            ("GET", false) => "list",
            ("GET", true) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "delete",
            ("DELETE", false) => "deletecollection",
            _ => "other",
        }
    }
}

/// Formats of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// The type of a body without its parameters; JSON when none is given.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The format of an object in a body.
///
/// # Errors
/// 415.
pub(crate) fn body_format(headers: &HeaderMap) -> Result<Format, ApiError> {
    match content_type(headers).as_str() {
        "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        reddwarf_objects::protobuf::MEDIA_TYPE => Ok(Format::Protobuf),
        _ => Err(ApiError::new(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = (String, Option<String>, Option<String>, Option<String>);

    fn parse(path: &str) -> Result<Parts, u16> {
        let parts = segments(path).map_err(|e| e.code)?;
        let (group, version, rest) = match parts[0].as_str() {
            "api" => ("", parts[1].as_str(), &parts[2..]),
            _ => (parts[1].as_str(), parts[2].as_str(), &parts[3..]),
        };
        let r = ResourceRequest::parse(group, version, rest).map_err(|e| e.code)?;
        Ok((r.kind.plural.to_owned(), r.namespace, r.name, r.subresource))
    }

    #[test]
    fn paths_name_resources() {
        let some = |s: &str| Some(s.to_owned());
        for (path, plural, namespace, name, sub) in [
            ("/api/v1/pods", "pods", None, None, None),
            ("/api/v1/namespaces/a/pods", "pods", some("a"), None, None),
            ("/api/v1/namespaces/a/pods/b/log", "pods", some("a"), some("b"), some("log")),
            ("/api/v1/namespaces", "namespaces", None, None, None),
            ("/api/v1/namespaces/a", "namespaces", None, some("a"), None),
            ("/api/v1/namespaces/a/status", "namespaces", None, some("a"), some("status")),
            ("/api/v1/nodes/box/status", "nodes", None, some("box"), some("status")),
            ("/apis/apps/v1/namespaces/a/deployments/b", "deployments", some("a"), some("b"), None),
        ] {
            assert_eq!(parse(path), Ok((plural.to_owned(), namespace, name, sub)), "{path}");
        }
        for path in [
            "/api/v1/foos",
            "/api/v1/namespaces/a/foos",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/pods/b",
            "/api/v1/namespaces/a/pods/b/nope",
            "/api/v1/namespaces/a/pods/b/log/c",
            "/apis/apps/v2/deployments",
        ] {
            assert_eq!(parse(path), Err(404), "{path}");
        }
        assert_eq!(parse("/api/v1/namespaces/%zz/pods"), Err(400));
    }

    #[test]
    fn queries_as_clients_write_them() {
        let query =
            Query::parse(Some("&limit=500&labelSelector=a%3Db%2Cc+in+(d)&watch&empty=&command=a&command=b%20c"))
                .unwrap();
        assert_eq!(query.number::<u64>("limit").unwrap(), Some(500));
        assert_eq!(query.get("labelSelector"), Some("a=b,c in (d)"));
        assert!(query.flag("watch") && !query.flag("follow"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a", "b c"]);
        assert!(Query::parse(Some("watch=0")).is_ok_and(|q| !q.flag("watch")));
        assert!(Query::parse(Some("a=%f")).is_err());
        assert!(Query::parse(Some("limit=x")).unwrap().number::<u64>("limit").is_err());
    }

    #[test]
    fn watches_of_old_are_watches() {
        for (old, new, selector) in [
            ("/api/v1/watch/pods", "/api/v1/pods", None),
            ("/api/v1/watch/namespaces", "/api/v1/namespaces", None),
            ("/api/v1/watch/namespaces/a", "/api/v1/namespaces", Some("metadata.name=a")),
            ("/api/v1/watch/namespaces/a/pods", "/api/v1/namespaces/a/pods", None),
            ("/api/v1/watch/namespaces/a/pods/b", "/api/v1/namespaces/a/pods", Some("metadata.name=b")),
            ("/apis/apps/v1/watch/deployments", "/apis/apps/v1/deployments", None),
        ] {
            let (path, query) = legacy_watch(&segments(old).unwrap(), &Query::default()).unwrap();
            assert_eq!((path, query.flag("watch")), (segments(new).unwrap(), true), "{old}");
            assert_eq!(query.get("fieldSelector"), selector, "{old}");
        }
        for other in ["/api/v1/pods", "/api/v1/watch", "/apis", "/api", "/version"] {
            assert_eq!(legacy_watch(&segments(other).unwrap(), &Query::default()), None, "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_url_panics(path in ".{0,60}", query in ".{0,60}") {
            drop(segments(&path));
            drop(Query::parse(Some(&query)));
        }
    }
}
