//! May a pod run on a node? Pure (Kubernetes: "Assigning Pods to Nodes", "Taints and Tolerations").

use crate::runtime::{Detail, NodeSlim, Slim, Taint, Usage};
use reddwarf_objects::selector::{LabelCondition, LabelRequirement};
use reddwarf_objects::{Object, ZONE_BRAND_ANNOTATION, ZONE_BRANDS_LABEL};
use serde_json::Value;

/// Why a pod may not run on a node, in the order in which a scheduler looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// The node takes no new pods.
    Unschedulable,
    /// A taint is not tolerated.
    Taint,
    /// nodeSelector or required node affinity.
    Affinity,
    /// The node can't make zones of the pod's brand.
    Brand,
    /// A volume that the pod has is not to be had there.
    Volume,
    /// The node has as many pods as it may.
    Pods,
    /// Too little cpu is left.
    Cpu,
    /// Too little memory is left.
    Memory,
}

impl Misfit {
    /// As the reference words it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unschedulable => "node(s) were unschedulable",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Self::Brand => "node(s) can't make zones of the pod's brand",
            Self::Volume => "node(s) had volume node affinity conflict",
            Self::Pods => "Too many pods",
            Self::Cpu => "Insufficient cpu",
            Self::Memory => "Insufficient memory",
        }
    }
}

/// A taint that a pod bears with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Toleration {
    /// Empty: any.
    key: String,
    /// `None`: any value (operator Exists).
    value: Option<String>,
    /// Empty: any.
    effect: String,
    /// For how long (`NoExecute` only); `None`: for ever.
    seconds: Option<i64>,
}

impl Toleration {
    fn bears(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && self.value.as_ref().is_none_or(|v| *v == taint.value)
    }
}

/// How long a pod bears with a taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    No,
    /// For so many seconds.
    Seconds(i64),
    /// For as long as it is there.
    Endless,
}

/// One of the alternatives of a required node affinity: labels and fields (of which there is only the name).
#[derive(Clone, Debug, Default, PartialEq)]
struct Term {
    labels: Vec<LabelRequirement>,
    names: Vec<LabelRequirement>,
    /// Something in it can't be read: it matches nothing.
    broken: bool,
}

/// Whether any container asks for processor or memory: the pod's quality of service is not BestEffort.
fn asks_for_something(pod: &Value) -> bool {
    let containers =
        ["/spec/containers", "/spec/initContainers"].into_iter().filter_map(|list| pod.pointer(list)?.as_array());
    let asks = |amounts: &Value| ["cpu", "memory"].iter().any(|r| amounts.get(r).is_some_and(|q| *q != "0" && *q != 0));
    containers
        .flatten()
        .filter_map(|c| c.get("resources"))
        .any(|resources| ["requests", "limits"].iter().filter_map(|kind| resources.get(kind)).any(asks))
}

/// What a pod asks of its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constraints {
    selector: Vec<(String, String)>,
    terms: Option<Vec<Term>>,
    tolerations: Vec<Toleration>,
    brand: Option<String>,
    /// Of each volume that says where it is: its alternatives.
    volumes: Vec<Vec<Term>>,
}

/// Whether a node selector (`nodeSelectorTerms`) selects a node.
pub(crate) fn selects_node(selector: &Value, node: &Slim) -> bool {
    terms(selector).iter().any(|term| term.matches(node))
}

fn terms(selector: &Value) -> Vec<Term> {
    selector.get("nodeSelectorTerms").and_then(Value::as_array).into_iter().flatten().map(term).collect()
}

