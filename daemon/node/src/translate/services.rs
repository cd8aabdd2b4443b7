//! Variables that tell containers of Services (Kubernetes: "Accessing the Service", environment variables).

use crate::desired::{ConfigData, ServiceFacts};
use std::net::IpAddr;

/// The Service of the API, which every container hears of.
const API: (&str, &str) = ("default", "kubernetes");

/// Variables of the Services of a namespace, by name of Service; of the API's alone where `links` is false.
pub(super) fn variables(config: &ConfigData, namespace: &str, links: bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let at = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    // As in the reference, a namesake of the API's Service takes its place in its own namespace.
    let namesake = config.services.get(&at(namespace, API.1)).filter(|_| links);
    if let Some(service) = namesake.or_else(|| config.services.get(&at(API.0, API.1))) {
        of_service(API.1, service, &mut found);
    }
    if links {
        let own = config.services.range(at(namespace, "")..);
        for ((_, name), service) in own.take_while(|((of, _), _)| of == namespace) {
            if name != API.1 {
                of_service(name, service, &mut found);
            }
        }
    }
    found
}

fn of_service(name: &str, service: &ServiceFacts, found: &mut Vec<(String, String)>) {
    let (prefix, address) = (in_capitals(name), service.address);
    let Some(first) = service.ports.first() else { return };
    let mut add = |suffix: String, value: String| found.push((format!("{prefix}_{suffix}"), value));
    add("SERVICE_HOST".into(), address.to_string());
    add("SERVICE_PORT".into(), first.port.to_string());
    for port in service.ports.iter().filter(|p| !p.name.is_empty()) {
        add(format!("SERVICE_PORT_{}", in_capitals(&port.name)), port.port.to_string());
    }
    // As docker's links had it.
    for (index, port) in service.ports.iter().enumerate() {
        let protocol = port.protocol.to_ascii_lowercase();
        let url = match address {
            IpAddr::V4(v4) => format!("{protocol}://{v4}:{}", port.port),
            IpAddr::V6(v6) => format!("{protocol}://[{v6}]:{}", port.port),
        };
        if index == 0 {
            add("PORT".into(), url.clone());
        }
        let of_port = format!("PORT_{}_{}", port.port, port.protocol.to_ascii_uppercase());
        add(of_port.clone(), url);
        add(format!("{of_port}_PROTO"), protocol);
        add(format!("{of_port}_PORT"), port.port.to_string());
        add(format!("{of_port}_ADDR"), address.to_string());
    }
}

fn in_capitals(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::ServicePort;
    use std::sync::Arc;

    fn service(address: &str, ports: &[(&str, &str, u16)]) -> Arc<ServiceFacts> {
        let ports = ports.iter().map(|(name, protocol, port)| ServicePort {
            name: (*name).into(),
            protocol: (*protocol).into(),
            port: *port,
        });
        Arc::new(ServiceFacts { address: address.parse().unwrap(), ports: ports.collect() })
    }

    #[test]
    fn variables_of_services() {
        let mut config = ConfigData::default();
        let mut put =
            |namespace: &str, name: &str, facts| config.services.insert((namespace.into(), name.into()), facts);
        put("default", "kubernetes", service("10.96.0.1", &[("https", "TCP", 443)]));
        put("shop", "my-db", service("fd00::7", &[("sql", "TCP", 5432), ("stat", "UDP", 9000)]));
        put("shop", "none", service("10.96.0.9", &[]));
        put("own", "kubernetes", service("10.96.0.8", &[("", "TCP", 1)]));
        put("shoq", "other", service("10.96.0.7", &[("", "TCP", 1)]));
        let text = |namespace, links| {
            let found = variables(&config, namespace, links);
            found.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>()
        };
        let api = [
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
            "KUBERNETES_SERVICE_PORT=443",
            "KUBERNETES_SERVICE_PORT_HTTPS=443",
            "KUBERNETES_PORT=tcp://10.96.0.1:443",
            "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
            "KUBERNETES_PORT_443_TCP_PROTO=tcp",
            "KUBERNETES_PORT_443_TCP_PORT=443",
            "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
        ];
        assert_eq!(text("shop", false), api);
        assert_eq!(text("default", true), api);
        assert_eq!(text("own", true)[0], "KUBERNETES_SERVICE_HOST=10.96.0.8");
        assert_eq!(text("own", false)[0], api[0]);
        let all = text("shop", true);
        assert_eq!(all[..8], api);
        assert_eq!(
            all[8..],
            [
                "MY_DB_SERVICE_HOST=fd00::7",
                "MY_DB_SERVICE_PORT=5432",
                "MY_DB_SERVICE_PORT_SQL=5432",
                "MY_DB_SERVICE_PORT_STAT=9000",
                "MY_DB_PORT=tcp://[fd00::7]:5432",
                "MY_DB_PORT_5432_TCP=tcp://[fd00::7]:5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_ADDR=fd00::7",
                "MY_DB_PORT_9000_UDP=udp://[fd00::7]:9000",
                "MY_DB_PORT_9000_UDP_PROTO=udp",
                "MY_DB_PORT_9000_UDP_PORT=9000",
                "MY_DB_PORT_9000_UDP_ADDR=fd00::7",
            ]
        );
    }
}
