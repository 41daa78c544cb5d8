//! Any sequence of operations gets from a durable store the answers that it
//! gets from the memory store.

use proptest::prelude::*;
use terse_core::cursor::Cursor;
use terse_core::ports::{HomeStore, IdempotencyRecord, LinkChange};
use terse_core::{ApiKey, KeyId, Link, LinkState, Owner, Role, ShortCode, Tags, Timestamp, Title, Version};
use terse_testkit::links::{attempt, code, link, target};

use crate::backends::{self, Backend, LinkPorts};

/// An operation with small numbers in place of codes, owners and times, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Insert { code: u8, owner: u8, at: u8, look: u8 },
    Update { code: u8, expected: u8, look: u8 },
    Resolve { code: u8 },
    Get { code: u8 },
    List { owner: u8, after: Option<(u8, u8)>, limit: u8 },
    Find { owner: u8, key: u8 },
    Claim { owner: u8, key: u8, at: u8, expired: u8 },
    Replace { owner: u8, key: u8, expected: u8, at: u8 },
    Purge { before: u8 },
    Home(HomeStep),
}

#[derive(Clone, Debug)]
enum HomeStep {
    Settle { name: u8, value: u8 },
    Setting { name: u8 },
    Forget { name: u8 },
    Names { prefix: u8 },
    Lease { counter: u8, size: u8, at: u8 },
    Leases { counter: u8, from: u8, limit: u8 },
    AddKey { id: u8, at: u8 },
    Revoke { id: u8, at: u8 },
    Keys,
}

fn step() -> impl Strategy<Value = Step> {
    let (few, more) = (0..3u8, 0..6u8);
    let home = prop_oneof![
        (few.clone(), any::<u8>()).prop_map(|(name, value)| HomeStep::Settle { name, value }),
        few.clone().prop_map(|name| HomeStep::Setting { name }),
        few.clone().prop_map(|name| HomeStep::Forget { name }),
        few.clone().prop_map(|prefix| HomeStep::Names { prefix }),
        (few.clone(), any::<u8>(), more.clone()).prop_map(|(counter, size, at)| HomeStep::Lease { counter, size, at }),
        (few.clone(), any::<u8>(), more.clone()).prop_map(|(counter, from, limit)| HomeStep::Leases {
            counter,
            from,
            limit
        }),
        (more.clone(), more.clone()).prop_map(|(id, at)| HomeStep::AddKey { id, at }),
        (more.clone(), more.clone()).prop_map(|(id, at)| HomeStep::Revoke { id, at }),
        Just(HomeStep::Keys),
    ];
    prop_oneof![
        4 => (more.clone(), few.clone(), more.clone(), any::<u8>())
            .prop_map(|(code, owner, at, look)| Step::Insert { code, owner, at, look }),
        4 => (more.clone(), 0..4u8, any::<u8>())
            .prop_map(|(code, expected, look)| Step::Update { code, expected, look }),
        2 => more.clone().prop_map(|code| Step::Resolve { code }),
        2 => more.clone().prop_map(|code| Step::Get { code }),
        4 => (few.clone(), proptest::option::of((more.clone(), more.clone())), more.clone())
            .prop_map(|(owner, after, limit)| Step::List { owner, after, limit }),
        1 => (few.clone(), few.clone()).prop_map(|(owner, key)| Step::Find { owner, key }),
        2 => (few.clone(), few.clone(), more.clone(), more.clone())
            .prop_map(|(owner, key, at, expired)| Step::Claim { owner, key, at, expired }),
        2 => (few.clone(), few.clone(), more.clone(), more.clone())
            .prop_map(|(owner, key, expected, at)| Step::Replace { owner, key, expected, at }),
        1 => more.prop_map(|before| Step::Purge { before }),
        4 => home.prop_map(Step::Home),
    ]
}

/// Six codes, far from each other in slots.
fn code_of(number: u8) -> ShortCode {
    code(["0", "9zz", "Kq", "Ta-long-alias-of-a-user", "ab", "__"][usize::from(number)])
}

fn owner_of(number: u8) -> Owner {
    Owner::parse(["open", "o", "O"][usize::from(number)]).unwrap()
}

fn time(number: u8) -> Timestamp {
    Timestamp::from_millis(i64::from(number))
}

/// What a link may look like, picked by the bits of `look`.
fn dressed(mut link: Link, look: u8) -> Link {
    let bit = |n: u8| look >> n & 1 == 1;
    link.target = target(&format!("https://t.example/{look}"));
    link.title = bit(0).then(|| Title::parse("title").unwrap());
    link.tags = if bit(1) { Tags::parse(&["a", "b c"]).unwrap() } else { Tags::default() };
    link.expires_at = bit(2).then(|| time(look));
    link.valid_from = bit(3).then(|| time(look));
    link.updated_at = time(look);
    // Mostly active, else few links would be listed.
    link.state = match look >> 4 {
        0 => LinkState::Deleted,
        1 => LinkState::Blocked,
        2 => LinkState::Disabled,
        _ => LinkState::Active,
    };
    link
}

