//! A registry in a few threads: plain HTTP/1.1, one request a connection.

use super::digest;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Break off after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Say nothing for so long.
    pub(crate) hang: Duration,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// What is done before the request is answered as it should be; `None`: nothing.
type Fault = Box<dyn FnMut(&Request) -> Option<Reply> + Send>;

#[derive(Default)]
struct Shelf {
    /// By `manifests/…` and `blobs/…`: media type and content.
    documents: HashMap<String, (String, Vec<u8>)>,
    log: Vec<Request>,
    fault: Option<Fault>,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    shelf: Arc<Mutex<Shelf>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap().to_string(), shelf: Arc::default() };
        let own = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.serve(stream));
            }
        });
        server
    }

    pub(crate) fn fault(&self, fault: impl FnMut(&Request) -> Option<Reply> + Send + 'static) {
        self.shelf.lock().unwrap().fault = Some(Box::new(fault));
    }

    pub(crate) fn mend(&self) {
        self.shelf.lock().unwrap().fault = None;
    }

    /// Requests so far, as `GET blobs/sha256:…`; forgotten with it.
    pub(crate) fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.shelf.lock().unwrap().log)
    }

    pub(crate) fn put(&self, path: &str, media: &str, content: &[u8]) {
        self.shelf.lock().unwrap().documents.insert(path.to_owned(), (media.to_owned(), content.to_vec()));
    }

    pub(crate) fn blob(&self, content: &[u8]) -> Value {
        let digest = digest(content);
        self.put(&format!("blobs/{digest}"), "application/octet-stream", content);
        json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": content.len() })
    }

    /// An image of these layers; its manifest's descriptor.
    pub(crate) fn image(&self, layers: &[&[u8]], platform: Value) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|l| digest(l)).collect();
        let config = json!({
            "architecture": platform["architecture"], "os": platform["os"],
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let mut config = self.blob(config.to_string().as_bytes());
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let layers: Vec<Value> = layers.iter().map(|l| self.blob(l)).collect();
        self.manifest(&json!({ "schemaVersion": 2, "config": config, "layers": layers }), platform)
    }

    pub(crate) fn manifest(&self, manifest: &Value, platform: Value) -> Value {
        let text = manifest.to_string();
        let media = "application/vnd.oci.image.manifest.v1+json";
        self.put(&format!("manifests/{}", digest(text.as_bytes())), media, text.as_bytes());
        json!({ "mediaType": media, "digest": digest(text.as_bytes()), "size": text.len(), "platform": platform })
    }

    /// Points a tag at a manifest.
    pub(crate) fn tag(&self, tag: &str, descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        let mut shelf = self.shelf.lock().unwrap();
        let found = shelf.documents.get(&format!("manifests/{digest}")).cloned().unwrap();
        shelf.documents.insert(format!("manifests/{tag}"), found);
        digest
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        // A TLS handshake: refused in plain words, as web servers do.
        if reader.fill_buf().ok()?.first() == Some(&0x16) {
            let mut stream = stream;
            return stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").ok();
        }
        let request = read(&mut reader)?;
        let reply = {
            let mut shelf = self.shelf.lock().unwrap();
            shelf.log.push(request.clone());
            let fault = shelf.fault.as_mut().and_then(|fault| fault(&request));
            fault.unwrap_or_else(|| answer(&shelf, &request))
        };
        std::thread::sleep(reply.hang);
        let mut stream = stream;
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
        if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
            head += &format!("Content-Length: {}\r\n", reply.body.len());
        }
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        if request.method != "HEAD" {
            stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())]).ok()?;
        }
        stream.flush().ok()
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    std::io::Read::read_exact(reader, &mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn answer(shelf: &Shelf, request: &Request) -> Reply {
    let at = ["manifests/", "blobs/"].iter().find_map(|part| request.path.find(part));
    let found = at.and_then(|at| shelf.documents.get(&request.path[at..]));
    let Some((media, content)) = found else {
        let body = json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "manifest unknown" }] });
        return Reply { body: body.to_string().into(), ..Reply::status(404) };
    };
    let reply = Reply::status(200).with("Content-Type", media).with("Docker-Content-Digest", digest(content));
    match request.headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
    {
        Some(from) if from < content.len() => {
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            Reply { status: 206, body: content[from..].to_vec(), ..reply }.with("Content-Range", range)
        }
        _ if request.method == "HEAD" => reply.with("Content-Length", content.len()),
        _ => Reply { body: content.clone(), ..reply },
    }
}
