//! Which registries there are and how to speak with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// How to speak with registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Mirrors of registries, asked in order before the registry itself.
    pub mirrors: BTreeMap<String, Vec<Endpoint>>,
    /// Registries (`host` or `host:port`) that may be spoken with in plain HTTP.
    pub insecure: BTreeSet<String>,
    /// Files in PEM with further authorities that are believed.
    pub authorities: Vec<PathBuf>,
    /// The host's own credentials: docker's config.json. Need not exist.
    pub credentials: Option<PathBuf>,
    /// A registry that sends nothing for so long is given up.
    pub patience: Duration,
    /// Layers of one image that are fetched at one time.
    pub parallel: usize,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            insecure: BTreeSet::new(),
            authorities: Vec::new(),
            credentials: None,
            patience: Duration::from_secs(30),
            parallel: 3,
        }
    }
}

/// Where a registry is spoken with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host` or `host:port`.
    pub authority: String,
    /// TLS, plain HTTP, or TLS and then plain HTTP.
    pub scheme: Scheme,
}

/// How an endpoint is spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// TLS only.
    Https,
    /// Plain HTTP only.
    Http,
    /// TLS, or plain HTTP where nobody speaks TLS.
    Either,
}

impl Endpoint {
    /// `https://mirror.example:5000`, `http://…`, or without a scheme, which is https.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, authority) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(_) => return Err("a registry is spoken with by https or http"),
            None => (Scheme::Https, text),
        };
        let authority = authority.trim_end_matches('/');
        if authority.contains('/') {
            return Err("a mirror has no path");
        }
        let parsed: hyper::http::uri::Authority =
            authority.parse().map_err(|_| "it is no host with or without a port")?;
        if parsed.host().is_empty() || authority.contains('@') {
            return Err("it is no host with or without a port");
        }
        Ok(Self { authority: authority.to_owned(), scheme })
    }
}

impl RegistryOptions {
    /// Where to look for a registry's images, in order.
    pub(crate) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        // As docker has it: what runs on this very host needs no TLS.
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
        let scheme = if here || self.insecure.contains(registry) { Scheme::Either } else { Scheme::Https };
        let own = Endpoint { authority: authority.to_owned(), scheme };
        self.mirrors.get(registry).into_iter().flatten().cloned().chain([own]).collect()
    }
}
