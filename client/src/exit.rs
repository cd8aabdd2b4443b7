//! Exit codes: documented in docs/reddwarfctl.md and in `reddwarfctl --help`, and stable.

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; for `plan`, `diff` and dry runs: nothing would change.
    Ok,
    /// Refused, invalid or failed.
    Error,
    /// `plan`, `diff` and dry runs: something would change.
    Changes,
    /// `status`, `why` and `wait`: not as asked.
    Degraded,
    /// An object, image or generation does not exist.
    NotFound,
    /// A file or somebody else owns it, or it changed meanwhile.
    Conflict,
    /// Not allowed.
    Permission,
    /// No daemon answers at the socket.
    Unreachable,
    /// The time given with --timeout was up.
    TimedOut,
    /// Of the program that `exec` ran.
    Program(u8),
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Changes => 2,
            Self::Degraded => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Permission => 6,
            Self::Unreachable => 7,
            Self::TimedOut => 124,
            Self::Program(code) => i32::from(code),
        }
    }

    /// The code for an HTTP status of a refusal.
    pub(crate) fn of_http(status: u16) -> Self {
        match status {
            404 => Self::NotFound,
            409 | 412 => Self::Conflict,
            401 | 403 => Self::Permission,
            504 => Self::TimedOut,
            _ => Self::Error,
        }
    }
}

/// The table of `--help` and of the manual page.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    done; for plan, diff and dry runs: nothing would change
  1    error: bad command line, invalid file, refused or failed
  2    plan, diff, apply --dry-run: something would change
  3    status, why, wait: degraded, not as asked or not ready
  4    not found
  5    conflict: a file or somebody else owns the object, or it changed meanwhile
  6    permission denied
  7    no daemon answers at the socket
  124  timed out
exec exits with the code of the program that it ran.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_and_the_page_name_every_code() {
        let page = include_str!("../../docs/reddwarfctl.md");
        for exit in [
            Exit::Ok,
            Exit::Error,
            Exit::Changes,
            Exit::Degraded,
            Exit::NotFound,
            Exit::Conflict,
            Exit::Permission,
            Exit::Unreachable,
            Exit::TimedOut,
        ] {
            let code = exit.code();
            assert!(TABLE.contains(&format!("\n  {code:<5}")), "{exit:?} in --help");
            assert!(page.contains(&format!("| {code} |")), "{exit:?} in docs/reddwarfctl.md");
        }
        assert_eq!(Exit::Program(7).code(), 7);
    }

    #[test]
    fn refusals_have_their_codes() {
        for (http, code) in [(400, 1), (401, 6), (403, 6), (404, 4), (409, 5), (422, 1), (500, 1), (504, 124)] {
            assert_eq!(Exit::of_http(http).code(), code, "{http}");
        }
    }
}
