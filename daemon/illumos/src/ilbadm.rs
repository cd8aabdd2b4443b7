//! ILB, the integrated load balancer (ilbadm(8)): its rules and server groups as values, its commands, its answers.
//!
//! No manual page comes with it. By the sources of ilbadm, ilbd and the kernel's part:
//!
//! * A rule's name has 19 characters at most, a group's 14; names of servers (`_GROUP.N`) are given by ilbd.
//! * `-s server=A,B` is one list: the keyword is said once. IPv6 servers stand in brackets.
//! * `-p` alone keeps no client with its server: that flag comes with `pmask`, and `pmask` needs the VIP before it.
//! * Times of 0 are refused; one that is not given is shown as the kernel's own, so all that count are given.
//! * A group has each address once and 1,000 servers at most, all of one family; a rule needs a group with a server.
//! * Of one address, protocol and port there is one rule, whatever its name.
//! * Lists come in messages of 102,400 bytes: 5,119 names, what is beyond is left out without a word.
//! * What is made stays in SMF's repository, over boots too.

use crate::dladm::AnswerError;
pub use crate::ipnat::Protocol;
use crate::parsable;
use reddwarf_command::{Invocation, Tool};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

/// Servers in one group at most.
pub const SERVERS: usize = 1000;
/// Rules of ours at most: that ilbd lists all of them beside a thousand of others.
pub const RULES: usize = 4000;

/// Seconds for which a connection that says nothing is remembered: as long as clients' pools keep one, not so long that
/// what strangers begin and leave fills the memory (ILB has no bound of its own).
const IDLE_TCP: u32 = 3600;
const IDLE_UDP: u32 = 60;
/// Seconds that connections have to end once their server, or their rule, was taken away: more than any grace period that
/// pods are usually given. Without a bound the kernel would keep such servers for as long as a client likes.
const DRAIN: u32 = 3600;

/// The name of a rule of ours and of its server group: 14 lower-case letters and digits, which both kinds may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// As ilbadm is told it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the names of one daemon begin: the mark of what is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

/// Characters of a name behind the prefix.
const DIGEST: usize = 8;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Lower-case letters and digits that follow from a text.
pub(crate) fn digest(text: &str, characters: usize) -> String {
    let bytes = Sha256::digest(text.as_bytes());
    let letter = |byte: &u8| char::from(ALPHABET.get(usize::from(byte & 31)).copied().unwrap_or(b'a'));
    bytes.iter().take(characters).map(letter).collect()
}

impl Prefix {
    /// Of the daemon of this instance ([`crate::options::instance_name`]).
    pub fn of(instance: &str) -> Self {
        Self(format!("rw{}", digest(instance, 4)))
    }

    /// Names follow from where connections arrive. Two places may have one name, by one chance in 10¹² for a pair: who makes
    /// many has to look.
    pub fn name(&self, vip: IpAddr, protocol: Protocol, port: u16) -> Name {
        Name(format!("{}{}", self.0, digest(&format!("{vip} {} {port}", word(protocol)), DIGEST)))
    }

    /// A name that was read, if it is one that this daemon gives.
    pub fn own(&self, name: &str) -> Option<Name> {
        let rest = name.strip_prefix(&self.0)?;
        let ours = rest.len() == DIGEST && rest.bytes().all(|b| ALPHABET.contains(&b));
        ours.then(|| Name(name.to_owned()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// One frontend as ILB is to balance it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balanced {
    /// Where connections arrive.
    pub vip: IpAddr,
    /// Over what.
    pub protocol: Protocol,
    /// At which port.
    pub port: u16,
    /// Seconds for which a client stays with its server.
    pub affinity_seconds: Option<NonZeroU32>,
    /// Who takes them: addresses of the VIP's family and their ports, one at least.
    pub servers: BTreeMap<IpAddr, u16>,
}

impl fmt::Display for Balanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}/{}", self.vip, self.port, word(self.protocol))
    }
}

