//! Credentials for registries as docker writes them: config.json (`kubernetes.io/dockerconfigjson`) and the older map of
//! registries alone (`kubernetes.io/dockercfg`).

use base64::Engine;
use reddwarf_host::PullSecret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// How to say who we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// User name and password.
    Password(String, String),
    /// A refresh token (docker's `identitytoken`).
    Refresh(String),
    /// A bearer token as it is (docker's `registrytoken`).
    Token(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// All credentials of one document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logins(Vec<(Pattern, Login)>);

/// `*.example.com:5000/team`: for which images a login is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    host: String,
    port: Option<String>,
    path: String,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Logins {
    /// Reads what a Secret holds.
    ///
    /// # Errors
    /// What is wrong with it, without its content.
    pub(crate) fn of_secret(secret: &PullSecret) -> Result<Self, String> {
        match secret {
            PullSecret::DockerConfigJson(bytes) => Self::of_config(bytes.expose()),
            PullSecret::DockerCfg(bytes) => {
                serde_json::from_slice(bytes.expose()).map(Self::of_entries).map_err(|e| wrong(&e))
            }
        }
    }

    /// Reads docker's config.json.
    ///
    /// # Errors
    /// What is wrong with it, without its content.
    pub(crate) fn of_config(bytes: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(bytes).map_err(|e| wrong(&e))?;
        Ok(Self::of_entries(document.auths))
    }

    fn of_entries(entries: BTreeMap<String, Entry>) -> Self {
        let entries = entries.into_iter().filter_map(|(key, entry)| Some((Pattern::parse(&key), entry.login()?)));
        Self(entries.collect())
    }

    /// Logins for an image, the most particular first.
    pub(crate) fn matching(&self, registry: &str, repository: &str) -> Vec<Login> {
        let mut found: Vec<_> = self.0.iter().filter(|(p, _)| p.matches(registry, repository)).collect();
        found.sort_by_key(|(p, _)| std::cmp::Reverse((p.path.len(), !p.host.contains('*'))));
        found.into_iter().map(|(_, login)| login.clone()).collect()
    }
}

/// serde's message without what it quotes of the text: that may be a password.
fn wrong(error: &serde_json::Error) -> String {
    format!("no docker config in JSON (line {}, column {})", error.line(), error.column())
}

impl Entry {
    fn login(self) -> Option<Login> {
        let filled = |text: Option<String>| text.filter(|t| !t.is_empty());
        if let Some(token) = filled(self.registrytoken) {
            return Some(Login::Token(token));
        }
        if let Some(token) = filled(self.identitytoken) {
            return Some(Login::Refresh(token));
        }
        if let (Some(user), Some(password)) = (filled(self.username), self.password) {
            return Some(Login::Password(user, password));
        }
        let auth = filled(self.auth)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        // Old versions of docker padded with zero bytes.
        Some(Login::Password(user.to_owned(), password.trim_end_matches('\0').to_owned()))
    }
}

impl Pattern {
    fn parse(key: &str) -> Self {
        let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // `https://index.docker.io/v1/` is how docker calls its own registry.
        let path = path.trim_end_matches('/');
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port.to_owned())),
            _ => (authority, None),
        };
        let host = host.to_ascii_lowercase();
        let host = if host == "index.docker.io" || host == "registry-1.docker.io" { "docker.io".into() } else { host };
        Self { host, port, path: path.to_owned() }
    }

    fn matches(&self, registry: &str, repository: &str) -> bool {
        let Self { host, port, path: _ } = Self::parse(registry);
        if self.port.is_some() && self.port != port {
            return false;
        }
        let (ours, theirs): (Vec<_>, Vec<_>) = (self.host.split('.').collect(), host.split('.').collect());
        let hosts = ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(o, t)| glob(o, t));
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        hosts && (self.path.is_empty() || repository.strip_prefix(&self.path).is_some_and(below))
    }
}

/// One label of a host name; `*` stands for any letters.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            let Some(rest) = text.strip_prefix(before) else { return false };
            (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|tail| glob(after, tail)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reddwarf_host::spec::Sensitive;

    fn logins(json: &str) -> Logins {
        Logins::of_secret(&PullSecret::DockerConfigJson(Sensitive::new(json.into()))).unwrap()
    }

    fn users(logins: &Logins, registry: &str, repository: &str) -> Vec<String> {
        let user = |login| match login {
            Login::Password(user, password) => format!("{user}/{password}"),
            Login::Refresh(token) | Login::Token(token) => token,
        };
        logins.matching(registry, repository).into_iter().map(user).collect()
    }

    #[test]
    fn the_most_particular_login_comes_first() {
        let all = logins(
            r#"{"auths":{"*.example.com":{"username":"any","password":"p"},"reg.example.com/team":{"auth":"dGVhbTpwOnc="},
                "reg.example.com:5000":{"username":"port","password":""},"https://index.docker.io/v1/":{"identitytoken":"hub"}}}"#,
        );
        assert_eq!(users(&all, "reg.example.com", "team/app"), ["team/p:w", "any/p"]);
        assert_eq!(users(&all, "reg.example.com", "teams/app"), ["any/p"]);
        assert_eq!(users(&all, "reg.example.com:5000", "x"), ["port/", "any/p"]);
        assert_eq!(users(&all, "docker.io", "library/nginx"), ["hub"]);
        assert!(users(&all, "a.b.example.com", "x").is_empty());
        assert!(users(&all, "example.com", "x").is_empty());
    }

    #[test]
    fn the_older_form_is_the_map_alone() {
        let secret = PullSecret::DockerCfg(Sensitive::new(br#"{"r.io":{"username":"u","password":"p"}}"#.to_vec()));
        assert_eq!(users(&Logins::of_secret(&secret).unwrap(), "r.io", "a"), ["u/p"]);
    }

    #[test]
    fn what_can_not_be_read_shows_none_of_its_content() {
        let secret = PullSecret::DockerConfigJson(Sensitive::new(br#"{"auths":{"r":"hunter2"}}"#.to_vec()));
        let error = Logins::of_secret(&secret).unwrap_err();
        assert!(!error.contains("hunter2") && error.contains("line 1"), "{error}");
        assert_eq!(format!("{:?}", Login::Token("hunter2".into())), "<redacted>");
    }

    proptest! {
        #[test]
        fn any_document_is_read_or_refused(text in ".{0,200}", pattern in "[a-z.*:/]{0,30}", host in "[a-z.:]{0,20}") {
            let _ = Logins::of_config(text.as_bytes());
            let _ = Pattern::parse(&pattern).matches(&host, "a/b");
        }
    }
}
