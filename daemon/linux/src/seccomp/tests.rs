//! The compiler held against a plain reading of profiles, by running its programs.

use super::compile::{self, *};
use super::profile::{Action, Compare, Condition, Profile};
use super::syscalls::Abi;
use super::{Filter, default, prepare};
use proptest::prelude::*;
use reddwarf_host::spec::Seccomp;
use std::collections::BTreeSet;

/// What seccomp_data holds.
#[derive(Clone, Debug)]
struct Call {
    number: u32,
    architecture: u32,
    arguments: [u64; 6],
}

/// The kernel's part: runs a program, strictly forwards.
fn run(program: &[Instruction], call: &Call) -> u32 {
    let (mut at, mut a) = (0, 0);
    loop {
        let i = program[at];
        at += 1;
        let branch = |holds: bool| if holds { usize::from(i.jt) } else { usize::from(i.jf) };
        match i.code {
            LOAD if i.k == NUMBER => a = call.number,
            LOAD if i.k == ARCHITECTURE => a = call.architecture,
            LOAD => {
                let (index, half) = ((i.k - ARGUMENTS) / 8, (i.k - ARGUMENTS) % 8);
                let argument = call.arguments[index as usize];
                a = if half == 4 { (argument >> 32) as u32 } else { argument as u32 };
            }
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            JUMP_EQUAL => at += branch(a == i.k),
            JUMP_GREATER => at += branch(a > i.k),
            JUMP_GREATER_OR_EQUAL => at += branch(a >= i.k),
            RETURN => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What a profile says of a call, read as people do.
fn plainly(profile: &Profile, abi: Abi, call: &Call) -> Action {
    let of_call = |rule: &&super::profile::Rule| rule.names.iter().any(|n| abi.number(n) == Some(call.number));
    let holds = |c: &Condition| {
        let argument = call.arguments[usize::from(c.index)];
        match c.compare {
            Compare::Equal => argument == c.value,
            Compare::NotEqual => argument != c.value,
            Compare::Less => argument < c.value,
            Compare::LessOrEqual => argument <= c.value,
            Compare::Greater => argument > c.value,
            Compare::GreaterOrEqual => argument >= c.value,
            Compare::MaskedEqual { mask } => argument & mask == c.value,
        }
    };
    let rules: Vec<_> = profile.rules.iter().filter(of_call).collect();
    let conditional = rules.iter().find(|r| !r.conditions.is_empty() && r.conditions.iter().all(holds));
    if let Some(rule) = conditional.or_else(|| rules.iter().find(|r| r.conditions.is_empty())) {
        return rule.action;
    }
    match profile.default {
        Action::Allow | Action::Log | Action::Trace(_) => profile.default,
        _ if call.number > abi.newest() => Action::Errno(default::ENOSYS),
        _ => profile.default,
    }
}

pub(super) mod arbitrary {
    use super::super::profile::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Allow),
            Just(Action::Log),
            Just(Action::Trap),
            Just(Action::KillThread),
            Just(Action::KillProcess),
            (0..4096u16).prop_map(Action::Errno),
            any::<u16>().prop_map(Action::Trace),
        ]
    }

    /// Values near one another, with and without upper halves.
    pub(in super::super) fn value() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..4u64,
            Just(u64::from(u32::MAX)),
            (0..3u64).prop_map(|v| v << 32),
            (0..3u64).prop_map(|v| (1 << 32) + v)
        ]
    }

    fn condition(index: u8) -> impl Strategy<Value = Condition> {
        let compare = prop_oneof![
            Just(Compare::Equal),
            Just(Compare::NotEqual),
            Just(Compare::Less),
            Just(Compare::LessOrEqual),
            Just(Compare::Greater),
            Just(Compare::GreaterOrEqual),
            value().prop_map(|mask| Compare::MaskedEqual { mask }),
        ];
        (compare, value()).prop_map(move |(compare, value)| Condition { index, compare, value })
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let name = prop_oneof![
            Just("read"),
            Just("write"),
            Just("open"),
            Just("close"),
            Just("socket"),
            Just("clone"),
            Just("mount"),
            Just("no_such_call"),
            Just("file_setattr"),
        ];
        let conditions = (0..3usize, 0..4u8)
            .prop_flat_map(|(count, first)| (0..count as u8).map(|n| condition(first + n).boxed()).collect::<Vec<_>>());
        (vec(name, 1..4), action(), conditions).prop_map(|(names, action, conditions)| Rule {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            conditions,
        })
    }

    pub(in super::super) fn profile() -> impl Strategy<Value = Profile> {
        (action(), vec(rule(), 0..12), any::<bool>()).prop_map(|(default, rules, log)| Profile { default, rules, log })
    }
}

proptest! {
    #[test]
    fn programs_do_what_profiles_say(
        profile in arbitrary::profile(),
        number in prop_oneof![0..60u32, 160..170u32, 460..480u32, Just(0x4000_0001u32)],
        arguments in proptest::array::uniform6(arbitrary::value()),
    ) {
        let abis = [Abi::X86_64, Abi::I386];
        let program = compile::compile(&profile, &abis).unwrap();
        for abi in abis {
            let call = Call { number, architecture: abi.audit_arch(), arguments };
            prop_assert_eq!(run(&program, &call), word(plainly(&profile, abi, &call)), "{:?}", abi);
        }
        let foreign = Call { number, architecture: Abi::Aarch64.audit_arch(), arguments };
        prop_assert_eq!(run(&program, &foreign), word(Action::KillProcess));
    }

    #[test]
    fn no_file_makes_a_filter_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Some(filter) = Filter::from_bytes(&bytes) {
            prop_assert_eq!(filter.to_bytes(), bytes);
        }
    }
}

