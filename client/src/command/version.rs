//! `version`: of this program and of the daemon. Fails while no daemon answers, so scripts can wait with it.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Do not ask the daemon
    #[arg(long)]
    client: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let own = env!("CARGO_PKG_VERSION");
    if arguments.client {
        if !context.structured(&json!({"client": own}))? {
            context.print(&format!("reddwarfctl {own}\n"))?;
        }
        return Ok(Exit::Ok);
    }
    let server: Value = context.daemon.get("/version").await?;
    if context.structured(&json!({"client": own, "server": server}))? {
        return Ok(Exit::Ok);
    }
    let text = |field: &str| server.get(field).and_then(Value::as_str).unwrap_or_default();
    let daemon = if text("reddwarfVersion").is_empty() { text("gitVersion") } else { text("reddwarfVersion") };
    context.print(&format!("reddwarfctl {own}\nreddwarfd   {daemon}\n"))?;
    Ok(Exit::Ok)
}
