//! Acting as somebody else: `Impersonate-User`, `-Group`, `-Uid` and `-Extra-*` headers (kubectl's `--as`).

use crate::access::attributes::{Attributes, ResourceTarget};
use crate::access::authorise::{Authoriser, Decision, forbidden};
use crate::access::principal::{ANONYMOUS, Principal, UNAUTHENTICATED};
use crate::wire::error::ApiError;
use crate::wire::request::decode;
use hyper::header::HeaderMap;
use std::collections::BTreeMap;

const EXTRA: &str = "impersonate-extra-";
/// More headers of this kind are a mistake.
const MOST: usize = 256;

/// Whom the headers ask to be; `None` when there are none.
///
/// # Errors
/// 403 when this principal may not be that user or in those groups, 400 for headers without a user.
pub(crate) fn wanted(by: &dyn Authoriser, who: &Principal, headers: &HeaderMap) -> Result<Option<Principal>, ApiError> {
    let all = |name: &str| -> Result<Vec<String>, ApiError> { headers.get_all(name).iter().map(text).collect() };
    let (users, groups, uids) = (all("impersonate-user")?, all("impersonate-group")?, all("impersonate-uid")?);
    let extra = extra(headers)?;
    if users.iter().all(String::is_empty) && groups.is_empty() && uids.is_empty() && extra.is_empty() {
        return Ok(None);
    }
    let ([user], true) = (users.as_slice(), uids.len() <= 1 && groups.len() + extra.len() <= MOST) else {
        return Err(ApiError::bad_request(
            "requested groups, uid or extra without impersonating a user, or several users",
        ));
    };
    let mut checks = vec![of_user(user)];
    checks.extend(groups.iter().map(|group| target("", "groups", "", "", group)));
    checks.extend(uids.iter().map(|uid| target("authentication.k8s.io", "uids", "", "", uid)));
    for (key, values) in &extra {
        checks.extend(values.iter().map(|value| target("authentication.k8s.io", "userextras", key, "", value)));
    }
    for check in checks {
        let what = Attributes::resource("impersonate", check);
        if let Decision::NoOpinion(reason) = by.decide(who, &what) {
            return Err(forbidden(who, &what, &reason));
        }
    }
    let mut groups = groups;
    if groups.is_empty()
        && let Some((namespace, _)) = service_account(user)
    {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    if user == ANONYMOUS && groups.is_empty() {
        groups.push(UNAUTHENTICATED.to_owned());
    }
    let mut principal = Principal::known(user.clone(), groups);
    principal.uid = uids.into_iter().next().unwrap_or_default();
    principal.extra = extra;
    principal.pid = who.pid;
    Ok(Some(principal))
}

fn text(value: &hyper::header::HeaderValue) -> Result<String, ApiError> {
    let text = value.to_str().map_err(|_| ApiError::bad_request("an Impersonate header is no text"))?;
    Ok(text.to_owned())
}

/// Keys of extra values are escaped in the headers' names.
fn extra(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            extra.entry(decode(key, false)?.to_ascii_lowercase()).or_default().push(text(value)?);
        }
    }
    Ok(extra)
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

fn of_user(user: &str) -> ResourceTarget {
    match service_account(user) {
        Some((namespace, name)) => target("", "serviceaccounts", "", namespace, name),
        None => target("", "users", "", "", user),
    }
}

fn target(group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> ResourceTarget {
    let [group, resource, subresource, namespace, name] =
        [group, resource, subresource, namespace, name].map(str::to_owned);
    ResourceTarget { group, version: "v1".to_owned(), resource, subresource, namespace, name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::authorise::Roles;
    use crate::access::principal::{MASTERS, OPERATORS, Role};

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn ask(group: &str, list: &[(&'static str, &str)]) -> Result<Option<Principal>, ApiError> {
        wanted(&Roles, &Principal::known("x", [group.to_owned()]), &headers(list))
    }

    #[test]
    fn admins_may_be_anybody_and_others_nobody() {
        assert_eq!(ask(MASTERS, &[]).unwrap(), None);
        let alice = [("impersonate-user", "alice"), ("impersonate-group", "devs"), ("impersonate-extra-a%2fb", "c")];
        let who = ask(MASTERS, &alice).unwrap().unwrap();
        assert_eq!((who.name.as_str(), who.role), ("alice", Role::User));
        assert_eq!(who.groups, ["devs", "system:authenticated"]);
        assert_eq!(who.extra["a/b"], ["c"]);
        let bot = ask(MASTERS, &[("impersonate-user", "system:serviceaccount:a:bot")]).unwrap().unwrap();
        assert_eq!(bot.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        let nobody = ask(MASTERS, &[("impersonate-user", ANONYMOUS)]).unwrap().unwrap();
        assert_eq!(nobody.groups, [UNAUTHENTICATED]);
        for group in [OPERATORS, "devs"] {
            let refused = ask(group, &alice).unwrap_err();
            assert_eq!(refused.code, 403);
            assert_eq!(
                refused.message,
                "users \"alice\" is forbidden: User \"x\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
            );
        }
        let twice = [("impersonate-user", "a"), ("impersonate-user", "b")];
        for bad in [&[("impersonate-group", "devs")][..], &[("impersonate-uid", "1")], &twice] {
            assert_eq!(ask(MASTERS, bad).unwrap_err().code, 400);
        }
    }
}
