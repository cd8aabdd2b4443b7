//! Scans, parses and validates a directory of many pod files and prints figures against the budgets:
//! `cargo run --release -p reddwarf-config --example scan_benchmark [FILES]`.

#![expect(clippy::disallowed_methods, reason = "measures time")]

use reddwarf_config::directory::{Scan, Scanner, Trust};
use reddwarf_config::limits::Limits;
use std::io::{Error, Write};
use std::path::Path;
use std::time::{Duration, Instant};

fn pod(index: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-{index}\n  labels:\n    app: web\n    tier: front\nspec:\n  \
         restartPolicy: Always\n  containers:\n  - name: web\n    image: registry.example/web:1.{index}\n    command: [sh, -c, \
         \"exec /bin/web --port 8080\"]\n    ports:\n    - containerPort: 8080\n      name: http\n    env:\n    - name: INDEX\n      \
         value: \"{index}\"\n    - name: MODE\n      value: production\n    resources:\n      requests: {{cpu: 50m, memory: \
         64Mi}}\n      limits: {{cpu: 500m, memory: 128Mi}}\n    volumeMounts:\n    - name: data\n      mountPath: /data\n  \
         volumes:\n  - name: data\n    emptyDir: {{}}\n"
    )
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::File::create(path)?.write_all(text.as_bytes())
}

/// Resident memory of this process in MiB, where /proc tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

fn timed(scanner: &mut Scanner) -> (Scan, Duration) {
    let began = Instant::now();
    let scan = scanner.scan();
    (scan, began.elapsed())
}

fn main() -> Result<(), Error> {
    let files: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let directory = tempfile::tempdir()?;
    for index in 0..files {
        write(&directory.path().join(format!("web-{index}.yaml")), &pod(index))?;
    }
    let before = resident().unwrap_or(0);
    let mut scanner = Scanner::new(vec![directory.path().to_owned()], Limits::default(), Trust::default());
    let (first, took) = timed(&mut scanner);
    if let Some(diagnostic) = first.diagnostics.first() {
        println!("{diagnostic}");
    }
    println!("{} files, {} objects, {} findings", first.files.len(), first.declared.len(), first.diagnostics.len());
    let grown = resident().unwrap_or(0).saturating_sub(before);
    println!(
        "first scan   {:>8.1} ms   (budget 2000 ms)   +{grown} MiB resident (budget 150 MiB)",
        took.as_secs_f64() * 1e3
    );
    let (again, took) = timed(&mut scanner);
    println!(
        "nothing new  {:>8.1} ms   {} files read, changed: {}",
        took.as_secs_f64() * 1e3,
        again.read,
        again.changed
    );
    write(&directory.path().join("web-0.yaml"), &pod(0).replace("production", "test"))?;
    let (one, took) = timed(&mut scanner);
    println!("one changed  {:>8.1} ms   {} files read, changed: {}", took.as_secs_f64() * 1e3, one.read, one.changed);
    drop((first, again, one));

    let many = (0..files).map(pod).collect::<Vec<_>>().join("---\n");
    let big = tempfile::tempdir()?;
    write(&big.path().join("all.yaml"), &many)?;
    let limits = Limits { file_bytes: 1 << 30, nodes: 100_000_000, ..Limits::default() };
    let (scan, took) = timed(&mut Scanner::new(vec![big.path().to_owned()], limits, Trust::default()));
    println!(
        "one file     {:>8.1} ms   of {} documents, {} findings",
        took.as_secs_f64() * 1e3,
        scan.declared.len(),
        scan.diagnostics.len()
    );
    Ok(())
}