/// What a rule says, its name left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether it is in force.
    pub enabled: bool,
    /// Where connections arrive; `None` where ilbadm shows no address.
    pub vip: Option<IpAddr>,
    /// At which ports, the first and the last.
    pub ports: (u16, u16),
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// `roundrobin`, `hash-ip`, ….
    pub algorithm: String,
    /// `DSR`, `HALF-NAT` or `NAT`.
    pub kind: String,
    /// Whose addresses full NAT shows to servers.
    pub proxy_source: String,
    /// The mask by which clients are told apart and for how many seconds each stays with its server.
    pub sticky: Option<(String, u32)>,
    /// The health check.
    pub health_check: String,
    /// Seconds that connections have to end.
    pub conn_drain: u32,
    /// Seconds for which one that says nothing is remembered.
    pub nat_timeout: u32,
    /// The server group.
    pub group: String,
}

impl Balanced {
    fn mask(&self) -> &'static str {
        if self.vip.is_ipv4() { "/32" } else { "/128" }
    }

    fn idle(&self) -> u32 {
        match self.protocol {
            Protocol::Tcp => IDLE_TCP,
            Protocol::Udp => IDLE_UDP,
        }
    }

    /// What its rule says. Half NAT: servers see who connects, as pods are promised. No health check: who is not ready is no
    /// server.
    pub fn terms(&self, name: &Name) -> Terms {
        Terms {
            enabled: true,
            vip: Some(self.vip),
            ports: (self.port, self.port),
            protocol: word(self.protocol).to_ascii_uppercase(),
            algorithm: "roundrobin".to_owned(),
            kind: "HALF-NAT".to_owned(),
            proxy_source: String::new(),
            sticky: self.affinity_seconds.map(|seconds| (self.mask().to_owned(), seconds.get())),
            health_check: String::new(),
            conn_drain: DRAIN,
            nat_timeout: self.idle(),
            group: name.as_str().to_owned(),
        }
    }
}

/// Makes a rule. Its group is there.
pub fn create_rule(name: &Name, rule: &Balanced) -> Invocation {
    let mut args = vec!["create-rule".to_owned(), "-e".to_owned()];
    let incoming = format!("vip={},port={},protocol={}", rule.vip, rule.port, word(rule.protocol));
    let mut method = "lbalg=rr,type=HALF-NAT".to_owned();
    let mut times = format!("conn-drain={DRAIN},nat-timeout={}", rule.idle());
    if let Some(seconds) = rule.affinity_seconds {
        args.push("-p".to_owned());
        method += &format!(",pmask={}", rule.mask());
        times += &format!(",persist-timeout={seconds}");
    }
    let options = ["-i", &incoming, "-m", &method, "-t", &times, "-o", &format!("servergroup={name}"), name.as_str()];
    args.extend(options.map(ToOwned::to_owned));
    Invocation::change(Tool::Ilbadm, args)
}

/// Takes a rule away. Its connections may go on.
pub fn delete_rule(name: &Name) -> Invocation {
    Invocation::change(Tool::Ilbadm, ["delete-rule", name.as_str()])
}

/// Makes a server group with its servers, or none if one of them is refused.
pub fn create_group(name: &Name, servers: &BTreeMap<IpAddr, u16>) -> Invocation {
    Invocation::change(Tool::Ilbadm, ["create-servergroup", "-s", &list(servers), name.as_str()])
}

/// Takes a server group away that no rule uses.
pub fn delete_group(name: &Name) -> Invocation {
    Invocation::change(Tool::Ilbadm, ["delete-servergroup", name.as_str()])
}

/// Adds servers to a group, and so to its rule.
pub fn add_servers(name: &Name, servers: &BTreeMap<IpAddr, u16>) -> Invocation {
    Invocation::change(Tool::Ilbadm, ["add-server", "-s", &list(servers), name.as_str()])
}

/// Takes servers out of a group by the names that ilbd gave them. Their connections may end by themselves.
pub fn remove_servers(name: &Name, ids: &[String]) -> Invocation {
    Invocation::change(Tool::Ilbadm, ["remove-server", "-s", &format!("server={}", ids.join(",")), name.as_str()])
}

/// Has servers take connections again.
pub fn enable_servers(ids: &[String]) -> Invocation {
    let args = std::iter::once("enable-server").chain(ids.iter().map(String::as_str));
    Invocation::change(Tool::Ilbadm, args)
}

