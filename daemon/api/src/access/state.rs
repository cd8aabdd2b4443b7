//! What access keeps while the API runs: certificates, tokens, the authoriser.

use crate::access::audit::{Audit, AuditSettings};
use crate::access::authorise::{Chain, Roles};
use crate::access::certificates::CertificateError;
use crate::access::certificates::keyring::{self, Keyring, Refreshed, TlsSettings};
use crate::access::kubeconfig;
use crate::access::principal::Principal;
use crate::access::rbac::{Rbac, bootstrap};
use crate::access::service_account::claims::Named;
use crate::access::service_account::{Bound, ServiceAccountTokens, Wanted, request};
use crate::access::tokens::TokenStore;
use chrono::{DateTime, TimeDelta, Utc};
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

/// A token that a pod's projected volume asks for (`serviceAccountToken` source).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTokenRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Its uid.
    pub pod_uid: String,
    /// For whom the token is; the API when absent.
    pub audience: Option<String>,
    /// Its life in seconds.
    pub expiration_seconds: i64,
}

/// What a token in a Secret of type `kubernetes.io/service-account-token` is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretTokenRequest {
    /// Namespace of both.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub account: String,
    /// Its uid.
    pub account_uid: String,
    /// Name of the Secret.
    pub secret: String,
    /// Its uid.
    pub secret_uid: String,
}

/// A token for a pod.
#[derive(Clone, PartialEq, Eq)]
pub struct PodToken {
    /// The token: a secret.
    pub token: String,
    /// When it was made.
    pub issued: DateTime<Utc>,
    /// When it ends.
    pub expires: DateTime<Utc>,
}

impl PodToken {
    /// When to ask for the next one, as the kubelet does: after four fifths of its life, but at least once a day.
    pub fn renew_at(&self) -> DateTime<Utc> {
        let life = self.expires - self.issued;
        self.issued + (life * 4 / 5).min(TimeDelta::hours(24))
    }
}

impl fmt::Debug for PodToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodToken").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Certificates, tokens and rules: what access knows. It outlives the [`crate::Api`], which is made anew when settings change.
pub struct Access {
    settings: AccessSettings,
    state_dir: PathBuf,
    pub(crate) tokens: TokenStore,
    pub(crate) service_accounts: ServiceAccountTokens,
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
        let domain = match settings.tls.cluster_domain.as_str() {
            "" => "cluster.local",
            domain => domain,
        };
        let issuer = format!("https://kubernetes.default.svc.{domain}");
        let keys = state_dir.join("pki/service-account");
        let audit = settings.audit.as_ref().map(Audit::open).transpose()?;
        Ok(Self {
            settings,
            audit,
            state_dir: state_dir.to_owned(),
            tokens: TokenStore::open(state_dir)?,
            service_accounts: ServiceAccountTokens::open(&keys, issuer, registry.clone())?,
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
        // Three parts of base64 whose first is a JSON object.
        if token.starts_with("eyJ") {
            return self.service_accounts.verify(token, audiences);
        }
        match self.tokens.principal(token, self.now()) {
            // These tokens have no audience: they are for us.
            Some(who) => Ok((who, audiences.to_vec())),
            None => Err("invalid bearer token".to_owned()),
        }
    }

    /// A token for a pod's projected volume, bound to the pod: void when that is gone. The node mounts it, and asks for
    /// another one at [`PodToken::renew_at`].
    ///
    /// # Errors
    /// When there is no such pod or ServiceAccount, or the token can't be signed. The text is for people.
    pub fn pod_token(&self, wanted: &PodTokenRequest) -> Result<PodToken, String> {
        let tokens = &self.service_accounts;
        let found = |resource: &str, name: &str| {
            let found = tokens.find(resource, Some(&wanted.namespace), name).map_err(|e| e.to_string())?;
            found.ok_or_else(|| format!("{resource} \"{name}\" not found"))
        };
        let pod = found("pods", &wanted.pod)?;
        if pod.uid() != Some(&wanted.pod_uid) {
            return Err(format!("pods \"{}\" was deleted and made anew", wanted.pod));
        }
        let account = pod.get_str("/spec/serviceAccountName").filter(|name| !name.is_empty()).unwrap_or("default");
        let account = found("serviceaccounts", account)?;
        let issued = self.now();
        let (token, expires) = tokens.issue(Wanted {
            namespace: &wanted.namespace,
            account: request::named(&account),
            audiences: wanted.audience.iter().cloned().collect(),
            seconds: wanted.expiration_seconds,
            bound: request::of_pod(tokens, &pod).map_err(|e| e.message)?,
        })?;
        Ok(PodToken { token, issued, expires })
    }

    /// A token for a Secret: good for as long as the Secret with this uid is there and has it.
    ///
    /// # Errors
    /// When it can't be signed. The text is for people.
    pub fn secret_token(&self, wanted: &SecretTokenRequest) -> Result<String, String> {
        let (account, secret) = both(wanted);
        self.service_accounts.issue_lasting(Wanted {
            namespace: &wanted.namespace,
            account,
            audiences: Vec::new(),
            seconds: 0,
            bound: Bound { secret: Some(secret), ..Bound::default() },
        })
    }

    /// Is what a Secret has as its token one of ours that is of no use: of another account or Secret, or signed by a key that is
    /// lost?
    pub fn is_void_secret_token(&self, token: &str, of: &SecretTokenRequest) -> bool {
        let (account, secret) = both(of);
        self.service_accounts.is_void(token, &of.namespace, &account, &secret)
    }

    /// The URL of the API on TCP.
    pub(crate) fn url(&self) -> Option<String> {
        self.remote().map(|remote| remote.url.clone())
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

    /// The authority behind the certificate that clients on TCP see, or would see if the API listened there, PEM. It is
    /// made when it is first asked for, so that pods have the same from the start, whatever is switched on later.
    ///
    /// # Errors
    /// When the user's certificate can't be read, or ours can't be made.
    pub fn root_ca(&self) -> Result<String, CertificateError> {
        match self.remote() {
            Some(remote) => Ok(remote.keyring.current().trust.clone()),
            None => keyring::trust(&self.settings.tls, &self.state_dir.join("pki"), self.now()),
        }
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
        self.service_accounts.rotate(false)?;
        let Some(remote) = self.remote() else { return Ok(()) };
        if matches!(remote.keyring.refresh(self.now(), always)?, Refreshed::Changed) {
            tracing::info!("new certificates are in force");
        }
        let text = kubeconfig::write_admins(&remote.path, &remote.url, &remote.keyring, self.now())?;
        *remote.kubeconfig.lock().unwrap_or_else(PoisonError::into_inner) = text;
        Ok(())
    }
}

/// The account and the Secret.
fn both(of: &SecretTokenRequest) -> (Named, Named) {
    let named = |name: &str, uid: &str| Named { name: name.to_owned(), uid: uid.to_owned() };
    (named(&of.account, &of.account_uid), named(&of.secret, &of.secret_uid))
}
