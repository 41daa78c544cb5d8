//! The broker itself is killed, stopped, starved. These tests want it for themselves.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::deployment::{Deployment, PATIENCE, recorder};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is needed by tests that want the broker for themselves"))
}

fn shell(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// The broker's process, as the service's file tells it: it is another one after each start.
fn signal(signal: &str) {
    shell(&format!("kill -{signal} $({})", variable("TERSE_AMQP_PID")));
}

#[tokio::test]
#[ignore = "kills the broker: run alone, with TERSE_AMQP_PID and TERSE_AMQP_UP"]
async fn a_broker_that_is_killed_while_publishing_loses_and_doubles_nothing() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    for _ in 0..2 {
        let began = Instant::now();
        let mut killed = false;
        while began.elapsed() < Duration::from_secs(3) {
            deployment.click(&mut *worker, 16, 10);
            relay.run_once(5).await;
            projector.run_once(5).await.unwrap();
            if !killed && began.elapsed() > Duration::from_secs(1) {
                signal("KILL");
                killed = true;
            }
        }
        shell(&variable("TERSE_AMQP_UP"));
        deployment.settle(&mut relay, &mut projector).await;
    }
    let report = relay.progress().report();
    assert!(report.connections >= 3 && report.published > report.confirmed, "{report:?}");
    deployment.clean().await;
}

#[tokio::test]
#[ignore = "stops the broker for a while: run alone, with TERSE_AMQP_PID"]
async fn a_broker_that_is_stopped_for_a_while_delays_clicks_only() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.click(&mut *worker, 16, 10);
    deployment.settle(&mut relay, &mut projector).await;
    signal("STOP");
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(5) {
        deployment.click(&mut *worker, 16, 1);
        relay.run_once(50).await;
        projector.run_once(50).await.unwrap();
    }
    signal("CONT");
    deployment.settle(&mut relay, &mut projector).await;
    deployment.clean().await;
}

#[tokio::test]
#[ignore = "starves the broker of memory: run alone, with TERSE_AMQP_CTL"]
async fn a_broker_that_asks_to_be_spared_is_spared() {
    let control = variable("TERSE_AMQP_CTL");
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.click(&mut *worker, 16, 10);
    deployment.settle(&mut relay, &mut projector).await;
    shell(&format!("{control} set_vm_memory_high_watermark absolute 1MB"));
    let deadline = Instant::now() + PATIENCE;
    while !relay.progress().report().blocked {
        assert!(Instant::now() < deadline, "{:?}", relay.progress().report());
        deployment.click(&mut *worker, 16, 1);
        relay.run_once(50).await;
    }
    let published = relay.progress().report().published;
    deployment.click(&mut *worker, 16, 10);
    for _ in 0..10 {
        relay.run_once(20).await;
    }
    assert_eq!(relay.progress().report().published, published);
    shell(&format!("{control} set_vm_memory_high_watermark 0.4"));
    deployment.settle(&mut relay, &mut projector).await;
    deployment.clean().await;
}
