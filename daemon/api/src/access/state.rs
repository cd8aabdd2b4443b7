//! What access keeps while the API runs: certificates, tokens, the authoriser.

use crate::access::audit::{Audit, AuditSettings};
use crate::access::authorise::{Chain, Roles};
use crate::access::certificates::CertificateError;
use crate::access::certificates::keyring::{Keyring, Refreshed, TlsSettings};
use crate::access::kubeconfig;
use crate::access::principal::Principal;
use crate::access::rbac::{Rbac, bootstrap};
use crate::access::tokens::TokenStore;
use chrono::{DateTime, Utc};
use reddwarf_registry::{Registry, RegistryError};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Who may use the API and how, as far as it can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// Certificates of the TCP listener.
    pub tls: TlsSettings,
    /// Where the admin's kubeconfig is written; `admin.kubeconfig` in the state directory when absent.
    pub kubeconfig: Option<PathBuf>,
    /// The audit log; none when absent.
    pub audit: Option<AuditSettings>,
}

/// Certificates, tokens and rules: what access knows. It outlives the [`crate::Api`], which is made anew when settings change.
pub struct Access {
    settings: AccessSettings,
    state_dir: PathBuf,
    pub(crate) tokens: TokenStore,
    pub(crate) authoriser: Chain,
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) audit: Option<Audit>,
    /// There is one once the API listens on TCP.
    remote: RwLock<Option<Arc<Remote>>>,
    registry: Registry,
}

/// What there is for clients on TCP.
struct Remote {
    keyring: Arc<Keyring>,
    url: String,
    path: PathBuf,
    /// The kubeconfig's text as it was written last.
    kubeconfig: Mutex<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Access {
    /// Opens what is kept in the state directory.
    ///
    /// # Errors
    /// When a file can't be read or written.
    pub fn open(settings: AccessSettings, state_dir: &Path, registry: Registry) -> Result<Self, CertificateError> {
        let rbac = Arc::new(Rbac::new(registry.clone()));
        let audit = settings.audit.as_ref().map(Audit::open).transpose()?;
        Ok(Self {
            settings,
            audit,
            state_dir: state_dir.to_owned(),
            tokens: TokenStore::open(state_dir)?,
            authoriser: Chain::new(vec![Box::new(Roles), Box::new(rbac.clone())]),
            rbac,
            remote: RwLock::new(None),
            registry,
        })
    }

    /// Makes the roles that are there from the start, as far as they are missing.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub async fn bootstrap(&self) -> Result<(), RegistryError> {
        bootstrap::make(&self.registry).await
    }

    /// Who a bearer token is of, and for which of the audiences; without any, it must be for us.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn token_principal(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(Principal, Vec<String>), String> {
        match self.tokens.principal(token, self.now()) {
            // These tokens have no audience: they are for us.
            Some(who) => Ok((who, audiences.to_vec())),
            None => Err("invalid bearer token".to_owned()),
        }
    }

    /// The API listens on TCP: makes certificates and the admin's kubeconfig. Certificates that were in force before
    /// stay so when their files have become bad.
    ///
    /// # Errors
    /// When there are no usable certificates.
    pub(crate) fn listen(&self, address: SocketAddr) -> Result<(), CertificateError> {
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        let keyring = match remote.as_ref() {
            Some(before) => before.keyring.clone(),
            None => {
                let directory = self.state_dir.join("pki");
                Arc::new(Keyring::open(self.settings.tls.clone(), directory, self.now())?)
            }
        };
        let path = self.settings.kubeconfig.clone().unwrap_or_else(|| self.state_dir.join("admin.kubeconfig"));
        let url = kubeconfig::url(address);
        let text = kubeconfig::write_admins(&path, &url, &keyring, self.now())?;
        *remote = Some(Arc::new(Remote { keyring, url, path, kubeconfig: Mutex::new(text) }));
        Ok(())
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.registry.now()
    }

    fn remote(&self) -> Option<Arc<Remote>> {
        self.remote.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificates in force, when the API listens on TCP.
    pub(crate) fn keyring(&self) -> Option<Arc<Keyring>> {
        self.remote().map(|remote| remote.keyring.clone())
    }

    /// Path and text of the admin's kubeconfig.
    pub(crate) fn admins_kubeconfig(&self) -> Option<(PathBuf, String)> {
        let remote = self.remote()?;
        let text = remote.kubeconfig.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some((remote.path.clone(), text))
    }

    /// A kubeconfig for who has a token.
    pub(crate) fn token_kubeconfig(&self, user: &str, token: &str) -> Option<String> {
        let remote = self.remote()?;
        let trust = remote.keyring.current().trust.clone();
        Some(kubeconfig::text(&remote.url, &trust, user, &kubeconfig::Credentials::Token(token)))
    }

    /// Takes over what changed about certificates; with `always` even when nothing looks changed. What can't be taken
    /// over leaves the old in force. May block.
    ///
    /// # Errors
    /// Why the new is not in force.
    pub(crate) fn refresh(&self, always: bool) -> Result<(), CertificateError> {
        let Some(remote) = self.remote() else { return Ok(()) };
        if matches!(remote.keyring.refresh(self.now(), always)?, Refreshed::Changed) {
            tracing::info!("new certificates are in force");
        }
        let text = kubeconfig::write_admins(&remote.path, &remote.url, &remote.keyring, self.now())?;
        *remote.kubeconfig.lock().unwrap_or_else(PoisonError::into_inner) = text;
        Ok(())
    }
}
