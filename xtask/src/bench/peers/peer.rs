//! Another shortener that runs on this machine: the URL of one of its codes, and its process.
//!
//! What it answers first is what every answer must be: the same status, the same `Location`.

use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};

use super::super::generator::{Connections, Load, Workload, drive};
use super::super::links::unhurried;
use super::super::redirect::contenders::Contender;
use super::super::redirect::{ALL, Who};
use super::super::wire::{Answer, Get};
use crate::load::address_of;

/// Letters of a name at most: it stands in tables and beside bars.
const NAME_LETTERS: usize = 24;

/// Another shortener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called.
    pub name: String,
    /// The URL of one of its codes.
    pub url: String,
    /// Its process; whatever that has started belongs to it.
    pub pid: u32,
    address: SocketAddr,
}

impl FromStr for Peer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.rsplit_once(',')?)));
        let (name, (url, pid)) = parts.context("not NAME=URL,PID")?;
        let fits = |letter: char| letter.is_ascii_alphanumeric() || " .-_".contains(letter);
        ensure!((1..=NAME_LETTERS).contains(&name.len()), "a name has 1 to {NAME_LETTERS} letters");
        ensure!(name.chars().all(fits) && name.trim() == name, "a name has letters, digits, '.', '-' and '_'");
        ensure!(ALL.iter().all(|who| who.name() != name), "{name} is measured anyway: call it otherwise");
        let peer = Self {
            name: name.to_owned(),
            url: url.to_owned(),
            pid: pid.parse().with_context(|| format!("'{pid}' is no process id"))?,
            address: address_of(url)?,
        };
        // A benchmark loads this machine and no other; the process is on this one.
        ensure!(peer.address.ip().is_loopback(), "{url}: only what listens on loopback is measured");
        ensure!(!peer.place().1.is_empty(), "{url}: not the URL of a code");
        Ok(peer)
    }
}

impl Peer {
    /// The URL's host with its port, and what stands behind the slash.
    fn place(&self) -> (&str, &str) {
        let rest = self.url.strip_prefix("http://").unwrap_or(&self.url);
        rest.split_once('/').unwrap_or((rest, ""))
    }

    fn asked(&self, closes: bool, expected: Option<Moved>) -> Asked {
        let (host, path) = self.place();
        Asked { get: Get::to(host, closes), path: path.to_owned(), expected, once: false, over: false }
    }

    /// What it answers.
    ///
    /// # Errors
    /// When it doesn't redirect, or not in a way that can be measured.
    pub fn first_answer(&self) -> Result<Moved> {
        let mut asked = Asked { once: true, ..self.asked(false, None) };
        let load = Load { kind: Connections::Offered, ..unhurried(1) };
        drive(self.address, &load, &mut asked, &mut || Ok(())).with_context(|| self.url.clone())?;
        asked.expected.with_context(|| format!("{} was not answered", self.url))
    }

    /// Over connections that are kept for as long as it likes, under its name; each answer must be `expected`.
    #[must_use]
    pub fn kept(&self, expected: &Moved) -> Contender {
        self.contender(&self.name, self.asked(false, Some(expected.clone()))).beside_constants(|who| who.kept().into())
    }

    /// With a connection for each request.
    #[must_use]
    pub fn churn(&self, expected: &Moved) -> Contender {
        let contender = self.contender(&churn(&self.name), self.asked(true, Some(expected.clone())));
        contender.churning().beside_constants(Who::churn)
    }

    /// At a fixed rate.
    #[must_use]
    pub fn even(&self, expected: &Moved) -> Contender {
        self.contender(&even(&self.name), self.asked(false, Some(expected.clone()))).beside_constants(Who::half)
    }

    fn contender(&self, name: &str, asked: Asked) -> Contender {
        Contender::new(name, (self.pid, self.address), asked).offering()
    }
}

/// The series of a peer with a connection for each request.
#[must_use]
pub fn churn(name: &str) -> String {
    format!("{name}, churn")
}

/// The series of a peer at a fixed rate.
#[must_use]
pub fn even(name: &str) -> String {
    format!("{name}, half of peak")
}

/// A redirect: its status and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The status.
    pub status: u16,
    /// The `Location` header.
    pub location: String,
}

impl Moved {
    fn of(answer: &Answer<'_>) -> Result<Self> {
        let location = answer.location.map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) || location.is_empty() {
            bail!("{} to '{location}' is no redirect", answer.status);
        }
        Ok(Self { status: answer.status, location })
    }
}

