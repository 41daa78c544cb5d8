//! Addresses of outside services: `scheme://[user:password@]host[:port],…/path?query`.
//!
//! All of them go through one type whose `Debug` and `Display` leave the
//! user's name and password out, so that no print or log can leak them.

use std::fmt;

use percent_encoding::percent_decode_str;

/// The port of CQL where none is written.
const CQL_PORT: u16 = 9_042;
/// The port of Redis where none is written.
const REDIS_PORT: u16 = 6_379;
/// The port of AMQP where none is written.
const AMQP_PORT: u16 = 5_672;
/// Most hosts in one address.
const MAX_HOSTS: usize = 64;
/// Longest host name, in bytes (RFC 1035).
const MAX_HOST_LEN: usize = 253;
/// Longest keyspace name that Cassandra and ScyllaDB accept.
const MAX_KEYSPACE_LEN: usize = 48;
/// Most replicas that one can ask for.
const MAX_REPLICATION: u8 = 16;

/// A host and, if it was written, its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A name or an address, IPv6 without brackets.
    pub name: String,
    /// The port; `None` = the service's usual one.
    pub port: Option<u16>,
}

/// The address of a service, its credentials hidden from every print.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    scheme: &'static str,
    userinfo: Option<String>,
    hosts: Vec<Host>,
    path: Option<String>,
    query: Option<String>,
}

impl ServiceUrl {
    /// Reads an address with this scheme.
    ///
    /// # Errors
    /// What is wrong, as a sentence part that repeats nothing of `text`.
    pub fn parse(scheme: &'static str, text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        let rest = rest.ok_or_else(|| format!("must begin with {scheme}://"))?;
        if rest.chars().any(|c| c.is_control() || c.is_whitespace() || c == '#') {
            return Err("holds a space, a control character or '#'".to_owned());
        }
        let (userinfo, rest) = match rest.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo.to_owned()), rest),
            None => (None, rest),
        };
        if userinfo.as_deref().is_some_and(|text| text.contains(['/', '?'])) {
            return Err("has '/' or '?' before '@'; write them in a password as %2F and %3F".to_owned());
        }
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let (hosts, path) = match rest.split_once('/') {
            Some((hosts, path)) => (hosts, Some(path.to_owned())),
            None => (rest, None),
        };
        let hosts = hosts.split(',').map(parse_host).collect::<Result<Vec<_>, _>>()?;
        if hosts.len() > MAX_HOSTS {
            return Err(format!("names more than {MAX_HOSTS} hosts"));
        }
        Ok(Self { scheme, userinfo, hosts, path, query })
    }

    /// The hosts, at least one.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// User and password as written. A secret.
    #[must_use]
    pub fn reveal_userinfo(&self) -> Option<&str> {
        self.userinfo.as_deref()
    }

    /// What follows the first `/`, as written.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    fn one_host_without_query(self) -> Result<Self, String> {
        if self.hosts.len() != 1 {
            return Err("names more than one host".to_owned());
        }
        if self.query.is_some() {
            return Err("has a query, which is not known here".to_owned());
        }
        Ok(self)
    }
}

/// Credentials are written as `***`.
impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if self.userinfo.is_some() {
            f.write_str("***@")?;
        }
        for (index, host) in self.hosts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let name = if host.name.contains(':') { format!("[{}]", host.name) } else { host.name.clone() };
            write!(f, "{comma}{name}")?;
            host.port.map_or(Ok(()), |port| write!(f, ":{port}"))?;
        }
        self.path.as_ref().map_or(Ok(()), |path| write!(f, "/{path}"))?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceUrl({self})")
    }
}

/// A keyspace on a CQL cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CqlAddress {
    /// Its contact points, with credentials.
    pub url: ServiceUrl,
    /// The keyspace.
    pub keyspace: String,
    /// Replicas of a keyspace that has to be made; by default the lesser of 3 and the hosts named.
    pub replication: u8,
}

