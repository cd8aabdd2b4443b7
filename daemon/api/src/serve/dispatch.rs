//! One request from arrival to answer: limits, span, panic and time-out around the route that handles it.

use crate::access::attributes::{Attributes, Target};
use crate::access::audit::{Done, Notes, Trace};
use crate::access::authenticate::{Origin, authenticate};
use crate::access::authorise::{Authorised, authorise};
use crate::access::principal::Principal;
use crate::access::service_account;
use crate::openapi::{self, Documents};
use crate::serve::body::{Arriving, Body, full};
use crate::serve::counters::ApiCounters;
use crate::serve::health;
use crate::serve::server::{ApiDeps, ApiSettings};
use crate::wire::accept::Accept;
use crate::wire::answer::respond_error;
use crate::wire::error::ApiError;
use crate::wire::frames::FrameCache;
use crate::wire::request::{Query, ResourceRequest, legacy_watch, segments};
use crate::wire::rows::RowCache;
use crate::{daemon, discovery, verbs};
use futures_util::FutureExt;
use hyper::body::Body as _;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing::field::Empty;

/// What all requests share.
pub(crate) struct State {
    pub(crate) settings: ApiSettings,
    pub(crate) deps: ApiDeps,
    pub(crate) counters: ApiCounters,
    /// Watch events written before.
    pub(crate) frames: FrameCache,
    /// Table rows printed before.
    pub(crate) rows: RowCache,
    /// OpenAPI documents made before.
    pub(crate) documents: Documents,
    /// Shutdown has begun: streams end, connections finish their request.
    pub(crate) stop: CancellationToken,
    /// Shutdown's time is up.
    pub(crate) abort: CancellationToken,
    principals: Mutex<HashMap<String, Arc<Share>>>,
}

/// One principal's share of the daemon.
pub(crate) struct Share {
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl State {
    pub(crate) fn new(settings: ApiSettings, deps: ApiDeps) -> Self {
        Self {
            documents: Documents::new(deps.registry.now()),
            settings,
            deps,
            counters: ApiCounters::default(),
            frames: FrameCache::default(),
            rows: RowCache::default(),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            principals: Mutex::default(),
        }
    }

    fn share(&self, principal: &Principal) -> Arc<Share> {
        let limits = &self.settings.limits;
        let mut shares = self.principals.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Share {
            requests: Arc::new(Semaphore::new(limits.requests)),
            streams: Arc::new(Semaphore::new(limits.streams)),
        };
        if shares.len() >= SHARES && !shares.contains_key(&principal.name) {
            // Only those count who have something running.
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        shares.entry(principal.name.clone()).or_insert_with(|| Arc::new(new())).clone()
    }
}

/// Principals that are remembered although they do nothing.
const SHARES: usize = 1024;

/// A request's surroundings. There is none without an [`Authorised`], so no handler can be reached without.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) state: Arc<State>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) query: Arc<Query>,
    /// The forms of answers that the client takes.
    pub(crate) accept: Arc<Accept>,
    /// Cuts the connection, for streams whose reader takes nothing.
    pub(crate) cut: CancellationToken,
    /// What is noted of the request for the audit log.
    pub(crate) notes: Notes,
    authorised: Arc<Authorised>,
    share: Arc<Share>,
}

impl Call {
    fn new(state: Arc<State>, authorised: Authorised, asked: Asked, cut: CancellationToken, share: Arc<Share>) -> Self {
        let Asked { query, accept, notes } = asked;
        let principal = authorised.principal().clone();
        Self { state, principal, query, accept, cut, notes, authorised: Arc::new(authorised), share }
    }

    /// The verb that was authorised.
    pub(crate) fn verb(&self) -> &str {
        &self.authorised.attributes().verb
    }

    /// Room for one more stream of this principal, held as long as the stream.
    ///
    /// # Errors
    /// 429.
    pub(crate) fn stream_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.share.streams.clone().try_acquire_owned().map_err(|_| {
            ApiError::too_many(format!(
                "{} has {} watches, logs and execs open; close some",
                self.principal.name, self.state.settings.limits.streams
            ))
        })
    }
}

/// Answers one request: authenticate, authorise, then the route; then the audit log. What writes is brought to its end,
/// and into that log, even when its client goes away.
pub(crate) async fn handle(
    state: Arc<State>,
    origin: Arc<Origin>,
    cut: CancellationToken,
    request: Request<Arriving>,
) -> Response<Body> {
    if request.method() == Method::GET {
        // In a place of its own, given back with the answer: a watch goes on for hours in the task of its request.
        return Box::pin(answer(state, origin, cut, request)).await;
    }
    Lasting::new(answer(state, origin, cut, request)).await
}

