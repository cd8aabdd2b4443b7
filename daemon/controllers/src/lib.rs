//! Loops that turn objects into objects. None of them knows a host.
//!
//! | task | reads | writes |
//! |---|---|---|
//! | [`directory`] | the manifest directories (by [`watch`] and a periodic look), the registry | one registry transaction and one generation for every change |
//!
//! [`guard`] is the pure brake on mass deletion that `directory` applies.

pub mod directory;
pub mod guard;
pub mod watch;
