//! ed25519 (RFC 8032): keys as one line of base64, signatures of 64 bytes.

use crate::{Result, ZarError, invalid};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// What is signed begins so, that the signature of a manifest is of use for nothing else.
const DOMAIN: &[u8] = b"zar 1 manifest\n";
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Signs.
pub struct SigningKey(Ed25519KeyPair);

/// Tells whether a signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl SigningKey {
    /// A new key's seed as one line of base64: to be kept secret.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn generate() -> Result<String> {
        let mut seed = [0; 32];
        let random = SystemRandom::new().fill(&mut seed);
        random.map_err(|_| ZarError::Invalid("the system gives no random bytes".into()))?;
        Ok(STANDARD.encode(seed))
    }

    /// From its line.
    ///
    /// # Errors
    /// It is none; its content is not shown.
    pub fn parse(line: &str) -> Result<Self> {
        let seed = STANDARD.decode(line.trim()).unwrap_or_default();
        match Ed25519KeyPair::from_seed_unchecked(&seed) {
            Ok(pair) => Ok(Self(pair)),
            Err(_) => invalid("it is no ed25519 key: one line of base64 of 32 bytes"),
        }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(self.0.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        PublicKey(bytes)
    }

    /// Signs a manifest's bytes.
    pub fn sign(&self, manifest: &[u8]) -> Vec<u8> {
        self.0.sign(&[DOMAIN, manifest].concat()).as_ref().to_vec()
    }
}

impl PublicKey {
    /// From its line of base64.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(line: &str) -> Result<Self> {
        match STANDARD.decode(line.trim()).ok().and_then(|b| <[u8; 32]>::try_from(b).ok()) {
            Some(bytes) => Ok(Self(bytes)),
            None => invalid(format!("{:?} is no ed25519 public key: one line of base64 of 32 bytes", line.trim())),
        }
    }

    /// Its line.
    pub fn text(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Whether the signature is this key's, of this manifest.
    pub fn verifies(&self, manifest: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&[DOMAIN, manifest].concat(), signature).is_ok()
    }
}
