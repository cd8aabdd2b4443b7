//! Tokens of pods' accounts for the node: made with the API's keys.

use async_trait::async_trait;
use reddwarf_api::{Access, PodTokenRequest};
use reddwarf_host::spec::Sensitive;
use reddwarf_node::{Token, TokenRequest, TokenSource};
use std::sync::Arc;

/// The API's access as the node's [`TokenSource`].
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
