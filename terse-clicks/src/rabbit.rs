//! RabbitMQ as the click log: a relay publishes sealed blocks to streams, and a log reads the streams.
//!
//! | module | what it owns |
//! |---|---|
//! | `connection` | how the broker is reached, and what each answer of it may take |
//! | `topology` | exchanges, streams and queues, declared again whenever a connection begins |
//! | `relay` | from the blocks of a data directory to the streams, until the broker has confirmed them |
//! | `guard` | not to publish more than the streams keep for a projector that is behind |
//! | `stream_log` | from the streams to the projector |
//! | `reading` | what that tells of itself |
//! | `extent` | from where to where streams reach |
//! | `events` | what happened to links, told to whoever wants to know |
//! | `dead` | messages that nobody can decode, for an operator |
//!
//! Nothing here waits without a bound, and nothing is given up: what the broker has not confirmed stays on disk. Both
//! ends of a connection that breaks begin again by themselves, with waits that grow and are spread.

mod connection;
pub mod dead;
pub mod events;
mod extent;
mod guard;
mod reading;
mod relay;
mod stream_log;
mod topology;

pub use self::connection::{BrokerConfig, MAX_PARTITIONS, RabbitError};
pub use self::extent::{Extent, extents};
pub use self::guard::{BLIND_MS, CheckpointNeeds, LOOK_MS, Needs, SHORT_LOOK_MS};
pub use self::reading::{ReadingReport, StreamReading};
pub use self::relay::{MAX_JOURNALS, Relay, RelayConfig, RelayProgress, RelayReport, RelayStep};
pub use self::stream_log::{ANCHOR_MS, PREFETCH, StreamLog};
