//! Bearer tokens that an admin hands out: `reddwarf.ID.SECRET`. Only a salted digest is kept, so the file is of no use to
//! who reads it; a lost token can't be shown again.

use crate::access::files::{FileError, Kept, read_private, replace};
use crate::access::principal::{MASTERS, Principal};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const PREFIX: &str = "reddwarf";
/// Tokens at most: they are held in memory.
const MOST: usize = 10_000;

/// Why a token could not be made or taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("there is no randomness")]
    NoRandomness,
    #[error("there are {MOST} tokens already; revoke some")]
    TooMany,
    #[error("a token lives between a minute and ten years")]
    Lifetime,
}

/// One token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Public part, which tells tokens apart.
    pub(crate) id: String,
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// What it is for.
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) created: DateTime<Utc>,
    #[serde(default)]
    pub(crate) expires: Option<DateTime<Utc>>,
    /// Of the digest.
    salt: String,
    /// SHA-256 of salt and secret.
    digest: String,
}

/// Who a new token is for.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewToken {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    pub(crate) description: String,
    pub(crate) lifetime: Option<TimeDelta>,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    tokens: Vec<Token>,
}

/// All tokens, in a file that only we can read.
#[derive(Debug)]
pub(crate) struct TokenStore {
    path: PathBuf,
    tokens: Mutex<BTreeMap<String, Token>>,
    /// The one token of versions before TLS, of `STATE/api-token`.
    legacy: Option<Token>,
}

impl TokenStore {
    /// Reads the tokens of a state directory. A file that others could have written is not believed.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn open(state_dir: &Path) -> Result<Self, FileError> {
        let path = state_dir.join("tokens.json");
        let tokens = match read_private(&path)? {
            Kept::Absent => Vec::new(),
            Kept::Unsafe(why) => {
                tracing::warn!(file = %path.display(), why, "the tokens are not believed; make new ones");
                Vec::new()
            }
            Kept::Safe(text) => match serde_json::from_slice::<Contents>(&text) {
                Ok(contents) => contents.tokens,
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "the tokens can't be read; make new ones");
                    Vec::new()
                }
            },
        };
        let tokens = Mutex::new(tokens.into_iter().map(|token| (token.id.clone(), token)).collect());
        Ok(Self { path, tokens, legacy: legacy(&state_dir.join("api-token"))? })
    }

    /// Makes a token. It is valid, and durably kept, when this returns; its text is given out this once.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) fn create(&self, wanted: NewToken, now: DateTime<Utc>) -> Result<(String, Token), TokenError> {
        let least_and_most = TimeDelta::minutes(1)..=TimeDelta::days(3660);
        if wanted.lifetime.is_some_and(|life| !least_and_most.contains(&life)) {
            return Err(TokenError::Lifetime);
        }
        let (id, secret, salt) = (random::<9>()?, random::<32>()?, random::<16>()?);
        let token = Token {
            digest: digest(&salt, &secret),
            id,
            user: wanted.user,
            groups: wanted.groups,
            description: wanted.description,
            created: now,
            expires: wanted.lifetime.and_then(|life| now.checked_add_signed(life)),
            salt,
        };
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, token| !token.is_over(now));
        if tokens.len() >= MOST {
            return Err(TokenError::TooMany);
        }
        tokens.insert(token.id.clone(), token.clone());
        if let Err(error) = self.save(&tokens) {
            tokens.remove(&token.id);
            return Err(error.into());
        }
        Ok((format!("{PREFIX}.{}.{secret}", token.id), token))
    }

    /// All tokens, oldest first.
    pub(crate) fn list(&self) -> Vec<Token> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Token> = tokens.values().cloned().collect();
        all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        all
    }

    /// Takes a token away at once; gives whether it was there.
    ///
    /// # Errors
    /// [`FileError`]: it is then valid still.
    pub(crate) fn revoke(&self, id: &str) -> Result<bool, FileError> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(token) = tokens.remove(id) else { return Ok(false) };
        if let Err(error) = self.save(&tokens) {
            tokens.insert(token.id.clone(), token);
            return Err(error);
        }
        Ok(true)
    }

    fn save(&self, tokens: &BTreeMap<String, Token>) -> Result<(), FileError> {
        let contents = Contents { version: 1, tokens: tokens.values().cloned().collect() };
        let text = serde_json::to_vec_pretty(&contents).unwrap_or_default();
        replace(&self.path, 0o600, &text)
    }

    /// Who brings this token; `None` when it is none of ours or no longer valid.
    pub(crate) fn principal(&self, text: &str, now: DateTime<Utc>) -> Option<Principal> {
        if let Some(legacy) = self.legacy.as_ref().filter(|token| token.is(text)) {
            return Some(legacy.principal());
        }
        let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('.')?.split_once('.')?;
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = tokens.get(id)?;
        (token.is(secret) && !token.is_over(now)).then(|| token.principal())
    }
}

