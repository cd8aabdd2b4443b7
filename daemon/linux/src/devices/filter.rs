//! The filter of devices on cgroup v2: a program that the kernel asks before a process of the cgroup opens a device or makes a
//! node of one (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15). On v1 a controller does the same.
//!
//! The program belongs to the cgroup and goes with it. Other programs above it (a service manager's) are asked as well: one
//! that refuses is enough.

use super::{ALLOWED, Allowed, Kind, access};
use std::ffi::c_long;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Keeps the processes of a v2 cgroup from all devices but the harmless ones.
///
/// # Errors
/// When the kernel has no such programs (CONFIG_CGROUP_BPF), or the daemon may not load them.
pub(crate) fn install(cgroup: &Path) -> io::Result<()> {
    let cgroup = File::open(cgroup)?;
    let program = load(&program(&ALLOWED))?;
    attach(&program, &cgroup)
}

/// struct bpf_insn.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the lower four bits, source in the upper ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        Self { code, registers: source << 4 | destination, offset, immediate }
    }

    /// `destination = *(u32 *)(source + offset)`
    const fn load(destination: u8, source: u8, offset: i16) -> Self {
        Self::new(0x61, destination, source, offset, 0)
    }

    /// `destination = immediate`
    const fn set(destination: u8, immediate: i32) -> Self {
        Self::new(0xb7, destination, 0, 0, immediate)
    }

    /// `destination = source`
    const fn copy(destination: u8, source: u8) -> Self {
        Self::new(0xbf, destination, source, 0, 0)
    }

    /// `destination &= immediate`
    const fn and(destination: u8, immediate: i32) -> Self {
        Self::new(0x57, destination, 0, 0, immediate)
    }

    /// `destination >>= immediate`
    const fn shift_right(destination: u8, immediate: i32) -> Self {
        Self::new(0x77, destination, 0, 0, immediate)
    }

    /// `if (register != immediate) skip so many instructions`
    const fn skip_unless_equal(register: u8, immediate: i32, skip: i16) -> Self {
        Self::new(0x55, register, 0, skip, immediate)
    }

    /// `return r0`
    const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }
}

/// What the program holds in which register; the context, struct bpf_cgroup_dev_ctx, comes in the first one.
mod register {
    pub(super) const ANSWER: u8 = 0;
    pub(super) const CONTEXT: u8 = 1;
    pub(super) const KIND: u8 = 2;
    pub(super) const ACCESS: u8 = 3;
    pub(super) const MAJOR: u8 = 4;
    pub(super) const MINOR: u8 = 5;
    pub(super) const SCRATCH: u8 = 6;
}

/// Refuses whatever is not among `allowed`.
fn program(allowed: &[Allowed]) -> Vec<Instruction> {
    use register::{ACCESS, ANSWER, CONTEXT, KIND, MAJOR, MINOR};
    let mut program = vec![
        // access_type: what is wanted in the upper half, BPF_DEVCG_DEV_* in the lower one.
        Instruction::load(KIND, CONTEXT, 0),
        Instruction::copy(ACCESS, KIND),
        Instruction::and(KIND, 0xffff),
        Instruction::shift_right(ACCESS, 16),
        Instruction::load(MAJOR, CONTEXT, 4),
        Instruction::load(MINOR, CONTEXT, 8),
    ];
    for one in allowed {
        program.extend(allow(one));
    }
    program.extend([Instruction::set(ANSWER, 0), Instruction::exit()]);
    program
}

