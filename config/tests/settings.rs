//! Settings as users give them: precedence, refusals, dependent defaults, reload.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use clap::Parser;
use reddwarf_config::settings::{Cli, HostFacts, HostKind, Reload, SETTINGS, Settings, markdown};
use reddwarf_config::{Diagnostic, Source};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Parser)]
#[command(name = "reddwarfd")]
struct Program {
    #[command(flatten)]
    settings: Cli,
}

fn flags(list: &[&str]) -> Cli {
    Program::try_parse_from([&["reddwarfd"], list].concat()).expect("flags parse").settings
}

fn resolve(
    cli: &Cli,
    environment: &[(&str, &str)],
    file: &str,
) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
    let source = Arc::new(Source { name: "reddwarfd.toml".into(), text: file.into() });
    let variables = environment.iter().map(|(n, v)| (OsString::from(n), OsString::from(v)));
    let facts = HostFacts { host_name: "Box1".into(), host: HostKind::Linux };
    Settings::resolve(cli, variables, Some(&source), &facts).map_err(|e| e.0)
}

fn valid(cli: &Cli, environment: &[(&str, &str)], file: &str) -> Settings {
    match resolve(cli, environment, file) {
        Ok((settings, _)) => settings,
        Err(findings) => panic!("{}", findings.iter().map(|f| f.render(false)).collect::<String>()),
    }
}

#[test]
fn defaults_depend_on_each_other() {
    let settings = valid(&Cli::default(), &[], "");
    assert_eq!(settings.socket, Path::new("/run/reddwarf/reddwarf.sock"));
    assert_eq!(settings.log_dir, Path::new("/var/log/pods"));
    assert_eq!(settings.node_name, "box1");
    assert_eq!(settings.manifests, ["/usr/lib/reddwarf.d", "/etc/reddwarf.d", "/run/reddwarf.d"].map(PathBuf::from));
    assert_eq!(settings.pod_cidr, ["10.88.0.0/16".parse().unwrap()]);
    assert_eq!(settings.listen, None);
    let other = valid(&flags(&["--state", "/srv/r", "--run", "/tmp/r"]), &[], "");
    assert_eq!(other.socket, Path::new("/tmp/r/reddwarf.sock"));
    assert_eq!(other.log_dir, Path::new("/srv/r/pods-log"));
}

