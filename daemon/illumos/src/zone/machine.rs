//! Virtual machines: what a pod may say of a bhyve zone, and what of that becomes attributes, devices and mounts.
//!
//! The words are those of the brand's own attributes. A pod may name disks that its volumes' administrator has given it, ISO
//! images that lie where the administrator puts them, and what belongs to the machine itself; never arguments of bhyve's,
//! devices or files of the host's.

use crate::zonecfg::{Attr, AttrKind, AttrName, Fs, Text, ValueError, ZoneConfig};
use reddwarf_storage::zfs::text::Dataset;
use std::collections::BTreeMap;
use std::path::Path;

/// The user property that gives a ZFS volume to a pod as a disk: `NAMESPACE/NAME`.
pub(crate) const GRANT: &str = "io.reddwarf:disk";

/// How many of `diskN` and `cdromN` the brand takes.
const DISKS: u32 = 16;
const CDROMS: u32 = 8;

/// What a pod says of its machine, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Attributes that are taken as they are.
    words: BTreeMap<String, String>,
    /// Attributes that name a ZFS volume.
    disks: BTreeMap<String, Dataset>,
    /// Attributes that name a file of the administrator's directory of ISO images.
    cdroms: BTreeMap<String, String>,
}

/// What a word's value may be.
#[derive(Clone, Copy)]
enum Value {
    OneOf(&'static [&'static str]),
    /// Letters, digits and these.
    Of(&'static str),
    /// `on`, `off`, or where user data is fetched from.
    CloudInit,
    /// A line; no path, which the brand would read.
    Line,
}

const SWITCH: Value = Value::OneOf(&["on", "off"]);

/// What pods may say, in the brand's words.
const WORDS: &[(&str, Value)] = &[
    ("acpi", SWITCH),
    ("bootorder", Value::Of(",=")),
    ("bootrom", Value::Of("_.-")),
    ("cloud-init", Value::CloudInit),
    ("diskif", Value::Of("-")),
    ("hostbridge", Value::Of("-")),
    ("memreserve", SWITCH),
    ("netif", Value::Of("-")),
    ("rng", SWITCH),
    ("sshkey", Value::Line),
    ("type", Value::OneOf(&["generic", "windows", "openbsd"])),
    ("uefivars", SWITCH),
    ("uuid", Value::Of("-")),
    ("vga", Value::OneOf(&["off", "on", "io"])),
    ("vnc", Value::OneOf(&["off", "on", "wait"])),
    ("xhci", SWITCH),
];

impl Value {
    fn check(self, text: &str) -> Result<(), String> {
        let fine = match self {
            Self::OneOf(all) if !all.contains(&text) => return Err(format!("must be one of {}", all.join(", "))),
            Self::OneOf(_) => true,
            Self::Of(more) => text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c)),
            Self::CloudInit => {
                let url = text.starts_with("http://") || text.starts_with("https://");
                matches!(text, "on" | "off") || (url && text.chars().all(|c| c.is_ascii_graphic() && c != ';'))
            }
            Self::Line => !text.starts_with('/'),
        };
        if fine && !text.is_empty() { Ok(()) } else { Err("can't be this".to_owned()) }
    }
}

/// Whether `name` is `kind`, or `kind` with a number below `most`.
fn is_numbered(name: &str, kind: &str, most: u32) -> bool {
    let Some(number) = name.strip_prefix(kind) else { return false };
    number.is_empty() || (number.parse::<u32>().is_ok_and(|n| n < most && n.to_string() == number))
}

impl Machine {
    /// Checks what a pod says.
    ///
    /// # Errors
    /// A sentence that names the word.
    pub(crate) fn of(said: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut machine = Self::default();
        for (name, value) in said {
            let wrong = |why: String| format!("{name} of the virtual machine: {why}");
            if name == "bootdisk" || is_numbered(name, "disk", DISKS) {
                let volume = Dataset::new(value.as_str()).map_err(|e| wrong(e.to_string()))?;
                if machine.disks.values().any(|other| *other == volume) {
                    return Err(wrong(format!("{volume} is a disk of it already")));
                }
                machine.disks.insert(name.clone(), volume);
            } else if is_numbered(name, "cdrom", CDROMS) {
                let plain = value.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
                if !plain {
                    return Err(wrong("must be the name of a file in the directory of ISO images".to_owned()));
                }
                machine.cdroms.insert(name.clone(), value.clone());
            } else if let Some((_, kind)) = WORDS.iter().find(|(known, _)| known == name) {
                kind.check(value).map_err(wrong)?;
                Text::new(value.as_str()).map_err(|e| wrong(e.rule.to_owned()))?;
                machine.words.insert(name.clone(), value.clone());
            } else {
                let known: Vec<&str> = WORDS.iter().map(|(known, _)| *known).collect();
                let known = known.join(", ");
                return Err(wrong(format!("is not for pods to say; these are: bootdisk, disk, cdrom, {known}")));
            }
        }
        Ok(machine)
    }

