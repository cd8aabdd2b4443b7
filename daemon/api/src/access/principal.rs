//! Who asks: the kernel's word for peers of the socket, a token for TCP.

use crate::wire::error::ApiError;
use nix::unistd::{Gid, Group, Uid, User};
use reddwarf_registry::Author;
use tokio::net::unix::UCred;

/// What a principal may do. An admin is as good as root: who may start privileged pods owns the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Members of the socket's group: everything with objects, logs and exec, but nothing that reaches the host itself.
    Operator,
    /// Root and the daemon's own user.
    Admin,
}

/// The one that makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// User name, `uid:1000` for one without a name, `token` over TCP.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its process, where the kernel says so; for the log.
    pub pid: Option<i32>,
}

impl Principal {
    /// As the author of writes.
    pub(crate) fn author(&self) -> Author {
        Author::Api { user: self.name.clone() }
    }

    /// Refuses operators what is an admin's.
    pub(crate) fn require_admin(&self, what: &str) -> Result<(), ApiError> {
        if self.role == Role::Admin {
            return Ok(());
        }
        Err(ApiError::forbidden(format!(
            "User \"{}\" is an operator and may not {what}: it reaches the host itself; ask root",
            self.name
        )))
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
    Some(Principal { name, role, pid: peer.pid })
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
}
