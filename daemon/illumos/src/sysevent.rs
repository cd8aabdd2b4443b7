//! The kernel's channel of changes of zones' states: `com.sun:zones:status`, by libsysevent's event channels (`<sys/sysevent.h>`,
//! `<sys/zone.h>`; sysevent_get_attr_list(3SYSEVENT), libnvpair(3LIB)).
//!
//! The functions for channels are private to the system. So the libraries are opened at run time: where a function is missing, or the
//! right, the daemon starts all the same and polls.

#![allow(unsafe_code, reason = "a C library's calls; each says what it relies on")]

use crate::zone_events::{ZoneChange, ZoneTeller};
use libc::{c_char, c_int, c_void};
use nix::sys::signal::SigSet;
use std::ffi::{CStr, CString};
use std::mem::transmute;
use std::sync::atomic::{AtomicU32, Ordering};

const CHANNEL: &CStr = c"com.sun:zones:status";
const CLASS: &CStr = c"status";
const SUBCLASS: &CStr = c"change";
const NAME: &CStr = c"zonename";
const OLD: &CStr = c"oldstate";
const NEW: &CStr = c"newstate";

/// To something of the libraries', or of ours that they hand back.
type Pointer = *mut c_void;

type Callback = extern "C" fn(event: Pointer, cookie: Pointer) -> c_int;

type Bind = unsafe extern "C" fn(channel: *const c_char, handle: *mut Pointer, flags: u32) -> c_int;
type Unbind = unsafe extern "C" fn(handle: Pointer) -> c_int;
type Subscribe = unsafe extern "C" fn(
    handle: Pointer,
    subscriber: *const c_char,
    class: *const c_char,
    callback: Callback,
    cookie: Pointer,
    flags: u32,
) -> c_int;
type Subclass = unsafe extern "C" fn(event: Pointer) -> *const c_char;
type Attributes = unsafe extern "C" fn(event: Pointer, list: *mut Pointer) -> c_int;
type LookUp = unsafe extern "C" fn(list: Pointer, name: *const c_char, value: *mut *const c_char) -> c_int;
type Free = unsafe extern "C" fn(list: Pointer);

/// The libraries' functions.
#[derive(Clone, Copy)]
struct Calls {
    bind: Bind,
    unbind: Unbind,
    subscribe: Subscribe,
    subclass: Subclass,
    attributes: Attributes,
    string: LookUp,
    free: Free,
}

/// What the callback is given.
struct Cookie {
    calls: Calls,
    teller: ZoneTeller,
}

/// A subscription; it ends with this value.
pub(crate) struct Subscription {
    calls: Calls,
    handle: Pointer,
    cookie: *mut Cookie,
}

// SAFETY: the library locks its handle; the cookie is only read, and what it holds may be used by several threads.
unsafe impl Send for Subscription {}
// SAFETY: nothing can be done with a shared one.
unsafe impl Sync for Subscription {}

impl Drop for Subscription {
    fn drop(&mut self) {
        // SAFETY: the handle is the library's own and not used again. It waits for calls of ours that are under way, which never wait;
        // afterwards, and only if it worked, nobody has the cookie any more.
        unsafe {
            if (self.calls.unbind)(self.handle) == 0 {
                drop(Box::from_raw(self.cookie));
            }
        }
    }
}

/// Has `teller` told of every change from now on.
///
/// # Errors
/// Why that can't be had, for people.
pub(crate) fn subscribe(teller: ZoneTeller) -> Result<Subscription, String> {
    // The library's threads take over the signals that this one does not take: signals are for the daemon's own.
    let thread = std::thread::Builder::new().name("sysevent".to_owned()).spawn(move || {
        let _ = SigSet::all().thread_block();
        begin(teller)
    });
    let thread = thread.map_err(|e| format!("no thread: {e}"))?;
    thread.join().map_err(|_| "libsysevent failed".to_owned())?
}

