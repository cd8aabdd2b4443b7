//! A played system in a directory, for tests.

use crate::call::{Answer, Line, Sim};
use crate::state::{Dataset, Link, Service, State, ZoneState};
use crate::system::System;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The tools that there are links for.
pub const TOOLS: &[&str] = &[
    "ctrun", "dladm", "fuser", "hostsim", "ilbadm", "ipadm", "ipf", "ipfstat", "ipmgmtd", "ipnat", "isainfo", "kstat",
    "netstat", "newtask", "pfexec", "pkill", "ppriv", "prctl", "prstat", "psrinfo", "prtconf", "rcapadm", "route",
    "svcadm", "svccfg", "svcprop", "svcs", "uname", "zfs", "zlogin", "zoneadm", "zonecfg", "zonename", "zpool",
];

/// A played system. Its zones' processes end with it; its directory is the caller's to remove.
#[derive(Debug)]
pub struct Lab {
    sim: Sim,
}

impl Lab {
    /// A fresh OmniOS in `dir`, with a pool `rpool` and a link `net0` that bears 192.0.2.2/24.
    ///
    /// # Errors
    /// The disk's; and when the program itself has not been built (`cargo build -p reddwarf-hostsim`).
    pub fn new(dir: &Path) -> io::Result<Self> {
        Self::of(dir, System::default())
    }

    /// The same of another distribution.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn of(dir: &Path, system: System) -> io::Result<Self> {
        for name in ["bin", "state", "root/rpool", "brands"] {
            std::fs::create_dir_all(dir.join(name))?;
        }
        link_tools(dir)?;
        // Who knows the tools' directory alone finds the brands too.
        std::os::unix::fs::symlink("../brands", dir.join("bin/brands"))?;
        for brand in system.brands() {
            brand_config(dir, brand)?;
        }
        let sim = Sim::at(dir.canonicalize()?);
        let state = fresh(&sim, system);
        crate::call::replace(&sim.kept("model.json"), serde_json::to_string(&state)?.as_bytes())?;
        Ok(Self { sim })
    }

    /// Installs a brand by its real files: config.xml, platform.xml and its programs, as they lie in `from`.
    ///
    /// # Errors
    /// The disk's.
    pub fn add_brand(&self, name: &str, from: &Path) -> io::Result<()> {
        let to = self.dir().join("brands").join(name);
        std::fs::create_dir_all(&to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    }

    /// One that an earlier [`Lab::new`] made, as after a restart of the test's program.
    ///
    /// # Errors
    /// The disk's.
    pub fn again(dir: &Path) -> io::Result<Self> {
        Ok(Self { sim: Sim::at(dir.canonicalize()?) })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.sim.dir()
    }

    /// What REDDWARF_TOOLS should name.
    pub fn tools(&self) -> PathBuf {
        self.sim.tools()
    }

    /// The model as it is now.
    ///
    /// # Errors
    /// The disk's.
    pub fn state(&self) -> io::Result<State> {
        Ok(self.sim.lock()?.state.clone())
    }

    /// Changes the model as somebody else on the system would, or as nobody could.
    ///
    /// # Errors
    /// The disk's.
    pub fn change<T>(&self, with: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        self.sim.change(with)
    }

    /// Replaces the plan of faults ([`crate::fault`]); counting begins anew. The empty plan takes it away.
    ///
    /// # Errors
    /// The disk's; a plan that makes no sense.
    pub fn faults(&self, plan: &str) -> io::Result<()> {
        crate::fault::parse(plan).map_err(io::Error::other)?;
        let _ = std::fs::remove_file(self.sim.kept("faults.json"));
        crate::call::replace(&self.dir().join("faults"), plan.as_bytes())
    }

    /// The calls so far.
    ///
    /// # Errors
    /// The disk's.
    pub fn transcript(&self) -> io::Result<Vec<Line>> {
        let text = std::fs::read_to_string(self.dir().join("transcript")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
    }

    /// Begins a new transcript.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget_transcript(&self) -> io::Result<()> {
        crate::call::replace(&self.dir().join("transcript"), b"")
    }

    /// Calls a tool as the daemon does: absolute path, cleared environment, nothing to read.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run(&self, tool: &str, args: &[&str]) -> io::Result<Answer> {
        self.run_reading(tool, args, "")
    }

    /// The same with something to read.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run_reading(&self, tool: &str, args: &[&str], stdin: &str) -> io::Result<Answer> {
        use std::io::Write;
        #[expect(clippy::disallowed_methods, reason = "tests play the daemon's runner")]
        let mut command = Command::new(self.tools().join(tool));
        command.args(args).env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            // A tool may end without reading.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let output = child.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap_or(-1) })
    }

    /// Has a zone be in a state that no single command leads to.
    ///
    /// # Errors
    /// The disk's.
    pub fn force(&self, zone: &str, to: ZoneState) -> io::Result<()> {
        self.change(|state| {
            let next = state.next_zone + 1;
            let Some(found) = state.zones.get_mut(zone) else { return };
            // Whatever else it is, it has no processes.
            if to != ZoneState::Running {
                crate::platform::kill(found.init.take());
            }
            found.state = to;
            found.id = to.is_up().then_some(next);
            state.next_zone = next;
            if !to.is_up() || to == ZoneState::Mounted {
                crate::zoneadm::give_back(state, zone);
            }
        })
    }

    /// Loses what a boot of the machine loses: temporary links and addresses, rules, zones that run.
    ///
    /// # Errors
    /// The disk's.
    pub fn reboot(&self) -> io::Result<()> {
        self.stop_zones()?;
        self.change(|state| {
            state.links.retain(|_, link| !link.temporary);
            let links: Vec<String> = state.links.keys().cloned().collect();
            state.interfaces.retain(|link, i| !i.temporary && (link == "lo0" || links.contains(link)));
            for interface in state.interfaces.values_mut() {
                interface.addresses.retain(|_, a| !a.temporary);
            }
            state.protocols.clear();
            crate::smf::forward(state);
            state.nat.clear();
            state.filters.clear();
            crate::ipf::start(state);
            state.balancer.connected.clear();
            state.balancer.held.clear();
            for zone in state.zones.values_mut().filter(|z| z.state.is_up()) {
                (zone.state, zone.id, zone.init, zone.booted) = (ZoneState::Installed, None, None, None);
            }
        })
    }

    /// Kills every zone's processes.
    ///
    /// # Errors
    /// The disk's.
    pub fn stop_zones(&self) -> io::Result<()> {
        let inits: Vec<_> = self.state()?.zones.into_values().filter_map(|z| z.init).collect();
        for init in &inits {
            crate::platform::kill(Some(*init));
        }
        for init in inits {
            crate::platform::wait_for_end(init, 5000);
        }
        Ok(())
    }
}

