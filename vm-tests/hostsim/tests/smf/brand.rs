//! The zone brand "reddwarf" in smf/brand: its descriptions by the rules of brand.dtd.1 and zone_platform.dtd.1, its script by
//! what it leaves.

use crate::smf;
use crate::xml::{Element, document};
use reddwarf_hostsim::system::PRIVILEGES;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

/// The children of `brand` in their order (DTD Brands), and whether they may be missing.
const CHILDREN: &[(&str, bool)] = &[
    ("modname", true),
    ("initname", false),
    ("login_cmd", false),
    ("forcedlogin_cmd", false),
    ("user_cmd", false),
    ("install", false),
    ("installopts", true),
    ("boot", true),
    ("sysboot", true),
    ("halt", true),
    ("shutdown", true),
    ("verify_cfg", true),
    ("verify_adm", true),
    ("postattach", true),
    ("postclone", true),
    ("postinstall", true),
    ("predetach", true),
    ("attach", true),
    ("detach", true),
    ("clone", true),
    ("presnap", true),
    ("postsnap", true),
    ("validatesnap", true),
    ("preuninstall", true),
    ("uninstall", true),
    ("prestatechange", true),
    ("poststatechange", true),
    ("query", true),
];

fn read(name: &str, kind: &str) -> Element {
    document(&std::fs::read_to_string(smf(name)).unwrap(), kind)
}

fn config() -> Element {
    let kind = "brand PUBLIC \"-//Sun Microsystems Inc//DTD Brands//EN\" \"file:///usr/share/lib/xml/dtd/brand.dtd.1\"";
    read("brand/config.xml", kind)
}

fn platform() -> Element {
    let kind = "platform PUBLIC \"-//Sun Microsystems Inc//Zones Platform//EN\" \
                \"file:///usr/share/lib/xml/dtd/zone_platform.dtd.1\"";
    read("brand/platform.xml", kind)
}

fn only(element: &Element, known: &[&str]) {
    for (name, _) in &element.attributes {
        assert!(known.contains(&name.as_str()), "{} with {name}", element.name);
    }
}

#[test]
fn the_brand_is_described_as_libbrand_wants_it() {
    let brand = config();
    assert_eq!((brand.name.as_str(), brand.get("name")), ("brand", "reddwarf"));
    let mut rest = brand.children.as_slice();
    for (name, optional) in CHILDREN {
        let count = rest.iter().take_while(|c| c.name == *name).count();
        assert!(count == 1 || (count == 0 && *optional), "{count} of {name}");
        rest = &rest[count..];
    }
    assert!(!rest.is_empty(), "no privileges");
    for privilege in rest {
        assert_eq!(privilege.name, "privilege", "out of order");
        only(privilege, &["set", "name", "ip-type"]);
        assert!(["default", "prohibited", "required"].contains(&privilege.get("set")), "{privilege:?}");
        assert!(["", "shared", "exclusive"].contains(&privilege.get("ip-type")), "{privilege:?}");
        assert!(PRIVILEGES.contains(&privilege.get("name")), "{privilege:?}");
    }
    // What is required is not prohibited: no zone could have both.
    let names = |set: &str| -> Vec<(&str, &str)> {
        rest.iter().filter(|p| p.get("set") == set).map(|p| (p.get("name"), p.get("ip-type"))).collect()
    };
    let prohibited = names("prohibited");
    for privilege in names("required").iter().chain(&names("default")) {
        assert!(!prohibited.contains(privilege), "{privilege:?}");
    }
    let text = |name: &str| brand.all(name).next().unwrap().text.clone();
    assert_eq!(text("initname"), "/.reddwarf/bin/init");
    assert_eq!(text("install"), "/usr/lib/brand/reddwarf/install %z %R");
    assert_eq!(text("shutdown"), "/.reddwarf/bin/init shutdown");
}

