//! Where the HTTP side of a shard meets its loop.

use std::rc::Rc;

use http::{Desk, NodeInfo};
use shards::command::{Answer, Command};
use shards::counter::Counter;

use crate::drain::House;

/// The desk of one shard.
#[derive(Debug)]
pub(crate) struct ShardDesk {
    counter: Rc<Counter>,
    house: House,
}

impl ShardDesk {
    pub(crate) fn new(counter: Rc<Counter>, house: House) -> Self {
        Self { counter, house }
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
}
