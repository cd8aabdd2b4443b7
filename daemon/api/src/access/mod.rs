//! Who asks and what they may do.

pub(crate) mod policy;
pub(crate) mod principal;
