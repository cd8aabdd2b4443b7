//! Apply and ownership: the table of cases, recorded answers, and a model.

mod cases;
mod made;
mod model;
mod recorded;

use super::*;
use crate::kind::{Kind, kinds};
use std::collections::BTreeMap;

fn kind(api_version: &str, name: &str) -> &'static Kind {
    kinds().by_gvk(api_version, name).unwrap()
}

fn by(name: &str) -> FieldManager<'_> {
    FieldManager { name, subresource: None }
}

fn at(second: u32) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(&format!("2026-11-20T21:38:{second:02}Z")).unwrap().with_timezone(&Utc)
}

/// Who owns what: `manager` for appliers, and updaters alike.
fn owners(object: &Object) -> BTreeMap<String, Vec<String>> {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in Managed::stored(managed::list(object).cloned()).0 {
        let mut fields = entry.fields.print();
        fields.sort();
        owners.entry(entry.owner.manager).or_default().extend(fields);
    }
    owners
}
