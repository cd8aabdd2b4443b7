//! Build metadata for `reddwarfd --version` and `/version`: commit, compiler and target. And how released programs are linked.

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
    if variable("PROFILE") == "release" && packs_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether the loader can read packed relative relocations, two megabytes less of a program that is mostly addresses to be
/// moved: glibc can since 2.36, and refuses such a program by name before.
fn packs_relocations() -> bool {
    let native = variable("HOST") == variable("TARGET");
    let gnu = variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    if !native || !gnu {
        return false;
    }
    let version = first_line("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_default();
    let mut numbers = version.trim_start_matches("glibc ").split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(2), Some(36))
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

#[allow(clippy::disallowed_methods)] // a build script has no host runner
fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.lines().next()?.to_owned())
}
