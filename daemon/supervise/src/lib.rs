//! What the supervisors of containers and the hosts behind them have in common on Linux and illumos.
//!
//! | module | holds |
//! |---|---|
//! | [`log`] | the CRI log format, cut into lines and rotated |
//! | [`record`] | what daemon and supervisors write down: marks, moments, ends |
//! | [`instance`] | where an instance's records lie, and what they mean together |
//! | [`program`] | a supervisor's argument, streams and one word |
//! | [`termination`] | a container's last words |
//! | [`lock`] | locks that tell whether a supervisor lives |
//! | [`file_system`] | what there is room for |
//! | [`files`] | small files, written whole or not at all |
//! | [`tree`], [`mounted`] | trees that containers wrote to, removed; what is mounted where |
//! | [`kept`] | what files and directories said, until they are written to again |
//! | [`files_volume`], [`ownership`] | volumes given by content; the group that owns volumes |
//! | [`etc`] | hosts and resolv.conf of a sandbox |
//! | [`user`], [`env_file`] | users of an image; variables from files |
//! | [`dial`] | connections from the host itself |
//! | [`turns`] | one call at a time for each sandbox |
//!
//! Nothing here starts a process or knows a system's own calls.

pub mod dial;
pub mod env_file;
pub mod etc;
pub mod file_system;
pub mod files;
pub mod files_volume;
pub mod instance;
pub mod kept;
pub mod lock;
pub mod log;
pub mod mounted;
pub mod ownership;
pub mod program;
pub mod record;
pub mod termination;
pub mod tree;
pub mod turns;
pub mod user;
