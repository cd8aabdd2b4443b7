//! The shim, the exec helper and the unpacker as a program of their own: `reddwarf-linux-shim __shim DIR`,
//! `… __exec DIR`, `… __unpack`.
//!
//! `reddwarfd` has both built in; this small one serves this crate's tests.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next();
    let rest: Vec<OsString> = args.collect();
    match command.as_ref().and_then(|c| c.to_str()) {
        Some("__shim") => reddwarf_linux::shim::main(&rest),
        Some("__exec") => reddwarf_linux::exec::helper::main(&rest),
        Some("__pause") => reddwarf_linux::pause::main(&rest),
        Some("__unpack") => reddwarf_linux::unpack::main(),
        _ => {
            eprintln!("usage: reddwarf-linux-shim __shim|__exec DIRECTORY, __pause FILE, or __unpack");
            ExitCode::from(2)
        }
    }
}
