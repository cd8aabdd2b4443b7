//! One hook.

use super::exec::{self, Ended};
use super::http;
use super::shot::Target;
use reddwarf_host::spec::{Hook, HttpGet};
use reddwarf_host::{BootTime, Clock, Host};

/// Carries a hook out; `due` is since when it should be: what of a wait passed before a restart of the daemon counts.
///
/// # Errors
/// Why it failed.
pub(super) async fn carry_out(
    host: &dyn Host,
    clock: &dyn Clock,
    hook: &Hook,
    target: &Target,
    due: BootTime,
) -> Result<(), String> {
    match hook {
        Hook::Exec { argv } => match exec::command(host, &target.sandbox, &target.container, argv, None).await {
            Ended::Exit(0, _) => Ok(()),
            Ended::Exit(code, output) => Err(format!("command '{}' exited with {code}: {output}", argv.join(" "))),
            Ended::Flood(output) => Err(format!("command '{}' printed too much: {output}", argv.join(" "))),
            Ended::Late => Err(format!("command '{}' timed out", argv.join(" "))),
            Ended::NotRun(error) => Err(error.chain()),
        },
        // Any answer will do: only that there is none is a failure.
        Hook::HttpGet(get) => {
            let url = http::url(get, target.address)?;
            match http::get(host, get, url.clone()).await {
                Err(error) if get.tls && error.ends_with(http::PLAIN) => {
                    let get = HttpGet { tls: false, ..get.clone() };
                    let url = http::url(&get, target.address)?;
                    http::get(host, &get, url).await.map(drop)
                }
                other => other.map(drop),
            }
        }
        Hook::Sleep { time } => {
            let left = time.saturating_sub(clock.boot().since(due));
            tokio::time::sleep(left).await;
            Ok(())
        }
        Hook::Unsupported { kind } => Err(format!("invalid handler: {kind} can't be a lifecycle hook")),
    }
}
