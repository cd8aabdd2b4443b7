//! The helpers for this crate's own tests; `reddwarf-shim` of the daemon's package is the one that is installed.

use std::process::ExitCode;

fn main() -> ExitCode {
    reddwarf_linux::helper_main()
}
