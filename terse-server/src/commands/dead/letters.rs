//! What could not be counted with a message broker.

use std::collections::BTreeSet;
use std::future::Future;

use terse_clicks::rabbit::dead::{self, DeadLetter, MAX_LETTERS, Which};
use terse_clicks::rabbit::{BrokerConfig, RabbitError};

use super::{Desk, Entry, Outcome};
use crate::broker;
use crate::commands::in_runtime;
use crate::commands::shards::with_deployment;
use crate::config::Config;
use crate::exit::{Exit, StartError};

/// The dead-letter queue of a deployment.
pub(super) struct Letters<'a> {
    config: &'a Config,
}

impl<'a> Letters<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// The broker, if there is a deployment and so a queue.
    fn broker(&self) -> Result<Option<BrokerConfig>, StartError> {
        with_deployment(self.config, async |_, identity| match identity {
            Some(identity) => broker::settings(self.config, &identity),
            None => Ok(None),
        })
    }

    fn ask<T: Default, F: Future<Output = Result<T, RabbitError>>>(
        &self,
        question: impl FnOnce(BrokerConfig) -> F,
    ) -> Result<T, StartError> {
        let Some(broker) = self.broker()? else { return Ok(T::default()) };
        in_runtime(async { question(broker).await.map_err(|error| failed(&error)) })
    }

    fn letters(&self) -> Result<Vec<DeadLetter>, StartError> {
        self.ask(|broker| async move { dead::list(&broker, MAX_LETTERS).await })
    }
}

impl Desk for Letters<'_> {
    fn list(&self) -> Result<Vec<Entry>, StartError> {
        Ok(self.letters()?.into_iter().map(entry).collect())
    }

    fn requeue(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError> {
        let which = Which::These(ids.clone());
        let done = self.ask(|broker| async move { dead::requeue(&broker, &which).await })?;
        let foreign = ids.iter().filter(|id| !done.contains(*id)).cloned();
        let refused = foreign.map(|id| Outcome { id, refused: Some("it came from no stream of ours".to_owned()) });
        let refused: Vec<Outcome> = refused.collect();
        Ok(done.into_iter().map(|id| Outcome { id, refused: None }).chain(refused).collect())
    }

    fn discard(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError> {
        let which = Which::These(ids.clone());
        let done = self.ask(|broker| async move { dead::discard(&broker, &which).await })?;
        Ok(done.into_iter().map(|id| Outcome { id, refused: None }).collect())
    }
}

fn entry(letter: DeadLetter) -> Entry {
    let DeadLetter { id, reason, bytes, clicks, .. } = letter;
    Entry { id, kind: "message", reason, bytes: bytes as u64, clicks, since: None, requeued: false }
}

fn failed(error: &RabbitError) -> StartError {
    let exit = match error {
        RabbitError::Setting(_) => Exit::Config,
        RabbitError::Unavailable(_) | RabbitError::Topology(_) => Exit::Unavailable,
    };
    StartError::new(exit, error)
}
