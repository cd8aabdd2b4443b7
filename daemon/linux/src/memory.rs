//! The daemon's memory kept near what it uses: glibc would give each of its threads an arena of its own and keep what they
//! free (mallopt(3), malloc_trim(3)), and the kernel maps whole runs of the program's code around each page that was ever
//! needed. Other C libraries have no such knobs and need none.

use reddwarf_supervise::files::read_kernel_file;
use std::ops::Range;
use std::sync::OnceLock;

/// What the C library reads only while it starts, from this variable (the manual of glibc, "Tunables").
#[cfg(target_env = "gnu")]
const TUNABLES: &str = "GLIBC_TUNABLES";
/// Each thread keeps freed blocks for itself, seven of each size up to a kilobyte as is usual: with them two to three megabytes of an idle
/// daemon are neither used nor given back. Small ones, most of those that a request needs, cost little: more of these.
#[cfg(target_env = "gnu")]
const TUNED: &str = "glibc.malloc.tcache_max=128:glibc.malloc.tcache_count=64";

/// Two arenas, threads that keep little, and freed memory goes back early. To be called before there are threads, and before anything
/// loads libraries or takes over descriptors: where the C library is not told yet, this starts the program anew, in the same process.
/// Whoever sets `GLIBC_TUNABLES` has it his way.
#[allow(unsafe_code)]
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    if std::env::var_os(TUNABLES).is_none() && !is_privileged() {
        start_anew();
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) with plain integers, before any other thread exists.
    unsafe {
        // With one, the threads that answer requests wait for each other in it: up to 28 times in a write.
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Setting it also stops glibc from raising it with each big block that is freed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 * 1024);
    }
    linked_code();
}

/// Whether the program runs with other rights than who started it: the C library takes no such settings then, and may remove them.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn is_privileged() -> bool {
    // SAFETY: getauxval(3) only reads what the kernel gave to this process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Returns only where that can't be done: the program's file was replaced or removed just now.
#[cfg(target_env = "gnu")]
#[expect(clippy::disallowed_methods, reason = "no tool: this program, in this process")]
fn start_anew() {
    use std::os::unix::process::CommandExt;
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    let _why_not = std::process::Command::new(program).arg0(name).args(arguments).env(TUNABLES, TUNED).exec();
}

/// The mappings that [`give_back_code`] empties. First asked for while only what the program is linked with is mapped:
/// that stays mapped until the end, while a library that was loaded later may be unloaded, and its place be used anew.
fn linked_code() -> &'static [Range<usize>] {
    static CODE: OnceLock<Vec<Range<usize>>> = OnceLock::new();
    CODE.get_or_init(|| unwritten_mappings(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default()))
}

/// Resident pages that it is worth the page faults to hand back, if nothing better is known.
const WORTHWHILE: u64 = 1024;
/// The same beyond what each round brings back at once.
const MORE: u64 = 384;
/// So many beyond that are a burst and no full pass.
const BURST: u64 = 1536;
/// So many beyond what was left the last time are a burst even if they were there in the round that shows what comes back at once.
const LARGE: u64 = 3584;
/// Rounds at least from one time to the next that no burst asks for: once after a full pass and once after a scan of the files, each of which
/// comes every minute, half a minute apart. A round is 8 s.
const PAUSE: u32 = 4;
/// Rounds after which what each round brings back is looked for anew: a full pass, or the end of a burst, may have fallen into
/// that round. More than there are from one full pass to the next.
const LONG: u32 = 9;

/// Hands memory back to the kernel when it is worth it. One for a process.
#[derive(Debug, Default)]
pub struct Thrift {
    /// Resident pages right after the last time; `None` before the first.
    after: Option<u64>,
    /// Resident pages a round later: what is always needed has come back by then.
    settled: Option<u64>,
    /// Resident pages in the last round.
    last: u64,
    /// Rounds since the last time.
    rounds: u32,
    /// The last time was for a burst.
    after_burst: bool,
}

/// What is worth it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Code,
    CodeAndHeap,
}

impl Thrift {
    /// Hands back the code that has not run lately, and what is free inside of the heap: at once when some megabytes more are
    /// resident than usual (a burst is over), and once more in the next round, as it may have gone on. Otherwise only code,
    /// when what a full pass needed of it is no longer in use: what is free in the heap of an idle daemon is used by its next
    /// full pass, and the kernel's zeroing of new pages costs more than all the rest of that pass. To be called every few
    /// seconds. Takes about a millisecond; what runs again costs its page faults.
    pub fn give_back(&mut self) {
        match self.due(resident_pages()) {
            Due::Nothing => return,
            Due::Code => {}
            Due::CodeAndHeap => give_back_heap(),
        }
        give_back_code();
        self.after = Some(resident_pages());
    }

    fn due(&mut self, resident: u64) -> Due {
        let rising = resident > self.last.saturating_add(MORE / 4);
        self.last = resident;
        self.rounds += 1;
        let due = match self.after {
            None => Due::CodeAndHeap,
            Some(_) if self.after_burst => Due::CodeAndHeap,
            Some(after) => {
                let settled = *self.settled.get_or_insert(resident);
                let more = resident.saturating_sub(settled);
                let again = self.rounds >= LONG && resident >= after.saturating_add(WORTHWHILE);
                match () {
                    () if more >= BURST || resident >= after.saturating_add(LARGE) => Due::CodeAndHeap,
                    () if !rising && (again || self.rounds >= PAUSE && more >= MORE) => Due::Code,
                    () => return Due::Nothing,
                }
            }
        };
        self.after_burst = due == Due::CodeAndHeap && !self.after_burst;
        self.rounds = 0;
        self.settled = None;
        due
    }
}

