//! Reviews: questions about who somebody is and what they may do (authentication.k8s.io, authorization.k8s.io).

use crate::access::attributes::{Attributes, ResourceTarget, Target};
use crate::access::authorise::{Authoriser, Decision};
use crate::access::principal::Principal;
use crate::access::rbac::escalation::held;
use crate::access::rbac::rule::Rule;
use crate::serve::body::{Arriving, Body, read};
use crate::serve::dispatch::Call;
use crate::wire::answer::respond;
use crate::wire::decode::{Decoded, Reading, decode_body};
use crate::wire::error::ApiError;
use crate::wire::request::ResourceRequest;
use hyper::{Method, Request, Response, StatusCode};
use reddwarf_objects::{FieldError, FieldPath, Kind, Object};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Is this kind a review?
pub(crate) fn is_review(kind: &Kind) -> bool {
    matches!(kind.group, "authentication.k8s.io" | "authorization.k8s.io") && kind.is_virtual
}

/// Answers a POST of a review.
///
/// # Errors
/// 400, 405, 422.
pub(crate) async fn answer(
    call: &Call,
    resource: &ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let kind = resource.kind;
    if request.method() != Method::POST || resource.name.is_some() || resource.namespace.is_some() != kind.namespaced {
        return Err(ApiError::method_not_allowed());
    }
    call.accept.form()?;
    let mut object = body(call, kind, request).await?;
    let status = match kind.kind {
        "SelfSubjectReview" => {
            object.set_creation_timestamp(call.state.deps.access.now());
            json!({"userInfo": user_info(&call.principal)})
        }
        "TokenReview" => token(call, &object)?,
        "SelfSubjectAccessReview" => decide(call, kind, &call.principal, &object)?,
        "SelfSubjectRulesReview" => rules(call, &object)?,
        "SubjectAccessReview" => decide(call, kind, &subject(kind, &object)?, &object)?,
        "LocalSubjectAccessReview" => {
            let namespace = resource.namespace.as_deref();
            if object.get_str("/spec/resourceAttributes/namespace") != namespace {
                let why = format!("must match metadata.namespace: {}", namespace.unwrap_or_default());
                return Err(invalid(kind, "spec.resourceAttributes.namespace", Value::Null, &why));
            }
            object.set_namespace(namespace);
            decide(call, kind, &subject(kind, &object)?, &object)?
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    object.set_status(Some(status));
    Ok(respond(call, kind, StatusCode::CREATED, &object))
}

/// The object of `kind` in a request's body.
pub(crate) async fn body(call: &Call, kind: &Kind, request: Request<Arriving>) -> Result<Object, ApiError> {
    let limits = &call.state.settings.limits;
    let headers = request.headers().clone();
    let bytes = read(request.into_body(), limits.body_bytes, limits.body_timeout).await?;
    let strictness = call.query.get("fieldValidation");
    let reading = Reading { strictness, limits: &call.state.settings.manifest_limits };
    let Decoded { object, .. } = decode_body(kind, &headers, &bytes, &reading)?;
    Ok(object)
}

/// `UserInfo`.
pub(crate) fn user_info(who: &Principal) -> Value {
    json!(who.info())
}

fn invalid(kind: &Kind, field: &str, value: Value, why: &str) -> ApiError {
    let path = field.split('.').fold(FieldPath::default(), |path, part| path.child(part));
    ApiError::invalid_options(kind.kind, kind.group, &[FieldError::invalid(&path, value, why)])
}

/// `TokenReview.status`.
fn token(call: &Call, review: &Object) -> Result<Value, ApiError> {
    let Some(token) = review.get_str("/spec/token").filter(|token| !token.is_empty()) else {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    };
    let access = &call.state.deps.access;
    let audiences = texts(review.get("/spec/audiences"));
    Ok(match access.token_principal(token, &audiences) {
        Ok((who, audiences)) => {
            let mut status = json!({"authenticated": true, "user": user_info(&who)});
            if !audiences.is_empty() {
                status["audiences"] = json!(audiences);
            }
            status
        }
        Err(why) => json!({"user": {}, "error": why}),
    })
}

/// Of whom a SubjectAccessReview asks.
fn subject(kind: &Kind, review: &Object) -> Result<Principal, ApiError> {
    let user = review.get_str("/spec/user").unwrap_or_default();
    let groups = texts(review.get("/spec/groups"));
    if user.is_empty() && groups.is_empty() {
        return Err(invalid(kind, "spec.user", json!(""), "at least one of user or group must be specified"));
    }
    // Just these groups: who asks knows which there are.
    let mut who = Principal::as_given(user, groups);
    who.uid = review.get_str("/spec/uid").unwrap_or_default().to_owned();
    let extra = review.get("/spec/extra").and_then(Value::as_object);
    who.extra =
        extra.into_iter().flatten().map(|(key, values)| (key.clone(), texts(Some(values)))).collect::<BTreeMap<_, _>>();
    Ok(who)
}

/// `status` of the reviews of an access.
fn decide(call: &Call, kind: &Kind, who: &Principal, review: &Object) -> Result<Value, ApiError> {
    let text = |pointer: &str| review.get_str(pointer).unwrap_or_default().to_owned();
    let resource = review.get("/spec/resourceAttributes").is_some_and(Value::is_object);
    let path = review.get("/spec/nonResourceAttributes").is_some_and(Value::is_object);
    let what = match (resource, path) {
        (true, false) => {
            let of = |field: &str| text(&format!("/spec/resourceAttributes/{field}"));
            let target = ResourceTarget {
                group: of("group"),
                version: of("version"),
                resource: of("resource"),
                subresource: of("subresource"),
                namespace: of("namespace"),
                name: of("name"),
            };
            Attributes::resource(of("verb"), target)
        }
        (false, true) => Attributes {
            verb: text("/spec/nonResourceAttributes/verb").into(),
            target: Target::Path(text("/spec/nonResourceAttributes/path")),
        },
        (true, true) => {
            let why = "cannot be specified in combination with resourceAttributes";
            return Err(invalid(kind, "spec.nonResourceAttributes", Value::Null, why));
        }
        (false, false) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(invalid(kind, "spec.resourceAttributes", Value::Null, why));
        }
    };
    Ok(match call.state.deps.access.authoriser.decide(who, &what) {
        Decision::Allow(reason) if reason.is_empty() => json!({"allowed": true}),
        Decision::Allow(reason) => json!({"allowed": true, "reason": reason}),
        Decision::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
        Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
    })
}

/// `SelfSubjectRulesReview.status`.
fn rules(call: &Call, review: &Object) -> Result<Value, ApiError> {
    let Some(namespace) = review.get_str("/spec/namespace").filter(|namespace| !namespace.is_empty()) else {
        return Err(ApiError::bad_request("no namespace on request"));
    };
    let access = &call.state.deps.access;
    let mut all = held(&access.rbac, &call.principal, namespace)?;
    all.sort_by_key(|rule| !(rule.verbs == ["*"] && rule.resources == ["*"]));
    let mut seen: Vec<&Rule> = Vec::new();
    for rule in &all {
        if !seen.contains(&rule) {
            seen.push(rule);
        }
    }
    let part = |rule: &Rule, fields: &[&str]| {
        let mut value = serde_json::to_value(rule).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.retain(|key, _| key == "verbs" || fields.contains(&key.as_str()));
        }
        value
    };
    let of_resources = seen.iter().filter(|r| !r.resources.is_empty());
    let of_paths = seen.iter().filter(|r| !r.urls.is_empty());
    Ok(json!({
        "resourceRules": of_resources.map(|r| part(r, &["apiGroups", "resources", "resourceNames"])).collect::<Vec<_>>(),
        "nonResourceRules": of_paths.map(|r| part(r, &["nonResourceURLs"])).collect::<Vec<_>>(),
        "incomplete": false,
    }))
}

fn texts(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
