//! Datasets (zfs(8)), as illumos and OpenZFS both understand them. Names and properties are checked before; what is to be
//! destroyed is listed by a dry run first.

use reddwarf_command::{Invocation, Tool};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Our mark on a dataset: a user property, which counts only where it was set on the dataset itself.
pub const OWNER: &str = "io.reddwarf:owner";

/// The name of a file system or volume: components of letters, digits, `-`, `_`, `.` and `:` between slashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dataset(String);

/// A text that is no dataset's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "dataset {0:?}: must be components of letters, digits, '-', '_', '.' and ':' between slashes, 255 bytes at most"
)]
pub struct DatasetError(pub String);

fn is_component(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(first) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

impl Dataset {
    /// Checks a name. Never begins with a dash: it can't be taken for an option.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn new(name: impl Into<String>) -> Result<Self, DatasetError> {
        let name = name.into();
        if name.len() <= 255 && name.split('/').all(is_component) { Ok(Self(name)) } else { Err(DatasetError(name)) }
    }

    /// The dataset below this one.
    ///
    /// # Errors
    /// [`DatasetError`] when `child` is not one component, or the whole too long.
    pub fn child(&self, child: &str) -> Result<Self, DatasetError> {
        if !is_component(child) {
            return Err(DatasetError(child.to_owned()));
        }
        Self::new(format!("{self}/{child}"))
    }

    /// Whether it is `other` or below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A snapshot of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Snapshot {
    /// Of which.
    pub dataset: Dataset,
    name: String,
}

impl Snapshot {
    /// A snapshot by its name after the `@`.
    ///
    /// # Errors
    /// [`DatasetError`] when the name is not one component.
    pub fn new(dataset: Dataset, name: &str) -> Result<Self, DatasetError> {
        if is_component(name) {
            Ok(Self { dataset, name: name.to_owned() })
        } else {
            Err(DatasetError(name.to_owned()))
        }
    }

    /// By its whole name, `DATASET@NAME`.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub fn parse(whole: &str) -> Result<Self, DatasetError> {
        let (dataset, name) = whole.split_once('@').ok_or_else(|| DatasetError(whole.to_owned()))?;
        Self::new(Dataset::new(dataset)?, name)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.dataset, self.name)
    }
}

/// Properties by name.
pub type Properties = BTreeMap<String, String>;

fn options(properties: &Properties) -> impl Iterator<Item = String> {
    properties.iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
}

/// Makes a file system with all its properties at once: none is ever without its quota or mark.
pub fn create(dataset: &Dataset, properties: &Properties) -> Invocation {
    let args = ["create".to_owned()].into_iter().chain(options(properties)).chain([dataset.to_string()]);
    Invocation::change(Tool::Zfs, args)
}

/// Makes a snapshot.
pub fn snapshot(snapshot: &Snapshot) -> Invocation {
    Invocation::change(Tool::Zfs, ["snapshot".to_owned(), snapshot.to_string()])
}

/// Makes a file system of a snapshot's content, in constant time.
pub fn clone(from: &Snapshot, to: &Dataset, properties: &Properties) -> Invocation {
    let args = ["clone".to_owned()].into_iter().chain(options(properties));
    Invocation::change(Tool::Zfs, args.chain([from.to_string(), to.to_string()]))
}

/// Mounts a file system where its properties say.
pub fn mount(dataset: &Dataset) -> Invocation {
    Invocation::change(Tool::Zfs, ["mount", dataset.as_str()])
}

/// Changes properties, all at once; `None` when there are none.
pub fn set(dataset: &Dataset, properties: &Properties) -> Option<Invocation> {
    let pairs: Vec<_> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if pairs.is_empty() {
        return None;
    }
    Some(Invocation::change(Tool::Zfs, ["set".to_owned()].into_iter().chain(pairs).chain([dataset.to_string()])))
}

/// Asks what destroying a dataset with all below it would destroy; [`would_destroy`] reads the answer.
pub fn destroy_dry_run(dataset: &Dataset) -> Invocation {
    Invocation::read(Tool::Zfs, ["destroy", "-nvpr", dataset.as_str()])
}

/// Destroys a dataset and all below it, after [`would_destroy`] found nothing else in the way. Never clones of it.
pub fn destroy(dataset: &Dataset) -> Invocation {
    Invocation::change(Tool::Zfs, ["destroy", "-r", dataset.as_str()]).within(Duration::from_secs(300))
}

/// Destroys a snapshot, never what was cloned from it.
pub fn destroy_snapshot(snapshot: &Snapshot) -> Invocation {
    Invocation::change(Tool::Zfs, ["destroy".to_owned(), snapshot.to_string()])
}

/// What a dry run listed lies outside of what was to be destroyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestroyError {
    /// Something else would go too.
    #[error("destroying {root} would destroy {found:?} as well: left alone")]
    Outside {
        /// What was to be destroyed.
        root: Dataset,
        /// What is not below it.
        found: String,
    },
    /// The answer makes no sense.
    #[error("zfs destroy -nvp: line {0:?} makes no sense")]
    Answer(String),
}

