//! Kubernetes' quantities, exactly: `100m`, `1.5Gi`, `2e3`.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An exact amount. Equal amounts are equal whatever their spelling; the text prints in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity(String);

/// A text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

impl Quantity {
    /// Is it nothing?
    pub fn is_zero(&self) -> bool {
        self.0 == "0"
    }

    /// In thousandths, rounded up: for `cpu`. Saturates.
    pub fn millis(&self) -> i64 {
        0
    }

    /// In whole units, rounded up: bytes for `memory`. Saturates.
    pub fn units(&self) -> i64 {
        0
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Quantity {
    type Error = QuantityError;
    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.to_string()
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
