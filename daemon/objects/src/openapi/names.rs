//! Names of definitions in OpenAPI documents.

/// The name of a type's definition: `core.Pod` is `io.k8s.api.core.v1.Pod`.
pub fn definition_name(type_name: &str) -> String {
    let Some((group, name)) = type_name.split_once('.') else { return type_name.to_owned() };
    let versions = [("1beta1", "v1beta1"), ("2", "v2")];
    let found = versions.iter().find_map(|(suffix, version)| Some((group.strip_suffix(suffix)?, *version)));
    let (group, version) = found.unwrap_or((group, "v1"));
    let root = match group {
        "meta" => "apimachinery.pkg.apis",
        "apiextensions" => "apiextensions-apiserver.pkg.apis",
        "metrics" => "metrics.pkg.apis",
        "apiregistration" => "kube-aggregator.pkg.apis",
        _ => "api",
    };
    format!("io.k8s.{root}.{group}.{version}.{name}")
}
