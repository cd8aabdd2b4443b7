//! Connections and requests: from accept to the route that answers, with limits around everything.

pub(crate) mod alone;
pub(crate) mod body;
pub(crate) mod counters;
pub(crate) mod dispatch;
pub(crate) mod gather;
pub(crate) mod health;
pub(crate) mod listeners;
pub(crate) mod server;
pub(crate) mod socket;
pub(crate) mod stall;
pub(crate) mod tls;