fn list(servers: &BTreeMap<IpAddr, u16>) -> String {
    let all: Vec<String> = servers.iter().map(|(ip, port)| SocketAddr::new(*ip, *port).to_string()).collect();
    format!("server={}", all.join(","))
}

const RULE_FIELDS: &str = "rulename,status,vip,port,protocol,lbalg,type,proxy-src,pmask,hc-name,conn-drain,nat-timeout,persist-timeout,servergroup";

/// Asks for all rules; [`rules`] reads the answer.
pub fn show_rules() -> Invocation {
    Invocation::read(Tool::Ilbadm, ["show-rule", "-p", "-o", RULE_FIELDS])
}

/// Asks for all groups and their servers; [`groups`] reads the answer.
pub fn show_groups() -> Invocation {
    Invocation::read(Tool::Ilbadm, ["show-servergroup", "-p", "-o", "sgname,serverid,minport,maxport,ip_address"])
}

/// Asks which servers take connections; [`disabled`] reads the answer. Those of groups without a rule are not shown.
pub fn show_servers() -> Invocation {
    Invocation::read(Tool::Ilbadm, ["show-server", "-p", "-o", "serverid,status"])
}

/// Reads the answer to [`show_rules`].
///
/// # Errors
/// [`AnswerError`]
pub fn rules(text: &str) -> Result<BTreeMap<String, Terms>, AnswerError> {
    let rule = |line: &str| {
        let fields = parsable::fields(line);
        let [name, status, vip, port, protocol, algorithm, kind, proxy, mask, check, drain, nat, persist, group] =
            &fields[..]
        else {
            return None;
        };
        let terms = Terms {
            enabled: status == "E",
            vip: address(vip)?,
            ports: ports(port)?,
            protocol: protocol.clone(),
            algorithm: algorithm.clone(),
            kind: kind.clone(),
            proxy_source: proxy.clone(),
            sticky: if mask.is_empty() { None } else { Some((mask.clone(), persist.parse().ok()?)) },
            health_check: check.clone(),
            conn_drain: drain.parse().ok()?,
            nat_timeout: nat.parse().ok()?,
            group: group.clone(),
        };
        (!name.is_empty()).then(|| (name.clone(), terms))
    };
    text.lines().map(|line| rule(line).ok_or_else(|| AnswerError(line.to_owned()))).collect()
}

/// `None` for no address, which is not the same as one that can't be read.
fn address(text: &str) -> Option<Option<IpAddr>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

/// `80`, `80-90`, or `?` for all.
fn ports(text: &str) -> Option<(u16, u16)> {
    match text.split_once('-') {
        _ if text == "?" => Some((1, u16::MAX)),
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => text.parse().ok().map(|port| (port, port)),
    }
}

/// A server of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The name that ilbd gave it: `_GROUP.N`.
    pub id: String,
    /// Its ports, the first and the last; 0: the rule's.
    pub ports: (u16, u16),
}

/// Server groups by name, their servers by address.
pub type Groups = BTreeMap<String, BTreeMap<IpAddr, Server>>;

/// Reads the answer to [`show_groups`]. A group without servers is one line without a server.
///
/// # Errors
/// [`AnswerError`]
pub fn groups(text: &str) -> Result<Groups, AnswerError> {
    let mut groups = Groups::new();
    for line in text.lines() {
        let server = || {
            let fields = parsable::fields(line);
            let [group, id, first, last, ip] = &fields[..] else { return None };
            let port = |text: &String| if text.is_empty() { Some(0) } else { text.parse().ok() };
            let ports = (port(first)?, port(last)?);
            let server = address(ip)?.map(|ip| (ip, Server { id: id.clone(), ports }));
            // One without a name can't be spoken of.
            (!group.is_empty() && (server.is_none() == id.is_empty())).then(|| (group.clone(), server))
        };
        let (group, server) = server().ok_or_else(|| AnswerError(line.to_owned()))?;
        groups.entry(group).or_default().extend(server);
    }
    Ok(groups)
}

