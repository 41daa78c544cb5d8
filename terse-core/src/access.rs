//! Who may do what: API keys, their roles, and the owners of links.
//!
//! A key is `trs_<id>_<secret><checksum>`: 10, 32 and 6 base62 characters. The
//! secret carries 190 random bits, so its SHA-256 is stored as it is (a slow
//! hash protects guessable passwords only). The checksum (CRC-32 of what stands
//! before it) tells a mistyped key from a wrong one without a look-up, and lets
//! secret scanners recognise keys.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{Entropy, Timestamp};

const PREFIX: &str = "trs_";
const ID_LEN: usize = 10;
const SECRET_LEN: usize = 32;
const CHECKSUM_LEN: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a key may do. Each role may do all that the ones after it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Every link, blocking, administration.
    Admin,
    /// Create, and read and change own links.
    Writer,
    /// Read own links.
    Reader,
}

impl Role {
    /// The word for it on the command line and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Writer => "writer",
            Self::Reader => "reader",
        }
    }

    /// The role that `word` stands for, if any.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Admin, Self::Writer, Self::Reader].into_iter().find(|role| role.as_str() == word)
    }

    /// Whether this role may create and change links.
    #[must_use]
    pub const fn may_write(self) -> bool {
        matches!(self, Self::Admin | Self::Writer)
    }
}

/// To whom a link belongs: by default each key is an owner of its own, named by its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(String);

/// The public part of a key: 10 base62 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

/// A text is not what it should be. The text says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AccessError(&'static str);

fn is_base62(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric())
}

impl Owner {
    /// The one owner that all callers are while access is open.
    #[must_use]
    pub fn open() -> Self {
        Self("open".to_owned())
    }

    /// Reads an owner's name: 1 to 64 of `[A-Za-z0-9_-]`.
    ///
    /// # Errors
    /// [`AccessError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, AccessError> {
        if crate::ShortCode::is_valid(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AccessError("an owner is 1 to 64 of A-Z, a-z, 0-9, '_' and '-'"))
        }
    }

    /// The owner's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl KeyId {
    /// Reads a key's id.
    ///
    /// # Errors
    /// [`AccessError`] unless it is 10 base62 characters.
    pub fn parse(text: &str) -> Result<Self, AccessError> {
        if text.len() == ID_LEN && is_base62(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AccessError("a key's id is 10 of A-Z, a-z, 0-9"))
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An API key as it is stored: everything but its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public part.
    pub id: KeyId,
    /// The name that the operator gave it.
    pub name: String,
    /// Whose links it works on.
    pub owner: Owner,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused.
    pub revoked_at: Option<Timestamp>,
}

/// What a new key shall be.
#[derive(Clone, Debug)]
pub struct KeyRequest {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Whose links it works on; `None` = its own.
    pub owner: Option<Owner>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
}

/// A secret text that is never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(String);

impl KeyText {
    /// The whole key. It is shown once, to the operator who made it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(…)")
    }
}

impl ApiKey {
    /// Makes a key: what is stored, and the text that its user gets.
    #[must_use]
    pub fn issue(request: KeyRequest, now: Timestamp, entropy: &dyn Entropy) -> (Self, KeyText) {
        let id = KeyId(random_base62(entropy, ID_LEN));
        let secret = random_base62(entropy, SECRET_LEN);
        let body = format!("{PREFIX}{}_{secret}", id.0);
        let text = KeyText(format!("{body}{}", checksum(&body)));
        let key = Self {
            owner: request.owner.unwrap_or_else(|| Owner(id.0.clone())),
            id,
            name: request.name,
            role: request.role,
            secret_hash: Sha256::digest(secret.as_bytes()).into(),
            created_at: now,
            expires_at: request.expires_at,
            revoked_at: None,
        };
        (key, text)
    }

    /// Whether `presented` has this key's secret (compared in constant time)
    /// and the key is neither expired nor revoked at `now`.
    #[must_use]
    pub fn admits(&self, presented: &PresentedKey, now: Timestamp) -> bool {
        let hash: [u8; 32] = Sha256::digest(presented.secret.as_bytes()).into();
        let same = self.id == presented.id && bool::from(hash.ct_eq(&self.secret_hash));
        same && self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// A key as a client presents it: well-formed, its checksum right, nothing else known.
#[derive(Clone)]
pub struct PresentedKey {
    id: KeyId,
    secret: String,
}

impl PresentedKey {
    /// Reads `trs_<id>_<secret><checksum>`.
    ///
    /// # Errors
    /// [`AccessError`] when the form or the checksum is wrong.
    pub fn parse(text: &str) -> Result<Self, AccessError> {
        const MALFORMED: AccessError = AccessError("is not a key of the form trs_…");
        let (id, rest) = text.strip_prefix(PREFIX).and_then(|t| t.split_once('_')).ok_or(MALFORMED)?;
        if rest.len() != SECRET_LEN + CHECKSUM_LEN || !is_base62(rest) {
            return Err(MALFORMED);
        }
        let id = KeyId::parse(id).map_err(|_| MALFORMED)?;
        let (secret, sum) = rest.split_at(SECRET_LEN);
        if checksum(&text[..text.len() - CHECKSUM_LEN]) != sum {
            return Err(AccessError("has a wrong checksum: it was mistyped or cut"));
        }
        Ok(Self { id, secret: secret.to_owned() })
    }

    /// The public part.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }
}

impl fmt::Debug for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedKey({}, …)", self.id)
    }
}

/// Who is calling, once that is established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whose links these are.
    pub owner: Owner,
    /// What the caller may do.
    pub role: Role,
    /// The key that was presented; `None` while access is open.
    pub key: Option<KeyId>,
}

impl Caller {
    /// The one caller that everybody is while access is open.
    #[must_use]
    pub fn open() -> Self {
        Self { owner: Owner::open(), role: Role::Admin, key: None }
    }

    /// Whether the caller may see and, by its role, change what belongs to `owner`.
    #[must_use]
    pub fn may_reach(&self, owner: &Owner) -> bool {
        self.role == Role::Admin || self.owner == *owner
    }
}

/// Why a presented key gives no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Malformed, unknown, wrong, expired or revoked: 401.
    Unknown,
    /// Keys could not be read from the store for too long: 503.
    Unavailable,
}

/// Tells who presents a key. Answers from memory, on the web worker.
pub trait Authenticator: Send + Sync + 'static {
    /// Whose key `presented` is (the text after `Bearer `).
    ///
    /// # Errors
    /// [`Denied`] when it gives no access.
    fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Caller, Denied>;
}

/// `len` base62 characters, each of the 62 equally likely.
fn random_base62(entropy: &dyn Entropy, len: usize) -> String {
    let mut text = String::with_capacity(len);
    let mut bytes = [0; 64];
    while text.len() < len {
        entropy.fill(&mut bytes);
        // 248 = 4 × 62: bytes above it would favour the first letters.
        let letters = bytes.iter().filter(|b| **b < 248).map(|b| BASE62[(*b % 62) as usize] as char);
        text.extend(letters.take(len - text.len()));
    }
    text
}

fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut letters = [b'0'; CHECKSUM_LEN];
    for letter in letters.iter_mut().rev() {
        *letter = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    letters.iter().map(|b| *b as char).collect()
}