    /// The ZFS volumes that it has as disks.
    pub(crate) fn disks(&self) -> impl Iterator<Item = &Dataset> {
        self.disks.values()
    }

    /// The ISO images that it has, by file name.
    pub(crate) fn cdroms(&self) -> impl Iterator<Item = &str> {
        self.cdroms.values().map(String::as_str)
    }

    /// Whether the brand makes a cloud-init image, which tells the guest its address.
    pub(crate) fn is_told_by_cloud_init(&self) -> bool {
        self.words.get("cloud-init").is_some_and(|v| v != "off")
    }

    /// Puts it into a zone's configuration. `isos`: where ISO images are.
    ///
    /// # Errors
    /// A value that can't be written.
    pub(crate) fn configure(&self, config: &mut ZoneConfig, isos: &Path) -> Result<(), ValueError> {
        let mut attr = |name: &str, value: &str| -> Result<(), ValueError> {
            let attr = Attr { kind: AttrKind::String, value: Text::new(value)? };
            config.attrs.insert(AttrName::new(name)?, attr);
            Ok(())
        };
        for (name, value) in &self.words {
            attr(name, value)?;
        }
        for (name, volume) in &self.disks {
            attr(name, volume.as_str())?;
        }
        for (name, file) in &self.cdroms {
            attr(name, &inside(file))?;
        }
        for volume in self.disks() {
            config.devices.insert(Text::new(format!("/dev/zvol/rdsk/{volume}"))?);
        }
        for file in self.cdroms() {
            let special = Text::new(isos.join(file).to_string_lossy())?;
            let options = vec![Text::new("ro")?, Text::new("nodevices")?];
            config.fs.insert(Text::new(inside(file))?, Fs { special, kind: Text::new("lofs")?, raw: None, options });
        }
        Ok(())
    }
}

/// Where the zone sees an ISO image.
fn inside(file: &str) -> String {
    format!("/iso/{file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &[(&str, &str)]) -> BTreeMap<String, String> {
        words.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_belongs_to_the_machine_is_taken() {
        let words = said(&[
            ("bootdisk", "rpool/vm/web"),
            ("disk1", "rpool/vm/data"),
            ("cdrom", "debian-13.iso"),
            ("cloud-init", "https://config.example.net/web"),
            ("vnc", "on"),
            ("sshkey", "ssh-ed25519 AAAA me@there"),
        ]);
        let machine = Machine::of(&words).unwrap();
        let disks: Vec<_> = machine.disks().map(Dataset::as_str).collect();
        assert_eq!(disks, ["rpool/vm/web", "rpool/vm/data"]);
        assert!(machine.is_told_by_cloud_init());
    }

    /// Bhyve's own arguments, devices, files and memory of the host's, and what limits say.
    #[test]
    fn what_is_the_hosts_is_refused() {
        for (name, value) in [
            ("extra", "-s 9,passthru,0/0/0"),
            ("ppt0", "on"),
            ("virtfs", "root,/"),
            ("console", "/dev/dsk/c0t0d0"),
            ("ram", "64G"),
            ("vcpus", "64"),
            ("password", "x"),
            ("disk16", "rpool/a"),
            ("disk01", "rpool/a"),
            ("bootdisk", "/dev/rdsk/c0t0d0"),
            ("disk", "../a"),
            ("cdrom", "/etc/shadow"),
            ("cdrom", "../x.iso"),
            ("cdrom8", "a.iso"),
            ("bootrom", "/etc/shadow"),
            ("cloud-init", "/etc/shadow"),
            ("sshkey", "/root/.ssh/id_ed25519"),
            ("vnc", "unix=/tmp/a,password=b"),
            ("diskif", "ahci,x"),
            ("uuid", ""),
        ] {
            let refused = Machine::of(&said(&[(name, value)])).unwrap_err();
            assert!(refused.starts_with(&format!("{name} of the virtual machine: ")), "{refused}");
        }
        let twice = Machine::of(&said(&[("bootdisk", "rpool/a"), ("disk", "rpool/a")])).unwrap_err();
        assert!(twice.contains("already"), "{twice}");
    }
}
