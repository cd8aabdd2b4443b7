//! Commands of probes and hooks: cut off in time with all that they started, and in what they print (F47).

use reddwarf_host::{ContainerName, ExecRequest, Host, HostError, SandboxId, Session};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Bytes of output that are kept.
const KEPT: usize = 10 * 1024;
/// Bytes of output that are read; who writes more is cut off, as by containerd.
const READ: usize = 16 << 20;
/// Time to read what is left in the pipes after the command's end: what it left running may hold them open for ever.
const REST: Duration = Duration::from_millis(100);
/// Time for hanging up to have happened.
const HANG_UP: Duration = Duration::from_secs(1);
/// Commands that are being started at one time. Starting one costs some processes and milliseconds; without a limit
/// hundreds of probes at the same moment would make one another late.
static STARTING: Semaphore = Semaphore::const_new(8);

/// How a command ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With this code, having printed that.
    Exit(i32, String),
    /// Its time was over.
    Late,
    /// It printed too much; it began with that.
    Flood(String),
    /// It could not be run.
    NotRun(HostError),
}

/// Runs a command; `None`: for as long as it takes.
pub(super) async fn command(
    host: &dyn Host,
    sandbox: &SandboxId,
    container: &ContainerName,
    argv: &[String],
    limit: Option<Duration>,
) -> Ended {
    let request = ExecRequest { argv: argv.to_vec(), tty: false, stdin: false, contained: true };
    let session = {
        // Never closed.
        let _turn = STARTING.acquire().await;
        host.exec(sandbox, container, request).await
    };
    let session = match session {
        Ok(session) => session,
        Err(error) => return Ended::NotRun(error),
    };
    to_its_end(session, limit).await
}

async fn to_its_end(session: Session, limit: Option<Duration>) -> Ended {
    let Session { stdin, stdout, stderr, resize, mut exit, guard } = session;
    drop((stdin, resize));
    let mut output = Output::default();
    let ended = {
        let (mut stdout, mut stderr) = (stdout, stderr.unwrap_or_else(|| Box::new(tokio::io::empty())));
        // Lent, so that they stay open where there is too much to read: see below.
        let reading = output.read(&mut stdout, &mut stderr);
        tokio::pin!(reading);
        let work = async {
            tokio::select! {
                ended = &mut exit => {
                    let _ = timeout(REST, &mut reading).await;
                    Some(ended)
                }
                all = &mut reading => if all { Some((&mut exit).await) } else { None },
            }
        };
        let ended = match limit {
            Some(limit) => timeout(limit, work).await,
            None => Ok(work.await),
        };
        // Given up, it is killed with all that it started. First hang up, then close what it prints to: ended by that
        // alone, it would leave behind what it started.
        drop(guard);
        if !matches!(ended, Ok(Some(_))) {
            let _ = timeout(HANG_UP, &mut exit).await;
        }
        ended
    };
    let ended = match ended {
        Ok(Some(ended)) => ended,
        Ok(None) => return Ended::Flood(output.text()),
        Err(_) => return Ended::Late,
    };
    match ended {
        Ok(exit) => Ended::Exit(exit.code, output.text()),
        Err(_) => Ended::Exit(255, "the command's supervisor died".to_owned()),
    }
}

type Stream = Box<dyn AsyncRead + Send + Unpin>;

/// What a command printed, both streams as they came.
#[derive(Default)]
struct Output {
    kept: Vec<u8>,
}

impl Output {
    /// Reads until both end, or there was too much: then false.
    async fn read(&mut self, stdout: &mut Stream, stderr: &mut Stream) -> bool {
        let (mut out, mut err) = ([0; 4096], [0; 1024]);
        let (mut out_open, mut err_open) = (true, true);
        let mut total = 0;
        while (out_open || err_open) && total < READ {
            let (bytes, open) = tokio::select! {
                read = stdout.read(&mut out), if out_open => (out.get(..read.unwrap_or(0)), &mut out_open),
                read = stderr.read(&mut err), if err_open => (err.get(..read.unwrap_or(0)), &mut err_open),
            };
            let bytes = bytes.unwrap_or_default();
            *open = !bytes.is_empty();
            total += bytes.len();
            let room = KEPT.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        }
        total < READ
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, to_its_end};
    use reddwarf_host::{ExecExit, Session};
    use std::io;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, ReadBuf};
    use tokio::sync::{mpsc, oneshot};

    /// Notes when it is dropped.
    struct Noted(&'static str, Arc<Mutex<Vec<&'static str>>>);

    impl Drop for Noted {
        fn drop(&mut self) {
            self.1.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
        }
    }

    /// What never ends.
    impl AsyncRead for Noted {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buf.put_slice(&vec![b'y'; buf.remaining()]);
            Poll::Ready(Ok(()))
        }
    }

    /// The supervisor of a command that ended before the daemon hung up takes what is left running for the container's.
    #[tokio::test(start_paused = true)]
    async fn who_prints_too_much_is_hung_up_on_before_its_output_is_closed() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let noted = |name| Noted(name, order.clone());
        let (exit, ended) = oneshot::channel::<ExecExit>();
        let session = Session {
            stdin: None,
            stdout: Box::new(noted("stdout")),
            stderr: None,
            resize: mpsc::channel(1).0,
            exit: ended,
            guard: Box::new((noted("hung up"), exit)),
        };
        let ended = to_its_end(session, None).await;
        assert!(matches!(&ended, Ended::Flood(text) if text.starts_with("yyy")), "{ended:?}");
        assert_eq!(*order.lock().unwrap(), ["hung up", "stdout"]);
    }
}
