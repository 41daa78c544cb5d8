//! The country of a network, out of an mmdb file that the operator may give.
//!
//! Files of MaxMind's make (`country.iso_code`) and of the free ones (`country_code`) are read. The file is read into
//! memory as a whole: a mapping would need `unsafe`, and a file that is replaced under it kills the process.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use maxminddb::{LookupResult, MaxMindDbError, PathElement, Reader, WithinOptions};
use parking_lot::Mutex;

/// Most bytes of a file of countries; a larger one is refused. The largest that are known have some 100 MiB.
pub const MAX_COUNTRY_FILE_BYTES: u64 = 512 << 20;

/// Most networks that a node of the tree leads to, and some more.
const NETWORKS_PER_NODE: usize = 3;

/// Networks whose country is remembered: 128 KiB.
const MAX_CACHED_NETWORKS: usize = 1 << 12;

/// Where each network is. Shared by whoever tells clicks apart.
pub struct Countries {
    reader: Reader<Vec<u8>>,
    checksum: u32,
}

/// The countries that hold now, for those who tell clicks apart while the file is replaced.
#[derive(Default)]
pub struct CurrentCountries {
    data: Mutex<Option<Arc<Countries>>>,
    /// How often they were replaced.
    replaced: AtomicU64,
}

impl CurrentCountries {
    /// These, until they are replaced.
    #[must_use]
    pub fn new(countries: Arc<Countries>) -> Self {
        Self { data: Mutex::new(Some(countries)), replaced: AtomicU64::new(0) }
    }

    /// From now on `countries` hold: whoever tells clicks apart takes them with the next block.
    pub fn replace(&self, countries: Arc<Countries>) {
        *self.data.lock() = Some(countries);
        self.replaced.fetch_add(1, Ordering::Release);
    }

    /// Those that hold; how often they had been replaced by then, or once less.
    pub(super) fn get(&self) -> (Option<Arc<Countries>>, u64) {
        let replaced = self.replaced();
        (self.data.lock().clone(), replaced)
    }

    pub(super) fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }
}

/// Why a file has no countries.
#[derive(Debug, thiserror::Error)]
pub enum CountryError {
    /// It can't be read.
    #[error("can't read it: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It has more than [`MAX_COUNTRY_FILE_BYTES`].
    #[error("it has more than {MAX_COUNTRY_FILE_BYTES} bytes")]
    TooLarge,
    /// It is no mmdb file, or a damaged one.
    #[error("it is no mmdb file, or a damaged one: {0}")]
    Damaged(String),
    /// It is an mmdb file of something else.
    #[error("it tells the country of no network")]
    NoCountries,
}

impl Countries {
    /// Reads the file at `path`, and looks at each of its networks, which takes up to some seconds. To take a file that was
    /// replaced, load it again and hand it to [`CurrentCountries::replace`].
    ///
    /// # Errors
    /// [`CountryError`].
    pub fn load(path: &Path) -> Result<Self, CountryError> {
        let mut bytes = Vec::new();
        let most = MAX_COUNTRY_FILE_BYTES + 1;
        if File::open(path)?.take(most).read_to_end(&mut bytes)? as u64 == most {
            return Err(CountryError::TooLarge);
        }
        Self::read(bytes)
    }

    fn read(bytes: Vec<u8>) -> Result<Self, CountryError> {
        let checksum = crc32fast::hash(&bytes);
        let damaged = |error: MaxMindDbError| CountryError::Damaged(error.to_string());
        let reader = Reader::from_source(bytes).map_err(damaged)?;
        // The reader's own check refuses files without a description, as the free ones are. Networks without data are
        // counted too, so that a damaged tree, which may lead in a circle, ends at the bound.
        let most = reader.metadata().node_count as usize * NETWORKS_PER_NODE;
        let mut countries = 0_u64;
        let all = reader.networks(WithinOptions::default().include_networks_without_data()).map_err(damaged)?;
        for (number, network) in all.enumerate() {
            if number > most {
                return Err(CountryError::Damaged("its tree has more networks than it could".into()));
            }
            let code = network.and_then(|network| code_of(&network)).map_err(damaged)?;
            countries += u64::from(code.and_then(letters).is_some());
        }
        if countries == 0 {
            return Err(CountryError::NoCountries);
        }
        Ok(Self { reader, checksum })
    }

    /// A number of `bits` bits, never 0, that tells these data from most others.
    pub(super) fn fingerprint(&self, bits: u32) -> u16 {
        (self.checksum % ((1 << bits) - 1) + 1) as u16
    }

