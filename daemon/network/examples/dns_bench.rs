//! The name server's load generator, and the name server alone to put load on. `make bench-dns` runs it.
//!
//! ```text
//! dns_bench serve ADDR:PORT SERVICES [SECONDS]   our name server with so many services; replaces all of them at a time,
//!                                                every second, when SECONDS is given, and says how long that takes
//! dns_bench load ADDR:PORT SERVICES SECONDS [RATE]  as many questions as are answered, or RATE a second
//! dns_bench zone SERVICES                        the same names as a zone file, for other servers
//! ```
//!
//! `load` keeps 256 questions under way (so many pods ask at one time) and prints one line of JSON: answers a second, how
//! long they took, how many never came. `RATE` sends them evenly instead: delays under a load that is bearable.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures time and prints")]

use reddwarf_network::dns::forward::servers::HostServers;
use reddwarf_network::dns::forward::{Forwarder, Patience};
use reddwarf_network::dns::serve::{Listener, Server, bind};
use reddwarf_network::dns::{Change, Port, Records, Service, Zones};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", address, services] => serve(address.parse()?, services.parse()?, 0),
        ["serve", address, services, seconds] => serve(address.parse()?, services.parse()?, seconds.parse()?),
        ["load", address, services, seconds] => load(address.parse()?, services.parse()?, seconds.parse()?, None),
        ["load", address, services, seconds, rate] => {
            load(address.parse()?, services.parse()?, seconds.parse()?, Some(rate.parse()?))
        }
        ["zone", services] => {
            zone(services.parse()?);
            Ok(())
        }
        _ => Err("usage: dns_bench serve|load|zone …: see the top of dns_bench.rs".into()),
    }
}

fn address(n: u32, turn: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a60_0000 + (n + turn) % 0xffff)
}

fn put_all(records: &mut Records, services: u32, turn: u32) {
    for n in 0..services {
        let service = Service {
            addresses: vec![address(n, turn).into()],
            ports: vec![Port { name: "http".into(), protocol: "TCP".into(), port: 80 }],
            ..Service::default()
        };
        records.apply(Change::Service(("default".into(), format!("svc-{n}").into()), Some(service)));
    }
}

/// Our server as the daemon has it, with one socket and one thread: a core's worth.
fn serve(address: SocketAddr, services: u32, seconds: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let zones = Zones::new("cluster.local", vec!["10.96.0.0/16".parse()?], Vec::new())?;
    let mut records = Records::new(zones);
    records.apply(Change::Namespace("default".into(), true));
    put_all(&mut records, services, 0);
    let snapshot = records.snapshot().ok_or("no names")?;
    let forwarder = Forwarder::new(HostServers::fixed(Vec::new()), Patience::default(), runtime.handle().clone());
    let server = Server::new(snapshot, Arc::new(forwarder), &[]);
    let _listener = Listener::start(bind(address, 1)?, &server, runtime.handle())?;
    println!("serving");
    let mut turn = 0;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        if seconds == 0 {
            continue;
        }
        turn += 1;
        put_all(&mut records, services, turn);
        let (began, used) = (Instant::now(), cpu());
        let snapshot = records.snapshot().ok_or("nothing changed")?;
        let made = began.elapsed();
        server.publish(snapshot);
        let (all, used) = (began.elapsed(), cpu().saturating_sub(used));
        println!(
            "{{\"services\": {services}, \"made_ms\": {:.2}, \"replaced_ms\": {:.2}, \"cpu_ms\": {:.2}}}",
            ms(made),
            ms(all),
            ms(used)
        );
        if u64::from(turn) >= seconds {
            return Ok(());
        }
    }
}

