//! The order of waking, and of going to sleep. The only place that spawns threads.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::auth::{Admin, App};
use http::tls::{Reloader, TlsConfig};
use shards::engine::EngineConfig;
use shards::ids::NodeId;
use shards::io::bell::Bell;
use shards::io::cluster::{ClusterSockets, HubSocket};
use shards::io::lanes::{self, Lanes};
use shards::io::listener::listen;
use shards::io::socket::Sockets;
use shards::io::steer::{self, Steering};
use shards::mesh::{self, Seat};
use shards::session::keys;

use crate::banner::{self, InForce};
use crate::check;
use crate::cluster;
use crate::crew::{self, Berth, ClusterBerth, LinkBerth};
use crate::drain::Drain;
use crate::plan::{Plan, UdpPorts};
use crate::process;
use crate::start_error::{BadRights, BadTls, Listener, StartError, Transport};

/// How often certificate files are looked at. A renewed one has weeks of overlap.
const TLS_CHECK: Duration = Duration::from_secs(10);

/// Runs the node until it ends.
pub fn run(mut plan: Plan) -> Result<ExitCode, StartError> {
    let began = process::began();
    // Before any thread, so that a signal during the waking is not lost.
    let drain = Drain::install(plan.drain)?;
    let (lanes, steering) = lanes(&mut plan)?;
    let cert = keys::provider().dtls_provider.generate_certificate();
    let cert = cert.ok_or_else(|| machine("make a DTLS certificate", "the library refused"))?;
    let seats = mesh::seats(plan.pins.len());
    let seats = seats.map_err(|error| machine("make doorbells", &error.to_string()))?;
    let bells: Vec<_> = seats.iter().map(Seat::bell).collect();
    let tls = tls(&plan)?;
    let http_drain = http::serve::Drain::default();
    let (node, mut cluster, links) = match &plan.cluster {
        Some(part) => {
            let hub = cluster::hub(part, &plan)?;
            let (socket, links) = cluster_sockets(part.address, &plan)?;
            let seeds = cluster::seeds(part)?;
            (hub.node(), Some(ClusterBerth { hub, seeds, socket }), links)
        }
        None => (node_id()?, None, Vec::new()),
    };
    let mut links = links.into_iter();
    let mut crew = Vec::new();
    for ((pin, seat), lanes) in plan.pins.iter().zip(seats).zip(lanes) {
        let berth = Berth {
            pin: *pin,
            engine: EngineConfig {
                node,
                shard: pin.shard,
                shards: plan.pins.len(),
                cert: cert.clone(),
                candidates: candidates(&plan, &lanes.urgent),
            },
            seat,
            lanes,
            steering: steering.clone(),
            packet_io: plan.packet_io,
            wake_delay: plan.wake_delay,
            record_sends: plan.record_sends.clone(),
            listeners: listeners(&plan)?,
            tls: tls.clone(),
            apps: apps(&plan),
            admin: Admin::new(plan.admin.as_ref().map(|secret| secret.expose().to_owned())),
            began,
            house: drain.house(),
            http_drain: http_drain.clone(),
            // The first shard is the hub's.
            cluster: cluster.take(),
            links: links.next(),
        };
        crew.push(crew::board(berth, drain.house().enter())?);
    }
    let in_force = in_force(&plan, steering.as_deref(), crew)?;
    banner::show(&plan, Some(&in_force));
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let ending = drain.wait(|| {
        http_drain.begin();
        bells.iter().for_each(Bell::rouse);
    });
    Ok(ending.exit_code())
}

/// A random one: whoever holds ids of a former run learns that its sessions are gone.
fn node_id() -> Result<NodeId, StartError> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|error| machine("draw a random number", &error.to_string()))?;
    // Zero is nobody.
    Ok(NodeId(u32::from_ne_bytes(random).max(1)))
}

/// Every shard's media sockets, and what steers among them.
fn lanes(plan: &mut Plan) -> Result<(Vec<Lanes>, Option<Arc<Steering>>), StartError> {
    let shards = plan.pins.len();
    let shared = shards > 1
        && match plan.udp_ports {
            UdpPorts::PerShard => false,
            UdpPorts::Shared => true,
            UdpPorts::Auto => steer::ebpf_allowed().is_ok() && shards <= steer::SHARDS_MAX,
        };
    if !shared {
        check::udp_ports(&mut plan.udp, shards)?;
    }
    let mut all = Vec::with_capacity(shards);
    for shard in 0..shards {
        let port = if shared { 0 } else { shard as u16 };
        let addresses: Vec<SocketAddr> = plan.udp.sockets(port).into_iter().flatten().collect();
        all.push(Sockets::bind(&addresses).map_err(|error| {
            let cause = error.to_string();
            StartError::from(crate::start_error::BadNetwork::Media { cause })
        })?);
    }
    let (lanes, steering) = if shared {
        let (lanes, steering) = lanes::shared(all, steer::Kind::EBpf);
        (lanes, Some(Arc::new(steering)))
    } else {
        (lanes::own(all), None)
    };
    if lanes.iter().any(|lanes| lanes.patient.is_none()) {
        tracing::warn!(
            "the kernel does not part reports and checks from what is urgent, so that a shard wakes \
             up for each: give each shard a port (--udp-ports per-shard), or the right to eBPF"
        );
    }
    Ok((lanes, steering))
}

