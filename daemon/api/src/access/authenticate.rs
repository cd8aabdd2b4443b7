//! Who is it? The first step of every request: the kernel's word for peers of the socket, a token for TCP.

use crate::access::principal::{MASTERS, Principal};
use crate::serve::socket::same_secret;
use crate::wire::error::ApiError;
use hyper::header::{AUTHORIZATION, HeaderMap};
use std::sync::Arc;

/// Where a request comes from.
#[derive(Clone)]
pub(crate) enum Origin {
    /// The peer of the socket.
    Socket(Principal),
    /// Nobody we serve; every request gets this.
    Refused(ApiError),
    /// TCP: who brings this token.
    Tcp(Arc<str>),
}

/// A request whose sender is known. Made by [`authenticate`] only.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated {
    principal: Principal,
}

impl Authenticated {
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }
}

/// The first step of every request.
///
/// # Errors
/// 401; what the origin was refused with.
pub(crate) fn authenticate(origin: &Origin, headers: &HeaderMap) -> Result<Authenticated, ApiError> {
    match origin {
        Origin::Socket(principal) => Ok(Authenticated { principal: principal.clone() }),
        Origin::Refused(error) => Err(error.clone()),
        Origin::Tcp(token) => {
            let given = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
            let given = given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
            if !same_secret(given.trim(), token) {
                return Err(ApiError::unauthorized());
            }
            Ok(Authenticated { principal: Principal::known("token", [MASTERS.to_owned()]) })
        }
    }
}
