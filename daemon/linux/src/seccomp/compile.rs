//! From a profile to classic BPF (linux/filter.h) as seccomp(2) takes it. Pure.
//!
//! The program looks at the calling convention first, then finds the call's number by halving, so that a call costs a
//! dozen instructions however long the profile is. Where nothing but the number matters the kernel remembers the
//! answer for allowed calls and runs nothing (Linux 5.11).

use super::default::ENOSYS;
use super::profile::{Action, Compare, Condition, Profile};
use super::syscalls::Abi;
use std::collections::BTreeMap;

/// One instruction: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// BPF_LD | BPF_W | BPF_ABS.
pub(super) const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K.
pub(super) const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA.
pub(super) const JUMP: u16 = 0x05;
/// BPF_JMP | BPF_JEQ | BPF_K, and the same for greater and greater or equal.
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
/// BPF_RET | BPF_K.
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// BPF_MAXINSNS.
const LONGEST: usize = 4096;

/// The kernel takes no program of that length.
#[derive(Debug, thiserror::Error)]
#[error("the profile makes {0} instructions, more than the {LONGEST} that the kernel takes: give it fewer conditions")]
pub(super) struct TooLong(usize);

/// Actions and when they are taken; looked at in order.
type Conditional = Vec<(Vec<Condition>, Action)>;

/// What becomes of one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) conditional: Conditional,
    pub(super) otherwise: Action,
}

/// The program for all calling conventions of a machine. Any other one kills the process.
pub(super) fn compile(profile: &Profile, abis: &[Abi]) -> Result<Vec<Instruction>, TooLong> {
    let sections: Vec<_> = abis.iter().map(|abi| (abi.audit_arch(), section(&segments(profile, *abi)))).collect();
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    // Behind the two instructions of each choice and the last word.
    let mut ahead = 2 * sections.len() + 1;
    for (at, (architecture, body)) in sections.iter().enumerate() {
        program.push(Instruction { code: JUMP_EQUAL, jt: 0, jf: 1, k: *architecture });
        program.push(plain(JUMP, length(ahead - 2 * (at + 1))));
        ahead += body.len();
    }
    program.push(plain(RETURN, word(Action::KillProcess)));
    for (_, body) in sections {
        program.extend(body);
    }
    if program.len() > LONGEST { Err(TooLong(program.len())) } else { Ok(program) }
}

/// What becomes of each call, as runs of numbers: from this number on, up to the next.
pub(super) fn segments(profile: &Profile, abi: Abi) -> Vec<(u32, Verdict)> {
    let mut calls: BTreeMap<u32, (Conditional, Option<Action>)> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| abi.number(name)) {
            let (conditional, otherwise) = calls.entry(number).or_default();
            if rule.conditions.is_empty() {
                otherwise.get_or_insert(rule.action);
            } else {
                conditional.push((rule.conditions.clone(), rule.action));
            }
        }
    }
    let default = Verdict { conditional: Vec::new(), otherwise: profile.default };
    let mut segments: Vec<(u32, Verdict)> = Vec::new();
    let mut add = |from: u32, verdict: Verdict| {
        // A run of one number's length that is replaced before it began.
        segments.pop_if(|(start, _)| *start == from);
        if segments.last().is_none_or(|(_, last)| *last != verdict) {
            segments.push((from, verdict));
        }
    };
    add(0, default.clone());
    for (number, (conditional, otherwise)) in calls {
        add(number, Verdict { conditional, otherwise: otherwise.unwrap_or(profile.default) });
        add(number + 1, default.clone());
    }
    // Calls younger than the table: a C library that tries one must hear "not there" and fall back, not "forbidden".
    let unknown = match profile.default {
        Action::Allow | Action::Log | Action::Trace(_) => profile.default,
        Action::Errno(_) | Action::Trap | Action::KillThread | Action::KillProcess => Action::Errno(ENOSYS),
    };
    add(abi.newest() + 1, Verdict { conditional: Vec::new(), otherwise: unknown });
    segments
}

fn section(segments: &[(u32, Verdict)]) -> Vec<Instruction> {
    let mut body = vec![plain(LOAD, NUMBER)];
    body.extend(search(segments));
    body
}

/// Halves until one is left.
fn search(segments: &[(u32, Verdict)]) -> Vec<Instruction> {
    let (left, right) = segments.split_at(segments.len() / 2);
    let (Some((pivot, _)), false) = (right.first(), left.is_empty()) else {
        return segments.first().map(|(_, verdict)| judge(verdict)).unwrap_or_default();
    };
    let (low, high) = (search(left), search(right));
    let mut body = match u8::try_from(low.len()) {
        Ok(over) => vec![Instruction { code: JUMP_GREATER_OR_EQUAL, jt: over, jf: 0, k: *pivot }],
        Err(_) => {
            vec![Instruction { code: JUMP_GREATER_OR_EQUAL, jt: 0, jf: 1, k: *pivot }, plain(JUMP, length(low.len()))]
        }
    };
    body.extend(low);
    body.extend(high);
    body
}

