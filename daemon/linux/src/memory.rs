//! The daemon's memory kept near what it uses: glibc would give each of its threads an arena of its own and keep what they
//! free (mallopt(3), malloc_trim(3)), and the kernel maps whole runs of the program's code around each page that was ever
//! needed. Other C libraries have no such knobs and need none.

use reddwarf_supervise::files::read_kernel_file;
use std::ops::Range;
use std::sync::OnceLock;

/// Few arenas, and freed memory goes back early. To be called before there are threads.
#[allow(unsafe_code)]
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) with plain integers, before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Setting it also stops glibc from raising it with each big block that is freed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 * 1024);
    }
}

/// What is worth the page faults that follow, in pages.
const WORTHWHILE: u64 = 1024;
/// Rounds between two tries when what was handed back always comes back: with one each 10 s, a minute. So what a full pass
/// needs of the code stays for some seconds of each; the next one brings it back from the page cache.
const PAUSE: u32 = 6;

/// Hands memory back to the kernel when it is worth it. One for a process.
#[derive(Debug, Default)]
pub struct Thrift {
    /// Resident pages right before the last time and right after it.
    before: u64,
    after: u64,
    /// Rounds until the next try that nothing but time asks for.
    pause: u32,
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
    /// resident than ever before the last time (a burst is over), and once more in the next round, as it may have gone on.
    /// Later only code: what is free in the heap of an idle daemon is used by its next full pass, and the
    /// kernel's zeroing of new pages costs more than all the rest of that pass. To be called every few seconds. Takes about a
    /// millisecond; what runs again costs its page faults.
    pub fn give_back(&mut self) {
        match self.due(resident_pages()) {
            Due::Nothing => return,
            Due::Code => {}
            Due::CodeAndHeap => give_back_heap(),
        }
        give_back_code();
        self.after = resident_pages();
    }

    fn due(&mut self, resident: u64) -> Due {
        let burst = resident >= self.before.saturating_add(WORTHWHILE);
        self.pause = self.pause.saturating_sub(1);
        if !burst && (self.pause > 0 || resident < self.after.saturating_add(WORTHWHILE)) {
            return Due::Nothing;
        }
        let due = if burst || self.after_burst { Due::CodeAndHeap } else { Due::Code };
        self.after_burst = burst;
        self.pause = if burst { 1 } else { PAUSE };
        self.before = resident;
        due
    }
}

/// Resident pages of this process (proc_pid_statm(5)); nothing where that can't be read.
fn resident_pages() -> u64 {
    let statm = read_kernel_file("/proc/self/statm").unwrap_or_default();
    statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// Takes the program's code and constants out of this process: what is needed again comes back from the page cache at its
/// first use. Most of it was only needed to start (the list of addresses that the loader put in place is a megabyte or two
/// of it), or for requests that nobody makes now.
#[allow(unsafe_code)]
fn give_back_code() {
    static CODE: OnceLock<Vec<Range<usize>>> = OnceLock::new();
    let code = CODE.get_or_init(|| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        unwritten_mappings(&maps, give_back_code as *const () as usize)
    });
    for range in code {
        // SAFETY: the range is a private, never written mapping of this program's own file, which the loader made and nobody
        // unmaps: dropping its pages only means that they are read from the file again (madvise(2)).
        unsafe {
            libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED);
        }
    }
}

/// The mappings of the file that holds the code at `address` which nobody ever writes, from the text of proc_pid_maps(5): the one
/// with that code, and the one that begins the file. Other read-only ones may be what the loader wrote and then protected.
fn unwritten_mappings(maps: &str, address: usize) -> Vec<Range<usize>> {
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
    let Some(code) = mappings.iter().find(|m| m.mode == "r-xp" && m.range.contains(&address)) else {
        return Vec::new();
    };
    let begins =
        |m: &&Mapping<'_>| m.mode == "r--p" && m.file == code.file && m.offset.trim_start_matches('0').is_empty();
    mappings.iter().find(begins).into_iter().chain([code]).map(|m| m.range.clone()).collect()
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
                    6000-7000 rw-p 00005000 fe:00 7 /bin/x\n7000-8000 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(unwritten_mappings(maps, 0x2abc), [0x1000..0x2000, 0x2000..0x5000]);
        for elsewhere in [0x1000, 0x5000, 0x6000, 0x7000, 0x9000] {
            assert!(unwritten_mappings(maps, elsewhere).is_empty(), "{elsewhere:x}");
        }
        assert!(unwritten_mappings("nonsense\n", 0).is_empty());
    }

    /// Rounds in which memory is given back, when `resident` pages are there before each and `kept` after giving back.
    fn rounds(thrift: &mut Thrift, resident: &[u64], kept: u64) -> Vec<(usize, Due)> {
        let mut done = Vec::new();
        for (round, &pages) in resident.iter().enumerate() {
            let due = thrift.due(pages);
            if due != Due::Nothing {
                thrift.after = kept;
                done.push((round, due));
            }
        }
        done
    }

    #[test]
    fn what_comes_back_is_given_back_less_often_and_without_the_heap() {
        let mut thrift = Thrift::default();
        let (all, code) = (Due::CodeAndHeap, Due::Code);
        let done = rounds(&mut thrift, &[8000; 18], 5000);
        assert_eq!(done, [(0, all), (1, all), (7, code), (13, code)]);
        let burst = rounds(&mut thrift, &[8000, 12_000, 9000, 9000], 5000);
        assert_eq!(burst, [(1, all), (2, all)], "a burst is given back at once");
        assert!(rounds(&mut thrift, &[5000 + WORTHWHILE - 1; 10], 5000).is_empty(), "too little to be worth it");
    }

    #[test]
    fn memory_is_given_back_for_real() {
        let mut thrift = Thrift::default();
        thrift.give_back();
        assert!(thrift.after > 0 && thrift.before >= WORTHWHILE);
    }

    #[test]
    fn code_that_was_given_back_still_runs() {
        give_back_code();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let given = unwritten_mappings(&maps, give_back_code as *const () as usize);
        assert!(given.iter().all(|range| !range.is_empty()) && !given.is_empty());
    }
}
