//! Our own certificate authority: made at the first start, kept in the state directory, renewed in time.

use super::der::Certificate;
use super::{CertificateError, pem};
use crate::access::files::{Kept, private_directory, read_private, replace};
use chrono::{DateTime, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::IpAddr;
use std::path::Path;
use time::OffsetDateTime;

const DAY: i64 = 24 * 3600;
/// Life of the authority's certificate.
const AUTHORITY_LIFE: i64 = 10 * 365 * DAY;
/// Left when it is renewed, with the same key: what it issued stays valid.
const AUTHORITY_RENEWAL: i64 = 2 * 365 * DAY;
/// Life of the server's and of the admin's certificate.
pub(crate) const LEAF_LIFE: i64 = 365 * DAY;
/// Left when they are made anew.
pub(crate) const LEAF_RENEWAL: i64 = LEAF_LIFE / 3;
/// Clocks differ: certificates are valid from a little before now.
const SKEW: i64 = 300;

/// The names that a server certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// DNS names.
    pub(crate) dns: Vec<String>,
    /// Addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Issued {
    fn clone(&self) -> Self {
        Self { certificate: self.certificate.clone(), key: self.key.clone_key() }
    }
}

/// The authority.
pub(crate) struct Authority {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Reads it from `directory`, or makes it: the first time, when it comes to its end, or when others may have had
    /// the key.
    ///
    /// # Errors
    /// When files can't be read or written.
    pub(crate) fn open(directory: &Path, now: DateTime<Utc>) -> Result<Self, CertificateError> {
        private_directory(directory)?;
        let (key_file, certificate_file) = (directory.join("ca.key"), directory.join("ca.crt"));
        let kept = match read_private(&key_file)? {
            Kept::Absent => None,
            Kept::Unsafe(why) => {
                tracing::warn!(file = %key_file.display(), why, "the authority's key is not safe; a new one is made, and its clients need the new kubeconfig");
                None
            }
            Kept::Safe(text) => read_key(&text).or_else(|| {
                tracing::warn!(file = %key_file.display(), "the authority's key can't be read; a new one is made");
                None
            }),
        };
        let key = match kept {
            Some(key) => key,
            None => {
                let key = KeyPair::generate().map_err(made("key of the authority"))?;
                replace(&key_file, 0o600, pem::private_key(key.serialized_der()).as_bytes())?;
                key
            }
        };
        if let Some(certificate) = kept_certificate(&certificate_file, &key, now) {
            return Ok(Self { key, certificate });
        }
        let certificate = authority_params(now)?.self_signed(&key).map_err(made("certificate of the authority"))?;
        let certificate = certificate.der().clone();
        replace(&certificate_file, 0o644, pem::certificates([certificate.as_ref()]).as_bytes())?;
        Ok(Self { key, certificate })
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for us, the server.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn issue_server(&self, names: &Names, now: DateTime<Utc>) -> Result<Issued, CertificateError> {
        let mut params = leaf_params(now)?;
        params.distinguished_name.push(DnType::CommonName, "reddwarfd");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in &names.dns {
            // A host's name may be one that no certificate can have.
            if let Ok(name) = name.as_str().try_into() {
                params.subject_alt_names.push(SanType::DnsName(name));
            }
        }
        params.subject_alt_names.extend(names.addresses.iter().map(|a| SanType::IpAddress(*a)));
        self.issue(&params)
    }

    /// A certificate for a client: `user` in `group`.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn issue_client(&self, user: &str, group: &str, now: DateTime<Utc>) -> Result<Issued, CertificateError> {
        let mut params = leaf_params(now)?;
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Result<Issued, CertificateError> {
        let key = KeyPair::generate().map_err(made("key"))?;
        // Only the authority's name and key matter here.
        let ours = authority_params(DateTime::UNIX_EPOCH)?;
        let issuer = Issuer::from_params(&ours, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(made("certificate"))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Issued { certificate: certificate.der().clone(), key })
    }
}

fn made(what: &'static str) -> impl FnOnce(rcgen::Error) -> CertificateError {
    move |error| CertificateError::Made { what, why: error.to_string() }
}

fn read_key(text: &[u8]) -> Option<KeyPair> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(text).ok()?;
    KeyPair::try_from(&der).ok()
}

/// The certificate on disk, if it is this key's and good for long enough.
fn kept_certificate(path: &Path, key: &KeyPair, now: DateTime<Utc>) -> Option<CertificateDer<'static>> {
    let der = CertificateDer::from_pem_slice(&crate::access::files::read(path).ok()?).ok()?;
    let read = Certificate::parse(&der)?;
    let now = now.timestamp();
    let good = read.public_key == key.public_key_raw()
        && read.common_name == AUTHORITY
        && read.not_before <= now + SKEW
        && read.not_after - now > AUTHORITY_RENEWAL;
    good.then_some(der)
}

const AUTHORITY: &str = "reddwarf-ca";

fn authority_params(now: DateTime<Utc>) -> Result<CertificateParams, CertificateError> {
    let mut params = valid(now, AUTHORITY_LIFE)?;
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn leaf_params(now: DateTime<Utc>) -> Result<CertificateParams, CertificateError> {
    let mut params = valid(now, LEAF_LIFE)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn valid(now: DateTime<Utc>, seconds: i64) -> Result<CertificateParams, CertificateError> {
    let at = |seconds: i64| {
        OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|e| CertificateError::Made { what: "certificate", why: format!("the clock is wrong: {e}") })
    };
    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| CertificateError::Made { what: "serial number", why: "there is no randomness".into() })?;
    // Positive, as RFC 5280 wants it.
    serial[0] &= 0x7f;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = at(now.timestamp() - SKEW)?;
    params.not_after = at(now.timestamp() + seconds)?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + days * DAY, 0).unwrap()
    }

    #[test]
    fn the_authority_is_kept_renewed_with_its_key_and_replaced_when_its_key_was_open() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let first = Authority::open(&pki, at(0)).unwrap();
        let mode = |name: &str| std::fs::metadata(pki.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("."), mode("ca.key"), mode("ca.crt")), (0o700, 0o600, 0o644));
        let again = Authority::open(&pki, at(7 * 365)).unwrap();
        assert_eq!(first.certificate, again.certificate);
        let renewed = Authority::open(&pki, at(9 * 365)).unwrap();
        assert_ne!(first.certificate, renewed.certificate);
        assert_eq!(first.key.public_key_raw(), renewed.key.public_key_raw());
        std::fs::set_permissions(pki.join("ca.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let replaced = Authority::open(&pki, at(9 * 365)).unwrap();
        assert_ne!(first.key.public_key_raw(), replaced.key.public_key_raw());
        assert_eq!(mode("ca.key"), 0o600);
        replace(&pki.join("ca.crt"), 0o644, b"damaged").unwrap();
        assert_eq!(Authority::open(&pki, at(9 * 365)).unwrap().key.public_key_raw(), replaced.key.public_key_raw());
    }

    #[test]
    fn clients_are_named_in_their_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(&dir.path().join("pki"), at(0)).unwrap();
        let issued = authority.issue_client("admin", "system:masters", at(0)).unwrap();
        let read = Certificate::parse(&issued.certificate).unwrap();
        assert_eq!(read.common_name, "admin");
        assert_eq!(read.organizations, ["system:masters"]);
        assert_eq!(read.not_after, at(365).timestamp());
    }
}
