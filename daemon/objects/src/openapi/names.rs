//! Names of definitions in OpenAPI documents.

/// The name of a type's definition: `core.Pod` is `io.k8s.api.core.v1.Pod`.
pub fn definition_name(type_name: &str) -> String {
    let Some((group, name)) = type_name.split_once('.') else { return type_name.to_owned() };
    let (group, version) = match group.strip_suffix('2') {
        Some(group) => (group, "v2"),
        None => (group, "v1"),
    };
    let root = match group {
        "meta" => "apimachinery.pkg.apis",
        "apiextensions" => "apiextensions-apiserver.pkg.apis",
        "apiregistration" => "kube-aggregator.pkg.apis",
        _ => "api",
    };
    format!("io.k8s.{root}.{group}.{version}.{name}")
}
