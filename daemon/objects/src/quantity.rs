//! Kubernetes' quantities, exactly: `100m`, `1.5Gi`, `2e3`.
//!
//! Source: Kubernetes API concepts, "Resource quantities": a number with a binary suffix (Ki ... Ei), a decimal one (n u m k M G T P E) or an
//! exponent; printed canonically with the largest suffix that leaves a whole number; nothing is smaller than a nano.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{cmp::Ordering, fmt, ops::Add, ops::Sub, str::FromStr};

/// An exact amount. Equal amounts are equal whatever their spelling; the text prints in canonical form.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// Thousand-millionths.
    nanos: i128,
    format: Format,
}

/// The family of suffixes that a quantity was written with and prints with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// A text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

const NANO: i128 = 1_000_000_000;
/// The largest magnitude, 2^63 - 1 units: more is cut to this, as in the reference.
const MAX: i128 = (i64::MAX as i128) * NANO;
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
/// Suffixes and their powers of ten.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

impl Quantity {
    /// This many whole units, printed with decimal suffixes.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, format: Format::Decimal }
    }

    /// This many thousandths: cpu.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000), format: Format::Decimal }
    }

    /// This many bytes, printed with binary suffixes: memory.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, format: Format::Binary }
    }

    /// Reads a JSON value: text, or a plain number.
    ///
    /// # Errors
    /// [`QuantityError`] when it is neither.
    pub fn from_value(value: &serde_json::Value) -> Result<Self, QuantityError> {
        match value {
            serde_json::Value::String(text) => text.parse(),
            serde_json::Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError),
        }
    }

    /// Is it nothing?
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Is it less than nothing?
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Is it a whole number?
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// The same amount without anything smaller than a thousandth: rounded up, as the reference does in every list of resources.
    #[must_use]
    pub fn to_whole_millis(self) -> Self {
        Self { nanos: div_up(self.nanos, NANO / 1000) * (NANO / 1000), format: self.format }
    }

    /// In thousandths, rounded up: for `cpu`. Saturates.
    pub fn millis(&self) -> i64 {
        saturate(div_up(self.nanos, NANO / 1000))
    }

    /// In whole units, rounded up: bytes for `memory`. Saturates.
    pub fn units(&self) -> i64 {
        saturate(div_up(self.nanos, NANO))
    }

    /// This amount as a multiple of `other`; infinite when that is nothing.
    pub fn ratio(&self, other: &Quantity) -> f64 {
        // Ratios are compared and shown to people: six digits are plenty.
        self.nanos as f64 / other.nanos as f64
    }

    /// How often `divisor` fits, rounded up (the downward API's rule). A divisor of nothing counts as one.
    pub fn divided_by(&self, divisor: &Quantity) -> i64 {
        let divisor = if divisor.nanos > 0 { divisor.nanos } else { NANO };
        saturate(div_up(self.nanos, divisor))
    }
}

fn div_up(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;
    /// The sum, in the first one's format (the other's when the first is nothing).
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
}

impl Sub for Quantity {
    type Output = Self;
    /// The difference, in the first one's format.
    fn sub(self, other: Self) -> Self {
        Self { nanos: (self.nanos - other.nanos).clamp(-MAX, MAX), format: self.format }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
        quantities.fold(Self::from_units(0), Add::add)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (format, factor) = parse_suffix(suffix)?;
        let magnitude = magnitude(whole, fraction, factor);
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }
}

#[derive(Clone, Copy)]
enum Factor {
    Two(u32),
    Ten(i32),
}

fn parse_suffix(suffix: &str) -> Result<(Format, Factor), QuantityError> {
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::Binary, Factor::Two(*power)));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::Decimal, Factor::Ten(*power)));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError);
    }
    // An exponent too long for a number is so large (or small) that its exact size does not matter.
    let power = digits.parse::<i32>().unwrap_or(i32::MAX).min(1000);
    Ok((Format::Exponent, Factor::Ten(if exponent.starts_with('-') { -power } else { power })))
}

