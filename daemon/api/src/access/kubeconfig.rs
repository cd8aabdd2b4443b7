//! Kubeconfig files (kubectl's and every client library's), with everything embedded.

use crate::access::certificates::authority::Issued;
use crate::access::certificates::keyring::Keyring;
use crate::access::certificates::{CertificateError, pem};
use crate::access::files::{Kept, read_private, replace};
use crate::access::principal::MASTERS;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// What a client proves itself with.
pub(crate) enum Credentials<'a> {
    /// A certificate and its key.
    Certificate(&'a Issued),
    /// A bearer token.
    Token(&'a str),
}

/// The URL of an API that listens here; one that listens everywhere is reached over the loopback.
pub(crate) fn url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, listen.port()))
}

/// A kubeconfig in YAML.
pub(crate) fn text(url: &str, trust: &str, user: &str, credentials: &Credentials<'_>) -> String {
    let base64 = |text: String| BASE64_STANDARD.encode(text);
    let secret = match credentials {
        Credentials::Certificate(issued) => format!(
            "{CERTIFICATE}{}\n{KEY}{}\n",
            base64(pem::certificates([issued.certificate.as_ref()])),
            base64(pem::private_key(issued.key.secret_der()))
        ),
        Credentials::Token(token) => format!("    token: {token}\n"),
    };
    // JSON strings are YAML: whatever the name is, it stays a name.
    let user = serde_json::Value::from(user);
    format!(
        "# Written by reddwarfd, and again when its certificates or address change: copy it, do not edit it.\n\
         apiVersion: v1\nkind: Config\nclusters:\n- name: reddwarf\n  cluster:\n    server: {url}\n    \
         certificate-authority-data: {}\nusers:\n- name: {user}\n  user:\n{secret}contexts:\n- name: reddwarf\n  context:\n    \
         cluster: reddwarf\n    user: {user}\ncurrent-context: reddwarf\n",
        base64(trust.to_owned())
    )
}

const CERTIFICATE: &str = "    client-certificate-data: ";
const KEY: &str = "    client-key-data: ";

/// Writes the admin's kubeconfig, mode 0600, unless the one that is there says the same and its certificate is good for
/// some time. Gives its text.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write_admins(
    path: &Path,
    url: &str,
    keyring: &Keyring,
    now: DateTime<Utc>,
) -> Result<String, CertificateError> {
    let trust = keyring.current().trust.clone();
    let kept = match read_private(path)? {
        Kept::Safe(bytes) => String::from_utf8(bytes).unwrap_or_default(),
        Kept::Unsafe(why) => {
            tracing::warn!(file = %path.display(), why, "the admin's kubeconfig is written anew");
            String::new()
        }
        Kept::Absent => String::new(),
    };
    if let Some(issued) = issued(&kept).filter(|one| keyring.issued_and_good(&one.certificate, now)) {
        let same = text(url, &trust, ADMIN, &Credentials::Certificate(&issued));
        if same != kept {
            replace(path, 0o600, same.as_bytes())?;
        }
        return Ok(same);
    }
    let issued = keyring.issue_client(ADMIN, MASTERS, now)?;
    let new = text(url, &trust, ADMIN, &Credentials::Certificate(&issued));
    replace(path, 0o600, new.as_bytes())?;
    tracing::info!(file = %path.display(), "the admin's kubeconfig was written");
    Ok(new)
}

/// The user of the admin's certificate.
const ADMIN: &str = "admin";

/// Certificate and key of a kubeconfig that we wrote.
fn issued(kubeconfig: &str) -> Option<Issued> {
    let field = |name: &str| {
        let line = kubeconfig.lines().find_map(|line| line.strip_prefix(name))?;
        BASE64_STANDARD.decode(line.trim()).ok()
    };
    Some(Issued {
        certificate: CertificateDer::from_pem_slice(&field(CERTIFICATE)?).ok()?,
        key: PrivateKeyDer::from_pem_slice(&field(KEY)?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::certificates::keyring::TlsSettings;
    use std::os::unix::fs::PermissionsExt;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + days * 86400, 0).unwrap()
    }

    #[test]
    fn the_admins_kubeconfig_is_private_kept_and_written_anew_when_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.kubeconfig");
        let keyring = Keyring::open(TlsSettings::default(), dir.path().join("pki"), at(0)).unwrap();
        let write = |url: &str, days| write_admins(&path, url, &keyring, at(days)).unwrap();
        let first = write("https://127.0.0.1:6443", 0);
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        assert_eq!(write("https://127.0.0.1:6443", 1), first);
        let moved = write("https://127.0.0.1:7443", 1);
        assert!(moved.contains("server: https://127.0.0.1:7443\n"));
        assert_eq!(issued(&moved).unwrap().certificate, issued(&first).unwrap().certificate);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let fresh = write("https://127.0.0.1:7443", 1);
        assert_ne!(fresh, moved, "others may have read the key");
        assert_eq!(mode(), 0o600);
        assert_ne!(write("https://127.0.0.1:7443", 300), fresh, "before its certificate ends");
    }

    #[test]
    fn names_stay_names_and_addresses_can_be_reached() {
        let odd = text("https://x", "", "a: b\n- c", &Credentials::Token("t"));
        assert!(odd.contains("- name: \"a: b\\n- c\"\n"), "{odd}");
        for (listen, wanted) in [
            ("0.0.0.0:6443", "https://127.0.0.1:6443"),
            ("[::]:1", "https://[::1]:1"),
            ("192.0.2.1:6443", "https://192.0.2.1:6443"),
        ] {
            assert_eq!(url(listen.parse().unwrap()), wanted);
        }
    }
}
