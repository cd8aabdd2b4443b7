//! A zone's way from any state to the one that is wanted.
//!
//! | file | holds |
//! |---|---|
//! | `state.rs` | the decision: from this state towards that goal, what comes next; pure |
//! | `config.rs` | what a sandbox's zone is configured as, for each brand; pure |
//! | `brand.rs` | brands: which there are, how they are installed and what they need |
//! | `commands.rs` | the runs of zoneadm and zonecfg |
//! | `drive.rs` | reads, decides, acts, reads again, until the goal is reached |
//! | `live.rs` | bounds of a zone that runs: what of a changed configuration it gets without a boot |
//! | `machine.rs` | what a pod says of its virtual machine; pure |
//! | `golden.rs` | template zones, one for each brand, that pods' zones are cloned from |

pub mod brand;
pub(crate) mod commands;
pub(crate) mod config;
pub(crate) mod drive;
pub(crate) mod golden;
pub(crate) mod live;
pub(crate) mod machine;
pub mod state;
#[cfg(test)]
mod tests;
