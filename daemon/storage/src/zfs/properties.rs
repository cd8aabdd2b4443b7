//! What is read of datasets and what is set on them.

use super::{MARK_BYTES, MARKS, invalid, text};
use chrono::DateTime;
use reddwarf_host::storage::{SnapshotInfo, Tuning};
use reddwarf_host::{Area, Dataset, DatasetId, DatasetName, DatasetSpec, HostResult, Limits, SnapshotName};
use std::collections::BTreeMap;

/// A dataset or snapshot with its properties, in the order of `zfs get`.
pub(super) type Found = Vec<(String, BTreeMap<String, text::Property>)>;

/// What is read of every dataset.
pub(super) const PROPERTIES: &str = "type,creation,io.reddwarf:marks,refquota,refreservation";

/// What `zfs get -Hp -o name,property,value,source` printed, in its order: snapshots of one dataset come the oldest first.
pub(super) fn in_order(printed: &str) -> Result<Found, String> {
    let by_name = text::properties(printed)?;
    let mut order: Vec<&str> = Vec::new();
    for name in printed.lines().filter_map(|line| line.split('\t').next()) {
        if order.last() != Some(&name) {
            order.push(name);
        }
    }
    Ok(order.into_iter().filter_map(|name| Some((name.to_owned(), by_name.get(name)?.clone()))).collect())
}

/// Our datasets of an area among what was found.
pub(super) fn datasets(area_dataset: &text::Dataset, area: Area, found: &Found) -> BTreeMap<DatasetId, Dataset> {
    let mut ours = BTreeMap::new();
    for (name, properties) in found {
        let Some(rest) = name.strip_prefix(area_dataset.as_str()).and_then(|r| r.strip_prefix('/')) else { continue };
        let bytes = |property: &str| properties.get(property)?.value.parse().ok().filter(|b: &u64| *b > 0);
        match rest.split_once('@') {
            None => {
                let Ok(name) = DatasetName::new(rest) else { continue };
                let mark = properties.get(MARKS).filter(|p| p.local);
                let Some(marks) = mark.and_then(|p| serde_json::from_str(&p.value).ok()) else { continue };
                let limits = Limits { quota_bytes: bytes("refquota"), reservation_bytes: bytes("refreservation") };
                ours.insert(DatasetId { area, name }, Dataset { marks, limits, snapshots: Vec::new() });
            }
            Some((of, snapshot)) => {
                let (Ok(of), Ok(name)) = (DatasetName::new(of), SnapshotName::new(snapshot)) else { continue };
                let created = bytes("creation").and_then(|s| DateTime::from_timestamp(i64::try_from(s).ok()?, 0));
                if let Some(dataset) = ours.get_mut(&DatasetId { area, name: of }) {
                    dataset.snapshots.push(SnapshotInfo { name, created: created.unwrap_or_default() });
                }
            }
        }
    }
    ours
}

pub(super) fn mark(op: &'static str, id: &DatasetId, spec: &DatasetSpec) -> HostResult<String> {
    let text = serde_json::to_string(&spec.marks).map_err(|e| invalid(op, &id.to_string(), e.to_string()))?;
    if text.len() > MARK_BYTES {
        let message = format!("its marks take {} bytes, more than {MARK_BYTES}", text.len());
        return Err(invalid(op, &id.to_string(), message));
    }
    Ok(text)
}

pub(super) fn limit_properties(limits: &Limits) -> text::Properties {
    let shown = |bytes: Option<u64>| bytes.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string());
    text::Properties::from([
        ("refquota".to_owned(), shown(limits.quota_bytes)),
        ("refreservation".to_owned(), shown(limits.reservation_bytes)),
    ])
}

pub(super) fn tuning_properties(
    op: &'static str,
    subject: &dyn std::fmt::Display,
    tuning: &Tuning,
) -> HostResult<text::Properties> {
    let mut properties = text::Properties::new();
    if let Some(compression) = &tuning.compression {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if compression.is_empty() || compression.len() > 20 || !compression.bytes().all(plain) {
            return Err(invalid(op, &subject.to_string(), format!("compression {compression:?} is no word of zfs(8)")));
        }
        properties.insert("compression".into(), compression.clone());
    }
    if let Some(bytes) = tuning.record_size_bytes {
        properties.insert("recordsize".into(), bytes.to_string());
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_bears_its_own_mark_is_ours() {
        let area = text::Dataset::new("p/r/volumes").unwrap();
        let lines = [
            "p/r/volumes\tio.reddwarf:marks\t-\t-",
            "p/r/volumes/a\tio.reddwarf:marks\t{\"owner\":\"u\"}\tlocal",
            "p/r/volumes/a\trefquota\t1024\tlocal",
            "p/r/volumes/a\trefreservation\t0\tdefault",
            "p/r/volumes/a@second\tcreation\t5\t-",
            "p/r/volumes/a@first\tcreation\t4\t-",
            "p/r/volumes/a@zfs_auto\tcreation\t4\t-",
            "p/r/volumes/a/inner\tio.reddwarf:marks\t{\"owner\":\"u\"}\tinherited from p/r/volumes/a",
            "p/r/volumes/b\tio.reddwarf:marks\t{\"owner\":\"u\"}\tinherited from p/r/volumes",
            "p/r/volumes/c\tio.reddwarf:marks\tnonsense\tlocal",
            "p/r/volumes/new:d\tio.reddwarf:marks\t{\"owner\":\"u\"}\tlocal",
        ];
        let found = in_order(&lines.join("\n")).unwrap();
        let ours = datasets(&area, Area::Volumes, &found);
        let all: Vec<_> =
            ours.iter().map(|(id, d)| (id.to_string(), d.limits.quota_bytes, d.snapshots.len())).collect();
        assert_eq!(all, [("volumes/a".to_owned(), Some(1024), 2)]);
        let names: Vec<_> = ours.values().flat_map(|d| &d.snapshots).map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["second", "first"], "in the order of the tool");
        assert!(in_order("half a li").is_err());
    }

    #[test]
    fn what_would_not_be_one_word_is_no_compression() {
        let tuning = |c: &str| Tuning { compression: Some(c.into()), record_size_bytes: None };
        assert!(tuning_properties("t", &"x", &tuning("gzip-9")).is_ok());
        for bad in ["", "a b", "on,quota=1", "x=y", "LZ4"] {
            assert!(tuning_properties("t", &"x", &tuning(bad)).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_printed_makes_it_panic(printed in "([a-z/@:.]{0,8}\t){0,5}[a-z\n\t]{0,20}") {
            if let Ok(found) = in_order(&printed) {
                let _ = datasets(&text::Dataset::new("a").unwrap(), Area::Volumes, &found);
            }
        }
    }
}
