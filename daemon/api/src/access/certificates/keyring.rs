//! The certificates in force: our authority's, or the user's files; read again without a restart.

use super::authority::{Authority, Issued, LEAF_LIFE, LEAF_RENEWAL, Names};
use super::client::{ClientAuthorities, DecideLater};
use super::der::Certificate;
use super::offline::lifetime;
use super::{CertificateError, pem, unusable};
use crate::access::files;
use chrono::{DateTime, Utc};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// Whose certificates the API shows and believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The user's certificate, its chain behind it, in PEM; our own authority issues one when absent.
    pub certificate: Option<PathBuf>,
    /// Its key; in the certificate's file when absent.
    pub key: Option<PathBuf>,
    /// Certificates of authorities whose word about clients is taken besides our own's.
    pub client_ca: Option<PathBuf>,
    /// DNS names that our own certificate is for, besides `localhost` and `kubernetes`.
    pub names: Vec<String>,
    /// Addresses that it is for, besides this machine's: the first service address.
    pub addresses: Vec<IpAddr>,
    /// The domain of services, for `kubernetes.default.svc.DOMAIN`.
    pub cluster_domain: String,
}

/// What is in force.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) clients: ClientAuthorities,
    /// What clients must trust, in PEM.
    pub(crate) trust: String,
    /// When our own certificate is to be made anew; never for the user's.
    renew: Option<i64>,
    names: Names,
    /// Of the user's files.
    stamps: Vec<Option<Stamp>>,
}

/// Tells two contents of a file apart without reading it.
type Stamp = (SystemTime, u64, u64);

/// The certificates in force.
#[derive(Debug)]
pub(crate) struct Keyring {
    settings: TlsSettings,
    directory: PathBuf,
    current: RwLock<Arc<Current>>,
    /// Only one reads files at a time. Counts how often they were taken over.
    generation: Mutex<u64>,
}

/// What a look at the files brought.
#[derive(Debug)]
pub(crate) enum Refreshed {
    /// All is as it was.
    Unchanged,
    /// Something new is in force.
    Changed,
}

impl Keyring {
    /// Makes or reads everything.
    ///
    /// # Errors
    /// [`CertificateError`] naming the file that is to blame.
    pub(crate) fn open(
        settings: TlsSettings,
        directory: PathBuf,
        now: DateTime<Utc>,
    ) -> Result<Self, CertificateError> {
        let current = load(&settings, &directory, 1, now)?;
        Ok(Self { settings, directory, current: RwLock::new(Arc::new(current)), generation: Mutex::new(1) })
    }

    /// What is in force now.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what changed: the user's files, this machine's addresses, our certificates' age. `always` reads the
    /// files even if they look the same. May block.
    ///
    /// # Errors
    /// Why the new can't be taken over; the old stays in force.
    pub(crate) fn refresh(&self, now: DateTime<Utc>, always: bool) -> Result<Refreshed, CertificateError> {
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current();
        let due = old.renew.is_some_and(|at| now.timestamp() >= at);
        let moved = self.settings.certificate.is_none() && names(&self.settings) != old.names;
        if !always && !due && !moved && stamps(&self.settings) == old.stamps {
            return Ok(Refreshed::Unchanged);
        }
        let new = load(&self.settings, &self.directory, *generation + 1, now)?;
        *generation += 1;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(Refreshed::Changed)
    }

    /// A client's certificate of our own authority.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn issue_client(&self, user: &str, group: &str, now: DateTime<Utc>) -> Result<Issued, CertificateError> {
        Authority::open(&self.directory, now)?.issue_client(user, group, now)
    }

    /// Is this certificate of our present authority, and good for some time?
    pub(crate) fn issued_and_good(&self, certificate: &CertificateDer<'static>, now: DateTime<Utc>) -> bool {
        let current = self.current();
        let fresh = Certificate::parse(certificate).is_some_and(|c| c.not_after - now.timestamp() > LEAF_RENEWAL);
        let client = super::client::ClientCertificate::new(vec![certificate.clone()]);
        fresh && client.principal(&current.clients, now).is_ok()
    }
}

