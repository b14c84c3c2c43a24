//! What the conductor asks of the workers, and the peer as it sees it: a hand that gives orders
//! and gets answers.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use tokio::sync::oneshot;

use crate::api::{Cause, Endpoint, Failure, LineWish, Offer};
use crate::probe::Published;
use crate::report::tally::Tally;

/// A peer of a worker: its place, and how many had that place before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerId {
    pub place: u32,
    pub generation: u32,
}

type Reply<T> = oneshot::Sender<T>;

/// To a worker.
#[derive(Debug)]
pub enum Order {
    Open {
        seed: u64,
        reply: Reply<Result<PeerId, Failure>>,
    },
    Offer {
        peer: PeerId,
        lines: Vec<LineWish>,
        reply: Reply<Result<Offer, Failure>>,
    },
    OfferRestart {
        peer: PeerId,
        reply: Reply<Result<Offer, Failure>>,
    },
    Accept {
        peer: PeerId,
        sdp: String,
        reply: Reply<Result<(), Failure>>,
    },
    Answer {
        peer: PeerId,
        sdp: String,
        reply: Reply<Result<String, Failure>>,
    },
    /// This line carries that track.
    Expect {
        peer: PeerId,
        mid: String,
        track: u32,
    },
    /// Publish, or stop.
    Publish {
        peer: PeerId,
        on: bool,
    },
    /// Nobody publishes any more.
    Hush,
    /// What is published here.
    Published {
        reply: Reply<Published>,
    },
    /// The measurement begins. With what all workers have published.
    Begin {
        published: Arc<Published>,
    },
    /// It ends: what is missing from before now is lost when the books are closed.
    DrawLine {
        published: Arc<Published>,
    },
    /// How many packets from before the line are waited for, though none came after them.
    Lacking {
        reply: Reply<u64>,
    },
    /// Count what stopped during the measurement.
    CountStopped,
    /// Count what is missing from before the line.
    CloseBooks,
    /// From now on the server may end it.
    Leave {
        peer: PeerId,
    },
    /// Answer once the transport stands, or cannot any more.
    WhenConnected {
        peer: PeerId,
        reply: Reply<Result<(), Failure>>,
    },
    /// Answer once all that is expected has begun to flow.
    WhenFlowing {
        peer: PeerId,
        reply: Reply<()>,
    },
    /// Answer once media arrives that was sent after this order.
    WhenMediaAgain {
        peer: PeerId,
        reply: Reply<()>,
    },
    /// Why it is not connected.
    Obstacle {
        peer: PeerId,
        reply: Reply<Failure>,
    },
    /// Go on from another port, as behind a NAT that rebinds.
    Rebind {
        peer: PeerId,
    },
    /// End it, with or without a goodbye.
    Close {
        peer: PeerId,
        goodbye: bool,
    },
    /// What was counted since the last time.
    Count {
        reply: Reply<Counted>,
    },
    Stop,
}

/// What a worker counted and cost since the last time.
#[derive(Debug)]
pub struct Counted {
    pub tally: Tally,
    pub cpu: Duration,
}

/// Gives orders to one worker.
#[derive(Debug, Clone)]
pub struct Line {
    pub(super) orders: Sender<Order>,
    pub(super) bell: Arc<EventFd>,
}

impl Line {
    /// Orders to a worker that is gone are lost; whoever waits for its answer is told.
    pub fn give(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // A full counter means that it rings already.
            let _ = self.bell.write(1);
        }
    }

    /// Gives an order and waits for its answer.
    pub async fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.give(order(reply));
        answer.await.map_err(|_| gone())
    }

    pub async fn open(&self, seed: u64) -> Result<Hand, Failure> {
        let peer = self.ask(|reply| Order::Open { seed, reply }).await??;
        Ok(Hand { line: self.clone(), peer })
    }
}

/// One peer, as the conductor holds it. Dropping it ends the peer without a goodbye.
#[derive(Debug)]
pub struct Hand {
    line: Line,
    peer: PeerId,
}

impl Hand {
    pub fn expect(&self, mid: &str, track: u32) {
        self.line.give(Order::Expect { peer: self.peer, mid: mid.to_owned(), track });
    }

    pub fn publish(&self, on: bool) {
        self.line.give(Order::Publish { peer: self.peer, on });
    }

    pub fn rebind(&self) {
        self.line.give(Order::Rebind { peer: self.peer });
    }

    /// To be said before the API is told, or the server's goodbye counts as a failure.
    pub fn leave(&self) {
        self.line.give(Order::Leave { peer: self.peer });
    }

    pub fn goodbye(&self) {
        self.line.give(Order::Close { peer: self.peer, goodbye: true });
    }

    /// Until the transport stands; why it does not after `patience`.
    pub async fn connected(&self, patience: Duration) -> Result<(), Failure> {
        let peer = self.peer;
        let wait = self.line.ask(|reply| Order::WhenConnected { peer, reply });
        match tokio::time::timeout(patience, wait).await {
            Ok(result) => result?,
            Err(_) => Err(self.line.ask(|reply| Order::Obstacle { peer, reply }).await?),
        }
    }

    /// Until everything expected flows.
    pub async fn flowing(&self, patience: Duration) -> Result<(), Failure> {
        let peer = self.peer;
        let wait = self.line.ask(|reply| Order::WhenFlowing { peer, reply });
        let none = || Failure::new(Cause::NoMedia, "connected, but a pulled track did not begin");
        tokio::time::timeout(patience, wait).await.map_err(|_| none())?
    }

    /// Until media arrives again.
    pub async fn media_again(&self, patience: Duration) -> Result<(), Failure> {
        let peer = self.peer;
        let wait = self.line.ask(|reply| Order::WhenMediaAgain { peer, reply });
        let none = || Failure::new(Cause::NoMedia, "media did not come back after the move");
        tokio::time::timeout(patience, wait).await.map_err(|_| none())?
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.line.give(Order::Close { peer: self.peer, goodbye: false });
    }
}

impl Endpoint for Hand {
    async fn offer(&self, lines: Vec<LineWish>) -> Result<Offer, Failure> {
        let peer = self.peer;
        self.line.ask(|reply| Order::Offer { peer, lines, reply }).await?
    }

    async fn offer_restart(&self) -> Result<Offer, Failure> {
        let peer = self.peer;
        self.line.ask(|reply| Order::OfferRestart { peer, reply }).await?
    }

    async fn accept(&self, sdp: String) -> Result<(), Failure> {
        let peer = self.peer;
        self.line.ask(|reply| Order::Accept { peer, sdp, reply }).await?
    }

    async fn answer(&self, sdp: String) -> Result<String, Failure> {
        let peer = self.peer;
        self.line.ask(|reply| Order::Answer { peer, sdp, reply }).await?
    }
}

fn gone() -> Failure {
    Failure::new(Cause::Local, "the peer, or its worker, is gone")
}