/// This thread's CPU time, which other load on the machine hardly changes. Nothing where the system is not asked for it.
#[cfg(target_os = "linux")]
fn cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn cpu() -> Duration {
    Duration::ZERO
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn zone(services: u32) {
    println!(
        "$ORIGIN cluster.local.\n$TTL 30\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1"
    );
    for n in 0..services {
        let name = format!("svc-{n}.default.svc");
        println!("{name} A {}\n_http._tcp.{name} SRV 0 100 80 {name}", address(n, 0));
    }
}

/// Questions under way.
const WINDOW: usize = 256;
/// One that is not answered by then is lost.
const LOST: Duration = Duration::from_secs(2);

fn load(address: SocketAddr, services: u32, seconds: u64, rate: Option<u64>) -> Outcome {
    // Several sockets, as pods are: servers with several threads spread them.
    let mut askers = Vec::new();
    for n in 0..8_u16 {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        askers.push(Asker {
            socket,
            under_way: vec![None; WINDOW / 8],
            free: (0..WINDOW / 8).collect(),
            seed: u32::from(n),
        });
    }
    let mut seen = Seen::default();
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    while Instant::now() < end {
        let due = rate.map(|rate| (began.elapsed().as_secs_f64() * rate as f64) as u64);
        let mut idle = true;
        for asker in &mut askers {
            let now = Instant::now();
            while let Some(slot) = asker.free.last().copied().filter(|_| due.is_none_or(|due| seen.asked < due)) {
                let packet = asker.question(slot, services);
                if asker.socket.send(&packet).is_err() {
                    break;
                }
                asker.free.pop();
                asker.under_way[slot] = Some(now);
                seen.asked += 1;
                idle = false;
            }
            idle &= !asker.read(&mut seen);
            if seen.asked % 4096 == 0 {
                asker.give_up(&mut seen);
            }
        }
        if idle && rate.is_some() {
            std::thread::sleep(Duration::from_micros(20));
        }
    }
    let elapsed = began.elapsed().as_secs_f64();
    // What is still under way may come yet.
    while askers.iter().any(|a| a.free.len() < a.under_way.len()) && Instant::now() < end + LOST {
        for asker in &mut askers {
            asker.read(&mut seen);
        }
    }
    let missing: usize = askers.iter().map(|a| a.under_way.len() - a.free.len()).sum();
    seen.lost += missing as u64;
    seen.times.sort_unstable();
    let at = |share: f64| {
        let index = (seen.times.len() as f64 * share) as usize;
        seen.times.get(index.min(seen.times.len().saturating_sub(1))).copied().unwrap_or_default() as f64 / 1e3
    };
    println!(
        "{{\"per_second\": {:.0}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"max_us\": {:.1}, \"lost\": {}, \"wrong\": {}}}",
        seen.answers as f64 / elapsed,
        at(0.5),
        at(0.99),
        at(1.0),
        seen.lost,
        seen.wrong
    );
    Ok(())
}

#[derive(Default)]
struct Seen {
    asked: u64,
    answers: u64,
    wrong: u64,
    lost: u64,
    /// Nanoseconds of every eighth answer.
    times: Vec<u32>,
}

struct Asker {
    socket: UdpSocket,
    under_way: Vec<Option<Instant>>,
    free: Vec<usize>,
    seed: u32,
}

impl Asker {
    /// A question for a service of no particular order; its id is the slot.
    fn question(&mut self, slot: usize, services: u32) -> Vec<u8> {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut packet = vec![0, slot as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let name = format!("svc-{}", (self.seed >> 8) % services);
        for label in [name.as_str(), "default", "svc", "cluster", "local"] {
            packet.push(label.len() as u8);
            packet.extend(label.as_bytes());
        }
        packet.extend([0, 0, 1, 0, 1]);
        packet
    }

    /// Reads what there is; whether there was something.
    fn read(&mut self, seen: &mut Seen) -> bool {
        let mut buffer = [0; 1500];
        let mut some = false;
        while let Ok(len) = self.socket.recv(&mut buffer) {
            some = true;
            let slot = usize::from(buffer[1]);
            let Some(since) = self.under_way.get_mut(slot).and_then(Option::take) else { continue };
            self.free.push(slot);
            // Answered, without error, at least one record.
            let right = len > 40 && buffer[3] & 15 == 0 && buffer[7] > 0;
            seen.wrong += u64::from(!right);
            seen.answers += 1;
            if seen.answers.is_multiple_of(8) {
                seen.times.push(since.elapsed().as_nanos().min(u32::MAX.into()) as u32);
            }
        }
        some
    }

    fn give_up(&mut self, seen: &mut Seen) {
        for (slot, since) in self.under_way.iter_mut().enumerate() {
            if since.is_some_and(|since| since.elapsed() > LOST) {
                *since = None;
                self.free.push(slot);
                seen.lost += 1;
            }
        }
    }
}
