//! A caller of the API: one address, perhaps a key, a fresh connection for each
//! request, so that a server's restart is none of its business.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{Connection, Request, Response};

/// The collection of links.
pub const API_LINKS: &str = "/api/v1/links";

/// The path of one link in the API.
#[must_use]
pub fn code_path(code: &str) -> String {
    format!("{API_LINKS}/{code}")
}

/// The code of a link as the API tells it.
#[must_use]
#[track_caller]
pub fn code_of(link: &Value) -> String {
    link["code"].as_str().unwrap_or_else(|| panic!("no link: {link}")).to_owned()
}

/// A caller of the API. Every failure to get an answer panics.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    key: Option<String>,
}

impl Client {
    /// A caller without a key.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, key: None }
    }

    /// The same caller with a key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { address: self.address, key: Some(key.to_owned()) }
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection of its own.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address).unwrap_or_else(|e| panic!("no connection to {}: {e}", self.address))
    }

    /// The request with this caller's key.
    #[must_use]
    pub fn signed(&self, request: Request) -> Request {
        match &self.key {
            Some(key) => request.header("Authorization", &format!("Bearer {key}")),
            None => request,
        }
    }

    /// Sends any request.
    #[track_caller]
    pub fn send(&self, request: Request) -> Response {
        let request = self.signed(request).header("Connection", "close");
        self.connect().call(&request).unwrap_or_else(|e| panic!("no answer to {request:?}: {e}"))
    }

    /// Reads a resource.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.send(Request::new("GET", path))
    }

    /// Asks for a resource's headers.
    #[track_caller]
    pub fn head(&self, path: &str) -> Response {
        self.send(Request::new("HEAD", path))
    }

    /// Posts JSON.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send(Request::new("POST", path).json(body))
    }

    /// Changes a link.
    #[track_caller]
    pub fn patch(&self, code: &str, change: &Value) -> Response {
        self.send(Request::new("PATCH", &code_path(code)).json(change))
    }

    /// Deletes a link.
    #[track_caller]
    pub fn delete(&self, code: &str) -> Response {
        self.send(Request::new("DELETE", &code_path(code)))
    }

    /// Creates a link, which must succeed, and returns it.
    #[track_caller]
    pub fn create(&self, body: &Value) -> Value {
        self.post(API_LINKS, body).expect(201).json()
    }

    /// Creates a link with any code and returns that.
    #[track_caller]
    pub fn shorten(&self, url: &str) -> String {
        code_of(&self.create(&serde_json::json!({ "url": url })))
    }

    /// Reads a link, which must be there.
    #[track_caller]
    pub fn link(&self, code: &str) -> Value {
        self.get(&code_path(code)).expect(200).json()
    }

    /// Asks for a redirect.
    #[track_caller]
    pub fn visit(&self, code: &str) -> Response {
        self.get(&format!("/{code}"))
    }

    /// Where a code leads; it must redirect.
    #[track_caller]
    pub fn target(&self, code: &str) -> String {
        let answer = self.visit(code).expect(302);
        answer.header("location").unwrap_or_else(|| panic!("no location in {answer:?}")).to_owned()
    }

    /// All own links, page by page, in the order of the list.
    #[track_caller]
    pub fn all_links(&self, page: usize) -> Vec<Value> {
        let mut links = Vec::new();
        let mut path = format!("{API_LINKS}?limit={page}");
        loop {
            let mut answer = self.get(&path).expect(200).json();
            match answer["items"].take() {
                Value::Array(items) => links.extend(items),
                other => panic!("no items but {other}"),
            }
            match answer["next_cursor"].as_str() {
                Some(cursor) => path = format!("{API_LINKS}?limit={page}&cursor={cursor}"),
                None => return links,
            }
        }
    }
}
