//! zonecfg(8): a zone's configuration as a value, the command files that make and change it, and what `export` prints.
//!
//! | file | holds |
//! |---|---|
//! | `value.rs` | values and names that the grammar can express |
//! | `config.rs` | [`ZoneConfig`] and its resources |
//! | `script.rs` | the file that makes a configuration from nothing |
//! | `edit.rs` | the smallest file from one configuration to another |
//! | `grammar.rs` | text → statements, as strict as the real one |
//! | `interpret.rs` | statements → configuration: reads exports back, holds our own files to their meaning |

mod config;
mod edit;
mod grammar;
mod interpret;
mod script;
mod value;

#[cfg(test)]
mod tests;

pub use config::{Attr, AttrKind, Fs, Memory, Net, RctlAction, RctlPriv, RctlValue, SecurityFlags, ZoneConfig};
pub use edit::{Edit, Rebuild, edit};
pub use grammar::{Argument, GrammarError, Statement, Value, statements};
pub use interpret::{InterpretError, export, interpret};
pub use script::create;
pub use value::{AttrName, CpuCap, RctlName, Text, ValueError};

/// What this thread did, for the test that bounds it by counts.
#[cfg(test)]
mod work {
    use std::cell::Cell;

    thread_local! {
        /// Statements that were read.
        pub(super) static READ: Cell<usize> = const { Cell::new(0) };
        /// Statements that were written.
        pub(super) static WRITTEN: Cell<usize> = const { Cell::new(0) };
    }
}
