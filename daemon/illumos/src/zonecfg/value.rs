//! Values and names that zonecfg's grammar can express. What can't be is refused here, at the edge.

use std::fmt;

/// Why a text can't stand in a zone's configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {rule}")]
pub struct ValueError {
    /// What was asked for; never the value itself, which may be long or secret.
    pub what: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// The longest value. A token of the real grammar ends at 1024 bytes, its quotes included, and what is longer ends
/// zonecfg itself.
const TEXT_MOST: usize = 1000;

/// A string value: always written between double quotes, for which there is no escape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(String);

impl Text {
    /// Takes a value of 1 to 1000 printable ASCII characters without `"`.
    ///
    /// # Errors
    /// [`ValueError`] for what zonecfg can't express: encode such values (base64url) before.
    pub fn new(value: impl Into<String>) -> Result<Self, ValueError> {
        let value = value.into();
        let error = |rule| Err(ValueError { what: "value of a zone property", rule });
        match value.as_bytes() {
            [] => error("an empty value can't be written: leave the property out"),
            long if long.len() > TEXT_MOST => error("longer than 1000 bytes"),
            bytes if bytes.contains(&b'"') => error("a double quote can't be written"),
            bytes if !bytes.iter().all(|b| (0x20..0x7f).contains(b)) => {
                error("only printable ASCII characters can be written")
            }
            _ => Ok(Self(value)),
        }
    }

    /// Stands where a value is still to come.
    pub(super) fn unset() -> Self {
        Self("unset".to_owned())
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    /// Between quotes, as zonecfg reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// The name of an attr resource: letters, digits, `-` and `.`, a letter or digit first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttrName(String);

impl AttrName {
    /// Checks a name of 1 to 128 bytes.
    ///
    /// # Errors
    /// [`ValueError`] naming the rule that is broken.
    pub fn new(name: impl Into<String>) -> Result<Self, ValueError> {
        let name = name.into();
        let error = |rule| Err(ValueError { what: "name of a zone attribute", rule });
        if name.is_empty() || name.len() > 128 {
            return error("must be 1 to 128 bytes");
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return error("must begin with a letter or digit");
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')) {
            return error("may hold only letters, digits, '-' and '.'");
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a resource control (resource_controls(7)): `zone.` and lower-case letters and dashes. zonecfg saves a
/// name that no system knows without a word; the host checks it against what the system lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RctlName(String);

impl RctlName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ValueError`] naming the rule that is broken.
    pub fn new(name: impl Into<String>) -> Result<Self, ValueError> {
        let name = name.into();
        let control = name.strip_prefix("zone.").filter(|rest| !rest.is_empty() && rest.len() <= 64);
        match control {
            Some(rest) if rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') => Ok(Self(name)),
            _ => Err(ValueError {
                what: "name of a resource control",
                rule: "must be 'zone.' and lower-case letters and dashes",
            }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A bound on a zone's CPU use in hundredths of one CPU, from 0.01 CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuCap(u32);

impl CpuCap {
    /// From hundredths of a CPU.
    ///
    /// # Errors
    /// [`ValueError`] for 0, which zonecfg refuses.
    pub fn from_hundredths(hundredths: u32) -> Result<Self, ValueError> {
        match hundredths {
            0 => Err(ValueError { what: "CPU cap", rule: "must be at least 0.01 CPUs" }),
            some => Ok(Self(some)),
        }
    }

    /// From thousandths of a CPU, rounded up: a bound is never tighter than asked for.
    ///
    /// # Errors
    /// As [`CpuCap::from_hundredths`], and for more than 42 million CPUs.
    pub fn from_millis(millis: u64) -> Result<Self, ValueError> {
        let hundredths = u32::try_from(millis.div_ceil(10));
        Self::from_hundredths(hundredths.map_err(|_| ValueError { what: "CPU cap", rule: "is beyond any machine" })?)
    }

    /// In hundredths of a CPU: the value of the resource control `zone.cpu-cap`.
    pub fn hundredths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for CpuCap {
    /// As `ncpus` is written: `1.50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}
