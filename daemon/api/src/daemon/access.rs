//! The admin's kubeconfig, and bearer tokens: made, listed, revoked.

use crate::access::tokens::{NewToken, Token, TokenError};
use crate::daemon::{body, ok};
use crate::serve::body::{Arriving, Body};
use crate::serve::dispatch::Call;
use crate::types::{Done, Kubeconfig, TokenCreated, TokenList, TokenRequest, TokenSummary};
use crate::wire::error::ApiError;
use chrono::TimeDelta;
use hyper::{Request, Response};

/// `GET kubeconfig`.
///
/// # Errors
/// 409 while the API does not listen on TCP.
pub(super) fn kubeconfig(call: &Call) -> Result<Response<Body>, ApiError> {
    call.principal.require_admin("read the admin's kubeconfig")?;
    let (path, text) = call.state.deps.access.admins_kubeconfig().ok_or_else(tcp_is_off)?;
    ok(&Kubeconfig { path: path.display().to_string(), kubeconfig: text })
}

fn tcp_is_off() -> ApiError {
    let text = "the API does not listen on TCP; set `listen = \"127.0.0.1:6443\"` (or start reddwarfd with --listen)";
    ApiError::new(409, "Conflict", text)
}

/// `GET`, `POST` and `DELETE tokens`.
///
/// # Errors
/// 403 for who is no admin, 422 for bad requests.
pub(super) async fn tokens(call: &Call, method: &str, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
    call.principal.require_admin("manage tokens")?;
    let access = &call.state.deps.access;
    match method {
        "GET" => ok(&TokenList { items: access.tokens.list().iter().map(summary).collect() }),
        "POST" => {
            let wanted: TokenRequest = body(call, request).await?;
            let wanted = checked(wanted)?;
            let access = access.clone();
            let now = access.now();
            let created = tokio::task::spawn_blocking(move || {
                let made = access.tokens.create(wanted, now);
                made.map(|(text, token)| (access.token_kubeconfig(&token.user, &text), text, token))
            });
            let (kubeconfig, text, token) = created.await.map_err(ApiError::internal)?.map_err(refused)?;
            ok(&TokenCreated { token: text, summary: summary(&token), kubeconfig: kubeconfig.unwrap_or_default() })
        }
        "DELETE" => {
            let id = call.query.get("id").ok_or_else(|| ApiError::bad_request("?id= is required"))?.to_owned();
            let (access, gone) = (access.clone(), id.clone());
            let there = tokio::task::spawn_blocking(move || access.tokens.revoke(&gone)).await;
            match there.map_err(ApiError::internal)?.map_err(ApiError::internal)? {
                true => ok(&Done { message: format!("token {id} is revoked") }),
                false => Err(ApiError::new(404, "NotFound", format!("there is no token {id}"))),
            }
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// `POST service-account-keys/rotate`.
///
/// # Errors
/// 403 for who is no admin.
pub(super) async fn rotate(call: &Call) -> Result<Response<Body>, ApiError> {
    call.principal.require_admin("make a new key")?;
    let access = call.state.deps.access.clone();
    let done = tokio::task::spawn_blocking(move || access.service_accounts.rotate(true)).await;
    done.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
    let message = "a new key signs ServiceAccounts' tokens; those that older keys signed stay valid until they expire";
    ok(&Done { message: message.to_owned() })
}

/// Names that the daemon gives itself are not given away.
fn checked(wanted: TokenRequest) -> Result<NewToken, ApiError> {
    let bad = |text: String| ApiError::new(422, "Invalid", text);
    let plain = |name: &str| !name.is_empty() && name.len() <= 253 && !name.chars().any(char::is_control);
    if let Some(name) = std::iter::once(&wanted.user).chain(&wanted.groups).find(|name| !plain(name)) {
        return Err(bad(format!("{name:?} is no name of a user or group: give 1 to 253 printable characters")));
    }
    if wanted.user.starts_with("system:") {
        let user = &wanted.user;
        return Err(bad(format!("user {user:?}: names that begin with system: are Kubernetes' own; choose another")));
    }
    let lifetime = wanted.expiration_seconds.map(|seconds| {
        i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds).ok_or_else(|| refused(TokenError::Lifetime))
    });
    Ok(NewToken {
        user: wanted.user,
        groups: wanted.groups,
        description: wanted.description,
        lifetime: lifetime.transpose()?,
    })
}

fn refused(error: TokenError) -> ApiError {
    match error {
        TokenError::Lifetime | TokenError::TooMany => ApiError::new(422, "Invalid", error.to_string()),
        TokenError::File(_) | TokenError::NoRandomness => ApiError::internal(error),
    }
}

fn summary(token: &Token) -> TokenSummary {
    TokenSummary {
        id: token.id.clone(),
        user: token.user.clone(),
        groups: token.groups.clone(),
        description: token.description.clone(),
        created: Some(token.created),
        expires: token.expires,
    }
}
