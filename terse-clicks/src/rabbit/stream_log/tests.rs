//! What needs no broker.

use terse_core::Entropy;

use super::*;

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

fn log() -> StreamLog {
    StreamLog::new(BrokerConfig::new("amqp://127.0.0.1:1/%2f", "d", 3).unwrap(), &NoEntropy).unwrap()
}

fn behind(bytes: &[u8]) -> Begin {
    Begin::Behind { offset: 10, print: print_of(bytes) }
}

#[test]
fn the_projector_judges_what_comes_first_after_a_checkpoint() {
    for begin in [Begin::First, Begin::Checkpoint(10)] {
        for at in [0, 9, 10, 11, 500] {
            assert_eq!(begin.place(true, at, b"any"), Place::Next, "{begin:?} {at}");
        }
    }
}

#[test]
fn after_a_reconnection_reading_goes_on_behind_what_was_delivered() {
    let begin = behind(b"last");
    assert_eq!(begin.place(true, 8, b"earlier, of the same chunk"), Place::Known);
    assert_eq!(begin.place(true, 10, b"last"), Place::Known);
    assert_eq!(begin.place(false, 11, b"new"), Place::Next);
}

#[test]
fn after_a_reconnection_another_stream_is_a_gap() {
    assert_eq!(behind(b"last").place(true, 10, b"another"), Place::Gap);
    assert_eq!(behind(b"last").place(true, 11, b"later"), Place::Gap);
}

#[test]
fn messages_are_known_by_their_heads_and_lengths() {
    let long = [1_u8; 500];
    assert_eq!(print_of(&long), print_of(&long.clone()));
    assert_ne!(print_of(&long), print_of(&long[..499]));
    assert_ne!(print_of(&long), print_of(&[2; 500]));
    assert_ne!(print_of(b""), print_of(b"\0"));
}

#[test]
fn reading_begins_where_the_broker_is_told() {
    assert_eq!(Begin::First.argument(), AMQPValue::LongString("first".into()));
    assert_eq!(Begin::Checkpoint(7).argument(), AMQPValue::LongLongInt(7));
    assert_eq!(behind(b"x").argument(), AMQPValue::LongLongInt(10));
    assert_eq!(Begin::Checkpoint(u64::MAX).argument(), AMQPValue::LongLongInt(i64::MAX));
}

#[test]
fn a_message_without_an_offset_is_of_no_stream() {
    assert_eq!(offset_of(&BasicProperties::default()), None);
    let with = |value| BasicProperties::default().with_headers(table([("x-stream-offset", value)]));
    assert_eq!(offset_of(&with(AMQPValue::LongLongInt(5))), Some(5));
    assert_eq!(offset_of(&with(AMQPValue::LongLongInt(-5))), None);
    assert_eq!(offset_of(&with(AMQPValue::LongString("5".into()))), None);
}

#[test]
fn bytes_that_are_no_part_are_told_from_newer_parts() {
    assert!(matches!(body_of(Bytes::from_static(b"hello")), Body::Undecodable { .. }));
}

#[tokio::test]
async fn a_broker_that_is_out_of_reach_is_told_and_tried_again_later() {
    let mut log = log();
    log.start(Partition::Stream(1), None).await.unwrap();
    assert!(matches!(log.next(1, 1_000).await, Err(LogError::Unavailable(_))));
    let waits = log.try_at;
    assert!(waits > Instant::now() - Duration::from_millis(5));
    assert!(log.next(1, 0).await.is_ok_and(|read| read.is_empty()), "not tried before its time");
}

#[tokio::test]
async fn only_streams_are_read() {
    let mut log = log();
    assert_eq!(log.partitions().await.unwrap(), [0, 1, 2].map(Partition::Stream));
    let journal = Partition::Journal(JournalId([1; 16]));
    assert!(log.start(journal, None).await.is_err());
    assert!(log.next(1, 1).await.unwrap().is_empty(), "nothing is read, so nobody is asked");
}
