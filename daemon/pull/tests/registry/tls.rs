//! Certificates that are not believed: what is said about them.

use super::{World, error};
use reddwarf_pull::PullErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Makes a certificate and its key; `None`, and says so, without openssl(1).
#[expect(clippy::disallowed_methods, reason = "runs a real program")]
fn certificate(dir: &Path, subject: &str, more: &[&str]) -> Option<(PathBuf, PathBuf)> {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=registry", "-addext", &format!("subjectAltName={subject}")])
        .args(more)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output();
    match made {
        Ok(out) => {
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            Some((cert, key))
        }
        Err(why) => {
            eprintln!("SKIPPED: openssl: {why}");
            None
        }
    }
}

/// A server that does nothing but TLS; its address.
async fn serve((cert, key): &(PathBuf, PathBuf)) -> String {
    let chain = CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    address.to_string()
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_is_explained() {
    let server = ["-addext", "basicConstraints=critical,CA:FALSE"];
    let cases: [(&str, &[&str], bool, &str); 3] = [
        ("IP:127.0.0.1", &[], true, "it is an authority's (CA:TRUE)"),
        ("IP:127.0.0.1", &server, false, "nobody who is trusted here made it"),
        ("DNS:elsewhere.lan", &server, true, "name the registry as its certificate does"),
    ];
    for (subject, more, believed, part) in cases {
        let mut world = World::new();
        let Some(pair) = certificate(world.dir.path(), subject, more) else { return };
        let address = serve(&pair).await;
        world.options.authorities = if believed { vec![pair.0] } else { Vec::new() };
        let refused = error(world.pull_named(&format!("{address}/app:1"), Vec::new()).await);
        assert_eq!(refused.kind, PullErrorKind::Unreachable, "{refused}");
        assert!(refused.message.contains(part) && refused.message.contains(&address), "{refused}");
        assert!(!refused.message.contains("OtherError"), "{refused}");
    }
}