/// Asks for one code, and expects the same answer each time.
struct Asked {
    get: Get,
    path: String,
    /// `None` = whatever is answered first.
    expected: Option<Moved>,
    once: bool,
    over: bool,
}

impl Workload for Asked {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        if self.over {
            return None;
        }
        self.over = self.once;
        self.get.write(self.path.as_bytes(), out);
        Some(0)
    }

    fn check(&mut self, _: u64, answer: &Answer<'_>) -> Result<()> {
        match &self.expected {
            // No copy is made of what is right.
            Some(right) if right.status == answer.status && answer.location == Some(right.location.as_bytes()) => {}
            Some(right) => {
                let location = answer.location.map(String::from_utf8_lossy);
                bail!("/{} was answered {} {location:?} instead of {right:?}", self.path, answer.status);
            }
            None => self.expected = Some(Moved::of(answer)?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::super::super::wire::parse;
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", text.parse::<Peer>().unwrap_err())
    }

    /// A server that answers with `head`; returns the URL of a code, and gets the first request.
    fn serve(head: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://localhost:{}/go/abc", listener.local_addr().unwrap().port());
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4_096];
            let read = stream.read(&mut buffer).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            // Whoever asks is the one who ends the connection.
            assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        (url, served)
    }

    #[test]
    fn a_peer_is_a_name_a_url_of_a_code_and_a_process() {
        let peer: Peer = "my one=http://127.0.0.1:8081/a,b=c,4242".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.pid), ("my one", 4_242));
        assert_eq!((peer.url.as_str(), peer.place()), ("http://127.0.0.1:8081/a,b=c", ("127.0.0.1:8081", "a,b=c")));
        assert_eq!(peer.address, "127.0.0.1:8081".parse().unwrap());
    }

    #[test]
    fn what_is_no_peer_is_refused_and_so_is_another_machine() {
        assert!(error("x").contains("not NAME=URL,PID") && error("x=http://127.0.0.1:1/a").contains("NAME=URL,PID"));
        assert!(error("=http://127.0.0.1:1/a,1").contains("1 to 24 letters"));
        assert!(error("a|b=http://127.0.0.1:1/a,1").contains("letters, digits"));
        assert!(error("terse=http://127.0.0.1:1/a,1").contains("is measured anyway"));
        assert!(error("x=http://127.0.0.1:1/a,one").contains("'one' is no process id"));
        assert!(error("x=https://127.0.0.1:1/a,1").contains("only http://"));
        assert!(error("x=http://192.0.2.1:1/a,1").contains("only what listens on loopback"));
        assert!(error("x=http://127.0.0.1:1/,1").contains("not the URL of a code"));
    }

    #[test]
    fn the_first_answer_is_what_is_expected_and_the_peer_is_asked_by_its_own_name() {
        let (url, served) = serve("HTTP/1.1 307 X\r\nlocation: https://a.example/\r\ncontent-length: 0\r\n\r\n");
        let peer: Peer = format!("x={url},1").parse().unwrap();
        let moved = peer.first_answer().unwrap();
        assert_eq!(moved, Moved { status: 307, location: "https://a.example/".into() });
        let asked = served.join().unwrap();
        assert!(asked.starts_with("GET /go/abc HTTP/1.1\r\n") && asked.contains("Host: localhost:"), "{asked}");
    }

    #[test]
    fn a_page_or_an_error_is_no_redirect() {
        for head in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "HTTP/1.1 302 X\r\ncontent-length: 0\r\n\r\n"] {
            let (url, _) = serve(head);
            let error = format!("x={url},1").parse::<Peer>().unwrap().first_answer().unwrap_err();
            assert!(format!("{error:#}").contains("is no redirect"), "{error:#}");
        }
    }

    #[test]
    fn another_status_or_target_than_the_first_ends_the_measurement() {
        let peer: Peer = "x=http://127.0.0.1:1/abc,1".parse().unwrap();
        let check = |status: u16, target: &str| {
            let right = Moved { status: 302, location: "https://a.example/".into() };
            let bytes = format!("HTTP/1.1 {status} X\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n");
            peer.asked(false, Some(right)).check(0, &parse(bytes.as_bytes()).unwrap().unwrap())
        };
        assert!(check(302, "https://a.example/").is_ok());
        let error = check(302, "https://b.example/").unwrap_err().to_string();
        assert!(error.starts_with("/abc was answered 302 Some(\"https://b.example/\") instead of"), "{error}");
        assert!(check(200, "https://a.example/").is_err() && check(301, "https://a.example/").is_err());
    }
}
