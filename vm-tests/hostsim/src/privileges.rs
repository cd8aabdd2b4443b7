//! ppriv(1): a command with other privilege sets. What it would take away is checked and noted; the command is a local process
//! with all that it had.

use crate::call::{Answer, Call};
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
