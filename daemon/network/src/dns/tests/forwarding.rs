//! Names of others, with servers that are slow, lie, or are not there.

use super::*;
use crate::dns::forward::servers::HostServers;
use crate::dns::forward::{Forwarder, Patience};
use crate::dns::serve::{Listener, Server, bind};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{RData, Record};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

/// How a server of ours behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Answers,
    Silent,
    LiesFirst,
    CutsOff,
    Refuses,
    KnowsNoEdns,
    Says(ResponseCode),
}

/// A server of names elsewhere; counts what it is asked.
async fn elsewhere(manner: Manner) -> (SocketAddr, Arc<AtomicUsize>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 2000];
        loop {
            let (len, peer) = udp.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let query = Message::from_vec(&buffer[..len]).unwrap();
            let answer = reply_to(&query, manner, false);
            match manner {
                Manner::Silent => continue,
                Manner::LiesFirst => {
                    let mut lie = answer.clone();
                    lie.metadata.id ^= 1;
                    lie.answers[0].data = RData::A(A::new(6, 6, 6, 6));
                    udp.send_to(&lie.to_vec().unwrap(), peer).await.unwrap();
                    let mut other = answer.clone();
                    other.queries[0] = Query::query(Name::from_ascii("other.example.").unwrap(), RecordType::A);
                    udp.send_to(&other.to_vec().unwrap(), peer).await.unwrap();
                    udp.send_to(b"nonsense", peer).await.unwrap();
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            udp.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let len = stream.read_u16().await.unwrap();
            let mut buffer = vec![0; usize::from(len)];
            stream.read_exact(&mut buffer).await.unwrap();
            let answer = reply_to(&Message::from_vec(&buffer).unwrap(), manner, true).to_vec().unwrap();
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    (address, asked)
}

fn reply_to(query: &Message, manner: Manner, tcp: bool) -> Message {
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(query.queries[0].clone());
    let name = query.queries[0].name().clone();
    match manner {
        Manner::Refuses => answer.metadata.response_code = ResponseCode::Refused,
        Manner::KnowsNoEdns if query.edns.is_some() => answer.metadata.response_code = ResponseCode::FormErr,
        Manner::Says(code) => {
            answer.metadata.response_code = code;
            let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 30);
            answer.add_authority(Record::from_rdata(name, 300, RData::SOA(soa)));
        }
        Manner::CutsOff if !tcp => answer.metadata.truncation = true,
        _ => {
            let count = if manner == Manner::CutsOff { 100 } else { 1 };
            for n in 0..count {
                answer.add_answer(Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, n))));
            }
        }
    }
    if let Some(edns) = query.edns.clone().filter(|_| manner != Manner::KnowsNoEdns) {
        answer.set_edns(edns);
    }
    answer
}

/// A name server of ours that asks `servers`.
struct Ours {
    listener: Listener,
    server: Arc<Server>,
}

const PATIENCE: Patience = Patience { attempt: Duration::from_millis(200), total: Duration::from_millis(700) };

impl Ours {
    fn asking(servers: Vec<SocketAddr>) -> Self {
        let forwarder = Arc::new(Forwarder::new(HostServers::fixed(servers), PATIENCE, Handle::current()));
        let server = Server::new(example(), forwarder, &[]);
        let bound = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        Self { listener: Listener::start(bound, &server, &Handle::current()).unwrap(), server }
    }

    async fn udp(&self, ask: &Ask) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.listener.address()).await.unwrap();
        socket.send(&ask.packet()).await.unwrap();
        let mut buffer = [0; 2000];
        let len = timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        Message::from_vec(&buffer[..len]).unwrap()
    }

    async fn tcp(&self, ask: &Ask) -> Message {
        let mut stream = TcpStream::connect(self.listener.address()).await.unwrap();
        let packet = ask.packet();
        stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
        stream.write_all(&packet).await.unwrap();
        let mut buffer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut buffer).await.unwrap();
        Message::from_vec(&buffer).unwrap()
    }
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

