//! Tokens of ServiceAccounts: JSON web tokens (RFC 7519) signed by keys of ours, as Kubernetes' bound tokens. They end
//! when they expire, and before that when the ServiceAccount or the object that they are bound to is gone. Those in Secrets of type
//! `kubernetes.io/service-account-token` do not expire: they end when their Secret is gone or has another token.
//!
//! | to know | look in |
//! |---|---|
//! | the keys, their rotation, the key set for verifiers | [`keys`] |
//! | what a token says | [`claims`] |
//! | how one is asked for (`serviceaccounts/NAME/token`) | [`request`] |
//! | when a Secret's token was used last | [`used`] |

pub(crate) mod claims;
pub(crate) mod keys;
pub(crate) mod request;
pub(crate) mod used;

use crate::access::files::FileError;
use crate::access::principal::Principal;
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use claims::{Claims, Kubernetes, Named};
use keys::Keys;
use reddwarf_objects::{Object, ObjectKey};
use reddwarf_registry::{Registry, RegistryError};
use reddwarf_store::Revision;
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};
use used::{INVALID_SINCE, Uses};

/// The longest life of a token; more is cut to it.
pub(crate) const LONGEST: i64 = 365 * 24 * 3600;
/// Tokens whose signature was checked that are remembered.
const REMEMBERED: usize = 4096;
/// Clocks of those who bring tokens may be off by so much.
const SKEW: i64 = 60;

/// Issues and verifies tokens.
pub(crate) struct ServiceAccountTokens {
    keys: RwLock<Keys>,
    issuer: String,
    registry: Registry,
    /// By the digest of a token.
    verified: Mutex<HashMap<[u8; 32], Verified>>,
    /// Uses of tokens in Secrets that are to be put on record.
    pub(crate) uses: Uses,
}

/// A token whose signature is good.
#[derive(Clone)]
struct Verified {
    claims: Claims,
    /// At which revision of the store, and on which day, its objects were there.
    alive: Option<(Revision, NaiveDate)>,
}

/// What a token is bound to, besides its ServiceAccount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) pod: Option<Named>,
    pub(crate) secret: Option<Named>,
    pub(crate) node: Option<Named>,
}

/// What a new token says.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: Named,
    /// Us when empty.
    pub(crate) audiences: Vec<String>,
    /// From now; at most [`LONGEST`].
    pub(crate) seconds: i64,
    pub(crate) bound: Bound,
}

