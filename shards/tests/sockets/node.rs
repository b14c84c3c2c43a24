//! A node: shards on threads of their own, as `boot` starts them, without HTTP.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glommio::{ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares};
use shards::command::{Answer, Ask, Command};
use shards::counter::Counter;
use shards::engine::EngineConfig;
use shards::ids::{AppId, NodeId, ShardId};
use shards::io::bell::Bell;
use shards::io::executor::never_oversleep;
use shards::io::lanes::{self, Lanes};
use shards::io::port::{self, PortKind};
use shards::io::socket::{Socket, Sockets};
use shards::io::steer::{Kind, Steering};
use shards::mesh;
use shards::session::keys;
use shards::shard::Shard;
use shards::snapshot::Snapshot;
use shards::wake::WakeDelay;

const APP: AppId = AppId(0);

/// How the shards share the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A port for each shard.
    PerShard,
    /// One port; the kernel steers as well as this allows.
    Shared(Kind),
    /// One port, and the kernel believes that the shards sit in the opposite order: everything
    /// arrives where it does not belong.
    Reversed,
}

pub(crate) struct Node {
    windows: Vec<Window>,
    bells: Vec<Bell>,
    leaving: Arc<AtomicBool>,
    threads: Vec<ExecutorJoinHandle<()>>,
    /// Where each shard's sockets are bound.
    pub(crate) addresses: Vec<SocketAddr>,
    /// How the kernel steers, where it does.
    pub(crate) steering: Option<Kind>,
}

/// What a test thread wants of a shard.
enum Wish {
    Command(Box<Command>, Sender<Answer>),
    Read(Sender<Snapshot>),
    Survey(Duration, Sender<Vec<Option<Snapshot>>>),
    /// Says that it begins, and does nothing until the other end is dropped.
    Stall(Sender<()>, Receiver<()>),
}

/// Where test threads leave wishes for one shard's thread.
#[derive(Clone)]
struct Window {
    wishes: Arc<Mutex<VecDeque<Wish>>>,
    bell: Bell,
}

impl Node {
    pub(crate) fn start(shards: usize, layout: Layout, kind: PortKind) -> Self {
        Self::start_moderated(shards, layout, kind, WakeDelay::default())
    }

    pub(crate) fn start_moderated(
        shards: usize,
        layout: Layout,
        kind: PortKind,
        delay: WakeDelay,
    ) -> Self {
        let (lanes, steering) = lanes(shards, layout);
        let local = |lanes: &Lanes| lanes.urgent.locals()[0].expect("an IPv4 socket");
        let addresses: Vec<SocketAddr> = lanes.iter().map(local).collect();
        let cert = keys::provider().dtls_provider.generate_certificate().expect("a certificate");
        let seats = mesh::seats(shards).expect("doorbells");
        let leaving = Arc::new(AtomicBool::new(false));
        let mut node = Self {
            windows: Vec::new(),
            bells: seats.iter().map(mesh::Seat::bell).collect(),
            leaving: Arc::clone(&leaving),
            threads: Vec::new(),
            steering: steering.as_deref().map(Steering::kind),
            addresses,
        };
        let (up, ups) = channel();
        for (n, (seat, lanes)) in seats.into_iter().zip(lanes).enumerate() {
            let config = EngineConfig {
                node: NodeId(1),
                shard: ShardId(n as u8),
                shards,
                cert: cert.clone(),
                candidates: [node.addresses[n]].into(),
            };
            let window = Window { wishes: Arc::default(), bell: Bell::new().expect("an eventfd") };
            node.windows.push(window.clone());
            let (up, steering, leaving) = (up.clone(), steering.clone(), Arc::clone(&leaving));
            let work = move || async move {
                never_oversleep();
                glommio::timer::sleep(Duration::from_millis(1)).await;
                let port = port::open(kind, lanes.urgent).map_err(|(error, _)| error);
                let mut shard = Shard::new(config, port.expect("a port"), seat, steering);
                shard.set_patient(lanes.patient.map(port::open_patient));
                shard.set_wake_delay(delay);
                glommio::spawn_local(window.serve(shard.counter())).detach();
                up.send(()).expect("the test waits");
                // As `boot` has it: media gives way once a millisecond.
                let latency = Latency::Matters(Duration::from_millis(1));
                let media =
                    glommio::executor().create_task_queue(Shares::Static(1000), latency, "media");
                let run = shard.run(move || leaving.load(Ordering::Relaxed));
                glommio::spawn_local_into(run, media).expect("a queue").await;
            };
            let executor = LocalExecutorBuilder::new(Placement::Unbound)
                .name(&format!("shard{n}"))
                .ring_depth(256)
                .io_memory(64 << 10)
                .preempt_timer(Duration::from_millis(5));
            node.threads.push(executor.spawn(work).expect("an executor"));
        }
        for _ in 0..shards {
            ups.recv_timeout(Duration::from_secs(20)).expect("every shard comes up");
        }
        node
    }

