//! ppriv(1) and ctrun(1): a command with other privilege sets, a command in a process contract. What would be taken away or
//! told is checked and noted; the command is a local process as any.

use crate::call::{Answer, Call};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Of privileges(7), those of the basic set and those that a zone may have.
const KNOWN: &[&str] = &[
    "all",
    "basic",
    "contract_event",
    "contract_observer",
    "file_chown",
    "file_chown_self",
    "file_dac_execute",
    "file_dac_read",
    "file_dac_search",
    "file_dac_write",
    "file_link_any",
    "file_owner",
    "file_read",
    "file_setid",
    "file_write",
    "net_access",
    "none",
    "proc_chroot",
    "proc_exec",
    "proc_fork",
    "proc_info",
    "proc_owner",
    "proc_session",
    "sys_mount",
    "zone",
];

/// `[EIPLA]+(+|-|=)PRIVILEGE,…`
fn is_spec(text: &str) -> bool {
    let Some(at) = text.find(['=', '+', '-']) else { return false };
    let (sets, rest) = text.split_at(at);
    let names = rest.get(1..).unwrap_or_default();
    !sets.is_empty()
        && sets.chars().all(|c| "EIPLA".contains(c))
        && names.split(',').all(|n| KNOWN.contains(&n.trim_start_matches('!')))
}

pub(crate) fn ppriv(call: &Call<'_>) -> Answer {
    let words = call.words();
    let ["-e", "-s", spec, program, args @ ..] = words.as_slice() else {
        return Answer::usage("usage: ppriv -e [-D | -N | -M] [-s spec] command [args ...]");
    };
    if !is_spec(spec) {
        return Answer::fail(format!("ppriv: {spec}: invalid privilege specification"));
    }
    #[expect(clippy::disallowed_methods, reason = "what ppriv does")]
    let mut command = Command::new(program);
    match command.args(args).status() {
        Ok(status) => Answer { code: status.code().unwrap_or(1), ..Answer::default() },
        Err(e) => Answer::fail(format!("ppriv: {program}: {e}")),
    }
}

/// Becomes the command, of which nobody waits for the end.
pub(crate) fn ctrun(call: &Call<'_>) -> Answer {
    let words = call.words();
    let ["-l", "none", "-f", "hwerr", "-o", "pgrponly", program, args @ ..] = words.as_slice() else {
        return Answer::usage("usage: ctrun [options] command [args ...]");
    };
    call.note(Some(0), None);
    #[expect(clippy::disallowed_methods, reason = "what ctrun does")]
    let error = Command::new(program).args(args).exec();
    Answer::fail(format!("ctrun: exec failed: {program}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::is_spec;

    #[test]
    fn specifications_are_read_as_ppriv_reads_them() {
        assert!(is_spec("LI=file_read,proc_chroot") && is_spec("EP-proc_exec") && is_spec("A=basic,!proc_fork"));
        for bad in ["", "LI", "=basic", "X=basic", "L=fly", "L=file_read,"] {
            assert!(!is_spec(bad), "{bad}");
        }
    }
}