/// All that a dry run says would go, every one below `root`.
///
/// # Errors
/// [`DestroyError`]: then nothing may be destroyed.
pub fn would_destroy(root: &Dataset, text: &str) -> Result<Vec<String>, DestroyError> {
    let mut names = Vec::new();
    for line in text.lines() {
        match line.split_once('\t') {
            Some(("destroy", name)) => names.push(name.to_owned()),
            Some(("reclaim", _)) => {}
            _ => return Err(DestroyError::Answer(line.to_owned())),
        }
    }
    let outside = names.iter().find(|name| {
        let dataset = name.split('@').next().unwrap_or_default();
        !Dataset::new(dataset).is_ok_and(|d| d.is_within(root))
    });
    match outside {
        Some(found) => Err(DestroyError::Outside { root: root.clone(), found: found.clone() }),
        None => Ok(names),
    }
}

/// Asks for properties of a dataset and all below it; [`properties`] reads the answer.
pub fn get(dataset: &Dataset, names: &[&str]) -> Invocation {
    ask(&["-r", "-t", "filesystem,volume"], dataset, names)
}

/// The same of one dataset alone.
pub fn get_one(dataset: &Dataset, names: &[&str]) -> Invocation {
    ask(&[], dataset, names)
}

fn ask(of: &[&str], dataset: &Dataset, names: &[&str]) -> Invocation {
    let names = names.join(",");
    let args = ["get", "-H", "-p"].into_iter().chain(of.iter().copied());
    Invocation::read(Tool::Zfs, args.chain(["-o", "name,property,value,source", &names, dataset.as_str()]))
}

/// One property as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its value.
    pub value: String,
    /// Set on the dataset itself, not inherited, received or defaulted.
    pub local: bool,
    /// Set on a dataset above.
    pub inherited: bool,
}

/// Properties by dataset and name; those that are not set are left out.
///
/// # Errors
/// The line that makes no sense: then nothing may be taken as absent.
pub fn properties(text: &str) -> Result<BTreeMap<String, BTreeMap<String, Property>>, String> {
    let mut found: BTreeMap<String, BTreeMap<String, Property>> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [dataset, name, value, source] = fields[..] else { return Err(line.to_owned()) };
        let of = found.entry(dataset.to_owned()).or_default();
        if value != "-" {
            of.insert(name.to_owned(), {
                let (local, inherited) = (source == "local", source.starts_with("inherited from "));
                Property { value: value.to_owned(), local, inherited }
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dataset(name: &str) -> Dataset {
        Dataset::new(name).unwrap()
    }

    #[test]
    fn runs_are_what_both_kinds_of_zfs_understand() {
        let pool = dataset("rpool/rw");
        let pod = pool.child("default-web-76zrocju4f").unwrap();
        let marked = Properties::from([(OWNER.to_owned(), "uid".to_owned()), ("quota".into(), "1073741824".into())]);
        let image = Snapshot::new(dataset("rpool/rw/images/abc"), "golden").unwrap();
        let shown: Vec<_> = [create(&pod, &marked), clone(&image, &pod, &Properties::new()), destroy(&pod)]
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "zfs create -o io.reddwarf:owner=uid -o quota=1073741824 rpool/rw/default-web-76zrocju4f",
                "zfs clone rpool/rw/images/abc@golden rpool/rw/default-web-76zrocju4f",
                "zfs destroy -r rpool/rw/default-web-76zrocju4f",
            ]
        );
        assert_eq!(set(&pod, &Properties::new()), None);
    }

    #[test]
    fn names_that_could_mean_something_else_are_no_names() {
        for bad in ["", "-r", "a/", "/a", "a//b", "a@b", "a b", "a/../b", "a/-R", "a\nb", &"x".repeat(256)] {
            assert!(Dataset::new(bad).is_err(), "{bad:?}");
        }
        assert!(dataset("a").child("b/c").is_err() && Snapshot::new(dataset("a"), "b@c").is_err());
        assert!(dataset("a/b").is_within(&dataset("a")) && !dataset("ab").is_within(&dataset("a")));
    }

    #[test]
    fn nothing_outside_is_ever_destroyed() {
        let root = dataset("rpool/rw/pod");
        let fine = "destroy\trpool/rw/pod@a\ndestroy\trpool/rw/pod/vol\ndestroy\trpool/rw/pod\nreclaim\t12\n";
        assert_eq!(would_destroy(&root, fine).map(|names| names.len()), Ok(3));
        let clone = "destroy\trpool/rw/pod\ndestroy\trpool/home\n";
        assert!(matches!(would_destroy(&root, clone), Err(DestroyError::Outside { .. })));
        assert!(matches!(would_destroy(&root, "oops"), Err(DestroyError::Answer(_))));
    }

    #[test]
    fn an_inherited_mark_is_no_mark() {
        let text = "rpool/rw\tio.reddwarf:owner\tme\tlocal\nrpool/rw/a\tio.reddwarf:owner\tme\tinherited from rpool/rw\n\
                    rpool/rw/a\tquota\t0\tdefault\nrpool/rw/b\tio.reddwarf:owner\t-\t-\n";
        let found = properties(text).unwrap();
        assert!(found["rpool/rw"][OWNER].local && !found["rpool/rw/a"][OWNER].local);
        assert!(found["rpool/rw/b"].is_empty());
        assert_eq!(properties("half a li"), Err("half a li".to_owned()));
    }

    proptest! {
        #[test]
        fn a_name_is_never_an_option(name in "[-a-z/@. ]{0,12}") {
            if let Ok(name) = Dataset::new(name) {
                prop_assert!(!name.as_str().starts_with('-') && !name.as_str().contains(['@', ' ']));
            }
        }
    }
}
