//! The zones' states, and what runs in them.

use crate::common::Bench;
use reddwarf_hostsim::state::ZoneState;
use std::time::Duration;

/// What each operation says in each state: code, part of the message, the state afterwards.
#[test]
fn every_operation_in_every_state() {
    use ZoneState::{
        Configured as C, Down as D, Incomplete as I, Installed as Z, Mounted as M, Ready as Y, Running as R,
        ShuttingDown as S,
    };
    let refused = "";
    type Row = [(i32, &'static str, ZoneState); 8];
    let table: [(&str, Row); 6] = [
        (
            "install",
            [
                (0, "", Z),
                (1, "zone is incomplete; uninstall required.", I),
                (1, "is already installed.", Z),
                (1, refused, Y),
                (1, refused, M),
                (1, refused, R),
                (1, refused, S),
                (1, refused, D),
            ],
        ),
        (
            "ready",
            [
                (1, "must be installed before ready.", C),
                (1, "incomplete", I),
                (0, "", Y),
                (1, "already ready", Y),
                (1, refused, M),
                (1, refused, R),
                (1, refused, S),
                (1, refused, D),
            ],
        ),
        (
            "boot",
            [
                (1, "must be installed before boot.", C),
                (1, "incomplete", I),
                (0, "", R),
                (0, "", R),
                (1, refused, M),
                (0, "zone is already booted", R),
                (1, refused, S),
                (1, refused, D),
            ],
        ),
        (
            "halt",
            [
                (1, refused, C),
                (1, refused, I),
                (0, "zone is already halted", Z),
                (0, "", Z),
                (1, "unmount", M),
                (0, "", Z),
                (0, "", Z),
                (0, "", Z),
            ],
        ),
        (
            "shutdown",
            [
                (1, "not running", C),
                (1, "not running", I),
                (1, "not running", Z),
                (1, "not running", Y),
                (1, "not running", M),
                (1, "not running", R),
                (1, "not running", S),
                (1, "not running", D),
            ],
        ),
        (
            "uninstall -F",
            [
                (1, "is already in state 'configured'.", C),
                (0, "", C),
                (0, "", C),
                (1, refused, Y),
                (1, refused, M),
                (1, refused, R),
                (1, refused, S),
                (1, refused, D),
            ],
        ),
    ];
    let bench = Bench::new();
    for (operation, row) in table {
        for (state, (code, message, after)) in ZoneState::ALL.into_iter().zip(row) {
            bench.configured("a", "");
            if state != C {
                bench.ok("zoneadm -z a install");
            }
            bench.lab.force("a", state).unwrap();
            let answer = bench.run(&format!("zoneadm -z a {operation}"));
            assert_eq!(answer.code, code, "{operation} on {}: {}", state.word(), answer.err);
            assert!(answer.err.contains(message), "{operation} on {}: {}", state.word(), answer.err);
            assert!(answer.err.is_empty() || answer.err.starts_with("zoneadm: zone 'a': "), "{}", answer.err);
            assert_eq!(bench.state("a"), after.word(), "{operation} on {}", state.word());
            bench.lab.stop_zones().unwrap();
            bench.lab.force("a", Z).unwrap();
            bench.ok("zoneadm -z a uninstall -F");
        }
    }
}

#[test]
fn a_zone_runs_local_processes_in_a_place_of_its_own() {
    let bench = Bench::new();
    let data = bench.lab.dir().join("root/data");
    std::fs::create_dir_all(&data).unwrap();
    bench.installed("a", &format!("add fs\nset dir=/data\nset special=\"{}\"\nset type=lofs\nend\n", data.display()));
    bench.fails("zlogin -n a true", 1, "zone 'a' is not running");
    bench.ok("zoneadm -z a boot");
    assert_eq!(
        bench
            .lab
            .run("zlogin", &["-n", "a", "zonename; echo up >/data/said; echo $$ >/tmp/pid; ls -d /root"])
            .unwrap()
            .out,
        "a\n/root\n"
    );
    assert_eq!(std::fs::read_to_string(data.join("said")).unwrap(), "up\n");
    assert!(bench.zonepath("a").join("root/tmp/pid").is_file(), "files of a zone are in its directory");
    // Standard input arrives; exit codes do; death by a signal is taken for success.
    assert_eq!(bench.lab.run_reading("zlogin", &["a", "cat; exit 3"], "hello").unwrap().out, "hello");
    for (script, code) in [("exit 3", 3), ("kill -9 $$", 0), ("no-such-command", 127)] {
        assert_eq!(bench.lab.run("zlogin", &["-n", "a", script]).unwrap().code, code, "{script}");
    }
    // Several arguments are joined, one with a blank is quoted badly.
    assert_eq!(bench.lab.run("zlogin", &["-n", "a", "echo", "a b", "$HOME"]).unwrap().out, "a b /root\n");
    // What was started there goes on without zlogin, and ends with the zone.
    bench.lab.run("zlogin", &["-n", "a", "sleep 1000 >/dev/null 2>&1 & echo $! >/data/pid"]).unwrap();
    assert_eq!(bench.lab.run("zlogin", &["-n", "a", "kill -0 $(cat /data/pid) && echo lives"]).unwrap().out, "lives\n");
    bench.ok("zoneadm -z a halt");
    bench.fails("zlogin -n a true", 1, "is not running");
    assert_eq!(bench.state("a"), "installed");
    bench.fails("zlogin -n nobody true", 1, "unknown");
}

#[test]
fn a_shutdown_asks_first_and_leaves_what_does_not_listen() {
    let bench = Bench::new();
    bench.installed("a", "");
    bench.ok("zoneadm -z a boot");
    bench
        .lab
        .run(
            "zlogin",
            &["-n", "a", "(trap 'echo bye >/tmp/bye; exit' TERM; while :; do sleep 0.05; done) >/dev/null 2>&1 &"],
        )
        .unwrap();
    bench.ok("zoneadm -z a shutdown");
    assert_eq!(bench.state("a"), "installed");
    assert!(bench.zonepath("a").join("root/tmp/bye").is_file());
    bench.ok("zoneadm -z a boot");
    bench.lab.change(|s| (s.times.shutdown_limit, s.zones.get_mut("a").unwrap().deaf) = (50, true)).unwrap();
    bench.fails("zoneadm -z a shutdown", 1, "unable to shutdown zone");
    assert_eq!(bench.state("a"), "running");
    // A halt may end in down, and has to be asked for again.
    bench.lab.change(|s| s.zones.get_mut("a").unwrap().stuck = 1).unwrap();
    bench.fails("zoneadm -z a halt", 1, "unable to");
    assert_eq!(bench.state("a"), "down");
    bench.ok("zoneadm -z a halt");
    assert_eq!(bench.state("a"), "installed");
}

#[test]
fn a_zone_whose_init_ends_is_down_by_itself() {
    let bench = Bench::new();
    bench.installed("a", "");
    bench.ok("zoneadm -z a boot");
    let init = bench.lab.state().unwrap().zones["a"].init;
    reddwarf_hostsim::platform::kill(init);
    reddwarf_hostsim::platform::wait_for_end(init.unwrap(), 5000);
    assert_eq!(bench.state("a"), "installed");
    for _ in 0..200 {
        if bench.zonepath("a").join("lastexited").exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = std::fs::read_to_string(bench.lab.dir().join("state/console-a.log"));
    panic!("nobody wrote lastexited: {log:?}");
}

#[test]
fn the_list_escapes_paths_and_tells_ids() {
    let bench = Bench::new();
    bench.ok("zfs create rpool/zones");
    let path = bench.lab.dir().join("root/rpool/zones/a:b");
    let text = format!("create -b\nset brand=lipkg\nset ip-type=exclusive\nset zonepath=\"{}\"\n", path.display());
    assert_eq!(bench.zonecfg("x", &text).code, 0);
    let list = bench.ok("zoneadm list -cp");
    assert!(list.starts_with("0:global:running:/:") && list.contains("zones/a\\:b::lipkg:excl:"), "{list}");
    let zones = reddwarf_illumos::zoneadm::list(&list).unwrap();
    assert_eq!((zones[0].zonepath.as_path(), &zones[0].uuid), (path.as_path(), &None));
    bench.fails("zoneadm -z x list -cp", 2, "can not be used together");
    bench.fails("zoneadm -z nobody list -p", 1, "No such zone configured");
    bench.fails("zoneadm list -x", 2, "usage");
    assert!(!bench.ok("zoneadm list -ip").contains(":x:"));
}

#[test]
fn a_clone_is_one_of_zfs_and_needs_a_zone_that_is_down() {
    let bench = Bench::new();
    bench.installed("golden", "");
    let root = bench.zonepath("golden").join("root");
    std::fs::create_dir_all(root.join("opt")).unwrap();
    bench.configured("a", "");
    bench.ok("zoneadm -z golden boot");
    bench.fails("zoneadm -z a clone golden", 1, "must be installed and halted");
    bench.ok("zoneadm -z golden halt");
    bench.ok("zoneadm -z a clone golden");
    assert!(bench.zonepath("a").join("root/opt").is_dir());
    let origin = bench.ok("zfs get -H -o value origin rpool/zones/a");
    assert!(origin.starts_with("rpool/zones/golden@SUNWzone"), "{origin}");
    bench.fails("zoneadm -z a clone golden", 1, "is already installed.");
    // As long as the clone is there its origin can't go.
    bench.fails("zoneadm -z golden uninstall -F", 1, "dependent clones");
}

#[test]
fn one_operation_at_a_time_for_each_zone() {
    let bench = Bench::new();
    bench.configured("a", "");
    bench.configured("b", "");
    bench.lab.change(|s| s.times.install = 1500).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.run("zoneadm -z a install"));
        while bench.state("a") != "incomplete" {
            std::thread::sleep(Duration::from_millis(5));
        }
        bench.fails("zoneadm -z a uninstall -F", 1, "another zoneadm may have an operation in progress");
        assert_eq!(bench.state("b"), "configured", "others are not held up");
        assert_eq!(first.join().unwrap().code, 0);
    });
    assert_eq!(bench.state("a"), "installed");
}
