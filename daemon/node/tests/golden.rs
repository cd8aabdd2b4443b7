//! The planner in scripts: `tests/plans/NAME.in` is carried out, what it prints must be `tests/plans/NAME.out`.
//! `UPDATE_GOLDEN=1 cargo test -p reddwarf-node --test golden` writes the outputs anew; read the difference.
//!
//! | command | does |
//! |---|---|
//! | `pod NAME JSON` | declares a pod (JSON is merged into its spec), or changes it |
//! | `config NAME k=v …`, `secret NAME k=v …`, `drop KIND NAME` | ConfigMaps and Secrets |
//! | `delete NAME`, `forget NAME` | asks for its deletion; takes its object away at once |
//! | `image NAME` | imports an image |
//! | `plan` | prints the plan |
//! | `run` | plans and carries out until there is nothing to do; prints the steps |
//! | `advance SECONDS` | time passes |
//! | `halt NAME`, `kill NAME CONTAINER` | someone meddles |
//! | `blind`, `see` | the host can't be asked; it can again |
//! | `incomplete`, `complete`, `prune`, `lose-database` | sources not all read; read; a person's word; no objects and promises |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use reddwarf_host::fake::{FakeHost, Fault, Op as HostOp};
use reddwarf_host::{Brand, Clock, ContainerName, Host};
use reddwarf_node::control_plane::ObjectChange;
use reddwarf_node::desired::{ConfigData, Desired, HostFacts};
use reddwarf_node::follow;
use reddwarf_node::perform::perform;
use reddwarf_node::plan::{Memory, Op, Plan, Reservations, plan};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::{MemoryPlane, config, image, pod, settings};

struct Script {
    host: FakeHost,
    plane: MemoryPlane,
    clock: Arc<dyn Clock>,
    memory: Memory,
    complete: bool,
    out: String,
}

impl Script {
    fn new() -> Self {
        let host = FakeHost::new();
        let clock = host.clock();
        let plane = MemoryPlane::new(clock.clone());
        Self { host, plane, clock, memory: Memory::default(), complete: true, out: String::new() }
    }

    async fn plan(&self) -> Plan {
        let settings = Arc::new(settings());
        let mut desired = Desired {
            complete: self.complete,
            halted: false,
            pods: BTreeMap::new(),
            config: ConfigData::default(),
            tokens: Default::default(),
            settings: settings.clone(),
            host: HostFacts {
                ip: Some("192.0.2.10".parse().unwrap()),
                cpu_millis: 8000,
                memory_bytes: 16 << 30,
                storage_bytes: 100 << 30,
                brands: vec![Brand::new("oci").unwrap()],
            },
        };
        follow::apply(&mut desired, ObjectChange::All(self.plane.all()));
        let mut reservations = Reservations::new(&settings.network.subnets());
        reservations.replace(self.plane.promised());
        let observed = self.host.observe().await;
        plan(&desired, &observed, &reservations, &self.memory, self.clock.boot())
    }

    fn print(&mut self, plan: &Plan) {
        for step in &plan.steps {
            writeln!(self.out, "  {step}").unwrap();
        }
        for notice in &plan.host {
            writeln!(self.out, "  ! host: {notice}").unwrap();
        }
        for (key, outlook) in &plan.pods {
            for notice in &outlook.notices {
                writeln!(self.out, "  ! {key}: {notice}").unwrap();
            }
            for (name, notice) in &outlook.waiting {
                writeln!(self.out, "  {key} {name} waits: {notice}").unwrap();
            }
        }
        if let Some(wake) = plan.wake {
            writeln!(self.out, "  again in {} s", wake.since(self.clock.boot()).as_secs()).unwrap();
        }
        if plan.steps.is_empty() {
            writeln!(self.out, "  nothing to do").unwrap();
        }
    }

    async fn run(&mut self) {
        for _ in 0..50 {
            let plan = self.plan().await;
            if plan.steps.is_empty() {
                return self.print(&plan);
            }
            for step in &plan.steps {
                writeln!(self.out, "  {step}").unwrap();
                let result = perform(&self.host, &self.plane, &step.op, Duration::from_secs(10)).await;
                if let Err(error) = result {
                    writeln!(self.out, "    failed: {}", error.text()).unwrap();
                    return;
                }
                if let Op::SandboxDestroy(_) = step.op {
                    self.memory.replaced.clear();
                }
            }
        }
        panic!("it never ends:\n{}", self.out);
    }

    async fn command(&mut self, line: &str) {
        writeln!(self.out, "> {line}").unwrap();
        let mut words = line.splitn(3, ' ');
        let (verb, first, rest) =
            (words.next().unwrap(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let pairs = || rest.split_whitespace().map(|p| p.split_once('=').unwrap()).collect::<Vec<_>>();
        let id = || {
            let all = self.host.sandboxes();
            all.into_iter().find(|s| s.spec.pod.name == first).expect("a sandbox of that pod").spec.id.clone()
        };
        match verb {
            "pod" => {
                let spec = if rest.is_empty() { serde_json::json!({}) } else { serde_json::from_str(rest).unwrap() };
                self.plane.apply(pod(first, spec));
            }
            "config" => self.plane.apply(config("ConfigMap", first, &pairs())),
            "secret" => self.plane.apply(config("Secret", first, &pairs())),
            "drop" => self.plane.delete(first, rest, None),
            "delete" => self.plane.delete("Pod", first, None),
            "forget" => self.plane.forget(first),
            "image" => _ = self.host.add_image(first, image(&["/bin/web"])),
            "plan" => {
                let plan = self.plan().await;
                self.print(&plan);
            }
            "run" => self.run().await,
            "advance" => tokio::time::sleep(Duration::from_secs(first.parse().unwrap())).await,
            "halt" => self.host.halt_sandbox(&id()),
            "kill" => self.host.kill_container(&id(), &ContainerName::new(rest).unwrap()),
            "blind" => self.host.faults().always(HostOp::Observe, Fault::UnknownList),
            "see" => self.host.clear_faults(),
            "incomplete" => self.complete = false,
            "complete" => self.complete = true,
            "prune" => self.memory.allow_prune = true,
            "lose-database" => self.plane.lose_database(),
            other => panic!("{other}: no such command"),
        }
    }
}

#[test]
fn scripts_print_what_they_printed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut scripts: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    scripts.retain(|p| p.extension().is_some_and(|e| e == "in"));
    scripts.sort();
    assert!(!scripts.is_empty());
    for path in scripts {
        let text = std::fs::read_to_string(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let out = runtime.block_on(async {
            let mut script = Script::new();
            for line in text.lines().filter(|l| !l.is_empty()) {
                if line.starts_with('#') {
                    writeln!(script.out, "{line}").unwrap();
                } else {
                    script.command(line).await;
                }
            }
            script.out
        });
        let golden = path.with_extension("out");
        if update {
            std::fs::write(&golden, &out).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(out, expected, "{}", path.display());
    }
}
