//! The port through which admins block hosts while servers run.

use async_trait::async_trait;

use super::StoreError;
use crate::BlockedHost;

/// What became of [`HostBlocking::change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockChange {
    /// The list is as it was asked for, durably, and was not before.
    Changed,
    /// The list was so already.
    AsItWas,
    /// The list has as many hosts as it may have; nothing changed.
    Full,
}

/// The hosts that admins block, shared by all servers of the deployment.
#[async_trait]
pub trait HostBlocking: Send + Sync + 'static {
    /// The hosts as this server knows them, in order.
    fn hosts(&self) -> Vec<BlockedHost>;

    /// Whether this server blocks links to `host`: for its own sake, for a domain above it, or by the operator's file.
    fn covers(&self, host: &BlockedHost) -> bool;

    /// How many hosts the operator's file has on this server.
    fn of_file(&self) -> usize;

    /// Blocks `host`, or lets it go. After that this server answers by it, and the others within a second.
    ///
    /// # Errors
    /// [`StoreError`]; the change may have been made nevertheless. Asking again does no harm.
    async fn change(&self, host: &BlockedHost, blocked: bool) -> Result<BlockChange, StoreError>;
}
