//! Our one nftables table: its text, its application in one transaction, its reading back.
//!
//! The table is a single value: it is rendered whole by a pure function from [`Ruleset`] and replaces the one before
//! atomically (`nft -f -`). Reading back is `nft -j list table`, compared line by line with what nft listed right
//! after the last application: so nft's own way of writing things never looks like a change.

use crate::nfnetlink::{self, NFTABLES, Socket, Writer};
use ipnet::IpNet;
use reddwarf_command::{CommandError, CommandOutput, ExternalCommand};
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

/// nft takes 10 to 40 ms on a busy machine.
const DEADLINE: Duration = Duration::from_secs(15);
/// Only our table has it: the table's mark. A chain, because `nft flush table` leaves chains in place.
const MARK_CHAIN: &str = "owned_by_reddwarfd";

/// Everything that our table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    /// The table.
    pub(crate) table: TableName,
    /// The bridge's name.
    pub(crate) bridge: String,
    /// The pods' networks, one or one of each family.
    pub(crate) cidrs: Vec<IpNet>,
    /// Hide pods behind the host's address outside.
    pub(crate) masquerade: bool,
}

/// A table name of the `inet` family: an nft identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableName(String);

impl TableName {
    /// The table of an instance (lower-case letters, digits, `-`): nft knows no `-` in identifiers.
    pub(crate) fn for_instance(instance: &str) -> Self {
        Self(instance.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A table as nft lists it: each chain, set and rule as canonical JSON, in nft's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing(Vec<String>);

impl Ruleset {
    /// The text that replaces the table, whatever it holds, in one transaction.
    pub(crate) fn render(&self) -> String {
        let Self { table, bridge, cidrs, masquerade } = self;
        let table = table.as_str();
        let mut text = String::new();
        // The first line lets the second succeed when there is no table yet.
        let _ = writeln!(text, "table inet {table}");
        let _ = writeln!(text, "delete table inet {table}");
        let _ = writeln!(text, "table inet {table} {{");
        let _ = writeln!(text, "\tcomment \"made by reddwarfd, replaced as a whole\"");
        let _ = writeln!(text, "\tchain {MARK_CHAIN} {{\n\t}}");
        let _ = writeln!(text, "\tchain forward {{");
        let _ = writeln!(text, "\t\ttype filter hook forward priority filter; policy accept;");
        let _ = writeln!(text, "\t\tiifname \"{bridge}\" accept comment \"from pods\"");
        let _ = writeln!(text, "\t\toifname \"{bridge}\" accept comment \"to pods\"");
        let _ = writeln!(text, "\t}}");
        // Pods reach each other through the host: it must not tell them of a shorter way.
        let _ = writeln!(text, "\tchain output {{");
        let _ = writeln!(text, "\t\ttype filter hook output priority filter; policy accept;");
        for cidr in cidrs {
            let redirect = if cidr.addr().is_ipv4() { "icmp type redirect" } else { "icmpv6 type nd-redirect" };
            let _ = writeln!(text, "\t\toifname \"{bridge}\" {redirect} drop comment \"no way around the host\"");
        }
        let _ = writeln!(text, "\t}}");
        let _ = writeln!(text, "\tchain postrouting {{");
        let _ = writeln!(text, "\t\ttype nat hook postrouting priority srcnat; policy accept;");
        for cidr in cidrs.iter().filter(|_| *masquerade) {
            let (family, multicast) = if cidr.addr().is_ipv4() { ("ip", "224.0.0.0/4") } else { ("ip6", "ff00::/8") };
            let _ = writeln!(
                text,
                "\t\t{family} saddr {cidr} {family} daddr != {{ {cidr}, {multicast} }} oifname != \"{bridge}\" masquerade \
                 comment \"pods leave as the host\""
            );
        }
        let _ = writeln!(text, "\t}}");
        let _ = writeln!(text, "}}");
        text
    }
}

/// The table as it is now; `None` when there is none.
pub(crate) async fn list(table: &TableName) -> Result<Option<Listing>, CommandError> {
    let Some(CommandOutput { stdout, .. }) = read_table(table.as_str()).await? else { return Ok(None) };
    Listing::parse(&stdout).map(Some).map_err(|e| CommandError::Io {
        command: "nft -j list table".to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
    })
}

/// Is there a table of this name? When the kernel does not tell: yes, and nft will tell more.
pub(crate) fn exists(name: &str) -> bool {
    // NFT_MSG_GETTABLE, NFPROTO_INET, NFTA_TABLE_NAME (linux/netfilter/nf_tables.h).
    let (get, inet, table_name) = (NFTABLES << 8 | 1, 1, 1);
    let asked = || {
        let mut request = Writer::default();
        request.message((get, 0), (inet, 0), |w| w.text(table_name, name));
        let socket = Socket::connect()?;
        socket.send(&request)?;
        nfnetlink::refusal(socket.receive(&mut [0; 4096])?)
    };
    !asked().is_err_and(|e: std::io::Error| e.raw_os_error() == Some(libc::ENOENT))
}

/// What nft prints of a table, in JSON; `None` when there is none.
pub(crate) async fn read_table(table: &str) -> Result<Option<CommandOutput>, CommandError> {
    match nft()?.args(["-j", "list", "table", "inet", table]).run().await {
        Ok(output) => Ok(Some(output)),
        Err(CommandError::Failed { stderr, .. }) if stderr.contains("No such file or directory") => Ok(None),
        Err(e) => Err(e),
    }
}

/// Applies a text as one transaction.
pub(crate) async fn apply(text: &str) -> Result<(), CommandError> {
    nft()?.args(["-f", "-"]).stdin(text).run().await.map(|_| ())
}

/// Removes the table.
pub(crate) async fn delete(table: &TableName) -> Result<(), CommandError> {
    nft()?.args(["delete", "table", "inet", table.as_str()]).run().await.map(|_| ())
}

fn nft() -> Result<ExternalCommand, CommandError> {
    Ok(ExternalCommand::find("nft")?.deadline(DEADLINE).output_limit(64 << 20))
}

impl Listing {
    /// Reads the answer of `nft -j list table` (libnftables-json(5)).
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(serde::Deserialize)]
        struct Answer {
            nftables: Vec<serde_json::Map<String, Value>>,
        }
        let answer: Answer = serde_json::from_slice(json)?;
        let mut lines = Vec::new();
        for mut object in answer.nftables {
            object.remove("metainfo");
            for value in object.values_mut() {
                if let Some(fields) = value.as_object_mut() {
                    // Numbered anew at each application.
                    fields.remove("handle");
                }
            }
            if !object.is_empty() {
                lines.push(Value::Object(object).to_string());
            }
        }
        Ok(Self(lines))
    }

    /// Whether the table bears our mark.
    pub(crate) fn is_ours(&self) -> bool {
        self.objects().any(|o| o.pointer("/chain/name").and_then(Value::as_str) == Some(MARK_CHAIN))
    }

    /// The lines, to be kept for a later comparison.
    pub(crate) fn lines(&self) -> &[String] {
        &self.0
    }

    /// What differs from `expected` (the lines of an earlier listing), in words. Empty when nothing does.
    pub(crate) fn drift_from(&self, expected: &[String]) -> Vec<String> {
        let mut drift: Vec<String> = expected
            .iter()
            .filter(|line| !self.0.contains(line))
            .map(|line| format!("nftables: {} is missing or changed", describe(line)))
            .chain(
                self.0
                    .iter()
                    .filter(|line| !expected.contains(line))
                    .map(|line| format!("nftables: {} is not ours", describe(line))),
            )
            .collect();
        if drift.is_empty() && self.0 != expected {
            drift.push("nftables: the order of the rules changed".to_owned());
        }
        drift
    }

    fn objects(&self) -> impl Iterator<Item = Value> {
        self.0.iter().filter_map(|line| serde_json::from_str(line).ok())
    }
}

/// What a line is, for people.
fn describe(line: &str) -> String {
    let object: Value = serde_json::from_str(line).unwrap_or(Value::Null);
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    if let Some(chain) = text("/rule/chain") {
        return format!("a rule of chain {chain} ({})", text("/rule/comment").unwrap_or("no comment"));
    }
    match object.as_object().and_then(|o| o.keys().next()) {
        Some(kind) => format!("{kind} {}", text(&format!("/{kind}/name")).unwrap_or("without a name")),
        None => "something unreadable".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(cidrs: &str, masquerade: bool) -> Ruleset {
        Ruleset {
            table: TableName::for_instance("reddwarf-1a2b3c4d"),
            bridge: "reddwarf0".to_owned(),
            cidrs: cidrs.split(',').map(|cidr| cidr.parse().unwrap()).collect(),
            masquerade,
        }
    }

    /// The exact text. When it changes on purpose, write the new one: `UPDATE_GOLDEN=1 cargo test`.
    #[test]
    fn the_rendered_table_is_as_reviewed() {
        for (name, ruleset) in [
            ("masquerade-v4.nft", ruleset("10.88.0.0/16", true)),
            ("masquerade-v6.nft", ruleset("fd00:88::/64", true)),
            ("masquerade-both.nft", ruleset("10.88.0.0/16,fd00:88::/64", true)),
            ("no-masquerade.nft", ruleset("10.88.0.0/16", false)),
        ] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                #[allow(clippy::disallowed_methods)]
                std::fs::write(&path, ruleset.render()).unwrap();
            }
            assert_eq!(ruleset.render(), std::fs::read_to_string(&path).unwrap(), "{}", path.display());
        }
    }

