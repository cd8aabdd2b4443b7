//! Requests to one endpoint about one repository: authentication, redirects, retries, and answers that are failures.

use crate::challenge::{self, Challenge};
use crate::credentials::Login;
use crate::error::{PullError, PullErrorKind, Result};
use crate::options::{Endpoint, Scheme};
use crate::transport::{ConnectError, Transport, Url, read_all};
use base64::Engine;
use bytes::Bytes;
use chrono::DateTime;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use hyper::http::{Method, StatusCode};
use serde::Deserialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const REDIRECTS: usize = 5;
/// How often a request is made in all, when its failure may pass.
const TRIES: u32 = 3;
/// A registry that wants a longer pause is not waited for here: the failure says how long ([`PullError::retry_after`]).
const PAUSE_MOST: Duration = Duration::from_secs(20);
/// Tokens and error documents.
const SMALL: usize = 256 << 10;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Below `/v2/REPOSITORY/`.
    pub(crate) path: &'a str,
    pub(crate) accept: &'a str,
    /// From this byte on.
    pub(crate) from: u64,
}

/// An endpoint, a repository, and how we came in.
pub(crate) struct Session<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) endpoint: Endpoint,
    pub(crate) repository: String,
    /// Tried in order; `None` is nobody in particular.
    logins: Vec<Option<Login>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Known once the endpoint answered.
    secure: Option<bool>,
    /// The login in use.
    login: usize,
    header: Option<HeaderValue>,
    challenge: Option<Challenge>,
}

/// How a body ended that was to be sent on: where it came from, and the body.
pub(crate) struct Answer {
    pub(crate) url: Url,
    pub(crate) response: Response<Incoming>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(transport: &'a Transport, endpoint: Endpoint, repository: &str, logins: Vec<Login>) -> Self {
        let logins = logins.into_iter().map(Some).chain([None]).collect();
        Self { transport, endpoint, repository: repository.to_owned(), logins, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until it is answered, a failure will not pass, or it was tried often enough.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.authorised(ask).await {
                Err(error) if error.again && tries < TRIES => pause(&error, tries).await,
                other => return other,
            }
        }
    }

