//! `volume`: volumes of the host's storage, their snapshots, clones, copies in files.

use crate::command::image::size;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::output::Output;
use crate::output::table::Table;
use crate::wire::{Done, VolumeList, VolumeRequest};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List volumes; those that no PersistentVolume knows are marked `kept`
    #[command(visible_alias = "list")]
    Ls,
    /// Keep a volume's files as they are now
    Snapshot {
        /// The claim, or the volume's name
        claim: String,
        /// The snapshot's name
        name: String,
    },
    /// List snapshots, of one claim or of all
    Snapshots {
        /// The claim, or the volume's name
        claim: Option<String>,
    },
    /// Give a volume the files of its newest snapshot; no pod may use it
    Rollback {
        /// The claim, or the volume's name
        claim: String,
        /// The snapshot's name
        name: String,
    },
    /// Remove a snapshot
    Rm {
        /// The claim, or the volume's name
        claim: String,
        /// The snapshot's name
        name: String,
    },
    /// Make a volume of a snapshot's files, for a claim that is not there yet
    Clone {
        /// The claim, or the volume's name
        claim: String,
        /// The snapshot's name
        name: String,
        /// The new claim's name
        to: String,
    },
    /// Write a snapshot to a new file
    Send {
        /// The claim, or the volume's name
        claim: String,
        /// The snapshot's name
        name: String,
        /// A file on the daemon's host that does not exist yet
        file: PathBuf,
        /// Only what changed since this older snapshot
        #[arg(long, value_name = "SNAPSHOT")]
        since: Option<String>,
    },
    /// Make a volume of a file that `send` wrote, for a claim that is not there yet; an increment goes to the claim's volume,
    /// which must be as it was in the older snapshot
    Receive {
        /// The claim's name
        claim: String,
        /// What the snapshot is to be called
        name: String,
        /// A file on the daemon's host
        file: PathBuf,
    },
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let namespace = context.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let of = |claim: &String, snapshot: &String| VolumeRequest {
        namespace: namespace.clone(),
        volume: claim.clone(),
        snapshot: snapshot.clone(),
        ..VolumeRequest::default()
    };
    let (action, request) = match &arguments.verb {
        Verb::Ls => return show(context, volumes).await,
        Verb::Snapshots { claim } => {
            let claim = claim.clone();
            return show(context, move |context, list| snapshots(context, list, &namespace, claim.as_deref())).await;
        }
        Verb::Snapshot { claim, name } => ("snapshot", of(claim, name)),
        Verb::Rollback { claim, name } => ("rollback", of(claim, name)),
        Verb::Rm { claim, name } => ("snapshot-remove", of(claim, name)),
        Verb::Clone { claim, name, to } => ("clone", VolumeRequest { to: to.clone(), ..of(claim, name) }),
        Verb::Send { claim, name, file, since } => {
            let (path, since) = (files::absolute(file)?, since.clone().unwrap_or_default());
            ("send", VolumeRequest { path, since, ..of(claim, name) })
        }
        Verb::Receive { claim, name, file } => {
            ("receive", VolumeRequest { path: files::absolute(file)?, ..of(claim, name) })
        }
    };
    let done: Done = context.daemon.post(&format!("/reddwarf/v1/volumes/{action}"), &request).await?;
    context.done(&done)?;
    Ok(Exit::Ok)
}

async fn show(context: &Context, render: impl Fn(&Context, &VolumeList) -> String) -> Result<Exit, Error> {
    let list: VolumeList = context.daemon.get("/reddwarf/v1/volumes").await?;
    if !context.structured(&list)? {
        context.print(&render(context, &list))?;
    }
    Ok(Exit::Ok)
}

fn volumes(context: &Context, list: &VolumeList) -> String {
    if context.output == Some(Output::Name) {
        return list.items.iter().map(|v| format!("{}\n", v.name)).collect();
    }
    let mut table = Table::new(["NAME", "CLAIM", "STATE", "USED", "SIZE", "SNAPSHOTS"]);
    for volume in &list.items {
        let most = if volume.quota_bytes == 0 { "-".to_owned() } else { size(volume.quota_bytes) };
        table.push(vec![
            volume.name.as_str().into(),
            volume.claim.as_str().into(),
            if volume.known { "known" } else { "kept" }.into(),
            size(volume.used_bytes).into(),
            most.into(),
            volume.snapshots.len().to_string().into(),
        ]);
    }
    table.render(context.style, context.width)
}

fn snapshots(context: &Context, list: &VolumeList, namespace: &str, claim: Option<&str>) -> String {
    let mut table = Table::new(["VOLUME", "CLAIM", "SNAPSHOT", "AGE"]);
    let wanted = |name: &str, of: &str| claim.is_none_or(|c| c == name || of == format!("{namespace}/{c}"));
    for volume in list.items.iter().filter(|v| wanted(&v.name, &v.claim)) {
        for snapshot in &volume.snapshots {
            table.push(vec![
                volume.name.as_str().into(),
                volume.claim.as_str().into(),
                snapshot.name.as_str().into(),
                reddwarf_objects::print::age(snapshot.created, context.now()).into(),
            ]);
        }
    }
    table.render(context.style, context.width)
}
