//! Secrets of type `kubernetes.io/service-account-token`: each gets a token of the account that it names, and goes with the account.

use crate::runtime::{Action, Again, Change, Context, Controller, Detail, Events, Failure, Id, View};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use reddwarf_objects::{ACCOUNT_NAME_ANNOTATION, ACCOUNT_TOKEN_TYPE, Kind, Object, SOURCE_ANNOTATION, kinds};
use serde_json::{Map, Value, json};
use std::fmt;
use std::sync::Arc;

/// Annotation: the account's uid.
const UID: &str = "kubernetes.io/service-account.uid";

/// What a token in a Secret is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenOf {
    /// Namespace of both.
    pub namespace: String,
    /// The account's name.
    pub account: String,
    /// The account's uid.
    pub account_uid: String,
    /// The Secret's name.
    pub secret: String,
    /// The Secret's uid.
    pub secret_uid: String,
}

/// Who makes tokens.
pub trait SecretTokens: fmt::Debug + Send + Sync + 'static {
    /// A token that is good for as long as the Secret is there and has it.
    ///
    /// # Errors
    /// Why there is none, for people.
    fn issue(&self, of: &TokenOf) -> Result<String, String>;

    /// Is it one of ours that is of no use: of another account or Secret, or signed by a key that is lost?
    fn is_void(&self, token: &str, of: &TokenOf) -> bool;
}

/// The controller.
#[derive(Debug)]
pub struct AccountTokens {
    secrets: &'static Kind,
    accounts: &'static Kind,
    tokens: Arc<dyn SecretTokens>,
    root_ca: Option<String>,
}

impl AccountTokens {
    /// `root_ca`: the authority's certificate as PEM; without one Secrets get none. `None` without somebody to make tokens.
    pub fn new(tokens: Option<Arc<dyn SecretTokens>>, root_ca: Option<String>) -> Option<Self> {
        let by = |name| kinds().by_gvk("v1", name);
        Some(Self { secrets: by("Secret")?, accounts: by("ServiceAccount")?, tokens: tokens?, root_ca })
    }

    /// What has to be changed in a Secret of this account.
    fn missing(&self, secret: &Object, of: &TokenOf) -> Result<Option<Value>, Failure> {
        let kept = |key: &str| secret.get_str(&format!("/data/{key}")).unwrap_or_default();
        let mut data = Map::new();
        let token = BASE64_STANDARD.decode(kept("token")).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Somebody else's is left alone, as in the reference.
        if token.is_none_or(|token| token.is_empty() || self.tokens.is_void(&token, of)) {
            let token = self.tokens.issue(of).map_err(Failure::Wait)?;
            data.insert("token".to_owned(), BASE64_STANDARD.encode(token).into());
        }
        if let Some(pem) =
            self.root_ca.as_ref().map(|pem| BASE64_STANDARD.encode(pem)).filter(|pem| pem != kept("ca.crt"))
        {
            data.insert("ca.crt".to_owned(), pem.into());
        }
        if kept("namespace").is_empty() {
            data.insert("namespace".to_owned(), BASE64_STANDARD.encode(&of.namespace).into());
        }
        let mut patch = json!({});
        if !data.is_empty() {
            patch["data"] = data.into();
        }
        if secret.annotation(UID) != Some(&of.account_uid) {
            patch["metadata"] = json!({"annotations": {UID: of.account_uid}});
        }
        Ok((patch != json!({})).then_some(patch))
    }
}

#[async_trait]
impl Controller for AccountTokens {
    fn name(&self) -> &'static str {
        "tokens-controller"
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if matches!(slim.detail, Detail::AccountToken(_)) {
            return add(slim.id.clone());
        }
        let uid = |slim: &Option<Arc<_>>| slim.as_ref().map(|slim: &Arc<crate::runtime::Slim>| slim.uid.clone());
        if slim.id.is("", "ServiceAccount") && uid(&change.before) != uid(&change.after) {
            for secret in view.list(self.secrets, Some(&slim.id.namespace)) {
                if matches!(&secret.detail, Detail::AccountToken(account) if **account == *slim.id.name) {
                    add(secret.id.clone());
                }
            }
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(secret) = context.find(id)?.filter(|secret| secret.deletion_timestamp().is_none()) else {
            return Ok(Again::NEVER);
        };
        let Some(name) = secret
            .annotation(ACCOUNT_NAME_ANNOTATION)
            .filter(|name| secret.get_str("/type") == Some(ACCOUNT_TOKEN_TYPE) && !name.is_empty())
        else {
            return Ok(Again::NEVER);
        };
        let declared = secret.annotation(SOURCE_ANNOTATION).is_some();
        let wanted = secret.annotation(UID).filter(|uid| !uid.is_empty() && !declared);
        let account = context.find(&Id::of(self.accounts, &id.namespace, name))?;
        let account = account.filter(|account| wanted.is_none_or(|wanted| account.uid() == Some(wanted)));
        let uid: Arc<str> = secret.uid().unwrap_or_default().into();
        let action = match account {
            Some(account) => {
                let of = TokenOf {
                    namespace: id.namespace.to_string(),
                    account: name.to_owned(),
                    account_uid: account.uid().unwrap_or_default().to_owned(),
                    secret: id.name.to_string(),
                    secret_uid: uid.to_string(),
                };
                let Some(patch) = self.missing(&secret, &of)? else { return Ok(Again::NEVER) };
                Action::Patch { id: id.clone(), uid, patch }
            }
            // What a file declares stays, and waits.
            None if declared => Events::about(&secret).warning(
                "NoServiceAccount",
                format!("there is no ServiceAccount {name:?} yet: this Secret gets its token with it"),
            ),
            None => Action::Delete { id: id.clone(), uid },
        };
        context.act(self.name(), vec![action]).await?;
        Ok(Again::NEVER)
    }
}
