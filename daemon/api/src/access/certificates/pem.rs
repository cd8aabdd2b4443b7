//! PEM text (RFC 7468) of keys and certificates.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Certificates in DER, one after the other.
pub(crate) fn certificates<'a>(of: impl IntoIterator<Item = &'a [u8]>) -> String {
    of.into_iter().map(|der| block("CERTIFICATE", der)).collect()
}

/// A private key in PKCS #8.
pub(crate) fn private_key(der: &[u8]) -> String {
    block("PRIVATE KEY", der)
}

fn block(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
