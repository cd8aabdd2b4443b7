//! One request on a connection of its own: name, TCP, TLS, HTTP/1.1, each with its time limit.

use crate::error::{PullError, PullErrorKind, Result};
use crate::options::RegistryOptions;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::http::{HeaderMap, Method, Uri};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore, crypto::ring};

/// For one address; a name may have several.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) secure: bool,
    /// `host` or `host:port`.
    pub(crate) authority: String,
    /// Begins with `/`.
    pub(crate) path: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let authority = uri.authority()?.as_str();
        // A user name in a URL would be sent to whoever it names.
        if authority.contains('@') {
            return None;
        }
        Some(Self { secure, authority: authority.to_owned(), path })
    }

    /// Where a `Location` leads from here.
    pub(crate) fn join(&self, location: &str) -> Option<Self> {
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme()));
        }
        if location.starts_with('/') {
            return Some(Self { path: location.parse::<Uri>().ok()?.to_string(), ..self.clone() });
        }
        Self::parse(location)
    }

    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.secure == other.secure && self.host() == other.host() && self.port() == other.port()
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, _)) if !self.authority.ends_with(']') => host,
            _ => &self.authority,
        }
    }

    fn port(&self) -> u16 {
        let given = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        given.unwrap_or(if self.secure { 443 } else { 80 })
    }
}

impl fmt::Display for Url {
    /// Without its query: that may hold a signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", self.scheme(), self.authority)
    }
}

/// Why no connection came about.
pub(crate) enum ConnectError {
    /// The other side does not speak TLS at all.
    NoTls(String),
    /// Anything else.
    Failed(PullError),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connections for one pull. The authorities are read when they are first needed and forgotten with it: they take a
/// megabyte.
pub(crate) struct Transport {
    options: Arc<RegistryOptions>,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Transport {
    pub(crate) fn new(options: Arc<RegistryOptions>) -> Self {
        Self { options, tls: OnceCell::new() }
    }

    pub(crate) fn patience(&self) -> Duration {
        self.options.patience
    }

    /// Sends a request; the answer's body is yet to be read.
    pub(crate) async fn send(
        &self,
        url: &Url,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> std::result::Result<Response<Incoming>, ConnectError> {
        let stream = self.connect(url).await?;
        let failed =
            |e: hyper::Error| ConnectError::Failed(PullError::unreachable(format!("{url} broke off: {}", chain(&e))));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends with the body, or when it is dropped.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        *request.uri_mut() = url.path.parse().map_err(|_| {
            ConnectError::Failed(PullError::invalid(format!("{url} can't be asked for: its path is none")))
        })?;
        let local = |what: &str| ConnectError::Failed(PullError::new(PullErrorKind::Local, format!("{url}: {what}")));
        let host = url.authority.parse().map_err(|_| local("its host is none"))?;
        request.headers_mut().insert(hyper::header::HOST, host);
        let agent = hyper::header::HeaderValue::from_static(concat!("reddwarf/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(hyper::header::USER_AGENT, agent);
        match timeout(self.options.patience, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(ConnectError::Failed(self.silent(url))),
        }
    }

    /// The failure of a registry that says nothing.
    pub(crate) fn silent(&self, url: &Url) -> PullError {
        PullError::unreachable(format!("{url} did not answer within {} s", self.options.patience.as_secs()))
    }

    async fn connect(&self, url: &Url) -> std::result::Result<Box<dyn Stream>, ConnectError> {
        let unreachable = |why: String| PullError::unreachable(format!("{} can't be reached: {why}", url.authority));
        let host = url.host().trim_matches(['[', ']']);
        let limit = CONNECT.min(self.options.patience);
        let found = timeout(limit, tokio::net::lookup_host((host, url.port()))).await;
        let addresses = match found {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => return Err(ConnectError::Failed(unreachable(error.to_string()))),
            Err(_) => return Err(ConnectError::Failed(unreachable("its name could not be looked up in time".into()))),
        };
        let mut last = "its name has no address".to_owned();
        for address in addresses {
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return if url.secure { self.secure(url, host, stream).await } else { Ok(Box::new(stream)) };
                }
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address}: no answer within {} s", limit.as_secs()),
            }
        }
        Err(ConnectError::Failed(unreachable(last)))
    }

    async fn secure(
        &self,
        url: &Url,
        host: &str,
        stream: TcpStream,
    ) -> std::result::Result<Box<dyn Stream>, ConnectError> {
        let config = self.tls.get_or_try_init(|| config(self.options.clone())).await.map_err(ConnectError::Failed)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ConnectError::Failed(PullError::invalid(format!("{host:?} is no host name"))))?;
        let handshake = TlsConnector::from(config.clone()).connect(name, stream);
        match timeout(self.options.patience.min(CONNECT), handshake).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(tls_failure(url, &error)),
            Err(_) => Err(ConnectError::Failed(self.silent(url))),
        }
    }
}

