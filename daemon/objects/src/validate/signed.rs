//! Is a request for a certificate (PKCS #10, RFC 2986) signed by the key that it shows?

use crate::der::Reader;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const HASH_OF_PSS: u8 = 0xa0;

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 1];
/// Signatures of RSA keys (1.2.840.113549.1.1) end in one of these.
const RSA_SIGNATURES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// Signatures of elliptic curves with SHA-2 (1.2.840.10045.4.3) end in one of these.
const EC_SIGNATURES: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
const ED25519_BOTH: &[u8] = &[0x2b, 0x65, 0x70];
/// SHA-2 (2.16.840.1.101.3.4.2) of so many bits ends in one of these.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

const UNKNOWN: &str = "x509: cannot verify signature: algorithm unimplemented";
const NO_REQUEST: &str = "asn1: structure error: not a certificate request";

/// What is wrong with the request, in the reference's words.
pub(super) fn check(request: &[u8]) -> Result<(), &'static str> {
    let mut outer = Reader::new(request);
    let request = outer.expect(SEQUENCE).ok_or(NO_REQUEST)?;
    if !outer.is_at_end() {
        return Err("asn1: syntax error: trailing data");
    }
    let Signed { content, key, bits, by, signature } = read(request).ok_or(NO_REQUEST)?;
    let (algorithm, failure) = algorithm(&by, &key)?;
    UnparsedPublicKey::new(algorithm, bits).verify(content, signature).map_err(|_| failure)
}

/// The parts of a request.
struct Signed<'a> {
    content: &'a [u8],
    key: Algorithm<'a>,
    bits: &'a [u8],
    by: Algorithm<'a>,
    signature: &'a [u8],
}

/// An AlgorithmIdentifier.
struct Algorithm<'a> {
    id: &'a [u8],
    parameters: Reader<'a>,
}

fn read(request: &[u8]) -> Option<Signed<'_>> {
    let mut parts = Reader::new(request);
    let content = parts.whole()?;
    let by = identifier(&mut parts)?;
    let signature = bits(&mut parts)?;
    let mut info = Reader::new(Reader::new(content).expect(SEQUENCE)?);
    let (_version, _subject) = (info.expect(INTEGER)?, info.expect(SEQUENCE)?);
    let mut public = Reader::new(info.expect(SEQUENCE)?);
    let key = identifier(&mut public)?;
    Some(Signed { content, key, bits: bits(&mut public)?, by, signature })
}

fn identifier<'a>(at: &mut Reader<'a>) -> Option<Algorithm<'a>> {
    let mut parameters = Reader::new(at.expect(SEQUENCE)?);
    Some(Algorithm { id: parameters.expect(OID)?, parameters })
}

/// The first byte of a bit string counts its unused bits.
fn bits<'a>(at: &mut Reader<'a>) -> Option<&'a [u8]> {
    at.expect(BIT_STRING)?.get(1..)
}

/// How the signature is verified, and what it is called when it does not hold.
fn algorithm(
    by: &Algorithm<'_>,
    key: &Algorithm<'_>,
) -> Result<(&'static dyn VerificationAlgorithm, &'static str), &'static str> {
    const RSA_FAILURE: &str = "crypto/rsa: verification error";
    let ec = |algorithm: &'static dyn VerificationAlgorithm| Ok((algorithm, "x509: ECDSA verification failure"));
    if let Some(&[which]) = by.id.strip_prefix(RSA_SIGNATURES) {
        let algorithm: &dyn VerificationAlgorithm = match which {
            2..=4 => return Err("x509: cannot verify signature: insecure algorithm MD5-RSA"),
            5 => &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            10 => of_pss(by.parameters).ok_or(UNKNOWN)?,
            11 => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            12 => &RSA_PKCS1_2048_8192_SHA384,
            13 => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            _ => return Err(UNKNOWN),
        };
        return if key.id == RSA {
            Ok((algorithm, RSA_FAILURE))
        } else {
            Err("x509: signature algorithm specifies an RSA public key, but have public key of another type")
        };
    }
    if let Some(&[which]) = by.id.strip_prefix(EC_SIGNATURES) {
        if key.id != EC {
            return Err("x509: signature algorithm specifies an ECDSA public key, but have public key of another type");
        }
        let curve = Reader::clone(&key.parameters).expect(OID).unwrap_or_default();
        return match (curve, which) {
            (P256, 2) => ec(&ECDSA_P256_SHA256_ASN1),
            (P256, 3) => ec(&ECDSA_P256_SHA384_ASN1),
            (P384, 2) => ec(&ECDSA_P384_SHA256_ASN1),
            (P384, 3) => ec(&ECDSA_P384_SHA384_ASN1),
            _ => Err(UNKNOWN),
        };
    }
    match (by.id, key.id) {
        (ED25519_BOTH, ED25519_BOTH) => Ok((&ED25519, "x509: Ed25519 verification failure")),
        _ => Err(UNKNOWN),
    }
}

/// The hash among the parameters of RSASSA-PSS; the rest follows from it, or the signature does not hold.
fn of_pss(parameters: Reader<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let mut parameters = parameters;
    let mut fields = Reader::new(parameters.expect(SEQUENCE)?);
    let hash = identifier(&mut Reader::new(fields.expect(HASH_OF_PSS)?))?;
    match hash.id.strip_prefix(SHA2)? {
        [1] => Some(&RSA_PSS_2048_8192_SHA256),
        [2] => Some(&RSA_PSS_2048_8192_SHA384),
        [3] => Some(&RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, prelude::BASE64_STANDARD};

    /// Requests of `openssl req`: a name, the outcome, the request.
    const REQUESTS: &str = include_str!("signed.txt");

    fn requests() -> impl Iterator<Item = (&'static str, &'static str, Vec<u8>)> {
        REQUESTS.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let mut words = line.split('|').map(str::trim);
            let (name, outcome, request) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            (name, outcome, BASE64_STANDARD.decode(request).unwrap())
        })
    }

    #[test]
    fn only_who_has_the_key_asks_for_a_certificate_of_it() {
        for (name, outcome, request) in requests() {
            assert_eq!(check(&request).err().unwrap_or("holds"), outcome, "{name}");
            if outcome != "holds" {
                continue;
            }
            let mut other = request.clone();
            // The common name is `a`.
            let at = other.windows(3).position(|bytes| bytes == [0x0c, 1, b'a']).unwrap() + 2;
            other[at] = b'b';
            assert!(check(&other).unwrap_err().ends_with("verification failure") || name.starts_with("rsa"), "{name}");
            assert_eq!(check(&request[..request.len() - 1]), Err(NO_REQUEST), "{name}");
            assert_eq!(check(&[&request[..], &[0]].concat()), Err("asn1: syntax error: trailing data"), "{name}");
        }
        assert_eq!(check(b"x"), Err(NO_REQUEST));
    }

    proptest::proptest! {
        #[test]
        fn no_damage_panics(which in 0_usize..8, at in 0_usize..1000, to in proptest::num::u8::ANY) {
            let (_, _, mut request) = requests().nth(which).unwrap();
            let at = at % request.len();
            request[at] = to;
            let _ = check(&request);
        }
    }
}
