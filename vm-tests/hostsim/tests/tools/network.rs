//! Links, addresses, translation, filters.

use crate::common::Bench;

#[test]
fn links_have_names_by_the_rule_and_are_busy_while_used() {
    let bench = Bench::new();
    for bad in ["vnic_default_nginx", "rwa07", "rw-a0", "0a0", &"a".repeat(32)] {
        bench.fails(&format!("dladm create-etherstub -t {bad}"), 1, &format!("dladm: invalid link name '{bad}'"));
    }
    bench.ok("dladm create-etherstub -t rwstub0");
    bench.fails("dladm create-etherstub -t rwstub0", 1, "dladm: etherstub creation failed: object already exists");
    bench.fails("dladm create-vnic -l rwstub0 rwa0", 1, "can't create persistent object on top of temporary object");
    bench.ok("dladm create-vnic -t -l rwstub0 -m 2:8:20:1e:0:7 rwa0");
    bench.fails("dladm create-vnic -t -l rwstub0 rwa0", 1, "vnic creation over rwstub0 failed: object already exists");
    bench.fails("dladm create-vnic -t -l rwstub0 -m 02:08:20:1e:00:07 rwb0", 1, "MAC address is already in use");
    assert_eq!(bench.ok("dladm show-vnic -p -o link,over,macaddress,vid"), "rwa0:rwstub0:2\\:8\\:20\\:1e\\:0\\:7:0\n");
    bench.fails("dladm show-link -p -o macaddress", 1, "invalid output field");
}

#[test]
fn a_single_field_is_not_escaped_and_missing_links_are_told() {
    let bench = Bench::new();
    bench.ok("dladm create-vnic -t -l net0 -m 2:8:20:1:2:3 rwa0");
    assert_eq!(bench.ok("dladm show-vnic -p -o macaddress rwa0"), "2:8:20:1:2:3\n");
    bench.fails("dladm show-vnic -p -o link rwb0", 1, "dladm: invalid vnic name 'rwb0': object not found");
    bench.fails("dladm show-etherstub -t", 1, "usage");
    bench.fails("dladm delete-vnic -t rwb0", 1, "object not found");
    bench.fails("dladm set-linkprop -t -p maxbw=1K rwa0", 1, "minimum value for maxbw is 1200K");
    bench.ok("dladm set-linkprop -t -p maxbw=100M rwa0");
    assert_eq!(bench.ok("dladm show-linkprop -c -o link,value -p maxbw rwa0"), "rwa0:100M\n");
}

/// What makes boots fail: protection that is set already, links plumbed in the global zone, links that are not there.
#[test]
fn zones_take_their_links_and_give_them_back() {
    let bench = Bench::new();
    let net = "add net\nset physical=rwa0\nset allowed-address=10.0.0.5/24\nset defrouter=10.0.0.1\nend\n";
    bench.installed("a", net);
    bench.fails("zoneadm -z a boot", 1, "failed to add network device rwa0");
    bench.ok("dladm create-etherstub -t rwstub0");
    bench.ok("dladm create-vnic -t -l rwstub0 rwa0");
    bench.ok("dladm set-linkprop -t -p protection=ip-nospoof rwa0");
    bench.fails("zoneadm -z a boot", 1, "Protection is already set");
    bench.ok("dladm reset-linkprop -t -p protection rwa0");
    bench.ok("ipadm create-if -t rwa0");
    bench.fails("zoneadm -z a boot", 1, "failed to add network device");
    bench.ok("ipadm delete-if rwa0");
    bench.ok("zoneadm -z a boot");
    assert_eq!(
        bench.ok("dladm show-linkprop -c -o value,property -p protection,allowed-ips rwa0"),
        "ip-nospoof:protection\n10.0.0.5:allowed-ips\n"
    );
    bench.fails("dladm delete-vnic -t rwa0", 1, "vnic deletion failed: link busy");
    bench.fails("dladm delete-etherstub -t rwstub0", 1, "etherstub deletion failed: link busy");
    bench.ok("zoneadm -z a halt");
    assert_eq!(bench.ok("dladm show-linkprop -c -o value,property -p protection rwa0"), ":protection\n");
    bench.ok("dladm delete-vnic -t rwa0");
    bench.ok("dladm delete-etherstub -t rwstub0");
}

