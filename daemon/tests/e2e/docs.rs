//! Every `sh` block of the users' pages is run, as written, on a host whose /etc, /var/lib and /run are private.

use crate::harness::{run, skip};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn pages() -> Vec<PathBuf> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs");
    let mut pages: Vec<PathBuf> = fs::read_dir(docs)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .filter(|p| fs::read_to_string(p).unwrap().contains("```sh\n"))
        .collect();
    pages.sort();
    assert!(!pages.is_empty());
    pages
}

fn script(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> = text.split("```sh\n").skip(1).filter_map(|b| b.split("\n```").next()).collect();
    blocks.join("\n")
}

#[test]
fn every_command_of_the_users_pages_works() {
    if skip() {
        return;
    }
    for page in pages() {
        println!("{}", page.display());
        let name = format!("rddoc{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("{name}-docs"));
        let _ = fs::remove_dir_all(&dir);
        for sub in ["upper", "work", "lib", "bin"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let binaries = Path::new(env!("CARGO_BIN_EXE_reddwarfd")).parent().unwrap();
        let wrapped = format!(
            r#"
set -eu
mount --make-rprivate /
mount -t overlay overlay -o lowerdir=/etc,upperdir={dir}/upper,workdir={dir}/work /etc
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/reddwarf /etc/reddwarf.d /run/reddwarf.d
mount --bind {dir}/lib /var/lib/reddwarf
chmod 755 /etc/reddwarf.d /run/reddwarf.d
ip link set lo up
export PATH={bin}:$PATH RUST_LOG=info
reddwarfd --state /var/lib/reddwarf --log-dir {dir}/lib/logs --audit-log {dir}/lib/audit.log --node-name docs --image-gc-high-percent 100 --eviction-hard 'nodefs.available<1Mi' --eviction-hard 'memory.available<1Mi' >{dir}/log 2>&1 &
daemon=$!
trap 'reddwarfctl shutdown --stop-pods >/dev/null 2>&1 || kill $daemon; wait $daemon || true' EXIT
for _ in $(seq 200); do reddwarfctl version >/dev/null 2>&1 && break; sleep 0.05; done
set -x
{script}
"#,
            dir = dir.display(),
            bin = binaries.display(),
            script = script(&page),
        );
        let out = Command::new("unshare").args(["--mount", "--net", "bash", "-c", &wrapped]).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        run("rm", &["-rf", dir.to_str().unwrap()]);
        assert!(out.status.success(), "{}:\n{said}\nlog:\n{log}", page.display());
    }
}