impl Constraints {
    /// Of a pod, or of a pod template (`metadata` and `spec`).
    pub fn of(pod: &Value) -> Self {
        let at = |pointer: &str| pod.pointer(pointer);
        let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let selector = at("/spec/nodeSelector").and_then(Value::as_object).into_iter().flatten();
        let required =
            at("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
        let tolerations = at("/spec/tolerations").and_then(Value::as_array).into_iter().flatten().map(|t| Toleration {
            key: text(t, "key"),
            value: (text(t, "operator") != "Exists").then(|| text(t, "value")),
            effect: text(t, "effect"),
            seconds: t.get("tolerationSeconds").and_then(Value::as_i64),
        });
        let annotations = at("/metadata/annotations");
        // As the reference has it: who asks for something can cope with a node that is short of memory.
        let copes = asks_for_something(pod).then(|| Toleration {
            key: "node.kubernetes.io/memory-pressure".to_owned(),
            value: None,
            effect: "NoSchedule".to_owned(),
            seconds: None,
        });
        Self {
            selector: selector.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect(),
            terms: required.and_then(Value::as_array).map(|terms| terms.iter().map(term).collect()),
            tolerations: tolerations.chain(copes).collect(),
            brand: annotations.and_then(|a| a.get(ZONE_BRAND_ANNOTATION)).and_then(Value::as_str).map(str::to_owned),
            volumes: Vec::new(),
        }
    }

    /// With volumes that are only to be had where these node selectors say.
    #[must_use]
    pub fn with_volumes(mut self, selectors: &[Value]) -> Self {
        self.volumes.extend(selectors.iter().map(terms));
        self
    }

    /// Of a pod.
    pub fn of_pod(pod: &Object) -> Self {
        Self::of(&pod.value())
    }

    /// Tolerates this taint, whatever its value.
    #[must_use]
    pub fn tolerating(mut self, key: &str, effect: &str) -> Self {
        let (key, effect) = (key.to_owned(), effect.to_owned());
        self.tolerations.push(Toleration { key, value: None, effect, seconds: None });
        self
    }

    /// nodeSelector and required affinity.
    pub fn selects(&self, node: &Slim) -> bool {
        let labels = self.selector.iter().all(|(key, value)| node.label(key) == Some(value.as_str()));
        labels && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
    }

    /// Does it bear with the node's taints of these effects?
    pub fn tolerates(&self, node: &NodeSlim, effects: &[&str]) -> bool {
        let mut taints = node.taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
        taints.all(|taint| self.patience(taint) != Patience::No)
    }

    /// How long does it bear with this taint? The first toleration of it counts, as in the reference.
    pub fn patience(&self, taint: &Taint) -> Patience {
        match self.tolerations.iter().find(|t| t.bears(taint)) {
            None => Patience::No,
            Some(Toleration { seconds: Some(seconds), .. }) => Patience::Seconds(*seconds),
            Some(_) => Patience::Endless,
        }
    }

    /// The node can make zones of its brand, as far as the node says.
    fn brand_fits(&self, node: &Slim) -> bool {
        let (Some(brand), Some(brands)) = (&self.brand, node.label(ZONE_BRANDS_LABEL)) else { return true };
        brands.split('.').any(|b| b == brand)
    }

    /// Why a pod that asks for `wants` may not run on a node on which `used` is taken.
    pub fn misfits(&self, node: &Slim, used: Usage, wants: Usage) -> Vec<Misfit> {
        let Detail::Node(detail) = &node.detail else { return vec![Misfit::Affinity] };
        let (key, effect) = ("node.kubernetes.io/unschedulable".to_owned(), "NoSchedule".to_owned());
        let unschedulable = Taint { key, effect, ..Taint::default() };
        if detail.unschedulable && self.patience(&unschedulable) == Patience::No {
            return vec![Misfit::Unschedulable];
        }
        if !self.tolerates(detail, &["NoSchedule", "NoExecute"]) {
            return vec![Misfit::Taint];
        }
        if !self.selects(node) {
            return vec![Misfit::Affinity];
        }
        if !self.brand_fits(node) {
            return vec![Misfit::Brand];
        }
        if !self.volumes.iter().all(|terms| terms.iter().any(|term| term.matches(node))) {
            return vec![Misfit::Volume];
        }
        let lacks = [
            (Misfit::Pods, used.pods + wants.pods > detail.pods),
            (Misfit::Cpu, wants.cpu_millis > 0 && used.cpu_millis + wants.cpu_millis > detail.cpu_millis),
            (Misfit::Memory, wants.memory > 0 && used.memory + wants.memory > detail.memory),
        ];
        lacks.into_iter().filter(|(_, lacks)| *lacks).map(|(misfit, _)| misfit).collect()
    }
}

fn term(value: &Value) -> Term {
    let mut term = Term::default();
    let mut read = |field: &str| -> Vec<LabelRequirement> {
        let all = value.get(field).and_then(Value::as_array).into_iter().flatten();
        let read: Vec<_> = all.clone().map(requirement).collect();
        term.broken |= read.iter().any(Option::is_none);
        read.into_iter().flatten().collect()
    };
    let (labels, names) = (read("matchExpressions"), read("matchFields"));
    // A term without conditions matches nothing.
    let broken =
        term.broken || (labels.is_empty() && names.is_empty()) || names.iter().any(|n| n.key != "metadata.name");
    Term { labels, names, broken }
}

fn requirement(value: &Value) -> Option<LabelRequirement> {
    let values: Vec<String> = value
        .get("values")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect();
    let number = || values.first()?.parse::<i64>().ok();
    let condition = match value.get("operator")?.as_str()? {
        "In" => LabelCondition::In(values),
        "NotIn" => LabelCondition::NotIn(values),
        "Exists" => LabelCondition::Exists,
        "DoesNotExist" => LabelCondition::DoesNotExist,
        "Gt" => LabelCondition::Above(number()?),
        "Lt" => LabelCondition::Below(number()?),
        _ => return None,
    };
    Some(LabelRequirement { key: value.get("key")?.as_str()?.to_owned(), condition })
}

impl Term {
    fn matches(&self, node: &Slim) -> bool {
        let name = |requirement: &LabelRequirement| meets(requirement, Some(&node.id.name));
        let label = |requirement: &LabelRequirement| meets(requirement, node.label(&requirement.key));
        !self.broken && self.labels.iter().all(label) && self.names.iter().all(name)
    }
}

fn meets(requirement: &LabelRequirement, value: Option<&str>) -> bool {
    let number = || value.and_then(|v| v.parse::<i64>().ok());
    match &requirement.condition {
        LabelCondition::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
        LabelCondition::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| x != v)),
        LabelCondition::Exists => value.is_some(),
        LabelCondition::DoesNotExist => value.is_none(),
        LabelCondition::Above(least) => number().is_some_and(|n| n > *least),
        LabelCondition::Below(most) => number().is_some_and(|n| n < *most),
    }
}