/// What clients must trust, in PEM: our authority, or what is above the user's certificate.
///
/// # Errors
/// [`CertificateError`] naming the file that is to blame.
pub(crate) fn trust(settings: &TlsSettings, directory: &Path, now: DateTime<Utc>) -> Result<String, CertificateError> {
    match &settings.certificate {
        Some(certificate) => Ok(trust_above(&read_certificates(certificate)?)),
        None => Ok(pem::certificates([Authority::open(directory, now)?.certificate().as_ref()])),
    }
}

/// What is above a certificate in its chain; a certificate alone stands for itself.
fn trust_above(chain: &[CertificateDer<'static>]) -> String {
    let above = if chain.len() > 1 { &chain[1..] } else { chain };
    pem::certificates(above.iter().map(AsRef::as_ref))
}

fn load(
    settings: &TlsSettings,
    directory: &Path,
    generation: u64,
    now: DateTime<Utc>,
) -> Result<Current, CertificateError> {
    // Before the files are read: a change in between is then found at the next look.
    let stamps = stamps(settings);
    let authority = Authority::open(directory, now)?;
    let names = names(settings);
    let (chain, key, trust, renew) = match (&settings.certificate, &settings.key) {
        (Some(certificate), key) => {
            let key = key.as_ref().unwrap_or(certificate);
            let chain = read_certificates(certificate)?;
            let key = read_key(key)?;
            if let Some(what) = chain.first().and_then(|first| lifetime(certificate, first, now)) {
                tracing::warn!("{what}: clients will refuse it");
            }
            let trust = trust_above(&chain);
            (chain, key, trust, None)
        }
        (None, None) => {
            let issued = authority.issue_server(&names, now)?;
            let trust = pem::certificates([authority.certificate().as_ref()]);
            let renew = now.timestamp() + LEAF_LIFE - LEAF_RENEWAL;
            (vec![issued.certificate], issued.key, trust, Some(renew))
        }
        (None, Some(key)) => {
            return Err(unusable(key, &"it is given without a certificate: add --tls-cert"));
        }
    };
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).map_err(|e| unusable(directory, &e))?;
    if let Some(path) = &settings.client_ca {
        for certificate in read_certificates(path)? {
            roots.add(certificate).map_err(|e| unusable(path, &e))?;
        }
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| unusable(directory, &e))?;
    let blamed = settings.certificate.as_deref().unwrap_or(directory);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(blamed, &e))?
        .with_client_cert_verifier(Arc::new(DecideLater(verifier.clone())))
        .with_single_cert(chain, key)
        .map_err(|e| unusable(blamed, &format!("the certificate and the key can't be used together: {e}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Current {
        config: Arc::new(config),
        clients: ClientAuthorities::new(verifier, generation),
        trust,
        renew,
        names,
        stamps,
    })
}

pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = files::read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => {
            let why = "it holds no certificate: write it in PEM, from -----BEGIN CERTIFICATE----- on";
            Err(unusable(path, &why))
        }
        Err(error) => Err(unusable(path, &format!("it is no PEM: {error}"))),
    }
}

pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let text = files::read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        unusable(path, &format!("it holds no private key: {error}; write it in PEM and without a pass phrase"))
    })
}

/// What our own certificate is for.
fn names(settings: &TlsSettings) -> Names {
    let mut dns: Vec<String> = settings.names.clone();
    let domain = &settings.cluster_domain;
    dns.extend(["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned));
    if !domain.is_empty() {
        dns.push(format!("kubernetes.default.svc.{domain}"));
    }
    let mut addresses = settings.addresses.clone();
    addresses.extend([IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]);
    addresses.extend(own_addresses());
    let mut names = Names { dns, addresses };
    names.dns.sort();
    names.dns.dedup();
    names.addresses.sort();
    names.addresses.dedup();
    names
}

/// Addresses of this machine's interfaces; link-local ones mean something else on every link.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => Some(IpAddr::V4(v4.ip())).filter(|_| !v4.ip().is_link_local()),
            (_, Some(v6)) => Some(IpAddr::V6(v6.ip())).filter(|_| !v6.ip().is_unicast_link_local()),
            _ => None,
        }
    };
    interfaces.filter_map(address).take(MOST_ADDRESSES).collect()
}

