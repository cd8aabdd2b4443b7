//! The verbs, a file each: its arguments and what it does.

pub(crate) mod apply;
pub(crate) mod attach;
pub(crate) mod backup;
pub(crate) mod completion;
pub(crate) mod delete;
pub(crate) mod describe;
mod describe_pod;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod generations;
pub(crate) mod get;
pub(crate) mod image;
mod image_build;
pub(crate) mod kubeconfig;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod plan;
pub(crate) mod port_forward;
pub(crate) mod reconcile;
pub(crate) mod reload;
pub(crate) mod restart;
pub(crate) mod restore;
pub(crate) mod rollback;
mod session;
pub(crate) mod shutdown;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod volume;
pub(crate) mod wait;
pub(crate) mod why;
mod zar;

use crate::cli::Command;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

/// Does what the command line asks for.
pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Status(a) => status::run(context, &a).await,
        Command::Validate(a) => validate::run(context, &a),
        Command::Plan(a) => plan::run(context, &a).await,
        Command::Get(a) => get::run(context, &a).await,
        Command::Describe(a) => describe::run(context, &a).await,
        Command::Apply(a) => apply::run(context, &a).await,
        Command::Delete(a) => delete::run(context, &a).await,
        Command::Logs(a) => logs::run(context, &a).await,
        Command::Exec(a) => exec::run(context, &a).await,
        Command::Attach(a) => attach::run(context, &a).await,
        Command::PortForward(a) => port_forward::run(context, &a).await,
        Command::Events(a) => events::run(context, &a).await,
        Command::Why(a) => why::run(context, &a).await,
        Command::Restart(a) => restart::run(context, &a).await,
        Command::Generations(a) => generations::run(context, &a).await,
        Command::Diff(a) => diff::run(context, &a).await,
        Command::Rollback(a) => rollback::run(context, &a).await,
        Command::Image(a) => image::run(context, &a).await,
        Command::Volume(a) => volume::run(context, &a).await,
        Command::Kubeconfig(a) => kubeconfig::run(context, &a).await,
        Command::Token(a) => token::run(context, &a).await,
        Command::Top(a) => top::run(context, &a).await,
        Command::Reload(a) => reload::run(context, &a).await,
        Command::Reconcile(a) => reconcile::run(context, &a).await,
        Command::Shutdown(a) => shutdown::run(context, &a).await,
        Command::Backup(a) => backup::run(context, &a).await,
        Command::Restore(a) => restore::run(context, &a).await,
        Command::Wait(a) => wait::run(context, &a).await,
        Command::Completion(a) => completion::run(context, &a),
        Command::Version(a) => version::run(context, &a).await,
        Command::Man(a) => man::run(&a),
    }
}
