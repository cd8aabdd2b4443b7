//! The daemon's own routes under `/reddwarf/v1`; their bodies are in `types.rs`.

mod access;
pub(crate) mod apply;

use crate::discovery::json_response;
use crate::runtime::PodName;
use crate::serve::body::{Arriving, Body, read};
use crate::serve::dispatch::Call;
use crate::types::{
    BackupRequest, FileSet, ImageBuild, ImageImport, ImagePull, RestoreRequest, VolumeAction, VolumeRequest,
};
use crate::wire::error::ApiError;
use hyper::{Request, Response, StatusCode};
use reddwarf_objects::kinds;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Answers a route below `/reddwarf/v1`.
///
/// # Errors
/// As the routes; 404 for one that there is not, 405 for a wrong method.
pub(crate) async fn answer(
    call: &Call,
    route: &[&str],
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let method = request.method().clone();
    let (runtime, directory) = (&call.state.deps.runtime, &call.state.deps.directory);
    let admin = |what: &str| call.principal.require_admin(what);
    match (method.as_str(), route) {
        ("GET", ["status"]) => ok(&directory.status().await?),
        ("POST", ["plan"]) => {
            let files: FileSet = body(call, request).await?;
            ok(&if files.files.is_empty() { runtime.plan().await? } else { directory.plan(files).await? })
        }
        ("GET", ["why", plural, namespace, name]) => {
            let kind = kinds().by_alias(plural).ok_or_else(ApiError::unknown_resource)?;
            let namespace = (*namespace != "-").then_some(*namespace);
            ok(&runtime.why(kind.plural, namespace, name).await?)
        }
        ("POST", ["restart", namespace, pod]) => {
            let pod = PodName { namespace: (*namespace).to_owned(), name: (*pod).to_owned() };
            ok(&runtime.restart(&pod, call.query.get("container")).await?)
        }
        ("POST", ["apply"]) => {
            let files: FileSet = body(call, request).await?;
            apply::answer(call, files).await
        }
        ("POST", ["reload"]) => ok(&directory.reload().await?),
        ("POST", ["reconcile"]) => {
            let allow = call.query.flag("allowPrune");
            if allow {
                admin("lift the mass-deletion guard")?;
            }
            ok(&runtime.reconcile(allow).await?)
        }
        ("POST", ["shutdown"]) => {
            admin("stop the daemon")?;
            ok(&runtime.shutdown(call.query.flag("stopPods")).await?)
        }
        ("POST", ["backup"]) => {
            admin("write a backup")?;
            let wanted: BackupRequest = body(call, request).await?;
            absolute(&wanted.path)?;
            ok(&runtime.backup(&wanted.path).await?)
        }
        ("POST", ["restore"]) => {
            admin("restore a backup")?;
            let wanted: RestoreRequest = body(call, request).await?;
            absolute(&wanted.path)?;
            ok(&runtime.restore(&wanted.path).await?)
        }
        ("GET", ["kubeconfig"]) => access::kubeconfig(call),
        ("POST", ["service-account-keys", "rotate"]) => access::rotate(call).await,
        (_, ["tokens"]) => access::tokens(call, method.as_str(), request).await,
        (_, ["images"]) => images(call, method.as_str(), request).await,
        ("GET", ["images", "builds", id]) => ok(&runtime.image_build_status(id).await?),
        (_, ["images", verb]) => image_verbs(call, method.as_str(), verb, request).await,
        ("GET", ["volumes"]) => ok(&runtime.volumes().await?),
        ("POST", ["volumes", action]) => {
            let action = VolumeAction::parse(action).ok_or_else(ApiError::unknown_resource)?;
            admin("change volumes and their snapshots")?;
            let wanted: VolumeRequest = body(call, request).await?;
            if matches!(action, VolumeAction::Send | VolumeAction::Receive) {
                absolute(&wanted.path)?;
            }
            ok(&runtime.volume_action(action, &wanted).await?)
        }
        (_, ["generations", rest @ ..]) => generations(call, method.as_str(), rest).await,
        (
            _,
            ["status" | "plan" | "apply" | "reload" | "reconcile" | "shutdown" | "backup" | "restore" | "kubeconfig"],
        )
        | (_, ["why", _, _, _] | ["restart", _, _] | ["volumes", ..]) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::unknown_resource()),
    }
}

async fn images(call: &Call, method: &str, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
    let runtime = &call.state.deps.runtime;
    match method {
        "GET" => ok(&runtime.images().await?),
        "POST" => {
            call.principal.require_admin("import an image from a path of the host")?;
            let wanted: ImageImport = body(call, request).await?;
            absolute(&wanted.source)?;
            ok(&runtime.image_import(&wanted).await?)
        }
        "DELETE" => {
            let name = call.query.get("name").ok_or_else(|| ApiError::bad_request("?name= is required"))?;
            ok(&runtime.image_remove(name).await?)
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn image_verbs(
    call: &Call,
    method: &str,
    verb: &str,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let runtime = &call.state.deps.runtime;
    match (method, verb) {
        ("POST", "pull") => {
            let wanted: ImagePull = body(call, request).await?;
            ok(&runtime.image_pull(&wanted).await?)
        }
        ("GET", "pulls") => ok(&runtime.image_pulls().await?),
        ("POST", "prune") => {
            call.principal.require_admin("remove unused images")?;
            ok(&runtime.image_prune(call.query.flag("all")).await?)
        }
        ("POST", "build") => {
            call.principal.require_admin("make an image of files of the host")?;
            let wanted: ImageBuild = body(call, request).await?;
            wanted.rootfs.as_deref().map_or(Ok(()), absolute)?;
            wanted.files.iter().try_for_each(|file| absolute(&file.source))?;
            ok(&runtime.image_build(&wanted).await?)
        }
        (_, "pull" | "pulls" | "prune" | "build") => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::unknown_resource()),
    }
}

async fn generations(call: &Call, method: &str, rest: &[&str]) -> Result<Response<Body>, ApiError> {
    let directory = &call.state.deps.directory;
    let number = |text: &str| {
        text.parse::<u64>().map_err(|_| ApiError::bad_request(format!("\"{text}\" is no generation's number")))
    };
    match (method, rest) {
        ("GET", []) => ok(&directory.generations().await?),
        ("GET", [n]) => ok(&directory.generation(number(n)?).await?),
        ("GET", [a, "diff", b]) => ok(&directory.generation_diff(number(a)?, number(b)?).await?),
        ("POST", [n, "rollback"]) => {
            call.principal.require_admin("roll the directory back")?;
            ok(&directory.rollback(number(n)?, call.query.flag("write")).await?)
        }
        (_, [] | [_] | [_, "diff", _] | [_, "rollback"]) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::unknown_resource()),
    }
}

/// A 200 with a report.
pub(crate) fn ok<T: Serialize>(report: &T) -> Result<Response<Body>, ApiError> {
    let value = serde_json::to_value(report).map_err(ApiError::internal)?;
    Ok(json_response(StatusCode::OK, &value))
}

/// The request's JSON body; an empty one is the type's default.
async fn body<T: DeserializeOwned + Default>(call: &Call, request: Request<Arriving>) -> Result<T, ApiError> {
    let limits = &call.state.settings.limits;
    let bytes = read(request.into_body(), limits.body_bytes, limits.body_timeout).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|e| ApiError::bad_request(format!("the body can't be read: {e}")))
}

/// Paths in requests are the daemon's, so relative ones have no meaning.
fn absolute(path: &str) -> Result<(), ApiError> {
    if Path::new(path).is_absolute() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("\"{path}\" must be an absolute path on the daemon's host")))
}
