//! Which way clicks go, where they are counted, and what that takes besides terse's own processes.

use crate::Setup;
use crate::broker::Broker;
use crate::cluster::Keyspace;
use crate::drills::{FIRST_START_LIMIT, Form, Needs, Stage};

/// Which way clicks go, and where they are counted. Links are in a SQLite file in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::drills) enum Way {
    /// The journals are the log, the read model is a SQLite file.
    Local,
    /// Streams of a broker are the log, the read model is a SQLite file.
    Broker,
    /// Streams of a broker are the log, the read model is a keyspace of the cluster.
    Cluster,
}

impl Way {
    /// What has to be there for it.
    pub(super) const fn needs(self) -> Needs {
        match self {
            Self::Local => Needs::NOTHING,
            Self::Broker => Needs::NOTHING.and_broker(),
            Self::Cluster => Needs::CLUSTER.and_broker(),
        }
    }

    /// Clicks per second and visitors. The cluster shares its cores with everything else, and takes some thousands of
    /// operations a second.
    pub(super) fn pace(self, form: Form) -> (u32, u32) {
        match self {
            Self::Local | Self::Broker => form.pick((600, 12), (3_000, 24)),
            Self::Cluster => form.pick((300, 12), (500, 24)),
        }
    }

    /// How many links are clicked on.
    pub(super) fn links(self, form: Form) -> usize {
        match self {
            Self::Local | Self::Broker => form.pick(100, 500),
            Self::Cluster => form.pick(60, 200),
        }
    }
}

/// What a deployment needs besides its own processes. In a failing drill it outlives them.
pub(super) struct Backing {
    pub(super) broker: Option<Broker>,
    pub(super) keyspace: Option<Keyspace>,
}

impl Backing {
    /// Starts what `way` needs.
    pub(super) fn of(stage: &Stage<'_>, way: Way) -> Self {
        let broker = (way != Way::Local).then(Broker::start);
        let keyspace = (way == Way::Cluster).then(|| stage.cluster().keyspace("clicks").kept_on_failure());
        Self { broker, keyspace }
    }

    /// `setup` told of it.
    pub(super) fn tell(&self, setup: Setup) -> Setup {
        let setup = match &self.broker {
            Some(broker) => setup.env("TERSE_BUS", &broker.url()),
            None => setup,
        };
        match &self.keyspace {
            Some(keyspace) => setup.env("TERSE_STATS", &keyspace.store()).ready_within(FIRST_START_LIMIT),
            None => setup,
        }
    }
}
