//! The few fields of an X.509 certificate (RFC 5280) that we read ourselves: subject, validity, public key. Signatures,
//! chains, purposes and well-formedness are webpki's to check.

use reddwarf_objects::der::Reader;

/// What we read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate<'a> {
    /// `CN`; the last one where there are several.
    pub(crate) common_name: String,
    /// Every `O`, in order.
    pub(crate) organizations: Vec<String>,
    /// Valid from, in seconds since 1970.
    pub(crate) not_before: i64,
    /// Valid to.
    pub(crate) not_after: i64,
    /// The bits of the public key.
    pub(crate) public_key: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const BIT_STRING: u8 = 0x03;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl<'a> Certificate<'a> {
    /// Reads a certificate; `None` when it is not one.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut certificate = Reader::new(Reader::new(der).expect(SEQUENCE)?);
        let mut body = Reader::new(certificate.expect(SEQUENCE)?);
        if body.tag() == Some(VERSION) {
            body.any()?;
        }
        let (_serial, _signature, _issuer) = (body.any()?, body.expect(SEQUENCE)?, body.expect(SEQUENCE)?);
        let mut validity = Reader::new(body.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.any()?)?, time(validity.any()?)?);
        let (common_name, organizations) = subject(body.expect(SEQUENCE)?)?;
        let mut key = Reader::new(body.expect(SEQUENCE)?);
        key.expect(SEQUENCE)?;
        // The first byte of a bit string counts its unused bits.
        let public_key = key.expect(BIT_STRING)?.get(1..)?;
        Some(Self { common_name, organizations, not_before, not_after, public_key })
    }
}

/// `CN` and `O` of a name.
fn subject(name: &[u8]) -> Option<(String, Vec<String>)> {
    let (mut common_name, mut organizations) = (String::new(), Vec::new());
    let mut sets = Reader::new(name);
    while !sets.is_at_end() {
        let mut set = Reader::new(sets.expect(SET)?);
        while !set.is_at_end() {
            let mut attribute = Reader::new(set.expect(SEQUENCE)?);
            let oid = attribute.expect(OID)?;
            let (tag, value) = attribute.any()?;
            match oid {
                // 2.5.4.3 and 2.5.4.10
                [0x55, 0x04, 0x03] => common_name = text(tag, value)?,
                [0x55, 0x04, 0x0a] => organizations.push(text(tag, value)?),
                _ => {}
            }
        }
    }
    Some((common_name, organizations))
}

/// A string of one of the types that names have.
fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        // UTF8String, PrintableString, IA5String; TeletexString only as far as it is ASCII.
        0x0c => String::from_utf8(value.to_vec()).ok(),
        0x13 | 0x14 | 0x16 if value.is_ascii() => String::from_utf8(value.to_vec()).ok(),
        // BMPString
        0x1e if value.len().is_multiple_of(2) => {
            let units = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<String, _>>().ok()
        }
        _ => None,
    }
}

/// UTCTime `YYMMDDhhmmssZ` or GeneralizedTime `YYYYMMDDhhmmssZ`, in seconds since 1970.
fn time((tag, value): (u8, &[u8])) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let year: i32 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u32>().ok();
    if rest.len() != 10 {
        return None;
    }
    let date = chrono::NaiveDate::from_ymd_opt(year, part(0)?, part(2)?)?;
    Some(date.and_hms_opt(part(4)?, part(6)?, part(8)?)?.and_utc().timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    #[test]
    fn subject_and_validity_are_read() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String("jürgen".into()));
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2051, 3, 4);
        let certificate = params.self_signed(&key).unwrap();
        let read = Certificate::parse(certificate.der()).unwrap();
        assert_eq!(read.common_name, "jürgen");
        assert_eq!(read.organizations, ["system:masters"]);
        assert_eq!((read.not_before, read.not_after), (1_767_312_000, 2_561_500_800));
        assert_eq!(read.public_key, key.public_key_raw());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(Certificate::parse(&bytes));
        }

        #[test]
        fn no_damage_panics(at in 0usize..400, to in proptest::num::u8::ANY) {
            let key = KeyPair::generate().unwrap();
            let mut der = CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec();
            let at = at % der.len();
            der[at] = to;
            drop(Certificate::parse(&der));
        }
    }
}