async fn answer(
    state: Arc<State>,
    origin: Arc<Origin>,
    cut: CancellationToken,
    request: Request<Arriving>,
) -> Response<Body> {
    let (started, received) = (Instant::now(), state.deps.access.now());
    // It tells requests apart and guards nothing: the kernel need not be asked for it.
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_le_bytes()).into_uuid().to_string();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let user_agent = request.headers().get(USER_AGENT).cloned();
    let (segments, query) = (segments(uri.path()), Query::parse(uri.query()));
    let (verb, resource) = label(&method, &segments, &query);
    let span = tracing::info_span!("request", id, user = Empty, pid = Empty, verb, path = uri.path());
    let accept = Arc::new(Accept::parse(request.headers(), query.as_ref().unwrap_or(&Query::default())));
    let mut trace = Trace::default();
    let asked = query.map(|query| Asked { query: Arc::new(query), accept: accept.clone(), notes: trace.notes.clone() });
    let asked = (segments, asked);
    let running = let_in(&state, &origin, cut, request, asked, &mut trace).instrument(span.clone());
    let mut response = running.await.unwrap_or_else(|e| respond_error(&accept, &e));
    let code = response.status().as_u16();
    state.counters.request(verb, resource, code, started.elapsed());
    let written = response.extensions_mut().remove::<WrittenName>();
    if method == Method::HEAD {
        response = without_body(response);
    }
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    if let Ok(mut id) = HeaderValue::from_str(&id) {
        // No two are the same: HTTP/2 need not keep them in its table of headers, where they would push out those that are.
        id.set_sensitive(true);
        headers.insert("audit-id", id);
    }
    if let Some(audit) = &state.deps.access.audit {
        let done = Done {
            id: &id,
            trace: &trace,
            origin: &origin,
            method: method.as_str(),
            uri: uri.path_and_query().map_or(uri.path(), |p| p.as_str()),
            user_agent: user_agent.as_ref().and_then(|agent| agent.to_str().ok()).unwrap_or_default(),
            received,
            now: state.deps.access.now(),
            code,
            name: written.as_ref().map(|name| name.0.as_str()),
        };
        audit.note(done).await;
    }
    let _entered = span.enter();
    let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match code {
        500.. => tracing::warn!(status = code, latency_ms, "answered"),
        _ if method != Method::GET => tracing::info!(status = code, latency_ms, "answered"),
        _ => tracing::debug!(status = code, latency_ms, "answered"),
    }
    response
}

/// The answer to HEAD: what GET would say, and nothing of it. Over HTTP/2 a body here breaks the stream.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    Response::from_parts(parts, full(""))
}

/// In an answer's extensions: the name of the object that was written, for the audit log.
#[derive(Clone, Debug)]
pub(crate) struct WrittenName(pub(crate) String);

/// What a request says about its answer.
struct Asked {
    query: Arc<Query>,
    accept: Arc<Accept>,
    notes: Notes,
}

/// The way to a handler: there is no other.
async fn let_in(
    state: &Arc<State>,
    origin: &Origin,
    cut: CancellationToken,
    request: Request<Arriving>,
    (segments, asked): (Result<Vec<String>, ApiError>, Result<Asked, ApiError>),
    trace: &mut Trace,
) -> Result<Response<Body>, ApiError> {
    let who = authenticate(&state.deps.access, origin, request.headers(), segments.as_deref().unwrap_or_default())?;
    let span = tracing::Span::current();
    span.record("user", who.principal().name.as_str());
    if let Some(pid) = who.principal().pid {
        span.record("pid", pid);
    }
    trace.principal = Some(who.principal().clone());
    trace.impersonator = who.impersonator().map(str::to_owned);
    let mut asked = asked?;
    let mut segments = segments?;
    if let Some((path, query)) = legacy_watch(&segments, &asked.query) {
        (segments, asked.query) = (path, Arc::new(query));
    }
    let what = Arc::new(Attributes::of(request.method(), &segments, &asked.query)?);
    trace.attributes = Some(what.clone());
    let limits = &state.settings.limits;
    let limit = match &what.target {
        Target::Path(path) if path.starts_with("/reddwarf/") => limits.long_timeout,
        _ => limits.request_timeout,
    };
    let authorised = authorise(&state.deps.access.authoriser, who, what)?;
    authorised.reason().clone_into(&mut trace.reason);
    trace.allowed = true;
    let share = state.share(authorised.principal());
    let call = Call::new(state.clone(), authorised, asked, cut, share);
    run(call, segments, request, limit).await
}

