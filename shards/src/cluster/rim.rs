//! The hub's task on its shard's executor: moves datagrams between the cluster socket and the
//! [`Cluster`], and what that asks for to the shard's loop.
//!
//! Invariants: nothing is awaited while the cluster is borrowed; the socket is read by a task that
//! is never interrupted, so that no datagram is lost to a timer.
//!
//! Not here: decisions.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::net::UdpSocket;
use relay::hub::Transmit;
use relay::members::Load;

use super::view::ClusterView;
use super::{Cluster, HUB_SHARD, Output};
use crate::command::{Command, Refusal};
use crate::counter::Counter;
use crate::ids::ShardId;
use crate::io::clock;
use crate::mail::{Mail, Ticket};
use crate::snapshot::Snapshot;

/// The longest datagram there is.
const DATAGRAM_MAX: usize = 64 << 10;

/// How late it is noticed that the node leaves, or that seeds resolve to other addresses.
const LOOK: Duration = Duration::from_millis(250);

/// How often the load is told to the hub, which tells the others of what matters.
const LOADS: Duration = Duration::from_secs(2);

/// For every shard to say how loaded it is.
const SURVEY_MAX: Duration = Duration::from_secs(1);

/// How long a leaving node waits for calls of others that are under way.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// How often it looks meanwhile.
const FAREWELL_LOOK: Duration = Duration::from_millis(20);

/// After a failed read (the kernel is out of memory, or ICMP says so), how long until the next.
const READ_PAUSE: Duration = Duration::from_millis(10);

/// Where the shard's loop and the hub's task meet.
pub struct Post {
    cluster: RefCell<Cluster>,
    counter: Rc<Counter>,
    mail: RefCell<Vec<(ShardId, Mail)>>,
    task: RefCell<Option<Waker>>,
    /// The task has something to do.
    due: Cell<bool>,
    /// The shard's loop has ended.
    alone: Cell<bool>,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.cluster.borrow().fmt(f)
    }
}

impl Post {
    /// `counter` is that of the shard that has the hub.
    pub fn new(cluster: Cluster, counter: Rc<Counter>) -> Self {
        Self {
            cluster: RefCell::new(cluster),
            counter,
            mail: RefCell::default(),
            task: RefCell::default(),
            due: Cell::new(true),
            alone: Cell::new(false),
        }
    }

    /// A command for a session of another node.
    pub fn call(&self, ticket: Ticket, command: Command) {
        self.cluster.borrow_mut().handle_call(clock::now(), ticket, command);
        self.wake();
    }

    /// What a shard has for the hub. Other mail is not for it.
    pub fn handle_mail(&self, from: ShardId, mail: Mail) {
        let now = clock::now();
        let mut cluster = self.cluster.borrow_mut();
        match mail {
            Mail::LinkWanted { far, wanted } => cluster.handle_link_wanted(now, from, far, wanted),
            Mail::ToNode { node, epoch, letter } => {
                cluster.handle_letter(now, node, epoch, &letter);
            }
            Mail::LinkSilent { node, epoch } => cluster.handle_link_silent(now, node, epoch),
            Mail::ForHub { source, bytes } => cluster.handle_datagram(now, source, &bytes),
            _ => return,
        }
        drop(cluster);
        self.wake();
    }

    /// Mail for shards, this one among them, since the last call.
    pub fn take_mail(&self) -> Vec<(ShardId, Mail)> {
        self.mail.take()
    }

    /// What there is to show.
    pub fn view(&self) -> ClusterView {
        self.cluster.borrow().view()
    }

    /// Takes part in the cluster until `leaving` says so. `seeds` brings what their names resolve
    /// to, each time they were asked.
    pub async fn run(
        self: Rc<Self>,
        socket: UdpSocket,
        seeds: Receiver<Vec<SocketAddr>>,
        leaving: impl Fn() -> bool,
    ) {
        let socket = Rc::new(socket);
        let reading = glommio::spawn_local(self.clone().read(socket.clone()));
        let looking = glommio::spawn_local(self.clone().tell_loads());
        while !leaving() {
            while let Ok(found) = seeds.try_recv() {
                self.cluster.borrow_mut().set_seeds(&found);
            }
            self.turn(&socket).await;
            let timeout = self.cluster.borrow().timeout();
            self.wait(timeout).await;
        }
        self.leave(&socket).await;
        looking.cancel().await;
        reading.cancel().await;
    }

    async fn turn(self: &Rc<Self>, socket: &UdpSocket) {
        let now = clock::now();
        {
            let mut cluster = self.cluster.borrow_mut();
            if cluster.timeout().is_some_and(|at| at <= now) {
                cluster.handle_timeout(now);
            }
        }
        self.deliver();
        loop {
            let transmit = self.cluster.borrow_mut().poll_transmit(now);
            let Some(transmit) = transmit else { break };
            send(socket, &transmit).await;
        }
        // Sending may have told of lost connections.
        self.deliver();
    }

    async fn wait(&self, timeout: Option<Instant>) {
        let now = clock::now();
        let until = timeout.map_or(LOOK, |at| at.saturating_duration_since(now).min(LOOK));
        let woken = poll_fn(|cx| {
            if self.due.replace(false) {
                return Poll::Ready(());
            }
            *self.task.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        });
        woken.or(glommio::timer::sleep(until)).await;
    }

