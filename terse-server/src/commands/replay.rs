//! `terse replay`: a read model built anew from what the click log retains, and compared with the deployment's.
//!
//! It works beside running servers and touches nothing of theirs: journals and streams are only read, a read model in a
//! file is only copied. To compare two read models they must include the same clicks, and the deployment's never stands
//! still. So the log is projected up to what the deployment's includes and no further: of journals ([`journals`]) and of a
//! file that is what a *copy* of one moment includes; of streams and a keyspace ([`streams`]) each row says what it includes.
//!
//! Bounds: [`MAX_IDLE_STEPS`] and [`MAX_FAULTS`] of the projection, and those of [`compare`].

mod compare;
mod journals;
mod model;
mod paced;
mod streams;
mod until;

use std::sync::Arc;
use std::time::Duration;

use terse_clicks::log::{ClickLog, LogError};
use terse_clicks::projector::{Projector, ProjectorConfig, ProjectorError, Step};
use terse_core::ports::clicks::Bus;

use self::compare::Comparison;
use self::model::{Opened, Target};
use super::{in_runtime, say};
use crate::cli::ReplayOrder;
use crate::clicks;
use crate::config::Config;
use crate::config::clicks::BusConfig;
use crate::exit::{Exit, StartError};
use crate::telemetry;
use crate::world::World;

/// How long one step waits for the log, in milliseconds.
const WAIT_MS: u64 = 500;
/// After so many steps in a row that found nothing, what is left is not there. A broker may take its time.
const MAX_IDLE_STEPS: u32 = 20;
/// So many steps may fail, all in all.
const MAX_FAULTS: u32 = 20;

/// Builds the read model, and compares it if that is wanted.
pub(super) fn replay(config: &Config, order: &ReplayOrder) -> Result<(), StartError> {
    let into = Target::parse(config, &order.into)?;
    telemetry::start(&config.log.filter, config.log.format)?;
    in_runtime(async {
        match (&config.clicks.bus, order.verify) {
            (BusConfig::Local, true) => journals::verify(config, &into).await,
            (BusConfig::Local, false) => journals::build(config, &into).await,
            (BusConfig::Amqp(_), verify) => streams::replay(config, &into, verify).await,
        }
    })
}

/// What projects `log` onto `fresh`.
async fn projector(config: &Config, bus: Bus, log: Box<dyn ClickLog>, fresh: &Opened) -> Result<Projector, StartError> {
    let world = World::real();
    let projector = Projector::new(
        ProjectorConfig { one_lease: true, ..ProjectorConfig::new(bus, format!("replay {}", std::process::id())) },
        log,
        fresh.read_model(),
        clicks::enrichment(config)?,
        Arc::clone(&world.clock),
        world.entropy.as_ref(),
    );
    projector.map_err(|error| StartError::new(Exit::Internal, error))
}

/// Runs `projector` until it `is_there`, or nothing comes any more, and writes all of it.
async fn run(projector: &mut Projector, is_there: impl Fn() -> bool) -> Result<(), StartError> {
    let failed = |error: ProjectorError| StartError::new(Exit::Internal, error);
    let (mut idle, mut faults) = (0, 0);
    while !is_there() && idle < MAX_IDLE_STEPS && faults < MAX_FAULTS {
        let step = projector.run_once(WAIT_MS).await.map_err(failed)?;
        idle = if step.taken == 0 && !step.wrote { idle + 1 } else { 0 };
        faults += pause(step).await;
    }
    // What was taken last may not be added yet.
    faults += pause(projector.run_once(0).await.map_err(failed)?).await;
    loop {
        let failure = pause(projector.write_now().await.map_err(failed)?).await;
        faults += failure;
        if failure == 0 || faults >= MAX_FAULTS {
            break;
        }
    }
    if projector.progress().report().superseded > 0 {
        return Err(StartError::config("--into: somebody else writes there"));
    }
    Ok(())
}

/// Waits as `step` asks to; 1 after a fault.
async fn pause(step: Step) -> u32 {
    if step.pause_ms == 0 {
        return 0;
    }
    tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
    1
}

fn verdict(compared: &Comparison) -> Result<(), StartError> {
    match compared.different() {
        0 => Ok(()),
        rows => {
            let text = format!("rows of the read model that are not what the click log says: {rows}");
            Err(StartError::new(Exit::Different, text))
        }
    }
}

async fn check_bus(live: &Opened, asked: Bus) -> Result<(), StartError> {
    let stands = live.read_model().settle_bus(asked).await.map_err(|error| clicks::failed(&error))?;
    let other = ProjectorError::OtherBus { stands, asked };
    if stands == asked { Ok(()) } else { Err(StartError::config(other)) }
}

fn unreadable(error: &LogError) -> StartError {
    StartError::new(Exit::Io, error)
}