#[test]
fn its_platform_is_described_as_libbrand_wants_it() {
    let platform = platform();
    assert_eq!((platform.get("name"), platform.get("allow-exclusive-ip")), ("reddwarf", "true"));
    for element in &platform.children {
        let (required, optional): (&[&str], &[&str]) = match element.name.as_str() {
            "device" => (&["match"], &["name", "arch", "ip-type"]),
            "symlink" => (&["source", "target"], &[]),
            "global_mount" | "mount" => (&["special", "directory", "type"], &["opt"]),
            other => panic!("element {other}"),
        };
        assert!(element.children.is_empty() && element.text.is_empty(), "{element:?}");
        assert!(required.iter().all(|name| !element.get(name).is_empty()), "{element:?}");
        only(element, &[required, optional].concat());
    }
    // The host's programs can't be changed, nor its devices be used through them.
    for mount in platform.all("global_mount").filter(|m| m.get("type") == "lofs") {
        assert_eq!(mount.get("opt"), "ro,nodevices,nosub", "{mount:?}");
    }
    // zoneadmd makes no zone without a console.
    assert!(platform.all("device").any(|d| (d.get("match"), d.get("name")) == ("zcons/%z/zoneconsole", "zconsole")));
    // No disks, no memory of the kernel, no filters: the zone has no business with them.
    for device in platform.all("device") {
        assert!(!["dsk", "rdsk", "zfs", "ipf", "ipl", "ipnat", "kmem"].contains(&device.get("match")), "{device:?}");
    }
}

fn install(args: &[&str]) -> Output {
    Command::new("/bin/sh")
        .arg(smf("brand/install"))
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap()
}

#[test]
fn its_script_makes_all_that_is_mounted_on_and_tells_nothing_of_the_host() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: files of other owners need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let zonepath = dir.path().join("a zone's path");
    let said = install(&["z", zonepath.to_str().unwrap()]);
    assert!(said.status.success(), "{said:?}");
    let root = zonepath.join("root");
    for mount in platform().children.iter().filter(|e| e.name.ends_with("mount")) {
        let place = root.join(mount.get("directory").trim_start_matches('/'));
        let is_file = ["mntfs", "sharefs"].contains(&mount.get("type"));
        assert_eq!((place.is_file(), place.is_dir()), (is_file, !is_file), "{}", place.display());
    }
    let found = |path: &str| root.join(path).metadata().unwrap_or_else(|e| panic!("{path}: {e}"));
    for (path, mode) in [("", 0o755), ("tmp", 0o1777), ("root", 0o700), ("etc/shadow", 0o400), ("etc/passwd", 0o644)] {
        assert_eq!(found(path).permissions().mode() & 0o7777, mode, "{path}");
    }
    // ipmgmtd and dlmgmtd write there as users of their own.
    for (path, uid) in [("etc/ipadm/ipadm.conf", 16), ("etc/ipadm", 16), ("etc/dladm/datalink.conf", 15)] {
        assert_eq!((found(path).uid(), found(path).gid()), (uid, 65), "{path}");
    }
    let lines = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    assert!(lines("etc/shadow").lines().all(|l| l.contains(":*LK*:") || l.contains(":NP:")), "no password opens it");
    assert!(lines("etc/passwd").lines().all(|l| l.split(':').count() == 7), "{}", lines("etc/passwd"));
    assert!(lines("etc/project").lines().all(|l| l.split(':').count() == 6), "{}", lines("etc/project"));
    assert!(lines("etc/user_attr").starts_with("root::::auths=solaris.*,"), "or ipadm(8) gives no address");
    for user in lines("etc/passwd").lines().map(|l| l.split(':').next().unwrap()) {
        assert!(lines("etc/shadow").lines().any(|l| l.starts_with(&format!("{user}:"))), "{user}");
    }
    // Again, as after a power cut.
    assert!(install(&["z", zonepath.to_str().unwrap()]).status.success());
}

#[test]
fn its_script_says_in_zoneadms_words_what_is_wrong() {
    assert_eq!(install(&["z", "/zones/z", "-s", "/image"]).status.code(), Some(253), "usage");
    assert_eq!(install(&["z", "zones/z"]).status.code(), Some(254), "the zone stays configured");
    let said = install(&["z", "/proc/none/z"]);
    assert_eq!(said.status.code(), Some(254));
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("brand reddwarf: can't make /proc/none/z/root\n"),
        "{said:?}"
    );
    assert!(Path::new(&smf("brand/install")).metadata().unwrap().mode() & 0o111 != 0, "it can be run");
}
