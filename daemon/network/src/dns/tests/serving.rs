//! Sockets: queries while records change, restarts with the sockets kept, ports that are taken.

use super::*;
use crate::dns::forward::servers::HostServers;
use crate::dns::forward::{Forwarder, Patience};
use crate::dns::serve::{Bound, Listener, Server, bind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

fn server() -> Arc<Server> {
    let forwarder = Forwarder::new(HostServers::fixed(Vec::new()), Patience::default(), Handle::current());
    Server::new(example(), Arc::new(forwarder), &[])
}

fn query(socket: &UdpSocket, name: &str) -> Message {
    socket.send(&ask(name, RecordType::A).packet()).unwrap();
    let mut buffer = [0; 2000];
    let len = socket.recv(&mut buffer).expect("an answer in time");
    Message::from_vec(&buffer[..len]).unwrap()
}

fn asker(to: SocketAddr) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { "127.0.0.1".parse().unwrap() } else { "::1".parse().unwrap() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn records_change_under_load_and_no_query_is_lost() {
    let server = server();
    let listener =
        Listener::start(bind("127.0.0.1:0".parse().unwrap(), 2).unwrap(), &server, &Handle::current()).unwrap();
    let address = listener.address();
    let mut records = Records::new(zones());
    let mut change = |round: u8| {
        for n in 0..100 {
            let spec = json!({"clusterIP": format!("10.96.{round}.{n}"), "ports": [{"name": "http", "port": 80}]});
            put(&mut records, "services", "default", &format!("s{n}"), &service(spec));
        }
        server.publish(records.snapshot().unwrap());
    };
    change(0);
    let stop = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let (socket, mut count) = (asker(address), 0_u64);
                while !stop.load(Ordering::Relaxed) {
                    let said = query(&socket, "s0.default.svc.cluster.local.");
                    assert_eq!(said.answers.len(), 1, "{}", show(&said));
                    count += 1;
                }
                count
            })
        })
        .collect();
    (1..30).for_each(&mut change);
    stop.store(true, Ordering::Relaxed);
    for asker in askers {
        assert!(asker.join().expect("every query to be answered") > 0);
    }
    let said = query(&asker(address), "s99.default.svc.cluster.local.");
    assert_eq!(said.answers[0].data.to_string(), "10.96.29.99");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_between_two_daemons_is_answered_by_the_second() {
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let bound = bind(address.parse().unwrap(), 2).unwrap();
        let copy = || Bound {
            address: bound.address,
            udp: bound.udp.iter().map(|s| s.try_clone().unwrap()).collect(),
            tcp: bound.tcp.iter().map(|s| s.try_clone().unwrap()).collect(),
        };
        let loopback: IpAddr =
            if bound.address.is_ipv4() { "127.0.0.1".parse().unwrap() } else { "::1".parse().unwrap() };
        let to = SocketAddr::from((loopback, bound.address.port()));
        let server = server();
        let name = "kubernetes.default.svc.cluster.local.";
        let first = Listener::start(copy(), &server, &Handle::current()).unwrap();
        assert_eq!(tokio::task::spawn_blocking(move || query(&asker(to), name)).await.unwrap().answers.len(), 1);
        first.stop();
        let sockets: Vec<UdpSocket> = (0..20).map(|_| asker(to)).collect();
        for socket in &sockets {
            socket.send(&ask(name, RecordType::A).packet()).unwrap();
        }
        let second = Listener::start(copy(), &server, &Handle::current()).unwrap();
        for socket in &sockets {
            let mut buffer = [0; 600];
            let len = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{address}: {e}"));
            assert_eq!(Message::from_vec(&buffer[..len]).unwrap().answers.len(), 1);
        }
        drop(second);
    }
}

#[tokio::test]
async fn a_port_that_another_has_is_an_error_even_if_it_would_share() {
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    #[cfg(target_os = "linux")]
    other.set_reuse_port(true).unwrap();
    other.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let taken = other.local_addr().unwrap().as_socket().unwrap();
    assert_eq!(bind(taken, 2).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_need_not_be_there_yet() {
    // TEST-NET-1: nobody's.
    bind("192.0.2.123:0".parse().unwrap(), 2).unwrap();
    bind("[2001:db8::7]:0".parse().unwrap(), 1).unwrap();
}
