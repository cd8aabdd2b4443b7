//! Who is it? The first step of every request.
//!
//! | where it comes from | who it is |
//! |---|---|
//! | any, with `Authorization: Bearer` | the token's user; a bad token is refused whatever else is shown |
//! | the control socket | the peer by the kernel's word |
//! | TLS with a client certificate | the certificate's common name, in its organizations |
//! | TLS with nothing | `system:anonymous`, for health and version only |

use crate::access::certificates::client::ClientCertificate;
use crate::access::impersonate;
use crate::access::principal::Principal;
use crate::access::state::Access;
use crate::wire::error::ApiError;
use hyper::header::{AUTHORIZATION, HeaderMap};
use std::net::SocketAddr;
use std::sync::Arc;

/// Where a request comes from.
pub(crate) enum Origin {
    /// The peer of the socket.
    Socket(Arc<Principal>),
    /// Nobody we serve; every request gets this.
    Refused(ApiError),
    /// A TLS connection, with the certificate that the client showed.
    Tls {
        /// The client's address.
        peer: SocketAddr,
        /// Its certificate, not believed yet.
        certificate: Option<ClientCertificate>,
    },
}

/// A request whose sender is known. Made by [`authenticate`] only.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated {
    principal: Arc<Principal>,
    /// Who acts as that principal, when it is another.
    impersonator: Option<String>,
}

impl Authenticated {
    pub(crate) fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    pub(crate) fn impersonator(&self) -> Option<&str> {
        self.impersonator.as_deref()
    }
}

/// The first step of every request.
///
/// # Errors
/// 401; 403 for who may not act as somebody else; what the origin was refused with.
pub(crate) fn authenticate(
    access: &Access,
    origin: &Origin,
    headers: &HeaderMap,
    segments: &[String],
) -> Result<Authenticated, ApiError> {
    if let Origin::Refused(error) = origin {
        return Err(error.clone());
    }
    let refused = |why: &str| {
        tracing::info!(why, "a request was not authenticated");
        ApiError::unauthorized()
    };
    if headers.contains_key(AUTHORIZATION) {
        let token = bearer(headers).ok_or_else(|| refused("the Authorization header holds no bearer token"))?;
        let (principal, _) = access.token_principal(token, &[]).map_err(|why| refused(&why))?;
        return impersonated(access, Arc::new(principal), headers);
    }
    let principal = match origin {
        Origin::Refused(error) => return Err(error.clone()),
        Origin::Socket(principal) => principal.clone(),
        Origin::Tls { certificate: Some(certificate), .. } => {
            let keyring = access.keyring().ok_or_else(|| refused("there are no certificates in force"))?;
            let believed = certificate.principal(&keyring.current().clients, access.now());
            believed.map_err(|why| refused(&format!("the client's certificate is refused: {why}")))?
        }
        Origin::Tls { certificate: None, .. } if is_public(segments) => Arc::new(Principal::anonymous()),
        Origin::Tls { certificate: None, .. } => return Err(refused("it brought neither token nor certificate")),
    };
    impersonated(access, principal, headers)
}

/// The principal as whom the request acts.
fn impersonated(access: &Access, principal: Arc<Principal>, headers: &HeaderMap) -> Result<Authenticated, ApiError> {
    match impersonate::wanted(&access.authoriser, &principal, headers)? {
        None => Ok(Authenticated { principal, impersonator: None }),
        Some(other) => Ok(Authenticated { principal: Arc::new(other), impersonator: Some(principal.name.clone()) }),
    }
}

/// Health and version tell nothing that a stranger may not know.
fn is_public(segments: &[String]) -> bool {
    match segments {
        [one] => matches!(one.as_str(), "healthz" | "livez" | "readyz" | "version"),
        [probe, _] => matches!(probe.as_str(), "healthz" | "livez" | "readyz"),
        _ => false,
    }
}

/// Longer tokens are no tokens.
const LONGEST: usize = 16 << 10;

/// The bearer token (RFC 6750, 2.1) of the one Authorization header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    let fits = !token.is_empty() && token.len() <= LONGEST && token.bytes().all(is_token);
    (scheme.eq_ignore_ascii_case("bearer") && fits).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn e01_malformed_authorization_headers_hold_no_token() {
        let long = [b"Bearer ".as_slice(), &vec![b'a'; LONGEST + 1]].concat();
        let malformed: [&[&[u8]]; 16] = [
            &[b""],
            &[b" "],
            &[b"Bearer"],
            &[b"Bearer "],
            &[b"Bearer    "],
            &[b"Bearerabc"],
            &[b"Basic YWxpY2U6c2VjcmV0"],
            &[b"abc"],
            &[b"Token abc"],
            &[b"Bearer a b"],
            &[b"Bearer a,b"],
            &[b"Bearer \"abc\""],
            &[b"Bearer\tabc"],
            &[b"Bearer \xff\xfe"],
            &[&long],
            &[b"Bearer abc", b"Bearer abc"],
        ];
        for values in malformed {
            assert_eq!(bearer(&headers(values)), None, "{values:?}");
        }
        for good in [&b"Bearer abc"[..], b"bearer abc", b"BEARER  abc "] {
            assert_eq!(bearer(&headers(&[good])), Some("abc"));
        }
    }

    #[test]
    fn strangers_see_health_and_version_only() {
        let public = |path: &str| is_public(&crate::wire::request::segments(path).unwrap());
        assert!(public("/healthz") && public("/livez") && public("/readyz/ping") && public("/version"));
        for path in ["/", "/metrics", "/api", "/apis", "/version/x", "/readyz/a/b", "/api/v1/pods", "/healthz%2fx"] {
            assert!(!public(path), "{path}");
        }
    }
}
