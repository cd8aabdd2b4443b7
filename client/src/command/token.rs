//! `token`: bearer tokens for users of the Kubernetes API, made, listed and revoked.

use crate::context::Context;
use crate::daemon::with_query;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::table::Table;
use crate::wire::{Done, TokenCreated, TokenList, TokenRequest};
use chrono::{DateTime, Utc};
use clap::Subcommand;
use reddwarf_objects::print;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token and print it, this once; what it may do is for roles and role bindings to say
    Create {
        /// The user's name
        user: String,
        /// A group of the user; may be repeated (`system:masters` may do everything)
        #[arg(long, value_name = "NAME")]
        group: Vec<String>,
        /// How long it is valid, such as 90m, 12h or 30d; for ever when not given
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<u64>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Print a kubeconfig with the token instead of the token alone
        #[arg(long)]
        kubeconfig: bool,
    },
    /// List tokens, without their secrets
    #[command(visible_alias = "ls")]
    List,
    /// Sign ServiceAccounts' tokens with a new key from now on; older ones stay valid until they expire
    RotateKeys,
    /// Take a token away, at once
    Revoke {
        /// Its id, as `list` shows it
        id: String,
    },
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    match &arguments.verb {
        Verb::Create { user, group, expires, description, kubeconfig } => {
            let request = TokenRequest {
                user: user.clone(),
                groups: group.clone(),
                description: description.clone(),
                expiration_seconds: *expires,
            };
            let created: TokenCreated = context.daemon.post("/reddwarf/v1/tokens", &request).await?;
            if *kubeconfig && created.kubeconfig.is_empty() {
                let why = "the API does not listen on TCP (--listen), so there is nothing to connect to";
                context.warn(&format!("no kubeconfig: {why}; this is the token"));
            }
            if *kubeconfig && !created.kubeconfig.is_empty() {
                context.print(&created.kubeconfig)?;
            } else if !context.structured(&created)? {
                context.print(&format!("{}\n", created.token))?;
            }
        }
        Verb::List => {
            let list: TokenList = context.daemon.get("/reddwarf/v1/tokens").await?;
            if !context.structured(&list)? {
                context.print(&render(context, &list))?;
            }
        }
        Verb::RotateKeys => {
            let done: Done = context.daemon.post_empty("/reddwarf/v1/service-account-keys/rotate").await?;
            context.done(&done)?;
        }
        Verb::Revoke { id } => {
            let path = with_query("/reddwarf/v1/tokens", &[("id", id)]);
            let done: Done = context.daemon.delete(&path, &serde_json::json!({})).await?;
            context.done(&done)?;
        }
    }
    Ok(Exit::Ok)
}

fn render(context: &Context, list: &TokenList) -> String {
    let now = context.now();
    let mut table = Table::new(["ID", "USER", "GROUPS", "AGE", "EXPIRES", "DESCRIPTION"]);
    for token in &list.items {
        table.push(vec![
            token.id.as_str().into(),
            token.user.as_str().into(),
            token.groups.join(",").into(),
            print::age(token.created, now).into(),
            ends(token.expires, now).into(),
            token.description.as_str().into(),
        ]);
    }
    table.render(context.style, context.width)
}

fn ends(expires: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    match expires {
        None => "never".to_owned(),
        Some(end) if end <= now => "expired".to_owned(),
        // The age that "now" will have then.
        Some(end) => format!("in {}", print::age(Some(now), end)),
    }
}

/// `90m`, `12h`, `30d`, in seconds.
fn lifetime(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no time: write it as 90m, 12h or 30d");
    let unit = text.chars().next_back().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    let count: u64 = text.strip_suffix(unit).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
    count.checked_mul(seconds).filter(|s| *s > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::lifetime;

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime("90m"), Ok(5400));
        assert_eq!(lifetime("30d"), Ok(2_592_000));
        for bad in ["", "d", "1", "0h", "-1h", "1w", "99999999999999999999d", "999999999999999999d", "1é"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }
}
