//! What a file says is what it means, whatever values get into it.

use super::*;
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn text(value: &str) -> Text {
    Text::new(value).unwrap()
}

fn worked() -> ZoneConfig {
    let mut zone = ZoneConfig::new(text("lipkg"), text("/zones/rw-web-1"));
    zone.limitpriv = Some(text("default"));
    zone.cpu_shares = Some(200);
    zone.max_lwps = Some(2000);
    zone.max_processes = Some(1000);
    zone.cpu_cap = Some(CpuCap::from_hundredths(150).unwrap());
    zone.memory = Memory { physical: Some(512 << 20), swap: Some(1 << 30), locked: None };
    zone.nets.push(Net {
        physical: text("rwweb0"),
        allowed_address: Some("10.88.0.5/24".parse().unwrap()),
        defrouter: Some("10.88.0.1".parse().unwrap()),
    });
    let options = vec![text("ro"), text("nodevices")];
    let fs = Fs { special: text("/rpool/rw/vol/data"), kind: text("lofs"), raw: None, options };
    zone.fs.insert(text("/data"), fs);
    let mark = Attr { kind: AttrKind::String, value: text("default/web") };
    zone.attrs.insert(AttrName::new("io-reddwarf-pod").unwrap(), mark);
    zone
}

#[test]
fn a_zone_s_file_is_the_one_that_the_real_parser_took() {
    assert_eq!(
        create(&worked()),
        "create -F -b\nset brand=\"lipkg\"\nset zonepath=\"/zones/rw-web-1\"\nset autoboot=false\nset ip-type=exclusive\n\
         set limitpriv=\"default\"\nset cpu-shares=200\nset max-lwps=2000\nset max-processes=1000\n\
         add capped-cpu\nset ncpus=1.50\nend\nadd capped-memory\nset physical=536870912\nset swap=1073741824\nend\n\
         add net\nset physical=\"rwweb0\"\nset allowed-address=\"10.88.0.5/24\"\nset defrouter=\"10.88.0.1\"\nend\n\
         add fs\nset dir=\"/data\"\nset special=\"/rpool/rw/vol/data\"\nset type=\"lofs\"\nadd options \"ro\"\n\
         add options \"nodevices\"\nend\nadd attr\nset name=\"io-reddwarf-pod\"\nset type=string\nset value=\"default/web\"\nend\n\
         verify\ncommit\n"
    );
}

/// What no pod asks for yet, in the order that `add` wants.
#[test]
fn flags_further_controls_and_locked_memory_have_their_text() {
    let mut zone = ZoneConfig::new(text("lipkg"), text("/zones/z"));
    zone.memory = Memory { physical: Some(512 << 20), swap: None, locked: Some(64 << 20) };
    zone.security_flags = SecurityFlags { default: Some(text("aslr")), lower: Some(text("none")), upper: None };
    let value = RctlValue { privilege: RctlPriv::Privileged, limit: 16, action: RctlAction::Deny };
    zone.rctls.insert(RctlName::new("zone.max-shm-ids").unwrap(), vec![value]);
    assert_eq!(
        create(&zone),
        "create -F -b\nset brand=\"lipkg\"\nset zonepath=\"/zones/z\"\nset autoboot=false\nset ip-type=exclusive\n\
         add capped-memory\nset physical=536870912\nset locked=67108864\nend\n\
         add security-flags\nset default=\"aslr\"\nset lower=\"none\"\nend\n\
         add rctl\nset name=zone.max-shm-ids\nadd value (priv=privileged,limit=16,action=deny)\nend\nverify\ncommit\n"
    );
}

/// `export` prints bounds as resource controls (OmniOS) or in part as resources (illumos-gate), lists one by one, members
/// in an order of its own.
#[test]
fn exports_of_both_kinds_of_systems_read_the_same() {
    let head = "create -b\nset zonepath=/zones/rw-web-1\nset brand=lipkg\nset autoboot=false\nset limitpriv=default\n\
                set ip-type=exclusive\nadd fs\nset dir=/data\nset special=/rpool/rw/vol/data\nset type=lofs\nadd options ro\n\
                add options nodevices\nend\nadd net\nset allowed-address=10.88.0.5/24\nset physical=rwweb0\n\
                set defrouter=10.88.0.1\nend\nadd rctl\nset name=zone.cpu-shares\n\
                add value (priv=privileged,limit=200,action=none)\nend\nadd rctl\nset name=zone.max-lwps\n\
                add value (priv=privileged,limit=2000,action=deny)\nend\nadd rctl\nset name=zone.max-processes\n\
                add value (priv=privileged,limit=1000,action=deny)\nend\nadd rctl\nset name=zone.cpu-cap\n\
                add value (priv=privileged,limit=150,action=deny)\nend\nadd rctl\nset name=zone.max-swap\n\
                add value (priv=privileged,limit=1073741824,action=deny)\nend\nadd attr\nset name=io-reddwarf-pod\n\
                set type=string\nset value=default/web\nend\n";
    let omnios =
        "add rctl\nset name=zone.max-physical-memory\nadd value (priv=privileged,limit=536870912,action=deny)\nend\n";
    let gate = "add capped-memory\nset physical=512M\nend\n";
    for tail in [omnios, gate] {
        let read = export(&format!("{head}{tail}")).unwrap();
        assert_eq!(read, worked());
        assert_eq!(edit(&read, &worked()), Ok(None));
    }
}

