//! What a token says, and its signature: JWS compact serialisation (RFC 7515) with ES256.

use super::keys::Key;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// The claims of a bound token, as Kubernetes names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    /// Without one the token is good for as long as the Secret that it is bound to has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<i64>,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: Kubernetes,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

/// Whose the token is and what it ends with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kubernetes {
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Named>,
    #[serde(rename = "serviceaccount")]
    pub(crate) service_account: Named,
}

/// One object and no other of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) uid: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// Longer tokens are none of ours.
const LONGEST: usize = 16 << 10;

impl Claims {
    /// The token.
    ///
    /// # Errors
    /// When it can't be signed.
    pub(crate) fn sign(&self, key: &Key) -> Result<String, String> {
        let header = Header { alg: "ES256".to_owned(), kid: key.id.clone() };
        let part = |json: Result<Vec<u8>, serde_json::Error>| {
            json.map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes)).map_err(|e| e.to_string())
        };
        let message = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(self))?);
        let signature = key.sign(message.as_bytes())?;
        Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a text in the form of a token says; nobody has vouched for it.
    pub(crate) fn unverified(token: &str) -> Option<Self> {
        let claims = token.split('.').nth(1).filter(|_| token.len() <= LONGEST)?;
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// The claims of a token that one of our keys signed; whether they hold is another question.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn verify<'k>(token: &str, key: impl FnOnce(&str) -> Option<&'k [u8]>) -> Result<Self, String> {
        let none = || "invalid bearer token".to_owned();
        if token.len() > LONGEST {
            return Err(none());
        }
        let (message, signature) = token.rsplit_once('.').ok_or_else(none)?;
        let (header, claims) = message.split_once('.').ok_or_else(none)?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| none());
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| none())?;
        // The one algorithm: what the token says must not choose (RFC 8725, 3.1).
        if header.alg != "ES256" {
            return Err(none());
        }
        let key = key(&header.kid).ok_or_else(none)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
        key.verify(message.as_bytes(), &decode(signature)?).map_err(|_| none())?;
        serde_json::from_slice(&decode(claims)?).map_err(|_| none())
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Keys;
    use super::*;

    fn claims() -> Claims {
        let named = |name: &str| Named { name: name.into(), uid: "u".into() };
        Claims {
            aud: vec!["a".into()],
            exp: Some(2),
            iat: 1,
            iss: "i".into(),
            jti: "j".into(),
            nbf: 1,
            sub: "system:serviceaccount:n:s".into(),
            kubernetes: Kubernetes {
                namespace: "n".into(),
                node: None,
                pod: Some(named("p")),
                secret: None,
                service_account: named("s"),
            },
        }
    }

    #[test]
    fn tokens_verify_and_altered_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let keys =
            Keys::open(&dir.path().join("k"), chrono::DateTime::from_timestamp(1_790_000_000, 0).unwrap()).unwrap();
        let token = claims().sign(keys.signing()).unwrap();
        let verify = |token: &str| Claims::verify(token, |id| keys.verifying(id));
        assert_eq!(verify(&token), Ok(claims()));
        let parts: Vec<&str> = token.split('.').collect();
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let none = encode(&format!("{{\"alg\":\"none\",\"kid\":\"{}\"}}", keys.signing().id));
        let hmac = encode(&format!("{{\"alg\":\"HS256\",\"kid\":\"{}\"}}", keys.signing().id));
        let other = encode("{\"alg\":\"ES256\",\"kid\":\"x\"}");
        let wider = encode(&serde_json::to_string(&Claims { exp: Some(i64::MAX), ..claims() }).unwrap());
        for bad in [
            String::new(),
            "..".into(),
            "a.b.c".into(),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{none}.{}.", parts[1]),
            format!("{hmac}.{}.{}", parts[1], parts[2]),
            format!("{other}.{}.{}", parts[1], parts[2]),
            format!("{}.{wider}.{}", parts[0], parts[2]),
            format!("{token}="),
            format!("{token}.x"),
            format!("{}.{}.{}", parts[0], parts[1], encode(&"x".repeat(64))),
        ] {
            assert!(verify(&bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", header in "\\PC{0,20}", rest in "[A-Za-z0-9_.-]{0,60}") {
            drop(Claims::verify(&text, |_| None));
            let token = format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(header));
            drop(Claims::verify(&token, |_| None));
        }
    }
}
