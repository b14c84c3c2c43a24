//! The shards' threads: each a pinned executor with a media loop and an HTTP server.
//!
//! Invariants: media goes before HTTP (shares and latency of the task queues); a shard that
//! cannot begin says why before the node is shown as up.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use glommio::net::UdpSocket;
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};
use http::auth::{Admin, App, Apps};
use http::limits::Timing;
use http::serve::{Port as HttpPort, Server};
use http::tls::TlsConfig;
use shards::cluster::Cluster;
use shards::cluster::rim::Post;
use shards::engine::EngineConfig;
use shards::io::cluster::HubSocket;
use shards::io::executor::never_oversleep;
use shards::io::lanes::Lanes;
use shards::io::listener::adopt;
use shards::io::port::{self, Port, PortKind};
use shards::io::record::Recorder;
use shards::io::socket::Sockets;
use shards::io::steer::Steering;
use shards::mesh::Seat;
use shards::shard::Shard;
use shards::wake::WakeDelay;

use crate::banner;
use crate::cores::Pin;
use crate::desk::ShardDesk;
use crate::drain::{House, Presence};
use crate::plan::PacketIo;
use crate::start_error::{BadRights, BadSetting, StartError};

/// Submission queue entries of each of glommio's rings. TCP and timers need few.
const RING_DEPTH: usize = 256;
/// Registered memory of an executor, which is for disk I/O we do not do. The least that works.
const IO_MEMORY: usize = 64 << 10;
/// How long a shard may take to come up: some milliseconds, on the busiest machine seconds.
const START_MAX: Duration = Duration::from_secs(60);
/// How long tasks of one queue run before the others get a look. Each look costs 10 to 25 µs.
const PREEMPT: Duration = Duration::from_millis(5);
/// How late media may start when HTTP is busy.
const MEDIA_LATENCY: Duration = Duration::from_millis(1);
/// Of CPU time, when both want it: ten parts media, one part HTTP.
const MEDIA_SHARES: usize = 1000;
const HTTP_SHARES: usize = 100;

/// Everything one shard is made of.
pub(crate) struct Berth {
    pub(crate) pin: Pin,
    pub(crate) engine: EngineConfig,
    pub(crate) seat: Seat,
    pub(crate) lanes: Lanes,
    pub(crate) steering: Option<Arc<Steering>>,
    pub(crate) packet_io: PacketIo,
    pub(crate) wake_delay: WakeDelay,
    pub(crate) record_sends: Option<PathBuf>,
    pub(crate) listeners: Vec<(TcpListener, bool)>,
    pub(crate) tls: Option<TlsConfig>,
    pub(crate) apps: Vec<App>,
    pub(crate) admin: Admin,
    /// When the process began, since 1970.
    pub(crate) began: Duration,
    pub(crate) house: House,
    pub(crate) http_drain: http::serve::Drain,
    /// Of the first shard, in a cluster.
    pub(crate) cluster: Option<ClusterBerth>,
    /// In a cluster.
    pub(crate) links: Option<LinkBerth>,
}

/// Where a shard's links with shards of other nodes are.
pub(crate) struct LinkBerth {
    pub(crate) sockets: Sockets,
    /// The names of all applications, in the order of their ids.
    pub(crate) apps: Arc<[String]>,
    /// The cluster address.
    pub(crate) local: SocketAddr,
}

/// What the shard with the hub is given.
pub(crate) struct ClusterBerth {
    pub(crate) hub: Cluster,
    /// What seeds resolve to, each time they were asked for.
    pub(crate) seeds: Receiver<Vec<SocketAddr>>,
    pub(crate) socket: HubSocket,
}

/// How a shard moves packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PacketsFound {
    pub(crate) kind: banner::Packets,
    pub(crate) gso: bool,
    pub(crate) gro: bool,
}

/// A shard on its way up.
#[derive(Debug)]
pub(crate) struct Hired {
    report: Receiver<Result<PacketsFound, StartError>>,
}

impl Hired {
    /// Waits until the shard is up, or says why not.
    pub(crate) fn report(self) -> Result<PacketsFound, StartError> {
        let lost = || BadRights::Machine {
            what: "start a shard",
            cause: "its thread ended, or was not up within a minute".to_owned(),
        };
        self.report.recv_timeout(START_MAX).unwrap_or_else(|_| Err(lost().into()))
    }
}

/// Starts a shard's thread.
pub(crate) fn board(berth: Berth, presence: Presence) -> Result<Hired, StartError> {
    let (sender, report) = channel();
    let name = format!("shard{}", berth.pin.shard);
    let executor = LocalExecutorBuilder::new(Placement::Fixed(berth.pin.cpu))
        .name(&name)
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY)
        .preempt_timer(PREEMPT);
    let spawned = executor.spawn(move || work(berth, sender, presence));
    // Detached: `Presence` tells when the thread has left, and the process ends by exiting.
    spawned.map(|_| Hired { report }).map_err(|error| {
        BadRights::Machine { what: "start an executor", cause: error.to_string() }.into()
    })
}

