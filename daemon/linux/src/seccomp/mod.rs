//! System call filters (seccomp(2)): the default profile, profiles from files, and how a process gets its filter.
//!
//! | file | holds |
//! |---|---|
//! | `profile.rs` | what a profile says; reading OCI's and docker's JSON |
//! | `default.rs` | the profile of `RuntimeDefault` |
//! | `syscalls.rs`, `syscalls.txt` | names to numbers |
//! | `compile.rs` | profile to BPF |
//!
//! The filter of a container lies beside its config as `seccomp.bpf`, so that commands that join it later get the very
//! same one. No C library takes part (docs/adr/0010-own-seccomp-compiler.md).

mod compile;
mod default;
mod profile;
mod syscalls;
#[cfg(test)]
mod tests;

use crate::inside::{Inside, open_no_follow};
use compile::Instruction;
use nix::fcntl::OFlag;
use profile::{Circumstances, Profile};
use reddwarf_host::spec::Seccomp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use syscalls::Abi;

#[cfg(test)]
use tests::arbitrary;

/// Profiles are small: a guard against a file that is something else.
const LARGEST: u64 = 1 << 20;

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    program: Vec<Instruction>,
    /// Have what is not allowed logged by the kernel's audit.
    log: bool,
}

/// A container's filter, for us to install and for other runtimes to read.
pub(crate) struct Prepared {
    pub(crate) filter: Filter,
    /// `linux.seccomp` of an OCI config.
    pub(crate) oci: Value,
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[error("cannot load seccomp profile \"{path}\": {why}")]
pub(crate) struct SeccompError {
    path: String,
    why: String,
}

/// Makes the filter that is asked for; `None`: none is. `directory` holds the profiles of `Localhost`.
pub(crate) fn prepare(
    wanted: &Seccomp,
    directory: &Path,
    capabilities: &BTreeSet<&str>,
) -> Result<Option<Prepared>, SeccompError> {
    let abis = Abi::of_this_machine();
    let Some(native) = abis.first() else {
        let why = "this version has no table of this machine's system calls; ask for type Unconfined".to_owned();
        return match wanted {
            Seccomp::Unconfined => Ok(None),
            _ => Err(SeccompError { path: std::env::consts::ARCH.to_owned(), why }),
        };
    };
    let (profile, path) = match wanted {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => (default::profile(capabilities), "RuntimeDefault".to_owned()),
        Seccomp::Localhost(name) => {
            let path = directory.join(name).display().to_string();
            let error = |why: String| SeccompError { path: path.clone(), why };
            let text = read(directory, name).map_err(|e| error(format!("open {path}: {}", plainly(&e))))?;
            let kernel = nix::sys::utsname::uname().ok();
            let kernel = kernel.and_then(|u| profile::version(&u.release().to_string_lossy())).unwrap_or((0, 0));
            let at = Circumstances { capabilities, kernel, abi: *native };
            (Profile::parse(&text, at).map_err(|e| error(e.to_string()))?, path)
        }
    };
    let program = compile::compile(&profile, abis).map_err(|e| SeccompError { path, why: e.to_string() })?;
    Ok(Some(Prepared { filter: Filter { program, log: profile.log }, oci: profile.to_oci(abis) }))
}

/// Reads a profile; nothing leads out of the directory.
fn read(directory: &Path, name: &str) -> io::Result<Vec<u8>> {
    let inside = Inside::volume_of(open_no_follow(directory)?);
    let file = inside.open(Path::new(name), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let mut text = Vec::new();
    File::from(file).take(LARGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// As people search for it.
fn plainly(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        _ if error.raw_os_error() == Some(libc::EXDEV) => "leads out of the directory".to_owned(),
        _ => error.to_string(),
    }
}

impl Filter {
    /// For a file: eight bytes an instruction, as the kernel has them, after one byte of flags.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.log)];
        for Instruction { code, jt, jf, k } in &self.program {
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes.extend_from_slice(&[*jt, *jf]);
            bytes.extend_from_slice(&k.to_ne_bytes());
        }
        bytes
    }

    /// From such a file; `None` when it is damaged.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first()?;
        let (instructions, left) = rest.as_chunks::<8>();
        if instructions.is_empty() || !left.is_empty() || *flags > 1 {
            return None;
        }
        let read = |i: &[u8; 8]| Instruction {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        };
        Some(Self { program: instructions.iter().map(read).collect(), log: *flags == 1 })
    }

    /// Puts the calling thread, and whatever it executes, under this filter for good. Needs no_new_privs, or
    /// CAP_SYS_ADMIN in its user namespace.
    #[allow(unsafe_code)]
    pub(crate) fn install(&self) -> io::Result<()> {
        let program: Vec<libc::sock_filter> =
            self.program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
        let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let wanted = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
        // Speculation is left to the kernel's own defaults, as newer kernels have it anyway.
        let mut flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        if self.log {
            flags |= libc::SECCOMP_FILTER_FLAG_LOG;
        }
        // SAFETY: seccomp(2) reads the program and keeps a copy; both structures live across the call.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const wanted) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
