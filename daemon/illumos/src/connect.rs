//! Connections to TCP ports of pods: a small process in the zone connects there, as a process of the pod would, and copies.
//! Where our program can't run, the pod's address is connected to instead.

use crate::host::{IllumosHost, Shared};
use crate::zlogin::quoted;
use crate::zone::brand::Programs;
use crate::{inside, sandbox};
use async_trait::async_trait;
use reddwarf_command::Tool;
use reddwarf_host::spec::SandboxNetwork;
use reddwarf_host::{Connect, Connection, HostError, HostErrorKind, HostResult, SandboxId};
use reddwarf_supervise::dial;
use reddwarf_supervise::files::io_error;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::process::{ExitCode, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// Its first argument.
pub const ARGUMENT: &str = "__zone-connect";

const OP: &str = "connect";
/// A port of the same machine answers at once, unless its queue is full.
const PATIENCE: Duration = Duration::from_secs(10);
/// First byte of the answer: connected.
const CONNECTED: u8 = b'+';

#[async_trait]
impl Connect for IllumosHost {
    async fn connect(&self, id: &SandboxId, port: u16) -> HostResult<Connection> {
        let fail = |kind, message: &str| Err(HostError::new(kind, OP, id.as_str(), message));
        let Some(mark) = sandbox::own_mark(&self.shared, id)? else {
            return fail(HostErrorKind::NotFound, "no such sandbox");
        };
        if sandbox::running(&self.shared, id)?.is_none() {
            return fail(HostErrorKind::InvalidState, "the sandbox is not running");
        }
        if sandbox::zone_brand(&self.shared, &mark.spec)?.programs() == Programs::Native {
            return by_zone(&self.shared, id, port).await;
        }
        match mark.spec.network {
            SandboxNetwork::Pod { address, .. } => dial::dial(&address.addr().to_string(), port).await,
            SandboxNetwork::Host => dial::dial("127.0.0.1", port).await,
        }
    }

    async fn dial(&self, host: &str, port: u16) -> HostResult<Connection> {
        dial::dial(host, port).await
    }
}

async fn by_zone(shared: &Shared, id: &SandboxId, port: u16) -> HostResult<Connection> {
    let beginning = shared.tools().begin(Tool::Zlogin, PATIENCE).await.map_err(|e| e.into_host(OP, id.as_str()))?;
    let failed = |e| io_error(OP, beginning.path(), e);
    let script = format!("exec {} {ARGUMENT} {port}", quoted(&inside::program()));
    let mut command = beginning.command();
    command.args(inside::login(shared, id)).arg(id.as_str()).arg(&script);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let (Some(stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    };
    let subject = format!("{id}:{port}");
    let first = tokio::time::timeout(PATIENCE * 3, stdout.read_u8()).await;
    match first {
        Ok(Ok(CONNECTED)) => {
            beginning.begun();
            Ok(Box::new(Through { stdin: Some(stdin), stdout, _zlogin: child }))
        }
        Ok(Ok(_)) => {
            // zlogin did its work; nobody listens there.
            beginning.begun();
            let mut why = String::new();
            let _ = stdout.take(1000).read_to_string(&mut why).await;
            Err(HostError::new(HostErrorKind::InvalidState, OP, subject, why.trim().to_owned()))
        }
        Ok(Err(_)) => {
            let message = "the process that connects inside of the zone ended early";
            Err(HostError::new(HostErrorKind::Other, OP, subject, message))
        }
        Err(_) => Err(HostError::new(HostErrorKind::Timeout, OP, subject, "no connection in time")),
    }
}

/// A connection whose bytes go through zlogin's streams.
struct Through {
    /// Taken when the writing side is shut down.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// Killed with the connection; the end of its streams ends what runs inside.
    _zlogin: Child,
}

impl AsyncRead for Through {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Through {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}

/// The process inside: connects to a port of the zone, says so, copies both ways.
pub fn main(args: &[OsString]) -> ExitCode {
    let port = args.first().and_then(|a| a.to_str()).and_then(|a| a.parse::<u16>().ok());
    let Some(port) = port else {
        eprintln!("usage: {ARGUMENT} PORT (started by reddwarfd itself, in a zone)");
        return ExitCode::from(2);
    };
    match run(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(port: u16) -> io::Result<()> {
    let connect = |ip: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(ip, port), PATIENCE);
    let mut out = io::stdout().lock();
    let stream = match connect(Ipv4Addr::LOCALHOST.into()) {
        Ok(stream) => stream,
        Err(first) => match connect(Ipv6Addr::LOCALHOST.into()) {
            Ok(stream) => stream,
            Err(second) => {
                let message = format!(
                    "-failed to connect to localhost:{port} inside the zone, IPv4: dial tcp4 127.0.0.1:{port}: {} IPv6 dial \
                     tcp6: [::1]:{port}: {}",
                    dial::words(&first),
                    dial::words(&second)
                );
                out.write_all(message.as_bytes())?;
                return out.flush();
            }
        },
    };
    out.write_all(&[CONNECTED])?;
    out.flush()?;
    let _ = stream.set_nodelay(true);
    let mut to = stream.try_clone()?;
    std::thread::spawn(move || {
        let copied = io::copy(&mut io::stdin().lock(), &mut to);
        // The end of what is typed; the other way goes on.
        let _ = to.shutdown(if copied.is_ok() { Shutdown::Write } else { Shutdown::Both });
    });
    let mut from = stream;
    let mut buffer = [0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        out.write_all(buffer.get(..n).unwrap_or_default())?;
        out.flush()?;
    }
}
