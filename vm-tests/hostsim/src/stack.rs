//! The IP stack of a zone from inside, where no SMF brings it up: ipmgmtd, and ipadm through it. ipmgmtd takes the interfaces
//! that the zone's configuration allows addresses on as known and not up; enabling one brings addresses and router.

use crate::call::{Answer, replace};
use crate::platform::Inside;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What there is now: gone with the zone.
const KEPT: &str = "/etc/svc/volatile/hostsim-stack.json";
/// Where ipmgmtd keeps what it knows over boots.
const DATABASE: &str = "/etc/ipadm/ipadm.conf";

#[derive(Default, Serialize, Deserialize)]
struct Stack {
    /// ipmgmtd runs.
    managed: bool,
    /// Interfaces and whether they are up.
    interfaces: BTreeMap<String, bool>,
    /// Address objects.
    addresses: BTreeMap<String, String>,
}

fn error(what: &str) -> Answer {
    Answer::fail(format!("ipadm: {what}"))
}

/// One call inside of a zone.
pub(crate) fn run(about: &Inside, tool: &str, words: &[&str]) -> Answer {
    let text = std::fs::read_to_string(KEPT).unwrap_or_default();
    let mut stack: Stack = serde_json::from_str(&text).unwrap_or_default();
    let answer = match (tool, words) {
        ("ipmgmtd", []) => ipmgmtd(about, &mut stack),
        ("ipadm", _) if !stack.managed => error("Could not communicate with ipmgmtd"),
        ("ipadm", words) => ipadm(about, &mut stack, words),
        _ => Answer { code: 1, ..Answer::usage("usage: ipmgmtd [-f]") },
    };
    let kept = serde_json::to_string(&stack).map_err(std::io::Error::from);
    match kept.and_then(|text| replace(Path::new(KEPT), text.as_bytes())) {
        Ok(()) => answer,
        Err(e) => Answer::fail(format!("{KEPT}: {e}")),
    }
}

fn ipmgmtd(about: &Inside, stack: &mut Stack) -> Answer {
    use std::os::unix::fs::MetadataExt;
    if std::env::var_os("SMF_FMRI").is_none() {
        return Answer {
            code: 22,
            ..Answer::fail("ipmgmtd is a smf(7) managed service and cannot be run from the command line.")
        };
    }
    // As netadm it has to write there.
    match Path::new(DATABASE).metadata() {
        Ok(found) if (found.uid(), found.gid()) == (16, 65) => {}
        _ => return Answer::fail(format!("could not open {DATABASE}: Permission denied")),
    }
    stack.managed = true;
    stack.interfaces.extend(about.nets.iter().map(|(link, _)| (link.clone(), false)));
    Answer::ok()
}

/// libipadm's ipadm_check_auth(): whoever changes anything needs the authorization from user_attr(5), root too.
fn is_authorized() -> bool {
    let users = std::fs::read_to_string("/etc/user_attr").unwrap_or_default();
    let root = users.lines().find_map(|line| line.strip_prefix("root::::")).unwrap_or_default();
    let auths = root.split(';').find_map(|pair| pair.strip_prefix("auths=")).unwrap_or_default();
    auths.split(',').any(|auth| ["solaris.*", "solaris.network.interface.config"].contains(&auth))
}

fn ipadm(about: &Inside, stack: &mut Stack, words: &[&str]) -> Answer {
    match words {
        ["create-addr" | "enable-if", ..] if !is_authorized() => error("Insufficient user authorizations"),
        ["create-addr", "-t", "-T", "static", "-a", local, object] => {
            let (Some(address), Some((interface, _))) = (local.strip_prefix("local="), object.split_once('/')) else {
                return error("Invalid argument provided");
            };
            if address.parse::<ipnet::IpNet>().is_err() {
                return error("Invalid argument provided");
            }
            if interface != "lo0" {
                return error("Could not create address: Operation not permitted on from-gz interface");
            }
            if stack.addresses.contains_key(*object) {
                return error("Could not create address: Address object already exists");
            }
            stack.interfaces.insert(interface.to_owned(), true);
            stack.addresses.insert((*object).to_owned(), address.to_owned());
            Answer::ok()
        }
        ["show-if", "-p", "-o", "ifname,state"] => {
            let row = |(name, up): (&String, &bool)| format!("{name}:{}\n", if *up { "ok" } else { "disabled" });
            Answer::out(stack.interfaces.iter().map(row).collect::<String>())
        }
        ["show-addr", "-p", "-o", "addrobj,addr"] => {
            let row = |(object, address): (&String, &String)| format!("{object}:{}\n", address.replace(':', "\\:"));
            Answer::out(stack.addresses.iter().map(row).collect::<String>())
        }
        ["enable-if", "-t", name] => {
            match stack.interfaces.get_mut(*name) {
                None => return error("Could not enable interface: Interface does not exist"),
                Some(true) => return error("Could not enable interface: Interface already exists"),
                Some(up) => *up = true,
            }
            for (at, (_, address)) in about.nets.iter().filter(|(link, _)| link == name).enumerate() {
                stack.addresses.insert(format!("{name}/_{at}"), address.clone());
            }
            Answer::ok()
        }
        _ => Answer { code: 1, ..Answer::usage("usage:  ipadm <subcommand> <args> ...") },
    }
}