/// Reads the answer to [`show_servers`]: the names of those that take no connections.
///
/// # Errors
/// [`AnswerError`]
pub fn disabled(text: &str) -> Result<BTreeSet<String>, AnswerError> {
    let server = |line: &str| match &parsable::fields(line)[..] {
        [id, status] if status == "E" || status == "D" => Some((id.clone(), status == "D")),
        _ => None,
    };
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let (id, off) = server(line).ok_or_else(|| AnswerError(line.to_owned()))?;
        if off {
            found.insert(id);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn web(affinity: Option<u32>) -> (Name, Balanced) {
        let rule = Balanced {
            vip: "10.96.0.5".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
            affinity_seconds: affinity.and_then(NonZeroU32::new),
            servers: [("10.88.0.5".parse().unwrap(), 8080), ("10.88.0.6".parse().unwrap(), 8080)].into(),
        };
        (Prefix::of("reddwarf").name(rule.vip, rule.protocol, rule.port), rule)
    }

    #[test]
    fn commands_are_as_ilbadm_reads_them() {
        let (name, rule) = web(None);
        let (_, sticky) = web(Some(10_800));
        let six = Balanced {
            vip: "fd00:96::5".parse().unwrap(),
            protocol: Protocol::Udp,
            port: 53,
            affinity_seconds: NonZeroU32::new(30),
            servers: [("fd00:88::5".parse().unwrap(), 5353)].into(),
        };
        let ids = ["_rwgroup.0".to_owned(), "_rwgroup.1".to_owned()];
        let shown = [
            create_group(&name, &rule.servers),
            create_group(&name, &six.servers),
            create_rule(&name, &rule),
            create_rule(&name, &sticky),
            create_rule(&name, &six),
            add_servers(&name, &rule.servers),
            remove_servers(&name, &ids),
            enable_servers(&ids),
            delete_rule(&name),
            delete_group(&name),
            show_rules(),
            show_groups(),
            show_servers(),
        ]
        .map(|run| run.to_string().replace(name.as_str(), "NAME"));
        assert_eq!(
            shown,
            [
                "ilbadm create-servergroup -s server=10.88.0.5:8080,10.88.0.6:8080 NAME",
                "ilbadm create-servergroup -s \"server=[fd00:88::5]:5353\" NAME",
                "ilbadm create-rule -e -i vip=10.96.0.5,port=80,protocol=tcp -m lbalg=rr,type=HALF-NAT \
                 -t conn-drain=3600,nat-timeout=3600 -o servergroup=NAME NAME",
                "ilbadm create-rule -e -p -i vip=10.96.0.5,port=80,protocol=tcp -m lbalg=rr,type=HALF-NAT,pmask=/32 \
                 -t conn-drain=3600,nat-timeout=3600,persist-timeout=10800 -o servergroup=NAME NAME",
                "ilbadm create-rule -e -p -i vip=fd00:96::5,port=53,protocol=udp -m lbalg=rr,type=HALF-NAT,pmask=/128 \
                 -t conn-drain=3600,nat-timeout=60,persist-timeout=30 -o servergroup=NAME NAME",
                "ilbadm add-server -s server=10.88.0.5:8080,10.88.0.6:8080 NAME",
                "ilbadm remove-server -s server=_rwgroup.0,_rwgroup.1 NAME",
                "ilbadm enable-server _rwgroup.0 _rwgroup.1",
                "ilbadm delete-rule NAME",
                "ilbadm delete-servergroup NAME",
                "ilbadm show-rule -p -o rulename,status,vip,port,protocol,lbalg,type,proxy-src,pmask,hc-name,conn-drain,\
                 nat-timeout,persist-timeout,servergroup",
                "ilbadm show-servergroup -p -o sgname,serverid,minport,maxport,ip_address",
                "ilbadm show-server -p -o serverid,status",
            ]
        );
    }

    #[test]
    fn names_fit_groups_too_and_tell_whose_they_are() {
        let (ours, others) = (Prefix::of("reddwarf"), Prefix::of("reddwarf-0badcafe"));
        let (name, rule) = web(None);
        assert_eq!(name.as_str().len(), 14);
        assert_eq!(ours.own(name.as_str()), Some(name.clone()));
        assert_eq!(others.own(name.as_str()), None);
        assert_ne!(ours.name(rule.vip, Protocol::Udp, 80), name);
        for foreign in ["rw", "rwweb", "web", "rwAAAAAAAAAAAA", &format!("{name}a"), &name.as_str()[..13]] {
            assert_eq!(ours.own(foreign), None, "{foreign}");
        }
        // A server's name, with the highest number there is, is one that ilbd can give.
        assert!(format!("_{name}.{}", SERVERS - 1).len() <= 19);
    }

    /// What a rule was made with is what it is read as: else it would be made anew at every pass.
    #[test]
    fn answers_are_read() {
        let (name, rule) = web(Some(10_800));
        let text = format!(
            "{name}:E:10.96.0.5:80:TCP:roundrobin:HALF-NAT::/32::3600:3600:10800:{name}\n\
             mine:D:fd00\\:\\:5:80-90:UDP:hash-ip:NAT:fd00\\:\\:1-fd00\\:\\:2::hc1:0:60:0:sg1\nall:E:192.0.2.1:?:TCP:roundrobin:DSR::::0:0:0:sg1\n"
        );
        let seen = rules(&text).unwrap();
        assert_eq!(seen[name.as_str()], rule.terms(&name));
        assert_eq!((seen["mine"].vip, seen["mine"].ports), (Some("fd00::5".parse().unwrap()), (80, 90)));
        assert_eq!((seen["all"].ports, &seen["all"].sticky), ((1, 65535), &None));
        assert!(rules("a:E:10.96.0.5:80\n").is_err() && rules(&text.replace("10.96", "10.x")).is_err());

        let seen = groups("sg1:_sg1.0:80:80:10.88.0.5\nsg1:_sg1.2:::fd00\\:\\:5\nempty::::\n").unwrap();
        assert_eq!(seen["sg1"].len(), 2);
        assert_eq!(seen["sg1"][&"fd00::5".parse().unwrap()], Server { id: "_sg1.2".into(), ports: (0, 0) });
        assert!(seen["empty"].is_empty());
        assert!(groups("sg1:_sg1.0:80:80:10.88\n").is_err() && groups("sg1:_sg1.0\n").is_err());
        assert_eq!(disabled("_sg1.0:E\n_sg1.2:D\n").unwrap(), ["_sg1.2".to_owned()].into());
        assert!(disabled("_sg1.0:\n").is_err());
        assert_eq!((rules("").unwrap().len(), groups("").unwrap().len()), (0, 0));
    }

    fn escaped(field: &str) -> String {
        field.replace('\\', "\\\\").replace(':', "\\:")
    }

    proptest! {
        /// Whatever a rule leads from and to, its name is legal and nothing of it changes a command's meaning.
        #[test]
        fn every_frontend_has_a_legal_name(vip: IpAddr, port: u16, udp: bool, instance in ".{0,40}") {
            let prefix = Prefix::of(&instance);
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let name = prefix.name(vip, protocol, port);
            prop_assert_eq!(prefix.own(name.as_str()), Some(name.clone()));
            prop_assert!(name.as_str().len() == 14 && name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
            let servers = [(vip, port)].into();
            let rule = Balanced { vip, protocol, port, affinity_seconds: NonZeroU32::new(u32::from(port)), servers };
            for run in [create_rule(&name, &rule), create_group(&name, &rule.servers)] {
                prop_assert!(run.args.iter().all(|a| !a.contains([' ', '\n', '\'', '"', '\\'])), "{}", run);
            }
        }

        /// Servers come back as they were given.
        #[test]
        fn groups_come_back(servers in prop::collection::btree_map(any::<IpAddr>(), 1u16.., 0..20)) {
            let line = |(n, (ip, port)): (usize, (&IpAddr, &u16))| format!("g:_g.{n}:{port}:{port}:{}\n", escaped(&ip.to_string()));
            let text: String = servers.iter().enumerate().map(line).collect();
            let read = groups(&text).unwrap();
            let read: BTreeMap<IpAddr, u16> = read.get("g").into_iter().flatten().map(|(ip, s)| (*ip, s.ports.0)).collect();
            prop_assert_eq!(read, servers);
        }

        /// No answer, however mangled, is more than an error.
        #[test]
        fn answers_are_never_trusted(text in "[rw:\\\\.0-9ED?\n-]{0,80}") {
            let _ = (rules(&text), groups(&text), disabled(&text));
        }
    }
}
