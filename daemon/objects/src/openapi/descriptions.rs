//! What people read about types and fields: Kubernetes' own texts (Apache-2.0), by way of the crate k8s-openapi; see
//! `examples/descriptions`.

use crate::schema::Type;
use flate2::read::ZlibDecoder;
use std::io::Read;

const COMPRESSED: &[u8] = include_bytes!("../../schema/descriptions.z");

/// What every kind has is described once, as if of this type.
const EVERY_KIND: &str = "*";

/// All descriptions, about half a megabyte.
pub(super) struct Descriptions {
    text: String,
    /// Where each type's line begins, in order of name.
    types: Vec<usize>,
}

impl Descriptions {
    pub(super) fn read() -> Self {
        let mut text = String::new();
        // It is in the binary; were it damaged, there would be no descriptions.
        if ZlibDecoder::new(COMPRESSED).read_to_string(&mut text).is_err() {
            text.clear();
        }
        let mut types = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if !line.starts_with(' ') {
                types.push(at);
            }
            at += line.len();
        }
        Self { text, types }
    }

    fn section(&self, type_name: &str) -> impl Iterator<Item = (&str, &str)> {
        let name = |at: usize| self.text.get(at..).and_then(|t| t.split('\t').next()).unwrap_or_default();
        let found = self.types.binary_search_by(|at| name(*at).cmp(type_name)).ok();
        let from = found.and_then(|index| self.types.get(index)).copied().unwrap_or(self.text.len());
        let to = found.and_then(|index| self.types.get(index + 1)).copied().unwrap_or(self.text.len());
        let lines = self.text.get(from..to).unwrap_or_default().lines();
        lines.filter_map(|line| line.split_once('\t'))
    }

    /// What a type is; empty when nobody has said.
    pub(super) fn of_type(&self, type_name: &str) -> String {
        self.section(type_name).next().map(|(_, text)| plain(text)).unwrap_or_default()
    }

    /// What a field of a type is.
    pub(super) fn of_field(&self, structure: &Type, field: &str) -> String {
        let every_kind = matches!(field, "apiVersion" | "kind") && structure.is_kind();
        self.section(if every_kind { EVERY_KIND } else { structure.name })
            .find(|(name, _)| name.strip_prefix(' ') == Some(field))
            .map(|(_, text)| plain(text))
            .unwrap_or_default()
    }
}

fn plain(text: &str) -> String {
    text.replace("\\n", "\n")
}
