//! Settings and manifests, parsed at the edge and carried on as types with exact source positions.
//!
//! What runs in here, from the outside in:
//!
//! ```text
//! reddwarfd.toml, REDDWARF_*, flags ──→ settings::Settings::load ──→ Settings            (settings)
//!
//! /usr/lib < /etc < /run reddwarf.d ──→ directory::Scanner::scan                         (directory)
//!      │ open by descriptor, no symlink out, owner, mode, size
//!      ├──→ document::parse_file: YAML, JSON, TOML ──→ Document{value, origin}           (document, yaml, json, toml)
//!      ├──→ directory: masking, drop-ins                                                 (directory::layers, dropin)
//!      └──→ check::check: kind, schema, validation, duplicates ──→ Declared{object, …}   (check)
//!
//! every refusal ──→ Diagnostic{code, position, what, why, help} ──→ one line, rustc style, JSON, SARIF  (diagnostic)
//! ```
//!
//! The other way round, [`emit_yaml`] writes a JSON value as the YAML that kubectl would show.
//!
//! Nothing here knows the store, a host or HTTP. Apart from [`settings::Settings::load`] and
//! [`directory::Scanner`], which read files, everything is a pure function.

pub mod check;
mod compact;
pub mod diagnostic;
pub mod directory;
pub mod document;
mod emit;
mod json;
pub mod limits;
mod node;
pub mod settings;
mod source;
mod toml_tables;
mod yaml;
mod yaml_errors;
mod yaml_scalar;

pub use check::{Checked, Declared, check};
pub use diagnostic::{Code, Diagnostic, Position, Severity};
pub use directory::{HeldLayer, Scan, Scanner, SourceFile, Verdict};
pub use document::{Document, Format, Origin, Source, parse_body, parse_file};
pub use emit::emit_yaml;
pub use limits::Limits;
pub use settings::{Cli, Settings};
