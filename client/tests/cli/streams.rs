//! exec over WebSocket, logs.

use crate::server::Server;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept_hdr};

const ZERO: &[u8] = br#"{"metadata":{},"status":"Success"}"#;
const SEVEN: &[u8] = br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: command terminated with exit code 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
const ABSENT: &[u8] = br#"{"metadata":{},"status":"Failure","message":"Internal error occurred: no such file: nosuch","reason":"InternalError","code":500}"#;

#[allow(clippy::result_large_err)]
fn accept(stream: UnixStream) -> WebSocket<UnixStream> {
    accept_hdr(stream, |request: &Request, mut response: Response| {
        assert_eq!(request.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        response.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
        Ok(response)
    })
    .unwrap()
}

fn send(socket: &mut WebSocket<UnixStream>, channel: u8, bytes: &[u8]) {
    let mut frame = vec![channel];
    frame.extend_from_slice(bytes);
    socket.send(Message::binary(frame)).unwrap();
}

fn end(mut socket: WebSocket<UnixStream>, outcome: &[u8]) {
    send(&mut socket, 3, outcome);
    let _ = socket.close(None);
    while socket.read().is_ok() {}
}

#[test]
fn output_goes_where_it_belongs_and_the_code_is_the_programs() {
    let server = Server::with_upgrade(|stream| {
        let mut socket = accept(stream);
        send(&mut socket, 1, b"");
        send(&mut socket, 1, b"out\n");
        send(&mut socket, 2, b"err\n");
        end(socket, SEVEN);
    });
    let said = server.ctl(&["exec", "web", "-c", "main", "--", "sh", "-c", "exit 7", ""]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
    assert_eq!(
        server.requests(),
        ["GET /api/v1/namespaces/default/pods/web/exec?container=main&stdout=true&stderr=true\
          &command=sh&command=-c&command=exit%207&command="]
    );
}

#[test]
fn standard_input_is_passed_on_and_its_end_too() {
    let server = Server::with_upgrade(|stream| {
        let mut socket = accept(stream);
        // A word at once, that nobody waits for: it can take output.
        assert!(matches!(socket.read().unwrap(), Message::Ping(_)));
        let mut typed = Vec::new();
        loop {
            match socket.read().unwrap() {
                Message::Binary(frame) if frame[..] == [255, 0] => break,
                Message::Binary(frame) => {
                    assert_eq!(frame[0], 0);
                    typed.extend_from_slice(&frame[1..]);
                }
                other => panic!("{other:?}"),
            }
        }
        send(&mut socket, 1, &typed);
        end(socket, ZERO);
    });
    let text = "a line\n".repeat(20_000);
    let said = server.ctl_with_input(&["exec", "-i", "web", "--", "cat"], &text);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out == text, "{} of {} bytes", said.out.len(), text.len());
}

#[test]
fn a_terminal_is_raw_while_the_program_runs_and_itself_again_after() {
    use nix::sys::termios::{LocalFlags, tcgetattr};
    let server = Server::with_upgrade(|stream| {
        let mut socket = accept(stream);
        let first = socket.read().unwrap().into_data();
        assert_eq!((first[0], &first[1..]), (4, &br#"{"Height":30,"Width":100}"#[..]));
        // Control-C is a key like any other.
        let key = socket.read().unwrap().into_data();
        assert_eq!(&key[..], b"\x00\x03");
        send(&mut socket, 1, b"interrupted");
        end(socket, SEVEN);
    });
    let size = nix::pty::Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let side = || Stdio::from(pty.slave.try_clone().unwrap());
    let canonical = || tcgetattr(&pty.slave).unwrap().local_flags.contains(LocalFlags::ICANON);
    assert!(canonical());
    let mut command = server.command(&["exec", "-it", "web", "--", "sh"]);
    let mut child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
    while canonical() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::yield_now();
    }
    let mut terminal = std::fs::File::from(pty.master.try_clone().unwrap());
    terminal.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(canonical(), "the terminal is as it was");
    let mut seen = [0; 64];
    let count = terminal.read(&mut seen).unwrap();
    assert_eq!(&seen[..count], b"interrupted");
}

#[test]
fn a_program_that_can_not_run_is_named() {
    let server = Server::with_upgrade(|stream| end(accept(stream), ABSENT));
    let said = server.ctl(&["exec", "web", "--", "nosuch"]);
    assert!(said.code == 1 && said.err.contains("\"nosuch\" can't be run"), "{said:?}");
}

#[test]
fn a_connection_that_ends_too_soon_is_an_error() {
    let server = Server::with_upgrade(|stream| drop(accept(stream)));
    let said = server.ctl(&["exec", "web", "--", "true"]);
    assert!(said.code == 1 && !said.err.is_empty(), "{said:?}");
}

#[test]
fn a_refusal_before_the_upgrade_keeps_its_code() {
    let server = Server::with_upgrade(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let body = r#"{"kind":"Status","code":404,"reason":"NotFound","message":"pods \"nobody\" not found"}"#;
        let head = format!(
            "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes()).unwrap();
    });
    let said = server.ctl(&["exec", "nobody", "--", "true"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("pods \"nobody\" not found"), "{}", said.err);
}

#[test]
fn logs_are_passed_on_as_they_are() {
    let server = Server::new();
    server.on_text("GET /api/v1/namespaces/default/pods/web/log", 200, "up\nno newline");
    assert_eq!(server.ctl(&["logs", "web"]).out, "up\nno newline");
    server.on_text(
        "GET /api/v1/namespaces/a/pods/web/log?container=main&follow=true&previous=true&timestamps=true&tailLines=5&sinceSeconds=90",
        200,
        "x\n",
    );
    let args =
        ["-n", "a", "logs", "pod/web", "-c", "main", "-f", "-p", "--timestamps", "--tail", "5", "--since", "1m30s"];
    assert_eq!(server.ctl(&args).out, "x\n");
}
