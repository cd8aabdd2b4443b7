//! illumos zones as values: what is given to the system's tools, and what they print, built and parsed by types.
//!
//! ```text
//! ZoneConfig ──canonical──→ Canonical ──diff──→ Edit ──render──→ a zonecfg command file
//!                               ↑
//! zonecfg export ──grammar──→ export::parse          zoneadm list -cp ──→ zoneadm::list
//! ```
//!
//! Nothing runs here yet: this crate holds the texts, so that they compile and are tested on every system. The host
//! that drives them through one command runner builds on it.
//!
//! | module | holds |
//! |---|---|
//! | [`zonecfg`] | configurations, the command files that make them, the grammar, the smallest edit between two |
//! | [`zoneadm`] | zones' states and the list of zones |
//! | [`dladm`] | etherstubs and VNICs |
//! | [`ipadm`] | addresses of the global zone, forwarding |
//! | [`ipnat`] | address translation: rules, and what to add and take away |
//! | [`zfs`] | datasets, snapshots, clones, properties |
//! | [`zlogin`] | commands inside of zones |
//! | [`parsable`] | fields as `zoneadm list -p` and `dladm … -p -o` escape them |

pub mod dladm;
pub mod ipadm;
pub mod ipnat;
pub mod parsable;
pub mod zfs;
pub mod zlogin;
pub mod zoneadm;
pub mod zonecfg;
