//! Random logs, with duplicates, forks, recoveries, late confirms and garbage; processes that die at any await, come
//! back as zombies, or lose a checkpoint. After the log is drained, the read model is what the model says.

use proptest::prelude::*;
use terse_clicks::log::Body;
use terse_clicks::part::Part;
use terse_clicks::projector::Projector;
use terse_core::ports::clicks::Bus;
use terse_core::stats::Partition;
use terse_testkit::SeededEntropy;
use terse_testkit::clicks::{ClickStoreKind, Mishaps};

use crate::world::{OTHER_PERSON, PERSON, PROGRAM, Told, World, journal, version};

const CODES: [&str; 6] = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"];
const HOURS: [i64; 3] = [3_600_000, 7_200_000, 90_000_000];

/// Numbers from a seed.
struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    fn percent(&self, share: u64) -> bool {
        self.below(100) < share
    }

    fn told(&self) -> Told {
        Told {
            code: CODES[self.below(6) as usize],
            at_ms: HOURS[self.below(3) as usize] + self.below(1_000) as i64,
            agent: [PERSON, OTHER_PERSON, PROGRAM][self.below(3) as usize],
            visitor: self.below(20),
        }
    }
}

/// What to try.
#[derive(Clone, Copy, Debug)]
struct Plan {
    bus: Bus,
    kind: ClickStoreKind,
    seed: u64,
    journals: u8,
    most_blocks: u64,
    most_records: u64,
    turns: u32,
}

/// The versions of a journal's blocks in the order of a relay that does all it may do wrong.
fn versions(dice: &Dice, number: u8, plan: &Plan) -> Vec<(u64, Part)> {
    let (journal, blocks) = (journal(number + 1), dice.below(plan.most_blocks + 1));
    let mut sent = Vec::new();
    let mut send = |time: u64, part: Part| {
        let late = if dice.percent(20) { dice.below(60) } else { 0 };
        sent.push((time + late, part.clone()));
        if dice.percent(30) {
            sent.push((time + dice.below(100), part));
        }
    };
    for seq in 0..blocks {
        let told: Vec<Told> = (0..dice.below(plan.most_records + 1)).map(|_| dice.told()).collect();
        let whole = dice.percent(85);
        for _ in 0..dice.below(3) {
            // A copy of the directory was recovered when the block was open.
            let short = &told[..dice.below(told.len() as u64 + 1) as usize];
            send(seq * 10 + dice.below(50), version(journal, seq, short, true, false));
        }
        if whole {
            send(seq * 10, version(journal, seq, &told, false, false));
        }
        if dice.percent(10) {
            // The copy ended here, where the original went on.
            send(seq * 10 + dice.below(50), version(journal, seq, &[], true, true));
        }
    }
    if dice.percent(70) {
        send(blocks * 10, version(journal, blocks, &[], dice.percent(50), true));
    }
    sent
}

fn fill_streams(world: &World, dice: &Dice, plan: &Plan) {
    let sent: Vec<(u64, Part)> = (0..plan.journals)
        .flat_map(|number| {
            let later = dice.below(80);
            versions(dice, number, plan).into_iter().map(move |(time, part)| (time + later, part))
        })
        .collect();
    for number in 0..world.partitions() {
        let mut of_this: Vec<(u64, Part)> = sent
            .iter()
            .map(|(time, part)| (time + dice.below(4), part.split(world.partitions())[usize::from(number)].clone()))
            .collect();
        of_this.sort_by_key(|(time, _)| *time);
        for (_, part) in of_this {
            world.log.push(Partition::Stream(number), Body::Part(part));
            if dice.percent(3) {
                let bytes = format!("garbage {}", dice.below(1_000)).into();
                world.log.push(Partition::Stream(number), Body::Undecodable { bytes, reason: "garbage".into() });
            }
        }
    }
}

