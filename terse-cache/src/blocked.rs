//! Which hosts are blocked, and how memory is brought in step with that.
//!
//! What is in memory was judged when it came. So when a list is replaced, all of
//! it is judged anew, off the web workers: the list takes effect first; then
//! whoever was about to put something into memory by the old one has done so;
//! and then each link that would be judged otherwise is. In between, for the time of one walk through
//! memory (some 0.2 s for 400,000 links), memory answers by either list.

use std::sync::Arc;

use terse_core::{BlockList, BlockedHosts};

use crate::ReadThrough;

impl ReadThrough {
    /// Which hosts are blocked. Lists are replaced by [`block_file`](Self::block_file) and
    /// [`block_shared`](Self::block_shared) alone.
    #[must_use]
    pub fn blocked(&self) -> &Arc<BlockedHosts> {
        self.memory.blocked()
    }

    /// Replaces the hosts of the operator's file. Returns how many links in memory that concerned. It takes its time,
    /// so it is not for a web worker.
    pub fn block_file(&self, list: BlockList) -> usize {
        self.blocked().set_file(list);
        self.judge_anew()
    }

    /// The same for the hosts that admins block.
    pub fn block_shared(&self, list: BlockList) -> usize {
        self.blocked().set_shared(list);
        self.judge_anew()
    }

    fn judge_anew(&self) -> usize {
        // Links come into memory under the lock of their stripe.
        self.stripes.pass();
        let misjudged = self.memory.misjudged();
        for code in &misjudged {
            let _stripe = self.stripes.lock(code);
            self.memory.rejudge(code);
        }
        self.memory.forget_outdated();
        misjudged.len()
    }
}
