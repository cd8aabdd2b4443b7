//! What `RuntimeDefault` allows: what ordinary programs need, and nothing that reaches the host's kernel beyond it.
//!
//! Refused are calls that concern the machine as a whole (modules, time, swap, reboot, accounting), other namespaces
//! (mount, setns, unshare, new namespaces by clone), what is not kept apart by namespaces (keyrings, perf, BPF) and
//! what has often been a way out (userfaultfd, io_uring, kernel crypto and VM sockets). A capability that a container
//! was given brings the calls that need it. The same choice as docker's and containerd's.

use super::profile::{Action, Compare, Condition, Profile, Rule};
use std::collections::BTreeSet;

/// Allowed to all.
const ALLOWED: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod \
    chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create \
    epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve \
    execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat \
    fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork \
    fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue \
    futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents \
    getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid \
    getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid \
    getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup \
    io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self \
    lchown lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr \
    lsm_get_self_attr lsm_list_modules lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret \
    mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify \
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget \
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause \
    pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 \
    preadv preadv2 prlimit64 process_madvise process_mrelease process_vm_readv process_vm_writev pselect6 \
    pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir \
    rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity \
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop \
    semtimedop semtimedop_time64 sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area \
    set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid \
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid \
    setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaction sigaltstack signal \
    signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend socketpair splice stat stat64 statfs statfs64 statx \
    symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun \
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
    timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe \
    utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Allowed to those who have the capability.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
    (
        SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie \
        lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl \
        quotactl_fd setdomainname sethostname setns statmount syslog umount umount2 unshare",
    ),
];

const SYS_ADMIN: &str = "SYS_ADMIN";

/// CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID and -NET (sched.h).
const NEW_NAMESPACES: u64 = 0x7E02_0000;

/// personality(2) without what makes addresses predictable: Linux, 32-bit Linux, both with UNAME26, and "tell me".
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xFFFF_FFFF];

/// The kernel's crypto interface and virtual machine sockets (address families of socket.h).
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// The profile for a container that holds `capabilities` (names without `CAP_`).
pub(super) fn profile(capabilities: &BTreeSet<&str>) -> Profile {
    let mut rules = vec![Rule::plain(ALLOWED, Action::Allow)];
    for (_, calls) in BY_CAPABILITY.iter().filter(|(capability, _)| capabilities.contains(capability)) {
        rules.push(Rule::plain(calls, Action::Allow));
    }
    let when = |calls: &str, index, compare, value| Rule {
        conditions: vec![Condition { index, compare, value }],
        ..Rule::plain(calls, Action::Allow)
    };
    if !capabilities.contains(SYS_ADMIN) {
        rules.push(when("clone", 0, Compare::MaskedEqual { mask: NEW_NAMESPACES }, 0));
        // Its flags lie in memory, where no filter reaches: C libraries then fall back on clone.
        rules.push(Rule::plain("clone3", Action::Errno(ENOSYS)));
    }
    for personality in PERSONALITIES {
        rules.push(when("personality", 0, Compare::Equal, personality));
    }
    rules.push(when("socket", 0, Compare::Less, AF_ALG));
    rules.push(when("socket", 0, Compare::Equal, AF_ALG + 1));
    rules.push(when("socket", 0, Compare::Greater, AF_VSOCK));
    // The 32-bit way around the rule above; C libraries have called socket itself since Linux 4.3.
    rules.push(Rule::plain("socketcall", Action::Errno(ENOSYS)));
    Profile { default: Action::Errno(EPERM), rules, log: false }
}

const EPERM: u16 = libc::EPERM as u16;
pub(super) const ENOSYS: u16 = libc::ENOSYS as u16;

#[cfg(test)]
mod tests {
    use super::super::syscalls::Abi;
    use super::*;

    #[test]
    fn every_name_is_a_system_call_of_some_machine() {
        let gated = BY_CAPABILITY.iter().flat_map(|(_, calls)| calls.split_whitespace());
        for name in ALLOWED.split_whitespace().chain(gated) {
            let known = [Abi::X86_64, Abi::I386, Abi::Aarch64].iter().any(|abi| abi.number(name).is_some());
            assert!(known, "{name}");
        }
    }

    #[test]
    fn no_call_is_both_open_to_all_and_bound_to_a_capability() {
        let open: BTreeSet<&str> = ALLOWED.split_whitespace().collect();
        for (capability, calls) in BY_CAPABILITY {
            for call in calls.split_whitespace() {
                assert!(!open.contains(call), "{call} ({capability})");
            }
        }
    }
}
