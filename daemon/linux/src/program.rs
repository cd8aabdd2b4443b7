//! Becoming a program: search path, exact environment, and shells' exit codes when it can't be done.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

/// A program that could not be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramError {
    /// As shells have it: 127 not found, 126 found but not executable, 128 anything before that.
    pub(crate) code: i32,
    pub(crate) message: String,
}

/// Replaces this process by `argv` with exactly `env`; returns only when that failed.
pub(crate) fn exec(argv: &[String], env: &[String]) -> ProgramError {
    let Some(name) = argv.first().filter(|n| !n.is_empty()) else {
        return ProgramError { code: 128, message: "no program was named".to_owned() };
    };
    let Ok((argv_c, env_c)) = c_strings(argv).and_then(|a| Ok((a, c_strings(env)?))) else {
        return ProgramError { code: 128, message: format!("{name}: arguments or environment hold a NUL byte") };
    };
    let mut worst = Errno::ENOENT;
    for candidate in candidates(name, env) {
        let Ok(path) = CString::new(candidate) else { continue };
        let Err(error) = nix::unistd::execve(&path, &argv_c, &env_c);
        match error {
            // Look on, as execvp(3) does; but remember that there was something.
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => worst = error,
            _ => {
                worst = error;
                break;
            }
        }
    }
    failure(name, worst)
}

fn failure(name: &str, error: Errno) -> ProgramError {
    // In the words of runc, which people search for.
    let (code, text) = match error {
        Errno::ENOENT if !name.contains('/') => (127, format!("exec: {name:?}: executable file not found in $PATH")),
        Errno::ENOENT => (127, format!("exec: {name:?}: stat {name}: no such file or directory (or its interpreter)")),
        Errno::EACCES => (126, format!("exec: {name:?}: permission denied")),
        Errno::ENOEXEC => (126, format!("exec {name}: exec format error")),
        other => (126, format!("exec: {name:?}: {}", other.desc())),
    };
    ProgramError { code, message: format!("unable to start container process: {text}") }
}

fn c_strings(list: &[String]) -> Result<Vec<CString>, std::ffi::NulError> {
    list.iter().map(|s| CString::new(s.as_str())).collect()
}

/// Paths to try: the name itself when it holds a slash, else each directory of `PATH`.
fn candidates(name: &str, env: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = env.iter().rev().find_map(|v| v.strip_prefix("PATH=")).unwrap_or(crate::oci::DEFAULT_PATH);
    let join = |dir: &str| if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
    path.split(':').map(join).collect()
}

/// Says through `pipe` why the program could not be run, and ends this process.
pub(crate) fn report_and_exit(pipe: &impl AsRawFd, error: &ProgramError) -> ! {
    let text = serde_json::to_vec(error).unwrap_or_default();
    write_raw(pipe.as_raw_fd(), &text);
    exit_now(error.code)
}

/// Ends this process without running destructors or exit handlers: for forked children.
#[allow(unsafe_code)]
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

#[allow(unsafe_code)]
fn write_raw(fd: i32, bytes: &[u8]) {
    // SAFETY: the buffer is valid for its length; a closed descriptor makes an error, which nobody is left to hear.
    unsafe {
        libc::write(fd, bytes.as_ptr().cast(), bytes.len());
    }
}

/// Waits for the far end of a close-on-exec pipe: closed without a word means that the program runs.
pub(crate) fn await_exec(pipe: OwnedFd) -> std::io::Result<Option<ProgramError>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::from(pipe).read_to_end(&mut bytes)?;
    if bytes.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&bytes)?)) }
}

/// Undoes what this process inherited or set: every signal to its default, none blocked. `execve(2)` keeps ignored
/// signals ignored, and Rust's runtime ignores SIGPIPE.
#[allow(unsafe_code)]
pub(crate) fn reset_signals() {
    for number in 1..=64 {
        if number != libc::SIGKILL && number != libc::SIGSTOP {
            // SAFETY: SIG_DFL installs no handler; numbers that can't be set make an error, which is fine.
            unsafe {
                libc::signal(number, libc::SIG_DFL);
            }
        }
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_as_a_shell_would() {
        let env = ["PATH=/a::/b".to_owned()];
        assert_eq!(candidates("x", &env), ["/a/x", "./x", "/b/x"]);
        assert_eq!(candidates("./x", &env), ["./x"]);
        assert_eq!(candidates("x", &[]).len(), 6);
    }

    #[test]
    fn failures_have_the_shells_codes() {
        let none = exec(&["/no/such/program".to_owned()], &[]);
        assert_eq!(none.code, 127);
        assert!(none.message.contains("/no/such/program"));
        assert_eq!(exec(&["/etc/passwd".to_owned()], &[]).code, 126);
        assert_eq!(exec(&[], &[]).code, 128);
        assert_eq!(exec(&["a\0b".to_owned()], &[]).code, 128);
    }
}
