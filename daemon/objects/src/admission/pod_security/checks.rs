//! The table of checks. Each looks at pods that a version of its level forbids; what it says follows the reference's `policy/`.

use super::{Level, Profile, Template, Version, baseline, restricted};
use std::fmt;

/// A way in which a pod leaves a level; prints as `hostPort (container "a" uses hostPort 80)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What, in a word or two.
    pub reason: &'static str,
    /// Where, and what would be right.
    pub detail: String,
}

pub(super) fn violation(reason: &'static str, detail: String) -> Violation {
    Violation { reason, detail }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.detail)
    }
}

/// A check of the pods of a level and of those above it.
pub(super) struct Check {
    /// As the reference calls it.
    pub(super) name: &'static str,
    pub(super) level: Level,
    /// The minor version of Kubernetes that had it first.
    pub(super) since: u64,
    /// The check of a lower level that it makes needless.
    pub(super) instead_of: &'static str,
    pub(super) run: fn(Template<'_>, Version) -> Option<Violation>,
}

/// All checks, in the order in which their findings are told: by level, then by name.
pub(super) static CHECKS: [Check; 19] = {
    use Level::{Baseline, Restricted};
    const fn row(
        level: Level,
        name: &'static str,
        since: u64,
        instead_of: &'static str,
        run: fn(Template<'_>, Version) -> Option<Violation>,
    ) -> Check {
        Check { name, level, since, instead_of, run }
    }
    [
        row(Baseline, "appArmorProfile", 0, "", baseline::app_armor_profile),
        row(Baseline, "capabilities_baseline", 0, "", baseline::capabilities),
        row(Baseline, "hostNamespaces", 0, "", baseline::host_namespaces),
        row(Baseline, "hostPathVolumes", 0, "", baseline::host_path_volumes),
        row(Baseline, "hostPorts", 0, "", baseline::host_ports),
        row(Baseline, "hostProbesAndHostLifecycle", 34, "", baseline::probe_hosts),
        row(Baseline, "privileged", 0, "", baseline::privileged),
        row(Baseline, "procMount", 0, "", baseline::proc_mount),
        row(Baseline, "seLinuxOptions", 0, "", baseline::se_linux_options),
        row(Baseline, "seccompProfile_baseline", 0, "", baseline::seccomp_profile),
        row(Baseline, "sysctls", 0, "", baseline::sysctls),
        row(Baseline, "windowsHostProcess", 0, "", baseline::windows_host_process),
        row(Restricted, "allowPrivilegeEscalation", 8, "", restricted::allow_privilege_escalation),
        row(Restricted, "capabilities_restricted", 22, "capabilities_baseline", restricted::capabilities),
        row(Restricted, "procMount_restricted", 35, "procMount", restricted::proc_mount),
        row(Restricted, "restrictedVolumes", 0, "hostPathVolumes", restricted::volumes),
        row(Restricted, "runAsNonRoot", 0, "", restricted::run_as_non_root),
        row(Restricted, "runAsUser", 23, "", restricted::run_as_user),
        row(Restricted, "seccompProfile_restricted", 19, "seccompProfile_baseline", restricted::seccomp_profile),
    ]
};

/// In which ways pods leave a level.
pub fn violations(profile: Profile, template: Template<'_>) -> Vec<Violation> {
    let applies = |check: &&Check| check.level <= profile.level && profile.version.has(check.since);
    let needless = |check: &Check| CHECKS.iter().filter(applies).any(|other| other.instead_of == check.name);
    let checks = CHECKS.iter().filter(applies).filter(|check| !needless(check));
    checks.filter_map(|check| (check.run)(template, profile.version)).collect()
}