/// Resident pages of this process (proc_pid_statm(5)); nothing where that can't be read.
fn resident_pages() -> u64 {
    let statm = read_kernel_file("/proc/self/statm").unwrap_or_default();
    statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// Takes code and constants, of the program and of the libraries that it uses, out of this process: what is needed again
/// comes back from the page cache at its first use. Most of it was only needed to start (the list of addresses that the
/// loader put in place is a megabyte or two of it), or for requests that nobody makes now.
#[allow(unsafe_code)]
fn give_back_code() {
    for range in linked_code() {
        // SAFETY: the range is a private, never written mapping of a file, which the loader made and nobody unmaps
        // (linked_code): dropping its pages only means that they are read from the file again (madvise(2)).
        unsafe {
            libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED);
        }
    }
}

/// The mappings of programs' and libraries' files which nobody ever writes, from the text of proc_pid_maps(5): the ones with
/// code, and the ones that begin those files. Other read-only ones may be what the loader wrote and then protected.
fn unwritten_mappings(maps: &str) -> Vec<Range<usize>> {
    struct Mapping<'m> {
        range: Range<usize>,
        mode: &'m str,
        offset: &'m str,
        file: (&'m str, &'m str),
    }
    let mappings: Vec<Mapping<'_>> = maps
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (range, mode, offset) = (fields.next()?, fields.next()?, fields.next()?);
            let file = (fields.next()?, fields.next().filter(|inode| *inode != "0")?);
            let (start, end) = range.split_once('-')?;
            let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
            Some(Mapping { range, mode, offset, file })
        })
        .collect();
    let is_code = |m: &Mapping<'_>| m.mode == "r-xp";
    let begins = |m: &Mapping<'_>| {
        let first = m.mode == "r--p" && m.offset.trim_start_matches('0').is_empty();
        first && mappings.iter().any(|other| is_code(other) && other.file == m.file)
    };
    mappings.iter().filter(|m| is_code(m) || begins(m)).map(|m| m.range.clone()).collect()
}

#[allow(unsafe_code)]
fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no preconditions and takes the arenas' locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_writes_is_given_back() {
        let maps = "500-1000 r--p 00000000 fe:00 6 /bin/y\n1000-2000 r--p 00000000 fe:00 7 /bin/x\n\
                    2000-5000 r-xp 00001000 fe:00 7 /bin/x\n5000-6000 r--p 00004000 fe:00 7 /bin/x\n\
                    6000-7000 rw-p 00005000 fe:00 7 /bin/x\n7000-8000 r-xp 00000000 00:00 0 [vdso]\n\
                    8000-9000 r-xp 00001000 fe:00 8 /lib/l.so\n9000-a000 rwxp 00000000 fe:00 8 /lib/l.so\n";
        assert_eq!(unwritten_mappings(maps), [0x1000..0x2000, 0x2000..0x5000, 0x8000..0x9000]);
        assert!(unwritten_mappings("nonsense\n").is_empty());
    }

    /// Rounds in which memory is given back, when `resident` pages are there before each and `kept` after giving back.
    fn rounds(thrift: &mut Thrift, resident: &[u64], kept: u64) -> Vec<(usize, Due)> {
        let mut done = Vec::new();
        for (round, &pages) in resident.iter().enumerate() {
            let due = thrift.due(pages);
            if due != Due::Nothing {
                thrift.after = Some(kept);
                done.push((round, due));
            }
        }
        done
    }

    const ALL: Due = Due::CodeAndHeap;

    #[test]
    fn the_start_and_every_burst_are_given_back_at_once_and_once_more() {
        let mut thrift = Thrift::default();
        assert_eq!(rounds(&mut thrift, &[10_000, 7000, 7000, 7000], 5000), [(0, ALL), (1, ALL)]);
        let burst = rounds(&mut thrift, &[7000, 12_000, 9000, 7000, 7000], 5000);
        assert_eq!(burst, [(1, ALL), (2, ALL)]);
    }

    #[test]
    fn a_burst_right_after_the_start_is_given_back_at_once_and_once_more() {
        let mut thrift = Thrift::default();
        let done = rounds(&mut thrift, &[3000, 3000, 9500, 9000, 5000, 5000], 2000);
        assert_eq!(done, [(0, ALL), (1, ALL), (2, ALL), (3, ALL)]);
    }

    #[test]
    fn what_a_full_pass_needed_goes_when_it_is_over_and_what_each_round_needs_stays() {
        let mut thrift = Thrift::default();
        rounds(&mut thrift, &[10_000, 7000], 5000);
        let minute = [7000, 7050, 7050, 7050, 7800, 8100, 8100, 7000];
        assert_eq!(rounds(&mut thrift, &minute, 5000), [(6, Due::Code)]);
        let mut hours = minute.repeat(60);
        assert_eq!(rounds(&mut thrift, &hours, 5000).len(), 60, "once for each pass");
        hours.fill(7000);
        assert!(rounds(&mut thrift, &hours, 6500).len() <= 1, "too little to be worth it");
    }

    #[test]
    fn a_pass_that_fell_into_the_round_after_it_is_given_back_nevertheless() {
        let mut thrift = Thrift::default();
        rounds(&mut thrift, &[10_000, 7000], 5000);
        let done = rounds(&mut thrift, &[8100; LONG as usize + 3], 5000);
        assert_eq!(done, [(LONG as usize - 1, Due::Code)]);
    }

    #[test]
    fn memory_is_given_back_for_real() {
        let mut thrift = Thrift::default();
        thrift.give_back();
        assert!(thrift.after.is_some_and(|pages| pages > 0) && thrift.last > 0);
    }

    #[test]
    fn code_that_was_given_back_still_runs() {
        give_back_code();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let given = unwritten_mappings(&maps);
        assert!(given.iter().any(|range| range.contains(&(give_back_code as *const () as usize))));
    }
}
