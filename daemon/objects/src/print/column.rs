//! What a column is: its type and format as the reference declares them, and a sentence for people.

use crate::kind::{Column, Kind};

/// A column's definition besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnAbout {
    /// OpenAPI type of its cells: `string`, `integer`, `boolean`, `date`.
    pub kind: &'static str,
    /// OpenAPI format; `name` marks the column that holds the object's name.
    pub format: &'static str,
    /// For people.
    pub description: &'static str,
}

/// The definition of one of `kind`'s columns.
pub fn column(kind: &Kind, column: &Column) -> ColumnAbout {
    // The reference marks the names of everything but Scales.
    let format = if column.name == "Name" && kind.kind != "Scale" { "name" } else { "" };
    ColumnAbout { kind: cell_type(kind, column.name), format, description: description(column.name) }
}

/// What the reference declares, which is not always what it puts there: the numbers in some columns are declared as text.
/// The same name can be a number for one kind and text for another.
fn cell_type(kind: &Kind, name: &str) -> &'static str {
    match (kind.kind, name) {
        ("ReplicationController" | "ReplicaSet", "Desired" | "Current" | "Ready")
        | ("DaemonSet", "Desired" | "Current" | "Ready" | "Up-to-date" | "Available")
        | ("Scale", "Desired" | "Available")
        | ("CronJob", "Active")
        | ("PodDisruptionBudget", "Allowed Disruptions")
        | ("PriorityClass", "Value")
        | ("CSINode", "Drivers")
        | ("MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration", "Webhooks")
        | ("ValidatingAdmissionPolicy", "Validations")
        | ("MutatingAdmissionPolicy", "Mutations") => "integer",
        ("CronJob", "Suspend")
        | ("PriorityClass", "Global-Default")
        | ("VolumeAttachment", "Attached")
        | ("CSIDriver", "AttachRequired" | "PodInfoOnMount" | "StorageCapacity" | "RequiresRepublish") => "boolean",
        (_, "Created At") => "date",
        _ => "string",
    }
}

fn description(name: &str) -> &'static str {
    match name {
        "Name" => "The object's name, unique within its namespace and kind.",
        "Age" => "Time since the object was created.",
        "Created At" => "When the object was created.",
        "Ready" => "What is ready, of what should be.",
        "Status" => "What state the object is in, in a word.",
        "Restarts" => "How often the pod's containers were restarted, and when last.",
        "IP" => "The pod's address.",
        "Node" => "The node that the object is on.",
        "Nominated Node" => "The node that room is being made on.",
        "Readiness Gates" => "Conditions beyond the containers' own that are met, of those asked for.",
        "Data" => "How many entries it holds.",
        "Desired" => "How many pods are wanted.",
        "Current" => "How many pods there are.",
        "Up-to-date" => "How many pods are of the newest template.",
        "Available" => "How many pods have been ready for long enough, or whether it is in service.",
        "Containers" => "Names of the containers.",
        "Images" => "Images of the containers.",
        "Selector" | "Pod-Selector" | "Node Selector" => "The labels that are selected by.",
        "Type" => "Which type it is of.",
        "Last Seen" => "Time since it happened last.",
        "First Seen" => "Time since it happened first.",
        "Count" => "How often it happened.",
        "Reason" => "Why, in a word.",
        "Message" => "Why, in a sentence.",
        "Object" => "What it is about.",
        "Subobject" => "Which part of the object it is about.",
        "Source" => "Who reports it.",
        "Roles" => "What the node serves as.",
        "Version" => "The version of the node's agent.",
        "Schedule" => "When it runs, in cron's notation.",
        "Suspend" => "Whether it is stopped for now.",
        "Active" => "How many of its jobs run now.",
        "Last Schedule" => "Time since it ran last.",
        "Completions" => "How many runs have succeeded, of those wanted.",
        "Duration" => "How long it took, or has taken so far.",
        "Cluster-IP" => "The service's address.",
        "External-IP" => "The address that it is reached at from outside.",
        "Internal-IP" => "The address that it is reached at from inside.",
        "Port(s)" | "Ports" => "The ports that it serves.",
        "Holder" => "Who holds it.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{bodies, kinds};

    #[test]
    fn names_are_marked_and_numbers_are_numbers() {
        let of = |version: &str, kind: &str, name: &str| {
            let kind = kinds().by_gvk(version, kind).or_else(|| bodies().by_gvk(version, kind)).unwrap();
            column(kind, kind.columns.iter().find(|c| c.name == name).unwrap())
        };
        assert_eq!((of("v1", "Pod", "Name").format, of("v1", "Pod", "Name").kind), ("name", "string"));
        assert_eq!(of("v1", "ConfigMap", "Data").kind, "string", "recorded, although its cells are numbers");
        assert_eq!((of("apps/v1", "ReplicaSet", "Ready").kind, of("v1", "Pod", "Ready").kind), ("integer", "string"));
        assert_eq!(
            (of("autoscaling/v1", "Scale", "Name").format, of("autoscaling/v1", "Scale", "Available").kind),
            ("", "integer")
        );
        assert_eq!(of("batch/v1", "CronJob", "Suspend").kind, "boolean");
        assert_eq!(of("rbac.authorization.k8s.io/v1", "Role", "Created At").kind, "date");
    }
}
