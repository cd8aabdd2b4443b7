//! Datasets as directories, and how zfs refuses.

use crate::common::Bench;

#[test]
fn datasets_are_directories_with_properties() {
    let bench = Bench::new();
    bench.fails("zfs create rpool/a/b", 1, "cannot create 'rpool/a/b': parent does not exist");
    bench.fails("zfs create tank/a", 1, "no such pool 'tank'");
    bench.ok("zfs create -o io.reddwarf:owner=uid -o quota=1g rpool/a");
    bench.fails("zfs create rpool/a", 1, "cannot create 'rpool/a': dataset already exists");
    bench.fails("zfs create -o nonsense=1 rpool/b", 1, "invalid property 'nonsense'");
    bench.fails("zfs create rpool/b%c", 1, "invalid character in name");
    bench.fails("zfs create -u rpool/b", 2, "invalid option 'u'");
    bench.ok("zfs create rpool/a/b");
    assert!(bench.lab.dir().join("root/rpool/a/b").is_dir());
    let got = bench.ok("zfs get -H -p -r -t filesystem -o name,property,value,source io.reddwarf:owner,quota rpool/a");
    assert_eq!(
        got,
        "rpool/a\tio.reddwarf:owner\tuid\tlocal\nrpool/a\tquota\t1073741824\tlocal\n\
         rpool/a/b\tio.reddwarf:owner\tuid\tinherited from rpool/a\nrpool/a/b\tquota\t0\tdefault\n"
    );
    assert_eq!(bench.ok("zfs get -H -o value nosuch:prop rpool/a"), "-\n");
    bench.fails("zfs list -H -o name rpool/none", 1, "cannot open 'rpool/none': dataset does not exist");
    assert_eq!(bench.ok("zfs list -H -p -o name,mounted -r -d 1 rpool/a"), "rpool/a\tyes\nrpool/a/b\tyes\n");
    bench.fails("zfs get -j all rpool/a", 2, "invalid option");
}

#[test]
fn a_suspended_pool_says_so_and_does_nothing() {
    let bench = Bench::new();
    bench.ok("zfs create rpool/a");
    bench.lab.change(|s| s.pools.insert("rpool".into(), "SUSPENDED".into())).unwrap();
    assert_eq!(bench.ok("zpool list -H -o health rpool"), "SUSPENDED\n");
    for call in ["zfs get -H -p type rpool/a", "zfs create rpool/b", "zfs destroy rpool/a"] {
        bench.fails(call, 1, "pool I/O is currently suspended");
    }
    bench.lab.change(|s| s.pools.clear()).unwrap();
    bench.ok("zfs destroy rpool/a");
}

#[test]
fn what_is_in_the_way_of_a_destruction_is_told() {
    let bench = Bench::new();
    for line in
        ["zfs create rpool/a", "zfs create rpool/a/b", "zfs snapshot rpool/a/b@s", "zfs clone rpool/a/b@s rpool/c"]
    {
        bench.ok(line);
    }
    bench.fails("zfs destroy rpool/a", 1, "cannot destroy 'rpool/a': filesystem has children\nuse '-r'");
    bench.fails("zfs destroy -r rpool/a", 1, "filesystem has dependent clones\nuse '-R'");
    bench.fails("zfs destroy -R rpool/a", 2, "invalid option 'R'");
    bench.ok("zfs destroy rpool/c");
    let dry = bench.ok("zfs destroy -nvpr rpool/a");
    assert!(dry.starts_with("destroy\trpool/a/b@s\ndestroy\trpool/a/b\ndestroy\trpool/a\nreclaim\t"), "{dry}");
    bench.ok("zfs hold keep rpool/a/b@s");
    bench.fails("zfs destroy -r rpool/a", 1, "dataset is busy");
    bench.ok("zfs release keep rpool/a/b@s");
    bench.ok("zfs destroy -r rpool/a");
    bench.fails("zfs destroy -r rpool/a", 1, "dataset does not exist");
    assert!(!bench.lab.dir().join("root/rpool/a").exists());
}

#[test]
fn clones_hold_what_their_snapshot_held() {
    let bench = Bench::new();
    bench.ok("zfs create rpool/image");
    let image = bench.lab.dir().join("root/rpool/image");
    std::fs::create_dir_all(image.join("root/etc")).unwrap();
    bench.ok("zfs snapshot rpool/image@golden");
    std::fs::create_dir(image.join("later")).unwrap();
    bench.ok("zfs clone -o mountpoint=legacy rpool/image@golden rpool/pod");
    assert!(!bench.lab.dir().join("root/rpool/pod").exists(), "a legacy one is mounted nowhere");
    let elsewhere = bench.lab.dir().join("root/elsewhere");
    bench.ok(&format!("zfs set mountpoint={} rpool/pod", elsewhere.display()));
    assert!(elsewhere.join("root/etc").is_dir());
    bench.fails("zfs set mountpoint=/somewhere/else rpool/pod", 1, "is not below");
    bench.ok("zfs rollback rpool/image@golden");
    assert!(image.join("root/etc").is_dir() && !image.join("later").exists());
    bench.fails("zfs set quota=1 rpool/image", 1, "size is less than current used or reserved space");
    assert_eq!(bench.ok("zfs get -H -o value origin rpool/pod"), "rpool/image@golden\n");
}

#[test]
fn a_dataset_that_a_zone_runs_on_is_busy() {
    let bench = Bench::new();
    bench.ok("zfs create rpool/vol");
    let vol = bench.lab.dir().join("root/rpool/vol");
    bench.installed("a", &format!("add fs\nset dir=/data\nset special=\"{}\"\nset type=lofs\nend\n", vol.display()));
    bench.ok("zoneadm -z a boot");
    bench.fails("zfs destroy rpool/vol", 1, "dataset is busy");
    bench.fails("zfs destroy -r rpool/zones/a", 1, "dataset is busy");
    bench.ok("zoneadm -z a halt");
    bench.ok("zfs destroy rpool/vol");
    // Its brand takes the zone's own dataset away: whoever comes later finds nothing.
    bench.ok("zoneadm -z a uninstall -F");
    bench.fails("zfs destroy -r rpool/zones/a", 1, "dataset does not exist");
}
