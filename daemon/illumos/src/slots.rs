//! Places for the root file systems of a pod's containers.

use crate::host::Shared;
use crate::paths::slot_name;
use crate::zlogin::quoted;
use crate::{datasets, inside, record};
use reddwarf_host::{HostErrorKind, HostResult, SandboxId};
use std::collections::BTreeSet;

/// Those that instances of the sandbox have.
pub(crate) fn in_use(shared: &Shared, id: &SandboxId) -> HostResult<BTreeSet<u32>> {
    let mut used = BTreeSet::new();
    for (_, _, dir) in shared.paths.run.instances(id)? {
        used.extend(record::launch(&dir)?.and_then(|launch| launch.slot));
    }
    Ok(used)
}

/// Destroys what is in one. Who made its mounts may have been killed: then the zone still has them, and is told to let go.
pub(crate) async fn free(shared: &Shared, op: &'static str, id: &SandboxId, slot: u32) -> HostResult<()> {
    let dataset = datasets::slot(shared, id, slot)?;
    match datasets::destroy(shared, op, &dataset).await {
        Err(busy) if busy.kind == HostErrorKind::Busy => {
            if let Err(error) = shared.run(op, id.as_str(), &inside::shell(shared, id, &let_go(slot))).await {
                tracing::debug!(sandbox = %id, slot, error = %error.chain(), "its zone does not let go");
            }
            datasets::destroy(shared, op, &dataset).await.map(drop)
        }
        done => done.map(drop),
    }
}

/// The shell's text that ends all that has its root there, and takes away what is mounted in it, the last first. Linux' table has
/// four words behind a place, with blanks that are spelt out; lx' has them as they are, and mnttab(5) has tabs between.
fn let_go(slot: u32) -> String {
    let place = inside::path("roots").join(slot_name(slot));
    let place = quoted(&format!("/{}/", place.to_string_lossy().trim_start_matches('/')));
    format!(
        r#"r={place} all= nl='
' tab='	'
for p in /proc/[0-9]*; do [ "$p/root" -ef "${{r}}root" ] && kill -KILL "${{p#/proc/}}"; done
if [ -r /proc/self/mounts ]; then
  while IFS= read -r line; do case $line in *" $r"*) p=$r${{line#*" $r"}}; all=${{p% * * * *}}$nl$all;; esac; done < /proc/self/mounts
else
  while IFS=$tab read -r from p rest; do case $p in "$r"*) all=$p$nl$all;; esac; done < /etc/mnttab
fi
printf %s "$all" | while IFS= read -r p; do
  p=$(printf %b "$p") n=0
  until umount "$p" 2>/dev/null; do n=$((n + 1)); [ $n -lt 3 ] || break; sleep 1; done
done
exit 0"#
    )
}
