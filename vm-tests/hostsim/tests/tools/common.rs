//! A system of its own for each test.

use reddwarf_hostsim::call::Answer;
use reddwarf_hostsim::lab::Lab;
use reddwarf_hostsim::system::System;
use std::path::PathBuf;

pub(crate) struct Bench {
    pub(crate) lab: Lab,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::of(System::Omnios)
    }

    pub(crate) fn of(system: System) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { lab: Lab::of(dir.path(), system).unwrap(), _dir: dir }
    }

    /// Runs a tool with words apart at blanks.
    pub(crate) fn run(&self, line: &str) -> Answer {
        let words: Vec<&str> = line.split(' ').collect();
        self.lab.run(words[0], &words[1..]).unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let answer = self.run(line);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{line}\n{}", answer.out);
        answer.out
    }

    /// Fails with this code, and with this in its message.
    #[track_caller]
    pub(crate) fn fails(&self, line: &str, code: i32, message: &str) {
        let answer = self.run(line);
        assert_eq!(answer.code, code, "{line}: {}", answer.err);
        assert!(answer.err.contains(message), "{line}: {}", answer.err);
    }

    /// Gives zonecfg a file.
    pub(crate) fn zonecfg(&self, zone: &str, text: &str) -> Answer {
        let path = self.lab.dir().join("commands");
        let mut file = std::fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        self.lab.run("zonecfg", &["-z", zone, "-f", path.to_str().unwrap()]).unwrap()
    }

    pub(crate) fn zonepath(&self, zone: &str) -> PathBuf {
        self.lab.dir().join("root/rpool/zones").join(zone)
    }

    /// The least of a configuration, with further lines.
    pub(crate) fn text(&self, zone: &str, more: &str) -> String {
        let path = self.zonepath(zone);
        format!(
            "create -F -b\nset brand=lipkg\nset zonepath=\"{}\"\nset autoboot=false\nset ip-type=exclusive\n{more}",
            path.display()
        )
    }

    /// A zone that is configured, in a dataset for zones.
    #[track_caller]
    pub(crate) fn configured(&self, zone: &str, more: &str) {
        if self.run("zfs list -H -o name rpool/zones").code != 0 {
            self.ok("zfs create rpool/zones");
        }
        let answer = self.zonecfg(zone, &self.text(zone, more));
        assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    }

    #[track_caller]
    pub(crate) fn installed(&self, zone: &str, more: &str) {
        self.configured(zone, more);
        self.ok(&format!("zoneadm -z {zone} install"));
    }

    /// The state that the list tells.
    pub(crate) fn state(&self, zone: &str) -> String {
        let list = self.ok("zoneadm list -cp");
        let line = list.lines().find(|l| l.split(':').nth(1) == Some(zone));
        line.map_or("none".into(), |l| l.split(':').nth(2).unwrap().to_owned())
    }
}
