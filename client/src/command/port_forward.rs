//! `port-forward`: local TCP ports that lead into a pod. Each connection goes over a WebSocket of its own
//! (v4.channel.k8s.io: channel 0 is data, channel 1 tells what went wrong, both begin with the port's number).

use super::session;
use crate::context::Context;
use crate::daemon::encode;
use crate::error::Error;
use crate::exit::Exit;
use crate::kube;
use crate::target;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use std::net::IpAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// Bytes of the port's number at the start of each channel.
const NUMBER: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod: `web` or `pod/web`
    pod: String,
    /// `8080:80` from the local port 8080 to 80 inside, `80` from 80 to 80, `:80` from any free port
    #[arg(required = true, value_name = "[LOCAL:]PORT", value_parser = ports)]
    ports: Vec<(u16, u16)>,
    /// Listen at this address of the host
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
}

/// `8080:80`, `80`, `:80`.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
    let (local, inside) = text.split_once(':').unwrap_or((text, text));
    let inside = number(inside)?;
    if inside == 0 {
        return Err("port 0 leads nowhere".to_owned());
    }
    Ok((if local.is_empty() { 0 } else { number(local)? }, inside))
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let pod = target::pod(&arguments.pod)?;
    let pods = kube::collection(target::kind("pods")?, Some(context.namespace()));
    let base = format!("{pods}/{}", encode(&pod));
    // A pod that is not there is said now, not at the first connection.
    let _: serde_json::Value = context.daemon.get(&base).await?;
    let mut listening = Vec::new();
    for (local, inside) in &arguments.ports {
        let at = std::net::SocketAddr::new(arguments.address, *local);
        let listener = TcpListener::bind(at).await.map_err(|e| Error::broken(format!("can't listen at {at}"), e))?;
        let at = listener.local_addr().map_err(|e| Error::broken("can't listen", e))?;
        context.write(format!("Forwarding from {at} -> {inside}\n").as_bytes())?;
        listening.push(listen(context, listener, format!("{base}/portforward?ports={inside}")));
    }
    // Until it is interrupted.
    join_all(listening).await;
    Ok(Exit::Ok)
}

async fn listen(context: &Context, listener: TcpListener, path: String) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => open.push(forward(context, stream, &path)),
                Err(e) => {
                    context.fail(&Error::broken("can't accept connections any more", e));
                    return;
                }
            },
            Some(done) = open.next() => if let Err(error) = done {
                context.fail(&error);
            },
        }
    }
}

async fn forward(context: &Context, local: TcpStream, path: &str) -> Result<(), Error> {
    let (mut sink, mut source) = session::connect(context, path, PROTOCOL).await?.split();
    let (mut read, mut write) = local.into_split();
    let inward = async {
        let mut buffer = vec![DATA; 16 << 10];
        while let Ok(n @ 1..) = read.read(&mut buffer[1..]).await {
            if sink.send(Message::binary(buffer[..=n].to_vec())).await.is_err() {
                return;
            }
        }
        // The protocol has no word for the end of one direction: what is still on its way back is waited for.
        std::future::pending::<()>().await;
    };
    let outward = async {
        // The port's number comes first on both channels.
        let mut skip = [NUMBER; 2];
        while let Some(Ok(message)) = source.next().await {
            let Message::Binary(frame) = message else { continue };
            let Some((channel, bytes)) = frame.split_first() else { continue };
            let Some(skip) = skip.get_mut(usize::from(*channel)) else { continue };
            let bytes = &bytes[(*skip).min(bytes.len())..];
            *skip = 0;
            match *channel {
                ERROR if !bytes.is_empty() => {
                    return Err(Error::usage(String::from_utf8_lossy(bytes).into_owned(), "does it listen there?"));
                }
                DATA if write.write_all(bytes).await.is_err() => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        () = inward => Ok(()),
        done = outward => done,
    }
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn ports_are_read_as_kubectl_reads_them() {
        assert_eq!(ports("8080:80"), Ok((8080, 80)));
        assert_eq!(ports("80"), Ok((80, 80)));
        assert_eq!(ports(":80"), Ok((0, 80)));
        for bad in ["", ":", "x:1", "1:0", "70000"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
