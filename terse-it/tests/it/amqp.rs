//! As much of AMQP 0-9-1 as it takes to hear what is published to an exchange, and to publish there: another
//! implementation than the server's.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer of the broker may take.
const PATIENCE: Duration = Duration::from_secs(30);
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xce;

/// A connection with one channel.
pub(crate) struct Amqp {
    stream: TcpStream,
}

/// A message of a queue.
pub(crate) struct Message {
    pub(crate) routing_key: String,
    pub(crate) body: Vec<u8>,
}

fn short(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap()];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

impl Amqp {
    /// Connects to `url`, such as `amqp://guest:guest@127.0.0.1:5672/%2f`.
    pub(crate) fn connect(url: &str) -> Self {
        let rest = url.strip_prefix("amqp://").unwrap();
        let (login, place) = rest.rsplit_once('@').unwrap();
        let ((user, password), (address, vhost)) = (login.split_once(':').unwrap(), place.split_once('/').unwrap());
        let vhost = if vhost.eq_ignore_ascii_case("%2f") { "/" } else { vhost };
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut amqp = Self { stream };
        amqp.stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
        amqp.expect(10, 10);
        let login = [&[0], user.as_bytes(), &[0], password.as_bytes()].concat();
        amqp.send(0, 10, 11, &[long(&[]), short("PLAIN"), long(&login), short("en_US")].concat());
        let tune = amqp.expect(10, 30);
        // Its channels and frame size, and no heartbeats.
        amqp.send(0, 10, 31, &[&tune[..6], &[0, 0]].concat());
        amqp.send(0, 10, 40, &[short(vhost), short(""), vec![0]].concat());
        amqp.expect(10, 41);
        amqp.ask(20, 10, &short(""));
        amqp
    }

    /// Declares a durable topic exchange, and a durable queue to which all comes that is published to it.
    pub(crate) fn listen(&mut self, exchange: &str, queue: &str) {
        const DURABLE: u8 = 2;
        let reserved = vec![0, 0];
        let flags = [&[DURABLE][..], &long(&[])].concat();
        self.ask(40, 10, &[reserved.clone(), short(exchange), short("topic"), flags.clone()].concat());
        self.ask(50, 10, &[reserved.clone(), short(queue), flags].concat());
        self.ask(50, 20, &[reserved, short(queue), short(exchange), short("#"), vec![0], long(&[])].concat());
    }

    /// Publishes `body` to an exchange, durably, and waits until the broker has it.
    pub(crate) fn publish(&mut self, exchange: &str, routing_key: &str, body: &[u8]) {
        const PERSISTENT: u8 = 2;
        self.ask(85, 10, &[0]);
        let nothing_asked = 0;
        self.send(1, 60, 40, &[vec![0, 0], short(exchange), short(routing_key), vec![nothing_asked]].concat());
        // Of all properties, only the delivery mode: bit 12.
        let bytes = (body.len() as u64).to_be_bytes();
        let header = [&60_u16.to_be_bytes()[..], &[0, 0], &bytes, &0x1000_u16.to_be_bytes(), &[PERSISTENT]].concat();
        self.send_frame(HEADER, &header);
        self.send_frame(BODY, body);
        self.expect(60, 80);
    }

    fn send_frame(&mut self, kind: u8, payload: &[u8]) {
        let frame = [&[kind][..], &1_u16.to_be_bytes(), &long(payload), &[FRAME_END]].concat();
        self.stream.write_all(&frame).unwrap();
    }

    /// Takes all that is in `queue` now.
    pub(crate) fn take_all(&mut self, queue: &str) -> Vec<Message> {
        let mut all = Vec::new();
        while let Some(message) = self.take(queue) {
            all.push(message);
        }
        all
    }

    fn take(&mut self, queue: &str) -> Option<Message> {
        const NO_ACK: u8 = 1;
        self.send(1, 60, 70, &[vec![0, 0], short(queue), vec![NO_ACK]].concat());
        let (kind, answer) = self.frame();
        assert_eq!((kind, &answer[..2]), (METHOD, &[0, 60][..]));
        if answer[3] == 72 {
            return None;
        }
        // Behind the method: the delivery's tag, whether it comes again, the exchange, the routing key.
        let exchange = usize::from(answer[13]);
        let key = &answer[14 + exchange..];
        let routing_key = String::from_utf8(key[1..=usize::from(key[0])].to_vec()).unwrap();
        let (kind, header) = self.frame();
        assert_eq!(kind, HEADER);
        let bytes = u64::from_be_bytes(header[4..12].try_into().unwrap());
        let mut body = Vec::new();
        while (body.len() as u64) < bytes {
            let (kind, more) = self.frame();
            assert_eq!(kind, BODY);
            body.extend(more);
        }
        Some(Message { routing_key, body })
    }

    /// Deletes a queue and an exchange.
    pub(crate) fn delete(&mut self, exchange: &str, queue: &str) {
        self.ask(50, 40, &[vec![0, 0], short(queue), vec![0]].concat());
        self.ask(40, 20, &[vec![0, 0], short(exchange), vec![0]].concat());
    }

    /// Calls a method of the channel, which is answered by the next one of its class.
    fn ask(&mut self, class: u16, method: u16, arguments: &[u8]) {
        self.send(1, class, method, arguments);
        self.expect(class, method + 1);
    }

    fn send(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let payload = [&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat();
        let frame = [&[METHOD][..], &channel.to_be_bytes(), &long(&payload), &[FRAME_END]].concat();
        self.stream.write_all(&frame).unwrap();
    }

    /// The arguments of the next method, which must be this one.
    #[track_caller]
    fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        let (kind, payload) = self.frame();
        let told = String::from_utf8_lossy(&payload).into_owned();
        let expected = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert_eq!((kind, &payload[..4]), (METHOD, &expected[..]), "{told}");
        payload[4..].to_vec()
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head).unwrap();
            let size = u32::from_be_bytes(head[3..].try_into().unwrap()) as usize;
            let mut payload = vec![0; size + 1];
            self.stream.read_exact(&mut payload).unwrap();
            assert_eq!(payload.pop(), Some(FRAME_END));
            if head[0] != HEARTBEAT {
                return (head[0], payload);
            }
        }
    }
}
