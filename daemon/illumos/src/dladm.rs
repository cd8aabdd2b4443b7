//! Data links (dladm(8)): etherstubs and VNICs. All of ours are temporary (`-t`): a reboot leaves none behind, and the
//! daemon makes them anew.

use crate::parsable;
use reddwarf_command::{Invocation, Tool};
use reddwarf_host::LinkName;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Makes an etherstub: a switch without a port to the outside.
pub fn create_etherstub(name: &LinkName) -> Invocation {
    Invocation::change(Tool::Dladm, ["create-etherstub", "-t", name.as_str()])
}

/// Removes an etherstub; busy while a VNIC is on it.
pub fn delete_etherstub(name: &LinkName) -> Invocation {
    Invocation::change(Tool::Dladm, ["delete-etherstub", "-t", name.as_str()])
}

/// A virtual network interface to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vnic {
    /// Its name.
    pub name: LinkName,
    /// The link it is on: an etherstub or a NIC.
    pub over: String,
    /// Its address, the same each time that it is made.
    pub mac: MacAddress,
    /// Its VLAN, 1 to 4094.
    pub vlan: Option<u16>,
}

impl Vnic {
    /// Makes it. Its protection is not set here: zonecfg's `allowed-address` has zoneadmd do so, and the zone's boot
    /// fails when it is set already.
    pub fn create(&self) -> Invocation {
        let mut args = vec!["create-vnic".to_owned(), "-t".into(), "-l".into(), self.over.clone()];
        args.extend(["-m".to_owned(), self.mac.to_string()]);
        if let Some(vlan) = self.vlan {
            args.extend(["-v".to_owned(), vlan.to_string()]);
        }
        args.push(self.name.to_string());
        Invocation::change(Tool::Dladm, args)
    }

    /// Whether it is this one that was found under its name.
    pub fn is(&self, (over, mac, vlan): &VnicObserved) -> bool {
        *over == self.over && *mac == self.mac && *vlan == self.vlan
    }
}

/// Removes a VNIC; busy while a zone that is up has it.
pub fn delete_vnic(name: &LinkName) -> Invocation {
    Invocation::change(Tool::Dladm, ["delete-vnic", "-t", name.as_str()])
}

/// Asks for all links in one go; [`links`] reads the answer.
pub fn show_links() -> Invocation {
    Invocation::read(Tool::Dladm, ["show-link", "-p", "-o", "link,class,mtu,state,over"])
}

/// Asks for all VNICs in one go; [`vnics`] reads the answer. Only fields that every distribution has.
pub fn show_vnics() -> Invocation {
    Invocation::read(Tool::Dladm, ["show-vnic", "-p", "-o", "link,over,macaddress,vid"])
}

/// A link as [`show_links`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// `phys`, `vnic`, `etherstub`, `aggr`, `vlan`, ….
    pub class: String,
    /// Bytes.
    pub mtu: u32,
    /// `up`, `down`, `unknown`.
    pub state: String,
    /// What it is on.
    pub over: Option<String>,
}

/// An answer of dladm that makes no sense: nothing may be taken as absent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dladm: line {0:?} makes no sense")]
pub struct AnswerError(pub String);

/// Links by name.
///
/// # Errors
/// [`AnswerError`].
pub fn links(text: &str) -> Result<BTreeMap<String, Link>, AnswerError> {
    let link = |line: &str| {
        let fields = parsable::fields(line);
        let [name, class, mtu, state, over] = &fields[..] else { return None };
        let over = Some(over.clone()).filter(|o| !o.is_empty() && o != "--");
        Some((name.clone(), Link { class: class.clone(), mtu: mtu.parse().ok()?, state: state.clone(), over }))
    };
    text.lines().map(|line| link(line).ok_or_else(|| AnswerError(line.to_owned()))).collect()
}

/// A VNIC as [`show_vnics`] shows it: what it is on, its address, its VLAN.
pub type VnicObserved = (String, MacAddress, Option<u16>);

/// VNICs by name.
///
/// # Errors
/// [`AnswerError`].
pub fn vnics(text: &str) -> Result<BTreeMap<String, VnicObserved>, AnswerError> {
    let vnic = |line: &str| {
        let fields = parsable::fields(line);
        let [name, over, mac, vid] = &fields[..] else { return None };
        let vlan = Some(vid.parse::<u16>().ok()?).filter(|v| *v != 0);
        Some((name.clone(), (over.clone(), mac.parse().ok()?, vlan)))
    };
    text.lines().map(|line| vnic(line).ok_or_else(|| AnswerError(line.to_owned()))).collect()
}

/// An Ethernet address. dladm prints its bytes without leading zeros: compare values, not texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// A locally administered address of one owner, the same each time, from any bytes that are the owner's alone.
    pub fn of_digest(digest: [u8; 5]) -> Self {
        let [a, b, c, d, e] = digest;
        Self([0x02, a, b, c, d, e])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{g:x}")
    }
}

impl FromStr for MacAddress {
    type Err = AnswerError;

    fn from_str(text: &str) -> Result<Self, AnswerError> {
        let error = || AnswerError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = parts.next().and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(error)?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(name: &str) -> LinkName {
        LinkName::new(name).unwrap()
    }

    #[test]
    fn links_are_made_until_the_next_boot_only() {
        let vnic = Vnic {
            name: link("rwabc0"),
            over: "rwstub0".into(),
            mac: MacAddress::of_digest([8, 0x20, 0x1e, 0, 7]),
            vlan: Some(12),
        };
        let shown: Vec<_> = [
            create_etherstub(&link("rwstub0")),
            vnic.create(),
            delete_vnic(&vnic.name),
            delete_etherstub(&link("rwstub0")),
        ]
        .iter()
        .map(ToString::to_string)
        .collect();
        assert_eq!(
            shown,
            [
                "dladm create-etherstub -t rwstub0",
                "dladm create-vnic -t -l rwstub0 -m 2:8:20:1e:0:7 -v 12 rwabc0",
                "dladm delete-vnic -t rwabc0",
                "dladm delete-etherstub -t rwstub0",
            ]
        );
    }

    #[test]
    fn answers_are_read_with_their_escapes() {
        let shown =
            links("net0:phys:1500:up:\nrwstub0:etherstub:9000:unknown:--\nrwabc0:vnic:9000:up:rwstub0\n").unwrap();
        assert_eq!(shown["rwabc0"].over.as_deref(), Some("rwstub0"));
        assert_eq!((shown["rwstub0"].class.as_str(), &shown["net0"].over), ("etherstub", &None));
        let shown = vnics("rwabc0:rwstub0:2\\:8\\:20\\:1e\\:0\\:7:0\n").unwrap();
        assert_eq!(shown["rwabc0"], ("rwstub0".into(), MacAddress([2, 8, 0x20, 0x1e, 0, 7]), None));
        assert!(links("net0:phys").is_err() && vnics("a0:b0:2\\:8:0").is_err());
    }

    proptest! {
        #[test]
        fn an_address_survives_its_text(bytes: [u8; 6]) {
            prop_assert_eq!(MacAddress(bytes).to_string().parse(), Ok(MacAddress(bytes)));
        }

        #[test]
        fn any_answer_is_read_or_refused(text in "[a-z0-9:\\\\\\n-]{0,60}") {
            let _ = (links(&text), vnics(&text));
        }
    }
}
