//! What resolvers take of resolv.conf(5): the kubelet's limits, and its words for what is left out.

use crate::plan::Notice;
use reddwarf_host::spec::ResolvConf;

const NAMESERVERS: usize = 3;
const SEARCHES: usize = 32;
/// Of the search line, blanks included.
const SEARCH_CHARACTERS: usize = 2048;

/// Event reason of pods whose resolver settings were cut.
const DNS_CONFIG_FORMING: &str = "DNSConfigForming";

/// The part that fits, and what to say of the rest.
pub(super) fn fit(mut wanted: ResolvConf) -> (ResolvConf, Vec<Notice>) {
    let mut said = Vec::new();
    if wanted.nameservers.len() > NAMESERVERS {
        wanted.nameservers.truncate(NAMESERVERS);
        let line: Vec<String> = wanted.nameservers.iter().map(ToString::to_string).collect();
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            line.join(" ")
        );
        said.push(Notice::new(DNS_CONFIG_FORMING, message));
    }
    let before = wanted.searches.len();
    wanted.searches.truncate(SEARCHES);
    while wanted.searches.iter().map(|s| s.len() + 1).sum::<usize>() > SEARCH_CHARACTERS + 1 {
        wanted.searches.pop();
    }
    if wanted.searches.len() < before {
        let message = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            wanted.searches.join(" ")
        );
        said.push(Notice::new(DNS_CONFIG_FORMING, message));
    }
    (wanted, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_servers_and_32_domains_of_2048_characters_fit() {
        let servers = |n: u8| (1..=n).map(|i| std::net::IpAddr::from([10, 0, 0, i])).collect::<Vec<_>>();
        let domains = |n: usize, length: usize| (0..n).map(|_| "d".repeat(length)).collect::<Vec<_>>();
        let of = |nameservers, searches| fit(ResolvConf { nameservers, searches, options: Vec::new() });
        assert_eq!(of(servers(3), domains(32, 63)).1, []);
        let (kept, said) = of(servers(4), domains(33, 5));
        assert_eq!((kept.nameservers.len(), kept.searches.len()), (3, 32));
        assert_eq!(
            said[0].message,
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 10.0.0.1 10.0.0.2 10.0.0.3"
        );
        assert!(said[1].message.starts_with(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: ddddd "
        ));
        assert_eq!(of(servers(1), domains(2, 1024)).0.searches.len(), 1, "2049 characters");
        assert_eq!(of(servers(1), domains(2, 1023)).0.searches.len(), 2);
    }
}