fn tls_failure(url: &Url, error: &io::Error) -> ConnectError {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => {
            ConnectError::NoTls(format!("{} does not speak TLS: {error}", url.authority))
        }
        // Not asked again: a certificate does not get better within seconds.
        Some(rustls::Error::InvalidCertificate(why)) => {
            let message = format!("the certificate of {} is not believed: {}", url.authority, disbelief(why));
            ConnectError::Failed(PullError::new(PullErrorKind::Unreachable, message))
        }
        // Some hang up instead of saying so.
        None if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            ConnectError::NoTls(format!("{} hangs up on TLS: {error}", url.authority))
        }
        _ => ConnectError::Failed(PullError::unreachable(format!("TLS with {}: {error}", url.authority))),
    }
}

/// What is wrong with a certificate, and how to mend it.
fn disbelief(why: &CertificateError) -> String {
    use CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext};
    use CertificateError::{NotValidYet, NotValidYetContext, UnknownIssuer};
    match why {
        UnknownIssuer => {
            "nobody who is trusted here made it: add its authority to `registry_ca` of reddwarfd.toml".to_owned()
        }
        Expired | ExpiredContext { .. } => format!("{why}: renew it, or set this host's clock"),
        NotValidYet | NotValidYetContext { .. } => format!("{why}: set the clock of this host or of whoever made it"),
        NotValidForName | NotValidForNameContext { .. } => {
            format!("{why}: name the registry as its certificate does, or give it one with this name")
        }
        // Not public there: webpki's own error.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is an authority's (CA:TRUE), which is no server's: `openssl req -x509` makes such ones. Make it anew with \
             `-addext basicConstraints=critical,CA:FALSE`, and add that to `registry_ca` of reddwarfd.toml"
                .to_owned()
        }
        why => format!("{why}: give the registry a certificate of an authority in `registry_ca` of reddwarfd.toml"),
    }
}

/// The system's authorities and those of the settings.
async fn config(options: Arc<RegistryOptions>) -> Result<Arc<ClientConfig>> {
    let local = |message: String| PullError::new(PullErrorKind::Local, message);
    let roots = tokio::task::spawn_blocking(move || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for file in &options.authorities {
            let failed = |e: &dyn fmt::Display| local(format!("registry_ca {}: {e}", file.display()));
            for certificate in CertificateDer::pem_file_iter(file).map_err(|e| failed(&e))? {
                roots.add(certificate.map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
            }
        }
        Ok::<_, PullError>(roots)
    });
    let roots = roots.await.map_err(|e| PullError::new(PullErrorKind::Local, format!("read authorities: {e}")))??;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|e| PullError::new(PullErrorKind::Local, format!("TLS: {e}")))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn read_all(
    transport: &Transport,
    url: &Url,
    mut answer: Response<Incoming>,
    limit: usize,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match timeout(transport.patience(), answer.body_mut().frame()).await {
            Err(_) => return Err(transport.silent(url)),
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => {
                return Err(PullError::unreachable(format!("{url} broke off: {}", chain(&error))));
            }
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    if bytes.len() + data.len() > limit {
                        return Err(PullError::invalid(format!("{url} sends more than {limit} bytes")));
                    }
                    bytes.extend_from_slice(data);
                }
            }
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_lead_where_browsers_go() {
        let base = Url::parse("https://r.io:5000/v2/a/blobs/x").unwrap();
        assert_eq!(base.join("/elsewhere?y=1").unwrap().path, "/elsewhere?y=1");
        assert!(base.join("/elsewhere").unwrap().same_origin(&base));
        assert_eq!(base.join("//cdn.io/z").unwrap(), Url::parse("https://cdn.io/z").unwrap());
        assert!(!base.join("http://r.io:5000/z").unwrap().same_origin(&base));
        assert!(Url::parse("https://r.io/").unwrap().same_origin(&Url::parse("https://r.io:443/").unwrap()));
        for bad in ["ftp://r.io/", "https://user:secret@r.io/", "relative", ""] {
            assert_eq!(base.join(bad), None, "{bad}");
        }
        assert_eq!(Url::parse("https://cdn.io/z?signature=secret").unwrap().to_string(), "https://cdn.io/z");
        assert_eq!(Url::parse("http://[::1]:5000/").unwrap().port(), 5000);
    }
}
