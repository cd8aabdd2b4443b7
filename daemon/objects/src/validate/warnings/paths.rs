//! Files of a volume that are in each other's way.

use super::pod::{list, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// What files are made of: its kind and, of an object, the name. Nothing where the volume says it.
#[derive(Clone, Copy)]
struct Source<'a>(&'static str, Option<&'a str>);

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(name) => write!(f, "{} {name:?}", self.0),
            None => f.write_str(self.0),
        }
    }
}

/// A file of a volume.
#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a str,
    source: Source<'a>,
}

impl<'a> File<'a> {
    fn new(path: &'a str, source: Source<'a>) -> Self {
        Self { path: path.trim_end_matches('/'), source }
    }
}

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.0 {
            "" => write!(f, "{:?}", self.path),
            _ => write!(f, "{:?} ({})", self.path, self.source),
        }
    }
}

/// What a volume makes files of: its field, and the field with the name of the object behind it.
const SOURCES: [(&str, &str, &str); 3] =
    [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"), ("downwardAPI", "DownwardAPI", "")];

/// About a pod's volumes.
pub(super) fn of_volumes(spec: &Value, said: &mut Vec<String>) {
    for (_, volume) in list(spec, "volumes") {
        let name = text(volume, "name");
        for (field, kind, named) in SOURCES {
            let Some(source) = volume.get(field) else { continue };
            let files: Vec<_> =
                list(source, "items").map(|(_, item)| File::new(text(item, "path"), Source("", None))).collect();
            overlapping(format_args!("volume {name:?} ({})", called(kind, source, named)), &files, said);
        }
        if let Some(projected) = volume.get("projected") {
            of_projected(name, projected, said);
        }
    }
}

fn of_projected(name: &str, projected: &Value, said: &mut Vec<String>) {
    let mut files = Vec::new();
    for (_, source) in list(projected, "sources") {
        if source.as_object().is_some_and(serde_json::Map::is_empty) {
            said.push(format!("volume {name:?} (Projected) has no sources provided"));
            continue;
        }
        add_projected(source, &mut files);
    }
    overlapping(format_args!("volume {name:?} (Projected)"), &files, said);
}

/// The files of one source of several.
fn add_projected<'a>(source: &'a Value, files: &mut Vec<File<'a>>) {
    for (field, kind, named) in [("configMap", "ConfigMap", "name"), ("secret", "Secret", "name"), SOURCES[2]] {
        if let Some(of) = source.get(field) {
            let label = called(kind, of, named);
            files.extend(list(of, "items").map(|(_, item)| File::new(text(item, "path"), label)));
        }
    }
    if let Some(token) = source.get("serviceAccountToken") {
        files.push(File::new(text(token, "path"), Source("ServiceAccountToken", None)));
    }
    if let Some(bundle) = source.get("clusterTrustBundle") {
        let named = if bundle.get("name").is_some() { "name" } else { "signerName" };
        files.push(File::new(text(bundle, "path"), called("ClusterTrustBundle", bundle, named)));
    }
    if let Some(certificate) = source.get("podCertificate") {
        for (field, label) in [
            ("certificateChainPath", "PodCertificate chain"),
            ("keyPath", "PodCertificate key"),
            ("credentialBundlePath", "PodCertificate credential bundle"),
        ] {
            files.push(File::new(text(certificate, field), Source(label, None)));
        }
    }
}

fn called<'a>(kind: &'static str, source: &'a Value, named: &str) -> Source<'a> {
    Source(kind, (!named.is_empty()).then(|| text(source, named)))
}

/// Of one volume no more is said: nobody is shown as much, and a volume may have a hundred thousand files.
const ENOUGH: usize = 100;

/// Each with all before it that are the same file, a directory above it or a file below it.
fn overlapping(of: fmt::Arguments<'_>, files: &[File<'_>], said: &mut Vec<String>) {
    let most = said.len() + ENOUGH;
    let mut before: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate().filter(|(_, file)| !file.path.is_empty()) {
        let inside = format!("{}/", file.path);
        let above = file.path.match_indices('/').filter_map(|(at, _)| before.get(file.path.get(..at)?));
        let below = before.range(inside.as_str()..).take_while(|(path, _)| path.starts_with(&inside));
        let same = before.get(file.path).into_iter().chain(above).chain(below.map(|(_, all)| all));
        let mut earlier: Vec<usize> = same.flatten().copied().collect();
        earlier.sort_unstable();
        for other in earlier.into_iter().filter_map(|at| files.get(at)) {
            if said.len() >= most {
                return;
            }
            said.push(format!("{of}: overlapping paths: {file} with {other}"));
        }
        before.entry(file.path).or_default().push(index);
    }
}
