//! Build metadata for `reddwarfd --version` and `/version`: commit, compiler and target.

use std::process::Command;

fn main() {
    // A crate unpacked without its repository still builds: it then says "unknown".
    let commit = first_line("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let compiler = first_line(&rustc, &["--version"]).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=REDDWARF_COMMIT={commit}");
    println!("cargo::rustc-env=REDDWARF_RUSTC={compiler}");
    println!("cargo::rustc-env=REDDWARF_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/refs/heads");
}

#[allow(clippy::disallowed_methods)] // a build script has no host runner
fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.lines().next()?.to_owned())
}