/// Waits for a place, then runs the route: a panic becomes a 500, and a write that takes too long is finished although its
/// client was told so. Reads end with their client.
async fn run(
    call: Call,
    segments: Vec<String>,
    request: Request<Arriving>,
    limit: Duration,
) -> Result<Response<Body>, ApiError> {
    let place = timeout(limit, call.share.requests.clone().acquire_owned());
    let place = place.await.map_err(|_| ApiError::too_many("too many requests are running; try again"))?;
    let reads = request.method() == Method::GET;
    let state = call.state.clone();
    let work = async move {
        let _place = place;
        let _running = state.counters.running();
        route(call, segments, request).await
    };
    let work = AssertUnwindSafe(work.in_current_span()).catch_unwind();
    let done = if reads { timeout(limit, work).await } else { timeout(limit, Lasting::new(work)).await };
    match done {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            tracing::error!("a request handler panicked");
            Err(ApiError::internal("the request hit a defect of the daemon; the daemon goes on, please report it"))
        }
        Err(_) => {
            let message = format!("the request did not finish within {limit:?}; a write may still be carried out");
            Err(ApiError::new(504, "Timeout", message))
        }
    }
}

/// Work that is brought to its end, by a task of its own, when it is dropped before.
struct Lasting<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Lasting<T> {
    fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<T: Send + 'static> Future for Lasting<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Work that panics is not polled again.
        let Some(mut work) = self.0.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Lasting<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn(work));
        }
    }
}

/// The verb and the resource for the log and the counters: of few, whatever clients send.
fn label(
    method: &Method,
    segments: &Result<Vec<String>, ApiError>,
    query: &Result<Query, ApiError>,
) -> (&'static str, &'static str) {
    let Ok(parts) = segments else { return ("other", "") };
    let resource = match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["api", version, _, ..] => ResourceRequest::parse("", version, &parts[2..]),
        ["apis", group, version, _, ..] => ResourceRequest::parse(group, version, &parts[3..]),
        ["reddwarf", ..] => return ("daemon", ""),
        _ => return ("meta", ""),
    };
    let Ok(resource) = resource else { return ("other", "") };
    let verb = match resource.subresource.as_deref() {
        Some("exec") => "exec",
        Some("attach") => "attach",
        Some("portforward") => "portforward",
        Some("proxy") => "proxy",
        Some("log") => "log",
        _ => {
            let watch = query.as_ref().is_ok_and(|q| q.flag("watch"));
            resource.verb(method, watch)
        }
    };
    (verb, resource.kind.plural)
}

async fn route(call: Call, parts: Vec<String>, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["api"] | ["apis"] | ["api", _] | ["apis", _] | ["apis", _, _] => {
            get_only(&request)?;
            discovery::answer(&call, &names, request.headers())
        }
        ["api", version, ..] if !discovery::serves("", version) => Ok(discovery::not_found()),
        ["apis", group, version, ..] if !discovery::serves(group, version) => Ok(discovery::not_found()),
        ["api", version, ..] => {
            let resource = ResourceRequest::parse("", version, &parts[2..])?;
            verbs::answer(call, resource, request).await
        }
        ["apis", group, version, ..] => {
            let resource = ResourceRequest::parse(group, version, &parts[3..])?;
            verbs::answer(call, resource, request).await
        }
        ["reddwarf", "v1", rest @ ..] => Box::pin(daemon::answer(&call, rest, request)).await,
        [] => {
            get_only(&request)?;
            Ok(discovery::index(&call))
        }
        ["openapi", rest @ ..] => {
            get_only(&request)?;
            Box::pin(openapi::answer(&call, rest, request.headers())).await
        }
        ["openid", "v1", "jwks"] => {
            get_only(&request)?;
            Ok(service_account::request::key_set(&call))
        }
        [".well-known", "openid-configuration"] => {
            get_only(&request)?;
            Ok(service_account::request::configuration(&call))
        }
        ["version"] => {
            get_only(&request)?;
            Ok(discovery::version(&call))
        }
        ["healthz" | "livez" | "readyz", ..] => {
            if request.method() != Method::HEAD {
                get_only(&request)?;
            }
            health::answer(&call, &names)
        }
        ["metrics"] => {
            get_only(&request)?;
            health::metrics(&call)
        }
        _ => Ok(discovery::not_found()),
    }
}

fn get_only(request: &Request<Arriving>) -> Result<(), ApiError> {
    if request.method() == Method::GET { Ok(()) } else { Err(ApiError::method_not_allowed()) }
}