/// A value for each setting by each way, all different and all valid.
const EXAMPLES: &[(&str, [&str; 3])] = &[
    ("manifests", ["/f", "/e", "/c"]),
    ("state", ["/f", "/e", "/c"]),
    ("run", ["/f", "/e", "/c"]),
    ("log_dir", ["/f", "/e", "/c"]),
    ("socket", ["/f", "/e", "/c"]),
    ("socket_group", ["f", "e", "c"]),
    ("listen", ["127.0.0.1:1", "127.0.0.1:2", "[::]:3"]),
    ("tls_cert", ["/f", "/e", "/c"]),
    ("tls_key", ["/f", "/e", "/c"]),
    ("client_ca", ["/f", "/e", "/c"]),
    ("kubeconfig", ["/f", "/e", "/c"]),
    ("audit_log", ["/f", "off", "/c"]),
    ("audit_log_bytes", ["100000", "200000", "300000"]),
    ("audit_log_files", ["1", "2", "3"]),
    ("host", ["sim", "illumos", "linux"]),
    ("node_name", ["f", "e", "c"]),
    ("pod_cidr", ["10.1.0.0/16", "10.2.0.0/16,fd88::/64", "fd88::/64,10.3.0.0/16"]),
    ("service_cidr", ["10.1.0.0/16", "10.2.0.0/16,fd01::/108", "fd02::/108,10.3.0.0/16"]),
    ("node_port_range", ["30000-30009", "1000-2000", "40000-40000"]),
    ("load_balancer_cidr", ["192.0.2.0/24", "192.0.2.0/24,fd03::/64", "off"]),
    ("bridge", ["f", "e", "c"]),
    ("zone_nic", ["ixgbe0", "aggr1", "off"]),
    ("zone_vlan", ["1", "4094", "0"]),
    ("zone_balancer", ["ilb", "ipnat", "ilb"]),
    ("dns_listen", ["0.0.0.0:10053", "127.0.0.1:54", "bridge"]),
    ("cluster_dns", ["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"]),
    ("resolv_conf", ["/f", "/e", "/c"]),
    ("cluster_domain", ["f", "e", "c"]),
    ("container_runtime", ["crun", "runc", "libcontainer"]),
    ("max_pods", ["1", "2", "3"]),
    ("system_reserved_cpu", ["1m", "2m", "3m"]),
    ("system_reserved_memory", ["1", "2", "3"]),
    ("eviction_hard", ["memory.available<1Mi", "nodefs.available<2.5%&3Gi", "memory.available<off"]),
    ("eviction_transition_seconds", ["1", "2", "3"]),
    ("log_max_bytes", ["20000", "20001", "20002"]),
    ("log_max_files", ["2", "3", "4"]),
    ("storage_pool", ["/f", "rpool/e", "/c"]),
    ("storage_engine", ["btrfs", "zfs", "directory"]),
    ("storage_roots", ["overlay", "auto", "overlay"]),
    ("storage_images", ["/f", "/e", "/c"]),
    ("storage_pods", ["/f", "/e", "/c"]),
    ("storage_volumes", ["/f", "/e", "tank/c"]),
    ("host_path_allow", ["/f", "/e", "/c"]),
    ("registry_mirrors", ["f.io=https://f", "e.io=http://e:1", "c.io=https://c:5000"]),
    ("insecure_registries", ["f:1", "e", "c.lan:5000"]),
    ("registry_ca", ["/f", "/e", "/c"]),
    ("registry_auth", ["/f", "off", "/c"]),
    ("registry_timeout_seconds", ["1", "2", "3"]),
    ("zar_keys", ["/f", "/e", "/c"]),
    ("image_gc_high_percent", ["91", "92", "93"]),
    ("image_gc_low_percent", ["1", "2", "3"]),
    ("image_gc_min_age_seconds", ["1", "2", "3"]),
    ("allowed_unsafe_sysctls", ["net.core.*", "kernel.msgmax", "fs.mqueue.*"]),
    ("seccomp_dir", ["/f", "/e", "/c"]),
    ("resync_seconds", ["1", "2", "3"]),
    ("debounce_milliseconds", ["1", "2", "3"]),
    ("prune_guard_percent", ["1", "2", "3"]),
    ("allow_untrusted_manifests", ["true", "false", "true"]),
    ("manifest_file_bytes", ["1", "2", "3"]),
    ("manifest_total_bytes", ["1", "2", "3"]),
    ("manifest_files", ["1", "2", "3"]),
    ("manifest_documents", ["1", "2", "3"]),
    ("manifest_depth", ["10", "20", "30"]),
    ("manifest_nodes", ["100", "200", "300"]),
    ("log_level", ["debug", "warn", "a=trace,error"]),
    ("log_format", ["json", "text", "json"]),
];

fn toml_value(key: &str, value: &str) -> String {
    use reddwarf_config::settings::Form;
    let form = SETTINGS.iter().find(|s| s.key == key).expect("the setting is in the table").form;
    match form {
        Form::Text | Form::Quantity => format!("{value:?}"),
        Form::Number | Form::Boolean => value.to_owned(),
        Form::List | Form::Commas => format!("[{value:?}]"),
    }
}

#[test]
fn flags_win_over_environment_over_file_for_every_setting() {
    assert_eq!(EXAMPLES.len(), SETTINGS.len(), "every setting has an example here");
    for (key, [flag, variable, file]) in EXAMPLES {
        let setting = SETTINGS.iter().find(|s| s.key == *key).expect("the setting is in the table");
        let text = format!("{key} = {}\n", toml_value(key, file));
        let by_flag = flags(&[&format!("--{}={flag}", setting.flag)]);
        let name = setting.environment();
        let environment = [(name.as_str(), *variable)];
        let none = Cli::default();
        assert_eq!((setting.show)(&valid(&by_flag, &environment, &text)), *flag, "{key} by flag");
        assert_eq!((setting.show)(&valid(&none, &environment, &text)), *variable, "{key} by environment");
        assert_eq!((setting.show)(&valid(&none, &[], &text)), *file, "{key} by file");
    }
}

