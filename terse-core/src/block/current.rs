//! The hosts that are blocked at this moment: those of the operator's file, and
//! those that admins block while servers run.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use url::Host;

use super::{BlockList, BlockedHost};
use crate::link::LinkState;
use crate::ports::Lookup;
use crate::target::host_named;
use crate::{Resolution, TargetUrl};

/// Two lists that are looked into at any time and replaced while they are.
///
/// Nobody who reads waits. Redirects from memory don't look here at all: what they answer is decided when a link
/// comes into memory, and once more when a list was replaced; whoever replaces one sees to that.
#[derive(Default)]
pub struct BlockedHosts {
    lists: ArcSwap<Lists>,
}

#[derive(Clone, Default)]
struct Lists {
    file: Arc<BlockList>,
    shared: Arc<BlockList>,
}

impl BlockedHosts {
    /// Replaces what the operator's file has.
    pub fn set_file(&self, list: BlockList) {
        let file = Arc::new(list);
        self.lists.rcu(|lists| Lists { file: Arc::clone(&file), shared: Arc::clone(&lists.shared) });
    }

    /// Replaces what admins block, on all servers.
    pub fn set_shared(&self, list: BlockList) {
        let shared = Arc::new(list);
        self.lists.rcu(|lists| Lists { file: Arc::clone(&lists.file), shared: Arc::clone(&shared) });
    }

    /// How many hosts the file has, and how many admins block.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        let lists = self.lists.load();
        (lists.file.len(), lists.shared.len())
    }

    /// Whether no host is blocked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// Whether `target` leads to a blocked host.
    #[must_use]
    pub fn blocks(&self, target: &TargetUrl) -> bool {
        let lists = self.lists.load();
        let empty = lists.file.is_empty() && lists.shared.is_empty();
        !empty && target.host().is_some_and(|host| lists.holds(&host))
    }

    /// Whether `host` is blocked, by itself or by a domain that it is beneath.
    #[must_use]
    pub fn covers(&self, host: &BlockedHost) -> bool {
        host_named(host.as_str()).is_some_and(|host| self.holds(&host))
    }

    /// The state that a redirect takes `link` to be in.
    #[must_use]
    pub fn state_of(&self, link: &Resolution) -> LinkState {
        if link.state == LinkState::Active && self.blocks(&link.target) { LinkState::Blocked } else { link.state }
    }

    /// `found` with a link that leads to a blocked host as a blocked one.
    #[must_use]
    pub fn judged(&self, mut found: Lookup) -> Lookup {
        if let Some(link) = &mut found.link {
            link.state = self.state_of(link);
        }
        found
    }

    /// Whether `host`, in the spelling in which hosts are compared, is blocked.
    pub(crate) fn holds(&self, host: &Host) -> bool {
        self.lists.load().holds(host)
    }
}

impl Lists {
    fn holds(&self, host: &Host) -> bool {
        self.file.holds(host) || self.shared.holds(host)
    }
}

impl fmt::Debug for BlockedHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, shared) = self.len();
        write!(f, "BlockedHosts({file} of a file, {shared} of admins)")
    }
}
