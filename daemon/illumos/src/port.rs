//! Changes of files and directories, by event ports (port_create(3C), port_associate(3C) with `PORT_SOURCE_FILE`).
//!
//! The kernel compares the times that an association is made with with the file's and tells of a difference at once; it tells of each
//! association once. It tells of writes, of attributes, and unasked of removal, renaming, unmounting and of what is mounted over.
//! Here nothing is decided: what is associated, and when anew, is the caller's.

#![allow(
    unsafe_code,
    reason = "calls of illumos that no crate wraps: pointers are to what lives here, and are looked at during the call only"
)]

use libc::{c_char, c_int, c_void, timespec, uintptr_t};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// `file_obj_t` of `<sys/port.h>`, 64 bit, which the libc crate lacks.
#[repr(C)]
struct FileObject {
    accessed: timespec,
    modified: timespec,
    changed: timespec,
    pad: [uintptr_t; 3],
    name: *const c_char,
}

const _: () = assert!(size_of::<FileObject>() == 80);

// `<sys/port.h>`, which the libc crate lacks too.
const FILE_MODIFIED: c_int = 0x0000_0002;
const FILE_ATTRIB: c_int = 0x0000_0004;
const FILE_TRUNC: c_int = 0x0010_0000;
const FILE_NOFOLLOW: c_int = 0x1000_0000;

/// Events taken at once.
const EVENTS: usize = 64;

/// An event port for files. It is closed, and all its associations end, with this value.
pub struct FilePort {
    port: OwnedFd,
    /// The kernel knows an association by its object's address: it stays where it is for as long as there may be one.
    objects: Mutex<HashMap<u64, Box<Object>>>,
}

struct Object {
    object: FileObject,
    /// What `object` names.
    _name: CString,
}

// SAFETY: the pointer in it is to the name beside it, on the heap, which nobody changes.
unsafe impl Send for Object {}

impl FilePort {
    /// Opens a port.
    ///
    /// # Errors
    /// When the process has no descriptor left, or too many ports (`project.max-port-ids`).
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes nothing; what it returns is nobody else's.
        let port = unsafe {
            match libc::port_create() {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        nix::fcntl::fcntl(&port, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        Ok(Self { port, objects: Mutex::default() })
    }

    /// [`Self::wait`] gives `token`, once, when what `path` names is changed, replaced or removed; at once if it differs from `seen`.
    /// Asked again, only the new question counts.
    ///
    /// # Errors
    /// Where no file is, where the file system can't tell (NFS), when there are too many (`process.max-port-events`).
    pub fn watch(&self, token: u64, path: &Path, seen: &Metadata) -> io::Result<()> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let at = |tv_sec, tv_nsec| timespec { tv_sec, tv_nsec };
        let object = FileObject {
            accessed: at(seen.atime(), seen.atime_nsec()),
            modified: at(seen.mtime(), seen.mtime_nsec()),
            changed: at(seen.ctime(), seen.ctime_nsec()),
            pad: [0; 3],
            name: name.as_ptr(),
        };
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Object { object, _name: name };
        let object = match objects.get_mut(&token) {
            // In its place: the kernel takes the same address for the same association.
            Some(old) => {
                **old = new;
                old
            }
            None => objects.entry(token).or_insert(Box::new(new)),
        };
        let events = FILE_MODIFIED | FILE_ATTRIB | FILE_TRUNC | FILE_NOFOLLOW;
        let address = std::ptr::from_ref(&object.object) as uintptr_t;
        // SAFETY: the object and the name it points to live in `objects`; the kernel copies both before it returns. The token is
        // only handed back.
        let result = unsafe {
            libc::port_associate(self.port.as_raw_fd(), libc::PORT_SOURCE_FILE, address, events, token as *mut c_void)
        };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // An earlier association may still be there, for the file that the path named then.
        self.dissociate(address);
        objects.remove(&token);
        Err(error)
    }

    /// `token` is of no interest any more.
    pub fn forget(&self, token: u64) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = objects.remove(&token) {
            self.dissociate(std::ptr::from_ref(&object.object) as uintptr_t);
        }
    }

    fn dissociate(&self, address: uintptr_t) {
        // SAFETY: the address only serves as a name. That there is no such association is no failure.
        unsafe { libc::port_dissociate(self.port.as_raw_fd(), libc::PORT_SOURCE_FILE, address) };
    }

    /// Waits for tokens, for [`Self::wake`], or for `at_most`; the last two, and a signal, give none.
    ///
    /// # Errors
    /// When the port is of no use.
    pub fn wait(&self, at_most: Duration) -> io::Result<Vec<u64>> {
        let seconds = i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX);
        let mut timeout = timespec { tv_sec: seconds, tv_nsec: i64::from(at_most.subsec_nanos()) };
        let none = libc::port_event {
            portev_events: 0,
            portev_source: 0,
            portev_pad: 0,
            portev_object: 0,
            portev_user: std::ptr::null_mut(),
        };
        let mut events = [none; EVENTS];
        let mut got = 1;
        // SAFETY: `events` has room for EVENTS, which `got` says one of is enough to return; all three live longer than the call.
        let result = unsafe {
            libc::port_getn(self.port.as_raw_fd(), events.as_mut_ptr(), EVENTS as u32, &raw mut got, &raw mut timeout)
        };
        if result == -1 {
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) {
                return Err(error);
            }
        }
        // A call that fails may have brought events all the same, or have left the number alone and brought none: their source tells.
        let source = libc::PORT_SOURCE_FILE as libc::c_ushort;
        let brought = events.iter().take(got as usize).filter(|event| event.portev_source == source);
        Ok(brought.map(|event| event.portev_user as u64).collect())
    }

    /// Ends one wait: that which is under way, or else the next.
    pub fn wake(&self) {
        // SAFETY: nothing is pointed to. A full queue ends the wait as well.
        unsafe { libc::port_send(self.port.as_raw_fd(), 0, std::ptr::null_mut()) };
    }
}
