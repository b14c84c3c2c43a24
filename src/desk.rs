//! Where the HTTP side of a shard meets its loop.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use http::{Desk, NodeInfo, Process};
use shards::command::{Answer, Command};
use shards::counter::Counter;
use shards::snapshot::{ApiMeters, Snapshot};

use crate::drain::House;
use crate::process;

/// The desk of one shard.
#[derive(Debug)]
pub(crate) struct ShardDesk {
    counter: Rc<Counter>,
    house: House,
    /// When the process began, since 1970.
    began: Duration,
}

impl ShardDesk {
    pub(crate) fn new(counter: Rc<Counter>, house: House, began: Duration) -> Self {
        Self { counter, house, began }
    }
}

impl Desk for ShardDesk {
    async fn ask(&self, command: Command) -> Answer {
        self.counter.ask(command).await
    }

    fn node_info(&self) -> NodeInfo {
        NodeInfo {
            version: env!("CARGO_PKG_VERSION"),
            shards: self.counter.shards(),
            sessions: None,
            draining: self.house.is_leaving(),
        }
    }

    async fn survey(&self, until: impl Future<Output = ()>) -> Vec<Option<Snapshot>> {
        self.counter.survey(until).await
    }

    fn process(&self) -> Process {
        process::read(self.began)
    }

    fn meters(&self) -> &RefCell<ApiMeters> {
        self.counter.api()
    }
}
