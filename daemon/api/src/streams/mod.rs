//! Streams to and from containers.

pub(crate) mod exec;
pub(crate) mod logs;