/// Answers yes when all of it fits, else goes on behind itself.
fn allow(one: &Allowed) -> Vec<Instruction> {
    use register::{ACCESS, ANSWER, KIND, MAJOR, MINOR, SCRATCH};
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let kind = match one.kind {
        Kind::Block => 1,
        Kind::Character => 2,
    };
    let mut wanted = vec![(KIND, kind)];
    wanted.extend(one.major.map(|n| (MAJOR, number(n))));
    wanted.extend(one.minor.map(|n| (MINOR, number(n))));
    let mut before = Vec::new();
    if one.access != access::ALL {
        // Nothing beyond it may be asked for.
        before = vec![Instruction::copy(SCRATCH, ACCESS), Instruction::and(SCRATCH, number(access::ALL & !one.access))];
        wanted.push((SCRATCH, 0));
    }
    let answer = [Instruction::set(ANSWER, 1), Instruction::exit()];
    let mut skip = i16::try_from(wanted.len() + answer.len()).unwrap_or(i16::MAX);
    let tests = wanted.into_iter().map(|(register, value)| {
        skip -= 1;
        Instruction::skip_unless_equal(register, value, skip)
    });
    before.into_iter().chain(tests.collect::<Vec<_>>()).chain(answer).collect()
}

const PROGRAM_LOAD: u32 = 5;
const PROGRAM_ATTACH: u32 = 8;
/// BPF_PROG_TYPE_CGROUP_DEVICE and BPF_CGROUP_DEVICE.
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// BPF_F_ALLOW_MULTI: beside what is there and what others add later.
const BESIDE_OTHERS: u32 = 2;

/// The part of union bpf_attr that loading takes.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The part of union bpf_attr that attaching takes.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Has the kernel check and take the program.
fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        // The verifier asks for one; this says that no functions are called that only GPL programs may.
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"reddwarf_device\0",
    };
    let fd = bpf(PROGRAM_LOAD, &attributes)?;
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just gave it to us, and nobody else knows of it.
    #[allow(unsafe_code)]
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(program: &OwnedFd, cgroup: &File) -> io::Result<()> {
    let descriptor = |fd: i32| u32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let attributes = Attach {
        target: descriptor(cgroup.as_raw_fd())?,
        program: descriptor(program.as_raw_fd())?,
        kind: CGROUP_DEVICE,
        flags: BESIDE_OTHERS,
    };
    bpf(PROGRAM_ATTACH, &attributes).map(drop)
}

/// bpf(2).
fn bpf<T>(command: u32, attributes: &T) -> io::Result<c_long> {
    // SAFETY: the attributes are whole structures of the sizes given, laid out as union bpf_attr begins; what they point to
    // outlives the call, which only reads it.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first rules as the kernel's documentation writes instructions. All of it is loaded and tried by the host's tests.
    #[test]
    fn the_program_says_what_the_list_says() {
        let text: Vec<String> = program(&ALLOWED[1..3]).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "r2 = *(u32 *)(r1 + 0)",
                "r3 = r2",
                "r2 &= 65535",
                "r3 >>= 16",
                "r4 = *(u32 *)(r1 + 4)",
                "r5 = *(u32 *)(r1 + 8)",
                // Nodes of block devices.
                "r6 = r3",
                "r6 &= 6",
                "if r2 != 1 goto +3",
                "if r6 != 0 goto +2",
                "r0 = 1",
                "exit",
                // /dev/null
                "if r2 != 2 goto +4",
                "if r4 != 1 goto +3",
                "if r5 != 3 goto +2",
                "r0 = 1",
                "exit",
                "r0 = 0",
                "exit",
            ]
        );
    }

    impl std::fmt::Display for Instruction {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let Self { code, registers, offset, immediate } = self;
            let (to, from) = (registers & 0xf, registers >> 4);
            match code {
                0x61 => write!(f, "r{to} = *(u32 *)(r{from} + {offset})"),
                0xb7 => write!(f, "r{to} = {immediate}"),
                0xbf => write!(f, "r{to} = r{from}"),
                0x57 => write!(f, "r{to} &= {immediate}"),
                0x77 => write!(f, "r{to} >>= {immediate}"),
                0x55 => write!(f, "if r{to} != {immediate} goto +{offset}"),
                0x95 => f.write_str("exit"),
                other => write!(f, "{other:#x}"),
            }
        }
    }
}
