//! Archives and layers are read by a process of its own: their content is anybody's. It has its root where it writes
//! (chroot(2)) and the privileges that files need (privileges(7)), and no others: it can't start a program, open a connection
//! or see another process. ppriv(1) takes the others away.
//!
//! ```text
//! daemon ── ppriv -e -s LI=… reddwarfd __zone-unpack layer ROOT < blob      (digest checked by the daemon before)
//!                                   └─ chroot ROOT; reads standard input; exit code and one line say how it went
//! ```

use super::layer::{self, Room};
use super::source::Problem;
use crate::host::Shared;
use flate2::read::GzDecoder;
use reddwarf_command::{CommandError, ExternalCommand, Tool};
use reddwarf_host::UnpackLimits;
use reddwarf_zar::{ZarError, damage};
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

/// Its first argument.
pub(crate) const ARGUMENT: &str = "__zone-unpack";

/// What changing files of all owners takes; `proc_chroot` to begin with.
const PRIVILEGES: &str = "file_read,file_write,file_link_any,file_chown,file_chown_self,file_dac_read,file_dac_search,\
                          file_dac_write,file_owner,file_setid,proc_chroot";

/// The longest that one layer takes.
const PATIENCE: Duration = Duration::from_secs(1800);
/// What it says is a line.
const SAID_MOST: usize = 64 << 10;

/// How a `.zar` archive begins: its first entry's name.
const ZAR: &[u8] = b"zar.json\0";

/// How it says that the image is at fault, not the host: EX_DATAERR of sysexits(3HEAD).
const BAD_IMAGE: u8 = 65;
/// No room: EX_CANTCREAT.
const NO_ROOM: u8 = 73;

/// What is to be done with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Put on top of what is there, whiteouts and all.
    Layer,
    /// Unpacked as it is: an archive of an image.
    Archive,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Archive => "archive",
        }
    }
}

/// Has a child unpack `file` into the directory `root`.
pub(super) async fn unpack(shared: &Shared, what: What, file: &Path, root: &Path) -> Result<(), Problem> {
    let program = shared.paths.program();
    let run = match shared.tools().command(Tool::Ppriv.name()) {
        Ok(ppriv) => ppriv.args(["-e", "-s", &format!("LI={PRIVILEGES}")]).args([&program]),
        // Only illumos has it; there it is part of the system.
        Err(_) if !cfg!(target_os = "illumos") => ExternalCommand::at(program),
        Err(error) => return Err(io::Error::other(error.to_string()).into()),
    };
    let run = run.args([ARGUMENT, what.word()]).args([root]).stdin_from(File::open(file)?);
    match run.deadline(PATIENCE).output_limit(SAID_MOST).run().await {
        Ok(_) => Ok(()),
        Err(CommandError::Failed { status, stderr, .. }) => {
            let said = stderr.lines().last().unwrap_or("it said nothing").to_owned();
            match status.code().map(u8::try_from) {
                Some(Ok(BAD_IMAGE)) => Err(Problem::NoImage(said)),
                Some(Ok(NO_ROOM)) => Err(io::Error::new(io::ErrorKind::StorageFull, said).into()),
                _ => Err(io::Error::other(format!("unpacking ended ({status}): {said}")).into()),
            }
        }
        Err(CommandError::Timeout { .. }) => {
            let message = format!("not unpacked within {} s", PATIENCE.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, message).into())
        }
        Err(error) => Err(io::Error::other(error.to_string()).into()),
    }
}

/// The child.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    let [what, root] = args else {
        eprintln!("usage: {ARGUMENT} layer|archive DIRECTORY < FILE (started by reddwarfd itself)");
        return ExitCode::from(2);
    };
    match run(what, Path::new(root)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", told(&error));
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ExitCode::from(NO_ROOM),
                _ if is_content(&error) => ExitCode::from(BAD_IMAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// What the system said, behind whatever the tar crate has put around it; what it did not say comes from the file's own
/// content: cut off, garbled.
fn system(error: &io::Error) -> Option<&io::Error> {
    if error.raw_os_error().is_some() {
        return Some(error);
    }
    error.get_ref()?.source()?.downcast_ref().and_then(system)
}

/// What we said ourselves, behind whatever the tar crate has put around it.
fn refused(error: &io::Error) -> Option<&layer::Refused> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| inner.source()?.downcast_ref().and_then(refused))
}

/// Whether the file is at fault: also for what its paths lead to.
fn is_content(error: &io::Error) -> bool {
    use nix::errno::Errno as E;
    let errno = system(error).and_then(io::Error::raw_os_error).map(E::from_raw);
    matches!(errno, None | Some(E::ENOTDIR | E::ELOOP | E::ENAMETOOLONG | E::EISDIR | E::ENOENT | E::EXDEV))
}

/// An error in one line. Decoders quote what they stumble over, which may be bytes of any file that somebody called an image.
fn told(error: &io::Error) -> String {
    let text = match system(error) {
        Some(reason) if reason.raw_os_error() == error.raw_os_error() => error.to_string(),
        Some(reason) => format!("{error}: {reason}"),
        None => refused(error).map_or_else(|| damage(error), ToString::to_string),
    };
    text.replace('\n', " ")
}

