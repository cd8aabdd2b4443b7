//! Addresses of services of type LoadBalancer on the host's interfaces, through deaths of the daemon.

use crate::harness::{FOREVER, World, script, skip};
use std::collections::BTreeSet;

fn pod(name: &str) -> String {
    script(name, FOREVER).replacen("metadata:\n", "metadata:\n  labels: {app: web}\n", 1)
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: LoadBalancer\n  selector: {{app: web}}\n  \
         ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

/// Who has which address on the host, but for the pod network's.
fn addresses(world: &World) -> BTreeSet<(String, String)> {
    let interfaces = world.state().interfaces.into_iter().filter(|(link, _)| !link.starts_with("rwgw"));
    let of = |(link, interface): (String, reddwarf_hostsim::state::Interface)| {
        interface.addresses.into_iter().map(move |(name, a)| {
            let ours = name.starts_with("rwlb") && a.temporary;
            (a.address, if ours { format!("{link}/ours") } else { format!("{link}/{name}") })
        })
    };
    interfaces.flat_map(of).collect()
}

fn balanced(world: &World, name: &str) -> String {
    world.until("an address", |w| {
        let found = w.json(&["get", "service", name, "-o", "json"]);
        Some(found["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()?.to_owned())
    })
}

#[test]
fn load_balancers_addresses_are_taken_on_and_given_up() {
    if skip() {
        return;
    }
    let pool = ["--load-balancer-cidr", "192.0.2.64/30"];
    let mut world = World::new("announce").args(&pool);
    let host = ("192.0.2.2/24".to_owned(), "net0/v4".to_owned());
    let only = |more: &[(&str, &str)]| {
        let more = more.iter().map(|(ip, at)| (format!("{ip}/32"), (*at).to_owned()));
        more.chain([host.clone()]).collect::<BTreeSet<_>>()
    };
    world.start();
    world.file("pod.yaml", &pod("a"));
    world.file("one.yaml", &service("one"));
    let ip = world.ready("a")["status"]["podIP"].as_str().unwrap().to_owned();
    let one = balanced(&world, "one");
    world.until("the first address", |w| (addresses(w) == only(&[(&one, "net0/ours")])).then_some(()));
    let leads = |world: &World, to: &str| {
        world.state().nat.iter().any(|r| r.starts_with(&format!("rdr net0 {to}/32 port 80 -> {ip}")))
    };
    world.until("the first rule", |w| leads(w, &one).then_some(()));

    // Killed as soon as the second address is there: what is there is found again.
    world.lab.faults("ipadm/create-addr+rwlb 1 kill-caller-after\n").unwrap();
    world.file("two.yaml", &service("two"));
    let died = |world: &mut World| {
        world.until("the daemon's death", |w| w.calls().iter().any(|l| l.fault.is_some()).then_some(()));
        while !world.died() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        world.lab.faults("").unwrap();
        world.lab.forget_transcript().unwrap();
    };
    died(&mut world);
    world.start();
    let two = balanced(&world, "two");
    let both = only(&[(&one, "net0/ours"), (&two, "net0/ours")]);
    world.until("the second rule", |w| leads(w, &two).then_some(()));
    assert_eq!(addresses(&world), both);
    assert!(world.calls().iter().all(|l| l.tool != "ipadm" || l.argv[0] != "create-addr"), "nothing was made again");

    // Killed before the address is given up: it goes all the same, with a service that is gone by then.
    world.lab.faults("ipadm/delete-addr 1 kill-caller\n").unwrap();
    world.remove("two.yaml");
    died(&mut world);
    assert_eq!(addresses(&world), both);
    world.start();
    world.until("the second address to be given up", |w| {
        (addresses(w) == only(&[(&one, "net0/ours")]) && !leads(w, &two)).then_some(())
    });

    // The operator has an address already: it stays theirs, whatever becomes of the service.
    let theirs = ["create-addr", "-t", "-T", "static", "-a", &format!("local={two}/32"), "net0/web"].map(str::to_owned);
    let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
    assert_eq!(world.lab.run("ipadm", &theirs).unwrap().code, 0);
    world.file("two.yaml", &service("two"));
    world.until("the second rule", |w| leads(w, &two).then_some(()));
    assert_eq!(balanced(&world, "two"), two);
    assert_eq!(addresses(&world), only(&[(&one, "net0/ours"), (&two, "net0/web")]));
    world.remove("two.yaml");
    world.until("the second rule to go", |w| (!leads(w, &two)).then_some(()));

    // A start without a pool leaves none of ours behind.
    world.stop();
    assert_eq!(
        addresses(&world),
        only(&[(&one, "net0/ours"), (&two, "net0/web")]),
        "services go on without the daemon"
    );
    let mut world = world.args(&[]);
    world.start();
    world.until("nothing of ours", |w| (addresses(w) == only(&[(&two, "net0/web")])).then_some(()));
    world.remove("one.yaml");
    world.remove("pod.yaml");
    world.gone("a");
    world.no_traces();
}