/// The earlier reddwarf put manifest values between the lines of a command file.
#[test]
fn u10_a_value_that_could_change_a_file_is_no_value() {
    let (long, longer) = ("x".repeat(1001), "a\nset brand=evil\n".repeat(1000));
    for bad in ["", "a\nset brand=evil", "a\"; delete -F; set value=\"", "a\0", "naïve", "tab\there", &long, &longer] {
        assert!(Text::new(bad).is_err(), "{bad:?}");
    }
    for fine in ["a; b", "-F", "a=b", "[x](y)", "#x", "$(reboot)", "'; exit", "\\"] {
        let mut zone = worked();
        zone.bootargs = Some(text(fine));
        assert_eq!(interpret(&create(&zone), None).unwrap(), zone, "{fine}");
    }
    for bad in ["", "-a", "a_b", "a/b", "a b"] {
        assert!(AttrName::new(bad).is_err(), "{bad:?}");
    }
    for bad in ["max-lwps", "zone.", "zone.max lwps", "zone.Max", "zone.a,limit=1"] {
        assert!(RctlName::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_grammar_refuses_what_the_real_one_does() {
    for bad in [
        "set a=",
        "set a=b=c\"",
        "set zonepath=\"\"",
        "set zonepath=\"/a",
        "set a=b c]",
        "add value (priv=\"x\")",
        "add value (priv=x",
        "= a",
        "set a=[b;c]",
        &format!("set a=\"{}\"", "x".repeat(1022)),
    ] {
        assert!(statements(bad).is_err(), "{bad}");
    }
    let fine = "# a comment; and more\nset a#b={x};clear max-lwps\nadd options [ro,\"no devices\"]\nset value=net";
    let list = statements(fine).unwrap();
    assert_eq!(
        list.iter().map(|s| (s.line, s.verb.as_str())).collect::<Vec<_>>(),
        [(2, "set"), (2, "clear"), (3, "add"), (4, "set")]
    );
    assert_eq!(list[0].arguments, [Argument::Property("a#b".into(), Value::Simple("{x}".into()))]);
    assert_eq!(list[2].arguments[1], Argument::Value(Value::List(vec!["ro".into(), "no devices".into()])));
}

#[test]
fn an_edit_is_small_and_says_what_waits_for_a_boot() {
    let live = worked();
    let mut wanted = live.clone();
    wanted.attrs.clear();
    let marks_only = edit(&live, &wanted).unwrap().unwrap();
    assert_eq!(marks_only.script, "remove attr name=\"io-reddwarf-pod\"\nverify\ncommit\n");
    assert_eq!(marks_only.after_boot, BTreeSet::new());

    wanted.max_lwps = None;
    wanted.nets.push(Net {
        physical: text("rwweb0"),
        allowed_address: Some("fd00::5/64".parse().unwrap()),
        defrouter: None,
    });
    let more = edit(&live, &wanted).unwrap().unwrap();
    assert_eq!(more.after_boot, BTreeSet::from(["max-lwps", "net"]));
    // Never one of several on a link: OmniOS would take the first one.
    assert!(more.script.contains("clear max-lwps\nremove -F net\nadd net\n"), "{}", more.script);
    assert_eq!(more.script.matches("add net").count(), 2);

    wanted.brand = text("lx");
    assert_eq!(edit(&live, &wanted), Err(Rebuild("brand")));
}

#[test]
fn a_file_that_zonecfg_would_not_save_is_told_from_one_that_it_would() {
    for bad in [
        "create -b\nset brand=lx\n",
        "create -b\nset brand=lx\nset zonepath=/z\nadd net\nset physical=a0\n",
        "create -b\nset brand=lx\nset zonepath=/z\nset hostid=1\n",
        "create -b\nset brand=lx\nset zonepath=/z\nadd attr\nset name=a\nset type=string\nset value=1\nend\nadd attr\nset name=a\nset type=string\nset value=2\nend\n",
        "create -b\nset brand=lx\nset zonepath=/z\nend\n",
    ] {
        assert!(export(bad).is_err(), "{bad}");
    }
}

fn any_text() -> impl Strategy<Value = Text> {
    "[ !#-~]{1,40}".prop_map(|s| Text::new(s).unwrap())
}

fn any_net() -> impl Strategy<Value = Net> {
    (any_text(), prop::option::of(any::<(u32, bool)>())).prop_map(|(physical, address)| {
        let address: Option<IpNet> = address.map(|(n, six)| match six {
            true => IpNet::new(std::net::Ipv6Addr::from(u128::from(n)).into(), 64).unwrap(),
            false => IpNet::new(std::net::Ipv4Addr::from(n).into(), 24).unwrap(),
        });
        Net { physical, allowed_address: address, defrouter: address.map(|a| a.addr()) }
    })
}

fn any_zone() -> impl Strategy<Value = ZoneConfig> {
    let numbers = prop::option::of(any::<u64>());
    let memory = (numbers.clone(), numbers.clone(), numbers.clone());
    let fs = (any_text(), any_text(), prop::option::of(any_text()), prop::collection::vec(any_text(), 0..3));
    let fs = fs.prop_map(|(special, kind, raw, options)| Fs { special, kind, raw, options });
    let kinds = prop::sample::select(vec![AttrKind::String, AttrKind::Boolean, AttrKind::Int, AttrKind::Uint]);
    let attr = (kinds, any_text()).prop_map(|(kind, value)| Attr { kind, value });
    let value = (any::<bool>(), any::<u64>(), any::<bool>()).prop_map(|(basic, limit, deny)| RctlValue {
        privilege: if basic { RctlPriv::Basic } else { RctlPriv::Privileged },
        limit,
        action: if deny { RctlAction::Deny } else { RctlAction::None },
    });
    let rctl = "zone\\.other[a-z-]{0,9}".prop_map(|n| RctlName::new(n).unwrap());
    let texts = prop::collection::vec(prop::option::of(any_text()), 6);
    (
        texts,
        memory,
        (numbers.clone(), numbers.clone(), numbers, prop::option::of(1_u32..10_000), any::<bool>()),
        prop::collection::vec(any_net(), 0..3),
        prop::collection::btree_map(any_text(), fs, 0..3),
        (prop::collection::btree_set(any_text(), 0..3), prop::collection::btree_set(any_text(), 0..3)),
        prop::collection::btree_map("[a-z0-9][a-z0-9.-]{0,9}".prop_map(|n| AttrName::new(n).unwrap()), attr, 0..3),
        prop::collection::btree_map(rctl, prop::collection::vec(value, 1..3), 0..3),
    )
        .prop_map(|(texts, memory, numbers, nets, fs, (devices, datasets), attrs, rctls)| ZoneConfig {
            brand: text("lipkg"),
            zonepath: text("/zones/z"),
            autoboot: numbers.4,
            bootargs: texts[0].clone(),
            limitpriv: texts[1].clone(),
            fs_allowed: texts[2].clone(),
            cpu_shares: numbers.0,
            cpu_cap: numbers.3.map(|n| CpuCap::from_hundredths(n).unwrap()),
            memory: Memory { physical: memory.0, swap: memory.1, locked: memory.2 },
            max_lwps: numbers.1,
            max_processes: numbers.2,
            rctls,
            security_flags: SecurityFlags {
                default: texts[3].clone(),
                lower: texts[4].clone(),
                upper: texts[5].clone(),
            },
            nets,
            fs,
            devices,
            datasets,
            attrs,
        })
}

proptest! {
    /// Whatever gets into a configuration, its file means that configuration and nothing else.
    #[test]
    fn a_file_means_its_configuration(zone in any_zone()) {
        prop_assert_eq!(interpret(&create(&zone), None), Ok(zone));
    }

    #[test]
    fn an_edit_leads_from_one_to_the_other(live in any_zone(), wanted in any_zone()) {
        match edit(&live, &wanted).unwrap() {
            Some(edit) => prop_assert_eq!(interpret(&edit.script, Some(live)), Ok(wanted)),
            None => prop_assert_eq!(live, wanted),
        }
    }

    #[test]
    fn any_input_is_read_or_refused(input in "[a-z =\\[\\]();,\"#\\n-]{0,60}") {
        let _ = interpret(&input, None);
    }
}

/// A thousand configurations are built and compared within the budget of a pass: by time where that says something, by counts in
/// any build. Each is written once and read once, and one that is as it should be has nothing written about it.
#[test]
#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn a_thousand_zones_are_built_and_compared() {
    const ZONES: usize = 1000;
    let zones: Vec<ZoneConfig> = (0..ZONES)
        .map(|i| {
            let mut zone = worked();
            zone.zonepath = text(&format!("/zones/{i}"));
            zone
        })
        .collect();
    for counter in [&work::READ, &work::WRITTEN] {
        counter.set(0);
    }
    let statements = create(&worked()).lines().count();
    let written = work::WRITTEN.replace(0);
    let began = std::time::Instant::now();
    for zone in &zones {
        let live = export(&create(zone)).unwrap();
        assert_eq!(edit(&live, zone), Ok(None));
    }
    let took = began.elapsed();
    println!("1,000 configurations built, read and compared in {} ms", took.as_millis());
    assert_eq!(work::READ.get(), ZONES * statements);
    assert!(written > 0);
    assert_eq!(work::WRITTEN.get(), ZONES * written);
    if !cfg!(debug_assertions) {
        assert!(took.as_millis() <= 100, "{took:?}");
    }
}
