//! What `/health` and `/metrics` tell of the message broker, of what is on its way there, and of what is read from it.
//!
//! A report costs nothing: it tells what the relay and the reader of streams noted of themselves.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_clicks::rabbit::{RelayReport, StreamReading};
use terse_core::metrics::{BusGauges, Metrics, PartsCounted, StoppedAt};
use terse_core::ports::{DependencyHealth, Observation};

use super::projection::Supervised;
use super::relaying::Relayed;

/// The reader of streams that a process has now; another projector has another one.
#[derive(Default)]
pub(super) struct Reader(Mutex<Arc<StreamReading>>);

impl Reader {
    /// From now on this is it.
    pub(super) fn is(&self, reading: Arc<StreamReading>) {
        *self.0.lock() = reading;
    }

    fn is_connected(&self) -> bool {
        self.0.lock().report().connected
    }
}

/// Whether the broker is in reach, and whether it takes what is published. Cloning shares it.
#[derive(Clone)]
pub(super) struct BusHealth {
    /// `None` = this process doesn't publish.
    pub(super) relayed: Option<Arc<Relayed>>,
    /// `None` = this process doesn't count.
    pub(super) reader: Option<(Arc<Reader>, Arc<Supervised>)>,
}

impl BusHealth {
    /// Whether the reader has a connection. One that stands by has none, and needs none.
    fn reads(&self) -> Option<bool> {
        let (reader, counting) = self.reader.as_ref()?;
        (counting.report().held > 0).then(|| reader.is_connected())
    }

    /// Brings the metrics up to date.
    pub(super) fn show(&self, metrics: &Metrics) {
        let gauges: &BusGauges = metrics.bus();
        if let Some(relayed) = &self.relayed {
            let report = relayed.report();
            gauges.relay_connected(report.connected);
            gauges.relay_held(report.held);
            gauges.parts_waiting(report.waiting);
            metrics.clicks_stopped(StoppedAt::Relay, report.stopped);
            let RelayReport { published, confirmed, returned, refused, .. } = report;
            gauges.parts(&PartsCounted { published, confirmed, returned, refused });
        }
        if let Some((_, counting)) = &self.reader {
            gauges.reader_connected(self.reads().unwrap_or(false));
            let report = counting.report();
            gauges.partitions_held(report.held);
            gauges.dead_letters(report.dead_letters);
        }
    }
}

#[async_trait]
impl DependencyHealth for BusHealth {
    fn name(&self) -> &'static str {
        "bus"
    }

    async fn check(&self) -> Result<(), String> {
        if let Some(relayed) = self.relayed.as_ref().filter(|relayed| !relayed.stands_by()) {
            if !relayed.lives() {
                return Err("publishing has stopped: the relay dies and is started again; the log says why".to_owned());
            }
            if !relayed.report().connected {
                return Err("the message broker is out of reach: clicks stay on disk".to_owned());
            }
        }
        match self.reads() {
            Some(false) => Err("the message broker is out of reach: clicks are not counted".to_owned()),
            _ => Ok(()),
        }
    }

    fn observe(&self) -> Vec<Observation> {
        let of = |name, value, unit, trouble| Observation { name, value, unit, trouble, detail: None };
        let mut observed = Vec::new();
        if let Some(relayed) = &self.relayed {
            let report = relayed.report();
            let flag = |name, is: bool, trouble| of(name, u64::from(is), "relays", is.then_some(trouble));
            observed.push(of("waiting", report.waiting, "parts", None));
            observed.push(flag("held", report.held && report.connected, "held"));
            observed.push(flag("blocked", report.blocked, "blocked"));
            observed.push(of("stopped", report.stopped, "journals", (report.stopped > 0).then_some("stopped")));
        }
        if let Some((_, counting)) = &self.reader {
            let report = counting.report();
            observed.push(of("partitions", report.held, "partitions", None));
            observed.push(of("dead", report.dead_letters, "messages", None));
        }
        observed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(health: &BusHealth) -> Vec<(&'static str, u64, Option<&'static str>)> {
        health.observe().iter().map(|of| (of.name, of.value, of.trouble)).collect()
    }

    #[tokio::test]
    async fn a_process_tells_of_its_side_of_the_broker() {
        let publishes = BusHealth { relayed: Some(Arc::default()), reader: None };
        assert!(publishes.check().await.unwrap_err().contains("publishing has stopped"), "there is no relay yet");
        assert_eq!(
            told(&publishes),
            [("waiting", 0, None), ("held", 0, None), ("blocked", 0, None), ("stopped", 0, None)]
        );
        let stands_by = BusHealth { relayed: None, reader: Some((Arc::default(), Arc::default())) };
        assert_eq!(stands_by.check().await, Ok(()), "who holds no partition needs no connection");
        assert_eq!(told(&stands_by), [("partitions", 0, None), ("dead", 0, None)]);
    }
}