    /// The two letters of the country of `address`; `None` = the file doesn't say.
    fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        if address.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return None;
        }
        // Each network was looked at when the file was loaded: there is nothing left that could fail.
        let found = self.reader.lookup(address).ok()?;
        code_of(&found).ok().flatten().and_then(letters)
    }
}

fn code_of<'d>(found: &LookupResult<'d, Vec<u8>>) -> Result<Option<&'d str>, MaxMindDbError> {
    let nested = found.decode_path(&[PathElement::Key("country"), PathElement::Key("iso_code")])?;
    if nested.is_some() { Ok(nested) } else { found.decode_path(&[PathElement::Key("country_code")]) }
}

/// `code` as two capital letters, if that is what it is.
fn letters(code: &str) -> Option<[u8; 2]> {
    let letters: [u8; 2] = code.as_bytes().try_into().ok()?;
    letters.iter().all(u8::is_ascii_alphabetic).then(|| letters.map(|b| b.to_ascii_uppercase()))
}

/// The countries of networks that were asked for lately. Each network has one place; whoever comes next takes it.
pub(super) struct CountryCache {
    places: Vec<Option<(IpAddr, Option<[u8; 2]>)>>,
}

impl CountryCache {
    pub(super) fn new() -> Self {
        Self { places: vec![None; MAX_CACHED_NETWORKS] }
    }

    /// The country of `network` according to `countries`, which are the same at each call.
    pub(super) fn country(&mut self, network: IpAddr, countries: &Countries) -> Option<[u8; 2]> {
        let place = &mut self.places[place_of(network)];
        match place {
            Some((known, country)) if *known == network => *country,
            _ => place.insert((network, countries.country(network))).1,
        }
    }
}

