//! Rules of requests for certificates.

use super::at::{At, Errors};
use super::signed;
use crate::names;
use base64::{Engine, prelude::BASE64_STANDARD};

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// The longest name of a signer: a domain, a slash, a label, a dot and a name.
const SIGNER_MAX: usize = 253 + 1 + 63 + 1 + 253;

/// The spec of a new request.
pub(super) fn check(spec: &At<'_, '_>, errors: &mut Errors) {
    let request = spec.child("request");
    let block = pem(request.str()).ok_or("PEM block type must be CERTIFICATE REQUEST");
    if let Err(message) = block.and_then(|block| signed::check(&block)) {
        request.invalid_value(errors, request.str(), message);
    }
    let usages = spec.child("usages");
    if usages.list().is_empty() {
        usages.required(errors, "");
    }
    for usage in usages.items().filter(|usage| !USAGES.contains(&usage.str())) {
        usage.not_supported(errors, usage.str(), USAGES);
    }
    for (index, usage) in usages.items().enumerate() {
        if usages.list()[..index].contains(usage.value) {
            usage.duplicate(errors, usage.str());
        }
    }
    let signer = spec.child("signerName");
    if signer.str() == LEGACY_SIGNER {
        signer.invalid(errors, "the legacy signerName is not allowed via this API version");
    } else {
        check_signer(&signer, errors);
    }
    if spec.number("expirationSeconds").is_some_and(|seconds| seconds < 600) {
        let message = "may not specify a duration less than 600 seconds (10 minutes)";
        spec.child("expirationSeconds").invalid(errors, message);
    }
}

/// What is in the first PEM block (in base64), if that is a request.
fn pem(encoded: &str) -> Option<Vec<u8>> {
    let plain: String = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let text = BASE64_STANDARD.decode(plain).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (body, _) = rest
        .strip_prefix("CERTIFICATE REQUEST-----")
        .and_then(|body| body.split_once("-----END CERTIFICATE REQUEST-----"))?;
    // Headers are not part of the block's bytes.
    let body: String = body.lines().filter(|line| !line.contains(':')).map(str::trim).collect();
    BASE64_STANDARD.decode(body).ok().filter(|bytes| !bytes.is_empty())
}

/// `example.com/signer-name`.
fn check_signer(at: &At<'_, '_>, errors: &mut Errors) {
    let name = at.str();
    if name.is_empty() {
        return at.required(errors, "");
    }
    let [domain, path] = name.split('/').collect::<Vec<_>>()[..] else {
        let message = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return at.invalid(errors, message);
    };
    if domain.len() > 253 {
        at.too_long(errors, 253);
    }
    check_labels(at, domain, names::dns1123_label, errors);
    if !domain.contains('.') {
        at.invalid_value(errors, domain, "should be a domain with at least two segments separated by dots");
    }
    check_labels(at, path, names::dns1123_subdomain, errors);
    if name.len() > SIGNER_MAX {
        at.too_long(errors, SIGNER_MAX);
    }
}

/// What is wrong with the first label that is not right.
fn check_labels(at: &At<'_, '_>, text: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let wrong = text.split('.').map(|label| (label, rule(label))).find(|(_, problems)| !problems.is_empty());
    for (label, problem) in wrong.into_iter().flat_map(|(label, all)| all.into_iter().map(move |p| (label, p))) {
        at.invalid_value(errors, text, format!("validating label {label:?}: {problem}"));
    }
}