async fn work(berth: Berth, report: Sender<Result<PacketsFound, StartError>>, presence: Presence) {
    never_oversleep();
    // The first sleep of an executor takes some 10 ms: not at the cost of the first packet.
    glommio::timer::sleep(Duration::from_millis(1)).await;
    let Lanes { urgent, patient } = berth.lanes;
    let opened = open_port(berth.packet_io, urgent).and_then(|(port, kind)| {
        Ok((recorded(port, berth.record_sends.as_deref(), berth.pin)?, kind))
    });
    let (port, kind) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // The main thread waits for this; if it is gone, so is the node.
            let _ = report.send(Err(error));
            return;
        }
    };
    let counters = port.counters();
    let found = PacketsFound { kind, gso: counters.gso, gro: counters.gro };
    let mut shard = Shard::new(berth.engine, port, berth.seat, berth.steering);
    shard.set_wake_delay(berth.wake_delay);
    shard.set_patient(patient.map(port::open_patient));
    if let Some(LinkBerth { sockets, apps, local }) = berth.links {
        match open_port(berth.packet_io, sockets) {
            Ok((port, _)) => shard.set_links(port, apps, local),
            Err(error) => {
                let _ = report.send(Err(error));
                return;
            }
        }
    }
    let hub = berth.cluster.map(|cluster| join(cluster, &mut shard));
    let desk = Rc::new(ShardDesk::new(shard.counter(), berth.house.clone(), berth.began));
    let apps = Apps::new(berth.apps);
    let server = Server::new(desk, apps, berth.admin, Timing::default(), berth.http_drain);
    let tls = berth.tls;
    let ports = berth.listeners.into_iter().map(|(listener, encrypted)| HttpPort {
        listener: adopt(listener),
        tls: tls.clone().filter(|_| encrypted),
    });
    let ports: Vec<HttpPort> = ports.collect();
    let executor = glommio::executor();
    let media = executor.create_task_queue(
        Shares::Static(MEDIA_SHARES),
        Latency::Matters(MEDIA_LATENCY),
        "media",
    );
    let web =
        executor.create_task_queue(Shares::Static(HTTP_SHARES), Latency::NotImportant, "http");
    let house = berth.house;
    let hub_house = house.clone();
    let hub = hub.map(|(post, socket, seeds)| {
        glommio::spawn_local_into(post.run(socket, seeds, move || hub_house.is_leaving()), web)
    });
    let serving = glommio::spawn_local_into(server.serve(ports), web);
    let moving = glommio::spawn_local_into(shard.run(move || house.is_leaving()), media);
    let (Ok(serving), Ok(moving)) = (serving, moving) else { return };
    let _ = report.send(Ok(found));
    moving.await;
    if let Some(Ok(hub)) = hub {
        hub.await;
    }
    serving.await;
    drop(presence);
}

/// The hub's end, its socket, and what seeds resolve to.
type Joined = (Rc<Post>, UdpSocket, Receiver<Vec<SocketAddr>>);

/// Makes this the shard that has the hub.
fn join(cluster: ClusterBerth, shard: &mut Shard) -> Joined {
    let socket = cluster.socket.into_socket();
    let post = Rc::new(Post::new(cluster.hub, shard.counter()));
    shard.set_cluster(post.clone());
    (post, socket, cluster.seeds)
}

/// The port, wrapped if what it sends is to be recorded.
fn recorded(
    port: Box<dyn Port>,
    path: Option<&Path>,
    pin: Pin,
) -> Result<Box<dyn Port>, StartError> {
    let Some(path) = path else { return Ok(port) };
    let path = PathBuf::from(format!("{}.{}", path.display(), pin.shard.0));
    let recorder = Recorder::create(&path, port).map_err(|error| BadSetting::Unwritable {
        place: "--record-sends",
        path,
        cause: error.to_string(),
    })?;
    Ok(Box::new(recorder))
}

fn open_port(
    wanted: PacketIo,
    sockets: Sockets,
) -> Result<(Box<dyn Port>, banner::Packets), StartError> {
    let sockets = match wanted {
        PacketIo::Mmsg => sockets,
        PacketIo::Auto | PacketIo::Ring => match port::open(PortKind::Ring, sockets) {
            Ok(port) => return Ok((port, banner::Packets::Ring)),
            Err((error, _)) if wanted == PacketIo::Ring => {
                return Err(BadRights::NoRingPort { cause: error.to_string() }.into());
            }
            Err((error, sockets)) => {
                tracing::warn!("packets go by recvmmsg/sendmmsg: {error}");
                sockets
            }
        },
    };
    let opened = port::open(PortKind::Mmsg, sockets);
    let opened = opened.map_err(|(error, _)| BadRights::Machine {
        what: "open the packet port",
        cause: error.to_string(),
    })?;
    Ok((opened, banner::Packets::Mmsg))
}