fn judge(verdict: &Verdict) -> Vec<Instruction> {
    let mut body = Vec::new();
    for (conditions, action) in &verdict.conditional {
        body.extend(when_all(conditions, *action));
    }
    body.push(plain(RETURN, word(verdict.otherwise)));
    body
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum Then {
    /// With the instruction after it.
    Next,
    /// Behind the condition: it holds.
    Holds,
    /// Behind the whole rule: it does not.
    Fails,
}

enum Part {
    Plain(Instruction),
    Branch(u16, u32, Then, Then),
}

/// One rule: its action when all conditions hold, else on to what follows.
fn when_all(conditions: &[Condition], action: Action) -> Vec<Instruction> {
    let parts: Vec<Vec<Part>> = conditions.iter().map(test).collect();
    let total: usize = parts.iter().map(Vec::len).sum::<usize>() + 1;
    let mut body: Vec<Instruction> = Vec::with_capacity(total);
    for part in parts {
        let holds = body.len() + part.len();
        for step in part {
            let at = body.len();
            // At most six conditions of five instructions: always within a byte.
            let target = |then: Then| match then {
                Then::Next => 0,
                Then::Holds => (holds - at - 1) as u8,
                Then::Fails => (total - at - 1) as u8,
            };
            body.push(match step {
                Part::Plain(instruction) => instruction,
                Part::Branch(code, k, yes, no) => Instruction { code, jt: target(yes), jf: target(no), k },
            });
        }
    }
    body.push(plain(RETURN, word(action)));
    body
}

/// A 64-bit comparison in two halves, the upper one first.
fn test(condition: &Condition) -> Vec<Part> {
    use Then::{Fails, Holds, Next};
    let low_at = ARGUMENTS + 8 * u32::from(condition.index);
    // Little-endian, as all machines that we run on.
    let load_high = || Part::Plain(plain(LOAD, low_at + 4));
    let load_low = || Part::Plain(plain(LOAD, low_at));
    let high = (condition.value >> 32) as u32;
    let low = condition.value as u32;
    let upper_first = |greater: Then, less: Then, code: u16, yes: Then, no: Then| {
        vec![
            load_high(),
            Part::Branch(JUMP_GREATER, high, greater, Next),
            Part::Branch(JUMP_EQUAL, high, Next, less),
            load_low(),
            Part::Branch(code, low, yes, no),
        ]
    };
    match condition.compare {
        Compare::Equal => vec![
            load_high(),
            Part::Branch(JUMP_EQUAL, high, Next, Fails),
            load_low(),
            Part::Branch(JUMP_EQUAL, low, Holds, Fails),
        ],
        Compare::NotEqual => vec![
            load_high(),
            Part::Branch(JUMP_EQUAL, high, Next, Holds),
            load_low(),
            Part::Branch(JUMP_EQUAL, low, Fails, Holds),
        ],
        Compare::Greater => upper_first(Holds, Fails, JUMP_GREATER, Holds, Fails),
        Compare::GreaterOrEqual => upper_first(Holds, Fails, JUMP_GREATER_OR_EQUAL, Holds, Fails),
        Compare::Less => upper_first(Fails, Holds, JUMP_GREATER_OR_EQUAL, Fails, Holds),
        Compare::LessOrEqual => upper_first(Fails, Holds, JUMP_GREATER, Fails, Holds),
        Compare::MaskedEqual { mask } => vec![
            load_high(),
            Part::Plain(plain(AND, (mask >> 32) as u32)),
            Part::Branch(JUMP_EQUAL, high, Next, Fails),
            load_low(),
            Part::Plain(plain(AND, mask as u32)),
            Part::Branch(JUMP_EQUAL, low, Holds, Fails),
        ],
    }
}

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// Programs that the kernel takes are far shorter than this can hold; longer ones are refused afterwards.
fn length(instructions: usize) -> u32 {
    u32::try_from(instructions).unwrap_or(u32::MAX)
}

/// SECCOMP_RET_* (linux/seccomp.h).
pub(super) fn word(action: Action) -> u32 {
    match action {
        Action::KillProcess => 0x8000_0000,
        Action::KillThread => 0,
        Action::Trap => 0x0003_0000,
        Action::Errno(n) => 0x0005_0000 | u32::from(n),
        Action::Trace(n) => 0x7FF0_0000 | u32::from(n),
        Action::Log => 0x7FFC_0000,
        Action::Allow => 0x7FFF_0000,
    }
}
