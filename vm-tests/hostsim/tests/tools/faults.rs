//! Faults on purpose, and what is noted of calls.

use crate::common::Bench;
use std::process::{Command, Stdio};

#[test]
fn faults_come_before_after_and_instead() {
    let bench = Bench::new();
    bench
        .lab
        .faults("zfs/create 1 fail-before 1 cannot create: I/O error\nzfs/create 2 fail-after\nzfs/create 3 lie\n")
        .unwrap();
    bench.fails("zfs create rpool/a", 1, "cannot create: I/O error");
    bench.fails("zfs create rpool/b", 1, "zfs: internal error");
    bench.ok("zfs create rpool/c");
    assert_eq!(bench.ok("zfs list -H -o name -r rpool"), "rpool\nrpool/b\n");
    bench.lab.faults("zfs/list 1 truncate 8\nzfs/list 2 flood 100000\nzfs/list 3 crash\n").unwrap();
    assert_eq!(bench.ok("zfs list -H -o name -r rpool"), "rpool\nrp");
    assert_eq!(bench.run("zfs list -H -o name -r rpool").err.len(), 100_006);
    assert_eq!(bench.run("zfs list -H -o name -r rpool").code, -1, "died by a signal");
    assert!(bench.lab.faults("zfs 1 explode").is_err());
}

#[test]
fn the_transcript_tells_every_call() {
    let bench = Bench::new();
    bench.lab.run_reading("ipnat", &["-n", "-f", "-"], "map net0 10.0.0.0/8 -> 0/32\n").unwrap();
    bench.run("zfs create rpool/none/a");
    let lines = bench.lab.transcript().unwrap();
    assert_eq!(lines.len(), 2);
    assert_eq!((lines[0].tool.as_str(), lines[0].rc, lines[0].changing), ("ipnat", Some(0), false));
    assert_eq!(lines[0].stdin.as_ref().unwrap().len(), 64);
    assert_eq!(
        (lines[1].argv.clone(), lines[1].rc, lines[1].changing),
        (vec!["create".to_owned(), "rpool/none/a".into()], Some(1), true)
    );
    bench.lab.forget_transcript().unwrap();
    assert_eq!(bench.lab.transcript().unwrap(), []);
}

#[test]
fn whoever_called_is_killed_before_or_after_the_work() {
    let bench = Bench::new();
    let zfs = bench.lab.tools().join("zfs");
    for (which, action, there) in [("a", "kill-caller", false), ("b", "kill-caller-after", true)] {
        bench.lab.faults(&format!("changing 1 {action}")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "somebody who calls and is killed")]
        let mut caller = Command::new("/bin/sh");
        let script = format!("{} create rpool/{which}; echo survived", zfs.display());
        let output = caller.args(["-c", &script]).stderr(Stdio::null()).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (None, &b""[..]));
        assert_eq!(bench.run(&format!("zfs list -H -o name rpool/{which}")).code == 0, there, "{action}");
    }
}
