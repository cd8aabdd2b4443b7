//! Seccomp profiles: the OCI runtime spec's `linux.seccomp`, and docker's form of it with `includes` and `excludes`.

use super::syscalls::Abi;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    /// Allowed and logged.
    Log,
    /// Fails with this errno(3).
    Errno(u16),
    /// SIGSYS.
    Trap,
    /// A tracer is told this number.
    Trace(u16),
    KillThread,
    KillProcess,
}

/// How an argument is compared with a value, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Of the argument only these bits.
    MaskedEqual {
        mask: u64,
    },
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, from 0 to 5.
    pub(super) index: u8,
    pub(super) compare: Compare,
    pub(super) value: u64,
}

/// What becomes of some calls when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) action: Action,
    pub(super) conditions: Vec<Condition>,
}

impl Rule {
    /// Calls by names separated by white space, without conditions.
    pub(super) fn plain(names: &str, action: Action) -> Self {
        Self { names: names.split_whitespace().map(str::to_owned).collect(), action, conditions: Vec::new() }
    }
}

/// A whole profile. Rules with conditions count before those without; among equals the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    /// What becomes of calls that no rule speaks of.
    pub(super) default: Action,
    pub(super) rules: Vec<Rule>,
    /// Actions other than `Allow` are logged by the kernel's audit.
    pub(super) log: bool,
}

