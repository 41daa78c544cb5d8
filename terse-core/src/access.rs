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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::fakes::FakeEntropy;

    const NOON: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn request() -> KeyRequest {
        KeyRequest { name: "ci".to_owned(), role: Role::Writer, owner: None, expires_at: None }
    }

    fn issue(request: KeyRequest, seed: u64) -> (ApiKey, KeyText) {
        ApiKey::issue(request, NOON, &FakeEntropy::seeded(seed))
    }

    fn parse(text: &str) -> PresentedKey {
        PresentedKey::parse(text).unwrap()
    }

    #[test]
    fn an_issued_key_is_admitted_and_holds_no_secret() {
        let (key, text) = issue(request(), 1);
        let presented = parse(text.reveal());
        assert!(key.admits(&presented, NOON));
        assert_eq!(presented.id(), &key.id);
        assert_eq!(key.owner.as_str(), key.id.as_str(), "by default a key is its own owner");
        assert_eq!((key.name.as_str(), key.role, key.created_at), ("ci", Role::Writer, NOON));
        assert_eq!((key.expires_at, key.revoked_at), (None, None));

        let secret = &text.reveal()["trs_0123456789_".len()..][..SECRET_LEN];
        assert_ne!(key.secret_hash, [0; 32]);
        for shown in [format!("{key:?}"), format!("{text:?}"), format!("{presented:?}")] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn a_key_has_the_documented_form() {
        let (key, text) = issue(request(), 2);
        let rest = text.reveal().strip_prefix("trs_").unwrap();
        let (id, rest) = rest.split_once('_').unwrap();
        assert_eq!((id, id.len(), rest.len()), (key.id.as_str(), 10, 38));
        assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric()));
    }

    #[test]
    fn a_key_can_work_on_another_owners_links() {
        let owner = Owner::parse("team").unwrap();
        let (key, _) = issue(KeyRequest { owner: Some(owner.clone()), ..request() }, 3);
        assert_eq!(key.owner, owner);
    }

    #[test]
    fn the_secret_of_another_key_is_not_admitted() {
        let (key, text) = issue(request(), 4);
        let (other, other_text) = issue(request(), 5);
        assert!(!key.admits(&parse(other_text.reveal()), NOON));
        assert!(!other.admits(&parse(text.reveal()), NOON));

        // The right id with a wrong secret, its checksum right.
        let body = format!("trs_{}_{}", key.id, "0".repeat(SECRET_LEN));
        let forged = parse(&format!("{body}{}", checksum(&body)));
        assert!(!key.admits(&forged, NOON));
        // The right secret under a wrong id.
        let renamed = ApiKey { id: other.id, ..key };
        assert!(!renamed.admits(&parse(text.reveal()), NOON));
    }

    #[test]
    fn a_key_ends_at_its_expiry() {
        let at = NOON.plus_millis(1_000);
        let (key, text) = issue(KeyRequest { expires_at: Some(at), ..request() }, 6);
        let presented = parse(text.reveal());
        assert!(key.admits(&presented, NOON.plus_millis(999)));
        assert!(!key.admits(&presented, at));
        assert!(!key.admits(&presented, at.plus_millis(1)));
    }

    #[test]
    fn a_revoked_key_is_refused_whatever_the_clock_says() {
        let (key, text) = issue(request(), 7);
        let revoked = ApiKey { revoked_at: Some(NOON.plus_millis(60_000)), ..key };
        assert!(!revoked.admits(&parse(text.reveal()), NOON));
    }

    #[test]
    fn a_mistyped_key_is_told_from_a_malformed_one() {
        let (_, text) = issue(request(), 8);
        let text = text.reveal();
        for at in (4..text.len()).filter(|at| text.as_bytes()[*at] != b'_') {
            let mut letters = text.as_bytes().to_vec();
            letters[at] = if letters[at] == b'x' { b'y' } else { b'x' };
            let error = PresentedKey::parse(std::str::from_utf8(&letters).unwrap()).unwrap_err();
            assert!(error.to_string().contains("checksum"), "{error} at {at}");
        }
        let malformed = [
            "",
            "trs_",
            "trs__",
            "trs_abc_def",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &format!(" {text}"),
            &text.replacen("trs_", "trs-", 1),
            &text.replacen("trs_", "TRS_", 1),
            &text.replacen("trs_", "", 1),
            &format!("{}_{}", &text[..14], "é".repeat(19)),
            &format!("trs_0123_56789_{}", &text[15..]),
        ];
        for text in malformed {
            let error = PresentedKey::parse(text).unwrap_err();
            assert!(error.to_string().contains("form"), "{text:?}: {error}");
        }
    }

    /// Frozen: keys that users hold must stay valid.
    #[test]
    fn checksums_are_what_they_always_were() {
        assert_eq!(checksum(""), "000000");
        // CRC-32 of "123456789" is 0xCBF43926.
        assert_eq!(checksum("123456789"), "3jZRME");
        let body = "trs_0123456789_0123456789ABCDEFGHIJKLMNOPQRSTUV";
        let key = format!("{body}{}", checksum(body));
        assert_eq!(parse(&key).id().as_str(), "0123456789");
        assert_eq!(key, "trs_0123456789_0123456789ABCDEFGHIJKLMNOPQRSTUV0sIHb4");
    }

    #[test]
    fn letters_of_secrets_are_equally_likely() {
        const LETTERS: usize = 62_000;
        let text = random_base62(&FakeEntropy::seeded(9), LETTERS);
        assert_eq!(text.len(), LETTERS);
        for letter in BASE62 {
            let count = text.bytes().filter(|b| b == letter).count();
            assert!((850..1_150).contains(&count), "{count} × {}", *letter as char);
        }
        let ids: HashSet<String> = (0..1_000).map(|seed| issue(request(), seed).1.reveal().to_owned()).collect();
        assert_eq!(ids.len(), 1_000);
    }

    #[test]
    fn roles_are_words_and_back() {
        for (role, word, writes) in
            [(Role::Admin, "admin", true), (Role::Writer, "writer", true), (Role::Reader, "reader", false)]
        {
            assert_eq!((role.as_str(), Role::parse(word), role.may_write()), (word, Some(role), writes));
        }
        assert_eq!(Role::parse("Admin"), None);
        assert_eq!(Role::parse(""), None);
    }

    #[test]
    fn callers_reach_their_own_links_and_admins_all() {
        let owner = |name| Owner::parse(name).unwrap();
        let caller = |role| Caller { owner: owner("ann"), role, key: None };
        for role in [Role::Writer, Role::Reader] {
            assert!(caller(role).may_reach(&owner("ann")));
            assert!(!caller(role).may_reach(&owner("bob")));
        }
        assert!(caller(Role::Admin).may_reach(&owner("bob")));
        assert_eq!(Caller::open().owner, Owner::parse("open").unwrap());
        assert_eq!(Caller::open().role, Role::Admin);
    }

    #[test]
    fn ids_and_owners_are_checked() {
        assert!(KeyId::parse("0123456789").is_ok());
        for text in ["", "012345678", "01234567890", "01234_6789", "012345678é"] {
            assert!(KeyId::parse(text).is_err(), "{text}");
        }
        for text in ["", "a b", "a.b", "é", &"a".repeat(65)] {
            assert!(Owner::parse(text).is_err(), "{text}");
        }
        assert_eq!(Owner::parse("a_B-9").unwrap().as_str(), "a_B-9");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn any_text_is_a_key_or_not_without_panic(text: String) {
            prop_assert!(PresentedKey::parse(&text).is_err());
            let _ = PresentedKey::parse(&format!("trs_{text}"));
        }

        #[test]
        fn key_like_text_is_read_only_with_its_checksum(id in "[0-9A-Za-z]{9,11}", rest in "[0-9A-Za-zé_]{36,40}") {
            let text = format!("trs_{id}_{rest}");
            if PresentedKey::parse(&text).is_ok() {
                prop_assert_eq!(checksum(&text[..text.len() - 6]), &text[text.len() - 6..]);
            }
        }

        #[test]
        fn every_issued_key_is_read_back(seed: u64) {
            let (key, text) = issue(request(), seed);
            prop_assert!(key.admits(&parse(text.reveal()), NOON));
        }
    }
}
