//! TokenRequest: `POST serviceaccounts/NAME/token`; and what verifiers of tokens ask for (OpenID Connect discovery).

use super::claims::Named;
use super::{Bound, LONGEST, ServiceAccountTokens, Wanted};
use crate::access::reviews;
use crate::serve::body::{Arriving, Body};
use crate::serve::dispatch::Call;
use crate::wire::answer::{respond, respond_value};
use crate::wire::error::{ApiError, key_of};
use crate::wire::request::ResourceRequest;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use reddwarf_objects::kind::bodies;
use reddwarf_objects::object::timestamp;
use reddwarf_objects::{FieldError, FieldPath, Object};
use serde_json::{Value, json};

/// Least life of a token, in seconds (as the reference).
const LEAST: i64 = 600;
/// Life of a token that says nothing.
const USUAL: i64 = 3600;

/// Answers a TokenRequest.
///
/// # Errors
/// 404 for the ServiceAccount and what the token is to be bound to, 400 and 422 for bad requests, 409 for another uid.
pub(crate) async fn answer(
    call: &Call,
    resource: &ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let (Some(namespace), Some(name)) = (resource.namespace.as_deref(), resource.name.as_deref()) else {
        return Err(ApiError::unknown_resource());
    };
    if request.method() != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    call.accept.form()?;
    let kind = bodies().by_gvk("authentication.k8s.io/v1", "TokenRequest").ok_or_else(ApiError::unknown_resource)?;
    let mut object = reviews::body(call, kind, request).await?;
    if !object.name().is_empty() && object.name() != name {
        let text = format!("the name of the object ({}) does not match the name on the URL ({name})", object.name());
        return Err(ApiError::bad_request(text));
    }
    let account = call.state.deps.registry.get(&key_of(resource.kind, Some(namespace), name))?;
    let seconds = object.get("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(USUAL);
    check_life(seconds)?;
    let audiences = object.get("/spec/audiences").and_then(Value::as_array);
    let audiences = audiences.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let tokens = &call.state.deps.access.service_accounts;
    let wanted = Wanted {
        namespace,
        account: named(&account),
        audiences,
        seconds,
        bound: bound(tokens, namespace, &account, &object)?,
    };
    if wanted.audiences.is_empty() {
        object.set("/spec/audiences", json!([tokens.issuer()]));
    }
    object.set("/spec/expirationSeconds", seconds.min(LONGEST));
    let (token, end) = tokens.issue(wanted).map_err(ApiError::internal)?;
    object.set_name(name);
    object.set_namespace(Some(namespace));
    object.set_creation_timestamp(call.state.deps.access.now());
    object.set_status(Some(json!({"token": token, "expirationTimestamp": timestamp(end)})));
    Ok(respond(call, kind, StatusCode::CREATED, &object))
}

fn check_life(seconds: i64) -> Result<(), ApiError> {
    let why = match seconds {
        ..LEAST => "may not specify a duration less than 10 minutes",
        LEAST..=0x1_0000_0000 => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let path = FieldPath::of("spec").child("expirationSeconds");
    Err(ApiError::invalid_options("TokenRequest", "authentication.k8s.io", &[FieldError::invalid(&path, seconds, why)]))
}

pub(crate) fn named(object: &Object) -> Named {
    Named { name: object.name().to_owned(), uid: object.uid().unwrap_or_default().to_owned() }
}

/// What the token is to end with.
fn bound(
    tokens: &ServiceAccountTokens,
    namespace: &str,
    account: &Object,
    request: &Object,
) -> Result<Bound, ApiError> {
    let of = |field: &str| request.get_str(&format!("/spec/boundObjectRef/{field}")).unwrap_or_default();
    if request.get("/spec/boundObjectRef").is_none_or(Value::is_null) {
        return Ok(Bound::default());
    }
    let (kind, version, name, uid) = (of("kind"), of("apiVersion"), of("name"), of("uid"));
    let (resource, home) = match (kind, version) {
        ("Pod", "v1") => ("pods", Some(namespace)),
        ("Secret", "v1") => ("secrets", Some(namespace)),
        ("Node", "v1") => ("nodes", None),
        _ => return Err(ApiError::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}"))),
    };
    let not_found = || {
        ApiError::new(404, "NotFound", format!("{resource} \"{name}\" not found"))
            .with_details(json!({"name": name, "kind": resource}))
    };
    let object = tokens.find(resource, home, name)?.ok_or_else(not_found)?;
    if !uid.is_empty() && object.uid() != Some(uid) {
        let text = format!(
            "Operation cannot be fulfilled on {resource} \"{name}\": the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::new(409, "Conflict", text).with_details(json!({"name": name, "kind": resource})));
    }
    Ok(match resource {
        "pods" => {
            let own = object.get_str("/spec/serviceAccountName").filter(|name| !name.is_empty()).unwrap_or("default");
            if own != account.name() {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                    account.name()
                )));
            }
            of_pod(tokens, &object)?
        }
        "secrets" => Bound { secret: Some(named(&object)), ..Bound::default() },
        _ => Bound { node: Some(named(&object)), ..Bound::default() },
    })
}

/// A pod, and the node that it is on.
pub(crate) fn of_pod(tokens: &ServiceAccountTokens, pod: &Object) -> Result<Bound, ApiError> {
    let node = match pod.get_str("/spec/nodeName").filter(|name| !name.is_empty()) {
        None => None,
        Some(node) => tokens.find("nodes", None, node)?.as_ref().map(named),
    };
    Ok(Bound { pod: Some(named(pod)), node, secret: None })
}

/// `/openid/v1/jwks`.
pub(crate) fn key_set(call: &Call) -> Response<Body> {
    let mut response = respond_value(call, StatusCode::OK, &call.state.deps.access.service_accounts.key_set());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    response
}

/// `/.well-known/openid-configuration`.
pub(crate) fn configuration(call: &Call) -> Response<Body> {
    let access = &call.state.deps.access;
    let issuer = access.service_accounts.issuer();
    let url = access.url().unwrap_or_else(|| issuer.to_owned());
    let body = json!({
        "issuer": issuer,
        "jwks_uri": format!("{url}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    respond_value(call, StatusCode::OK, &body)
}