    /// A whole document of at most `limit` bytes, with its Docker-Content-Digest and Content-Type.
    pub(crate) async fn document(&self, ask: &Ask<'_>, limit: usize) -> Result<(Vec<u8>, Option<String>, String)> {
        let mut tries = 0;
        loop {
            tries += 1;
            let Answer { url, response } = self.ask(ask).await?;
            let text = |name: &str| {
                response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned).unwrap_or_default()
            };
            let digest = Some(text("docker-content-digest")).filter(|d| !d.is_empty());
            let media = text("content-type");
            match read_all(self.transport, &url, response, limit).await {
                Ok(bytes) => return Ok((bytes, digest, media)),
                Err(error) if error.again && tries < TRIES => pause(&error, tries).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks as whom the registry lets in.
    async fn authorised(&self, ask: &Ask<'_>) -> Result<Answer> {
        let mut renewed = false;
        loop {
            let (header, login) = {
                let state = self.state();
                (state.header.clone(), state.login)
            };
            let answer = self.redirected(ask, header.clone()).await?;
            let status = answer.response.status();
            if status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN {
                return self.checked(answer).await;
            }
            let given = answer.response.headers().get_all("www-authenticate");
            let challenge = challenge::parse(given.iter().filter_map(|h| h.to_str().ok()));
            let challenge = challenge.or_else(|| self.state().challenge.clone());
            let Some(challenge) = challenge else { return self.checked(answer).await };
            // A token may have come of age: the same login once more, then the next.
            let bearer = matches!(challenge, Challenge::Bearer { .. });
            let next = match &header {
                None => login,
                Some(_) if bearer && !renewed && status == StatusCode::UNAUTHORIZED => login,
                Some(_) => login + 1,
            };
            renewed = header.is_some();
            if !self.log_in(&challenge, next).await? {
                return self.checked(answer).await;
            }
        }
    }

    /// Takes the first login from `first` on that gets something to show. `false`: none is left.
    async fn log_in(&self, challenge: &Challenge, first: usize) -> Result<bool> {
        for (index, login) in self.logins.iter().enumerate().skip(first) {
            let header = match (challenge, login) {
                (_, Some(Login::Token(token))) => Some(format!("Bearer {token}")),
                (Challenge::Basic, Some(Login::Password(user, password))) => Some(basic(user, password)),
                (Challenge::Basic, _) => None,
                (Challenge::Bearer { .. }, login) => {
                    self.token(challenge, login.as_ref()).await?.map(|token| format!("Bearer {token}"))
                }
            };
            let header = header.and_then(|h| HeaderValue::try_from(h).ok()).map(|mut h| {
                h.set_sensitive(true);
                h
            });
            if let Some(header) = header {
                let mut state = self.state();
                (state.login, state.header, state.challenge) = (index, Some(header), Some(challenge.clone()));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A token from the challenge's realm; `None`: this login is not let in there.
    async fn token(&self, challenge: &Challenge, login: Option<&Login>) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let Challenge::Bearer { realm, service, scope } = challenge else { return Ok(None) };
        let mut url =
            Url::parse(realm).filter(|u| u.secure || self.endpoint.scheme != Scheme::Https).ok_or_else(|| {
                PullError::invalid(format!(
                    "{} sends us to {realm:?} for a token, which is not https",
                    self.endpoint.authority
                ))
            })?;
        let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let mut form = vec![("scope", scope)];
        form.extend(service.clone().map(|service| ("service", service)));
        let mut headers = HeaderMap::new();
        let (mut method, mut body) = (Method::GET, Bytes::new());
        match login {
            Some(Login::Refresh(token)) => {
                form.push(("grant_type", "refresh_token".into()));
                form.push(("client_id", "reddwarf".into()));
                form.push(("refresh_token", token.clone()));
                (method, body) = (Method::POST, Bytes::from(encoded(&form)));
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            }
            other => {
                if let Some(Login::Password(user, password)) = other {
                    form.push(("account", user.clone()));
                    let mut value = HeaderValue::try_from(basic(user, password)).map_err(|_| {
                        PullError::new(PullErrorKind::Local, "a password can't be sent: it holds control characters")
                    })?;
                    value.set_sensitive(true);
                    headers.insert(AUTHORIZATION, value);
                }
                let joint = if url.path.contains('?') { '&' } else { '?' };
                url.path = format!("{}{joint}{}", url.path, encoded(&form));
            }
        }
        let response = self.transport.send(&url, method, headers, body).await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => {
                return Ok(None);
            }
            status => return Err(refusal(&url, status, response.headers(), &[])),
        }
        let bytes = read_all(self.transport, &url, response, SMALL).await?;
        // Not quoted: it is a secret.
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| PullError::invalid(format!("{url} answers with no token")))?;
        Ok(token.token.or(token.access_token).filter(|t| !t.is_empty()))
    }

    /// Sends, and follows where it leads. What lets us in is shown to nobody else.
    async fn redirected(&self, ask: &Ask<'_>, header: Option<HeaderValue>) -> Result<Answer> {
        let first = self.first(ask);
        let mut url = first.clone();
        for _ in 0..=REDIRECTS {
            let mut headers = HeaderMap::new();
            if let Ok(accept) = HeaderValue::try_from(ask.accept) {
                headers.insert(ACCEPT, accept);
            }
            if ask.from > 0
                && let Ok(range) = HeaderValue::try_from(format!("bytes={}-", ask.from))
            {
                headers.insert(RANGE, range);
            }
            if let Some(header) = header.clone().filter(|_| url.same_origin(&first) || self.plain_now(&url, &first)) {
                headers.insert(AUTHORIZATION, header);
            }
            let response = match self.transport.send(&url, ask.method.clone(), headers, Bytes::new()).await {
                Ok(response) => response,
                // Only the endpoint itself may turn out to be a plain one.
                Err(ConnectError::NoTls(_)) if self.endpoint.scheme == Scheme::Either && url == first => {
                    self.state().secure = Some(false);
                    url.secure = false;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            if url.authority == first.authority {
                self.state().secure.get_or_insert(url.secure);
            }
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(Answer { url, response });
            }
            let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).unwrap_or_default();
            let next = url.join(location).filter(|next| next.secure || !url.secure);
            url = next.ok_or_else(|| {
                PullError::invalid(format!("{url} leads to where nobody may be led: not a URL, or from https to http"))
            })?;
        }
        Err(PullError::invalid(format!("{first} leads from one place to the next, more than {REDIRECTS} times")))
    }

    /// The endpoint was just found to speak plain HTTP.
    fn plain_now(&self, url: &Url, first: &Url) -> bool {
        url.authority == first.authority && self.state().secure == Some(false)
    }

    fn first(&self, ask: &Ask<'_>) -> Url {
        let known = self.state().secure;
        let secure = known.unwrap_or(self.endpoint.scheme != Scheme::Http);
        let path = format!("/v2/{}/{}", self.repository, ask.path);
        Url { secure, authority: self.endpoint.authority.clone(), path }
    }

    /// Success passes; anything else becomes an error with the registry's own words.
    async fn checked(&self, answer: Answer) -> Result<Answer> {
        let status = answer.response.status();
        if status.is_success() || (status == StatusCode::RANGE_NOT_SATISFIABLE) {
            return Ok(answer);
        }
        let headers = answer.response.headers().clone();
        let body = read_all(self.transport, &answer.url, answer.response, SMALL).await.unwrap_or_default();
        Err(refusal(&answer.url, status, &headers, &body))
    }
}

fn failed(error: ConnectError) -> PullError {
    match error {
        ConnectError::NoTls(why) => {
            let help = "if it is meant to, add it to `insecure_registries` of reddwarfd.toml";
            PullError::new(PullErrorKind::Unreachable, format!("{why}; {help}"))
        }
        ConnectError::Failed(error) => error,
    }
}

/// Waits before a request is made again: as the registry asks, else a moment that grows.
pub(crate) async fn pause(error: &PullError, tries: u32) {
    let own = Duration::from_millis(300).saturating_mul(1 << tries.min(6)).min(Duration::from_secs(5));
    tokio::time::sleep(error.retry_after.unwrap_or(own)).await;
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// `application/x-www-form-urlencoded`.
fn encoded(form: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in form {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(byte)),
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

/// How long a registry asks to be left alone: seconds, or a date (RFC 9110, 10.2.3), which counts from the answer's own: its
/// clock and ours need not agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| DateTime::parse_from_rfc2822(text).ok();
    // One that is past asks for nothing.
    Some((date(asked)? - date(text(DATE)?)?).to_std().unwrap_or_default())
}

/// What a registry's answer means (distribution specification, "Error codes").
fn refusal(url: &Url, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> PullError {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let words = serde_json::from_slice::<Errors>(body).ok().and_then(|e| e.errors.into_iter().next());
    let words = words.map(|w| if w.message.is_empty() { w.code } else { w.message }).unwrap_or_default();
    let words: String = words.chars().filter(|c| !c.is_control()).take(300).collect();
    let answer = format!("{url} answers {}{}{words}", status.as_u16(), if words.is_empty() { "" } else { ": " });
    let retry_after = retry_after(headers);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => PullError::new(
            PullErrorKind::Denied,
            format!(
                "{answer}; the repository does not exist, or needs credentials: an imagePullSecret, or `registry_auth` of \
                 reddwarfd.toml"
            ),
        ),
        StatusCode::NOT_FOUND => PullError::new(PullErrorKind::NotFound, answer),
        StatusCode::TOO_MANY_REQUESTS => {
            let again = retry_after.is_none_or(|pause| pause <= PAUSE_MOST);
            let message = match retry_after {
                Some(pause) => format!("{answer} (too many requests; it asks for a pause of {} s)", pause.as_secs()),
                None => format!("{answer} (too many requests)"),
            };
            PullError { kind: PullErrorKind::Unreachable, message, retry_after, again }
        }
        status if status.is_server_error() => {
            let again = retry_after.is_none_or(|pause| pause <= PAUSE_MOST);
            PullError { kind: PullErrorKind::Unreachable, message: answer, retry_after, again }
        }
        _ => PullError::invalid(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_a_date() {
        let now = "Sun, 06 Nov 1994 08:49:37 GMT";
        let asked = |pause: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(pause).unwrap());
            date.map(|date| headers.insert(DATE, HeaderValue::from_str(date).unwrap()));
            retry_after(&headers).map(|pause| pause.as_secs())
        };
        assert_eq!(asked(" 120", None), Some(120));
        assert_eq!(asked("Sun, 06 Nov 1994 09:00:37 GMT", Some(now)), Some(660));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT", Some(now)), Some(0), "past");
        for (pause, date) in [("Sun, 06 Nov 1994 09:00:37 GMT", None), ("soon", Some(now)), ("-1", Some(now))] {
            assert_eq!(asked(pause, date), None, "{pause}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn forms_are_encoded() {
        let form = [("scope", "repository:a/b:pull".to_owned()), ("account", "ü x".to_owned())];
        assert_eq!(encoded(&form), "scope=repository%3Aa%2Fb%3Apull&account=%C3%BC%20x");
    }
}
