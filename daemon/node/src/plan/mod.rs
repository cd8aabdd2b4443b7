//! From what is wanted and what is found to what must be done: pure, total, the same for the same input.
//!
//! | file | decides |
//! |---|---|
//! | `view.rs` | what is there at this moment, by pod; whether unwanted sandboxes may go |
//! | `host.rs` | the pod network, left-overs |
//! | `pod.rs` | one pod: make, keep, change, make anew, or see that it has ended |
//! | `containers.rs` | one container: start, change, make sure |
//! | `restart.rs` | whether and when a container that ended is started again |
//! | `order.rs` | which containers come first, which wait; when a pod has come to its end |
//! | `backoff.rs` | how long a container that ends again and again waits |
//! | `pull.rs` | images that must be fetched first |
//! | `remove.rs` | graceful stop, destruction, and the release that follows it |
//! | `reservations.rs` | promises of addresses, and the claims of plans under way |
//! | `memory.rs` | failures to wait after |
//!
//! A plan never waits: what must be waited for ends it, and `wake` says when to plan again. Planning again after its
//! steps took effect continues where it ended, whatever happened in between; once all is as wanted it is empty.

mod backoff;
mod containers;
mod host;
mod memory;
mod order;
mod pod;
mod pull;
mod remove;
mod reservations;
mod resize;
mod restart;
mod step;
mod view;

pub use backoff::{BACKOFF_FIRST, BACKOFF_MOST, HEALTHY_AFTER, next_backoff, next_backoff_after};
pub use host::{HostPlan, plan_host};
pub use memory::{Deadline, Failure, Memory};
pub use pod::{PodPlan, plan_pod};
pub use pull::{PullFailure, Ticket, TicketState, Tickets, pull_secrets};
pub use reservations::{Holder, Reservations};
pub use step::{Effect, Notice, Op, Outlook, Plan, Resize, Step};
pub use view::{Index, NETWORK_NOT_READY, View};

use crate::desired::Desired;
use reddwarf_host::{BootTime, HostObservation};

/// Everything that is to be done now: the host's own steps, then what goes, then what comes, each in the order of the
/// pods' names.
pub fn plan(
    desired: &Desired,
    observed: &HostObservation,
    reservations: &Reservations,
    memory: &Memory,
    now: BootTime,
) -> Plan {
    let index = Index::of(observed);
    plan_with(desired, observed, &index, reservations, memory, now)
}

/// [`plan`] with the observation's index at hand.
pub(crate) fn plan_with(
    desired: &Desired,
    observed: &HostObservation,
    index: &Index,
    reservations: &Reservations,
    memory: &Memory,
    now: BootTime,
) -> Plan {
    let mut view = View::new(desired, observed, index, reservations, memory);
    let mut claims = reservations.clone();
    let host = plan_host(&view, reservations, now);
    if host.steps.iter().any(|s| matches!(s.op, Op::NetworkEnsure(_))) {
        view.network_is_planned();
    }
    let mut plan = Plan { steps: host.steps, host: host.notices, wake: host.wake, ..Plan::default() };
    let mut coming = Vec::new();
    for key in view.keys(&claims) {
        let pod = plan_pod(&view, &mut claims, &key, now);
        plan.wake = earliest(plan.wake, pod.outlook.wake);
        let goes = pod.steps.iter().any(|s| s.effect == Effect::Remove);
        if goes {
            plan.steps.extend(pod.steps)
        } else {
            coming.extend(pod.steps)
        }
        plan.pods.insert(key, pod.outlook);
    }
    plan.steps.extend(coming);
    plan
}

/// The earlier of two moments, where there are any.
pub(crate) fn earliest(a: Option<BootTime>, b: Option<BootTime>) -> Option<BootTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}