fn example_com() -> Ask {
    ask("www.example.com.", RecordType::A)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_remembered_and_grows_older() {
    let (server, asked) = elsewhere(Manner::Answers).await;
    let ours = Ours::asking(vec![server]);
    let mut query = ask("WWW.example.COM.", RecordType::A);
    query.edns = Some(1232);
    let first = ours.udp(&query).await;
    assert_eq!(addresses(&first), ["192.0.2.0"]);
    assert_eq!(first.answers[0].name.to_ascii(), "WWW.example.COM.");
    assert!(!first.metadata.authoritative && first.metadata.recursion_available && first.edns.is_some());
    let again = ours.udp(&example_com()).await;
    assert_eq!(addresses(&again), ["192.0.2.0"]);
    assert!(again.answers[0].ttl <= 60 && again.answers[0].ttl > 50 && again.edns.is_none());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(ours.server.counts().forwarded.cached, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_the_same_cause_one_question() {
    let (server, asked) = elsewhere(Manner::Answers).await;
    let ours = Arc::new(Ours::asking(vec![server]));
    let all: Vec<_> = (0..100)
        .map(|_| {
            let ours = Arc::clone(&ours);
            tokio::spawn(async move { ours.udp(&example_com()).await.answers.len() })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), 1);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_answers_are_not_believed() {
    let (server, _) = elsewhere(Manner::LiesFirst).await;
    assert_eq!(addresses(&Ours::asking(vec![server]).udp(&example_com()).await), ["192.0.2.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_is_asked_for_by_tcp() {
    let (server, _) = elsewhere(Manner::CutsOff).await;
    let ours = Ours::asking(vec![server]);
    let by_udp = ours.udp(&example_com()).await;
    assert!(by_udp.metadata.truncation && !by_udp.answers.is_empty());
    let by_tcp = ours.tcp(&example_com()).await;
    assert!(!by_tcp.metadata.truncation);
    assert_eq!(by_tcp.answers.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_silent_refuses_or_is_not_there_is_passed_over() {
    let (good, _) = elsewhere(Manner::Answers).await;
    for manner in [Manner::Silent, Manner::Refuses, Manner::Says(ResponseCode::ServFail)] {
        let (bad, bad_asked) = elsewhere(manner).await;
        let ours = Ours::asking(vec![bad, good]);
        assert_eq!(addresses(&ours.udp(&example_com()).await), ["192.0.2.0"], "{manner:?}");
        if manner == Manner::Silent {
            // It comes last from now on.
            ours.udp(&ask("next.example.com.", RecordType::A)).await;
            assert_eq!(bad_asked.load(Ordering::SeqCst), 1);
        }
    }
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(addresses(&Ours::asking(vec![gone, good]).udp(&example_com()).await), ["192.0.2.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_there_is_a_failure_in_time() {
    let (silent, _) = elsewhere(Manner::Silent).await;
    for servers in [vec![silent], vec![silent, silent], vec![]] {
        let ours = Ours::asking(servers);
        let began = Instant::now();
        assert_eq!(ours.udp(&example_com()).await.metadata.response_code, ResponseCode::ServFail);
        assert!(began.elapsed() < PATIENCE.total + Duration::from_millis(500), "{:?}", began.elapsed());
        // Ours are answered meanwhile and ever after.
        assert_eq!(ours.udp(&ask("kubernetes.default.svc.cluster.local.", RecordType::A)).await.answers.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_nothing_is_remembered() {
    let (server, asked) = elsewhere(Manner::Says(ResponseCode::NXDomain)).await;
    let ours = Ours::asking(vec![server]);
    for _ in 0..3 {
        let said = ours.udp(&example_com()).await;
        assert_eq!(said.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(said.authorities.len(), 1);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_edns_is_asked_without() {
    let (server, _) = elsewhere(Manner::KnowsNoEdns).await;
    let mut query = example_com();
    query.edns = Some(1232);
    let said = Ours::asking(vec![server]).udp(&query).await;
    assert_eq!(addresses(&said), ["192.0.2.0"]);
    assert!(said.edns.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_to_elsewhere_comes_with_what_it_is_there() {
    let (server, _) = elsewhere(Manner::Answers).await;
    let said = Ours::asking(vec![server]).udp(&ask("outside.default.SVC.cluster.local.", RecordType::A)).await;
    assert_eq!(
        show(&said),
        "NoError ra\noutside.default.SVC.cluster.local. 30 CNAME www.example.com.\nwww.example.com. 60 A 192.0.2.0"
    );
}

/// A pod with five search domains asks five names of ours for each of theirs: none of them may go further.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_search_lists_stays_here() {
    let (server, asked) = elsewhere(Manner::Answers).await;
    let ours = Ours::asking(vec![server]);
    for n in 0..50 {
        for suffix in ["default.svc.cluster.local.", "svc.cluster.local.", "cluster.local."] {
            let said = ours.udp(&ask(&format!("host{n}.example.com.{suffix}"), RecordType::A)).await;
            assert_eq!(said.metadata.response_code, ResponseCode::NXDomain);
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
