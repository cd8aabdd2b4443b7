//! Who asks and what they may do. A request passes
//!
//! ```text
//!  Origin + headers ─ authenticate ─→ Authenticated ─ authorise ─→ Authorised ─ Call::new ─→ a handler
//!  (socket, TLS)      who is it?                      may they?                  ─ admit ─→ Author ─→ Registry
//! ```
//!
//! and each type can be made only by the step before it, so that no handler can be reached without.
//!
//! | to know | look in |
//! |---|---|
//! | who is who: users, groups, roles | [`principal`] |
//! | who is it | [`authenticate`]; by [`certificates`], by [`tokens`], as a ServiceAccount: [`service_account`] |
//! | what a request is about: verb, resource, path | [`attributes`] |
//! | whom they act as | [`impersonate`] |
//! | may they | [`authorise`], by roles and bindings [`rbac`] |
//! | what they ask about that | [`reviews`] |
//! | what is kept of it | [`audit`] |
//! | what may be written | [`admit`]; into pods: [`policy`] |

pub(crate) mod admit;
pub(crate) mod attributes;
pub(crate) mod audit;
pub(crate) mod authenticate;
pub(crate) mod authorise;
pub(crate) mod certificates;
pub(crate) mod files;
pub(crate) mod impersonate;
pub(crate) mod kubeconfig;
pub(crate) mod policy;
pub(crate) mod principal;
pub(crate) mod rbac;
pub(crate) mod reviews;
pub(crate) mod service_account;
pub(crate) mod state;
pub(crate) mod tokens;
