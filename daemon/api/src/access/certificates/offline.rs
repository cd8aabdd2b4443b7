//! What the user's files for TLS say of themselves, before anything is served with them; nothing is made or changed.

use super::der::Certificate;
use super::keyring::{read_certificates, read_key};
use super::{CertificateError, unusable};
use chrono::{DateTime, Utc};
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use std::path::Path;

/// Whether a certificate, its chain behind it, and a key (`None`: in the same file) can be served with. What clients
/// will not like of it comes back as sentences.
///
/// # Errors
/// [`CertificateError`] naming the file that is to blame.
pub fn check_pair(certificate: &Path, key: Option<&Path>, now: DateTime<Utc>) -> Result<Vec<String>, CertificateError> {
    let chain = read_certificates(certificate)?;
    let path = key.unwrap_or(certificate);
    let warnings = chain.first().and_then(|c| lifetime(certificate, c, now));
    CertifiedKey::from_der(chain, read_key(path)?, &default_provider())
        .map_err(|e| unusable(path, &format!("the certificate and the key can't be used together: {e}")))?;
    Ok(warnings.into_iter().collect())
}

/// Whether a file holds certificates of authorities; those that have expired come back as sentences.
///
/// # Errors
/// [`CertificateError`].
pub fn check_authorities(path: &Path, now: DateTime<Utc>) -> Result<Vec<String>, CertificateError> {
    let mut roots = RootCertStore::empty();
    let mut warnings = Vec::new();
    for certificate in read_certificates(path)? {
        warnings.extend(lifetime(path, &certificate, now));
        roots.add(certificate).map_err(|e| unusable(path, &e))?;
    }
    Ok(warnings)
}

/// What is the matter with its lifetime, if anything is.
pub(super) fn lifetime(path: &Path, certificate: &CertificateDer<'_>, now: DateTime<Utc>) -> Option<String> {
    let certificate = Certificate::parse(certificate)?;
    let day = |seconds| DateTime::from_timestamp(seconds, 0).map(|at| at.format("%Y-%m-%d %H:%M UTC").to_string());
    let (file, name) = (path.display(), &certificate.common_name);
    if certificate.not_after < now.timestamp() {
        return Some(format!("{file}: the certificate {name:?} has expired on {}", day(certificate.not_after)?));
    }
    (certificate.not_before > now.timestamp())
        .then(|| day(certificate.not_before))
        .flatten()
        .map(|day| format!("{file}: the certificate {name:?} is not valid before {day}"))
}

#[cfg(test)]
mod tests {
    use super::super::authority::{Authority, Names};
    use super::super::pem;
    use super::*;
    use crate::access::files;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + days * 86400, 0).unwrap()
    }

    #[test]
    fn files_that_can_not_be_served_with_are_told_apart_from_those_that_clients_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            files::replace(&path, 0o600, text.as_bytes()).unwrap();
            path
        };
        let authority = Authority::open(&dir.path().join("pki"), at(0)).unwrap();
        let issued = authority.issue_server(&Names::default(), at(0)).unwrap();
        let certificate = write("tls.crt", pem::certificates([issued.certificate.as_ref()]));
        let key = write("tls.key", pem::private_key(issued.key.secret_der()));
        assert_eq!(check_pair(&certificate, Some(&key), at(0)).unwrap(), Vec::<String>::new());
        let said = |found: Result<Vec<String>, CertificateError>| found.unwrap_err().to_string();
        let missing = said(check_pair(&dir.path().join("nope"), Some(&key), at(0)));
        assert!(missing.contains("nope: No such file"), "{missing}");
        assert!(said(check_pair(&certificate, None, at(0))).contains("tls.crt: it holds no private key"));
        let stray = authority.issue_server(&Names::default(), at(0)).unwrap();
        let stray = write("stray.key", pem::private_key(stray.key.secret_der()));
        let apart = said(check_pair(&certificate, Some(&stray), at(0)));
        assert!(apart.contains("stray.key: the certificate and the key can't be used together"), "{apart}");
        let expired = check_pair(&certificate, Some(&key), at(5000)).unwrap();
        assert!(expired[0].contains("tls.crt") && expired[0].contains("has expired on 20"), "{expired:?}");
        let early = check_pair(&certificate, Some(&key), at(-5000)).unwrap();
        assert!(early[0].contains("is not valid before 20"), "{early:?}");
        let root = write("ca.crt", pem::certificates([authority.certificate().as_ref()]));
        assert_eq!(check_authorities(&root, at(0)).unwrap(), Vec::<String>::new());
        assert!(said(check_authorities(&key, at(0))).contains("holds no certificate"));
    }
}
