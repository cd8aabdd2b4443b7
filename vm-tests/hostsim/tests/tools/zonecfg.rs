//! zonecfg's grammar and its exit status.

use crate::common::Bench;
use reddwarf_hostsim::system::System;

const NET: &str = "add net\nset physical=rwa0\nset allowed-address=10.0.0.5/24\nend\n";

#[test]
fn the_worked_input_is_taken_and_exported_as_something_that_means_the_same() {
    let bench = Bench::new();
    let more = "set limitpriv=\"default\"\nset cpu-shares=200\nset max-lwps=2000\nset max-processes=1000\nadd capped-cpu\nset ncpus=1.5\nend\n\
                add capped-memory\nset physical=512m\nset swap=1g\nend\nadd net\nset physical=\"rwweb0\"\nset allowed-address=\"10.88.0.5/24\"\n\
                set defrouter=\"10.88.0.1\"\nend\nadd fs\nset dir=\"/data\"\nset special=\"/rpool/rw/vol/data\"\nset type=lofs\n\
                add options [ro,nodevices]\nend\nadd attr\nset name=\"io-reddwarf-pod\"\nset type=string\nset value=\"default/web\"\nend\nverify\ncommit\n";
    let answer = bench.zonecfg("rw-web-1", &bench.text("rw-web-1", more));
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    let text = bench.ok("zonecfg -z rw-web-1 export");
    let read = reddwarf_illumos::zonecfg::export(&text).unwrap();
    assert_eq!(read.memory.swap, Some(1 << 30));
    assert_eq!(read.cpu_cap.unwrap().hundredths(), 150);
    assert_eq!((read.max_lwps, read.cpu_shares), (Some(2000), Some(200)));
    // What was exported makes the same again.
    assert_eq!(bench.zonecfg("again", &text).code, 0);
    assert_eq!(bench.ok("zonecfg -z again export"), text);
    assert!(bench.ok("zonecfg -z rw-web-1 info").contains("[max-lwps: 2000]"));
}

#[test]
fn an_error_in_a_file_leaves_what_came_before_it() {
    let bench = Bench::new();
    let answer = bench.zonecfg("a", &bench.text("a", "set max-lwps=5\nset bootargs=never\n"));
    assert_eq!(answer.code, 1);
    assert!(answer.err.starts_with("On line 6 of "), "{}", answer.err);
    assert!(!bench.ok("zonecfg -z a export").contains("never"));
    // Through standard input it goes on behind the error.
    let text = bench.text("b", "set max-lwps=5\nset bootargs=always\n");
    assert_eq!(bench.lab.run_reading("zonecfg", &["-z", "b", "-f", "-"], &text).unwrap().code, 1);
    assert!(bench.ok("zonecfg -z b export").contains("set bootargs=always"));
    // A resource without its end keeps all of it from being saved.
    assert_eq!(bench.zonecfg("c", &bench.text("c", "add net\nset physical=a0\n")).code, 1);
    bench.fails("zonecfg -z c export", 1, "c: No such zone configured");
}

#[test]
fn what_is_no_error_to_the_exit_code() {
    let bench = Bench::new();
    bench.installed("a", NET);
    // The whole file against an installed zone: refused in part, the rest is added to what is there.
    let answer = bench.zonecfg("a", &bench.text("a", "add net\nset physical=rwb0\nend\n"));
    assert_eq!(answer.code, 0);
    assert!(answer.err.contains("create not allowed"), "{}", answer.err);
    let export = bench.ok("zonecfg -z a export");
    assert_eq!(export.matches("add net").count(), 2, "{export}");
    // A control that nobody knows is saved, and shows at the boot.
    let more = "add rctl\nset name=zone.no-such\nadd value (priv=privileged,limit=1,action=deny)\nend\n";
    bench.installed("b", more);
    bench.fails("zoneadm -z b boot", 1, "could not set rctl zone.no-such");
    assert_eq!(bench.state("b"), "installed");
}

#[test]
fn the_grammar_has_no_escapes_and_tokens_have_an_end() {
    let bench = Bench::new();
    for bad in ["set bootargs=\"\"", "set bootargs=a b", "set bootargs=a=b", "set bootargs=a(b", "set bootargs='a b'"] {
        assert_eq!(bench.zonecfg("a", &bench.text("a", &format!("{bad}\n"))).code, 1, "{bad}");
    }
    for fine in ["set bootargs=\"a;b=c [d] (e)\"", "set bootargs=net", "set bootargs=a#b,c:d/e", "set bootargs=\\"] {
        let answer = bench.zonecfg("a", &bench.text("a", &format!("{fine}\n")));
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{fine}");
    }
    // Too long a token ends the program, and nothing is kept.
    let long = format!("set bootargs=\"{}\"\n", "x".repeat(1100));
    let answer = bench.zonecfg("long", &bench.text("long", &long));
    assert!(answer.code == 1 && answer.err.contains("input string is too long"), "{}", answer.err);
    bench.fails("zonecfg -z long export", 1, "No such zone configured");
}