fn fill_journals(world: &World, dice: &Dice, plan: &Plan) {
    for number in 0..plan.journals {
        let journal = journal(number + 1);
        let blocks = dice.below(plan.most_blocks * 2 + 1);
        world.log.declare(Partition::Journal(journal));
        for seq in 0..blocks {
            let told: Vec<Told> = (0..dice.below(plan.most_records + 1)).map(|_| dice.told()).collect();
            if dice.percent(85) {
                world.log.put_block(version(journal, seq, &told, dice.percent(20), false));
            }
        }
        if dice.percent(60) {
            world.log.put_block(version(journal, blocks, &[], dice.percent(50), true));
        } else if dice.percent(50) {
            world.log.end(journal);
        }
    }
}

/// Processes that live and die as the seed wants it.
fn live_and_die(world: &mut World, dice: &Dice, plan: &Plan) {
    let mut alive: Vec<Projector> = Vec::new();
    for _ in 0..plan.turns {
        if alive.is_empty() || alive.len() < 3 && dice.percent(10) {
            let process = world.process();
            alive.push(process);
        }
        let which = dice.below(alive.len() as u64) as usize;
        let died = world.step(&mut alive[which]).is_none();
        // One whose call was dropped is either dead, or one that was cancelled and goes on.
        if died && dice.percent(60) || dice.percent(3) {
            alive.remove(which);
        }
        if dice.percent(4) {
            world.store.lose_checkpoint();
        }
    }
}

fn run(plan: Plan) {
    let dice = Dice(SeededEntropy::new(plan.seed));
    let mut world = World::new(plan.bus, plan.kind, plan.seed);
    world.config.read_bytes = [256, 2_048, 1 << 20][dice.below(3) as usize];
    world.config.cache_bytes = [4 << 10, 32 << 10, 1 << 30][dice.below(3) as usize];
    world.early = dice.below(4) as usize;
    match plan.bus {
        Bus::Local => fill_journals(&world, &dice, &plan),
        Bus::Streams { .. } => fill_streams(&world, &dice, &plan),
    }
    if dice.percent(50) {
        world.store.let_everyone_lead();
    }
    world.store.suffer(Mishaps { deaths: dice.below(80), faults: dice.below(80) });
    world.log.suffer(dice.below(80));
    live_and_die(&mut world, &dice, &plan);
    world.store.suffer(Mishaps::default());
    world.log.suffer(0);
    world.drain_anew();
    world.check();
    let undecodable = |body: &Body| matches!(body, Body::Undecodable { .. });
    for (partition, messages) in world.log.messages() {
        for message in messages.into_iter().filter(|message| undecodable(&message.body)) {
            let put_aside =
                |dead: &terse_clicks::log::Delivery| (dead.partition, dead.offset) == (partition, message.offset);
            assert!(world.log.dead().iter().any(put_aside), "{partition} {} was put aside", message.offset);
        }
    }
}

fn plans(bus: impl Strategy<Value = Bus>, kind: ClickStoreKind) -> impl Strategy<Value = Plan> {
    (bus, any::<u64>(), 1..4_u8, 0..7_u64, 0..9_u64, 0..120_u32).prop_map(
        move |(bus, seed, journals, most_blocks, most_records, turns)| Plan {
            bus,
            kind,
            seed,
            journals,
            most_blocks,
            most_records,
            turns,
        },
    )
}

fn streams() -> impl Strategy<Value = Bus> {
    (1..4_u16).prop_map(|partitions| Bus::Streams { partitions })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn whatever_happens_streams_are_counted_exactly_where_positions_order_rows(
        plan in plans(streams(), ClickStoreKind::Positions)
    ) {
        run(plan);
    }

    #[test]
    fn whatever_happens_streams_are_counted_exactly_where_writes_are_transactions(
        plan in plans(streams(), ClickStoreKind::Transactions)
    ) {
        run(plan);
    }

    #[test]
    fn whatever_happens_journals_are_counted_exactly(plan in plans(Just(Bus::Local), ClickStoreKind::Transactions)) {
        run(plan);
    }
}