    /// Asks by way of one shard's API.
    pub(crate) fn ask(&self, shard: usize, ask: Ask) -> Receiver<Answer> {
        let (sender, answer) = channel();
        let command = Box::new(Command { app: APP, ask });
        self.windows[shard].leave(Wish::Command(command, sender));
        answer
    }

    /// What a shard has counted.
    pub(crate) fn read(&self, shard: usize) -> Snapshot {
        let snapshot = self.begin_reading(shard);
        snapshot.recv_timeout(Duration::from_secs(20)).expect("the shard is alive")
    }

    /// The same, without waiting for it.
    pub(crate) fn begin_reading(&self, shard: usize) -> Receiver<Snapshot> {
        let (sender, snapshot) = channel();
        self.windows[shard].leave(Wish::Read(sender));
        snapshot
    }

    /// What one shard finds out in this time of what all have counted.
    pub(crate) fn survey(&self, shard: usize, patience: Duration) -> Vec<Option<Snapshot>> {
        let (sender, told) = channel();
        self.windows[shard].leave(Wish::Survey(patience, sender));
        told.recv_timeout(patience * 2).expect("a survey ends")
    }

    /// Stalls a shard until what this returns is dropped.
    pub(crate) fn stall(&self, shard: usize) -> Sender<()> {
        let (begun, begins) = channel();
        let (go_on, waits) = channel();
        self.windows[shard].leave(Wish::Stall(begun, waits));
        begins.recv_timeout(Duration::from_secs(20)).expect("the shard is alive");
        go_on
    }

    pub(crate) fn shards(&self) -> usize {
        self.addresses.len()
    }

    /// Asks the shards to leave.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.bells.iter().for_each(Bell::rouse);
    }

    /// Waits until they have left.
    pub(crate) fn join(&mut self) {
        for thread in self.threads.drain(..).map(ExecutorJoinHandle::join) {
            thread.expect("no shard panics");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.leave();
        if !std::thread::panicking() {
            self.join();
        }
    }
}

impl Window {
    fn leave(&self, wish: Wish) {
        self.wishes.lock().expect("nobody panics with it").push_back(wish);
        self.bell.ring();
    }

    fn take(&self) -> Option<Wish> {
        self.wishes.lock().expect("nobody panics with it").pop_front()
    }

    async fn serve(self, counter: Rc<Counter>) {
        let mut ear = self.bell.ear();
        loop {
            while let Some(wish) = self.take() {
                let counter = Rc::clone(&counter);
                // Who asked may have given up.
                let grant = async move {
                    match wish {
                        Wish::Command(command, asker) => {
                            let _ = asker.send(counter.ask(*command).await);
                        }
                        Wish::Read(reader) => {
                            let _ = reader.send(counter.read().await);
                        }
                        Wish::Survey(patience, reader) => {
                            let _ =
                                reader.send(counter.survey(glommio::timer::sleep(patience)).await);
                        }
                        Wish::Stall(begun, waits) => {
                            let _ = begun.send(());
                            let _ = waits.recv();
                        }
                    }
                };
                glommio::spawn_local(grant).detach();
            }
            let is_empty = || self.wishes.lock().expect("nobody panics with it").is_empty();
            ear.rung(|| !is_empty()).await.expect("an eventfd");
        }
    }
}

fn lanes(shards: usize, layout: Layout) -> (Vec<Lanes>, Option<Arc<Steering>>) {
    let bind = |port| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Sockets { v4: Some(Socket::bind(address).expect("a socket")), v6: None }
    };
    let mut all = vec![bind(0)];
    let port = all[0].locals()[0].expect("an IPv4 socket").port();
    for _ in 1..shards {
        all.push(bind(if layout == Layout::PerShard { 0 } else { port }));
    }
    let shared = |all, best| {
        let (lanes, steering) = lanes::shared(all, best);
        (lanes, Some(Arc::new(steering)))
    };
    match layout {
        Layout::PerShard => (lanes::own(all), None),
        Layout::Shared(best) => shared(all, best),
        Layout::Reversed => {
            let (mut lanes, steering) = shared(all, Kind::EBpf);
            lanes.reverse();
            (lanes, steering)
        }
    }
}
