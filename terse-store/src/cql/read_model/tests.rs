//! What the read model does without a cluster, and how large rows get.

use terse_core::ports::StoreErrorKind;
use terse_testkit::links::code;
use terse_testkit::{SeededEntropy, TestClock};

use super::*;

fn unconnected() -> Arc<CqlReadModel> {
    let config = CqlReadModelConfig::new(vec!["127.0.0.1:1".into()], "nowhere");
    CqlReadModel::new(config, Arc::new(TestClock::default()), Arc::new(SeededEntropy::new(1)))
}

#[tokio::test]
async fn a_read_model_without_a_cluster_answers_unavailable_at_once() {
    let model = unconnected();
    let (code, log, now) = (code("abc"), Partition::Stream(0), Timestamp::from_millis(0));
    let journal = JournalId([1; 16]);
    for answer in [
        model.settle_bus(Bus::Streams { partitions: 1 }).await.map(drop),
        model.attach().await,
        model.lease(log, "me", now, 1).await.map(drop),
        model.checkpoint(log).await.map(drop),
        model.checkpoints().await.map(drop),
        model.retired(log, journal).await.map(drop),
        model.load(&[]).await.map(drop),
        model.write(&Batch::default()).await.map(drop),
        model.scan(None, 1).await.map(drop),
        model.overall(&code).await.map(drop),
        model.spans(&code, Span::Day(1), Span::Day(2)).await.map(drop),
        model.as_of(&code).await.map(drop),
    ] {
        let error = answer.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(error.message.contains("'stats' is not connected"), "{error}");
    }
    assert!(model.check().await.unwrap_err().contains("not connected"));
}

#[tokio::test]
async fn connecting_to_nobody_fails_as_unavailable() {
    let error = unconnected().connect_once().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
}

#[test]
fn a_write_fits_twice_into_its_deadline() {
    let limits = CqlReadModelConfig::new(Vec::new(), "k").cluster.limits;
    assert!(limits.write_timeout_ms * 2 <= limits.write_deadline_ms);
    assert!(limits.speculative_delay_ms * 2 < limits.list_timeout_ms);
}