fn run(what: &OsStr, root: &Path) -> io::Result<()> {
    nix::unistd::chroot(root)?;
    std::env::set_current_dir("/")?;
    let limits = UnpackLimits::default();
    let mut content = plain(io::stdin().lock(), limits)?;
    if what == What::Layer.word() {
        return layer::apply(content, Path::new("/"), limits);
    }
    let mut name = Vec::with_capacity(ZAR.len());
    content.by_ref().take(ZAR.len() as u64).read_to_end(&mut name)?;
    let begins_as_zar = name == ZAR;
    let content = Read::chain(io::Cursor::new(name), content);
    if begins_as_zar {
        return reddwarf_zar::extract(content, Path::new("/")).map_err(|error| match error {
            ZarError::Io { source, .. } => source,
            ZarError::Invalid(why) | ZarError::Untrusted(why) => layer::Refused::error(why),
        });
    }
    let (mut archive, mut room) = (tar::Archive::new(content), Room::of(limits));
    for entry in archive.entries()? {
        let mut entry = entry?;
        room.take(entry.size())?;
        entry.unpack_in("/")?;
    }
    Ok(())
}

/// Counts what passes.
struct Counting<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count.set(self.count.get().saturating_add(n as u64));
        Ok(n)
    }
}

/// Ends with an error where content is more than it may be.
struct Limited<'r> {
    content: Box<dyn Read + 'r>,
    limits: UnpackLimits,
    plain: u64,
    compressed: Rc<Cell<u64>>,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(buffer)?;
        self.plain = self.plain.saturating_add(n as u64);
        let fits = self.limits.check_bytes(self.plain, self.compressed.get());
        fits.map_err(|too_much| layer::Refused::error(too_much.to_string()))?;
        Ok(n)
    }
}

/// A file's content, decompressed where it is compressed by gzip or zstd, as far as it is held to be some.
fn plain<'r>(file: impl Read + 'r, limits: UnpackLimits) -> io::Result<Limited<'r>> {
    let compressed = Rc::new(Cell::new(0));
    let content = decompressed(Counting { inner: file, count: compressed.clone() })?;
    Ok(Limited { content, limits, plain: 0, compressed })
}

fn decompressed<'r>(file: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut file = BufReader::new(file);
    let mut begin = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut begin)?;
    let whole = Read::chain(io::Cursor::new(begin.clone()), file);
    match begin.as_slice() {
        [0x1f, 0x8b, ..] => Ok(Box::new(GzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(whole);
            Ok(Box::new(decoder.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("zstd, {e}")))?))
        }
        _ => Ok(Box::new(whole)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn content_is_told_by_how_it_begins() {
        let read = |bytes: &[u8]| {
            let mut text = String::new();
            plain(bytes, UnpackLimits::default()).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"hello").unwrap();
        assert_eq!(read(&gzip.finish().unwrap()), "hello");
        assert_eq!(read(b"hello"), "hello");
        assert_eq!(read(b"hi"), "hi", "shorter than a magic number");
        assert_eq!(read(b""), "");
    }

    #[test]
    fn content_is_held_to_limits_and_says_so_through_whatever_reads_it() {
        let limits = UnpackLimits { ratio: 100, ratio_free_bytes: 1 << 20, bytes: 64 << 20, ..UnpackLimits::default() };
        let zeros = |bytes: usize| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes as u64);
            let mut tar = tar::Builder::new(Vec::new());
            tar.append_data(&mut header, "zeros", vec![0; bytes].as_slice()).unwrap();
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&tar.into_inner().unwrap()).unwrap();
            gzip.finish().unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let unpack = |bytes: &[u8], limits| {
            let content = plain(bytes, limits)?;
            let mut archive = tar::Archive::new(content);
            archive.entries()?.try_for_each(|entry| entry?.unpack_in(dir.path()).map(drop))
        };
        let bomb = zeros(32 << 20);
        let said = |limits| told(&unpack(&bomb, limits).unwrap_err());
        assert!(said(limits).ends_with("refused as a decompression bomb"), "{}", said(limits));
        assert_eq!(said(UnpackLimits { bytes: 1 << 20, ..limits }), "it unpacks to more than 1 MiB");
        unpack(&zeros(1 << 19), limits).unwrap();
    }

    #[test]
    fn an_error_says_why_and_quotes_nothing_of_the_file() {
        let secret = "root:$6$saltsalt$hash";
        let not_tar =
            tar::Archive::new(secret.repeat(100).as_bytes()).entries().unwrap().next().unwrap().err().unwrap();
        let garbled = [&[0x28, 0xb5, 0x2f, 0xfd], secret.as_bytes()].concat();
        let not_zstd = plain(garbled.as_slice(), UnpackLimits::default()).err().unwrap();
        for error in [not_tar, not_zstd] {
            let told = told(&error);
            assert!(system(&error).is_none() && !told.is_empty() && !told.contains("salt"), "{told}");
        }
        let refused = layer::Refused::error("../x: leads outside");
        assert_eq!(told(&refused), "../x: leads outside");
        // What the system said is found wherever it is.
        let tree = tempfile::tempdir().unwrap();
        let mut packed = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        packed.append_data(&mut header, "there/file", io::empty()).unwrap();
        let packed = packed.into_inner().unwrap();
        File::create(tree.path().join("there")).unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let error = archive.entries().unwrap().next().unwrap().unwrap().unpack_in(tree.path()).unwrap_err();
        assert!(system(&error).is_some() && is_content(&error), "a file where a directory should be: {error:?}");
        assert!(told(&error).contains("os error"), "{}", told(&error));
        let full = io::Error::from(nix::errno::Errno::EIO);
        assert!(!is_content(&full), "the disk's own");
    }
}
