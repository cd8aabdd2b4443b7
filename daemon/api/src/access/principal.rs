//! Users, their groups, and the roles that come of them.

use crate::wire::error::ApiError;
use nix::unistd::{Gid, Group, Uid, User};
use reddwarf_registry::Author;
use serde::Serialize;
use std::collections::BTreeMap;
use tokio::net::unix::UCred;

/// The group whose members may do everything, as in the Kubernetes API.
pub(crate) const MASTERS: &str = "system:masters";
/// Everybody who is known.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// Everybody who is not.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user without credentials.
pub(crate) const ANONYMOUS: &str = "system:anonymous";
/// Members of the socket's group.
pub(crate) const OPERATORS: &str = "reddwarf:operators";

/// What a principal may do without any rule. An admin is as good as root: who may start privileged pods owns the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// What roles and role bindings (RBAC) say and nothing else.
    User,
    /// Members of the socket's group: everything with objects, logs and exec, but nothing that reaches the host itself.
    Operator,
    /// Root, the daemon's own user and `system:masters`.
    Admin,
}

/// The one that makes a request (`UserInfo` of the Kubernetes API).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// User name, `uid:1000` for one without a name.
    pub name: String,
    /// What tells two users of one name apart; empty where there is no such thing.
    pub uid: String,
    /// Groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// What else its authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Follows from the groups.
    pub role: Role,
    /// Its process, where the kernel says so; for the log.
    pub pid: Option<i32>,
}

impl Principal {
    /// A known user; its role follows from its groups.
    pub(crate) fn known(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().filter(|g| !g.is_empty()).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self::as_given(name, groups)
    }

    /// A user in just these groups.
    pub(crate) fn as_given(name: impl Into<String>, groups: Vec<String>) -> Self {
        let role = role_of(&groups);
        Self { name: name.into(), uid: String::new(), groups, extra: BTreeMap::new(), role, pid: None }
    }

    /// Who brings no credentials.
    pub(crate) fn anonymous() -> Self {
        Self::known(ANONYMOUS, [UNAUTHENTICATED.to_owned()])
    }

    /// As `UserInfo` of the Kubernetes API.
    pub(crate) fn info(&self) -> UserInfo<'_> {
        UserInfo { extra: &self.extra, groups: Some(&self.groups), uid: &self.uid, username: Some(&self.name) }
    }

    /// As the author of writes; see [`crate::access::admit`].
    pub(in crate::access) fn author(&self) -> Author {
        Author::Api { user: self.name.clone() }
    }

    /// Refuses operators what is an admin's.
    pub(crate) fn require_admin(&self, what: &str) -> Result<(), ApiError> {
        if self.role == Role::Admin {
            return Ok(());
        }
        let kind = if self.role == Role::Operator { "an operator" } else { "no admin" };
        Err(ApiError::forbidden(format!(
            "User \"{}\" is {kind} and may not {what}: it reaches the host itself; ask root",
            self.name
        )))
    }
}

/// `UserInfo` of the Kubernetes API (authentication.k8s.io/v1).
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct UserInfo<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<&'a [String]>,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
}

impl<'a> UserInfo<'a> {
    /// Of somebody of whom only the name is known.
    pub(crate) fn named(name: &'a str) -> Self {
        Self { username: Some(name), ..Self::default() }
    }
}

impl Default for UserInfo<'_> {
    /// Of nobody.
    fn default() -> Self {
        static NONE: BTreeMap<String, Vec<String>> = BTreeMap::new();
        Self { extra: &NONE, groups: None, uid: "", username: None }
    }
}

fn role_of(groups: &[String]) -> Role {
    let has = |group: &str| groups.iter().any(|g| g == group);
    match (has(MASTERS), has(OPERATORS)) {
        (true, _) => Role::Admin,
        (false, true) => Role::Operator,
        (false, false) => Role::User,
    }
}

/// A peer of the socket by the kernel's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: Option<i32>,
}

impl From<UCred> for Peer {
    fn from(cred: UCred) -> Self {
        Self { uid: cred.uid(), gid: cred.gid(), pid: cred.pid() }
    }
}

/// The principal behind a peer; `None` for strangers. Looks into the user and group database, which may block.
pub(crate) fn identify(peer: &Peer, group: Option<&str>) -> Option<Principal> {
    let user = User::from_uid(Uid::from_raw(peer.uid)).ok().flatten();
    let name = user.as_ref().map_or_else(|| format!("uid:{}", peer.uid), |u| u.name.clone());
    let group = group.and_then(|name| Group::from_name(name).ok().flatten());
    let role = role(peer, Uid::effective().as_raw(), &name, group.as_ref().map(|g| (g.gid, g.mem.as_slice())))?;
    let group = if role == Role::Admin { MASTERS } else { OPERATORS };
    Some(Principal { uid: peer.uid.to_string(), pid: peer.pid, ..Principal::known(name, [group.to_owned()]) })
}

/// Root and ourselves are admins, members of the group (by their process's group or by the group's list) operators.
fn role(peer: &Peer, own_uid: u32, name: &str, group: Option<(Gid, &[String])>) -> Option<Role> {
    if peer.uid == 0 || peer.uid == own_uid {
        return Some(Role::Admin);
    }
    let (gid, members) = group?;
    (gid.as_raw() == peer.gid || members.iter().any(|m| m == name)).then_some(Role::Operator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_daemon_are_admins_members_operators_others_nobody() {
        let peer = |uid, gid| Peer { uid, gid, pid: None };
        let members = ["alice".to_owned()];
        let group = Some((Gid::from_raw(500), members.as_slice()));
        assert_eq!(role(&peer(0, 0), 0, "root", group), Some(Role::Admin));
        assert_eq!(role(&peer(33, 33), 33, "www", group), Some(Role::Admin));
        assert_eq!(role(&peer(1000, 1000), 0, "alice", group), Some(Role::Operator));
        assert_eq!(role(&peer(1001, 500), 0, "bob", group), Some(Role::Operator));
        assert_eq!(role(&peer(1002, 1002), 0, "eve", group), None);
        assert_eq!(role(&peer(1000, 500), 0, "alice", None), None, "no group, no operators");
    }

    #[test]
    fn the_kernel_knows_us() {
        let own = Peer { uid: Uid::effective().as_raw(), gid: 0, pid: Some(1) };
        assert_eq!(identify(&own, None).map(|p| p.role), Some(Role::Admin));
    }

    #[test]
    fn roles_come_of_groups() {
        assert_eq!(Principal::known("a", [MASTERS.to_owned()]).role, Role::Admin);
        assert_eq!(Principal::known("a", [OPERATORS.to_owned()]).role, Role::Operator);
        assert_eq!(Principal::known("system:masters", ["devs".to_owned()]).role, Role::User);
        assert_eq!(Principal::anonymous().groups, [UNAUTHENTICATED]);
        assert_eq!(Principal::known("a", []).groups, [AUTHENTICATED]);
    }
}
