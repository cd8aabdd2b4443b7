//! Tokens of pods' accounts: asked for before a plan needs them, renewed before they end, found again on the host after
//! a restart of the daemon.
//!
//! A plan is a pure function of what is known, and a token comes from outside: so the worker of a pod sees to its tokens
//! ([`due`]) before it plans. A plan that is made without a worker (`reddwarfctl plan`) asks for none.

use crate::desired::{Desired, PodIntent};
use crate::key::PodKey;
use crate::translate::{self, TokenFile};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_host::SandboxObserved;
use reddwarf_host::spec::{Sensitive, VolumeSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Time before a refused token is asked for again.
const ASK_AGAIN: TimeDelta = TimeDelta::seconds(5);
/// The longest that a token is used, whatever its life.
const LONGEST_USE: TimeDelta = TimeDelta::hours(24);

/// A token that a pod's volume asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenRequest {
    /// The pod.
    pub pod: PodKey,
    /// Its uid.
    pub uid: String,
    /// For whom; the API when absent.
    pub audience: Option<String>,
    /// Its life in seconds.
    pub seconds: i64,
}

/// A token. Its text is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The text.
    pub text: Sensitive<String>,
    /// When it was made.
    pub issued: DateTime<Utc>,
    /// When it ends.
    pub expires: DateTime<Utc>,
}

impl Token {
    /// When the next one is asked for: after four fifths of its life, but at least once a day (as the kubelet does).
    pub fn renew_at(&self) -> DateTime<Utc> {
        let life = self.expires - self.issued;
        self.issued + (life * 4 / 5).min(LONGEST_USE)
    }
}

/// Who makes tokens. The daemon's wiring implements it over the API's keys.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// A token that is bound to the pod: void when that is gone.
    ///
    /// # Errors
    /// Why there is none, in words.
    async fn token(&self, wanted: &TokenRequest) -> Result<Token, String>;
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The token, or why there is none.
    pub token: Result<Token, String>,
    /// When to ask again.
    pub again: DateTime<Utc>,
}

impl From<Token> for Answer {
    fn from(token: Token) -> Self {
        Self { again: token.renew_at(), token: Ok(token) }
    }
}

/// The tokens that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// There is someone to ask. Without, pods of files get no token unasked.
    pub offered: bool,
    known: BTreeMap<TokenRequest, Arc<Answer>>,
}

impl Tokens {
    /// None known yet.
    pub fn new(offered: bool) -> Self {
        Self { offered, known: BTreeMap::new() }
    }

    /// What came of a request; `None`: not asked yet.
    pub fn get(&self, request: &TokenRequest) -> Option<&Answer> {
        self.known.get(request).map(Arc::as_ref)
    }

    /// Notes what came of a request.
    pub fn put(&mut self, request: TokenRequest, answer: impl Into<Answer>) {
        self.known.insert(request, Arc::new(answer.into()));
    }

    /// Forgets tokens of pods that are gone.
    pub fn retain(&mut self, keep: impl Fn(&TokenRequest) -> bool) {
        self.known.retain(|request, _| keep(request));
    }

    /// A refusal in this namespace may have lost its reason: ask at once.
    pub fn forget_refusals(&mut self, namespace: &str) {
        self.known.retain(|request, answer| request.pod.namespace != namespace || answer.token.is_ok());
    }

    /// Pods of which a token is to be asked for by now.
    pub(crate) fn due(&self, now: DateTime<Utc>) -> impl Iterator<Item = &PodKey> {
        self.known.iter().filter(move |(_, answer)| answer.again <= now).map(|(request, _)| &request.pod)
    }

    /// When a token of these is to be asked for next.
    pub(crate) fn next(&self, requests: &[TokenFile]) -> Option<DateTime<Utc>> {
        requests.iter().filter_map(|file| self.get(&file.request).map(|answer| answer.again)).min()
    }
}

/// The tokens of a pod that must be asked for now. Those that its sandbox has and that are good are taken up again.
pub(crate) fn due(
    desired: &mut Desired,
    intent: &PodIntent,
    sandbox: Option<&SandboxObserved>,
    now: DateTime<Utc>,
) -> Vec<TokenRequest> {
    let mut wanted = Vec::new();
    for file in translate::token_files(intent, &desired.config, &desired.tokens, sandbox.map(|s| &*s.spec)) {
        if desired.tokens.get(&file.request).is_none()
            && let Some(token) = sandbox.and_then(|s| mounted(s, &file))
        {
            desired.tokens.put(file.request.clone(), token);
        }
        let good = desired.tokens.get(&file.request).is_some_and(|answer| now < answer.again);
        if !good && !wanted.contains(&file.request) {
            wanted.push(file.request);
        }
    }
    wanted
}

