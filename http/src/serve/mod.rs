//! Serving on a shard's executor: the only I/O and the only clock of this crate.
//!
//! Everything runs in the task queue [`Server::serve`] is called in, so that media preempts it.
//!
//! Invariants: one task per connection, at most [`limits::CONNECTIONS_PER_SHARD`]; no wait is
//! without an alarm; a connection's end is told to its peer (response, TLS goodbye, FIN)
//! before the socket is dropped, unless the peer is the reason.
//!
//! Not here: making sockets (the listener is handed in), what bytes mean.

mod gate;
mod link;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;

use futures_lite::{AsyncWriteExt, FutureExt, future};
use glommio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::alarms::{Alarm, Alarms};
use crate::api::Api;
use crate::auth::{Admin, Apps, Door};
use crate::desk::Desk;
use crate::limits::{self, Timing};
use crate::problem::Problem;
use crate::response::Closing;
use crate::tls::TlsConfig;
use gate::Gate;
use link::Link;

/// One shard's HTTP side.
#[derive(Debug)]
pub struct Server<D> {
    desk: Rc<D>,
    api: Api,
    timing: Timing,
    alarms: Rc<Alarms>,
    drain: Drain,
    /// Connections now.
    open: Cell<usize>,
    connections_max: usize,
    handshakes: Rc<Gate>,
    /// What a read brought. Shared, because it is used up before the next await.
    scratch: RefCell<Vec<u8>>,
}

/// A listener, and whether it speaks TLS.
#[derive(Debug)]
pub struct Port {
    /// Listening, with `SO_REUSEPORT` when other shards share its address; a blocking socket,
    /// as io_uring would return from an accept on another at once.
    pub listener: TcpListener,
    pub tls: Option<TlsConfig>,
}

/// Tells servers, from any thread, to finish. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<AtomicBool>);

impl Drain {
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<D: Desk> Server<D> {
    pub fn new(desk: Rc<D>, apps: Apps, admin: Admin, timing: Timing, drain: Drain) -> Self {
        Self {
            desk,
            api: Api::new(apps, admin),
            timing,
            alarms: Rc::default(),
            drain,
            open: Cell::new(0),
            connections_max: limits::CONNECTIONS_PER_SHARD,
            handshakes: Rc::new(Gate::new(limits::HANDSHAKES_PER_SHARD)),
            scratch: RefCell::new(vec![0; limits::READ_BYTES]),
        }
    }

    /// Takes fewer connections than the bound.
    #[must_use]
    pub fn with_connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max.min(limits::CONNECTIONS_PER_SHARD);
        self
    }

    /// Serves until drained: after [`Drain::begin`] nothing new is accepted, idle connections
    /// are closed, requests under way are answered; then, or after [`Timing::drain`], this ends.
    pub async fn serve(self, ports: Vec<Port>) {
        let server = Rc::new(self);
        for port in ports {
            glommio::spawn_local(server.clone().accept(port)).detach();
        }
        let mut give_up_at = None;
        loop {
            glommio::timer::sleep(server.timing.tick).await;
            let now = now();
            server.alarms.tick(now);
            match give_up_at {
                None if server.drain.has_begun() => {
                    debug!(connections = server.open.get(), "HTTP drains");
                    give_up_at = Some(now + server.timing.drain);
                    server.alarms.leave();
                }
                None => {}
                Some(_) if server.open.get() == 0 => return,
                Some(at) if at <= now => {
                    warn!(connections = server.open.get(), "HTTP connections cut");
                    server.alarms.cut();
                    return;
                }
                Some(_) => {}
            }
        }
    }

    fn set_open(&self, open: usize) {
        self.open.set(open);
        self.desk.meters().borrow_mut().connections = open as u64;
    }

    async fn accept(self: Rc<Self>, port: Port) {
        let alarm = self.alarms.register();
        let door = door(&port.listener);
        loop {
            let left = async {
                left(&alarm).await;
                None
            };
            let accepted = async { Some(port.listener.accept().await) };
            match future::or(left, accepted).await {
                None => return,
                Some(Ok(stream)) => self.admit(stream, port.tls.as_ref(), door).await,
                Some(Err(error)) => {
                    warn!(%error, "accepting failed");
                    glommio::timer::sleep(limits::ACCEPT_PAUSE).await;
                }
            }
            glommio::yield_if_needed().await;
        }
    }

    async fn admit(self: &Rc<Self>, mut stream: TcpStream, tls: Option<&TlsConfig>, door: Door) {
        let place = match Place::take(self) {
            Some(place) => place,
            None => {
                debug!("connection refused, too many");
                self.desk.meters().borrow_mut().connections_refused += 1;
                if tls.is_none() {
                    let mut bytes = Vec::new();
                    Problem::Crowded.response().write(&mut bytes, Closing::Close, false);
                    // What does not fit the socket's empty buffer is not worth a wait.
                    let _ = future::poll_once(stream.write_all(&bytes)).await;
                }
                return;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "connection lost before it was served");
            return;
        }
        let config = tls.map(TlsConfig::current);
        let server = self.clone();
        let serving = async move {
            let _place = place;
            match Link::new(server, stream, config, door) {
                Ok(link) => link.run().await,
                Err(error) => warn!(%error, "TLS cannot begin"),
            }
        };
        // A panic ends its connection: in the executor it would end the shard.
        let contained = AssertUnwindSafe(serving).catch_unwind();
        let ended = async move {
            if contained.await.is_err() {
                warn!("a connection failed inside and was ended");
            }
        };
        glommio::spawn_local(ended).detach();
    }
}

/// Who can come in there. A listener that does not tell is open to all.
fn door(listener: &TcpListener) -> Door {
    match listener.local_addr() {
        Ok(bound) if bound.ip().to_canonical().is_loopback() => Door::Loopback,
        Ok(_) | Err(_) => Door::Network,
    }
}

/// A connection's place among those allowed.
struct Place<D: Desk>(Rc<Server<D>>);

impl<D: Desk> Place<D> {
    fn take(server: &Rc<Server<D>>) -> Option<Self> {
        let open = server.open.get();
        (open < server.connections_max).then(|| {
            server.set_open(open + 1);
            Self(server.clone())
        })
    }
}

impl<D: Desk> Drop for Place<D> {
    fn drop(&mut self) {
        self.0.set_open(self.0.open.get() - 1);
    }
}

/// Waits until the node leaves.
async fn left(alarm: &Alarm) {
    poll_fn(|cx| {
        if alarm.is_leaving() {
            return Poll::Ready(());
        }
        alarm.listen(cx.waker());
        Poll::Pending
    })
    .await;
}

fn now() -> Instant {
    Instant::now()
}
