//! A namespace's levels, as its labels say.

use crate::field::{FieldError, FieldPath};
use crate::object::Object;
use std::fmt;

/// How much pods may do, from everything to little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Everything.
    #[default]
    Privileged,
    /// Nothing that reaches the host.
    Baseline,
    /// What hardened pods need.
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "privileged" => Self::Privileged,
            "baseline" => Self::Baseline,
            "restricted" => Self::Restricted,
            _ => return None,
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// The checks of which version of Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Those of this one: `v1.N`.
    Minor(u64),
    /// All that we know.
    #[default]
    Latest,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let is_canonical = minor == "0" || !minor.starts_with('0');
        (is_canonical && minor.bytes().all(|b| b.is_ascii_digit())).then(|| minor.parse().ok().map(Self::Minor))?
    }

    /// Is `v1.N` this or older?
    pub(super) fn has(self, minor: u64) -> bool {
        self >= Self::Minor(minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "v1.{minor}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

/// A level in a version; prints as `restricted:latest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Profile {
    /// How much.
    pub level: Level,
    /// By whose count.
    pub version: Version,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What becomes of pods in a namespace; without labels everything is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Pods beyond it are refused.
    pub enforce: Profile,
    /// Pods beyond it are noted in the audit log.
    pub audit: Profile,
    /// Of pods beyond it who makes them is told; what is enforced when nothing is said.
    pub warn: Profile,
}

impl Policy {
    /// That of a namespace. A label that can't be read enforces the strictest level, and neither warns nor notes.
    pub fn of(namespace: &Object) -> Self {
        read(namespace).0
    }

    /// Is everything allowed, and nothing said?
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|profile| profile.level == Level::Privileged)
    }

    /// What pods that are there are to be held against when a namespace's labels change: nothing when what is enforced is
    /// no stricter than before.
    pub fn tightened(old: &Object, new: &Object) -> Option<Profile> {
        let (before, after) = (Self::of(old).enforce, Self::of(new).enforce);
        let is_relaxed = after.version == before.version && after.level <= before.level;
        (after != before && after.level != Level::Privileged && !is_relaxed).then_some(after)
    }
}

/// What is wrong with a namespace's labels.
pub fn check_labels(namespace: &Object) -> Vec<FieldError> {
    read(namespace).1
}

/// As `PolicyToEvaluate` in the reference's `api/helpers.go`.
fn read(namespace: &Object) -> (Policy, Vec<FieldError>) {
    let mut labels = Labels { namespace, errors: Vec::new() };
    let enforced = labels.level("enforce");
    let enforce = Profile {
        level: enforced.unwrap_or(Ok(Level::Privileged)).unwrap_or(Level::Restricted),
        version: labels.version("enforce").unwrap_or_default(),
    };
    let audit = Profile {
        level: labels.level("audit").unwrap_or(Ok(Level::Privileged)).unwrap_or_default(),
        version: labels.version("audit").unwrap_or_default(),
    };
    let (level, version) = (labels.level("warn"), labels.version("warn"));
    let warn = match (level, enforced) {
        (None, Some(Ok(enforced))) if enforced > Level::Privileged => {
            Profile { level: enforced, version: version.unwrap_or(enforce.version) }
        }
        _ => Profile {
            level: level.unwrap_or(Ok(Level::Privileged)).unwrap_or_default(),
            version: version.unwrap_or_default(),
        },
    };
    (Policy { enforce, audit, warn }, labels.errors)
}

struct Labels<'a> {
    namespace: &'a Object,
    errors: Vec<FieldError>,
}

impl Labels<'_> {
    /// The level of a mode: none when nothing is said, an error when that can't be read.
    fn level(&mut self, mode: &str) -> Option<Result<Level, ()>> {
        self.label(mode, Level::parse, "must be one of privileged, baseline, restricted")
    }

    fn version(&mut self, mode: &str) -> Option<Version> {
        let read = self.label(&format!("{mode}-version"), Version::parse, r#"must be "latest" or "v1.x""#);
        read.map(Result::unwrap_or_default)
    }

    fn label<T>(&mut self, name: &str, parse: fn(&str) -> Option<T>, rule: &str) -> Option<Result<T, ()>> {
        let key = format!("pod-security.kubernetes.io/{name}");
        let text = self.namespace.label(&key)?;
        let read = parse(text).ok_or(());
        if read.is_err() {
            let path = FieldPath::of("metadata.labels").map_key(&key);
            self.errors.push(FieldError::invalid(&path, text, rule));
        }
        Some(read)
    }
}
