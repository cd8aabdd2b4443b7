//! Whole connections, against a client made of the same frames.

use super::frame::{Control, HEAD, Head, data_head};
use super::headers::{Packer, Unpacker};
use super::*;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Duration, timeout};

struct Client {
    io: DuplexStream,
    packer: Packer,
    unpacker: Unpacker,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Control(Control),
    Data { stream: u32, fin: bool, bytes: Vec<u8> },
}

impl Client {
    fn new() -> (Self, Connection) {
        let (io, theirs) = duplex(256 << 10);
        (Self { io, packer: Packer::new(), unpacker: Unpacker::new() }, Connection::serve(theirs))
    }

    async fn control(&mut self, frame: Control) {
        self.io.write_all(&frame.encode(&mut self.packer)).await.unwrap();
    }

    async fn open(&mut self, stream: u32, kind: &str) {
        let headers = vec![("streamtype".to_owned(), kind.to_owned())];
        self.control(Control::SynStream { stream, fin: false, headers }).await;
    }

    async fn data(&mut self, stream: u32, fin: bool, bytes: &[u8]) {
        self.io.write_all(&data_head(stream, fin, bytes.len())).await.unwrap();
        self.io.write_all(bytes).await.unwrap();
    }

    async fn next(&mut self) -> Seen {
        let mut head = [0; HEAD];
        soon(self.io.read_exact(&mut head)).await.unwrap();
        match Head::parse(head).unwrap() {
            Head::Data { stream, fin, length } => {
                let mut bytes = vec![0; length];
                self.io.read_exact(&mut bytes).await.unwrap();
                Seen::Data { stream, fin, bytes }
            }
            Head::Control { kind, flags, length } => {
                let mut bytes = vec![0; length];
                self.io.read_exact(&mut bytes).await.unwrap();
                Seen::Control(Control::parse(kind, flags, &bytes, &mut self.unpacker).unwrap().unwrap())
            }
        }
    }

    /// The next frame that is not about windows.
    async fn telling(&mut self) -> Seen {
        loop {
            match self.next().await {
                Seen::Control(Control::WindowUpdate { .. }) => {}
                other => return other,
            }
        }
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), what).await.expect("nothing happens")
}

fn replied(stream: u32) -> Seen {
    Seen::Control(Control::SynReply { stream, fin: false, headers: Vec::new() })
}

#[tokio::test]
async fn streams_carry_bytes_both_ways_and_end_one_side_at_a_time() {
    let (mut client, mut server) = Client::new();
    client.open(1, "data").await;
    let mut stream = soon(server.next()).await.unwrap();
    assert_eq!(client.next().await, replied(1));
    assert_eq!(stream.header("StreamType"), Some("data"));
    client.data(1, false, b"hel").await;
    client.data(1, true, b"lo").await;
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "hello");
    stream.write_all(b"back").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(client.next().await, Seen::Data { stream: 1, fin: false, bytes: b"back".to_vec() });
    assert_eq!(client.next().await, Seen::Data { stream: 1, fin: true, bytes: Vec::new() });
    drop(stream);
    soon(server.close()).await;
    assert_eq!(client.next().await, Seen::Control(Control::GoAway { last_stream: 0, status: 0 }));
    assert_eq!(soon(client.io.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_keeps_no_window_gets_everything_and_one_that_does_is_waited_for() {
    let text = vec![b'x'; 300_000];
    for counts in [false, true] {
        let (mut client, mut server) = Client::new();
        if counts {
            client.control(Control::Settings { initial_window: Some(1000) }).await;
        }
        client.open(1, "data").await;
        let mut stream = soon(server.next()).await.unwrap();
        assert_eq!(client.next().await, replied(1));
        let sent = text.clone();
        let writing = tokio::spawn(async move {
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut got = 0;
        let mut room = 1000;
        loop {
            let Seen::Data { fin, bytes, .. } = client.next().await else { panic!("no data") };
            got += bytes.len();
            assert!(!counts || got <= room, "{got} of {room}");
            if fin {
                break;
            }
            if counts && got == room {
                room += 50_000;
                client.control(Control::WindowUpdate { stream: 1, more: 50_000 }).await;
            }
        }
        assert_eq!(got, text.len());
        soon(writing).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_stuck_reader_does_not_stop_the_others() {
    let (mut client, mut server) = Client::new();
    client.open(1, "data").await;
    let stuck = soon(server.next()).await.unwrap();
    client.open(3, "data").await;
    let mut other = soon(server.next()).await.unwrap();
    assert_eq!((client.next().await, client.next().await), (replied(1), replied(3)));
    // More than waits for a reader.
    let (mut reading, mut writing) = tokio::io::split(client.io);
    let send = async {
        writing.write_all(&data_head(1, false, 1 << 20)).await.unwrap();
        writing.write_all(&vec![0; 1 << 20]).await.unwrap();
        writing.write_all(&data_head(3, true, 2)).await.unwrap();
        writing.write_all(b"hi").await.unwrap();
    };
    let mut text = String::new();
    let (_, read) = tokio::join!(send, other.read_to_string(&mut text));
    read.unwrap();
    assert_eq!(text, "hi");
    let mut reset = [0; 16];
    reading.read_exact(&mut reset).await.unwrap();
    assert_eq!(reset[..], [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 7]);
    drop(stuck);
}

#[tokio::test]
async fn resets_pings_and_limits() {
    let (mut client, mut server) = Client::new();
    client.control(Control::Ping(7)).await;
    assert_eq!(client.next().await, Seen::Control(Control::Ping(7)));
    client.open(1, "data").await;
    let mut stream = soon(server.next()).await.unwrap();
    assert_eq!(client.next().await, replied(1));
    client.control(Control::RstStream { stream: 1, status: 5 }).await;
    assert_eq!(soon(stream.read_u8()).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(stream.write_all(b"x").await.is_err());
    client.open(3, "data").await;
    drop(soon(server.next()).await.unwrap());
    assert_eq!(client.next().await, replied(3));
    assert_eq!(client.telling().await, Seen::Control(Control::RstStream { stream: 3, status: 5 }));
    // A number that was used before breaks the protocol.
    client.open(3, "data").await;
    assert!(soon(server.next()).await.is_none());
    assert_eq!(client.next().await, Seen::Control(Control::GoAway { last_stream: 3, status: 1 }));
}

#[tokio::test]
async fn too_many_streams_are_refused() {
    let (mut client, mut server) = Client::new();
    let mut held = Vec::new();
    for n in 0..1024 {
        client.open(2 * n + 1, "data").await;
        held.push(soon(server.next()).await.unwrap());
        assert_eq!(client.next().await, replied(2 * n + 1));
    }
    client.open(2049, "data").await;
    assert_eq!(client.next().await, Seen::Control(Control::RstStream { stream: 2049, status: 3 }));
}

#[tokio::test]
async fn a_vanished_client_ends_its_streams() {
    let (mut client, mut server) = Client::new();
    client.open(1, "data").await;
    let mut stream = soon(server.next()).await.unwrap();
    drop(client);
    assert!(soon(server.next()).await.is_none());
    assert!(soon(stream.read_u8()).await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_bytes_end_a_connection_and_nothing_else(
        sound in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut client, mut server) = Client::new();
            if sound {
                client.open(1, "data").await;
                client.data(1, false, b"text").await;
            }
            client.io.write_all(&bytes).await.unwrap();
            client.io.shutdown().await.unwrap();
            while let Some(mut stream) = soon(server.next()).await {
                let _ = soon(stream.read_to_end(&mut Vec::new())).await;
            }
            soon(server.close()).await;
        });
    }
}