#[test]
fn names_values_and_duplicates_are_checked() {
    let bench = Bench::new();
    bench.fails("zonecfg -z SUNWa create", 2, "Bogus zone name");
    bench.fails("zonecfg -z a!b create", 2, "usage");
    for (bad, message) in [
        ("add net\nset physical=vnic_default_nginx\nend", "invalid physical interface name"),
        ("add net\nset physical=rwa07\nend", "invalid physical interface name"),
        ("add net\nset physical=rwa0\nset allowed-address=fd00::1\nend", "prefix"),
        ("add net\nset physical=rwa0\nset defrouter=10.0.0.1\nend", "defrouter requires allowed-address"),
        ("set brand=reddwarf-unknown", "reddwarf-unknown: unknown brand."),
        ("add attr\nset name=a_b\nset type=string\nset value=x\nend", "Invalid attribute name"),
        ("add attr\nset name=a\nset type=uint\nset value=x\nend", "invalid value"),
        ("add capped-memory\nset swap=10m\nend", "at least 50M"),
        ("add capped-memory\nset physical=100m\nset locked=200m\nend", "locked cap"),
        ("add fs\nset dir=/a\nset special=/b\nend", "type not specified"),
        (
            "set max-lwps=2000\nadd rctl\nset name=zone.max-lwps\nadd value (priv=privileged,limit=1,action=deny)\nend",
            "already exists",
        ),
        ("add rctl\nset name=zone.max-lwps\nadd value (priv=\"privileged\",limit=1,action=deny)\nend", "syntax error"),
        ("set no-such=1", "syntax error"),
        ("add net\nset physical=rwa0\nend\nadd net\nset physical=rwa0\nend", "already exists"),
        ("set limitpriv=default,no_such_privilege", "not known"),
    ] {
        let answer = bench.zonecfg("a", &bench.text("a", &format!("{bad}\n")));
        assert!(answer.code == 1 && answer.err.contains(message), "{bad}: {}", answer.err);
    }
}

#[test]
fn of_several_nets_on_a_link_omnios_takes_the_first() {
    let two = "add net\nset physical=rwa0\nset allowed-address=10.0.0.5/24\nend\nadd net\nset physical=rwa0\nset allowed-address=fd00::5/64\nend\n";
    for (system, gone) in [(System::Omnios, "10.0.0.5/24"), (System::Gate, "fd00::5/64")] {
        let bench = Bench::of(system);
        let brand = if system == System::Gate { "ipkg" } else { "lipkg" };
        let text = bench.text("a", two).replace("lipkg", brand);
        assert_eq!(bench.zonecfg("a", &text).code, 0);
        assert_eq!(bench.zonecfg("a", "remove net physical=rwa0 allowed-address=fd00::5/64\n").code, 0);
        let export = bench.ok("zonecfg -z a export");
        assert!(!export.contains(gone), "{system:?}\n{export}");
        assert_eq!(export.matches("add net").count(), 1);
        assert_eq!(bench.zonecfg("a", "remove -F net\n").code, 0);
        assert!(!bench.ok("zonecfg -z a export").contains("add net"));
    }
}

#[test]
fn deleting_needs_force_and_a_zone_that_is_down() {
    let bench = Bench::new();
    bench.installed("a", "");
    bench.fails("zonecfg -z a delete", 1, "-F not specified");
    bench.fails("zonecfg -z b delete -F", 1, "b: No such zone configured");
    bench.ok("zoneadm -z a boot");
    bench.fails("zonecfg -z a delete -F", 1, "Zone state is invalid for the requested operation");
    bench.ok("zoneadm -z a halt");
    // An installed zone's files stay.
    bench.ok("zonecfg -z a delete -F");
    assert!(bench.zonepath("a").join("root").is_dir());
    assert_eq!(bench.state("a"), "none");
}

#[test]
fn creating_what_is_there_needs_force() {
    let bench = Bench::new();
    bench.configured("a", "");
    let answer = bench.zonecfg("a", "create -b\nset brand=lx\n");
    assert!(
        answer.code == 1 && answer.err.contains("Zone exists, input not from terminal and -F not specified"),
        "{}",
        answer.err
    );
    // Members are set within resources only, globals outside only.
    assert_eq!(bench.zonecfg("a", "set dir=/x\n").code, 1);
    assert_eq!(bench.zonecfg("a", "add attr\nset brand=lx\n").code, 1);
}
