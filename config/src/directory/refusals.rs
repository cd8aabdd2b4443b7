//! The texts of everything that keeps a file or directory from being read.

use super::open::{Distrust, LinkError, ReadError};
use crate::diagnostic::{Diagnostic, Severity, codes};
use crate::document::too_large;
use crate::limits::Limits;
use std::path::Path;

pub(super) fn error(
    code: &'static str,
    path: &Path,
    what: impl Into<String>,
    why: impl Into<String>,
    help: impl Into<String>,
) -> Diagnostic {
    Diagnostic::file(Severity::Error, code, path.to_string_lossy(), what, why, help)
}

pub(super) fn distrust(path: &Path, what: &str, distrust: Distrust) -> Diagnostic {
    let shown = path.display();
    let why = "manifests can start anything as root, so only root and the daemon's own user may change them";
    match distrust {
        Distrust::Owner(uid) => {
            let message = format!("the {what} belongs to user {uid}");
            error(codes::WRONG_OWNER, path, message, why, format!("run `chown root {shown}`"))
        }
        Distrust::Writable(mode) => {
            let message = format!("the {what} can be written by others (mode {mode:04o})");
            error(codes::WRITABLE_BY_OTHERS, path, message, why, format!("run `chmod go-w {shown}`"))
        }
    }
}

pub(super) fn io(path: &Path, what: &str, problem: impl std::fmt::Display) -> Diagnostic {
    let message = format!("the {what} can't be read: {problem}");
    let why = "what it declared stays as it is";
    error(codes::UNREADABLE, path, message, why, "mend its permissions or the file system")
}

pub(super) fn not_a_file(path: &Path, what: &str) -> Diagnostic {
    let why = "only files are read, and nothing else may bear a manifest's name";
    error(codes::NOT_A_FILE, path, format!("this is {what}"), why, "remove it, or put a file in its place")
}

pub(super) fn read(path: &Path, problem: ReadError, limits: &Limits) -> Diagnostic {
    match problem {
        ReadError::NotAFile(what) => not_a_file(path, what),
        ReadError::Untrusted(reason) => distrust(path, "file", reason),
        ReadError::TooLarge(bytes) => too_large(&path.to_string_lossy(), bytes, limits),
        ReadError::Changing => error(
            codes::CHANGED_WHILE_READ,
            path,
            "the file changes while it is read",
            "half a file would declare something else",
            "write it elsewhere on the same file system and rename it into place",
        ),
        ReadError::Io(problem) => io(path, "file", problem),
    }
}

pub(super) fn link(path: &Path, problem: LinkError) -> Diagnostic {
    match problem {
        LinkError::Out(target) => error(
            codes::SYMLINK_OUT,
            path,
            format!("the symlink leads out of the manifest directory, to {}", target.display()),
            "what lies elsewhere may be written by somebody else",
            "put the file itself here, or add its directory to `manifests`",
        ),
        LinkError::Dangling(name) => error(
            codes::SYMLINK_DANGLING,
            path,
            format!("the symlink leads nowhere: there is no {}", name.display()),
            "what it declared stays as it is",
            "mend or remove it",
        ),
        LinkError::Loop => error(
            codes::SYMLINK_LOOP,
            path,
            "the symlink leads in a circle",
            "it never comes to a file",
            "mend or remove it",
        ),
        LinkError::ToDirectory => error(
            codes::NOT_A_FILE,
            path,
            "the symlink leads to a directory",
            "directories are not followed, so that nothing is declared twice",
            "put a directory here, or symlinks to single files in it",
        ),
        LinkError::Untrusted(reason) => distrust(path, "directory on the symlink's way", reason),
        LinkError::Io(errno) => io(path, "symlink", errno.desc()),
    }
}

pub(super) fn name_not_utf8(path: &Path) -> Diagnostic {
    let why = "names of manifests are shown, sorted and stored as text";
    error(codes::NAME_NOT_UTF8, path, "the file name is not UTF-8", why, "rename it")
}

pub(super) fn too_nested(path: &Path) -> Diagnostic {
    error(
        codes::TOO_NESTED,
        path,
        "the directory lies too deep",
        "one level of subdirectories groups files to apps; deeper ones are not read",
        "move its files up",
    )
}

pub(super) fn layer_lost(path: &Path, what: &str) -> Diagnostic {
    error(
        codes::LAYER_LOST,
        path,
        format!("the manifest directory {what}"),
        "nothing is deleted on that ground: it may be unmounted or about to come back",
        "bring it back, or run `reddwarfctl reconcile --allow-prune` if that is meant",
    )
}