#[test]
fn addresses_have_objects_and_ipv6_needs_a_link_local_one_first() {
    let bench = Bench::new();
    bench.ok("dladm create-etherstub -t rwstub0");
    bench.ok("dladm create-vnic -t -l rwstub0 rwgw0");
    bench.fails(
        "ipadm create-addr -T static -a local=10.88.0.1/24 rwgw0/v4",
        1,
        "Persistent operation on temporary object",
    );
    bench.ok("ipadm create-addr -t -T static -a local=10.88.0.1/24 rwgw0/v4");
    bench.fails(
        "ipadm create-addr -t -T static -a local=10.88.0.1/24 rwgw0/v4",
        1,
        "ipadm: Could not create address: Address object already exists",
    );
    bench.fails("ipadm create-addr -t -T static -a local=fd00::1/64 rwgw0/v6", 1, "Can't assign requested address");
    bench.ok("ipadm create-addr -t -T addrconf rwgw0/ll");
    bench.ok("ipadm create-addr -t -T static -a local=fd00::1/64 rwgw0/v6");
    let shown = bench.ok("ipadm show-addr -p -o addrobj,type,state,addr");
    let read = reddwarf_illumos::ipadm::addresses(&shown).unwrap();
    assert_eq!(read["rwgw0/v6"].address, Some("fd00::1/64".parse().unwrap()));
    bench.fails("dladm delete-vnic -t rwgw0", 1, "link busy");
    bench.fails("ipadm delete-addr rwgw0/none", 1, "could not delete address: Object not found");
    bench.fails("ipadm show-addr -p -o addr rwx0/v4", 1, "Object not found");
    bench.ok("ipadm set-prop -t -p forwarding=on ipv4");
    assert_eq!(bench.ok("ipadm show-prop -c -p forwarding -o current ipv4"), "on\n");
    bench.ok("ipadm delete-if rwgw0");
    bench.fails("ipadm delete-if rwgw0", 1, "Interface does not exist");
    assert!(bench.ok("route -n get 8.8.8.8").contains("interface: net0"));
}

#[test]
fn an_interface_has_as_many_addresses_as_objects() {
    let bench = Bench::new();
    let create = |address: &str, object: &str| format!("ipadm create-addr -t -T static -a local={address} {object}");
    bench.ok(&create("192.0.2.64/32", "net0/rwlbone"));
    bench.ok(&create("192.0.2.65/32", "net0/rwlbtwo"));
    bench.fails(&create("192.0.2.66/32", "net0/rwlbtwo"), 1, "Could not create address: Address object already exists");
    bench.fails(&create("192.0.2.64/32", "lo0/rwlbone"), 1, "Could not create address: Address already in use");
    bench.fails(&create("192.0.2.66/32", "net0/rw-lb"), 1, "Invalid argument provided");
    bench.fails(&create("192.0.2.66/32", "net7/rwlb"), 1, "Datalink does not exist");
    // The loopback takes any, of IPv6 too, and keeps its own.
    bench.ok(&create("203.0.113.9/32", "lo0/rwlbone"));
    bench.ok(&create("2001:db8::40/128", "lo0/rwlbsix"));
    bench.fails(&create("203.0.113.10/32", "lo0/v4"), 1, "Address object already exists");
    bench.fails(&create("127.0.0.1/32", "net0/rwlblo"), 1, "Address already in use");
    let fields = "ipadm show-addr -p -o addrobj,persistent,addr";
    let shown = bench.ok(fields);
    assert!(
        shown.contains("net0/v4:U--:192.0.2.2/24\n") && shown.contains("net0/rwlbtwo:---:192.0.2.65/32\n"),
        "{shown}"
    );
    assert!(shown.contains("lo0/rwlbsix:---:2001\\:db8\\:\\:40/128\n"), "{shown}");
    bench.ok("ipadm delete-addr net0/rwlbone");
    bench.fails("ipadm delete-addr net0/rwlbone", 1, "could not delete address: Object not found");
    bench.lab.reboot().unwrap();
    let shown = bench.ok(fields);
    assert_eq!(shown, "lo0/v4:U--:127.0.0.1/8\nlo0/v6:U--:\\:\\:1/128\nnet0/v4:U--:192.0.2.2/24\n");
}