    /// Hands on what the cluster wants to have done.
    fn deliver(self: &Rc<Self>) {
        let mut posted = false;
        loop {
            let output = self.cluster.borrow_mut().poll_output();
            let Some(output) = output else { break };
            match output {
                Output::Answer { ticket, answer } if ticket.shard == HUB_SHARD => {
                    self.counter.settle(ticket, answer);
                }
                Output::Answer { ticket, answer } => {
                    let mail = Mail::Answer { ticket, answer: Box::new(answer) };
                    self.mail.borrow_mut().push((ticket.shard, mail));
                    posted = true;
                }
                Output::Serve { node, number, command } => {
                    let post = self.clone();
                    let serving = async move {
                        let answer = if post.alone.get() {
                            Err(Refusal::Unreachable)
                        } else {
                            post.counter.ask(command).await
                        };
                        let now = clock::now();
                        post.cluster.borrow_mut().handle_served(now, node, number, answer);
                        post.wake();
                    };
                    glommio::spawn_local(serving).detach();
                }
                Output::Nodes(nodes) => {
                    let nodes = Arc::new(nodes);
                    self.tell_all(|| Mail::Nodes(nodes.clone()));
                    posted = true;
                }
                Output::Linked(shard, linked) => {
                    self.mail.borrow_mut().push((shard, Mail::Linked(Box::new(linked))));
                    posted = true;
                }
                Output::Unlinked { node } => {
                    self.tell_all(|| Mail::Unlinked { node });
                    posted = true;
                }
                Output::Mtu { node, mtu } => {
                    self.tell_all(|| Mail::Mtu { node, mtu });
                    posted = true;
                }
                Output::Letter { to, node, letter } => {
                    self.mail.borrow_mut().push((to, Mail::FromNode { node, letter }));
                    posted = true;
                }
            }
        }
        if posted {
            self.counter.nudge();
        }
    }

    fn tell_all(&self, mail: impl Fn() -> Mail) {
        let shards = (0..self.counter.shards()).map(|shard| ShardId(shard as u8));
        self.mail.borrow_mut().extend(shards.map(|shard| (shard, mail())));
    }

    /// The shards leave at the same time, and with them their sessions.
    async fn leave(self: &Rc<Self>, socket: &UdpSocket) {
        self.alone.set(true);
        self.cluster.borrow_mut().begin_leave(clock::now());
        let end = clock::now() + FAREWELL_MAX;
        loop {
            self.turn(socket).await;
            if self.cluster.borrow().serving() == 0 || clock::now() >= end {
                break;
            }
            glommio::timer::sleep(FAREWELL_LOOK).await;
        }
        self.cluster.borrow_mut().give_up(clock::now());
        self.turn(socket).await;
        self.cluster.borrow_mut().leave(clock::now());
        self.turn(socket).await;
    }

    async fn read(self: Rc<Self>, socket: Rc<UdpSocket>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, from)) => {
                    let now = clock::now();
                    self.cluster.borrow_mut().handle_datagram(now, from, &buffer[..length]);
                    self.wake();
                }
                Err(error) => {
                    tracing::debug!(%error, "the cluster socket could not be read");
                    glommio::timer::sleep(READ_PAUSE).await;
                }
            }
            glommio::yield_if_needed().await;
        }
    }

    /// Tells the hub how loaded the node is.
    async fn tell_loads(self: Rc<Self>) {
        let mut before: Vec<Option<Duration>> = Vec::new();
        let mut last = clock::now();
        loop {
            let until = async { glommio::timer::sleep(SURVEY_MAX).await };
            let shards = self.counter.survey(until).await;
            let now = clock::now();
            let load = load(&shards, &before, now.saturating_duration_since(last));
            self.cluster.borrow_mut().set_load(now, load);
            self.wake();
            before = shards.iter().map(|shard| shard.as_ref().map(|found| found.cpu)).collect();
            last = now;
            glommio::timer::sleep(LOADS).await;
        }
    }

    fn wake(&self) {
        self.due.set(true);
        if let Some(task) = self.task.borrow_mut().take() {
            task.wake();
        }
    }
}

/// Of all shards together, but CPU time, which is the busiest's since `before`.
fn load(shards: &[Option<Snapshot>], before: &[Option<Duration>], over: Duration) -> Load {
    let sum = |of: fn(&Snapshot) -> usize| shards.iter().flatten().map(of).sum::<usize>() as u32;
    let busy = shards.iter().zip(before).filter_map(|(shard, before)| {
        let used = shard.as_ref()?.cpu.saturating_sub((*before)?);
        (used.as_micros() * 1000).checked_div(over.as_micros())
    });
    Load {
        sessions: sum(|shard| shard.holdings.sessions),
        pulls: sum(|shard| shard.holdings.pulls),
        cpu_permille: busy.max().map_or(0, |permille| permille.min(1000) as u16),
        draining: false,
    }
}

async fn send(socket: &UdpSocket, transmit: &Transmit) {
    let each = transmit.segment.unwrap_or(transmit.bytes.len()).max(1);
    for datagram in transmit.bytes.chunks(each) {
        // Lost, as on the way: too long for the path, or nobody there.
        if let Err(error) = socket.send_to(datagram, transmit.to).await {
            tracing::debug!(%error, "a datagram to a node could not be sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meters::Holdings;

    #[test]
    fn a_node_is_as_loaded_as_its_shards_together_and_its_busiest_core() {
        let shard = |sessions, cpu| {
            let holdings = Holdings { sessions, tracks: 0, pulls: 2 };
            Some(Snapshot { holdings, cpu: Duration::from_millis(cpu), ..Snapshot::default() })
        };
        let shards = [shard(3, 1500), None, shard(4, 1100)];
        let before = [Some(Duration::from_secs(1)), None, Some(Duration::from_secs(1))];
        let told = load(&shards, &before, Duration::from_secs(2));
        let expected = Load { sessions: 7, pulls: 4, cpu_permille: 250, draining: false };
        assert_eq!(told, expected);
        assert_eq!(load(&shards, &[], Duration::ZERO).cpu_permille, 0);
    }
}
