//! `reddwarf-shim`: the helpers of the hosts as a program of their own, beside `reddwarfd`.
//!
//! `reddwarfd` can do all of it itself. This one is a quarter as large, and every container keeps one running: what its
//! loader relocates is memory that nobody shares (ADR 5).

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = reddwarf_illumos::as_init() {
        return code;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let illumos = arguments.split_first().and_then(|(name, rest)| reddwarf_illumos::helper(name.to_str()?, rest));
    illumos.unwrap_or_else(others)
}

#[cfg(target_os = "linux")]
fn others() -> ExitCode {
    reddwarf_linux::helper_main()
}

#[cfg(not(target_os = "linux"))]
fn others() -> ExitCode {
    eprintln!("reddwarf-shim: started by reddwarfd itself");
    ExitCode::FAILURE
}
