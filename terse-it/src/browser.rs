//! Headless Chromium over its debugging protocol: viewport, colour scheme,
//! pictures and questions to the page. The protocol is JSON over one WebSocket,
//! of which this file speaks as much as it needs (RFC 6455: masked text out,
//! text in, no extensions).
//!
//! Bounds: [`FRAME_BYTES`] per message, [`ANSWER_LIMIT`](crate::ANSWER_LIMIT) per answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{ANSWER_LIMIT, await_some};

/// Most bytes of a message; a picture of a page is below 2 MB.
const FRAME_BYTES: usize = 32 * 1024 * 1024;
/// How long the browser may take to start.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How many messages may come before the awaited one.
const MESSAGES: usize = 10_000;
/// How far down a picture of a whole page reaches, in pixels.
const PICTURE_PX: f64 = 16_000.0;
/// How many errors of a page are kept.
const ERRORS: usize = 100;
/// The event that tells of a page that has loaded. It may overtake the answer to what caused it.
const LOADED: &str = "Page.loadEventFired";

/// A browser process, killed when dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    profile: TempDir,
    address: SocketAddr,
}

impl Browser {
    /// Starts `TERSE_CHROMIUM`, by default `/usr/bin/chromium`; panics when there is none.
    #[must_use]
    pub fn start() -> Self {
        let path = std::env::var("TERSE_CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
        let profile = tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary directory: {e}"));
        let child = Command::new(&path)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{path} does not start ({e}): install Chromium or set TERSE_CHROMIUM"));
        let told = profile.path().join("DevToolsActivePort");
        let port = await_some("Chromium's debugging port", START_LIMIT, || {
            std::fs::read_to_string(&told).ok()?.lines().next()?.parse::<u16>().ok()
        });
        Self { child, profile, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Opens a page with an empty document.
    #[must_use]
    pub fn open_tab(&self) -> Tab {
        let answer = crate::Client::new(self.address).send(crate::Request::new("PUT", "/json/new?about:blank"));
        let page = answer.expect(200).json();
        let url = page["webSocketDebuggerUrl"].as_str().unwrap_or_else(|| panic!("no page: {page}"));
        let path = &url[url.find("/devtools").unwrap_or_else(|| panic!("no path in {url}"))..];
        let socket = Socket::open(self.address, path).unwrap_or_else(|e| panic!("no debugging socket: {e}"));
        let mut tab = Tab { socket, last_id: 0, loads: 0, errors: Vec::new() };
        for domain in ["Page", "Runtime", "Log"] {
            tab.ask(&format!("{domain}.enable"), json!({}));
        }
        tab
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Both fail only when it has ended already; the profile goes with the temporary directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.profile.path();
    }
}

/// One page of a browser. Every failure panics.
#[derive(Debug)]
pub struct Tab {
    socket: Socket,
    last_id: u64,
    loads: usize,
    errors: Vec<String>,
}

impl Tab {
    /// Sets the viewport in CSS pixels; `phone` makes it a mobile one.
    pub fn resize(&mut self, width: u32, height: u32, phone: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.ask("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Prefers `light` or `dark` from now on.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Lays pages out as they are printed, for who prefers `light` or `dark`, until the next [`Tab::prefer`].
    pub fn print(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", json!({ "media": "print", "features": features }));
    }

    /// Runs `script` in each page from now on, before those of the page.
    pub fn run_first(&mut self, script: &str) {
        self.ask("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }));
    }

    /// Switches the page's own scripts off or on; questions of the test still work.
    pub fn scripts(&mut self, on: bool) {
        self.ask("Emulation.setScriptExecutionDisabled", json!({ "value": !on }));
    }

    /// Goes to `url` and waits until the page has loaded.
    pub fn go(&mut self, url: &str) {
        let loads = self.loads;
        let gone = self.ask("Page.navigate", json!({ "url": url }));
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        self.await_load_after(loads);
    }

    /// The value of a JavaScript expression.
    pub fn value(&mut self, expression: &str) -> Value {
        let mut told = self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].take()
    }

    /// Runs an expression that leads to another page and waits until that has loaded.
    pub fn leave_by(&mut self, expression: &str) {
        let loads = self.loads;
        self.value(expression);
        self.await_load_after(loads);
    }

    /// What the console told of errors since the tab was opened, the first hundred lines of it.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// A picture of the viewport as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        self.capture(json!({ "format": "png" }))
    }

    /// A picture of the whole page, down to `PICTURE_PX`, as JPEG. The page may be laid out otherwise for a moment
    /// after it.
    pub fn whole_picture(&mut self) -> Vec<u8> {
        let metrics = self.ask("Page.getLayoutMetrics", json!({}));
        let size = |side: &str| metrics["cssContentSize"][side].as_f64().unwrap_or_default();
        let (width, height) = (size("width"), size("height").min(PICTURE_PX));
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        self.capture(json!({ "format": "jpeg", "quality": 70, "captureBeyondViewport": true, "clip": clip }))
    }

    fn capture(&mut self, how: Value) -> Vec<u8> {
        let told = self.ask("Page.captureScreenshot", how);
        let text = told["data"].as_str().unwrap_or_else(|| panic!("no picture: {told}"));
        from_base64(text).unwrap_or_else(|| panic!("the picture is no base64"))
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let message = json!({ "id": id, "method": method, "params": params }).to_string();
        self.socket.send(&message).unwrap_or_else(|e| panic!("{method}: {e}"));
        let mut answer = self.await_message(method, |message| message["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    fn await_load_after(&mut self, loads: usize) {
        if self.loads == loads {
            self.await_message("the page to load", |message| message["method"] == LOADED);
        }
    }

    fn await_message(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..MESSAGES {
            let text = self.socket.receive().unwrap_or_else(|e| panic!("{what}: {e}"));
            let message: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{what}: {e}"));
            self.loads += usize::from(message["method"] == LOADED);
            if is_error(&message) && self.errors.len() < ERRORS {
                self.errors.push(message["params"].to_string());
            }
            if wanted(&message) {
                return message;
            }
        }
        panic!("{MESSAGES} messages without {what}");
    }
}

/// Whether `message` tells of an error on the console, by the page or about it.
fn is_error(message: &Value) -> bool {
    match message["method"].as_str() {
        Some("Runtime.exceptionThrown") => true,
        Some("Runtime.consoleAPICalled") => message["params"]["type"] == "error",
        Some("Log.entryAdded") => message["params"]["entry"]["level"] == "error",
        _ => false,
    }
}

#[derive(Debug)]
struct Socket(TcpStream);

impl Socket {
    fn open(address: SocketAddr, path: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        // The key is no secret: it only shows that the peer speaks WebSocket.
        let hello = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(hello.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if head.starts_with(b"HTTP/1.1 101") { Ok(Self(stream)) } else { Err(io::Error::other("no upgrade")) }
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(&frame(text.as_bytes()))
    }

    fn receive(&mut self) -> io::Result<String> {
        let mut message = Vec::new();
        loop {
            let (last, code, payload) = self.receive_frame()?;
            match code {
                0 | 1 => message.extend(payload),
                8 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the browser closed the page")),
                _ => continue,
            }
            if last {
                return String::from_utf8(message).map_err(io::Error::other);
            }
        }
    }

    fn receive_frame(&mut self) -> io::Result<(bool, u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut bytes = [0; 2];
                self.0.read_exact(&mut bytes)?;
                usize::from(u16::from_be_bytes(bytes))
            }
            127 => {
                let mut bytes = [0; 8];
                self.0.read_exact(&mut bytes)?;
                usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX)
            }
            short => usize::from(short),
        };
        if length > FRAME_BYTES {
            return Err(io::Error::other("a message of the browser is too long"));
        }
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        Ok((head[0] & 0x80 != 0, head[0] & 0x0f, payload))
    }
}

/// A whole text message, masked with zeros: clients must mask, and any mask will do on loopback.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | u8::try_from(short).unwrap_or_default()),
        middle @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(middle).unwrap_or_default().to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes().take_while(|b| *b != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(from_base64("Zm9v!"), None);
    }

    #[test]
    fn frames_carry_the_length_in_the_form_of_its_size() {
        assert_eq!(frame(b"ab"), [0x81, 0x82, 0, 0, 0, 0, b'a', b'b']);
        assert_eq!(&frame(&[7; 300])[..4], &[0x81, 0xfe, 1, 44]);
        assert_eq!(&frame(&vec![7; 70_000])[..10], &[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }

    #[test]
    fn errors_of_a_page_are_told() {
        let browser = Browser::start();
        let mut tab = browser.open_tab();
        tab.go("data:text/html,<p>fine</p>");
        assert!(tab.errors().is_empty());
        tab.go("data:text/html,<script>console.error('one'); throw new Error('two')</script>");
        tab.value("1");
        let told = tab.errors().join("\n");
        assert!(tab.errors().len() == 2 && told.contains("one") && told.contains("two"), "{told}");
    }

    #[test]
    fn a_tab_shows_a_page_as_it_was_asked_to() {
        let page = "data:text/html,<meta name=viewport content=width=device-width>\
                    <style>body{background:white}@media(prefers-color-scheme:dark){body{background:black}}</style>\
                    <p>hi</p><script>document.title='ran'</script>";
        let browser = Browser::start();
        let mut tab = browser.open_tab();
        tab.resize(390, 844, true);
        tab.prefer("dark");
        tab.go(page);
        assert_eq!(tab.value("[window.innerWidth, document.title]"), json!([390, "ran"]));
        assert_eq!(tab.value("getComputedStyle(document.body).backgroundColor"), "rgb(0, 0, 0)");
        assert!(tab.picture().starts_with(b"\x89PNG"));
        tab.prefer("light");
        tab.scripts(false);
        tab.go(page);
        assert_eq!(tab.value("[document.title, document.body.innerText.trim()]"), json!(["", "hi"]));
        assert_eq!(tab.value("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)");
        tab.scripts(true);
        tab.run_first("window.first = 1");
        tab.print("dark");
        tab.go(page);
        assert_eq!(tab.value("[window.first, matchMedia('print').matches]"), json!([1, true]));
        tab.prefer("dark");
        assert_eq!(tab.value("matchMedia('print').matches"), false);
    }
}
