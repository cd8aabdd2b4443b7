//! One pass as a value: what a scan means for the objects that files declared before. Pure.

use crate::guard::{Held, PruneGuard};
use reddwarf_config::Scan;
use reddwarf_objects::ObjectKey;
use reddwarf_registry::{Declared, PruneScope};
use reddwarf_store::{Digest, GenerationRecord};
use std::collections::{BTreeMap, BTreeSet};

/// Which file declares which object.
pub type Ownership = BTreeMap<ObjectKey, String>;

/// What to do after a scan.
#[derive(Debug)]
pub struct Pass {
    /// Objects to apply.
    pub set: Vec<Declared>,
    /// What else may be deleted.
    pub prune: PruneScope,
    /// The guard stopped a removal.
    pub held: Option<Held>,
    /// Who declares what after this pass, kept objects included.
    pub ownership: Ownership,
}

/// Decides what `scan` means, given what files declared `before`.
///
/// An object stays although no valid file declares it when its file has errors (emptiness is one: editors and full
/// disks make empty files), when the directory could not be read as a whole, or when the guard holds the removal back.
pub fn decide(scan: &Scan, before: &Ownership, guard: PruneGuard, allow_prune: bool) -> Pass {
    decide_named(scan, before, guard, allow_prune, &str::to_owned)
}

/// [`decide`] for a scan of a copy: `shown` gives the original's name of a file.
pub fn decide_named(
    scan: &Scan,
    before: &Ownership,
    guard: PruneGuard,
    allow_prune: bool,
    shown: &dyn Fn(&str) -> String,
) -> Pass {
    let mut ownership = Ownership::new();
    let mut set = Vec::with_capacity(scan.declared.len());
    for declared in &scan.declared {
        let source = shown(declared.origin.file());
        ownership.insert(declared.key.clone(), source.clone());
        set.push(Declared { object: declared.object(), source: Some(source) });
    }
    let keep: BTreeSet<String> = scan.held_sources.iter().map(|s| shown(s)).collect();

    let removed =
        before.iter().filter(|(key, source)| !ownership.contains_key(*key) && !keep.contains(*source)).count();
    let held = if allow_prune { None } else { guard.check(removed, before.len()).err() };
    let prune = if !scan.is_complete() || held.is_some() {
        PruneScope::Nothing
    } else {
        PruneScope::FileOwned { keep_sources: keep.clone() }
    };
    for (key, source) in before {
        if prune == PruneScope::Nothing || keep.contains(source) {
            ownership.entry(key.clone()).or_insert_with(|| source.clone());
        }
    }
    Pass { set, prune, held, ownership }
}

/// Name and digest of every file that was read: equal lists mean equal directories.
pub fn digests(scan: &Scan) -> Vec<(String, Digest)> {
    scan.files
        .iter()
        .filter_map(|f| Some((f.path.display().to_string(), Digest::of(f.text.as_ref()?.as_bytes()))))
        .collect()
}

/// Who declared what in a recorded generation.
pub fn ownership_of(generation: &GenerationRecord) -> Ownership {
    generation.declared.iter().filter_map(|d| Some((reddwarf_registry::object_key(&d.key)?, d.file.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_config::directory::Trust;
    use reddwarf_config::{Limits, Scanner};
    use std::path::Path;

    fn config(name: &str) -> String {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
    }

    fn scan(dir: &Path) -> Scan {
        Scanner::new(vec![dir.to_owned()], Limits::default(), Trust { any_owner_and_mode: true }).scan()
    }

    fn names(ownership: &Ownership) -> Vec<&str> {
        ownership.keys().map(|k| k.name.as_str()).collect()
    }

    fn write(dir: &Path, name: &str, text: &str) {
        use std::io::Write;
        std::fs::File::create(dir.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_removed_file_is_pruned_and_a_broken_or_emptied_one_keeps_what_it_declared() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            write(dir.path(), &format!("{name}.yaml"), &config(name));
        }
        let first = decide(&scan(dir.path()), &Ownership::new(), PruneGuard::default(), false);
        assert_eq!(names(&first.ownership), ["a", "b", "c"]);

        std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
        write(dir.path(), "b.yaml", "kind: [");
        write(dir.path(), "c.yaml", "\n");
        let second = decide(&scan(dir.path()), &first.ownership, PruneGuard::default(), false);
        assert_eq!(names(&second.ownership), ["b", "c"]);
        let PruneScope::FileOwned { keep_sources } = &second.prune else { panic!("{:?}", second.prune) };
        assert_eq!(keep_sources.len(), 2, "{keep_sources:?}");
    }

    #[test]
    fn a_mass_removal_is_held_until_it_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..20 {
            write(dir.path(), &format!("f{i}.yaml"), &config(&format!("f{i}")));
        }
        let first = decide(&scan(dir.path()), &Ownership::new(), PruneGuard::default(), false);
        for i in 0..20 {
            std::fs::remove_file(dir.path().join(format!("f{i}.yaml"))).unwrap();
        }
        let held = decide(&scan(dir.path()), &first.ownership, PruneGuard::default(), false);
        assert_eq!(held.prune, PruneScope::Nothing);
        assert_eq!(held.ownership.len(), 20);
        assert!(held.held.is_some());
        let allowed = decide(&scan(dir.path()), &first.ownership, PruneGuard::default(), true);
        assert!(allowed.held.is_none() && allowed.ownership.is_empty());
    }

    #[test]
    fn a_vanished_directory_removes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        std::fs::create_dir(&layer).unwrap();
        write(&layer, "a.yaml", &config("a"));
        let mut scanner = Scanner::new(vec![layer.clone()], Limits::default(), Trust { any_owner_and_mode: true });
        let first = decide(&scanner.scan(), &Ownership::new(), PruneGuard::default(), false);
        std::fs::rename(&layer, dir.path().join("aside")).unwrap();
        let second = decide(&scanner.scan(), &first.ownership, PruneGuard::default(), false);
        assert_eq!(second.prune, PruneScope::Nothing);
        assert_eq!(names(&second.ownership), ["a"]);
    }
}