/// A host with many pods has many addresses; a certificate must stay small.
const MOST_ADDRESSES: usize = 64;

fn stamps(settings: &TlsSettings) -> Vec<Option<Stamp>> {
    use std::os::unix::fs::MetadataExt;
    let stamp = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    };
    [&settings.certificate, &settings.key, &settings.client_ca].into_iter().flatten().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + days * 86400, 0).unwrap()
    }

    #[test]
    fn c31_our_own_certificate_is_renewed_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(TlsSettings::default(), dir.path().join("pki"), at(0)).unwrap();
        let first = keyring.current();
        assert!(matches!(keyring.refresh(at(200), false).unwrap(), Refreshed::Unchanged));
        assert!(matches!(keyring.refresh(at(300), false).unwrap(), Refreshed::Changed));
        assert_eq!(first.trust, keyring.current().trust, "the authority stays");
        let names = names(&TlsSettings { cluster_domain: "cluster.local".into(), ..Default::default() });
        for name in ["localhost", "kubernetes", "kubernetes.default.svc.cluster.local"] {
            assert!(names.dns.iter().any(|n| n == name), "{name}");
        }
    }

    #[test]
    fn c31_a_users_files_are_taken_over_and_bad_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            files::replace(&path, 0o600, text.as_bytes()).unwrap();
            path
        };
        let other = Authority::open(&dir.path().join("other"), at(0)).unwrap();
        let put = |issued: &Issued| {
            let certificate = write("tls.crt", pem::certificates([issued.certificate.as_ref()]));
            (certificate, write("tls.key", pem::private_key(issued.key.secret_der())))
        };
        let (certificate, key) = put(&other.issue_server(&Names::default(), at(0)).unwrap());
        let settings = TlsSettings { certificate: Some(certificate), key: Some(key), ..Default::default() };
        let keyring = Keyring::open(settings.clone(), dir.path().join("pki"), at(0)).unwrap();
        let first = keyring.current();
        put(&other.issue_server(&Names::default(), at(1)).unwrap());
        assert!(matches!(keyring.refresh(at(1), false).unwrap(), Refreshed::Changed), "a change is noticed");
        assert!(!Arc::ptr_eq(&first, &keyring.current()));
        let good = keyring.current();
        for (file, text) in [("tls.crt", "nonsense"), ("tls.crt", ""), ("tls.key", "nonsense")] {
            put(&other.issue_server(&Names::default(), at(1)).unwrap());
            write(file, text.to_owned());
            let error = keyring.refresh(at(1), true).unwrap_err().to_string();
            assert!(error.contains(file), "{error}");
            assert!(Arc::ptr_eq(&good, &keyring.current()), "the old one stays");
        }
        // A certificate and a key that do not belong together.
        put(&other.issue_server(&Names::default(), at(1)).unwrap());
        let stray = other.issue_server(&Names::default(), at(1)).unwrap();
        write("tls.key", pem::private_key(stray.key.secret_der()));
        assert!(keyring.refresh(at(1), true).unwrap_err().to_string().contains("can't be used together"));
        let open = |settings| Keyring::open(settings, dir.path().join("pki"), at(0));
        let half = TlsSettings { certificate: None, ..settings };
        assert!(open(half).unwrap_err().to_string().contains("--tls-cert"));
        let issued = other.issue_server(&Names::default(), at(1)).unwrap();
        let both = pem::certificates([issued.certificate.as_ref()]) + &pem::private_key(issued.key.secret_der());
        let both = TlsSettings { certificate: Some(write("both.pem", both)), ..Default::default() };
        assert!(open(both).is_ok(), "one file may hold both");
    }
}
