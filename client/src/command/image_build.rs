//! `image build`: a golden image of a root file system, or of a recipe: a base, files, commands.

use super::image::size;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::wire::{ImageBuild, ImageBuildFile, ImageBuildStatus};
use clap::builder::NonEmptyStringValueParser;
use reddwarf_config::{Format, Limits, parse_file};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A recipe (.yaml, .json, .toml), or a root file system as a directory or a tar, on the daemon's host
    source: PathBuf,
    /// The name that pods use, `local/web:1`; otherwise the recipe's
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    #[command(flatten)]
    run: RunOptions,
}

/// How an image that is made here is run.
#[derive(Debug, clap::Args)]
pub(crate) struct RunOptions {
    /// What it runs, one word an option
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub(crate) cmd: Vec<String>,
    /// A variable, `NAME=value`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Where it runs
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// As whom it runs
    #[arg(long)]
    pub(crate) user: Option<String>,
}

/// A recipe's document.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Recipe {
    name: Option<String>,
    from: Option<String>,
    rootfs: Option<PathBuf>,
    files: Vec<RecipeFile>,
    run: Vec<Run>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: BTreeMap<String, Plain>,
    workdir: Option<String>,
    user: Option<Plain>,
    stop_signal: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    from: PathBuf,
    to: String,
    /// `UID:GID`.
    owner: Option<String>,
}

/// A command: words, or a line for `/bin/sh`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Run {
    Line(String),
    Words(Vec<String>),
}

/// A text that looks like something else in YAML: `PORT: 80`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Plain {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
}

impl Plain {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
        }
    }
}

/// How often it is asked how far a build is.
const POLL: Duration = Duration::from_millis(100);

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let request = request(context, arguments)?;
    let mut status: ImageBuildStatus = context.daemon.post("/reddwarf/v1/images/build", &request).await?;
    let path = format!("/reddwarf/v1/images/builds/{}", status.id);
    let (mut printed, mut told) = (0, String::new());
    loop {
        if !status.doing.is_empty() && status.doing != told {
            context.note(&status.doing);
            status.doing.clone_into(&mut told);
        }
        print_new(context, &status, &mut printed);
        if matches!(status.state.as_str(), "built" | "failed") {
            break;
        }
        tokio::time::sleep(POLL).await;
        status = match context.daemon.get(&path).await {
            Err(Error::Refused { status }) if status.code == 404 => {
                let message = format!("the build of {} was broken off: reddwarfd was started anew", request.name);
                return Err(Error::Failed(message));
            }
            answer => answer?,
        };
    }
    if let Some(error) = &status.error {
        return Err(Error::Failed(format!("failed to build {}: {error}", request.name)));
    }
    if !context.structured(&status)? {
        let image = status.image.unwrap_or_default();
        let seconds = status.took_milliseconds.unwrap_or_default() as f64 / 1000.0;
        context.say(&format!(
            "{} is {} ({}), built in {seconds:.1} s",
            status.name,
            image.id,
            size(image.size_bytes)
        ))?;
    }
    Ok(Exit::Ok)
}

/// What commands printed since the last look, on standard error: standard output is for the result.
fn print_new(context: &Context, status: &ImageBuildStatus, printed: &mut u64) {
    let from = usize::try_from(printed.saturating_sub(status.output_from)).unwrap_or(usize::MAX);
    if let Some(new) = status.output.get(from..).filter(|new| !new.is_empty() && !context.quiet) {
        context.tell(new);
    }
    *printed = status.output_from + status.output.len() as u64;
}

fn request(context: &Context, arguments: &Arguments) -> Result<ImageBuild, Error> {
    let Arguments { source, name, run: RunOptions { cmd, env, workdir, user } } = arguments;
    let is_recipe = !source.is_dir() && source.to_str().and_then(Format::of).is_some();
    let mut request = if is_recipe {
        let bytes = std::fs::read(source).map_err(|error| Error::File {
            path: source.clone(),
            doing: "read",
            source: error,
        })?;
        let beside = source.parent().unwrap_or(Path::new(""));
        of_recipe(parse(source, &bytes)?, beside)?
    } else {
        ImageBuild { rootfs: Some(files::absolute(source)?), ..ImageBuild::default() }
    };
    if let Some(name) = name {
        request.name.clone_from(name);
    }
    if request.name.is_empty() {
        return Err(Error::usage("the image has no name", "give --name, or `name:` in the recipe"));
    }
    if !cmd.is_empty() {
        request.cmd = Some(cmd.clone());
    }
    request.env.extend(env.iter().cloned());
    request.workdir = workdir.clone().or(request.workdir);
    request.user = user.clone().or(request.user);
    request.namespace = Some(context.namespace().to_owned());
    Ok(request)
}

