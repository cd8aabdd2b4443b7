//! `image zar`: archives of golden images, made and verified without a daemon.

use super::image_build::RunOptions;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use clap::Subcommand;
use reddwarf_zar::{Manifest, PartKind, PublicKey, SigningKey};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make an archive of root file systems or zfs streams
    Create {
        /// Layers, lowest first: directories or uncompressed tars. With --zfs: what `zfs send` wrote
        #[arg(required = true)]
        parts: Vec<PathBuf>,
        /// The archive, which must not be there yet
        #[arg(long, short = 'f', value_name = "FILE")]
        file: PathBuf,
        /// The name that it suggests: `local/web:1`
        #[arg(long, default_value = "")]
        name: String,
        /// The parts are zfs streams for zones
        #[arg(long)]
        zfs: bool,
        #[command(flatten)]
        run: RunOptions,
        /// For which architecture, as OCI names it; this machine's unless given
        #[arg(long)]
        architecture: Option<String>,
        /// Sign it with this key (of `image zar keygen`)
        #[arg(long, value_name = "KEYFILE")]
        sign: Option<PathBuf>,
    },
    /// Check an archive's form, every checksum, and its signature
    Verify {
        /// The archive
        file: PathBuf,
        /// A file of public keys, one a line: one of them must have signed it
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Make a key: the secret half into FILE, the public one into FILE.pub
    Keygen {
        /// The file
        file: PathBuf,
    },
}

pub(crate) fn run(context: &Context, verb: &Verb) -> Result<Exit, Error> {
    match verb {
        Verb::Create { file, sign, .. } => {
            let key = sign.as_deref().map(|path| SigningKey::parse(&read(path)?).map_err(failed(path))).transpose()?;
            let scratch = Scratch::beside(file)?;
            let (manifest, parts) = describe(verb, &scratch)?;
            let manifest = reddwarf_zar::create(manifest, &parts, key.as_ref(), file).map_err(failed(file))?;
            if !context.structured(&manifest)? {
                context.say(&format!("{}: {} parts", file.display(), manifest.parts.len()))?;
            }
        }
        Verb::Verify { file, key } => {
            let keys = match key {
                Some(path) => keys(path)?,
                None => Vec::new(),
            };
            let input = File::open(file).map_err(|e| unreadable(file, e))?;
            let opened = reddwarf_zar::verify(std::io::BufReader::new(input), &keys).map_err(failed(file))?;
            if !context.structured(&opened.manifest)? {
                let signed = match (&opened.signature, keys.is_empty()) {
                    (None, _) => "not signed",
                    (Some(_), true) => "signed; whose signature it is was not checked (--key)",
                    (Some(_), false) => "signed by a key that is trusted",
                };
                let manifest = &opened.manifest;
                let (os, architecture, parts) = (&manifest.os, &manifest.architecture, manifest.parts.len());
                context.say(&format!("{}: good, {os}/{architecture}, {parts} parts, {signed}", file.display()))?;
            }
        }
        Verb::Keygen { file } => {
            let line = SigningKey::generate().map_err(failed(file))?;
            let public = SigningKey::parse(&line).map_err(failed(file))?.public().text();
            let beside = PathBuf::from(format!("{}.pub", file.display()));
            for (path, line, mode) in [(file, line, 0o600), (&beside, public, 0o644)] {
                let opened = File::options().write(true).create_new(true).mode(mode).open(path);
                let written = opened.and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()));
                written.map_err(|source| Error::File { path: path.clone(), doing: "written", source })?;
            }
            context.say(&format!("{} (keep it secret), {}", file.display(), beside.display()))?;
        }
    }
    Ok(Exit::Ok)
}

fn describe(verb: &Verb, scratch: &Scratch) -> Result<(Manifest, Vec<(PartKind, PathBuf)>), Error> {
    let Verb::Create { parts, name, zfs, run, architecture, .. } = verb else {
        return Err(Error::usage("nothing to make", ""));
    };
    let mut config = serde_json::Map::new();
    let RunOptions { cmd, env, workdir, user } = run;
    let lists = [("Cmd", cmd), ("Env", env)];
    config.extend(lists.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v.clone().into())));
    let texts = [("WorkingDir", workdir), ("User", user)];
    config.extend(texts.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v.clone()?.into()))));
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let manifest = Manifest {
        zar: reddwarf_zar::manifest::VERSION,
        name: name.clone(),
        os: if *zfs { "illumos" } else { "linux" }.to_owned(),
        architecture: architecture.clone().unwrap_or_else(|| here.to_owned()),
        config,
        parts: Vec::new(),
    };
    let kind = if *zfs { PartKind::Zfs } else { PartKind::Layer };
    let part = |(index, path): (usize, &PathBuf)| {
        let packed = if path.is_dir() && !zfs { scratch.pack(path, index)? } else { path.clone() };
        Ok((kind, packed))
    };
    Ok((manifest, parts.iter().enumerate().map(part).collect::<Result<_, Error>>()?))
}

/// Directories as tars, gone with this.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(file: &Path) -> Result<Self, Error> {
        let path = PathBuf::from(format!("{}.parts-{}", file.display(), std::process::id()));
        std::fs::create_dir(&path).map_err(|source| Error::File { path: path.clone(), doing: "written", source })?;
        Ok(Self(path))
    }

    fn pack(&self, directory: &Path, index: usize) -> Result<PathBuf, Error> {
        let target = self.0.join(index.to_string());
        let pack = || {
            let mut tar = tar::Builder::new(BufWriter::new(File::create_new(&target)?));
            tar.follow_symlinks(false);
            tar.append_dir_all(".", directory)?;
            tar.into_inner()?.flush()
        };
        pack().map_err(|e| unreadable(directory, e))?;
        Ok(target)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn keys(path: &Path) -> Result<Vec<PublicKey>, Error> {
    let text = read(path)?;
    let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    lines.map(|line| PublicKey::parse(line).map_err(failed(path))).collect()
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| unreadable(path, e))
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), doing: "read", source }
}

fn failed(path: &Path) -> impl FnOnce(reddwarf_zar::ZarError) -> Error {
    let path = path.display().to_string();
    move |error| Error::Failed(format!("{path}: {error}"))
}
