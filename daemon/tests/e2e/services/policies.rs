//! Network policies deny and allow real packets, of both families.

use super::*;

#[test]
fn policies_deny_and_allow_real_packets() {
    if skip() {
        return;
    }
    let mut world = World::started("policies");
    world.file("a.yaml", &server("a", "app: web", "ports: [{name: http, containerPort: 8080}]"));
    world.file("friend.yaml", &server("friend", "role: friend", ""));
    world.file("stranger.yaml", &server("stranger", "role: stranger", ""));
    world.file("web.yaml", &service("web", "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"));
    for pod in ["a", "friend", "stranger"] {
        world.ready(pod);
    }
    let web = cluster_ip(&world, "web");
    let direct = world.pod("a").unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    let ask = |from: &str, host: &str, port: u16| names_of(&from_pod(&world, from, "tcp", host, port, 1));
    served_by(&world, "before", &["a"], || from_pod(&world, "stranger", "tcp", &web, 80, 1));
    let policy = |spec: &str| {
        format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n")
    };
    world.file(
        "policy.yaml",
        &policy("podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: http}]}]"),
    );
    served_by(&world, "a stranger", &["failed:"], || from_pod(&world, "stranger", "tcp", &web, 80, 1));
    assert_eq!(ask("stranger", &direct, 8080), ["failed:"], "nor at the pod's own address");
    assert_eq!(ask("friend", &web, 80), ["a"]);
    assert_eq!(ask("friend", &direct, 8080), ["a"]);
    assert_eq!(names(&from_netns(&world.name, "tcp", &direct, 8080, 1)), ["a"], "the host always");
    assert_eq!(ask("a", &web, 80), ["a"], "and the pod itself");
    // Egress: nothing but to one block, which holds one of two.
    let friend = world.pod("friend").unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    world.file(
        "policy.yaml",
        &policy(&format!(
            "podSelector: {{matchLabels: {{role: stranger}}}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: {cidr}, except: [{direct}/32]}}}}]}}]",
            cidr = world.cidr
        )),
    );
    served_by(&world, "what is excepted", &["failed:"], || from_pod(&world, "stranger", "tcp", &direct, 8080, 1));
    assert_eq!(ask("stranger", &friend, 8080), ["friend"]);
    assert_eq!(ask("friend", &web, 80), ["a"], "others are not concerned");
    // Ranges of ports, and pods of other namespaces.
    let ranged = |ports: &str, peer: &str| {
        policy(&format!("podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{peer}], ports: [{ports}]}}]"))
    };
    world.file("policy.yaml", &ranged("{port: 9000, endPort: 9100}", "{podSelector: {}}"));
    served_by(&world, "another range", &["failed:"], || from_pod(&world, "stranger", "tcp", &direct, 8080, 1));
    world.file("policy.yaml", &ranged("{port: 8000, endPort: 8100}", "{podSelector: {}}"));
    served_by(&world, "the right range", &["a"], || from_pod(&world, "stranger", "tcp", &direct, 8080, 1));
    assert_eq!(names(&from_pod(&world, "stranger", "udp", &direct, 8080, 1)), ["failed:"], "the range is of TCP");
    let other = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: elsewhere}}}";
    world.file("policy.yaml", &ranged("{port: 8080}", other));
    served_by(&world, "this namespace", &["failed:"], || from_pod(&world, "stranger", "tcp", &direct, 8080, 1));
    world.file("policy.yaml", &ranged("{port: 8080}", &other.replace("elsewhere", "default")));
    served_by(&world, "the selected namespace", &["a"], || from_pod(&world, "stranger", "tcp", &direct, 8080, 1));
    world.remove("policy.yaml");
    served_by(&world, "without policies", &["a"], || from_pod(&world, "stranger", "tcp", &web, 80, 1));
    world.stop();
}

fn names_of(tally: &BTreeMap<String, usize>) -> Vec<String> {
    tally.keys().cloned().collect()
}
