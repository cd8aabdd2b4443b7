//! Layers that are not there any more when the daemon starts.
//!
//! A scanner knows a lost layer from an empty one because it saw files there. A restart would forget that, and a file
//! system that is not mounted yet would be a deletion: so which directories held files is kept in the store.

use super::{DirectoryLoop, note};
use reddwarf_config::HeldLayer;
use reddwarf_registry::{Registry, RegistryError};
use std::path::Path;

const NOTE: &str = "layers";

/// What an earlier daemon saw.
pub(super) fn load(registry: &Registry) -> Result<Vec<HeldLayer>, RegistryError> {
    Ok(note::load(registry, NOTE)?.unwrap_or_default())
}

/// The layers that must be there now: those with `files` in the generation in force, each as it was seen if that is known.
/// Those below /run are gone with every boot, and that is what they are for.
pub(super) fn expected<'a>(
    layers: &[std::path::PathBuf],
    seen: &[HeldLayer],
    files: impl Iterator<Item = &'a str> + Clone,
) -> Vec<HeldLayer> {
    let volatile = |layer: &Path| ["/run", "/var/run"].iter().any(|run| layer.starts_with(run));
    let held = |layer: &&std::path::PathBuf| !volatile(layer) && files.clone().any(|f| Path::new(f).starts_with(layer));
    let known = |layer: &std::path::PathBuf| seen.iter().find(|s| s.path == *layer).and_then(|s| s.place);
    layers.iter().filter(held).map(|layer| HeldLayer { path: layer.clone(), place: known(layer) }).collect()
}

impl DirectoryLoop {
    /// Keeps which layers hold files, when that is new. A failure costs only the exactness of the next start.
    pub(super) async fn keep_layers(&mut self) {
        let Some(held) = self.scanner.as_ref().map(reddwarf_config::Scanner::held).filter(|h| *h != self.held) else {
            return;
        };
        match note::keep(&self.registry, NOTE, &held, "which directories hold manifests").await {
            Ok(()) => self.held = held,
            Err(error) => tracing::warn!(%error, "which directories hold manifests could not be kept"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn layers_of_the_generation_are_expected_but_those_of_run() {
        let layers: Vec<PathBuf> = ["/usr/lib/r.d", "/etc/r.d", "/run/r.d"].map(PathBuf::from).to_vec();
        let seen = [HeldLayer { path: "/etc/r.d".into(), place: Some((1, 2)) }];
        let files = ["/etc/r.d/shop/web.yaml", "/run/r.d/a.yaml", "/etc/r.d-old/b.yaml"];
        assert_eq!(expected(&layers, &seen, files.into_iter()), seen);
        let unknown = [HeldLayer { path: "/etc/r.d".into(), place: None }];
        assert_eq!(expected(&layers, &[], files.into_iter()), unknown);
        assert_eq!(expected(&layers, &seen, [].into_iter()), []);
    }
}