/// The nanos of `whole.fraction * factor`, rounded up, at most [`MAX`]. Exact for any number of digits.
fn magnitude(whole: &str, fraction: &str, factor: Factor) -> i128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    // value = digits * 10^(9 - fraction.len()) nanos, times the factor.
    let mut digits: i128 = 0;
    let mut lost = false;
    let room = match factor {
        Factor::Two(shift) => i128::MAX >> (shift + 4),
        Factor::Ten(_) => i128::MAX >> 4,
    };
    let mut power = 9 - i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2);
    for byte in whole.bytes().chain(fraction.bytes()) {
        if digits > room {
            // That many digits are exact enough for the largest quantity: the rest only matters by being there.
            lost |= byte != b'0';
            power = power.saturating_add(1);
        } else {
            digits = digits * 10 + i128::from(byte - b'0');
        }
    }
    if digits == 0 {
        return 0;
    }
    match factor {
        Factor::Two(shift) => digits <<= shift,
        Factor::Ten(ten) => power = power.saturating_add(ten),
    }
    while power > 0 && digits <= MAX {
        digits = digits.saturating_mul(10);
        power -= 1;
    }
    while power < 0 && digits > 0 {
        lost |= digits % 10 != 0;
        digits /= 10;
        power += 1;
    }
    digits.saturating_add(i128::from(lost)).min(MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let sign = if self.nanos < 0 { "-" } else { "" };
        let nanos = self.nanos.abs();
        // As the reference: binary suffixes only for whole amounts from 1024 up.
        if self.format == Format::Binary && nanos >= 1024 * NANO && nanos % NANO == 0 {
            let units = nanos / NANO;
            let shift = BINARY.iter().rev().find(|(_, power)| units % (1_i128 << power) == 0);
            return match shift {
                Some((name, power)) => write!(f, "{sign}{}{name}", units >> power),
                None => write!(f, "{sign}{units}"),
            };
        }
        let largest = DECIMAL.iter().rev().find_map(|(name, power)| {
            let unit = 10_i128.pow(u32::try_from(power + 9).unwrap_or_default());
            (nanos % unit == 0).then_some((name, power, nanos / unit))
        });
        match largest {
            Some((_, 0, count)) => write!(f, "{sign}{count}"),
            Some((_, power, count)) if self.format == Format::Exponent => write!(f, "{sign}{count}e{power}"),
            Some((name, _, count)) => write!(f, "{sign}{count}{name}"),
            None => write!(f, "{sign}{nanos}n"),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::from_value(&value).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1000m", "1"),
            ("0.5Ki", "512"),
            ("1023Ki", "1023Ki"),
            ("1024Ki", "1Mi"),
            ("2e3", "2e3"),
            ("2000", "2k"),
            ("1E", "1E"),
            ("12.", "12"),
            (".5", "500m"),
            ("+3", "3"),
            ("-2", "-2"),
            ("100000", "100k"),
            ("0.1n", "1n"),
            ("9223372036854775807Ei", "9223372036854775807"),
            ("1e1000", "9223372036854775807"),
            ("1e-1000", "1e-9"),
        ] {
            assert_eq!(quantity(text).to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refusals() {
        for text in ["", "-", ".", "1.2.3", "1x", "Mi", "1 Mi", "1mi", "1e", "1e+", "1KI", "0x1"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn units_round_up() {
        assert_eq!(quantity("100m").millis(), 100);
        assert_eq!(quantity("100100u").millis(), 101);
        assert_eq!(quantity("1500m").units(), 2);
        assert_eq!(quantity("64Mi").units(), 64 << 20);
        assert_eq!(quantity("-1500m").units(), -1);
        assert_eq!(quantity("1Gi").divided_by(&quantity("1Mi")), 1024);
        assert_eq!(quantity("100m").divided_by(&quantity("1")), 1);
    }

    proptest! {
        #[test]
        fn printing_keeps_the_amount(whole in 0_i64..1_000_000_000, milli in 0_u32..1000,
            suffix in proptest::sample::select(vec!["", "m", "u", "n", "k", "M", "G", "Ki", "Mi", "Gi", "e2", "E-2", "e3"])) {
            let first = quantity(&format!("{whole}.{milli:03}{suffix}"));
            let again = quantity(&first.to_string());
            prop_assert_eq!(first, again);
            prop_assert_eq!(first.to_string(), again.to_string());
        }

        #[test]
        fn nothing_panics(text in "[+-]?[0-9.]{0,60}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,12}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let _ = (quantity.millis(), quantity.units(), (quantity + quantity).to_string());
            }
        }

        #[test]
        fn adding_is_exact(a in 0_i64..1_000_000_000_000, b in 0_i64..1_000_000_000_000) {
            let sum = Quantity::from_millis(a) + Quantity::from_millis(b);
            prop_assert_eq!(sum.millis(), a + b);
            prop_assert_eq!(sum > Quantity::from_millis(a), b > 0);
        }
    }
}