/// Reads a recipe: one document, without keys that are not known.
fn parse(path: &Path, bytes: &[u8]) -> Result<Recipe, Error> {
    let shown = path.display().to_string();
    let (documents, diagnostics) = parse_file(&shown, bytes, &Limits::default());
    if let Some(error) = diagnostics.iter().find(|d| d.is_error()) {
        return Err(Error::Failed(error.one_line()));
    }
    let [document] = documents.as_slice() else {
        return Err(Error::Failed(format!("{shown}: a recipe is one document, here are {}", documents.len())));
    };
    let value: Value = document.value.clone();
    serde_json::from_value(value).map_err(|e| Error::Failed(format!("{shown}: {e}")))
}

/// Paths are relative to the recipe's directory.
fn of_recipe(recipe: Recipe, beside: &Path) -> Result<ImageBuild, Error> {
    let at = |path: &Path| files::absolute(&beside.join(path));
    let file = |file: &RecipeFile| {
        let owner = file.owner.as_deref().map(owner).transpose()?;
        Ok(ImageBuildFile { source: at(&file.from)?, target: file.to.clone(), owner })
    };
    let Recipe { name, from, rootfs, files, run, entrypoint, cmd, env, workdir, user, stop_signal } = recipe;
    Ok(ImageBuild {
        name: name.unwrap_or_default(),
        from,
        rootfs: rootfs.as_deref().map(at).transpose()?,
        files: files.iter().map(file).collect::<Result<_, Error>>()?,
        run: run.into_iter().map(words).collect(),
        namespace: None,
        entrypoint,
        cmd,
        env: env.iter().map(|(name, value)| format!("{name}={}", value.text())).collect(),
        workdir,
        user: user.map(|user| user.text()),
        stop_signal,
    })
}

fn words(run: Run) -> Vec<String> {
    match run {
        Run::Line(line) => vec!["/bin/sh".into(), "-ec".into(), line],
        Run::Words(words) => words,
    }
}

fn owner(text: &str) -> Result<(u32, u32), Error> {
    let parsed = text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    parsed.ok_or_else(|| Error::Failed(format!("owner {text:?}: write two numbers, \"1000:1000\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(text: &str) -> Result<ImageBuild, Error> {
        of_recipe(parse(Path::new("web.yaml"), text.as_bytes())?, Path::new("/recipes"))
    }

    #[test]
    fn a_recipe_becomes_a_request() {
        let text = "name: local/web:1\nfrom: local/base:1\nfiles:\n- {from: site, to: /srv/www, owner: '33:34'}\n\
                    - {from: /etc/motd, to: /etc/}\nrun:\n- echo hi > /hi\n- [/bin/app, --init]\nentrypoint: [/bin/app]\n\
                    env: {PORT: 80, DEBUG: true, NAME: web}\nworkdir: /srv\nuser: 33\nstopSignal: SIGINT\n";
        let wanted = ImageBuild {
            name: "local/web:1".into(),
            from: Some("local/base:1".into()),
            files: vec![
                ImageBuildFile { source: "/recipes/site".into(), target: "/srv/www".into(), owner: Some((33, 34)) },
                ImageBuildFile { source: "/etc/motd".into(), target: "/etc/".into(), owner: None },
            ],
            run: vec![
                vec!["/bin/sh".into(), "-ec".into(), "echo hi > /hi".into()],
                vec!["/bin/app".into(), "--init".into()],
            ],
            entrypoint: Some(vec!["/bin/app".into()]),
            env: vec!["DEBUG=true".into(), "NAME=web".into(), "PORT=80".into()],
            workdir: Some("/srv".into()),
            user: Some("33".into()),
            stop_signal: Some("SIGINT".into()),
            ..ImageBuild::default()
        };
        assert_eq!(recipe(text).unwrap(), wanted);
    }

    #[test]
    fn what_is_no_recipe_is_said_so() {
        for (text, why) in [
            ("from: a\ncopy: []\n", "unknown field `copy`"),
            ("from: [a]\n", "string"),
            ("from: a\n---\nfrom: b\n", "one document, here are 2"),
            ("from: 'a\n", "web.yaml"),
            ("files: [{from: a, to: /b, owner: root}]\n", "write two numbers"),
        ] {
            let error = recipe(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
