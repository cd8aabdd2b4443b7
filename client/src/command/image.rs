//! `image`: pull, build, import, list and remove images of the host.

use crate::context::Context;
use crate::daemon::with_query;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::output::Output;
use crate::output::table::Table;
use crate::wire::{Done, Image, ImageImport, ImageList, ImagePull, ImagePullList, ImagePullStatus, ImagesPruned};
use clap::Subcommand;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch an image from its registry and wait until it is here
    Pull {
        /// The image as pods name it: `nginx:1.29`, `registry.lan:5000/team/app@sha256:…`
        image: String,
    },
    /// Remove images that no container was started from
    Prune {
        /// Also those that were imported by hand
        #[arg(long)]
        all: bool,
    },
    /// Import a root file system, an OCI layout or what `docker save` wrote, as a directory or a tar
    Import {
        /// A path on the daemon's host
        path: PathBuf,
        /// The name that pods use: `local/web:1`
        #[arg(long, value_name = "NAME")]
        name: String,
    },
    /// Make a golden image of a root file system, or of a recipe: a base, files, commands run in a zone
    Build(super::image_build::Arguments),
    /// Archives of golden images (.zar): make, verify; `image import` takes them
    #[command(subcommand)]
    Zar(super::zar::Verb),
    /// List images
    #[command(visible_alias = "list")]
    Ls,
    /// Remove a name, and the image with its last name
    #[command(visible_alias = "remove")]
    Rm {
        /// The name or id
        name: String,
    },
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    match &arguments.verb {
        Verb::Import { path, name } => {
            let request = ImageImport { source: files::absolute(path)?, name: name.clone() };
            let image: Image = context.daemon.post("/reddwarf/v1/images", &request).await?;
            if !context.structured(&image)? {
                context.say(&format!("{name} is {} ({})", image.id, size(image.size_bytes)))?;
            }
        }
        Verb::Build(arguments) => return super::image_build::run(context, arguments).await,
        Verb::Zar(verb) => return super::zar::run(context, verb),
        Verb::Pull { image } => return pull(context, image).await,
        Verb::Prune { all } => {
            let path = if *all { "/reddwarf/v1/images/prune?all=true" } else { "/reddwarf/v1/images/prune" };
            let pruned: ImagesPruned = context.daemon.post_empty(path).await?;
            if !context.structured(&pruned)? {
                for name in &pruned.removed {
                    context.say(&format!("removed {name}"))?;
                }
                context.say(&format!("{} images, {}", pruned.removed.len(), size(pruned.bytes)))?;
            }
        }
        Verb::Ls => {
            let list: ImageList = context.daemon.get("/reddwarf/v1/images").await?;
            if !context.structured(&list)? {
                context.print(&render(context, &list))?;
            }
        }
        Verb::Rm { name } => {
            let path = with_query("/reddwarf/v1/images", &[("name", name)]);
            let done: Done = context.daemon.delete(&path, &serde_json::json!({})).await?;
            context.done(&done)?;
        }
    }
    Ok(Exit::Ok)
}

/// How often it is asked how far a pull is.
const POLL: Duration = Duration::from_millis(200);

/// Begins a pull and shows how far it is, until it ends.
async fn pull(context: &Context, image: &str) -> Result<Exit, Error> {
    let mut status: ImagePullStatus =
        context.daemon.post("/reddwarf/v1/images/pull", &ImagePull { image: image.to_owned() }).await?;
    let mut line = ProgressLine::new(context);
    while !matches!(status.state.as_str(), "pulled" | "failed") {
        line.show(&progress(&status));
        tokio::time::sleep(POLL).await;
        let list: ImagePullList = context.daemon.get("/reddwarf/v1/images/pulls").await?;
        let Some(now) = list.items.into_iter().rev().find(|s| s.image == status.image) else {
            return Err(Error::Failed(format!("the pull of {image} was broken off: reddwarfd was started anew")));
        };
        status = now;
    }
    line.clear();
    if let Some(error) = &status.error {
        return Err(Error::Failed(format!("failed to pull {}: {error}", status.image)));
    }
    if !context.structured(&status)? {
        let digest = status.repo_digest.as_deref().unwrap_or_default();
        let what = match (status.fetched, status.took_milliseconds) {
            (Some(false), _) => "is up to date".to_owned(),
            (_, took) => format!(
                "pulled in {:.1} s ({})",
                took.unwrap_or_default() as f64 / 1000.0,
                size(status.size_bytes.unwrap_or_default())
            ),
        };
        context.say(&format!("{} {what}\n{digest}", status.image))?;
    }
    Ok(Exit::Ok)
}

/// One line on how far a pull is.
fn progress(status: &ImagePullStatus) -> String {
    let ImagePullStatus { image, state, bytes_done, bytes_total, layers_done, layers_total, .. } = status;
    match state.as_str() {
        "fetching" => format!("{image}: fetching {} of {}", size(*bytes_done), size(*bytes_total)),
        "unpacking" => format!("{image}: unpacking, {layers_done} of {layers_total} layers"),
        other => format!("{image}: {other}"),
    }
}

/// A line on the terminal that is written over again and again; nothing where there is no terminal.
struct ProgressLine {
    shown: bool,
    last: String,
}

impl ProgressLine {
    fn new(context: &Context) -> Self {
        Self { shown: !context.quiet && std::io::stderr().is_terminal(), last: String::new() }
    }

    fn show(&mut self, text: &str) {
        if self.shown && self.last != text {
            // A terminal that is gone needs no progress.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            self.last = text.to_owned();
        }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn render(context: &Context, list: &ImageList) -> String {
    if context.output == Some(Output::Name) {
        return list.items.iter().flat_map(|i| &i.names).map(|n| format!("{n}\n")).collect();
    }
    let wide = context.output == Some(Output::Wide);
    let mut table = Table::new(["NAME", "ID", "SIZE", "COMMAND"]);
    for image in &list.items {
        // Twelve digits tell images apart on one host; wide and JSON show all.
        let digits = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
        let id: String = if wide { image.id.clone() } else { digits.chars().take(12).collect() };
        let names = if image.names.is_empty() { vec!["<none>".to_owned()] } else { image.names.clone() };
        for name in names {
            table.push(vec![
                name.into(),
                id.clone().into(),
                size(image.size_bytes).into(),
                image.command.join(" ").into(),
            ]);
        }
    }
    table.render(context.style, context.width)
}

/// `812 B`, `12.3 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = units[0];
    for next in &units[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 40, "3.0 TiB")]
        {
            assert_eq!(super::size(bytes), text);
        }
    }
}
