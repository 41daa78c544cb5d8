//! The hosts that admins block, without a store.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_core::ports::blocking::{BlockChange, HostBlocking};
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::{BlockedHost, BlockedHosts};

/// Most hosts that are blocked here.
pub(crate) const MOST: usize = 2;

/// Blocks hosts in the policy of one server.
#[derive(Default)]
pub(crate) struct Blocks {
    pub(crate) blocked: Arc<BlockedHosts>,
    hosts: Mutex<BTreeSet<BlockedHost>>,
    /// Fails every change from now on.
    pub(crate) fault: Mutex<Option<StoreErrorKind>>,
}

#[async_trait]
impl HostBlocking for Blocks {
    fn hosts(&self) -> Vec<BlockedHost> {
        self.hosts.lock().iter().cloned().collect()
    }

    fn covers(&self, host: &BlockedHost) -> bool {
        self.blocked.covers(host)
    }

    fn of_file(&self) -> usize {
        self.blocked.len().0
    }

    async fn change(&self, host: &BlockedHost, blocked: bool) -> Result<BlockChange, StoreError> {
        if let Some(kind) = *self.fault.lock() {
            return Err(StoreError::new(kind, "on purpose"));
        }
        let mut hosts = self.hosts.lock();
        if hosts.contains(host) == blocked {
            return Ok(BlockChange::AsItWas);
        }
        if blocked && hosts.len() == MOST {
            return Ok(BlockChange::Full);
        }
        if blocked {
            hosts.insert(host.clone());
        } else {
            hosts.remove(host);
        }
        self.blocked.set_shared(hosts.iter().cloned().collect());
        Ok(BlockChange::Changed)
    }
}
