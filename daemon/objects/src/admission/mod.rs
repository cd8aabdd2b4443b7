//! Rules that hold across objects, as pure functions: the registry and the controllers give them what they need to know.

pub mod quota;
