//! Any sequence of operations of two instances gets from SQLite the answers
//! that it gets from memory.

use proptest::prelude::*;
use terse_core::Timestamp;
use terse_core::ports::clicks::{Batch, Bus};
use terse_core::stats::{Partition, Position, RowKey, Span};
use terse_testkit::links::code;

use crate::backends::{self, Backend, Instance, Model};
use crate::builders::{checkpoint, journal, key, retired, row, stored};

/// A step of one of two instances, with small numbers in place of names, so that they meet.
#[derive(Clone, Debug)]
struct Step {
    instance: bool,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Attach,
    Write { rows: Vec<(u8, u8, u8)>, checkpoints: Vec<(u8, u8)>, retired: Vec<(u8, u8, u8)> },
    BeginEpoch { partition: u8, epoch: u8, look: u8 },
    Settle { partitions: u8 },
    Lease { partition: u8, holder: u8, at: u8, ttl: u8 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let few = 0..4_u8;
    let rows = proptest::collection::vec((few.clone(), 0..6_u8, any::<u8>()), 0..5);
    let checkpoints = proptest::collection::vec((few.clone(), any::<u8>()), 0..3);
    let retirements = proptest::collection::vec((few.clone(), few.clone(), any::<u8>()), 0..2);
    let what = prop_oneof![
        3 => Just(What::Attach),
        6 => (rows, checkpoints, retirements)
            .prop_map(|(rows, checkpoints, retired)| What::Write { rows, checkpoints, retired }),
        2 => (few.clone(), 1..3_u8, any::<u8>())
            .prop_map(|(partition, epoch, look)| What::BeginEpoch { partition, epoch, look }),
        1 => few.clone().prop_map(|partitions| What::Settle { partitions }),
        2 => (few.clone(), few.clone(), any::<u8>(), any::<u8>())
            .prop_map(|(partition, holder, at, ttl)| What::Lease { partition, holder, at, ttl }),
        1 => Just(What::Reopen),
    ];
    (any::<bool>(), what).prop_map(|(instance, what)| Step { instance, what })
}

const SPANS: [Span; 6] = [Span::All, Span::Day(1), Span::Day(2), Span::Hour(1), Span::Hour(2), Span::Hour(u32::MAX)];

fn key_of(text: u8, span: u8) -> RowKey {
    key(["a", "A", "ab", "_"][usize::from(text)], SPANS[usize::from(span)])
}

/// The first two are streams, the others journals.
fn partition_of(number: u8) -> Partition {
    if number < 2 { Partition::Stream(number.into()) } else { Partition::Journal(journal(number)) }
}

fn position_of(number: u8) -> Position {
    Position { epoch: u16::from(number >> 6), offset: u64::from(number & 15) }
}

fn batch_of(rows: &[(u8, u8, u8)], checkpoints: &[(u8, u8)], retirements: &[(u8, u8, u8)]) -> Batch {
    let mut batch = Batch::default();
    for (text, span, number) in rows {
        let key = key_of(*text, *span);
        // Each row at most once.
        if batch.rows.iter().all(|(other, _)| *other != key) {
            batch.rows.push((key, stored(position_of(*number), row((*number).into())).into()));
        }
    }
    for (partition, number) in checkpoints {
        batch.checkpoints.push((partition_of(*partition), checkpoint(position_of(*number), (*number).into())));
    }
    for (partition, of, number) in retirements {
        batch.retired.push((partition_of(*partition), journal(*of), retired(position_of(*number), (*number).into())));
    }
    batch
}

/// Carries `what` out; the answer as text.
async fn carry_out(model: &dyn Model, what: &What) -> String {
    match what {
        What::Attach => format!("{:?}", model.attach().await),
        What::Write { rows, checkpoints, retired } => {
            format!("{:?}", model.write(&batch_of(rows, checkpoints, retired)).await)
        }
        What::BeginEpoch { partition, epoch, look } => {
            let first = checkpoint(Position { epoch: (*epoch).into(), offset: 0 }, (*look).into());
            format!("{:?}", model.begin_epoch(partition_of(*partition), &first).await)
        }
        What::Settle { partitions: 0 } => format!("{:?}", model.settle_bus(Bus::Local).await),
        What::Settle { partitions } => {
            format!("{:?}", model.settle_bus(Bus::Streams { partitions: (*partitions).into() }).await)
        }
        What::Lease { partition, holder, at, ttl } => {
            let now = Timestamp::from_millis(i64::from(*at) * 1_000);
            let ttl_ms = u64::from(*ttl) * 10_000;
            format!("{:?}", model.lease(partition_of(*partition), &format!("holder{holder}"), now, ttl_ms).await)
        }
        What::Reopen => String::new(),
    }
}

/// All that can be read.
async fn all_of(model: &dyn Model) -> String {
    let mut told = String::new();
    let found = model.scan(None, 1_000).await.unwrap();
    let keys: Vec<_> = (0..4).flat_map(|text| (0..6).map(move |span| key_of(text, span))).collect();
    for (key, stored) in &found {
        told += &format!("{} {:?} {stored:?}\n", key.code.as_str(), key.span);
    }
    told += &format!("{:?}\n{:?}\n", model.load(&keys).await, model.checkpoints().await);
    for number in 0..4 {
        told += &format!("{:?}\n", model.checkpoint(partition_of(number)).await);
        for of in 0..4 {
            told += &format!("{:?}\n", model.retired(partition_of(number), journal(of)).await);
        }
        let code = code(key_of(number, 0).code.as_str());
        told += &format!("{:?} {:?}\n", model.overall(&code).await, model.as_of(&code).await);
        told += &format!("{:?}\n", model.spans(&code, Span::Day(1), Span::Day(9)).await);
        told += &format!("{:?}\n", model.spans(&code, Span::Hour(0), Span::Hour(1)).await);
    }
    told
}

async fn opened(backend: &Backend) -> [Instance; 2] {
    [backend.open().await, backend.open().await]
}

async fn compare(steps: &[Step]) {
    let backends = [backends::memory(Bus::Local), backends::sqlite(Bus::Local)];
    let (mut memory, mut sqlite) = (opened(&backends[0]).await, opened(&backends[1]).await);
    for (number, step) in steps.iter().enumerate() {
        let place = usize::from(step.instance);
        if matches!(step.what, What::Reopen) {
            (memory[place], sqlite[place]) = (backends[0].open().await, backends[1].open().await);
        }
        let expected = carry_out(&*memory[place], &step.what).await;
        assert_eq!(carry_out(&*sqlite[place], &step.what).await, expected, "step {number}: {step:?}");
    }
    assert_eq!(all_of(&*sqlite[0]).await, all_of(&*memory[0]).await);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 500, ..ProptestConfig::default() })]
    #[test]
    fn sqlite_answers_as_memory_does(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(&steps));
    }
}
