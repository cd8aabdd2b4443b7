//! Names that are checked once, at the edge, and then carried as types.

use crate::spec::PodIdentity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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

/// libdladm(3LIB) `dladm_valid_linkname` and Linux' IFNAMSIZ together: at most 15 bytes, a letter first, letters and
/// digits, and at its end a number without a leading zero.
fn check_link(v: &str) -> Result<(), &'static str> {
    if v.is_empty() || v.len() > 15 {
        return Err("must be 1 to 15 bytes (Linux' IFNAMSIZ)");
    }
    if !v.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err("may hold only a-z and 0-9");
    }
    if !v.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err("must begin with a letter");
    }
    let number = v.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = number.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    if number.is_empty() {
        return Err("must end in a number (illumos)");
    }
    if number.len() > 1 && number.starts_with('0') {
        return Err("the number at its end must have no leading zero (illumos)");
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
name_type!(
    /// A dataset of a storage engine within its area: `pvc-<uid of the claim>`, for instance.
    DatasetName, "dataset name", check_label
);
name_type!(
    /// A snapshot of a dataset.
    SnapshotName, "snapshot name", check_label
);
name_type!(
    /// A network link of ours: a VNIC on illumos, the host's end of a veth pair on Linux.
    LinkName, "link name", check_link
);

/// The length that leaves room for `-` and [`DIGEST_LEN`] characters within 63 bytes.
const READABLE_LEN: usize = 63 - 1 - DIGEST_LEN;
/// 10 characters of a 32-letter alphabet: 50 bits, so that among 8192 zones (illumos' most) two share a name with
/// a chance of about 1 in 30 million.
const DIGEST_LEN: usize = 10;

impl SandboxId {
    /// The sandbox name of a pod: `<namespace>-<name>-<digest>`, cut to 63 bytes before the digest.
    ///
    /// The readable part is for people; the digest over namespace, name and uid makes it unique: (`a`, `b-c`) and
    /// (`a-b`, `c`) differ, names that agree in their first 50 bytes differ, and a pod differs from its namesake of
    /// yesterday. The derivation is part of what an upgrade must keep.
    pub fn for_pod(pod: &PodIdentity) -> Self {
        let mut name = String::with_capacity(63);
        for c in format!("{}-{}", pod.namespace, pod.name).chars() {
            let c = if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            // One dash never follows another, and none comes first.
            if name.len() < READABLE_LEN && !(c == '-' && (name.is_empty() || name.ends_with('-'))) {
                name.push(c);
            }
        }
        let readable = name.trim_end_matches('-');
        let digest = digest_text(
            &[pod.namespace.as_bytes(), pod.name.as_bytes(), pod.uid.as_str().as_bytes()],
            b"abcdefghijklmnopqrstuvwxyz234567",
            DIGEST_LEN,
        );
        // Always valid: [a-z0-9-], ends in the digest, begins with a letter or digit.
        if readable.is_empty() { Self(digest) } else { Self(format!("{readable}-{digest}")) }
    }
}

impl ImageId {
    /// The id of content whose SHA-256 digest is `digest`.
    pub fn of_digest(digest: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex(&digest)))
    }
}

impl LinkName {
    /// The link of a sandbox: `rw`, ten letters, `0`. Legal on illumos and Linux by construction: a letter first, a
    /// number without leading zero last, 13 bytes (tests/names hold it to that).
    pub fn for_sandbox(id: &SandboxId) -> Self {
        Self(format!("rw{}0", digest_text(&[b"link", id.as_str().as_bytes()], b"abcdefghijklmnopqrstuvwxyz", 10)))
    }
}