/// The hub's socket, and each shard's for its links.
fn cluster_sockets(
    address: SocketAddr,
    plan: &Plan,
) -> Result<(HubSocket, Vec<LinkBerth>), StartError> {
    let listener = Listener { transport: Transport::Udp, address, flag: "--cluster" };
    let opened = shards::io::cluster::open(address, plan.pins.len());
    let ClusterSockets { hub, links } = opened.map_err(|error| check::refused(&error, listener))?;
    let apps: Arc<[String]> = plan.apps.iter().map(|app| app.id.clone()).collect();
    let berth = |sockets| LinkBerth { sockets, apps: apps.clone(), local: address };
    Ok((hub, links.into_iter().map(berth).collect()))
}

/// The ICE candidates of a shard: every advertised address, at the shard's port.
fn candidates(plan: &Plan, sockets: &Sockets) -> Arc<[SocketAddr]> {
    let [v4, v6] = sockets.locals().map(|local| local.map(|local| local.port()));
    let candidate = |public: std::net::IpAddr| {
        let port = if public.is_ipv4() { v4 } else { v6 };
        port.map(|port| SocketAddr::new(public, port))
    };
    plan.addresses.iter().filter_map(|address| candidate(address.public)).collect()
}

/// One shard's TCP listeners: (socket, whether it speaks TLS).
fn listeners(plan: &Plan) -> Result<Vec<(TcpListener, bool)>, StartError> {
    let https = plan.https.as_ref().map(|https| ("--https", https.listen, true));
    let http = plan.http.map(|address| ("--http", address, false));
    let open = |(flag, address, tls)| {
        let listener = Listener { transport: Transport::Tcp, address, flag };
        listen(address)
            .map(|socket| (socket, tls))
            .map_err(|error| check::refused(&error, listener))
    };
    http.into_iter().chain(https).map(open).collect()
}

/// The TLS configuration of all shards, kept up to date with its files.
fn tls(plan: &Plan) -> Result<Option<TlsConfig>, StartError> {
    let Some(https) = &plan.https else { return Ok(None) };
    let config = TlsConfig::new(https.identity.pair.clone());
    let config = config.map_err(|error| BadTls { problem: error.to_string() })?;
    if https.identity.pair.has_expired(SystemTime::now()) {
        tracing::warn!("the TLS certificate has expired: clients will refuse it");
    }
    if let Some(files) = https.identity.files.clone() {
        let mut reloader = Reloader::new(files, config.clone());
        let watch = move || {
            loop {
                std::thread::sleep(TLS_CHECK);
                match reloader.check() {
                    Some(Ok(_)) => tracing::info!("the TLS certificate was reloaded"),
                    Some(Err(error)) => tracing::warn!("the old TLS certificate stays: {error}"),
                    None => {}
                }
            }
        };
        let named = std::thread::Builder::new().name("tls-reload".into());
        named.spawn(watch).map_err(|error| machine("start a thread", &error.to_string()))?;
    }
    Ok(Some(config))
}

fn apps(plan: &Plan) -> Vec<App> {
    let make = if plan.development { App::development } else { App::configured };
    plan.apps.iter().map(|app| make(&app.id, app.secret.expose())).collect()
}

/// What the shards found to work, once all of them are up.
fn in_force(
    plan: &Plan,
    steering: Option<&Steering>,
    crew: Vec<crew::Hired>,
) -> Result<InForce, StartError> {
    let mut packets = None;
    for hired in crew {
        packets = Some(hired.report()?);
    }
    let packets = packets.ok_or_else(|| machine("start shards", "there are none"))?;
    Ok(InForce {
        steering: match steering.map(Steering::kind) {
            _ if plan.pins.len() == 1 => banner::Steering::PortPerShard,
            Some(steer::Kind::EBpf) => banner::Steering::Exact,
            Some(steer::Kind::CBpf | steer::Kind::Hash) => banner::Steering::FirstContact,
            None => banner::Steering::PortPerShard,
        },
        packets: packets.kind,
        gso: packets.gso,
        gro: packets.gro,
    })
}

fn machine(what: &'static str, cause: &str) -> StartError {
    BadRights::Machine { what, cause: cause.to_owned() }.into()
}
