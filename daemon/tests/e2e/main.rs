//! The real daemon, real containers, the real client, as root, in worlds of their own.
//!
//! `REDDWARF_KEEP=1` keeps a failed test's directory.

mod crash;
mod directory;
mod docs;
mod harness;
mod history;
mod lifecycle;
mod pods;
mod surface;
