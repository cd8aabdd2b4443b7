//! `validate`: checks manifests as the daemon would, without one.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::output::Output;
use reddwarf_config::diagnostic::sarif;
use reddwarf_config::directory::Trust;
use reddwarf_config::{Declared, Diagnostic, Document, Limits, Scanner, check, parse_file};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A file, a directory of manifests, or `-` for YAML or JSON from standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,
    /// Warnings too are refusals
    #[arg(long)]
    strict: bool,
}

/// What was found in everything that was named.
#[derive(Default)]
struct Found {
    files: usize,
    objects: Vec<Arc<Declared>>,
    diagnostics: Vec<Diagnostic>,
}

pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let found = examine(&arguments.paths)?;
    let errors = found.diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = found.diagnostics.len() - errors;
    let valid = errors == 0 && !(arguments.strict && warnings > 0);
    match &context.output {
        Some(Output::Sarif) => context.print_value(&Output::Json, &sarif(&found.diagnostics))?,
        Some(output @ (Output::Json | Output::Yaml | Output::JsonPath(_))) => {
            let objects: Vec<String> = found.objects.iter().map(|d| d.key.to_string()).collect();
            let report = json!({
                "valid": valid, "files": found.files, "objects": objects, "errors": errors, "warnings": warnings,
                "diagnostics": found.diagnostics,
            });
            context.print_value(output, &report)?;
        }
        Some(Output::Name) => {
            let names: String = found.objects.iter().map(|d| format!("{}\n", d.key)).collect();
            context.print(&names)?;
        }
        None | Some(Output::Wide) => {
            for diagnostic in &found.diagnostics {
                context.print(&diagnostic.render(context.style.colour))?;
                context.print("\n")?;
            }
            let verdict = if valid { context.style.good("valid") } else { context.style.bad("not valid") };
            context.say(&format!(
                "{verdict}: {}, {}, {}, {}",
                count(found.files, "file"),
                count(found.objects.len(), "object"),
                count(errors, "error"),
                count(warnings, "warning")
            ))?;
        }
    }
    Ok(if valid { Exit::Ok } else { Exit::Error })
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Single files are checked as one set, so that an object declared in two of them is found; a directory as the daemon
/// reads it, with masks and drop-ins, but whoever owns it: a checkout belongs to its developer.
fn examine(paths: &[PathBuf]) -> Result<Found, Error> {
    let limits = Limits::default();
    let mut found = Found::default();
    let mut documents: Vec<Document> = Vec::new();
    for path in paths {
        if path.is_dir() {
            let layer = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let scan = Scanner::new(vec![layer], limits, Trust { any_owner_and_mode: true }).scan();
            found.files += scan.files.len();
            found.objects.extend(scan.declared);
            found.diagnostics.extend(scan.diagnostics);
        } else {
            found.files += 1;
            let (name, bytes) = read(path, limits.file_bytes)?;
            let (read, diagnostics) = parse_file(&name, &bytes, &limits);
            documents.extend(read);
            found.diagnostics.extend(diagnostics);
        }
    }
    let checked = check(documents);
    found.objects.extend(checked.declared);
    found.diagnostics.extend(checked.diagnostics);
    Ok(found)
}

/// The name for the parser, and the bytes; of a file that is too large one byte more than allowed.
fn read(path: &Path, limit: u64) -> Result<(String, Vec<u8>), Error> {
    use std::io::Read;
    if path.as_os_str() == "-" {
        return Ok(("stdin.yaml".into(), files::stdin()?.into_bytes()));
    }
    let failed = |source| Error::File { path: path.to_owned(), doing: "read", source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    Ok((path.display().to_string(), bytes))
}
