//! Tokens of accounts for pods and for Secrets: made with the API's keys.

use async_trait::async_trait;
use reddwarf_api::{Access, PodTokenRequest, SecretTokenRequest};
use reddwarf_controllers::account_token::{SecretTokens, TokenOf};
use reddwarf_host::spec::Sensitive;
use reddwarf_node::{Token, TokenRequest, TokenSource};
use std::sync::Arc;

/// The API's access as the node's [`TokenSource`] and the controllers' [`SecretTokens`].
#[derive(Debug)]
pub(crate) struct AccountTokens(pub(crate) Arc<Access>);

#[async_trait]
impl TokenSource for AccountTokens {
    async fn token(&self, wanted: &TokenRequest) -> Result<Token, String> {
        let request = PodTokenRequest {
            namespace: wanted.pod.namespace.clone(),
            pod: wanted.pod.name.clone(),
            pod_uid: wanted.uid.clone(),
            audience: wanted.audience.clone(),
            expiration_seconds: wanted.seconds,
        };
        let made = self.0.pod_token(&request)?;
        Ok(Token { text: Sensitive::new(made.token), issued: made.issued, expires: made.expires })
    }
}

impl SecretTokens for AccountTokens {
    fn issue(&self, of: &TokenOf) -> Result<String, String> {
        self.0.secret_token(&request(of))
    }

    fn is_void(&self, token: &str, of: &TokenOf) -> bool {
        self.0.is_void_secret_token(token, &request(of))
    }
}

fn request(of: &TokenOf) -> SecretTokenRequest {
    let TokenOf { namespace, account, account_uid, secret, secret_uid } = of.clone();
    SecretTokenRequest { namespace, account, account_uid, secret, secret_uid }
}
