//! Requests as they come over the wire, and `Status` objects for what goes wrong.

pub(crate) mod decode;
pub(crate) mod error;
pub(crate) mod request;
pub(crate) mod strict;