fn record(number: u8) -> IdempotencyRecord {
    IdempotencyRecord {
        body_hash: [number; 32],
        code: code_of(number),
        attempt: attempt(number.into()),
        created_at: time(number),
    }
}

/// Carries `step` out; the answer as text.
async fn link_step(store: &dyn LinkPorts, step: &Step) -> String {
    match step.clone() {
        Step::Insert { code, owner, at, look } => {
            let link = Link { owner: owner_of(owner), created_at: time(at), ..link(code_of(code).as_str()) };
            format!("{:?}", store.insert_if_absent(&dressed(link, look), attempt(look.into())).await)
        }
        Step::Update { code, expected, look } => {
            let change = LinkChange::of(&dressed(link("any"), look));
            format!("{:?}", store.update(&code_of(code), Version(expected.into()), &change).await)
        }
        Step::Resolve { code } => format!("{:?}", store.resolve(&code_of(code)).await),
        Step::Get { code } => format!("{:?}", store.get(&code_of(code)).await),
        Step::List { owner, after, limit } => {
            let after = after.map(|(at, code)| Cursor { created_at: time(at), code: code_of(code) });
            format!("{:?}", store.list(&owner_of(owner), after.as_ref(), limit.into()).await)
        }
        Step::Find { owner, key } => format!("{:?}", store.find_key(&owner_of(owner), &key.to_string()).await),
        Step::Claim { owner, key, at, expired } => {
            format!("{:?}", store.claim_key(&owner_of(owner), &key.to_string(), &record(at), time(expired)).await)
        }
        Step::Replace { owner, key, expected, at } => {
            let (key, expected) = (key.to_string(), attempt(expected.into()));
            format!("{:?}", store.replace_key(&owner_of(owner), &key, expected, &record(at)).await)
        }
        // Which records go first is open, so all that may go do.
        Step::Purge { before } => format!("{:?}", store.purge_keys(time(before), usize::MAX).await),
        Step::Home(_) => String::new(),
    }
}

async fn home_step(store: &dyn HomeStore, step: &HomeStep) -> String {
    let id = |number: u8| KeyId::parse(&format!("key{number:07}")).unwrap();
    match *step {
        HomeStep::Settle { name, value } => format!("{:?}", store.settle(&name.to_string(), &[value]).await),
        HomeStep::Setting { name } => format!("{:?}", store.setting(&name.to_string()).await),
        HomeStep::Forget { name } => format!("{:?}", store.forget(&name.to_string()).await),
        HomeStep::Names { prefix } => {
            // Their order is open.
            let mut names = store.names(&prefix.to_string(), usize::MAX).await;
            let _ = names.as_mut().map(|names| names.sort_unstable());
            format!("{names:?}")
        }
        HomeStep::Lease { counter, size, at } => {
            let holder = format!("holder {at}");
            format!("{:?}", store.lease(&counter.to_string(), size.into(), &holder, time(at)).await)
        }
        HomeStep::Leases { counter, from, limit } => {
            format!("{:?}", store.leases(&counter.to_string(), from.into(), limit.into()).await)
        }
        HomeStep::AddKey { id: number, at } => {
            let key = ApiKey {
                id: id(number),
                name: "name".to_owned(),
                owner: owner_of(number % 3),
                role: Role::Reader,
                secret_hash: [number; 32],
                created_at: time(at),
                expires_at: None,
                revoked_at: None,
            };
            format!("{:?}", store.add_key(&key).await.is_ok())
        }
        HomeStep::Revoke { id: number, at } => format!("{:?}", store.revoke_key(&id(number), time(at)).await),
        HomeStep::Keys => format!("{:?} {:?}", store.keys().await, store.keys_revision().await),
    }
}

async fn assert_alike(steps: Vec<Step>, backend: Backend, model: Backend) {
    let (links, home) = backend.ports();
    let (model_links, model_home) = model.ports();
    for (number, step) in steps.iter().enumerate() {
        let (answer, expected) = match (step, &home) {
            (Step::Home(step), Some(home)) => {
                (home_step(home.as_ref(), step).await, home_step(model_home.as_ref().unwrap().as_ref(), step).await)
            }
            _ => (link_step(links.as_ref(), step).await, link_step(model_links.as_ref(), step).await),
        };
        assert_eq!(answer, expected, "step {number} of {steps:#?}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    // Each try opens a file, so shrinking a failure is bounded too.
    #![proptest_config(ProptestConfig {
        cases: 48,
        max_shrink_iters: 200,
        max_shrink_time: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn sqlite_answers_as_memory_does(steps in proptest::collection::vec(step(), 1..80)) {
        runtime().block_on(async {
            assert_alike(steps, backends::sqlite().await, backends::memory().await).await;
        });
    }

    #[test]
    fn shards_answer_as_one_store_does(steps in proptest::collection::vec(step(), 1..80)) {
        runtime().block_on(async {
            assert_alike(steps, backends::three_shards_on_memory().await, backends::memory().await).await;
        });
    }
}
