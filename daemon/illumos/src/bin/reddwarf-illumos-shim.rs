//! The helpers for this crate's own tests; `reddwarf-shim` of the daemon's package is the one that is installed.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = reddwarf_illumos::as_init() {
        return code;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let code = arguments.split_first().and_then(|(name, rest)| reddwarf_illumos::helper(name.to_str()?, rest));
    code.unwrap_or(ExitCode::from(2))
}