fn begin(teller: ZoneTeller) -> Result<Subscription, String> {
    /// Tells subscriptions of this process apart.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let calls = load()?;
    let mut handle = std::ptr::null_mut();
    // SAFETY: the name is a C string, the handle's place is ours. No flags: the kernel made the channel.
    let result = unsafe { (calls.bind)(CHANNEL.as_ptr(), &raw mut handle, 0) };
    if result != 0 || handle.is_null() {
        return Err(format!("sysevent_evc_bind: {}", nix::errno::Errno::from_raw(result).desc()));
    }
    let cookie = Box::into_raw(Box::new(Cookie { calls, teller }));
    // From here on whatever happens is undone by dropping it.
    let subscription = Subscription { calls, handle, cookie };
    // 15 characters at most, and never the same twice (MAX_SUBID_LEN).
    let count = COUNT.fetch_add(1, Ordering::Relaxed) % 1000;
    let name = CString::new(format!("rw{}.{count}", std::process::id())).map_err(|e| e.to_string())?;
    // SAFETY: both names are C strings, copied by the call; the cookie lives until after the channel was left.
    let result = unsafe { (calls.subscribe)(handle, name.as_ptr(), CLASS.as_ptr(), told, cookie.cast(), 0) };
    if result != 0 {
        return Err(format!("sysevent_evc_subscribe: {}", nix::errno::Errno::from_raw(result).desc()));
    }
    Ok(subscription)
}

/// Called by a thread of the library's for each event. It neither waits nor panics; 0: this event is dealt with.
extern "C" fn told(event: Pointer, cookie: Pointer) -> c_int {
    // SAFETY: the cookie is that of `begin`, which outlives the subscription; events are the library's and live during this call, the
    // strings in the list as long as that; both are looked at as the library's headers say.
    unsafe {
        let Cookie { calls, teller } = &*cookie.cast::<Cookie>();
        let subclass = (calls.subclass)(event);
        if subclass.is_null() || CStr::from_ptr(subclass) != SUBCLASS {
            return 0;
        }
        let mut list = std::ptr::null_mut();
        if (calls.attributes)(event, &raw mut list) != 0 || list.is_null() {
            teller.tell_lost();
            return 0;
        }
        let word = |name: &CStr| {
            let mut value = std::ptr::null();
            let found = (calls.string)(list, name.as_ptr(), &raw mut value) == 0 && !value.is_null();
            found.then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
        };
        match (word(NAME), word(OLD), word(NEW)) {
            (Some(zone), Some(from), Some(to)) => teller.tell(ZoneChange { zone, from, to }),
            _ => teller.tell_lost(),
        }
        (calls.free)(list);
    }
    0
}

fn load() -> Result<Calls, String> {
    let events = open(c"libsysevent.so.1")?;
    let lists = open(c"libnvpair.so.1")?;
    // SAFETY: each is the function of that name, whose type in the system's headers is that of the field, as far as C's calls go.
    unsafe {
        Ok(Calls {
            bind: transmute::<Pointer, Bind>(find(events, c"sysevent_evc_bind")?),
            unbind: transmute::<Pointer, Unbind>(find(events, c"sysevent_evc_unbind")?),
            subscribe: transmute::<Pointer, Subscribe>(find(events, c"sysevent_evc_subscribe")?),
            subclass: transmute::<Pointer, Subclass>(find(events, c"sysevent_get_subclass_name")?),
            attributes: transmute::<Pointer, Attributes>(find(events, c"sysevent_get_attr_list")?),
            string: transmute::<Pointer, LookUp>(find(lists, c"nvlist_lookup_string")?),
            free: transmute::<Pointer, Free>(find(lists, c"nvlist_free")?),
        })
    }
}

/// A library, which stays open.
fn open(name: &CStr) -> Result<Pointer, String> {
    // SAFETY: the name is a C string without a slash: it is looked for where the system's libraries are.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() { Err(format!("there is no {}", name.to_string_lossy())) } else { Ok(library) }
}

fn find(library: Pointer, name: &CStr) -> Result<Pointer, String> {
    // SAFETY: the library is open, the name a C string.
    let function = unsafe { libc::dlsym(library, name.as_ptr()) };
    if function.is_null() { Err(format!("there is no {}", name.to_string_lossy())) } else { Ok(function) }
}
