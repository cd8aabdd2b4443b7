//! May they? One decision over who asks and what for; everything is refused that nothing allows.

use crate::access::attributes::{Attributes, ResourceTarget, Target};
use crate::access::authenticate::Authenticated;
use crate::access::principal::{AUTHENTICATED, Principal, Role};
use crate::wire::error::ApiError;
use serde_json::json;
use std::sync::Arc;

/// What an authoriser says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Yes, and by what.
    Allow(String),
    /// It knows nothing that would allow it; the next one is asked.
    NoOpinion(String),
}

/// Decides over requests.
pub(crate) trait Authoriser: Send + Sync + 'static {
    /// May this principal do this?
    fn decide(&self, who: &Principal, what: &Attributes) -> Decision;
}

impl<A: Authoriser> Authoriser for Arc<A> {
    fn decide(&self, who: &Principal, what: &Attributes) -> Decision {
        (**self).decide(who, what)
    }
}

/// The roles of the socket's peers and of `system:masters`, and what everybody may do.
#[derive(Debug)]
pub(crate) struct Roles;

/// Paths that tell nothing which a stranger may not know (`system:public-info-viewer` of the reference).
const PUBLIC: [&str; 7] = ["/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*", "/version"];
/// What every known user's client looks at first (`system:discovery`).
const DISCOVERY: [&str; 10] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/openapi",
    "/openapi/*",
    "/version/",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
    "/openid/v1/jwks/",
];
/// What every known user may ask about itself (`system:basic-user`).
const OF_ONESELF: [(&str, &str); 3] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// May this principal do so because everybody may?
fn everybody(who: &Principal, what: &Attributes) -> Option<&'static str> {
    let known = who.groups.iter().any(|g| g == AUTHENTICATED);
    match &what.target {
        Target::Path(_) if what.verb != "get" => None,
        Target::Path(path) if path_in(&PUBLIC, path) => Some("system:public-info-viewer"),
        Target::Path(path) if known && path_in(&DISCOVERY, path) => Some("system:discovery"),
        Target::Resource(target) if known && what.verb == "create" && target.subresource.is_empty() => {
            let own = OF_ONESELF.contains(&(target.group.as_str(), target.resource.as_str()));
            own.then_some("system:basic-user")
        }
        _ => None,
    }
}

/// Is a path one of these? A star at the end stands for anything.
pub(crate) fn path_in<S: AsRef<str>>(patterns: &[S], path: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.as_ref().strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path == pattern.as_ref(),
    })
}

/// Verbs that make somebody else of an operator, or more.
const NOT_OPERATORS: [&str; 4] = ["impersonate", "escalate", "bind", "use"];

impl Authoriser for Roles {
    fn decide(&self, who: &Principal, what: &Attributes) -> Decision {
        if let Some(role) = everybody(who, what) {
            return Decision::Allow(format!("everybody has the role {role}"));
        }
        match who.role {
            Role::Admin => Decision::Allow(String::new()),
            Role::Operator if !NOT_OPERATORS.contains(&what.verb.as_ref()) => {
                Decision::Allow("reddwarf: member of the control socket's group".to_owned())
            }
            Role::Operator | Role::User => Decision::NoOpinion(String::new()),
        }
    }
}

/// Asks one after the other.
#[derive(Clone)]
pub(crate) struct Chain(Arc<[Box<dyn Authoriser>]>);

impl Chain {
    pub(crate) fn new(of: Vec<Box<dyn Authoriser>>) -> Self {
        Self(of.into())
    }
}

impl Authoriser for Chain {
    fn decide(&self, who: &Principal, what: &Attributes) -> Decision {
        let mut reasons = Vec::new();
        for one in self.0.iter() {
            match one.decide(who, what) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                allowed => return allowed,
            }
        }
        Decision::NoOpinion(reasons.join(", "))
    }
}

/// A request whose sender may make it. Made by [`authorise`] only.
#[derive(Clone, Debug)]
pub(crate) struct Authorised {
    who: Authenticated,
    what: Arc<Attributes>,
    reason: String,
}

impl Authorised {
    pub(crate) fn principal(&self) -> &Arc<Principal> {
        self.who.principal()
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        &self.what
    }

    /// What allowed it, for the audit log.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }
}