#[test]
fn a_repeated_flag_replaces_the_default_layers() {
    let settings = valid(&flags(&["--manifests", "/a", "--manifests", "/b"]), &[("REDDWARF_MANIFESTS", "/c:/d")], "");
    assert_eq!(settings.manifests, [PathBuf::from("/a"), PathBuf::from("/b")]);
}

/// Flags, environment and file.
type Case = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str);

#[test]
fn refusals_say_what_where_and_how_to_mend() {
    let cases: &[Case] = &[
        (&[], &[], "pod_cdir = \"10.0.0.0/8\"\n"),
        (&[], &[], "pod-cidr = \"10.0.0.0/8\"\n"),
        (&[], &[], "[network]\npod_cidr = \"10.0.0.0/8\"\n"),
        (&[], &[], "# a comment\nmax_pods = \"many\"\n"),
        (&[], &[], "max_pods = 1.5\n"),
        (&[], &[], "manifests = \"/etc\"\n"),
        (&[], &[], "pod_cidr = \"10.88.0.0\"\n"),
        (&[], &[], "pod_cidr = \"10.88.0.1/16\"\n"),
        (&[], &[], "pod_cidr = \"10.88.0.0/33\"\n"),
        (&[], &[], "pod_cidr = \"10.88.0.0/31\"\n"),
        (&[], &[], "pod_cidr = \"127.0.0.0/8\"\n"),
        (&[], &[], "pod_cidr = \"10.88.0.0/16,10.89.0.0/16\"\n"),
        (&["--pod-cidr", "10.88.0.0/16,fd96::/64", "--service-cidr", "10.96.0.0/16,fd96::/108"], &[], ""),
        (&[], &[], "pod_cidr = \"10.96.0.0/16\"\nservice_cidr = \"10.96.0.0/12\"\n"),
        (&["--pod-cidr", "10.96.3.0/24"], &[], ""),
        (&[], &[("REDDWARF_POD_CIDR", "10.0.0.0/8")], ""),
        (&["--listen", "127.0.0.1:66000"], &[], ""),
        (&["--listen", "127.0.0.1"], &[], ""),
        (&[], &[("REDDWARF_TLS_CERT", "server.pem")], ""),
        (&[], &[], "prune_guard_percent = 101\n"),
        (&[], &[], "system_reserved_memory = \"1 GB\"\n"),
        (&[], &[], "system_reserved_cpu = \"-1\"\n"),
        (&["--host", "linx"], &[], ""),
        (&["--state", "var"], &[], ""),
        (&["--state", "/var/../x"], &[], ""),
        (&["--state", "/x", "--run", "/x/"], &[], ""),
        (
            &[
                "--run",
                "/this/is/a/very/long/path/that/no/unix/socket/can/be/bound/to/because/it/exceeds/the/limit/of/sun_path",
            ],
            &[],
            "",
        ),
        (&["--bridge", "a-very-long-bridge-name"], &[], ""),
        (&["--zone-nic", "net01"], &[], ""),
        (&[], &[], "zone_vlan = 4095\n"),
        (&[], &[], "zone_balancer = \"ilbd\"\n"),
        (
            &[],
            &[],
            "eviction_hard = [\"nodefs.available<10%,5Gi\", \"nodefs.available<10%&much\", \"nodefs.available<110%&1Gi\"]\n",
        ),
        (&["--node-name", "Box_1"], &[], ""),
        (&["--log-level", "loud"], &[], ""),
        (&["--manifests", "/a", "--manifests", "/a"], &[], ""),
        (&[], &[("REDDWARF_POD_CDIR", "10.0.0.0/8")], "listen = \"x\"\n"),
        (&[], &[], "listen = \n"),
        (&[], &[], "max_pods = 1\nmax_pods = 2\n"),
    ];
    let mut out = String::new();
    for (list, environment, file) in cases {
        let findings = resolve(&flags(list), environment, file).expect_err("it is refused");
        let given: Vec<String> = environment.iter().map(|(n, v)| format!("{n}={v}")).collect();
        out.push_str(&format!("## {} {} {file:?}\n", list.join(" "), given.join(" ")));
        findings.iter().for_each(|f| out.push_str(&f.render(false)));
    }
    golden("settings-refusals.md", &out);
}

fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    compare(&path, actual);
}

fn compare(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let mut file = std::fs::File::create(path).unwrap();
        std::io::Write::write_all(&mut file, actual.as_bytes()).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(expected == actual, "{} differs; UPDATE_GOLDEN=1 writes it anew:\n{actual}", path.display());
}

#[test]
fn the_documentation_has_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- settings: written by a test -->\n").expect("the marker is there");
    let (_, after) = rest.split_once("<!-- end -->").expect("the end marker is there");
    compare(&path, &format!("{before}<!-- settings: written by a test -->\n{}<!-- end -->{after}", markdown()));
}

#[test]
fn help_names_every_setting() {
    let help = <Program as clap::CommandFactory>::command().render_long_help().to_string();
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{}", setting.flag)), "{}", setting.key);
    }
}

#[test]
fn changes_say_when_they_take_hold() {
    let old = valid(&Cli::default(), &[], "");
    let new = valid(&Cli::default(), &[], "max_pods = 5\nbridge = \"br1\"\n");
    let changes = old.changes(&new);
    let shown: Vec<_> = changes.iter().map(|c| (c.key, c.old.as_str(), c.new.as_str(), c.reload)).collect();
    assert_eq!(shown, [("bridge", "reddwarf0", "br1", Reload::Restart), ("max_pods", "110", "5", Reload::Live)]);
    let running = old.with_live_of(&new);
    assert_eq!((running.max_pods, running.bridge.as_str()), (5, "reddwarf0"));
    // Whatever is said to be live is taken over, and nothing else.
    for (key, [flag, ..]) in EXAMPLES {
        let setting = SETTINGS.iter().find(|s| s.key == *key).expect("the setting is in the table");
        let new = valid(&flags(&[&format!("--{}={flag}", setting.flag)]), &[], "");
        let left = old.with_live_of(&new).changes(&new);
        assert!(left.iter().all(|c| c.reload == Reload::Restart), "{key}: {left:?}");
        assert!(old.changes(&old.with_live_of(&new)).iter().all(|c| c.reload == Reload::Live), "{key}");
    }
}

#[test]
fn a_settings_file_must_be_roots_and_a_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("reddwarfd.toml");
    let load = |path: &Path| {
        let facts = HostFacts { host_name: "box".into(), host: HostKind::Sim };
        let cli = Cli { config: Some(path.to_owned()), ..Cli::default() };
        Settings::load_with(&cli, Vec::new(), &facts).map(|(s, _)| s.max_pods).map_err(|e| e.to_string())
    };
    assert!(load(&file).unwrap_err().contains("is not there"));
    std::io::Write::write_all(&mut std::fs::File::create(&file).unwrap(), b"max_pods = 7\n").unwrap();
    assert_eq!(load(&file), Ok(7));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(load(&file).unwrap_err().contains("chmod go-w"));
    assert!(load(directory.path()).unwrap_err().contains("not a file"));
    assert_eq!(load(Path::new("/dev/null")), Ok(110));
}

#[test]
fn networks_of_the_host_are_not_taken_over() {
    let settings = valid(&Cli::default(), &[], "");
    let host =
        [("eth0".to_owned(), "10.88.4.0/24".parse().unwrap()), ("lo".to_owned(), "127.0.0.0/8".parse().unwrap())];
    let findings = settings.clashes_with(&host);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].one_line().contains("eth0"), "{}", findings[0]);
}

#[test]
fn the_bridge_has_the_first_host_address_unless_it_was_given_another_one() {
    let mut settings = valid(&Cli::default(), &[], "pod_cidr = \"10.88.0.0/16,fd88::/64\"\n");
    let addresses =
        |settings: &Settings| settings.bridge_addresses().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(addresses(&settings), ["10.88.0.1", "fd88::1"], "the lowest of IPv6 means any router");
    settings.keep_gateways(vec!["10.88.0.1".parse().unwrap(), "fd88::".parse().unwrap()]);
    assert_eq!(addresses(&settings), ["10.88.0.1", "fd88::"], "as an earlier version made it");
    settings.keep_gateways(vec!["fd99::".parse().unwrap()]);
    assert_eq!(addresses(&settings), ["10.88.0.1", "fd88::1"], "another network's does not matter");
}
