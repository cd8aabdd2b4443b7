//! The daemon's heap kept near what it uses: glibc would give each of its threads an arena of its own and keep what they
//! free (mallopt(3), malloc_trim(3)). Other C libraries have no such knobs and need none.

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

/// Hands what is free inside of the heap back to the kernel; takes about a millisecond.
#[allow(unsafe_code)]
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no preconditions and takes the arenas' locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
