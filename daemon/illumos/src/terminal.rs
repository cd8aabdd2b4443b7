//! Terminals of programs in zones: a pseudo terminal inside, whose bytes go through the starter's own streams.

use crate::starter::Start;
use nix::pty::openpty;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How often it is looked whether the size has changed.
const LOOK: Duration = Duration::from_millis(200);
/// After the program's end: how long its last output may take.
const DRAIN: Duration = Duration::from_millis(300);

/// A terminal that nobody has taken yet.
pub(crate) struct Terminal {
    master: File,
    /// Kept until the program has it: a terminal that nobody has open is at its end.
    slave: OwnedFd,
    pub(crate) path: PathBuf,
}

/// A terminal in use.
pub(crate) struct Relay {
    ended: mpsc::Receiver<()>,
}

impl Terminal {
    pub(crate) fn open() -> io::Result<Self> {
        let pair = openpty(None, None)?;
        let path = nix::unistd::ttyname(&pair.slave)?;
        Ok(Self { master: File::from(pair.master), slave: pair.slave, path })
    }

    /// Copies both ways from now on, and sets the size when it is written.
    pub(crate) fn relay(self, start: &Start) -> Relay {
        let Self { master, slave, path } = self;
        drop(slave);
        let (end, ended) = mpsc::channel();
        if let Ok(mut to) = master.try_clone() {
            std::thread::spawn(move || {
                let mut from = io::stdin().lock();
                let mut buffer = [0; 4096];
                while let Ok(n) = from.read(&mut buffer) {
                    if n == 0 || to.write_all(buffer.get(..n).unwrap_or_default()).is_err() {
                        break;
                    }
                }
            });
        }
        std::thread::spawn(move || {
            let mut from = master;
            let mut to = io::stdout().lock();
            let mut buffer = [0; 16 * 1024];
            // EIO: the last process with the terminal open is gone.
            while let Ok(n) = from.read(&mut buffer) {
                if n == 0 || to.write_all(buffer.get(..n).unwrap_or_default()).and_then(|()| to.flush()).is_err() {
                    break;
                }
            }
            let _ = end.send(());
        });
        let size = start.size.clone();
        std::thread::spawn(move || follow_size(&size, &path));
        Relay { ended }
    }
}

impl Relay {
    /// Waits for the last output.
    pub(crate) fn finish(self) {
        let _ = self.ended.recv_timeout(DRAIN);
    }
}

/// `COLUMNS LINES`, written by the daemon where the zone can only read.
fn follow_size(file: &Path, terminal: &Path) {
    let mut last = String::new();
    loop {
        if let Ok(text) = std::fs::read_to_string(file)
            && text != last
        {
            if let Some((columns, lines)) = text.trim().split_once(' ') {
                set_size(terminal, columns, lines);
            }
            last = text;
        }
        std::thread::sleep(LOOK);
    }
}

/// By stty(1), which every system has.
fn set_size(terminal: &Path, columns: &str, lines: &str) {
    let number = |text: &str| text.parse::<u16>().is_ok();
    if !number(columns) || !number(lines) {
        return;
    }
    let Ok(on) = File::options().read(true).write(true).open(terminal) else { return };
    for program in ["/usr/bin/stty", "/bin/stty"] {
        if Path::new(program).exists() {
            #[expect(clippy::disallowed_methods, reason = "in the zone: a short run of the zone's own tool")]
            let mut command = Command::new(program);
            command
                .args(["rows", lines, "columns", columns])
                .env_clear()
                .envs(reddwarf_command::ENVIRONMENT)
                .stdin(on)
                .stdout(Stdio::null());
            let _ = command.stderr(Stdio::null()).status();
            return;
        }
    }
}
