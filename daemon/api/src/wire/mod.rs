//! Requests as they come over the wire, answers in the form asked for, and `Status` objects for what goes wrong.

pub(crate) mod accept;
pub(crate) mod answer;
pub(crate) mod decode;
pub(crate) mod error;
pub(crate) mod frames;
pub(crate) mod patch;
pub(crate) mod render;
pub(crate) mod request;
pub(crate) mod rows;
pub(crate) mod strict;
pub(crate) mod syntax;
pub(crate) mod table;
