//! `reddwarf-shim`: the helpers of the Linux host as a program of their own, beside `reddwarfd`.
//!
//! `reddwarfd` can do all of it itself. This one is a tenth as large, and every container keeps one running: what its
//! loader relocates is memory that nobody shares (ADR 5).

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    reddwarf_linux::helper_main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("reddwarf-shim: there are no shims on this system");
    ExitCode::FAILURE
}