#[test]
fn rules_are_loaded_line_by_line() {
    let bench = Bench::new();
    let rules = "rdr rwgw0 10.96.0.5/32 port 80 -> 10.88.0.5 port 8080 tcp round-robin\nmap net0 10.88.0.0/24 -> 0/32\nnonsense\nmap net1 10.88.0.0/24 -> 0/32\n";
    let check = bench.lab.run_reading("ipnat", &["-n", "-f", "-"], rules).unwrap();
    assert!(check.code == 1 && check.err.contains("line 3"), "{}", check.err);
    assert_eq!(bench.ok("ipnat -lR"), "List of active MAP/Redirect filters:\n\nList of active sessions:\n");
    // Not atomic: what came before the bad line is in force.
    assert_eq!(bench.lab.run_reading("ipnat", &["-CF", "-f", "-"], rules).unwrap().code, 1);
    let listed = bench.ok("ipnat -lR");
    assert!(listed.contains("map net0 10.88.0.0/24 -> 0.0.0.0/32\n") && !listed.contains("net1"), "{listed}");
    // A duplicate is told, and is no error.
    let again = bench.lab.run_reading("ipnat", &["-f", "-"], "map net0 10.88.0.0/24 -> 0/32\n").unwrap();
    assert!(again.code == 0 && again.err.contains("File exists"), "{}", again.err);
    let removed = bench.lab.run_reading("ipnat", &["-r", "-f", "-"], "map net0 10.88.0.0/24 -> 0/32\n").unwrap();
    assert_eq!((removed.code, removed.err.as_str()), (0, ""));
    // Somebody refreshes ipfilter: all rules are gone.
    bench.ok("svcadm refresh svc:/network/ipfilter:default");
    assert!(!bench.ok("ipnat -lR").contains("rdr"));
}

#[test]
fn filters_are_swapped_as_a_whole() {
    let bench = Bench::new();
    let load = |text: &str| bench.lab.run_reading("ipf", &["-I", "-Fa", "-f", "-", "-s"], text).unwrap();
    assert_eq!(load("pass in quick proto tcp from any to any port = 22 keep state\nblock in all\n").code, 0);
    let active = || bench.lab.state().unwrap().filters[""].active.clone();
    assert_eq!(active().v4.len(), 2);
    assert_eq!(load("pass in all\nblock sideways\n").code, 1);
    assert_eq!(active().v4.len(), 2, "what is in force stays");
}

/// Each zone's filter has to be enabled, each family be loaded by itself; most failures end with 0.
#[test]
fn filters_of_zones_are_their_own() {
    let bench = Bench::new();
    bench
        .lab
        .change(|state| {
            let up = reddwarf_hostsim::state::ZoneState::Running;
            state.zones.insert("web".into(), reddwarf_hostsim::state::Zone { state: up, ..Default::default() });
        })
        .unwrap();
    let answer = |args: &str, text: &str| {
        let words: Vec<&str> = args.split(' ').collect();
        let answer = bench.lab.run_reading("ipf", &words, text).unwrap();
        (answer.code, answer.err)
    };
    let fine = (0, String::new());
    let rule = "block in all\n";
    assert_eq!(answer("-G -I -Fa -f - web", rule), (1, "ioctl(SIOCIPFFL): I/O error\n".to_owned()));
    assert_eq!(answer("-G -I -f - web", rule), (0, "1:ioctl(add/insert rule): I/O error\n".to_owned()));
    assert_eq!(answer("-G -s web", ""), (0, "ioctl(SIOCSWAPA): I/O error\n".to_owned()));
    assert_eq!(answer("-GE web", ""), fine);
    assert_eq!(answer("-G -E web", ""), fine, "once more is no error");
    assert_eq!(answer("-G -I -Fa -f - web", rule), fine);
    assert_eq!(answer("-G -I -f - web", rule), (0, "1:ioctl(add/insert rule): File exists\n".to_owned()));
    let six = "block in quick from fd00::1/128 to any\n";
    let refused = (1, "Bad value specified for netmask error at \"128\", line 1\n".to_owned());
    assert_eq!(answer("-G -I -f - web", six), refused);
    assert_eq!(answer("-6 -G -I -Fa -f - web", six), fine);
    assert_eq!(answer("-G -s web", ""), fine);
    assert_eq!(answer("-G -y web", ""), fine);
    let mut filters = bench.lab.state().unwrap().filters;
    let web = filters.remove("gz/web").unwrap();
    assert_eq!(
        (web.active.v4, web.active.v6),
        (vec![rule.trim().to_owned()], vec![six.trim().to_owned()]),
        "both at once"
    );
    assert_eq!(filters[""].active, Default::default(), "the global zone's own is another");
    assert_eq!(answer("-G -s none", ""), (0, "Could not find running zone: none\n".to_owned()));
    assert_eq!(answer("-G -Fa none", ""), (1, "Could not find running zone: none\n".to_owned()));
    // Without its filter the global zone has no translation either.
    bench.ok("svcadm disable svc:/network/ipfilter:default");
    assert!(bench.ok("ipf -V").contains("Running: no"));
    bench.fails("ipnat -lR", 1, "ioctl(SIOCGNATS): I/O error");
    assert_eq!(bench.lab.run_reading("ipnat", &["-n", "-f", "-"], "map net0 10.0.0.0/8 -> 0/32\n").unwrap().code, 0);
}