/// What a profile's `includes` and `excludes` are held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    /// Names without `CAP_`.
    pub(super) capabilities: &'a BTreeSet<&'a str>,
    /// Major and minor version.
    pub(super) kernel: (u32, u32),
    pub(super) abi: Abi,
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProfileError {
    #[error("not a seccomp profile: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{what} {text:?} is not known")]
    Unknown { what: &'static str, text: String },
    #[error("argument {0} of a system call: there are 0 to 5")]
    Argument(u64),
    #[error("errno {0} is too large")]
    Errno(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProfile {
    default_action: String,
    default_errno_ret: Option<u64>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    syscalls: Option<Vec<RawRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u64>,
    #[serde(default)]
    args: Option<Vec<RawCondition>>,
    #[serde(default)]
    includes: Option<RawFilter>,
    #[serde(default)]
    excludes: Option<RawFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCondition {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawFilter {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

impl Profile {
    /// Reads a profile. Calls of names that no machine knows are kept: compiling leaves them out.
    pub(super) fn parse(text: &[u8], at: Circumstances<'_>) -> Result<Self, ProfileError> {
        let raw: RawProfile = serde_json::from_slice(text)?;
        let default = action(&raw.default_action, raw.default_errno_ret)?;
        let mut rules = Vec::new();
        for rule in raw.syscalls.unwrap_or_default() {
            let included = rule.includes.as_ref().is_none_or(|f| f.includes(at));
            let excluded = rule.excludes.as_ref().is_some_and(|f| f.excludes(at));
            if included && !excluded {
                read_rule(rule, &mut rules)?;
            }
        }
        let log = raw.flags.unwrap_or_default().iter().any(|f| f == "SECCOMP_FILTER_FLAG_LOG");
        Ok(Self { default, rules, log })
    }

    /// As crun and runc read it.
    pub(super) fn to_oci(&self, abis: &[Abi]) -> Value {
        let architectures: Vec<_> = abis.iter().map(|abi| abi.oci_name()).collect();
        let (default, default_errno) = self.default.to_oci();
        let rules = self.rules.iter().map(|rule| {
            let (action, errno) = rule.action.to_oci();
            let args: Vec<_> = rule.conditions.iter().map(|c| c.to_oci()).collect();
            let mut value = json!({ "names": rule.names, "action": action, "args": args });
            if let Some(errno) = errno {
                value["errnoRet"] = json!(errno);
            }
            value
        });
        let mut value = json!({
            "defaultAction": default, "architectures": architectures, "syscalls": rules.collect::<Vec<_>>(),
        });
        if let Some(errno) = default_errno {
            value["defaultErrnoRet"] = json!(errno);
        }
        if self.log {
            value["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
        }
        value
    }
}

fn read_rule(raw: RawRule, rules: &mut Vec<Rule>) -> Result<(), ProfileError> {
    let action = action(&raw.action, raw.errno_ret)?;
    let names: Vec<String> = raw.names.unwrap_or_default().into_iter().chain(raw.name).collect();
    let conditions = raw.args.unwrap_or_default().iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    if conditions.iter().all(|c| seen.insert(c.index)) {
        rules.push(Rule { names, action, conditions });
    } else {
        // libseccomp takes one condition an argument: runtimes read more of them as alternatives.
        let one = |c| Rule { names: names.clone(), action, conditions: vec![c] };
        rules.extend(conditions.into_iter().map(one));
    }
    Ok(())
}

fn condition(raw: &RawCondition) -> Result<Condition, ProfileError> {
    let index = u8::try_from(raw.index).ok().filter(|i| *i <= 5).ok_or(ProfileError::Argument(raw.index))?;
    let (compare, value) = match raw.op.as_str() {
        "SCMP_CMP_EQ" => (Compare::Equal, raw.value),
        "SCMP_CMP_NE" => (Compare::NotEqual, raw.value),
        "SCMP_CMP_LT" => (Compare::Less, raw.value),
        "SCMP_CMP_LE" => (Compare::LessOrEqual, raw.value),
        "SCMP_CMP_GT" => (Compare::Greater, raw.value),
        "SCMP_CMP_GE" => (Compare::GreaterOrEqual, raw.value),
        "SCMP_CMP_MASKED_EQ" => (Compare::MaskedEqual { mask: raw.value }, raw.value_two),
        other => return Err(ProfileError::Unknown { what: "comparison", text: other.to_owned() }),
    };
    Ok(Condition { index, compare, value })
}

fn action(text: &str, errno: Option<u64>) -> Result<Action, ProfileError> {
    let number = |default: u16| match errno {
        Some(n) => u16::try_from(n).map_err(|_| ProfileError::Errno(n)),
        None => Ok(default),
    };
    Ok(match text {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(number(libc::EPERM as u16)?.min(4095)),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(number(libc::EPERM as u16)?),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => return Err(ProfileError::Unknown { what: "action", text: other.to_owned() }),
    })
}

impl Action {
    fn to_oci(self) -> (&'static str, Option<u16>) {
        match self {
            Self::Allow => ("SCMP_ACT_ALLOW", None),
            Self::Log => ("SCMP_ACT_LOG", None),
            Self::Errno(n) => ("SCMP_ACT_ERRNO", Some(n)),
            Self::Trap => ("SCMP_ACT_TRAP", None),
            Self::Trace(n) => ("SCMP_ACT_TRACE", Some(n)),
            Self::KillThread => ("SCMP_ACT_KILL_THREAD", None),
            Self::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        }
    }
}

impl Condition {
    fn to_oci(self) -> Value {
        let (op, value, two) = match self.compare {
            Compare::Equal => ("SCMP_CMP_EQ", self.value, 0),
            Compare::NotEqual => ("SCMP_CMP_NE", self.value, 0),
            Compare::Less => ("SCMP_CMP_LT", self.value, 0),
            Compare::LessOrEqual => ("SCMP_CMP_LE", self.value, 0),
            Compare::Greater => ("SCMP_CMP_GT", self.value, 0),
            Compare::GreaterOrEqual => ("SCMP_CMP_GE", self.value, 0),
            Compare::MaskedEqual { mask } => ("SCMP_CMP_MASKED_EQ", mask, self.value),
        };
        json!({ "index": self.index, "op": op, "value": value, "valueTwo": two })
    }
}

impl RawFilter {
    /// All that is asked must be so.
    fn includes(&self, at: Circumstances<'_>) -> bool {
        self.caps.iter().all(|c| has(at, c))
            && (self.arches.is_empty() || self.arches.iter().any(|a| a == at.abi.go_name()))
            && self.min_kernel.as_deref().is_none_or(|v| version(v).is_some_and(|v| at.kernel >= v))
    }

    /// Anything that is named is enough.
    fn excludes(&self, at: Circumstances<'_>) -> bool {
        self.caps.iter().any(|c| has(at, c))
            || self.arches.iter().any(|a| a == at.abi.go_name())
            || self.min_kernel.as_deref().is_some_and(|v| version(v).is_some_and(|v| at.kernel >= v))
    }
}

fn has(at: Circumstances<'_>, capability: &str) -> bool {
    at.capabilities.contains(capability.strip_prefix("CAP_").unwrap_or(capability))
}

/// Major and minor of `uname -r` or of a profile's `minKernel`.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str, capabilities: &[&str]) -> Result<Profile, ProfileError> {
        let capabilities = capabilities.iter().copied().collect();
        let at = Circumstances { capabilities: &capabilities, kernel: (6, 1), abi: Abi::X86_64 };
        Profile::parse(text.as_bytes(), at)
    }

    #[test]
    fn both_forms_are_read() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "architectures": ["SCMP_ARCH_X86_64"], "archMap": [], "syscalls": [
              {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": null},
              {"name": "open", "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 1, "value": 3, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]},
              {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
              {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
              {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "7.0"}},
              {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
              {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#;
        let plain = parse(text, &[]).unwrap();
        assert_eq!((plain.default, plain.log), (Action::Errno(38), true));
        let names = |p: &Profile| p.rules.iter().map(|r| r.names.join("+")).collect::<Vec<_>>();
        assert_eq!(names(&plain), ["read+write", "open", "ptrace", "arch_prctl", "clone3"]);
        let condition = Condition { index: 1, compare: Compare::MaskedEqual { mask: 3 }, value: 2 };
        assert_eq!(plain.rules[1].conditions, [condition]);
        assert_eq!(
            names(&parse(text, &["SYS_ADMIN"]).unwrap()),
            ["read+write", "open", "mount", "ptrace", "arch_prctl"]
        );
    }

    #[test]
    fn two_conditions_on_one_argument_are_alternatives() {
        let text = r#"{"defaultAction": "SCMP_ACT_KILL", "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}]}"#;
        let profile = parse(text, &[]).unwrap();
        assert_eq!(profile.rules.len(), 2);
        assert_eq!(profile.default, Action::KillThread);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |text| parse(text, &[]).unwrap_err().to_string();
        assert!(said("{").starts_with("not a seccomp profile: "));
        assert_eq!(said(r#"{"defaultAction": "ALLOW"}"#), "action \"ALLOW\" is not known");
        let rule = |args: &str| {
            format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_NOTIFY", "args": [{args}]}}]}}"#
            )
        };
        assert_eq!(said(&rule("")), "action \"SCMP_ACT_NOTIFY\" is not known");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert!(version("4.8") < version("4.19"));
        assert_eq!(version("x"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text, &[]);
        }

        /// What is written for other runtimes reads back the same.
        #[test]
        fn the_oci_form_reads_back(profile in super::super::arbitrary::profile()) {
            let text = profile.to_oci(&[Abi::X86_64]).to_string();
            prop_assert_eq!(parse(&text, &[]).unwrap(), profile);
        }
    }
}