/// The second step of every request.
///
/// # Errors
/// 403 with the reference's text.
pub(crate) fn authorise(
    by: &dyn Authoriser,
    who: Authenticated,
    what: Arc<Attributes>,
) -> Result<Authorised, ApiError> {
    match by.decide(who.principal(), &what) {
        Decision::Allow(reason) => Ok(Authorised { who, what, reason }),
        Decision::NoOpinion(reason) => Err(forbidden(who.principal(), &what, &reason)),
    }
}

/// 403 as kube-apiserver words it.
pub(crate) fn forbidden(who: &Principal, what: &Attributes, reason: &str) -> ApiError {
    let user = &who.name;
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    match &what.target {
        Target::Path(path) => {
            let text = format!("forbidden: User \"{user}\" cannot {} path \"{path}\"{reason}", what.verb);
            ApiError::forbidden(text).with_details(json!({}))
        }
        Target::Resource(target) => {
            let text = format!(
                "{}: User \"{user}\" cannot {} resource \"{}\" in API group \"{}\" {}{reason}",
                subject(target),
                what.verb,
                target.full_resource(),
                target.group,
                match target.namespace.as_str() {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace \"{namespace}\""),
                }
            );
            ApiError::forbidden(text).with_details(details(target))
        }
    }
}

/// `pods "web" is forbidden`, `deployments.apps is forbidden`.
fn subject(target: &ResourceTarget) -> String {
    let mut text = target.resource.clone();
    if !target.group.is_empty() {
        text = format!("{text}.{}", target.group);
    }
    if !target.name.is_empty() {
        text = format!("{text} \"{}\"", target.name);
    }
    format!("{text} is forbidden")
}

fn details(target: &ResourceTarget) -> serde_json::Value {
    let mut details = serde_json::Map::new();
    for (field, value) in [("name", &target.name), ("group", &target.group), ("kind", &target.resource)] {
        if !value.is_empty() {
            details.insert(field.to_owned(), json!(value));
        }
    }
    details.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::principal::{MASTERS, OPERATORS};

    fn target(resource: &str, namespace: &str, name: &str) -> ResourceTarget {
        ResourceTarget {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn refusals_are_worded_as_the_reference_words_them() {
        let alice = Principal::known("alice", []);
        let text = |verb: &'static str, target: ResourceTarget| {
            let error = forbidden(&alice, &Attributes::resource(verb, target), "");
            (error.message, error.details.unwrap_or_default().to_string())
        };
        // Recorded (api-answers-1.36.txt).
        assert_eq!(
            text("list", target("pods", "probe", "")),
            (
                "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"probe\"".into(),
                r#"{"kind":"pods"}"#.into()
            )
        );
        let deployment =
            ResourceTarget { group: "apps".into(), subresource: "scale".into(), ..target("deployments", "a", "web") };
        assert_eq!(
            text("patch", deployment),
            (
                "deployments.apps \"web\" is forbidden: User \"alice\" cannot patch resource \"deployments/scale\" in API group \"apps\" in the namespace \"a\"".into(),
                r#"{"group":"apps","kind":"deployments","name":"web"}"#.into()
            )
        );
        assert!(text("list", target("nodes", "", "")).0.ends_with("at the cluster scope"));
        let path = Attributes { verb: "get".into(), target: Target::Path("/metrics".into()) };
        let error = forbidden(&Principal::anonymous(), &path, "");
        assert_eq!(error.message, "forbidden: User \"system:anonymous\" cannot get path \"/metrics\"");
        assert_eq!(error.details, Some(json!({})));
    }

    #[test]
    fn roles_allow_what_they_always_allowed() {
        let pods = Attributes::resource("create", target("pods", "a", "b"));
        let become_root = Attributes::resource("impersonate", target("users", "", "root"));
        let decide =
            |groups: &[&str], what| Roles.decide(&Principal::known("x", groups.iter().map(|g| (*g).to_owned())), what);
        let allowed = |decision| matches!(decision, Decision::Allow(_));
        assert!(allowed(decide(&[MASTERS], &pods)) && allowed(decide(&[MASTERS], &become_root)));
        assert!(allowed(decide(&[OPERATORS], &pods)) && !allowed(decide(&[OPERATORS], &become_root)));
        assert!(!allowed(decide(&["devs"], &pods)));
    }
}
