//! The program itself against recorded answers: what a user sees, and how it ends.

// A failed step of a test is a failed test; the program under test is run as a user runs it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod objects;
mod reports;
mod server;
mod streams;