fn place_of(network: IpAddr) -> usize {
    let bits = match network {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    };
    // Fibonacci hashing: the highest bits of the product are the best mixed.
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - MAX_CACHED_NETWORKS.ilog2())) as usize
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes an mmdb file (format 2.0, records of 24 bits) of (network, bits of its prefix, country). A network of
    /// IPv4 lies at `::/96`, as usual.
    pub(in crate::enrich) fn mmdb(networks: &[(&str, u32, &str)], flat: bool) -> Vec<u8> {
        let mut nodes: Vec<[u32; 2]> = vec![[0; 2]];
        let mut data = Vec::new();
        let mut leaves = Vec::new();
        for (network, prefix, code) in networks {
            let (bits, prefix) = match network.parse::<IpAddr>().unwrap() {
                IpAddr::V4(address) => (u128::from(address.to_bits()), prefix + 96),
                IpAddr::V6(address) => (address.to_bits(), *prefix),
            };
            let side = |depth: u32| (bits >> (127 - depth) & 1) as usize;
            let mut node = 0;
            for depth in 0..prefix - 1 {
                if nodes[node][side(depth)] == 0 {
                    nodes[node][side(depth)] = nodes.len() as u32;
                    nodes.push([0; 2]);
                }
                node = nodes[node][side(depth)] as usize;
            }
            leaves.push((node, side(prefix - 1), data.len() as u32));
            let country = if flat { map(&[("country_code", text(code))]) } else { map(&[("iso_code", text(code))]) };
            data.extend(if flat { country } else { map(&[("country", country)]) });
        }
        let count = nodes.len() as u32;
        nodes.iter_mut().flatten().filter(|record| **record == 0).for_each(|record| *record = count);
        for (node, side, offset) in leaves {
            nodes[node][side] = count + 16 + offset;
        }
        let tree = nodes.iter().flatten().flat_map(|record| record.to_be_bytes()[1..].to_vec());
        let metadata = map(&[
            ("binary_format_major_version", number(5, 2)),
            ("binary_format_minor_version", number(5, 0)),
            ("build_epoch", number(9, 1_700_000_000)),
            ("database_type", text("Test-Country")),
            ("description", map(&[])),
            ("ip_version", number(5, 6)),
            ("languages", vec![0, 4]),
            ("node_count", number(6, count)),
            ("record_size", number(5, 24)),
        ]);
        let marker = b"\xab\xcd\xefMaxMind.com".iter().copied();
        tree.chain([0; 16]).chain(data).chain(marker).chain(metadata).collect()
    }

    fn text(text: &str) -> Vec<u8> {
        [&[2 << 5 | text.len() as u8], text.as_bytes()].concat()
    }

    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let entries_bytes = entries.iter().map(|(key, value)| [text(key), value.clone()].concat());
        [vec![7 << 5 | entries.len() as u8], entries_bytes.collect::<Vec<_>>().concat()].concat()
    }

    /// A number of type `kind`: 5 and 6 are unsigned of 16 and 32 bits, 9 of 64.
    fn number(kind: u8, number: u32) -> Vec<u8> {
        let bytes = number.to_be_bytes();
        let bytes = &bytes[number.leading_zeros() as usize / 8..];
        let len = bytes.len() as u8;
        let control = if kind < 8 { vec![kind << 5 | len] } else { vec![len, kind - 7] };
        [&control[..], bytes].concat()
    }

    const NETWORKS: [(&str, u32, &str); 5] = [
        ("192.0.2.0", 24, "DE"),
        ("198.51.100.0", 25, "fr"),
        ("203.0.113.0", 24, "=1+1"),
        ("2001:db8::", 48, "JP"),
        ("10.0.0.0", 8, "1!"),
    ];

    fn countries(flat: bool) -> Countries {
        Countries::read(mmdb(&NETWORKS, flat)).unwrap()
    }

    #[test]
    fn networks_have_the_country_of_the_file() {
        for flat in [false, true] {
            let (countries, mut cache) = (countries(flat), CountryCache::new());
            for (address, country) in [
                ("192.0.2.0", Some(*b"DE")),
                ("198.51.100.0", Some(*b"FR")),
                ("198.51.100.128", None),
                ("203.0.113.0", None),
                ("10.7.0.0", None),
                ("8.8.8.0", None),
                ("2001:db8::", Some(*b"JP")),
                ("2001:db8:1::", None),
            ] {
                let address = address.parse().unwrap();
                assert_eq!(countries.country(address), country, "{address}");
                assert_eq!(cache.country(address, &countries), country, "{address}");
                assert_eq!(cache.country(address, &countries), country, "{address}, remembered");
            }
        }
    }

    #[test]
    fn networks_that_share_a_place_are_told_apart() {
        let (countries, mut cache) = (countries(true), CountryCache::new());
        for third in 0..=255_u8 {
            for second in 0..64_u8 {
                let network = IpAddr::from([192, second, third, 0]);
                let expected = (second == 0 && third == 2).then_some(*b"DE");
                assert_eq!(cache.country(network, &countries), expected);
            }
        }
        assert_eq!(cache.places.len(), MAX_CACHED_NETWORKS);
    }

    #[test]
    fn a_file_is_loaded_and_its_faults_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("country.mmdb");
        assert!(matches!(Countries::load(&path), Err(CountryError::Unreadable(_))));
        std::fs::write(&path, b"no such file").unwrap();
        assert!(matches!(Countries::load(&path), Err(CountryError::Damaged(_))));
        std::fs::write(&path, mmdb(&NETWORKS, true)).unwrap();
        assert_eq!(Countries::load(&path).unwrap().country("192.0.2.7".parse().unwrap()), Some(*b"DE"));
        std::fs::write(&path, mmdb(&NETWORKS[2..3], true)).unwrap();
        assert!(matches!(Countries::load(&path), Err(CountryError::NoCountries)));
        let huge = File::create(&path).unwrap();
        huge.set_len(MAX_COUNTRY_FILE_BYTES + 1).unwrap();
        assert!(matches!(Countries::load(&path), Err(CountryError::TooLarge)));
    }

    #[test]
    fn a_damaged_file_is_refused_or_tells_something_bounded() {
        let whole = mmdb(&NETWORKS, false);
        let addresses: Vec<IpAddr> = NETWORKS.iter().map(|(network, ..)| network.parse().unwrap()).collect();
        for place in 0..whole.len() {
            for change in [0x01, 0x20, 0xff] {
                let mut bytes = whole.clone();
                bytes[place] ^= change;
                if let Ok(countries) = Countries::read(bytes) {
                    assert!(
                        addresses.iter().filter_map(|address| countries.country(*address)).count() <= addresses.len()
                    );
                }
            }
            assert!(Countries::read(whole[..place].to_vec()).is_err(), "cut to {place} bytes");
        }
    }

    #[test]
    fn other_data_have_another_fingerprint() {
        let one = Countries::read(mmdb(&NETWORKS, true)).unwrap();
        let other = Countries::read(mmdb(&NETWORKS[1..], true)).unwrap();
        assert_ne!(one.fingerprint(10), other.fingerprint(10));
        assert!((1..1_024).contains(&one.fingerprint(10)));
    }
}
