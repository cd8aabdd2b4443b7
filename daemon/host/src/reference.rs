//! Image references as users write them: `nginx`, `quay.io/team/app:1.2`, `10.0.0.1:5000/app@sha256:…`.
//!
//! The grammar is the distribution project's (reference/regexp.go documents it): `[registry/]path[:tag][@digest]`. The
//! first part names a registry when it holds a `.` or a `:` or is `localhost`; without one it is Docker Hub, where
//! images without an owner lie in `library/`.

use std::fmt;

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names that have neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// A reference in its full form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {name:?}: {rule}")]
pub struct ReferenceError {
    /// The text.
    pub name: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl ImageReference {
    /// Takes a reference apart and completes it.
    ///
    /// # Errors
    /// [`ReferenceError`] naming the rule that is broken.
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        Self::take_apart(name).map_err(|rule| ReferenceError { name: name.to_owned(), rule })
    }

    fn take_apart(name: &str) -> Result<Self, &'static str> {
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
            None => (name, None),
        };
        let after_slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (rest, tag) = match rest.get(after_slash..).and_then(|last| last.find(':')) {
            Some(colon) => {
                let (rest, tag) = rest.split_at(after_slash + colon);
                (rest, Some(check_tag(tag.trim_start_matches(':'))?))
            }
            None => (rest, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if is_registry(first) => (check_registry(first)?, path),
            _ => (DEFAULT_REGISTRY.to_owned(), rest),
        };
        check_path(path)?;
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY.to_owned() } else { registry };
        let repository = match (registry.as_str(), path.contains('/')) {
            (DEFAULT_REGISTRY, false) => format!("library/{path}"),
            _ => path.to_owned(),
        };
        if registry.len() + 1 + repository.len() > 255 {
            return Err("registry and path may not have more than 255 bytes");
        }
        let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self { registry, repository, tag, digest })
    }

    /// `docker.io`, `quay.io`, `10.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, completed to `latest` where there is no digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where the reference is pinned to one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn wanted(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for ImageReference {
    /// The full form; a digest takes the tag's place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '[']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_registry(text: &str) -> Result<String, &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if let Some(port) = port
        && port.parse::<u16>().is_err()
    {
        return Err("a registry's port is a number up to 65535");
    }
    let ipv6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let good = match ipv6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    if good { Ok(text.to_owned()) } else { Err("its registry is no host name") }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("it names no image");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository name must be lowercase");
    }
    if path.split('/').all(is_component) { Ok(()) } else { Err("invalid reference format") }
}

/// Lower-case letters and digits, parted by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let separator = |b: u8| matches!(b, b'.' | b'_' | b'-');
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !ends(text.bytes().next()) || !ends(text.bytes().last()) {
        return false;
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || separator(b)) {
        return false;
    }
    let mut runs = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    runs.all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<String, &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = tag.bytes().next().is_some_and(word);
    if first && tag.len() <= 128 && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
        return Ok(tag.to_owned());
    }
    Err("a tag has 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', and begins with none of the last two")
}

fn check_digest(digest: &str) -> Result<String, &'static str> {
    let hex = digest.strip_prefix("sha256:").ok_or("a digest begins with 'sha256:'")?;
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(digest.to_owned());
    }
    Err("a digest has 64 lower-case hexadecimal digits after 'sha256:'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_mean_what_users_of_docker_expect() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.29", "docker.io/library/nginx:1.29"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("quay.io/a/b__c-d.e:V1", "quay.io/a/b__c-d.e:V1"),
            (&format!("q.io/a:tag@{digest}"), &format!("q.io/a@{digest}")),
        ] {
            assert_eq!(ImageReference::parse(text).unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_told_why() {
        for (text, rule) in [
            ("", "it names no image"),
            ("Nginx", "repository name must be lowercase"),
            ("a//b", "invalid reference format"),
            ("a/..", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a:", "a tag has 1 to 128"),
            ("a@sha256:12", "a digest has 64"),
            ("a@md5:12", "a digest begins with"),
            ("h.io:99999/a", "a registry's port"),
            ("ex_ample.com/a", "its registry is no host name"),
            ("quay.io/", "it names no image"),
        ] {
            let error = ImageReference::parse(text).unwrap_err();
            assert!(error.rule.starts_with(rule), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_the_full_form_means_the_same(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,60}") {
            if let Ok(one) = ImageReference::parse(&text) {
                prop_assert_eq!(ImageReference::parse(&one.to_string()).unwrap().to_string(), one.to_string());
                prop_assert!(!one.repository().contains(".."));
            }
        }
    }
}
