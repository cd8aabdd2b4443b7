//! ControllerRevisions: the versions of a StatefulSet's or DaemonSet's template, which `kubectl rollout history` and `undo`
//! read.

use super::claim::{Claimant, claim};
use super::fields::number;
use super::template::{equal, hash};
use crate::runtime::{Action, Context, Failure, Id, Slim};
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Kind, Object, kinds};
use serde_json::{Value, json};
use std::sync::Arc;

/// Label of a pod with the revision it was made from.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";

/// One version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Revision {
    pub(crate) id: Id,
    pub(crate) uid: Arc<str>,
    pub(crate) number: i64,
    pub(crate) template: Value,
    /// The hash in its labels.
    pub(crate) hash: String,
}

impl Revision {
    fn of(object: &Object) -> Option<Self> {
        let id = Id::of_object(object)?;
        let mut template = object.get("/data/spec/template")?.clone();
        template.as_object_mut()?.remove("$patch");
        let hash = object.label("controller.kubernetes.io/hash").or_else(|| object.label(REVISION_LABEL));
        let number = number(object, "/revision", 0);
        Some(Self { id, uid: object.uid()?.into(), number, template, hash: hash.unwrap_or_default().to_owned() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.id.name
    }
}

/// What has to be done so that the present template has a revision, the newest of all.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// It has: the last of the list.
    Ready,
    /// An older one is the same: it gets the newest number.
    Renumber(Action),
    /// None is: this one is made.
    Make(Box<Object>),
}

/// Decides it. `known` is sorted by number. `label` is the label that bears the hash. Pure.
pub(crate) fn step(
    owner: &Claimant,
    template: &Value,
    known: &[Revision],
    collisions: i64,
    label: &str,
) -> Option<Step> {
    let next = known.last().map_or(1, |r| r.number + 1);
    let same = known.iter().rposition(|r| equal(&r.template, template));
    if let Some(at) = same {
        if at + 1 == known.len() {
            return Some(Step::Ready);
        }
        let revision = known.get(at)?;
        let (id, uid) = (revision.id.clone(), revision.uid.clone());
        return Some(Step::Renumber(Action::Patch { id, uid, patch: json!({ "revision": next }) }));
    }
    let hash = hash(template, collisions);
    let mut data = template.clone();
    data.as_object_mut()?.insert("$patch".to_owned(), json!("replace"));
    let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    labels.as_object_mut()?.insert(label.to_owned(), json!(hash));
    let object = Object::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": format!("{}-{hash}", owner.id.name),
            "namespace": &*owner.id.namespace,
            "labels": labels,
            "ownerReferences": [owner.reference()],
        },
        "data": {"spec": {"template": data}},
        "revision": next,
    }));
    Some(Step::Make(Box::new(object.ok()?)))
}

/// Revisions that nobody uses beyond the limit, the oldest first. Pure.
pub(crate) fn surplus(known: &[Revision], limit: i64, used: impl Fn(&Revision) -> bool) -> Vec<Action> {
    let idle: Vec<&Revision> = known.iter().filter(|r| !used(r)).collect();
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    idle.into_iter().take(surplus).map(|r| Action::Delete { id: r.id.clone(), uid: r.uid.clone() }).collect()
}

/// The kind.
pub(crate) fn kind() -> Option<&'static Kind> {
    kinds().by_gvk("apps/v1", "ControllerRevision")
}

/// An owner's revisions, sorted by number; adopts those that lost their owner.
pub(crate) async fn known(
    context: &Context,
    author: &'static str,
    owner: &Claimant,
    selector: &LabelSelector,
) -> Result<Vec<Revision>, Failure> {
    let Some(kind) = kind() else { return Ok(Vec::new()) };
    let claimed = {
        let view = context.view();
        let own = view.controlled(&owner.uid, kind);
        claim(owner, selector, own, view.loose(kind, &owner.id.namespace))
    };
    context.act_together(author, claimed.actions).await?;
    let mut known = Vec::new();
    for slim in &claimed.own {
        let slim: &Slim = slim;
        known.extend(context.find(&slim.id)?.as_ref().and_then(Revision::of));
    }
    known.sort_by(|a, b| a.number.cmp(&b.number).then_with(|| a.id.cmp(&b.id)));
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, number: i64, image: &str) -> Revision {
        let id = Id::new("apps", "ControllerRevision", "d", name).unwrap();
        Revision { id, uid: name.into(), number, template: template(image), hash: String::new() }
    }

    fn template(image: &str) -> Value {
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
    }

    #[test]
    fn the_present_template_always_has_the_newest_revision() {
        let id = Id::new("apps", "StatefulSet", "d", "db").unwrap();
        let owner = Claimant { kind: id.kind, id, uid: "u".into(), leaving: false };
        let known = [revision("one", 1, "x:1"), revision("two", 2, "x:2")];
        let step = |image: &str| step(&owner, &template(image), &known, 0, "controller.kubernetes.io/hash").unwrap();
        assert_eq!(step("x:2"), Step::Ready);
        match step("x:1") {
            Step::Renumber(Action::Patch { id, patch, .. }) => {
                assert_eq!((&*id.name, patch), ("one", json!({"revision": 3})));
            }
            other => panic!("{other:?}"),
        }
        let Step::Make(made) = step("x:3") else { panic!("not made") };
        assert_eq!(made.get("/data/spec/template/$patch"), Some(&json!("replace")));
        assert_eq!((made.get("/revision"), made.label("a")), (Some(&json!(3)), Some("b")));
    }

    #[test]
    fn unused_revisions_beyond_the_limit_go_oldest_first() {
        let known = [revision("one", 1, "a"), revision("two", 2, "b"), revision("three", 3, "c")];
        let gone = surplus(&known, 1, |r| r.name() == "three");
        assert!(matches!(gone.as_slice(), [Action::Delete { id, .. }] if &*id.name == "one"), "{gone:?}");
    }
}
