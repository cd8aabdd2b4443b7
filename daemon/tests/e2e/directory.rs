//! The manifest directory: mistakes, half-written files, editors, mass deletion.

use crate::harness::{Said, World, is_ready, run, skip};
use crate::pods::{FOREVER, script};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

fn started_at(pod: &Value) -> String {
    pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].as_str().unwrap_or_default().to_owned()
}

fn config(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: \"{value}\"}}\n")
}

fn value(world: &World, name: &str) -> Option<String> {
    let said = world.ctl(&["get", "configmap", name, "-o", "json"]);
    let object: Value = (said.code == 0).then(|| serde_json::from_str(&said.out).unwrap())?;
    object["data"]["value"].as_str().map(str::to_owned)
}

fn write(path: &Path, text: &str) {
    fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_broken_half_written_empty_or_unreadable_file_changes_nothing_that_runs() {
    if skip() {
        return;
    }
    let world = World::started("broken");
    world.file("web.yaml", &script("web", FOREVER));
    let before = started_at(&world.ready("web"));
    let good = script("web", FOREVER);
    let broken = [
        ("a typo", good.replace("containers", "container"), "containers"),
        ("half a file", good[..good.len() / 2].to_owned() + "\n  [", "web.yaml"),
        ("an empty file", String::new(), "empty"),
        ("not UTF-8", "kind: \u{fffd}".into(), "web.yaml"),
    ];
    for (what, text, named) in broken {
        world.file("web.yaml", &text);
        let status = world.until(what, |w| {
            let status = w.ctl(&["status"]);
            (status.code == 3).then_some(status)
        });
        assert!(status.out.contains(named), "{what}: {}", status.out);
        assert_eq!(started_at(&world.ready("web")), before, "{what}");
        world.file("web.yaml", &good);
        world.until("the status to be good again", |w| (w.ctl(&["status"]).code == 0).then_some(()));
    }
    assert_eq!(started_at(&world.ready("web")), before);
}

#[test]
fn an_error_in_one_file_leaves_the_others_working_and_is_an_event_a_metric_and_a_log_line() {
    if skip() {
        return;
    }
    let world = World::started("others");
    world.file("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: []}\n");
    world.file("good.yaml", &config("good", "1"));
    world.until("the good one", |w| value(w, "good"));
    world.until("the refusal", |w| {
        let status = w.ctl(&["status"]);
        (status.code == 3 && status.out.contains("bad.yaml")).then_some(())
    });
    let metrics = world.curl("/metrics").ok();
    assert!(metrics.lines().any(|l| l == "reddwarf_manifests_invalid 1"), "{metrics}");
    assert!(world.log().contains("bad.yaml:"), "{}", world.log());
    world.until("an event", |w| w.ctl(&["events"]).out.contains("bad.yaml").then_some(()));
}

#[test]
fn two_files_that_declare_one_object_are_both_named() {
    if skip() {
        return;
    }
    let world = World::started("twice");
    world.file("a.yaml", &config("same", "a"));
    world.until("the first", |w| value(w, "same"));
    world.file("b.yaml", &config("same", "b"));
    let status = world.until("the error", |w| {
        let said = w.ctl(&["status"]);
        (said.code == 3).then_some(said.out)
    });
    assert!(status.contains("a.yaml") && status.contains("b.yaml"), "{status}");
    assert_eq!(value(&world, "same").unwrap(), "a", "what ran keeps running");
    world.remove("a.yaml");
    world.until("the other to take over", |w| value(w, "same").filter(|v| v == "b"));
}

#[test]
fn moving_an_object_between_files_restarts_nothing() {
    if skip() {
        return;
    }
    let world = World::started("move");
    world.file("one.yaml", &script("web", FOREVER));
    let before = started_at(&world.ready("web"));
    fs::rename(world.manifests.join("one.yaml"), world.manifests.join("two.yaml")).unwrap();
    world.until("the new owner", |w| {
        let pod = w.pod("web")?;
        pod["metadata"]["annotations"]["reddwarf.io/source"].as_str().filter(|s| s.ends_with("two.yaml")).map(drop)
    });
    assert_eq!(started_at(&world.ready("web")), before);
}

#[test]
fn the_editors_ways_of_saving_are_all_understood() {
    if skip() {
        return;
    }
    let world = World::started("editors");
    let path = world.manifests.join("c.yaml");
    let file = path.to_str().unwrap();
    write(&path, &config("c", "0"));
    world.until("the first", |w| value(w, "c").filter(|v| v == "0"));
    let expect = |n: &str| {
        world.within(Duration::from_secs(2), &format!("value {n}"), |w| value(w, "c").filter(|v| v == n));
    };

    // In place: truncate, then write in pieces.
    let text = config("c", "1");
    let mut open = fs::File::create(&path).unwrap();
    for chunk in text.as_bytes().chunks(20) {
        open.write_all(chunk).unwrap();
        open.sync_data().unwrap();
    }
    drop(open);
    expect("1");

    // sed -i: temporary file beside, rename.
    run("sed", &["-i", "s/\"1\"/\"2\"/", file]).ok();
    expect("2");

    // vim (backupcopy=no): swap file, 4913 test file, original renamed to a backup, new file, backup removed.
    let swap = world.manifests.join(".c.yaml.swp");
    let backup = world.manifests.join("c.yaml~");
    write(&swap, "binary");
    write(&world.manifests.join("4913"), "");
    fs::remove_file(world.manifests.join("4913")).unwrap();
    fs::rename(&path, &backup).unwrap();
    write(&path, &config("c", "3"));
    fs::remove_file(&backup).unwrap();
    fs::remove_file(&swap).unwrap();
    expect("3");

    // And vim itself.
    let vim =
        ["vim", "vim.tiny"].into_iter().find(|vim| std::process::Command::new(vim).arg("--version").output().is_ok());
    assert!(vim.is_some() || std::env::var_os("CI").is_none(), "there is no vim: .ci/setup installs it");
    if let Some(vim) = vim {
        for (way, n) in [("yes", "7"), ("no", "8")] {
            let set = format!("set backupcopy={way} writebackup");
            run(vim, &["-u", "NONE", "-es", "-c", &set, "-c", &format!("%s/\"[0-9]\"/\"{n}\"/"), "-c", "wq", file])
                .ok();
            expect(n);
        }
    }

    // emacs: #auto-save#, lock symlink, backup copy stays.
    std::os::unix::fs::symlink("me@host.1:2", world.manifests.join(".#c.yaml")).unwrap();
    write(&world.manifests.join("#c.yaml#"), &config("c", "never"));
    fs::copy(&path, &backup).unwrap();
    write(&path, &config("c", "4"));
    fs::remove_file(world.manifests.join("#c.yaml#")).unwrap();
    fs::remove_file(world.manifests.join(".#c.yaml")).unwrap();
    expect("4");

    // rsync: hidden temporary file, rename, times set after.
    let from = world.dir.join("from");
    fs::create_dir(&from).unwrap();
    write(&from.join("c.yaml"), &config("c", "5"));
    run("rsync", &["-a", "--checksum", &format!("{}/", from.display()), world.manifests.to_str().unwrap()]).ok();
    expect("5");

    // Same size, same mtime.
    let stamp = fs::metadata(&path).unwrap().modified().unwrap();
    write(&path, &config("c", "6"));
    fs::File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
    expect("6");
    assert_eq!(world.ctl(&["status"]).code, 0);
}

#[test]
fn git_checkout_of_500_files_converges_and_back() {
    if skip() {
        return;
    }
    let world = World::started("git");
    let git = |args: &[&str]| -> Said {
        let mut all =
            vec!["-C", world.manifests.to_str().unwrap(), "-c", "user.name=t", "-c", "user.email=t@example.org"];
        all.extend_from_slice(args);
        run("git", &all)
    };
    git(&["init", "-q", "-b", "main"]).ok();
    write(&world.manifests.join("README.md"), "not a manifest");
    git(&["add", "."]).ok();
    git(&["commit", "-qm", "empty"]).ok();
    git(&["checkout", "-qb", "many"]).ok();
    for i in 0..500 {
        write(&world.manifests.join(format!("m{i}.yaml")), &config(&format!("m{i}"), "v"));
    }
    git(&["add", "."]).ok();
    git(&["commit", "-qm", "many"]).ok();
    let count = |w: &World| {
        let list = w.ctl(&["get", "configmaps", "-o", "name"]).ok();
        list.lines().filter(|l| l.contains("/m")).count()
    };
    world.until("500 objects", |w| (count(w) == 500).then_some(()));
    git(&["checkout", "-q", "main"]).ok();
    // 500 of 500 at once is what the guard is for.
    let status = world.until("the guard", |w| {
        let said = w.ctl(&["status"]);
        said.out.contains("--allow-prune").then_some(said)
    });
    assert_eq!(status.code, 3);
    assert_eq!(count(&world), 500);
    world.ctl(&["reconcile", "--allow-prune"]).ok();
    world.until("none", |w| (count(w) == 0).then_some(()));
    git(&["checkout", "-q", "many"]).ok();
    world.until("500 again", |w| (count(w) == 500).then_some(()));
    assert_eq!(world.ctl(&["status"]).code, 0);
}

#[test]
fn a_vanished_directory_deletes_nothing() {
    if skip() {
        return;
    }
    let mut world = World::started("vanish");
    world.file("web.yaml", &script("web", FOREVER));
    let before = started_at(&world.ready("web"));
    let aside = world.dir.join("aside");
    fs::rename(&world.manifests, &aside).unwrap();
    world.until("the complaint", |w| (w.ctl(&["status"]).code == 3).then_some(()));
    world.ctl(&["reload"]);
    assert!(world.pod("web").is_some_and(|p| is_ready(&p)));
    fs::rename(&aside, &world.manifests).unwrap();
    world.until("peace", |w| (w.ctl(&["status"]).code == 0).then_some(()));
    assert_eq!(started_at(&world.ready("web")), before);
    // The same when nobody looked: not there, or not mounted yet, when the daemon starts.
    for empty in [false, true] {
        world.kill9();
        fs::rename(&world.manifests, &aside).unwrap();
        if empty {
            fs::create_dir(&world.manifests).unwrap();
        }
        world.start();
        let said = world.until("the complaint", |w| Some(w.ctl(&["status"])).filter(|said| said.code == 3));
        assert!(said.out.contains("nothing is deleted"), "{said:?}");
        world.ctl(&["reload"]);
        assert!(world.pod("web").is_some_and(|p| is_ready(&p)));
        if empty {
            fs::remove_dir(&world.manifests).unwrap();
        }
        fs::rename(&aside, &world.manifests).unwrap();
        world.until("peace", |w| (w.ctl(&["status"]).code == 0).then_some(()));
        assert_eq!(started_at(&world.ready("web")), before);
    }
    // Whoever says that it is meant, is believed.
    fs::rename(&world.manifests, &aside).unwrap();
    world.until("the complaint", |w| (w.ctl(&["status"]).code == 3).then_some(()));
    world.ctl(&["reconcile", "--allow-prune"]).ok();
    world.gone("web");
    world.until("peace", |w| (w.ctl(&["status"]).code == 0).then_some(()));
}

#[test]
fn untrustworthy_files_are_refused_by_name() {
    if skip() {
        return;
    }
    let world = World::started("trust");
    let refused = |what: &str, named: &str| {
        let said = world.until(what, |w| {
            let said = w.ctl(&["status"]);
            (said.code == 3 && said.out.contains(named)).then_some(said)
        });
        drop(said);
    };
    let path = world.manifests.join("open.yaml");
    write(&path, &config("open", "1"));
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    refused("a world-writable file", "open.yaml");
    fs::remove_file(&path).unwrap();

    std::os::unix::fs::symlink("/etc/hostname", world.manifests.join("out.yaml")).unwrap();
    refused("a symlink out of the tree", "out.yaml");
    fs::remove_file(world.manifests.join("out.yaml")).unwrap();

    nix::unistd::mkfifo(&world.manifests.join("fifo.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused("a fifo", "fifo.yaml");
    fs::remove_file(world.manifests.join("fifo.yaml")).unwrap();

    let huge = fs::File::create(world.manifests.join("huge.yaml")).unwrap();
    huge.set_len(4 << 30).unwrap();
    refused("a huge file", "huge.yaml");
    fs::remove_file(world.manifests.join("huge.yaml")).unwrap();
    world.until("peace", |w| (w.ctl(&["status"]).code == 0).then_some(()));
}

#[test]
fn a_change_converges_within_two_seconds_among_a_thousand_random_operations() {
    if skip() {
        return;
    }
    let world = World::started("random");
    let seed = std::env::var("REDDWARF_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_26u64);
    println!("REDDWARF_SEED={seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        // splitmix64: replayable from the printed seed.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    };
    let mut wanted = std::collections::BTreeMap::new();
    for step in 0..1000u64 {
        let name = format!("r{}", random(4));
        let file = format!("{name}.yaml");
        match random(5) {
            0 if wanted.contains_key(&name) => {
                world.remove(&file);
                wanted.remove(&name);
            }
            1 => {
                write(&world.manifests.join(&file), &config(&name, &step.to_string()));
                wanted.insert(name, step.to_string());
            }
            _ => {
                world.file(&file, &config(&name, &step.to_string()));
                wanted.insert(name, step.to_string());
            }
        }
    }
    let began = Instant::now();
    world.within(Duration::from_secs(5), "the directory's state", |w| {
        let now: std::collections::BTreeMap<String, String> =
            (0..4).filter_map(|i| value(w, &format!("r{i}")).map(|v| (format!("r{i}"), v))).collect();
        (now == wanted).then_some(())
    });
    println!("converged {:?} after the last of 1000 operations", began.elapsed());
}
