//! `image`: import, list and remove images of the host.

use crate::context::Context;
use crate::daemon::with_query;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::output::Output;
use crate::output::table::Table;
use crate::wire::{Done, Image, ImageImport, ImageList};
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Import a root file system directory, an OCI layout, or an OCI or docker archive
    Import {
        /// A path on the daemon's host
        path: PathBuf,
        /// The name that pods use: `local/web:1`
        #[arg(long, value_name = "NAME")]
        name: String,
    },
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
fn size(bytes: u64) -> String {
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
