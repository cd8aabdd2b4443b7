//! Paths as archives give them.

use super::error::{Result, UnpackError};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// PATH_MAX and NAME_MAX (limits.h).
const PATH_LIMIT: usize = 4095;
const NAME_LIMIT: usize = 255;

/// A path below an image's root: relative, without `.` and `..`; empty for the root itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct EntryPath(Vec<CString>);

impl EntryPath {
    /// Takes a path apart. `./a//b/` is `a/b`.
    ///
    /// # Errors
    /// `Invalid` for absolute paths, `..`, NUL and what is too long for the kernel.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let refuse = |why: &str| UnpackError::invalid(format!("entry {:?}: {why}", String::from_utf8_lossy(bytes)));
        if bytes.is_empty() {
            return Err(refuse("has no name"));
        }
        if bytes.first() == Some(&b'/') {
            return Err(refuse("has an absolute path"));
        }
        if bytes.len() > PATH_LIMIT {
            return Err(UnpackError::invalid(format!("an entry's path has {} bytes", bytes.len())));
        }
        let mut components = Vec::new();
        for part in bytes.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(refuse("has '..' in its path")),
                part if part.len() > NAME_LIMIT => return Err(refuse("has a name of more than 255 bytes")),
                part => components.push(CString::new(part).map_err(|_| refuse("has a NUL in its path"))?),
            }
        }
        Ok(Self(components))
    }

    /// The path's last component and the path before it; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Self, &CString)> {
        let (last, before) = self.0.split_last()?;
        Some((Self(before.to_vec()), last))
    }

    /// The path with one more component, which is taken as it is.
    pub(crate) fn join(&self, name: CString) -> Self {
        let mut components = self.0.clone();
        components.push(name);
        Self(components)
    }

    pub(crate) fn components(&self) -> &[CString] {
        &self.0
    }

    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.0.first().map(|c| c.as_bytes())
    }

    /// For system calls: `.` for the root.
    pub(crate) fn to_path(&self) -> PathBuf {
        if self.0.is_empty() {
            return PathBuf::from(".");
        }
        self.0.iter().map(|c| OsStr::from_bytes(c.as_bytes())).collect()
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_path())
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn odd_forms_of_good_paths_are_one() {
        for text in ["a/b", "./a/b", "a//b/", "a/./b", ".//a/b/."] {
            assert_eq!(EntryPath::parse(text.as_bytes()).unwrap().to_path(), Path::new("a/b"), "{text}");
        }
        assert_eq!(EntryPath::parse(b"./").unwrap().components().len(), 0);
        assert_eq!(EntryPath::parse(b"..a/b..").unwrap().to_path(), Path::new("..a/b.."));
    }

    #[test]
    fn bad_paths_are_refused_by_name() {
        for (bytes, why) in [
            (&b"/etc/passwd"[..], "entry \"/etc/passwd\": has an absolute path"),
            (b"../x", "entry \"../x\": has '..' in its path"),
            (b"a/../../x", "entry \"a/../../x\": has '..' in its path"),
            (b"a/..", "entry \"a/..\": has '..' in its path"),
            (b"a\0b", "entry \"a\\0b\": has a NUL in its path"),
            (b"", "entry \"\": has no name"),
        ] {
            assert_eq!(EntryPath::parse(bytes).unwrap_err().message, why);
        }
        assert!(EntryPath::parse(&[b'a'; 256]).is_err());
        assert!(EntryPath::parse("a/".repeat(3000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below_the_root(bytes in proptest::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), Just(0u8), any::<u8>()], 0..40))
        {
            if let Ok(path) = EntryPath::parse(&bytes) {
                let shown = path.to_path();
                prop_assert!(shown.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)));
                for c in path.components() {
                    let c = c.as_bytes();
                    let plain = !c.is_empty() && c != b"." && c != b".." && !c.contains(&b'/') && c.len() <= 255;
                    prop_assert!(plain);
                }
            }
        }
    }
}