    const LISTED: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "t", "handle": 1}},
        {"chain": {"family": "inet", "table": "t", "name": "owned_by_reddwarfd", "handle": 1}},
        {"chain": {"family": "inet", "table": "t", "name": "postrouting", "handle": 2, "type": "nat"}},
        {"rule": {"family": "inet", "table": "t", "chain": "postrouting", "handle": 3, "comment": "out", "expr": []}}]}"#;

    #[test]
    fn handles_do_not_matter() {
        let one = Listing::parse(LISTED.as_bytes()).unwrap();
        let two = Listing::parse(LISTED.replace("\"handle\": 3", "\"handle\": 77").as_bytes()).unwrap();
        assert_eq!(one, two);
        assert!(one.is_ours());
        assert!(one.drift_from(two.lines()).is_empty());
    }

    #[test]
    fn drift_is_said_in_words() {
        let whole = Listing::parse(LISTED.as_bytes()).unwrap();
        let fewer = Listing(whole.0[..3].to_vec());
        assert_eq!(
            fewer.drift_from(whole.lines()),
            ["nftables: a rule of chain postrouting (out) is missing or changed"]
        );
        assert_eq!(whole.drift_from(fewer.lines()), ["nftables: a rule of chain postrouting (out) is not ours"]);
        let mut swapped = whole.clone();
        swapped.0.swap(1, 2);
        assert_eq!(swapped.drift_from(whole.lines()), ["nftables: the order of the rules changed"]);
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_read_or_refused(text in ".{0,200}") {
            let _ = Listing::parse(text.as_bytes()).map(|l| (l.is_ours(), l.drift_from(&[])));
        }
    }
}