/// Notes what came of asking. A token that could not be renewed is used on for as long as it is good.
pub(crate) fn answered(tokens: &mut Tokens, request: TokenRequest, answer: Result<Token, String>, now: DateTime<Utc>) {
    let answer = match answer {
        Ok(token) => Answer::from(token),
        Err(why) => {
            tracing::warn!(pod = %request.pod, why, "a token of the pod's account could not be made");
            let old = tokens.get(&request).and_then(|known| known.token.as_ref().ok());
            match old.filter(|old| now < old.expires) {
                Some(old) => {
                    let wait = ((old.expires - now) / 2).clamp(ASK_AGAIN, TimeDelta::minutes(1));
                    Answer { token: Ok(old.clone()), again: now + wait }
                }
                None => Answer { token: Err(why), again: now + ASK_AGAIN },
            }
        }
    };
    tokens.put(request, answer);
}

/// The token that a sandbox has in a file, when it is what is asked for.
fn mounted(sandbox: &SandboxObserved, file: &TokenFile) -> Option<Token> {
    let VolumeSpec::Files { files, .. } = sandbox.spec.volumes.get(&file.volume)? else { return None };
    let text = std::str::from_utf8(files.get(&file.path)?.bytes.expose()).ok()?;
    let token = read(text, file.request.audience.as_deref())?;
    (token.expires - token.issued == TimeDelta::seconds(file.request.seconds)).then_some(token)
}

/// What a JSON web token says of itself (RFC 7519); not verified: it is ours. `None` when it is for someone else.
fn read(text: &str, audience: Option<&str>) -> Option<Token> {
    #[derive(serde::Deserialize)]
    struct Claims {
        #[serde(default)]
        aud: Vec<String>,
        iat: i64,
        exp: i64,
    }
    let claims = URL_SAFE_NO_PAD.decode(text.split('.').nth(1)?).ok()?;
    let Claims { aud, iat, exp } = serde_json::from_slice(&claims).ok()?;
    if audience.is_some_and(|audience| !aud.iter().any(|a| a == audience)) {
        return None;
    }
    let time = |seconds| DateTime::from_timestamp(seconds, 0);
    Some(Token { text: Sensitive::new(text.to_owned()), issued: time(iat)?, expires: time(exp)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn token(from: i64, to: i64) -> Token {
        Token { text: Sensitive::new("t".into()), issued: at(from), expires: at(to) }
    }

    fn request() -> TokenRequest {
        TokenRequest { pod: PodKey::new("ns", "p"), uid: "u".into(), audience: None, seconds: 3600 }
    }

    #[test]
    fn a_token_is_renewed_after_four_fifths_of_its_life_and_at_least_daily() {
        assert_eq!(token(0, 600).renew_at(), at(480));
        assert_eq!(token(0, 3600).renew_at(), at(2880));
        assert_eq!(token(0, 30 * 24 * 3600).renew_at(), at(24 * 3600));
    }

    #[test]
    fn a_refused_renewal_keeps_the_old_token_and_is_tried_again_in_time() {
        let mut tokens = Tokens::default();
        let state = |tokens: &Tokens| tokens.get(&request()).map(|a| (a.token.is_ok(), a.again));
        tokens.put(request(), token(0, 3600));
        assert_eq!(tokens.due(at(2879)).count(), 0);
        assert_eq!(tokens.due(at(2880)).count(), 1);
        answered(&mut tokens, request(), Err("no".into()), at(2880));
        assert_eq!(state(&tokens), Some((true, at(2940))));
        answered(&mut tokens, request(), Err("no".into()), at(3599));
        assert_eq!(state(&tokens), Some((true, at(3604))));
        answered(&mut tokens, request(), Err("no".into()), at(3605));
        assert_eq!(state(&tokens), Some((false, at(3610))), "it has ended");
        tokens.forget_refusals("other");
        assert!(tokens.get(&request()).is_some());
        tokens.forget_refusals("ns");
        assert!(tokens.get(&request()).is_none());
        answered(&mut tokens, request(), Ok(token(3700, 4300)), at(3700));
        assert_eq!(state(&tokens), Some((true, at(4180))));
    }

    #[test]
    fn a_token_tells_of_itself() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"aud":["me"],"iat":1800000000,"exp":1800000600,"sub":"x"}"#);
        let text = format!("h.{claims}.s");
        assert_eq!(read(&text, Some("me")).map(|t| (t.issued, t.expires)), Some((at(0), at(600))));
        assert!(read(&text, None).is_some());
        for (bad, audience) in [(text.as_str(), Some("you")), ("", None), ("a.b.c", None), ("nonsense", None)] {
            assert!(read(bad, audience).is_none(), "{bad}");
        }
    }
}