#[test]
fn services_answer_by_pattern() {
    let bench = Bench::new();
    assert_eq!(bench.ok("svcs -H -o state svc:/network/ipfilter:default"), "online\n");
    bench.fails("svcs -H -o state svc:/no/such", 1, "svcs: Pattern 'svc:/no/such' doesn't match any instances");
}

/// ILB by what its sources refuse, in their words.
#[test]
fn the_load_balancer_keeps_its_rules() {
    let bench = Bench::new();
    let group = "ilbadm create-servergroup -s server=10.0.0.1:80,10.0.0.2:80 sg1";
    bench.fails(group, 1, "ilbadm: socket() failed");
    // Its service waits for the services of forwarding.
    bench.ok("ipadm set-prop -t -p forwarding=on ipv4");
    bench.ok("svcadm enable svc:/network/loadbalancer/ilb:default");
    assert_eq!(bench.ok("svcs -H -o state svc:/network/loadbalancer/ilb:default"), "offline\n");
    bench.fails("ilbadm show-rule -p -o rulename", 1, "socket() failed");
    bench.ok("svcadm enable svc:/network/ipv4-forwarding:default");
    assert_eq!(bench.ok("ilbadm show-rule -p -o rulename"), "");

    // Groups: names, one list behind one keyword, each address once, one family.
    bench.ok(group);
    bench.fails(group, 1, "servergroup already exists");
    bench.fails("ilbadm create-servergroup a-group-too-long", 1, "is too long - must not exceed 14 chars");
    let twice = "ilbadm create-servergroup -s server=10.0.0.1:80,server=10.0.0.2:80 sg2";
    bench.fails(twice, 1, "server=10.0.0.2:80: address is invalid");
    bench.fails("ilbadm create-servergroup -s server=fd00::1 sg2", 1, "syntax failure");
    bench.fails("ilbadm create-servergroup -s server=10.0.0.1:80,[fd00::1]:80 sg2", 1, "address family mismatch");
    bench.fails("ilbadm add-server -s server=10.0.0.1:81 sg1", 1, "cannot add 10.0.0.1 to sg1: object already exists");
    bench.fails("ilbadm add-server -s server=10.0.0.3:80 sg2", 1, "no such/no more element(s)");
    bench.ok("ilbadm create-servergroup empty");

    // Rules: what they need, and what they may not say.
    let rule = |more: &str, name: &str| {
        format!("ilbadm create-rule -e -i vip=192.0.2.10,port=80,protocol=tcp -m lbalg=rr,type={more} {name}")
    };
    let half = |name: &str| rule("HALF-NAT -o servergroup=sg1", name);
    for (line, why) in [
        (half("a-rule-with-a-long-na"), "is too long - must not exceed 19 chars"),
        (rule("HALF-NAT -o servergroup=sg9", "r1"), "cannot find specified server group"),
        (rule("HALF-NAT -o servergroup=empty", "r1"), "servergroup does not contain any servers"),
        (rule("HALF-NAT", "r1"), "servergroup name missing"),
        (rule("NAT -o servergroup=sg1", "r1"), "proxy-src is either missing"),
        (rule("HALF-NAT,proxy-src=10.0.0.9 -o servergroup=sg1", "r1"), "proxy-src not allowed"),
        (rule("HALF-NAT,pmask=/32 -o servergroup=sg1", "r1"), "use of stickymask requires -p option"),
        (rule("HALF-NAT -t persist-timeout=0 -o servergroup=sg1", "r1"), "persist-timeout: invalid value"),
        (rule("HALF-NAT -h hc-name=hc1 -o servergroup=sg1", "r1"), "missing healthcheck info"),
        ("ilbadm create-rule -p -m lbalg=rr,type=h,pmask=32 r1".into(), "requires that VIP be specified first"),
        ("ilbadm create-rule -e -i vip=fd00::5,port=80 -m lbalg=rr,type=h -o servergroup=sg1 r1".into(), "mismatch"),
        ("ilbadm create-rule -e -i vip=127.0.0.1,port=80 -m lbalg=rr,type=h -o servergroup=sg1 r1".into(), "invalid"),
    ] {
        bench.fails(&line, 1, why);
    }
    bench.ok(&half("r1"));
    bench.fails(&half("r1"), 1, "specified rule name already exists");
    bench.fails(&half("r2"), 1, "object already exists");
    bench.fails("ilbadm delete-servergroup sg1", 1, "its in use with other active rules");

    // What is shown: the kernel's own times, and that -p alone keeps no client.
    bench.ok(&format!("{} r3", rule("NAT,proxy-src=10.0.0.9 -p -o servergroup=sg1", "").trim().replace("=80", "=81")));
    let fields = "rulename,status,vip,port,protocol,lbalg,type,proxy-src,pmask,nat-timeout,persist-timeout";
    assert_eq!(
        bench.ok(&format!("ilbadm show-rule -p -o {fields}")),
        "r1:E:192.0.2.10:80:TCP:roundrobin:HALF-NAT:::120:0\nr3:E:192.0.2.10:81:TCP:roundrobin:NAT:10.0.0.9-10.0.0.9::120:0\n"
    );
    bench.fails("ilbadm show-rule -p", 1, "option -p requires -o");
    let groups = "ilbadm show-servergroup -p -o sgname,serverid,minport,maxport,ip_address";
    assert_eq!(bench.ok(groups), "empty::::\nsg1:_sg1.0:80:80:10.0.0.1\nsg1:_sg1.1:80:80:10.0.0.2\n");
    bench.ok("ilbadm disable-server _sg1.0");
    let servers = "ilbadm show-server -p -o serverid,status,rulename";
    assert_eq!(bench.ok(servers), "_sg1.0:D:r1\n_sg1.1:E:r1\n_sg1.0:D:r3\n_sg1.1:E:r3\n");
    bench.ok("ilbadm enable-server _sg1.0");
    bench.fails("ilbadm enable-server _sg1.7", 1, "no such/no more element(s): _sg1.7");

    // A name that was given last is given again, and refused while connections hold it.
    bench.lab.change(|state| state.balancer.connected.insert("_sg1.1".into())).unwrap();
    bench.ok("ilbadm remove-server -s server=_sg1.1 sg1");
    bench.fails(
        "ilbadm remove-server -s server=_sg1.1 sg1",
        1,
        "cannot remove _sg1.1 from sg1: cannot find specified server",
    );
    bench.fails("ilbadm add-server -s server=10.0.0.3:80 sg1", 1, "cannot add 10.0.0.3 to sg1: invalid argument(s)");
    // All of it outlasts a boot, but connections.
    bench.lab.reboot().unwrap();
    bench.ok("ilbadm add-server -s server=10.0.0.3:80 sg1");
    assert!(bench.ok(groups).contains("sg1:_sg1.1:80:80:10.0.0.3\n"));
    bench.ok("ilbadm delete-rule r1 r3");
    bench.fails("ilbadm delete-rule r1", 1, "specified rule does not exist");
    bench.ok("ilbadm delete-servergroup sg1");
}
