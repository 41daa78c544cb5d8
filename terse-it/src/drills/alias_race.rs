//! Many callers want one alias, through two servers at once.

use std::sync::Barrier;

use serde_json::json;

use super::{Stage, addresses};
use crate::{API_LINKS, Client, Request, Response, joined};

/// How many callers claim each alias.
const CLAIMS: usize = 200;

/// 200 concurrent claims of one alias: exactly one link.
pub(super) fn alias_race(stage: &mut Stage<'_>) {
    let keyspace = stage.cluster().keyspace("race");
    let servers = [Stage::uncached(&keyspace).start(), Stage::uncached(&keyspace).start()];
    let addresses = addresses(&[&servers[0], &servers[1]]);
    for round in 0..stage.form.pick(2, 10) {
        let alias = format!("wanted-{round}");
        let line = Barrier::new(CLAIMS);
        let claim = |number: usize| {
            let client = Client::new(addresses[number % addresses.len()]);
            let body = json!({ "url": target(round, number), "alias": alias });
            let mut connection = client.connect();
            line.wait();
            let answer = connection.call(&Request::new("POST", API_LINKS).json(&body));
            answer.unwrap_or_else(|error| panic!("claim {number}: {error}"))
        };
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLAIMS).map(|number| scope.spawn(move || claim(number))).collect();
            threads.into_iter().map(|thread| joined(thread.join())).collect()
        });
        let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
        stage.report.count(&format!("round {round}: 409"), count(409));
        stage.report.count(&format!("round {round}: 503"), count(503));
        check(&answers, round, &alias, &addresses);
    }
}

fn target(round: usize, number: usize) -> String {
    format!("https://example.com/race/{round}/{number}")
}

fn check(answers: &[Response], round: usize, alias: &str, addresses: &[std::net::SocketAddr]) {
    let winners: Vec<usize> = (0..answers.len()).filter(|number| answers[*number].status == 201).collect();
    for answer in answers {
        match answer.status {
            201 => {}
            409 => assert_eq!(answer.json()["code"], "alias_taken", "{answer:?}"),
            503 => assert!(answer.header("retry-after").is_some(), "{answer:?}"),
            other => panic!("{other}: {answer:?}"),
        }
    }
    // Whoever was told 503 does not know; whoever was told 201 does, so there is at most one.
    let targets: Vec<String> = addresses.iter().map(|address| Client::new(*address).target(alias)).collect();
    assert_eq!(targets[0], targets[1], "the servers disagree");
    let [winner] = winners[..] else { panic!("{} claims won: {winners:?}", winners.len()) };
    assert_eq!(targets[0], target(round, winner), "the link is not that of the claim that was told 201");
}
