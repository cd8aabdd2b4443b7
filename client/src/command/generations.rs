//! `generations`: the retained states of the manifest directories.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::table::Table;
use crate::wire::{GenerationDetail, GenerationList};
use reddwarf_objects::print;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Show the files and objects of this one
    number: Option<u64>,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    if let Some(number) = arguments.number {
        return one(context, number).await;
    }
    let list: GenerationList = context.daemon.get("/reddwarf/v1/generations").await?;
    if context.structured(&list)? {
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["GENERATION", "AGE", "FILES", "OBJECTS", "ERRORS", "WHAT"]);
    for item in &list.items {
        let mark = if item.current { " *" } else { "" };
        table.push(vec![
            format!("{}{mark}", item.number).into(),
            print::age(item.time, context.now()).into(),
            item.files.to_string().into(),
            item.objects.to_string().into(),
            item.errors.to_string().into(),
            item.message.as_str().into(),
        ]);
    }
    context.print(&table.render(context.style, context.width))?;
    Ok(Exit::Ok)
}

async fn one(context: &Context, number: u64) -> Result<Exit, Error> {
    let detail: GenerationDetail = context.daemon.get(&format!("/reddwarf/v1/generations/{number}")).await?;
    if context.structured(&detail)? {
        return Ok(Exit::Ok);
    }
    let age = print::age(detail.summary.time, context.now());
    let current = if detail.summary.current { ", in force" } else { "" };
    let mut text = format!("Generation {number}: {} ({age} ago{current})\n", detail.summary.message);
    let mut files = Table::new(["FILE", "DIGEST"]);
    for file in &detail.files_list {
        files.push(vec![file.path.as_str().into(), file.digest.as_str().into()]);
    }
    if !files.is_empty() {
        text.push_str(&format!("\n{}", files.render(context.style, None)));
    }
    if !detail.objects_list.is_empty() {
        text.push_str(&format!("\n{}\n{}\n", context.style.bold("OBJECTS"), detail.objects_list.join("\n")));
    }
    for diagnostic in &detail.diagnostics {
        text.push_str(&format!("\n{}", diagnostic.text()));
    }
    context.print(&text)?;
    Ok(Exit::Ok)
}