impl CqlAddress {
    /// Reads `cql://host[:port],…/keyspace[?replication=N]`.
    ///
    /// # Errors
    /// What is wrong, without repeating anything of `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = ServiceUrl::parse("cql", text)?;
        let keyspace = url.path().unwrap_or_default().to_owned();
        let sound = keyspace.len() <= MAX_KEYSPACE_LEN
            && keyspace.starts_with(|c: char| c.is_ascii_lowercase())
            && keyspace.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !sound {
            return Err("needs a keyspace after the hosts: a letter, then up to 47 of a-z, 0-9 and '_'".to_owned());
        }
        let replication = match &url.query {
            None => u8::try_from(url.hosts.len().min(3)).unwrap_or(3),
            Some(query) => parse_replication(query)?,
        };
        if url.userinfo.as_deref().is_some_and(|userinfo| decoded_credentials(userinfo).is_none()) {
            return Err("needs user:password before '@', special characters as %XX".to_owned());
        }
        Ok(Self { url, keyspace, replication })
    }

    /// The keyspace on the same nodes whose name ends in `suffix`, cut to the longest that there may be.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> Self {
        let stem = &self.keyspace[..self.keyspace.len().min(MAX_KEYSPACE_LEN - suffix.len())];
        let keyspace = format!("{stem}{suffix}");
        let url = ServiceUrl { path: Some(keyspace.clone()), ..self.url.clone() };
        Self { url, keyspace, replication: self.replication }
    }

    /// The contact points as `host:port`, IPv6 in brackets.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let text = |host: &Host| {
            let port = host.port.unwrap_or(CQL_PORT);
            if host.name.contains(':') { format!("[{}]:{port}", host.name) } else { format!("{}:{port}", host.name) }
        };
        self.url.hosts().iter().map(text).collect()
    }

    /// User and password, decoded. Secrets.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, String)> {
        self.url.reveal_userinfo().and_then(decoded_credentials)
    }
}

/// User and password of `user:password`, percent-decoded.
fn decoded_credentials(userinfo: &str) -> Option<(String, String)> {
    let (user, password) = userinfo.split_once(':')?;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    Some((decoded(user)?, decoded(password)?))
}

/// A database of a Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    /// The server, with credentials.
    pub url: ServiceUrl,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database's number.
    pub db: u16,
}

impl RedisAddress {
    /// Reads `redis://[user:password@]host[:port][/db]`.
    ///
    /// # Errors
    /// What is wrong, without repeating anything of `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = ServiceUrl::parse("redis", text)?.one_host_without_query()?;
        let db = match url.path().unwrap_or_default() {
            "" => 0,
            number => number.parse().map_err(|_| "has something else than a database number after '/'")?,
        };
        if url.userinfo.as_deref().is_some_and(|userinfo| decoded_credentials(userinfo).is_none()) {
            return Err("needs user:password or :password before '@', special characters as %XX".to_owned());
        }
        let Host { name, port } = url.hosts[0].clone();
        Ok(Self { url, host: name, port: port.unwrap_or(REDIS_PORT), db })
    }

    /// User (`None` = the default one) and password, decoded. Secrets.
    #[must_use]
    pub fn credentials(&self) -> Option<(Option<String>, String)> {
        let (user, password) = self.url.reveal_userinfo().and_then(decoded_credentials)?;
        Some((Some(user).filter(|user| !user.is_empty()), password))
    }
}

/// A virtual host of a message broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpAddress {
    /// The broker, with credentials.
    pub url: ServiceUrl,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The virtual host, decoded.
    pub vhost: String,
}

impl AmqpAddress {
    /// Reads `amqp://[user:password@]host[:port][/vhost]`.
    ///
    /// # Errors
    /// What is wrong, without repeating anything of `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = ServiceUrl::parse("amqp", text)?.one_host_without_query()?;
        if url.path().is_some_and(|vhost| vhost.contains('/')) {
            return Err("has '/' in its vhost; write it as %2F".to_owned());
        }
        if url.userinfo.as_deref().is_some_and(|userinfo| decoded_credentials(userinfo).is_none()) {
            return Err("needs user:password before '@', special characters as %XX".to_owned());
        }
        let vhost = match url.path().unwrap_or_default() {
            "" => "/".to_owned(),
            path => percent_decode_str(path).decode_utf8().map_err(|_| "has a vhost that is not UTF-8")?.into_owned(),
        };
        let Host { name, port } = url.hosts[0].clone();
        Ok(Self { url, host: name, port: port.unwrap_or(AMQP_PORT), vhost })
    }

    /// User and password, decoded. Secrets.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, String)> {
        self.url.reveal_userinfo().and_then(decoded_credentials)
    }
}

