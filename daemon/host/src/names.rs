//! Names that are checked once, at the edge, and then carried as types.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {rule}")]
pub struct NameError {
    /// What kind of name was asked for.
    pub what: &'static str,
    /// The text that was refused.
    pub value: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `value` and takes it.
            ///
            /// # Errors
            /// [`NameError`] naming the rule that is broken.
            pub fn new(value: impl Into<String>) -> Result<Self, NameError> {
                let value = value.into();
                match $check(&value) {
                    Ok(()) => Ok(Self(value)),
                    Err(rule) => Err(NameError { what: $what, value, rule }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::new(value)
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// zonecfg(8): 1 to 63 of letters, digits, `_`, `-`, `.`, first a letter or digit, not `global`, not `SUNW…`.
/// Ours are lower case and without `_` and `.` as well, so that one name serves zones, cgroups, files and host names.
fn check_sandbox(v: &str) -> Result<(), &'static str> {
    if v.is_empty() || v.len() > 63 {
        return Err("must be 1 to 63 bytes");
    }
    if !v.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err("may hold only a-z, 0-9 and '-'");
    }
    if v.starts_with('-') || v.ends_with('-') {
        return Err("must begin and end with a letter or digit");
    }
    if v == "global" {
        return Err("'global' is the host's own zone");
    }
    Ok(())
}

/// RFC 1123 label, as Kubernetes wants container and volume names.
fn check_label(v: &str) -> Result<(), &'static str> {
    if v.is_empty() || v.len() > 63 {
        return Err("must be 1 to 63 bytes");
    }
    if !v.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err("may hold only a-z, 0-9 and '-'");
    }
    if v.starts_with('-') || v.ends_with('-') {
        return Err("must begin and end with a letter or digit");
    }
    Ok(())
}

fn check_uid(v: &str) -> Result<(), &'static str> {
    if v.is_empty() || v.len() > 64 {
        return Err("must be 1 to 64 bytes");
    }
    if !v.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err("may hold only letters, digits and '-'");
    }
    Ok(())
}

/// `sha256:` and 64 lower-case hexadecimal digits (OCI image spec, descriptor digests).
fn check_image_id(v: &str) -> Result<(), &'static str> {
    let Some(hex) = v.strip_prefix("sha256:") else {
        return Err("must begin with 'sha256:'");
    };
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err("must have 64 lower-case hexadecimal digits after 'sha256:'");
    }
    Ok(())
}

name_type!(
    /// A sandbox's name on the host: the zone name on illumos; directory, cgroup and namespace name on Linux.
    SandboxId, "sandbox name", check_sandbox
);
name_type!(
    /// A container's name within its sandbox.
    ContainerName, "container name", check_label
);
name_type!(
    /// A volume's name within its sandbox.
    VolumeName, "volume name", check_label
);
name_type!(
    /// A zone brand: `oci`, `sparse`, `lx`, `bhyve`, ….
    Brand, "zone brand", check_label
);
name_type!(
    /// A pod's uid.
    PodUid, "pod uid", check_uid
);
name_type!(
    /// An image by content.
    ImageId, "image id", check_image_id
);
