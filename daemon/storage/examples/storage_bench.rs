//! How long a clone takes: `cargo run --release -p reddwarf-storage --example storage_bench -- PLACE [MEBIBYTES]`, where PLACE is a
//! path (btrfs or any other file system) or a ZFS dataset. Makes an image of that size there, clones it 20 times as pods' roots are, prints the times
//! against the budget of 20 ms, removes everything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]
#![expect(clippy::disallowed_methods, reason = "measures real time")]

use reddwarf_command::Tools;
use reddwarf_host::storage::Subvolumes;
use reddwarf_host::{DatasetId, DatasetName, DatasetSpec, SystemClock};
use reddwarf_storage::choose::{Wanted, choose};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

const CLONES: usize = 20;

#[cfg(target_os = "linux")]
fn calls() -> Option<Arc<dyn Subvolumes>> {
    // Without them btrfs(8) is started each time, to compare.
    std::env::var_os("WITHOUT_CALLS").is_none().then(|| Arc::new(reddwarf_linux::btrfs::Calls) as _)
}

#[cfg(not(target_os = "linux"))]
fn calls() -> Option<Arc<dyn Subvolumes>> {
    None
}

fn image() -> DatasetId {
    DatasetId::image(DatasetName::new("bench").unwrap())
}

fn root(n: usize) -> DatasetId {
    DatasetId::root(DatasetName::new(format!("bench-{n}")).unwrap())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let place = args.next().expect("usage: storage_bench PLACE [MEBIBYTES]");
    let mebibytes: usize = args.next().map_or(1024, |n| n.parse().unwrap());
    let tools = match std::env::var_os("REDDWARF_TOOLS") {
        Some(directory) => Tools::only_in(directory.as_ref()).unwrap(),
        None => Tools::linux(),
    };
    let wanted = Wanted {
        pool: Some(place),
        engine: None,
        areas: BTreeMap::new(),
        default: "/".into(),
        look_for_pools: false,
        record: None,
    };
    let engine = choose(&wanted, tools, calls(), Arc::new(SystemClock)).await.unwrap();
    drop(engine.prepare().await.unwrap());
    let spec = DatasetSpec { marks: BTreeMap::from([("owner".into(), "bench".into())]), ..DatasetSpec::default() };
    drop(engine.create(&image(), &spec).await.unwrap());
    let mut file = std::fs::File::create(engine.data(&image()).join("file")).unwrap();
    for n in 0..mebibytes {
        file.write_all(&vec![n as u8; 1 << 20]).unwrap();
    }
    file.sync_all().unwrap();
    // What is open can't be unmounted, which ZFS does to destroy.
    drop(file);
    let golden = image().at("golden".to_owned().try_into().unwrap());
    drop(engine.snapshot(&golden).await.unwrap());
    let mut took = Vec::new();
    for n in 0..CLONES {
        let began = Instant::now();
        drop(engine.clone_of(&golden, &root(n), &spec).await.unwrap());
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    let about = engine.about();
    let (median, most) = (took[CLONES / 2], took[CLONES - 1]);
    println!("{}: clone of {mebibytes} MiB: median {median:.1} ms, most {most:.1} ms (budget 20 ms)", about.kind);
    for n in 0..CLONES {
        drop(engine.destroy(&root(n)).await.unwrap());
    }
    drop(engine.destroy(&image()).await.unwrap());
}
