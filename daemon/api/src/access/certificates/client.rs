//! Clients' certificates: common name = user, organizations = groups.
//!
//! The handshake takes any certificate whose key the client has; whether it is good is decided for each request. So a
//! client with an old certificate gets a 401 that says so rather than a broken connection, and may bring a token
//! instead; and a certificate that expires, or whose authority goes, ends at that moment on open connections too.

use super::der::Certificate;
use crate::access::principal::Principal;
use chrono::{DateTime, Utc};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Those whose word about clients is taken.
#[derive(Clone, Debug)]
pub(crate) struct ClientAuthorities {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Counts reloads, so that what was decided before one is decided again.
    generation: u64,
}

impl ClientAuthorities {
    pub(crate) fn new(verifier: Arc<dyn ClientCertVerifier>, generation: u64) -> Self {
        Self { verifier, generation }
    }

    fn identify(&self, chain: &[CertificateDer<'static>], now: DateTime<Utc>) -> Result<Identity, String> {
        let (own, others) = chain.split_first().ok_or("there is no certificate")?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.timestamp()).unwrap_or(0)));
        self.verifier.verify_client_cert(own, others, at).map_err(|e| e.to_string())?;
        let read = Certificate::parse(own).ok_or("its subject can't be read")?;
        if read.common_name.is_empty() {
            return Err("it has no common name, which would be the user".into());
        }
        let not_after = others
            .iter()
            .filter_map(|one| Certificate::parse(one))
            .fold(read.not_after, |least, one| least.min(one.not_after));
        let principal = Arc::new(Principal::known(read.common_name, read.organizations));
        Ok(Identity { principal, not_after })
    }
}

/// Who a certificate is, until when.
#[derive(Clone, Debug)]
struct Identity {
    principal: Arc<Principal>,
    not_after: i64,
}

/// The certificate that a connection brought.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    /// What was decided, and at which generation.
    decided: Mutex<Option<(u64, Result<Identity, String>)>>,
}

impl ClientCertificate {
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, decided: Mutex::new(None) }
    }

    /// Who it says the client is.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn principal(&self, by: &ClientAuthorities, now: DateTime<Utc>) -> Result<Arc<Principal>, String> {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        if decided.as_ref().is_none_or(|(generation, _)| *generation != by.generation) {
            *decided = Some((by.generation, by.identify(&self.chain, now)));
        }
        match decided.as_ref() {
            Some((_, Ok(identity))) if now.timestamp() > identity.not_after => Err("it has expired".into()),
            Some((_, Ok(identity))) => Ok(identity.principal.clone()),
            Some((_, Err(why))) => Err(why.clone()),
            None => Err("it was not looked at".into()),
        }
    }
}

/// Takes every certificate in the handshake whose key the client has.
#[derive(Debug)]
pub(crate) struct DecideLater(pub(crate) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for DecideLater {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::Authority;
    use super::*;
    use crate::access::principal::Role;
    use rustls::RootCertStore;
    use rustls::server::WebPkiClientVerifier;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + days * 86400, 0).unwrap()
    }

    fn trusting(authority: &Authority, generation: u64) -> ClientAuthorities {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        ClientAuthorities::new(verifier, generation)
    }

    #[test]
    fn c32_certificates_name_users_until_they_expire_and_only_of_our_authority() {
        let dir = tempfile::tempdir().unwrap();
        let ours = Authority::open(&dir.path().join("ours"), at(0)).unwrap();
        let other = Authority::open(&dir.path().join("other"), at(0)).unwrap();
        let names = Default::default();
        let admin =
            ClientCertificate::new(vec![ours.issue_client("admin", "system:masters", at(0)).unwrap().certificate]);
        let stranger =
            ClientCertificate::new(vec![other.issue_client("admin", "system:masters", at(0)).unwrap().certificate]);
        let server = ClientCertificate::new(vec![ours.issue_server(&names, at(0)).unwrap().certificate]);
        let trust = trusting(&ours, 1);
        let found = admin.principal(&trust, at(1)).unwrap();
        assert_eq!((found.name.as_str(), found.role), ("admin", Role::Admin));
        assert_eq!(admin.principal(&trust, at(400)).unwrap_err(), "it has expired", "on a connection that stayed open");
        let late = ClientCertificate::new(admin.chain.clone());
        assert!(late.principal(&trust, at(400)).unwrap_err().contains("xpired"));
        assert!(stranger.principal(&trust, at(1)).is_err(), "another authority's word");
        assert!(server.principal(&trust, at(1)).is_err(), "a server's certificate is no client's");
        assert!(admin.principal(&trusting(&other, 2), at(1)).is_err(), "after the authority was changed");
    }
}
