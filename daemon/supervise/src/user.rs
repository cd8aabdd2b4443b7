//! Who runs a container's process: numbers, or names looked up in the container's own /etc/passwd and /etc/group.

use reddwarf_host::spec::UserSpec;
use std::io;

/// Larger user databases are not read: no image needs them.
pub const LARGEST: u64 = 1 << 20;

/// A user in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
    /// Home directory, where the user database names one.
    pub home: Option<String>,
}

/// Why a user could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("user {0:?} is not in the image's /etc/passwd: name one that is, or use numbers (runAsUser)")]
    NoUser(String),
    /// No such group.
    #[error("group {0:?} is not in the image's /etc/group: name one that is, or use numbers (runAsGroup)")]
    NoGroup(String),
    /// /etc/passwd or /etc/group can't be read.
    #[error("the image's user database can't be read")]
    Io(#[from] io::Error),
}

/// Resolves `spec` with the texts of the image's /etc/passwd and /etc/group. `strict`: without the groups that /etc/group
/// gives the user.
///
/// # Errors
/// A name that is not there.
pub fn resolve(spec: &UserSpec, passwd: &str, group: &str, strict: bool) -> Result<User, UserError> {
    match spec {
        UserSpec::Ids { uid, gid, groups } => {
            let entry = passwd_entries(passwd).find(|e| e.uid == *uid);
            let groups = all_groups(groups, *gid, entry.as_ref().filter(|_| !strict), group);
            Ok(User { uid: *uid, gid: *gid, groups, home: entry.map(|e| e.home.to_owned()) })
        }
        UserSpec::Named { user, groups } => lookup(user, groups, passwd, group, strict),
    }
}

/// The groups that are named, the primary one (a process that changes it must not lose what it forbids) and the user's
/// memberships.
fn all_groups(named: &[u32], primary: u32, user: Option<&PasswdEntry<'_>>, group: &str) -> Vec<u32> {
    let mut groups = named.to_vec();
    groups.push(primary);
    if let Some(user) = user {
        let memberships = group_entries(group).filter(|g| g.members.split(',').any(|m| m == user.name));
        groups.extend(memberships.map(|g| g.gid));
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// `user`, `user:group`, `uid`, `uid:gid` (OCI image spec, config `User`); empty is root.
fn lookup(text: &str, extra: &[u32], passwd: &str, group: &str, strict: bool) -> Result<User, UserError> {
    let (user, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    // A name wins over a number that happens to be a name as well.
    let entry = passwd_entries(passwd)
        .find(|e| e.name == user)
        .or_else(|| passwd_entries(passwd).find(|e| Some(e.uid) == number));
    let (uid, default_gid) = match (&entry, number) {
        (Some(e), _) => (e.uid, e.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    let gid = match group_text {
        None => default_gid,
        Some(name) => match group_entries(group).find(|e| e.name == name) {
            Some(e) => e.gid,
            None => name.parse().map_err(|_| UserError::NoGroup(name.to_owned()))?,
        },
    };
    let groups = all_groups(extra, gid, entry.as_ref().filter(|_| !strict), group);
    Ok(User { uid, gid, groups, home: entry.map(|e| e.home.to_owned()) })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// passwd(5); lines that make no sense are skipped, as getpwnam(3) does.
fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// group(5).
fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnonsense\nwww:x:33:33:www:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nadm:x:4:syslog,www\n";

    fn ids(text: &str) -> (u32, u32, Vec<u32>) {
        let user = lookup(text, &[], PASSWD, GROUP, false).unwrap();
        (user.uid, user.gid, user.groups)
    }

    #[test]
    fn images_users_in_all_their_forms() {
        assert_eq!(ids(""), (0, 0, vec![0]));
        assert_eq!(ids("www"), (33, 33, vec![4, 33]));
        assert_eq!(ids("33"), (33, 33, vec![4, 33]));
        assert_eq!(ids("www:adm"), (33, 4, vec![4]));
        assert_eq!(ids("www:root"), (33, 0, vec![0, 4]));
        assert_eq!(ids("1000"), (1000, 0, vec![0]));
        assert_eq!(ids("1000:7"), (1000, 7, vec![7]));
        assert_eq!(lookup("www", &[9], PASSWD, GROUP, true).unwrap().groups, [9, 33], "strict");
        assert_eq!(lookup("www", &[], PASSWD, GROUP, false).unwrap().home.as_deref(), Some("/var/www"));
    }

    #[test]
    fn an_unknown_name_is_said() {
        let error = lookup("nobody", &[], PASSWD, GROUP, false).unwrap_err().to_string();
        assert_eq!(
            error,
            "user \"nobody\" is not in the image's /etc/passwd: name one that is, or use numbers (runAsUser)"
        );
        assert!(matches!(lookup("www:none", &[], PASSWD, GROUP, false), Err(UserError::NoGroup(g)) if g == "none"));
    }

    proptest::proptest! {
        #[test]
        fn no_database_makes_it_panic(user in ".{0,12}", passwd in ".{0,60}", group in ".{0,60}") {
            let _ = lookup(&user, &[], &passwd, &group, false);
        }
    }
}
