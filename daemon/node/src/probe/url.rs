//! Addresses of HTTP requests, as far as probes and redirects need them.

use std::fmt;

/// `http://host:port/path?query`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the port is spelled out.
    explicit: bool,
    /// Path and query; begins with a slash.
    pub(super) path: String,
}

impl Url {
    pub(super) fn new(tls: bool, host: &str, port: u16, path: &str) -> Self {
        let host = host.trim_matches(['[', ']']).to_owned();
        Self { tls, host, port, explicit: true, path: rooted(path) }
    }

    /// What the `Host` header says.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.explicit { format!("{host}:{}", self.port) } else { host }
    }

    /// Where a `Location` header leads from here; `None`: it makes no sense.
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        let (tls, rest) = match location.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => return None,
            _ => match location.strip_prefix("//") {
                Some(rest) => (self.tls, rest),
                None => return Some(Self { path: self.path_to(location), ..self.clone() }),
            },
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let authority = authority.rsplit('@').next()?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let explicit = port.is_some();
        (!host.is_empty()).then(|| Self {
            tls,
            host,
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            explicit,
            path: rooted(path),
        })
    }

    /// A path relative to this one.
    fn path_to(&self, relative: &str) -> String {
        if relative.starts_with('/') {
            return relative.to_owned();
        }
        let own = self.path.split('?').next().unwrap_or_default();
        if relative.starts_with('?') || relative.is_empty() {
            return format!("{own}{relative}");
        }
        let directory = own.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{directory}/{relative}")
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn locations_lead_where_browsers_go() {
        let from = Url::new(false, "10.0.0.1", 8080, "/a/b?q=1");
        for (location, expected) in [
            ("/x", "http://10.0.0.1:8080/x"),
            ("c", "http://10.0.0.1:8080/a/c"),
            ("?p", "http://10.0.0.1:8080/a/b?p"),
            ("https://10.0.0.1/x", "https://10.0.0.1/x"),
            ("http://example.com", "http://example.com/"),
            ("//example.com:81/x?y#z", "http://example.com:81/x?y"),
            ("http://[fd00::1]:80/", "http://[fd00::1]:80/"),
            ("http://user:word@example.com/", "http://example.com/"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), expected, "{location}");
        }
        for nonsense in ["ftp://x/", "http://", "http://x:port/"] {
            assert_eq!(from.join(nonsense), None, "{nonsense}");
        }
        assert_eq!(Url::new(true, "fd00::1", 443, "healthz").to_string(), "https://[fd00::1]:443/healthz");
    }

    proptest! {
        #[test]
        fn joining_is_total(location in "[a-z:/?#@\\[\\]0-9é.]{0,30}") {
            let _ = Url::new(false, "h", 1, "/").join(&location).map(|u| u.to_string());
        }
    }
}
