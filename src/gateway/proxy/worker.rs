//! One thread of the data path: its pool of connections, its tasks, and the gateway that all share.

use std::{rc::Rc, sync::Arc};

use super::{deadlines::Deadlines, upstream::Pool};
use crate::gateway::{access_log::AccessLog, shared::Gateway};

/// See the module. Lives on one thread.
pub struct Worker {
    /// What all threads share.
    pub gateway: Arc<Gateway>,
    /// Connections to endpoints.
    pub(super) pool: Rc<Pool>,
    /// When requests have to have their answer.
    pub(super) deadlines: Deadlines,
    /// Where lines go.
    pub log: AccessLog,
}

impl Worker {
    /// For the current thread.
    pub fn new(gateway: Arc<Gateway>, log: AccessLog) -> Rc<Self> {
        let pool = Pool::new(gateway.clock, Arc::clone(&gateway.metrics));
        Rc::new(Self { gateway, pool, deadlines: Deadlines::default(), log })
    }

    /// Ends what has waited too long, and closes what idled too long and what nobody may idle on: connections to
    /// pods that leave.
    pub fn sweep(&self) {
        self.deadlines.expire(self.gateway.clock.now());
        let snapshot = self.gateway.snapshot.load();
        let mut stay = Vec::new();
        for fleet in &snapshot.fleets {
            for endpoint in &fleet.view().endpoints {
                if !endpoint.leaving.is_cancelled() {
                    stay.push(endpoint.serial);
                }
            }
        }
        stay.sort_unstable();
        self.pool.sweep(|serial| stay.binary_search(&serial).is_err());
    }
}
