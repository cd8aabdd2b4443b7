//! A server that gives recorded answers over a socket of its own, and notes what it was asked.

use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// What the program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Answers in the order of the requests; the last one stays.
type Answers = HashMap<String, Vec<(u16, String)>>;
/// Takes over a connection that asks for an upgrade, with the bytes read so far.
pub(crate) type Upgrade = fn(UnixStream);

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) socket: PathBuf,
    pub(crate) dir: Arc<tempfile::TempDir>,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::with_upgrade(|_| {})
    }

    pub(crate) fn with_upgrade(upgrade: Upgrade) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let socket = dir.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = Self { socket, dir, answers: Arc::default(), asked: Arc::default() };
        let serving = (server.answers.clone(), server.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, asked) = serving.clone();
                std::thread::spawn(move || serve(stream, &answers, &asked, upgrade));
            }
        });
        server
    }

    /// Answers `GET /path?query` so.
    pub(crate) fn on(&self, request: &str, code: u16, body: Value) -> &Self {
        self.on_text(request, code, &body.to_string())
    }

    pub(crate) fn on_text(&self, request: &str, code: u16, body: &str) -> &Self {
        self.answers.lock().unwrap().entry(request.to_owned()).or_default().push((code, body.to_owned()));
        self
    }

    /// The body of the last request to this path.
    pub(crate) fn body(&self, request: &str) -> Value {
        let asked = self.asked.lock().unwrap();
        let found = asked.iter().rev().find(|(name, _)| name == request);
        serde_json::from_str(&found.unwrap_or_else(|| panic!("{request} was not asked: {asked:?}")).1).unwrap()
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command.arg("--socket").arg(&self.socket).args(args);
        command
    }

    pub(crate) fn ctl(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    pub(crate) fn ctl_with_input(&self, args: &[&str], input: &str) -> Said {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Writes a file beside the socket and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reddwarfctl"));
    command.env_remove("REDDWARF_SOCKET").stdin(Stdio::null());
    command
}

fn serve(stream: UnixStream, answers: &Mutex<Answers>, asked: &Mutex<Vec<(String, String)>>, upgrade: Upgrade) {
    // A WebSocket handshake must find the request unread.
    let mut start = [0; 4096];
    let peeked = peek(&stream, &mut start);
    if String::from_utf8_lossy(&start[..peeked]).to_ascii_lowercase().contains("upgrade: websocket") {
        let line = String::from_utf8_lossy(&start[..peeked]).lines().next().unwrap_or_default().to_owned();
        asked.lock().unwrap().push((line.trim_end_matches(" HTTP/1.1").to_owned(), String::new()));
        return upgrade(stream);
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() || line.is_empty() {
        return;
    }
    let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if header.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    asked.lock().unwrap().push((request.clone(), String::from_utf8(body).unwrap()));
    let (code, text) = {
        let mut answers = answers.lock().unwrap();
        match answers.get_mut(&request) {
            Some(list) if list.len() > 1 => list.remove(0),
            Some(list) => list[0].clone(),
            None => (
                404,
                format!(r#"{{"kind":"Status","code":404,"reason":"NotFound","message":"{request} is not recorded"}}"#),
            ),
        }
    };
    let head = format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
    let mut stream = stream;
    let _ = stream.write_all((head + &text).as_bytes());
}

fn peek(stream: &UnixStream, buffer: &mut [u8]) -> usize {
    use std::os::fd::AsRawFd;
    nix::sys::socket::recv(stream.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::MSG_PEEK).unwrap_or(0)
}
