//! zlogin(1): commands in running zones, with what its joining of arguments and its exit status do to them.

use crate::brand::Brand;
use crate::call::{Answer, Call, broken};
use crate::platform;
use crate::state::{Process, ZoneState};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const USAGE: &str = "usage: zlogin [ -dnQCES ] [ -e cmdchar ] [-l user] zonename [command [args ...] ]";

/// Where programs are looked for inside.
const PATH: &str = "/.hostsim/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Default)]
struct Options<'a> {
    no_stdin: bool,
    safe: bool,
    direct: bool,
    console: bool,
    user: Option<&'a str>,
}

/// One call of zlogin.
pub(crate) fn run(call: &Call<'_>) -> Answer {
    let words = call.words();
    let mut options = Options::default();
    let mut at = 0;
    while let Some(word) = words.get(at).filter(|w| w.starts_with('-') && w.len() > 1) {
        match *word {
            "-l" | "-e" => {
                at += 1;
                match (words.get(at), *word) {
                    (Some(user), "-l") => options.user = Some(user),
                    (Some(_), _) => {}
                    (None, _) => return Answer::usage(USAGE),
                }
            }
            letters => {
                for letter in letters.chars().skip(1) {
                    match letter {
                        'n' => options.no_stdin = true,
                        'S' => options.safe = true,
                        'i' => options.direct = true,
                        'C' => options.console = true,
                        'Q' | 'E' | 'd' => {}
                        _ => return Answer::usage(USAGE),
                    }
                }
            }
        }
        at += 1;
    }
    let Some(zone) = words.get(at) else { return Answer::usage(USAGE) };
    let command = words.get(at + 1..).unwrap_or_default();
    if command.is_empty() != options.console {
        return Answer::fail("hostsim: zlogin is played with a command, or with -C and none");
    }
    let (system, found) = match call.sim.lock() {
        Ok(locked) => (locked.state.system, locked.state.zones.get(*zone).cloned()),
        Err(e) => return broken(&e.to_string()),
    };
    if options.direct && system.is_gate() {
        return Answer::usage(USAGE);
    }
    let Some(found) = found else { return Answer::fail(format!("zlogin: zone '{zone}' unknown")) };
    if options.console {
        return console(call, zone, found.init);
    }
    let Some(init) = found.init.filter(|_| found.state == ZoneState::Running) else {
        return Answer::fail(format!(
            "zlogin: login allowed only to running zones ({zone} is '{}'): zone '{zone}' is not running",
            found.state.word()
        ));
    };
    // su(8) asks PAM, which such zones have nothing of.
    if !options.safe && !options.direct && Brand::of(call.sim, &found.config).has_own_init() {
        return Answer::fail("su: no authentication is set up in this zone");
    }
    if let Err(what) = platform::enter(init) {
        return Answer::fail(format!("zlogin: zone '{zone}' is not running: {what}"));
    }
    let mut process = if options.direct { direct(command) } else { through_su(&joined(command, system.is_gate())) };
    if let Err(what) = become_user(&mut process, options.user.unwrap_or("root")) {
        return Answer::fail(what);
    }
    if options.no_stdin {
        process.stdin(Stdio::null());
    }
    finish(process)
}

/// zlogin -C: the console, one client at a time, each of which is to have a terminal. A guest is played that says back what it is told.
fn console(call: &Call<'_>, zone: &str, init: Option<Process>) -> Answer {
    let (stdin, mut stdout) = (std::io::stdin(), std::io::stdout());
    let taken = || -> std::io::Result<std::fs::File> {
        let file =
            std::fs::File::options().create(true).append(true).open(call.sim.kept(&format!("console.{zone}")))?;
        file.try_lock()?;
        Ok(file)
    };
    let Ok(_taken) = taken() else {
        return Answer::fail("zlogin: Zone is already in use by process ID 4711.");
    };
    let raw = tcgetattr(&stdin).and_then(|mut raw| {
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw)
    });
    if let Err(e) = raw {
        let what = "zlogin: failed to get user terminal settings: ";
        return Answer::fail(format!("{what}{0}\nzlogin: failed to set stdin pty to raw mode: {0}", e.desc()));
    }
    let _ = stdout.write_all(b"\r\nguest login: ").and_then(|()| stdout.flush());
    let mut line = Vec::new();
    // What is not running has a console too, on which nothing comes.
    while init.is_none_or(Process::lives) {
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, 100_u8) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => break,
        }
        let mut byte = [0];
        let Ok(1) = nix::unistd::read(&stdin, &mut byte) else { break };
        let said = match byte {
            [b'\r' | b'\n'] => {
                let said = [b"\r\nyou said: ", line.as_slice(), b"\r\nguest login: "].concat();
                line.clear();
                said
            }
            [byte] => {
                line.push(byte);
                vec![byte]
            }
        };
        let _ = stdout.write_all(&said).and_then(|()| stdout.flush());
    }
    Answer::default()
}

/// Words joined with blanks. OmniOS and SmartOS quote one with a blank in it, if there are several, and badly.
fn joined(words: &[&str], gate: bool) -> String {
    let quoted = |word: &&str| {
        if !gate && words.len() > 1 && word.contains([' ', '\t']) { format!("'{word}'") } else { (*word).to_owned() }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[expect(clippy::disallowed_methods, reason = "what zlogin does")]
fn through_su(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    command
}

#[expect(clippy::disallowed_methods, reason = "what zlogin -i does")]
fn direct(words: &[&str]) -> Command {
    let (program, args) = words.split_first().map_or(("", &[][..]), |(p, a)| (*p, a));
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Its numbers and its small environment.
fn become_user(command: &mut Command, user: &str) -> Result<(), String> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = text.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f.first() == Some(&user));
    let (uid, gid, home) = match entry.as_deref() {
        Some([_, _, uid, gid, _, home, ..]) => (uid.parse().unwrap_or(0), gid.parse().unwrap_or(0), (*home).to_owned()),
        _ if user == "root" => (0, 0, "/root".to_owned()),
        _ => return Err(format!("su: Unknown id: {user}")),
    };
    command.env_clear();
    command.env("PATH", PATH).env("HOME", home).env("SHELL", "/sbin/sh").env("LOGNAME", user).env("TERM", "dumb");
    // Its own group: killing zlogin does not kill what it started.
    command.process_group(0);
    if user != "root" {
        command.uid(uid).gid(gid);
    }
    Ok(())
}

/// Runs it to its end. Death by a signal counts as success: only the byte of the exit status is looked at.
fn finish(mut command: Command) -> Answer {
    // A shell has no use for a blocked mask.
    let _ = SigSet::empty().thread_set_mask();
    let _ = SigmaskHow::SIG_SETMASK;
    match command.status() {
        Ok(status) => Answer { code: status.code().unwrap_or(0), ..Answer::default() },
        Err(e) => Answer::fail(format!("zlogin: exec failure: {e}")),
    }
}

/// pfexec(1): another call as it is.
pub(crate) fn pfexec(call: &Call<'_>) -> Answer {
    let Some((program, args)) = call.args.split_first() else { return Answer::usage("pfexec: no command") };
    let name = program.rsplit('/').next().unwrap_or_default();
    #[expect(clippy::disallowed_methods, reason = "what pfexec does")]
    let mut command = Command::new(call.sim.tools().join(name));
    command.args(args);
    match command.status() {
        Ok(status) => Answer { code: status.code().unwrap_or(1), ..Answer::default() },
        Err(e) => Answer::fail(format!("pfexec: {program}: {e}")),
    }
}