impl Lab {
    /// Kills calls that never end.
    fn stop_calls(&self) {
        use std::os::unix::ffi::OsStrExt;
        let ours = [self.tools().as_os_str().as_bytes(), b"/"].concat();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            let called = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if called.starts_with(&ours) {
                crate::platform::kill(crate::state::Process::of(pid));
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.stop_zones();
        self.stop_calls();
    }
}

/// The program beside the test that runs.
fn program() -> io::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let found = test.ancestors().skip(1).take(3).map(|d| d.join("hostsim")).find(|p| p.is_file());
    found.ok_or_else(|| io::Error::other("hostsim is not built: cargo build -p reddwarf-hostsim"))
}

/// Hard links: whoever resolves a path still finds the tool's name at its end.
fn link_tools(dir: &Path) -> io::Result<()> {
    let program = program()?;
    let bin = dir.join("bin");
    for tool in TOOLS {
        let link = bin.join(tool);
        if std::fs::hard_link(&program, &link).is_err() {
            // Another file system: one copy, and links to that.
            let copy = dir.join("state/program");
            if !copy.exists() {
                std::fs::copy(&program, &copy)?;
            }
            std::fs::hard_link(&copy, &link)?;
        }
    }
    Ok(())
}

fn brand_config(dir: &Path, brand: &str) -> io::Result<()> {
    let of = dir.join("brands").join(brand);
    std::fs::create_dir_all(&of)?;
    std::fs::set_permissions(&of, std::fs::Permissions::from_mode(0o755))?;
    let text = format!("<?xml version=\"1.0\"?>\n<brand name=\"{brand}\">\n</brand>\n");
    crate::call::replace(&of.join("config.xml"), text.as_bytes())
}

fn fresh(sim: &Sim, system: System) -> State {
    let mut state = State { system, home: sim.dir().to_owned(), ..State::default() };
    let mountpoint = sim.root().join("rpool").to_string_lossy().into_owned();
    let pool = Dataset {
        kind: "filesystem".into(),
        local: [("mountpoint".to_owned(), mountpoint)].into(),
        mounted: true,
        ..Dataset::default()
    };
    state.datasets.insert("rpool".into(), pool);
    let net = Link { class: "phys".into(), mtu: 1500, mac: "2:8:20:0:0:1".into(), ..Link::default() };
    state.links.insert("net0".into(), net);
    let address = crate::state::Address {
        kind: "static".into(),
        address: "192.0.2.2/24".into(),
        ..crate::state::Address::default()
    };
    let mut interface = crate::state::Interface::default();
    interface.addresses.insert("v4".into(), address);
    state.interfaces.insert("net0".into(), interface);
    state.routes.insert(("default".into(), "192.0.2.1".into()));
    for service in [
        "svc:/system/zones:default",
        "svc:/network/ipfilter:default",
        "svc:/network/datalink-management:default",
        "svc:/network/ip-interface-management:default",
        "svc:/milestone/multi-user-server:default",
        "svc:/system/filesystem/local:default",
        "svc:/milestone/network:default",
    ] {
        state.services.insert(service.into(), Service { state: "online".into(), ..Service::default() });
    }
    for service in [
        "svc:/network/loadbalancer/ilb:default",
        "svc:/network/ipv4-forwarding:default",
        "svc:/network/ipv6-forwarding:default",
        "svc:/system/rcap:default",
    ] {
        state.services.insert(service.into(), Service { state: "disabled".into(), ..Service::default() });
    }
    crate::ipf::start(&mut state);
    state
}
