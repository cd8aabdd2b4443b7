//! Saying who else owns what somebody wants to apply.

use super::{
    ApplyError, Conflict,
    managed::{Operation, Owner},
    set::FieldSet,
};
use serde_json::Value;

/// The fields that one owner holds against an applied configuration.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) owner: Owner,
    pub(super) fields: FieldSet,
}

/// The error for these claims, in the words of the reference.
pub(super) fn error(mut claims: Vec<Claim>) -> ApplyError {
    claims.sort_by_key(|claim| {
        let owner = &claim.owner;
        (quoted(&owner.manager), owner.operation, owner.api_version.clone(), owner.subresource.clone())
    });
    let printed: Vec<(String, Vec<String>)> =
        claims.iter().map(|claim| (who(&claim.owner), claim.fields.print())).collect();
    let conflicts: Vec<Conflict> = printed
        .iter()
        .flat_map(|(who, fields)| {
            fields.iter().map(move |field| Conflict { message: format!("conflict with {who}"), field: field.clone() })
        })
        .collect();
    let message = match conflicts.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        all => {
            let lines = printed.iter().flat_map(|(who, fields)| {
                let fields = fields.iter().map(|field| format!("- {field}"));
                std::iter::once(format!("conflicts with {who}:")).chain(fields)
            });
            format!("Apply failed with {} conflicts: {}", all.len(), lines.collect::<Vec<_>>().join("\n"))
        }
    };
    ApplyError::Conflicts { message, conflicts }
}

/// `"m1"`, `"m1" using v1`, `"m1" with subresource "scale" using apps/v1`
fn who(owner: &Owner) -> String {
    let mut text = quoted(&owner.manager);
    if !owner.subresource.is_empty() {
        text.push_str(&format!(" with subresource {}", quoted(&owner.subresource)));
    }
    if owner.operation == Operation::Update {
        text.push_str(&format!(" using {}", owner.api_version));
    }
    text
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