impl ServiceAccountTokens {
    /// Reads the keys of a directory, or makes the first.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn open(directory: &Path, issuer: String, registry: Registry) -> Result<Self, FileError> {
        let keys = RwLock::new(Keys::open(directory, registry.now())?);
        Ok(Self { keys, issuer, registry, verified: Mutex::default(), uses: Uses::default() })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys that tokens may be verified with (RFC 7517).
    pub(crate) fn key_set(&self) -> serde_json::Value {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).set()
    }

    /// Signs with a new key from now on; `always`, or when the present one is old. Old keys go on verifying.
    ///
    /// # Errors
    /// [`FileError`]: the present key stays.
    pub(crate) fn rotate(&self, always: bool) -> Result<bool, FileError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.rotate(self.registry.now(), always)
    }

    /// A new token and when it expires.
    ///
    /// # Errors
    /// When it can't be signed.
    pub(crate) fn issue(&self, wanted: Wanted<'_>) -> Result<(String, DateTime<Utc>), String> {
        let now = self.registry.now();
        let end = now + TimeDelta::seconds(wanted.seconds.clamp(1, LONGEST));
        let claims = self.claims(wanted, Some(end.timestamp()), now);
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Ok((signed(&claims, keys.signing())?, end))
    }

    /// A new token for a Secret, which it is bound to: it does not expire.
    ///
    /// # Errors
    /// When it can't be signed.
    pub(crate) fn issue_lasting(&self, wanted: Wanted<'_>) -> Result<String, String> {
        let claims = self.claims(wanted, None, self.registry.now());
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        signed(&claims, keys.lasting().map_err(|e| e.to_string())?)
    }

    /// Is it a token of ours that does not stand for this account and Secret, or can't be verified any more?
    pub(crate) fn is_void(&self, token: &str, namespace: &str, account: &Named, secret: &Named) -> bool {
        let of_us = Claims::unverified(token).is_some_and(|claims| claims.iss == self.issuer);
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let stands = |claims: Claims| {
            let of = claims.kubernetes;
            of.namespace == namespace && of.service_account == *account && of.secret.as_ref() == Some(secret)
        };
        of_us && !Claims::verify(token, |kid| keys.verifying(kid)).is_ok_and(stands)
    }

    fn claims(&self, wanted: Wanted<'_>, exp: Option<i64>, now: DateTime<Utc>) -> Claims {
        let audiences = if wanted.audiences.is_empty() { vec![self.issuer.clone()] } else { wanted.audiences };
        Claims {
            aud: audiences,
            exp,
            iat: now.timestamp(),
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: user_name(wanted.namespace, &wanted.account.name),
            nbf: now.timestamp(),
            kubernetes: Kubernetes {
                namespace: wanted.namespace.to_owned(),
                service_account: wanted.account,
                pod: wanted.bound.pod,
                secret: wanted.bound.secret,
                node: wanted.bound.node,
            },
        }
    }

    /// Who brings a token, and which of the wanted audiences it is for; without any, it must be for us.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn verify(&self, token: &str, audiences: &[String]) -> Result<(Principal, Vec<String>), String> {
        let (time, revision) = (self.registry.now(), self.registry.revision());
        let now = time.timestamp();
        let key = digest_of(token.as_bytes());
        let found = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let mut verified = match found {
            Some(verified) => verified,
            None => {
                let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
                let claims = Claims::verify(token, |kid| keys.verifying(kid))?;
                if claims.iss != self.issuer {
                    return Err("the token is of another issuer".to_owned());
                }
                Verified { claims, alive: None }
            }
        };
        let claims = &verified.claims;
        if claims.exp.is_some_and(|end| end <= now) {
            self.forget(&key);
            return Err("the token has expired".to_owned());
        }
        if claims.nbf > now + SKEW {
            return Err("the token is not valid yet".to_owned());
        }
        let ours = [self.issuer.clone()];
        let wanted = if audiences.is_empty() { &ours[..] } else { audiences };
        let shared: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if shared.is_empty() {
            let text = |list: &[String]| list.join(" ");
            return Err(format!(
                "token audiences [{}] is invalid for the target audiences [{}]",
                text(&claims.aud),
                text(wanted)
            ));
        }
        let alive = Some((revision, time.date_naive()));
        if verified.alive != alive {
            self.check_alive(claims, &key, time).inspect_err(|_| self.forget(&key))?;
            verified.alive = alive;
            self.remember(key, &verified, now);
        }
        Ok((principal(&verified.claims), shared))
    }

    fn remember(&self, key: [u8; 32], verified: &Verified, now: i64) {
        let mut all = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED && !all.contains_key(&key) {
            all.retain(|_, one| one.claims.exp.is_none_or(|end| end > now));
            if all.len() >= REMEMBERED {
                all.clear();
            }
        }
        all.insert(key, verified.clone());
    }

    fn forget(&self, key: &[u8; 32]) {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Are the ServiceAccount and what the token is bound to still there, and the same ones? `key` is the token's digest.
    fn check_alive(&self, claims: &Claims, key: &[u8; 32], now: DateTime<Utc>) -> Result<(), String> {
        let of = &claims.kubernetes;
        let namespace = Some(of.namespace.as_str());
        let needed = [
            ("serviceaccounts", namespace, Some(&of.service_account)),
            ("pods", namespace, of.pod.as_ref()),
            ("secrets", namespace, of.secret.as_ref()),
            ("nodes", None, of.node.as_ref()),
        ];
        let mut secret = None;
        for (resource, namespace, named) in needed {
            let Some(named) = named else { continue };
            let found = self.find(resource, namespace, &named.name).map_err(|e| e.to_string())?;
            // What waits for its finalizers is as good as gone; tokens for pods, which stop meanwhile, have a minute more.
            let leaving = |since| claims.exp.is_none() || since + TimeDelta::seconds(SKEW) < now;
            let stays = |object: &Object| !object.deletion_timestamp().is_some_and(leaving);
            let same = found.as_ref().is_some_and(|object| object.uid() == Some(&named.uid) && stays(object));
            // A node that the token's pod was on may have been made anew; only a token that is bound to it alone ends.
            if !same && (resource != "nodes" || of.pod.is_none()) {
                return Err(format!("{resource} \"{}\", which the token is bound to, is gone", named.name));
            }
            if resource == "secrets" {
                secret = found;
            }
        }
        match secret {
            _ if claims.exp.is_some() => Ok(()),
            Some(secret) if has_token(&secret, key) => self.check_valid(&secret, &of.service_account.name, now),
            _ => {
                let name = of.secret.as_ref().map_or("", |secret| secret.name.as_str());
                Err(format!("secrets \"{name}\" does not have the token any more"))
            }
        }
    }

    /// Is a Secret's token to be believed? That it was shown goes on record either way.
    fn check_valid(&self, secret: &Object, account: &str, now: DateTime<Utc>) -> Result<(), String> {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name());
        self.uses.note(core_key("secrets", Some(namespace), name), secret, now);
        if secret.label(INVALID_SINCE).is_none_or(str::is_empty) {
            return Ok(());
        }
        Err(format!(
            "the token in secret {namespace}/{name} for service account {namespace}/{account} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        ))
    }

    pub(crate) fn find(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Object>, RegistryError> {
        self.registry.find(&core_key(resource, namespace, name))
    }
}

fn core_key(resource: &str, namespace: Option<&str>, name: &str) -> ObjectKey {
    ObjectKey {
        group: String::new(),
        resource: resource.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    }
}

/// Has the Secret the token with this digest?
fn has_token(secret: &Object, key: &[u8; 32]) -> bool {
    let kept = secret.get_str("/data/token").and_then(|text| BASE64_STANDARD.decode(text).ok());
    secret.get_str("/type") == Some(reddwarf_objects::ACCOUNT_TOKEN_TYPE)
        && kept.is_some_and(|kept| digest_of(&kept) == *key)
}

fn digest_of(token: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token).as_ref());
    key
}

fn signed(claims: &Claims, key: &keys::Key) -> Result<String, String> {
    claims.sign(key).map_err(|e| format!("a token can't be signed: {e}"))
}

/// The user that a ServiceAccount is.
pub(crate) fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

fn principal(claims: &Claims) -> Principal {
    let of = &claims.kubernetes;
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", of.namespace)];
    let mut who = Principal::known(claims.sub.clone(), groups);
    who.uid.clone_from(&of.service_account.uid);
    let mut extra = |key: &str, value: String| {
        who.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    extra("credential-id", format!("JTI={}", claims.jti));
    if let Some(pod) = &of.pod {
        extra("pod-name", pod.name.clone());
        extra("pod-uid", pod.uid.clone());
    }
    if let Some(node) = &of.node {
        extra("node-name", node.name.clone());
        extra("node-uid", node.uid.clone());
    }
    who
}