impl Token {
    fn is(&self, secret: &str) -> bool {
        same_secret(&digest(&self.salt, secret), &self.digest)
    }

    fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    fn principal(&self) -> Principal {
        let mut principal = Principal::known(self.user.clone(), self.groups.iter().cloned());
        principal.extra.insert("reddwarf.io/token-id".to_owned(), vec![self.id.clone()]);
        principal
    }
}

/// The token that versions before TLS wrote for TCP clients: it goes on working until its file is removed.
fn legacy(path: &Path) -> Result<Option<Token>, FileError> {
    let Kept::Safe(bytes) = read_private(path)? else { return Ok(None) };
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    let text = text.trim();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    tracing::info!(file = %path.display(), "the API's token of an earlier version is still valid; remove the file to revoke it");
    let salt = String::new();
    Ok(Some(Token {
        id: "api-token".to_owned(),
        user: "token".to_owned(),
        groups: vec![MASTERS.to_owned()],
        description: String::new(),
        created: DateTime::UNIX_EPOCH,
        expires: None,
        digest: digest(&salt, text),
        salt,
    }))
}

fn random<const N: usize>() -> Result<String, TokenError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn digest(salt: &str, secret: &str) -> String {
    let sum = Sha256::new().chain_update(salt.as_bytes()).chain_update(b".").chain_update(secret.as_bytes()).finalize();
    BASE64_URL_SAFE_NO_PAD.encode(sum)
}

/// Compares without telling by its time where the difference is.
pub(crate) fn same_secret(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::principal::Role;
    use std::os::unix::fs::PermissionsExt;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + minutes * 60, 0).unwrap()
    }

    fn alice(lifetime: Option<TimeDelta>) -> NewToken {
        NewToken { user: "alice".into(), groups: vec!["devs".into()], lifetime, ..Default::default() }
    }

    #[test]
    fn e01_tokens_are_kept_as_digests_expire_and_are_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let store = TokenStore::open(dir.path()).unwrap();
        let (short, _) = store.create(alice(Some(TimeDelta::minutes(5))), at(0)).unwrap();
        let (text, token) = store.create(alice(None), at(0)).unwrap();
        let file = dir.path().join("tokens.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = std::fs::read_to_string(&file).unwrap();
        for secret in [&short, &text].map(|t| t.rsplit('.').next().unwrap()) {
            assert!(!kept.contains(secret), "the secret is nowhere");
        }
        let again = TokenStore::open(dir.path()).unwrap();
        for store in [&store, &again] {
            let who = store.principal(&text, at(1)).unwrap();
            assert_eq!((who.name.as_str(), who.role), ("alice", Role::User));
            assert_eq!(who.groups, ["devs", "system:authenticated"]);
            assert!(store.principal(&short, at(4)).is_some() && store.principal(&short, at(5)).is_none());
            let other_id = format!("reddwarf.x{}", text.strip_prefix("reddwarf.").unwrap());
            for bad in ["", "reddwarf", "reddwarf..", "reddwarf.x.y", &text[..text.len() - 1], &other_id] {
                assert!(store.principal(bad, at(1)).is_none(), "{bad}");
            }
        }
        assert!(again.revoke(&token.id).unwrap() && !again.revoke(&token.id).unwrap());
        assert!(again.principal(&text, at(1)).is_none());
        assert!(TokenStore::open(dir.path()).unwrap().principal(&text, at(1)).is_none(), "durably");
        assert!(store.create(alice(Some(TimeDelta::seconds(1))), at(0)).is_err());
    }

    #[test]
    fn tokens_that_others_could_write_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (text, _) = TokenStore::open(dir.path()).unwrap().create(alice(None), at(0)).unwrap();
        let file = dir.path().join("tokens.json");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(TokenStore::open(dir.path()).unwrap().principal(&text, at(0)).is_none());
        replace(&file, 0o600, b"{").unwrap();
        assert!(TokenStore::open(dir.path()).unwrap().list().is_empty());
    }

    #[test]
    fn the_token_of_earlier_versions_goes_on_working() {
        let dir = tempfile::tempdir().unwrap();
        let text = "0123456789abcdef".repeat(4);
        replace(&dir.path().join("api-token"), 0o600, format!("{text}\n").as_bytes()).unwrap();
        let store = TokenStore::open(dir.path()).unwrap();
        assert_eq!(store.principal(&text, at(0)).map(|p| p.role), Some(Role::Admin));
        assert!(store.principal(&"0".repeat(64), at(0)).is_none());
        assert!(same_secret("abc", "abc") && !same_secret("abc", "abd") && !same_secret("abc", "ab"));
    }
}