fn parse_replication(query: &str) -> Result<u8, String> {
    let number = query.strip_prefix("replication=").ok_or("knows only replication=N after '?'")?;
    match number.parse() {
        Ok(replicas @ 1..=MAX_REPLICATION) => Ok(replicas),
        _ => Err(format!("needs a replication of 1 to {MAX_REPLICATION}")),
    }
}

/// Reads `name`, `name:port`, `1.2.3.4:port` or `[::1]:port`.
///
/// # Errors
/// What is wrong, without repeating anything of `text`.
pub fn parse_host(text: &str) -> Result<Host, String> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or("has '[' without ']'")?;
            name.parse::<std::net::Ipv6Addr>().map_err(|_| "has something else than an IPv6 address in brackets")?;
            (name, port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            if name.is_empty() || name.len() > MAX_HOST_LEN || !name.bytes().all(sound) {
                return Err("needs a host name or address (IPv6 in brackets)".to_owned());
            }
            (name, port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return Err("has something else than a port after a host".to_owned()),
        Some(digits) => match digits.parse() {
            Ok(port @ 1u16..) => Some(port),
            _ => return Err("has a port that is not 1 to 65535".to_owned()),
        },
    };
    Ok(Host { name: name.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_given_with_their_port_and_credentials_decoded() {
        let address = CqlAddress::parse("cql://me:s%2F3%40cret@a,b:9043,[::1]/k").unwrap();
        assert_eq!(address.hosts(), ["a:9042", "b:9043", "[::1]:9042"]);
        assert_eq!(address.credentials(), Some(("me".to_owned(), "s/3@cret".to_owned())));
        assert_eq!(CqlAddress::parse("cql://a/k").unwrap().credentials(), None);
        for text in ["cql://me@a/k", "cql://me:%FF@a/k"] {
            assert!(CqlAddress::parse(text).unwrap_err().contains("user:password"), "{text}");
        }
    }

    #[test]
    fn a_cql_address_names_hosts_keyspace_and_replication() {
        let address = CqlAddress::parse("cql://a,b:9043,[::1]:9044,d/terse").unwrap();
        assert_eq!(address.keyspace, "terse");
        assert_eq!(address.replication, 3);
        let ports: Vec<_> = address.url.hosts().iter().map(|h| (h.name.as_str(), h.port)).collect();
        assert_eq!(ports, [("a", None), ("b", Some(9043)), ("::1", Some(9044)), ("d", None)]);
        assert_eq!(CqlAddress::parse("cql://a/terse").unwrap().replication, 1);
        assert_eq!(CqlAddress::parse("cql://a/terse?replication=2").unwrap().replication, 2);
    }

    #[test]
    fn a_faulty_address_is_refused_without_repeating_it() {
        let secret = "s3cret";
        for text in [
            "cql://",
            "cql://s3cret",
            "cql://host/",
            "cql://host/9lives",
            "cql://host/a-b",
            "cql://host/a/b",
            "cql://,host/k",
            "cql://host:0/k",
            "cql://host:99999/k",
            "cql://host:x/k",
            "cql://[::1/k",
            "cql://[zz]/k",
            "cql://::1/k",
            "cql://u:s3cret@/k",
            "cql://u:s3/cret@host/k",
            "cql://host/k?replication=0",
            "cql://host/k?replication=17",
            "cql://host/k?password=s3cret",
            "cql://ho st/k",
            "http://host/k",
        ] {
            let fault = CqlAddress::parse(text).unwrap_err();
            assert!(!fault.contains(secret), "{text}: {fault}");
        }
        for text in [
            "redis://",
            "redis://a,b",
            "redis://a/x",
            "redis://a/1?x=y",
            "redis://a/70000",
            "rediss://a",
            "redis://a@b",
        ] {
            assert!(RedisAddress::parse(text).is_err(), "{text}");
        }
        for text in ["amqp://", "amqp://a,b/v", "amqp://a//", "amqp://a/v?heartbeat=1", "amqps://a/v", "amqp://a@b/"] {
            assert!(AmqpAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_broker_has_its_usual_port_and_host_and_credentials_are_decoded() {
        for (text, vhost) in [("amqp://bus", "/"), ("amqp://bus/", "/"), ("amqp://bus/%2f", "/"), ("amqp://bus/v", "v")]
        {
            let address = AmqpAddress::parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port, address.vhost.as_str()), ("bus", 5_672, vhost), "{text}");
            assert_eq!(address.credentials(), None);
        }
        let full = AmqpAddress::parse("amqp://me:p%40ss@[::1]:7000/a%2Fb").unwrap();
        assert_eq!((full.host.as_str(), full.port, full.vhost.as_str()), ("::1", 7_000, "a/b"));
        assert_eq!(full.credentials(), Some(("me".to_owned(), "p@ss".to_owned())));
    }

    #[test]
    fn a_keyspace_beside_another_is_on_the_same_nodes() {
        let links = CqlAddress::parse("cql://me:pw@a,b:9043/terse?replication=2").unwrap();
        let beside = links.beside("_stats");
        assert_eq!((beside.keyspace.as_str(), beside.replication), ("terse_stats", 2));
        assert_eq!((beside.hosts(), beside.credentials()), (links.hosts(), links.credentials()));
        assert_eq!(beside.url.to_string(), "cql://***@a,b:9043/terse_stats?replication=2");
        let long = CqlAddress::parse(&format!("cql://a/{}", "k".repeat(MAX_KEYSPACE_LEN))).unwrap();
        assert_eq!(long.beside("_stats").keyspace.len(), MAX_KEYSPACE_LEN);
    }

    #[test]
    fn a_redis_server_has_its_usual_port_and_credentials_are_decoded() {
        let plain = RedisAddress::parse("redis://cache").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.db), ("cache", 6_379, 0));
        assert_eq!(plain.credentials(), None);
        let full = RedisAddress::parse("redis://me:p%40ss@[::1]:7000/2").unwrap();
        assert_eq!((full.host.as_str(), full.port, full.db), ("::1", 7_000, 2));
        assert_eq!(full.credentials(), Some((Some("me".to_owned()), "p@ss".to_owned())));
        let password_alone = RedisAddress::parse("redis://:word@cache/").unwrap();
        assert_eq!(password_alone.credentials(), Some((None, "word".to_owned())));
    }

    #[test]
    fn credentials_never_appear_in_a_print() {
        let urls = [
            RedisAddress::parse("redis://:s3cret@cache:6379/1").unwrap().url,
            AmqpAddress::parse("amqp://me:s3cret@bus/%2f").unwrap().url,
            CqlAddress::parse("cql://me:s3@cret@a,b/k?replication=2").unwrap().url,
        ];
        let printed: Vec<String> = urls.iter().map(|url| format!("{url} {url:?}")).collect();
        assert!(printed.iter().all(|text| !text.contains("cret") && !text.contains("me:")), "{printed:?}");
        assert_eq!(urls[0].to_string(), "redis://***@cache:6379/1");
        assert_eq!(urls[0].reveal_userinfo(), Some(":s3cret"));
        assert_eq!(urls[2].to_string(), "cql://***@a,b/k?replication=2");
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_neither_a_panic_nor_a_leak(text in ".{0,60}", password in "[a-z@:/?#]{0,12}QQQ") {
            let urls = [
                text.clone(),
                format!("redis://u:{password}@{text}"),
                format!("amqp://u:{password}@{text}"),
                format!("cql://u:{password}@{text}/k"),
            ];
            for url in urls {
                let told = [
                    RedisAddress::parse(&url).map_or_else(|fault| fault, |address| format!("{address:?}")),
                    AmqpAddress::parse(&url).map_or_else(|fault| fault, |address| format!("{address:?}")),
                    CqlAddress::parse(&url).map_or_else(|fault| fault, |address| format!("{address:?}")),
                ];
                prop_assert!(told.iter().all(|text| !text.contains("QQQ")), "{url}: {told:?}");
            }
        }

        #[test]
        fn hosts_come_back_as_they_were_written(name in "[a-z][a-z0-9.-]{0,20}", port in 1u16..) {
            let address = RedisAddress::parse(&format!("redis://{name}:{port}/3")).unwrap();
            prop_assert_eq!(address.url.hosts(), [Host { name: name.clone(), port: Some(port) }]);
            prop_assert_eq!(address.url.to_string(), format!("redis://{name}:{port}/3"));
            prop_assert_eq!((address.host, address.port, address.db), (name, port, 3));
        }
    }
}