/// Bytes as lower-case hexadecimal digits, as digests are written.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `len` letters of `alphabet` from SHA-256 over length-prefixed `parts`.
fn digest_text(parts: &[&[u8]], alphabet: &[u8], len: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut number = hash.finalize().iter().take(16).fold(0u128, |number, byte| (number << 8) | u128::from(*byte));
    let base = alphabet.len() as u128;
    let mut text = String::with_capacity(len);
    for _ in 0..len {
        let index = usize::try_from(number % base).unwrap_or_default();
        text.push(char::from(alphabet.get(index).copied().unwrap_or(b'a')));
        number /= base;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pod(namespace: &str, name: &str, uid: &str) -> PodIdentity {
        PodIdentity { namespace: namespace.into(), name: name.into(), uid: PodUid::new(uid).unwrap() }
    }

    /// U9: a plain join with dashes maps both to `a-b-c`.
    #[test]
    fn digits_are_lower_case_and_two_a_byte() {
        assert_eq!(hex(&[0, 0x0a, 0xff]), "000aff");
        assert_eq!(ImageId::of_digest([0xab; 32]).as_str(), format!("sha256:{}", "ab".repeat(32)));
    }

    #[test]
    fn u9_namespace_and_name_never_run_into_one_another() {
        let one = SandboxId::for_pod(&pod("a", "b-c", "u"));
        let two = SandboxId::for_pod(&pod("a-b", "c", "u"));
        assert!(one.as_str().starts_with("a-b-c-") && two.as_str().starts_with("a-b-c-"));
        assert_ne!(one, two);
        assert_ne!(LinkName::for_sandbox(&one), LinkName::for_sandbox(&two));
    }

    /// Names that an upgrade must not change: a changed derivation would make every pod anew.
    #[test]
    fn derivations_stay_as_they_are() {
        let id = SandboxId::for_pod(&pod("default", "web", "0b5c3f4e-95c1-4bb0-9b8e-6f7a3a2d1c00"));
        assert_eq!(id.as_str(), "default-web-76zrocju4f");
        assert_eq!(LinkName::for_sandbox(&id).as_str(), "rwxpautejiok0");
    }

    #[test]
    fn link_names_are_held_to_both_systems_rules() {
        for good in ["rw0", "net1", "rwabc10", "e1000g0", "a0b1"] {
            assert!(LinkName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "rw", "0rw", "rw01", "rw00", "rw_0", "RW0", "rw-0", "rwabcdefghijklm0", "rw0a"] {
            assert!(LinkName::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_derived_name_is_always_valid(namespace in ".{0,80}", name in ".{0,260}", uid in "[a-f0-9-]{1,64}") {
            let id = SandboxId::for_pod(&pod(&namespace, &name, &uid));
            prop_assert_eq!(SandboxId::new(id.as_str()), Ok(id.clone()));
            let link = LinkName::for_sandbox(&id);
            prop_assert_eq!(LinkName::new(link.as_str()), Ok(link.clone()));
            prop_assert_eq!(link.as_str().len(), 13);
            prop_assert!(link.as_str().ends_with('0'));
            prop_assert_eq!(link.as_str().bytes().filter(u8::is_ascii_digit).count(), 1);
        }

        #[test]
        fn two_pods_never_share_a_name(
            a in ("[ab-]{1,6}", "[ab-]{1,6}", "[ab]{1,3}"),
            b in ("[ab-]{1,6}", "[ab-]{1,6}", "[ab]{1,3}"),
        ) {
            let (one, two) = (pod(&a.0, &a.1, &a.2), pod(&b.0, &b.1, &b.2));
            prop_assert_eq!(one == two, SandboxId::for_pod(&one) == SandboxId::for_pod(&two));
        }

        #[test]
        fn long_names_that_differ_at_the_end_differ(tail_a in "[a-z]{1,3}", tail_b in "[a-z]{1,3}") {
            let long = "x".repeat(240);
            let one = pod("default", &format!("{long}{tail_a}"), "u");
            let two = pod("default", &format!("{long}{tail_b}"), "u");
            prop_assert_eq!(tail_a == tail_b, SandboxId::for_pod(&one) == SandboxId::for_pod(&two));
        }
    }
}