fn verdict(capabilities: &[&str], abi: Abi, name: &str, first: u64) -> Action {
    let capabilities: BTreeSet<&str> = capabilities.iter().copied().collect();
    let profile = default::profile(&capabilities);
    let number = abi.number(name).unwrap_or_else(|| panic!("{name}"));
    let call = Call { number, architecture: abi.audit_arch(), arguments: [first, 0, 0, 0, 0, 0] };
    let said = run(&compile::compile(&profile, &[Abi::X86_64, Abi::I386, Abi::Aarch64]).unwrap(), &call);
    let action = plainly(&profile, abi, &call);
    assert_eq!(said, word(action), "{name}");
    action
}

/// Everyday calls pass, ways out do not, on every machine.
#[test]
fn the_default_profile_draws_the_usual_line() {
    const EPERM: Action = Action::Errno(1);
    const ENOSYS: Action = Action::Errno(38);
    for abi in [Abi::X86_64, Abi::I386, Abi::Aarch64] {
        for name in ["read", "execve", "openat", "futex", "ptrace", "seccomp", "rseq", "mseal", "statx"] {
            assert_eq!(verdict(&[], abi, name, 0), Action::Allow, "{name} {abi:?}");
        }
        for name in [
            "mount",
            "umount2",
            "unshare",
            "setns",
            "keyctl",
            "add_key",
            "request_key",
            "bpf",
            "userfaultfd",
            "reboot",
            "swapon",
            "init_module",
            "finit_module",
            "kexec_load",
            "perf_event_open",
            "io_uring_setup",
            "open_by_handle_at",
            "settimeofday",
            "pivot_root",
            "quotactl",
            "fsopen",
            "move_mount",
            "acct",
            "syslog",
        ] {
            assert_eq!(verdict(&[], abi, name, 0), EPERM, "{name} {abi:?}");
        }
        assert_eq!(verdict(&[], abi, "clone3", 0), ENOSYS);
        assert_eq!(verdict(&[], abi, "clone", 0x0100_0000), Action::Allow, "a thread");
        for flag in [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(verdict(&[], abi, "clone", flag | 17), EPERM, "{flag:#x}");
        }
        assert_eq!(verdict(&[], abi, "socket", 2), Action::Allow, "AF_INET");
        assert_eq!(verdict(&[], abi, "socket", 39), Action::Allow);
        assert_eq!(verdict(&[], abi, "socket", 44), Action::Allow, "AF_XDP");
        assert_eq!(verdict(&[], abi, "socket", 38), EPERM, "AF_ALG");
        assert_eq!(verdict(&[], abi, "socket", 40), EPERM, "AF_VSOCK");
        assert_eq!(verdict(&[], abi, "personality", 0), Action::Allow);
        assert_eq!(verdict(&[], abi, "personality", 0x0004_0000), EPERM, "ADDR_NO_RANDOMIZE");
        for name in ["mount", "unshare", "setns", "clone3", "bpf"] {
            assert_eq!(verdict(&["SYS_ADMIN"], abi, name, 0), Action::Allow, "{name} {abi:?}");
        }
        assert_eq!(verdict(&["SYS_ADMIN"], abi, "clone", 0x1000_0000), Action::Allow);
        assert_eq!(verdict(&["SYS_CHROOT"], abi, "chroot", 0), Action::Allow);
        assert_eq!(verdict(&["SYS_MODULE"], abi, "finit_module", 0), Action::Allow);
    }
    assert_eq!(verdict(&[], Abi::I386, "socketcall", 1), ENOSYS);
}

#[test]
fn a_program_is_short_and_answers_in_a_few_steps() {
    let profile = default::profile(&BTreeSet::new());
    let program = compile::compile(&profile, &[Abi::X86_64, Abi::I386]).unwrap();
    assert!(program.len() < 600, "{}", program.len());
}

#[test]
fn a_missing_or_broken_local_profile_names_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let none = BTreeSet::new();
    let said = |name: &str| match prepare(&Seccomp::Localhost(name.into()), dir.path(), &none) {
        Ok(_) => panic!("{name} was taken"),
        Err(e) => e.to_string(),
    };
    let path = dir.path().join("a/none.json");
    let path = path.display();
    assert_eq!(
        said("a/none.json"),
        format!("cannot load seccomp profile \"{path}\": open {path}: no such file or directory")
    );
    crate::files::write_atomically(&dir.path().join("bad.json"), b"{}", 0o644).unwrap();
    assert!(
        said("bad.json").contains("bad.json\": not a seccomp profile: missing field `defaultAction`"),
        "{}",
        said("bad.json")
    );
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out.json")).unwrap();
    assert!(said("out.json").contains("leads out of the directory"));
    crate::files::write_atomically(&dir.path().join("ok.json"), br#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, 0o644)
        .unwrap();
    let made = prepare(&Seccomp::Localhost("ok.json".into()), dir.path(), &none).unwrap().unwrap();
    assert_eq!(Filter::from_bytes(&made.filter.to_bytes()), Some(made.filter));
}
