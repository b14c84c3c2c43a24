//! A node's part in a cluster: from settings to the hub's configuration, and names of seeds looked
//! up off the shards.
//!
//! Invariants: a node of a cluster has an app of its own; what is wrong is said before anything
//! listens. No complaint repeats a key.
//!
//! Not here: the hub's task (`shards::cluster::rim`).

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use relay::control::{VERSION, Versions};
use relay::hub::HubConfig;
use relay::keys::ClusterKeys;
use shards::cluster::Cluster;
use shards::io::clock;
use zeroize::Zeroizing;

use crate::config::{Key, Said, Settings};
use crate::plan::{self, Plan};
use crate::resolve::{bad, contradiction, parsed};
use crate::start_error::{BadRights, BadSetting, StartError};

/// How often seeds are looked up: as fast as names of orchestrators change.
const SEEDS_PERIOD: Duration = Duration::from_secs(30);

/// How soon again while none of them is known.
const SEEDS_RETRY: Duration = Duration::from_secs(2);

/// Reads the settings of the cluster; `None` if there is none.
pub(crate) fn plan(
    settings: &Settings,
    development: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<plan::Cluster>, StartError> {
    let address = parsed(settings, Key::Cluster, ADDRESS, |text| {
        text.parse().ok().filter(|address: &SocketAddr| {
            let ip = address.ip();
            address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
        })
    })?;
    let seeds = settings.get(&Key::Seed);
    let (said, address) = match (settings.get(&Key::ClusterKey), address) {
        (Some(said), Some(address)) => (said, address),
        (None, None) if seeds.is_none() => return Ok(None),
        (None, _) => {
            return contradiction(
                "a cluster needs a key that all its nodes have: make one with `shardcast keygen \
                 --out FILE`, and give --cluster-key FILE",
            );
        }
        (Some(_), None) => {
            return contradiction(
                "--cluster-key needs an address where the other nodes reach this one: give \
                 --cluster ADDR:PORT",
            );
        }
    };
    if development {
        return contradiction(
            "a node of a cluster needs an app that the other nodes have too, and the development \
             app is another one at each start: give --app ID:SECRET",
        );
    }
    let keys = keys(said, warnings)?;
    Ok(Some(plan::Cluster { keys, address, seeds: seed_names(seeds)? }))
}

fn keys(said: &Said, warnings: &mut Vec<String>) -> Result<ClusterKeys, StartError> {
    let path = PathBuf::from(&said.texts[0]);
    let flaw = |problem: String| {
        let (place, path) = (said.place.clone(), path.clone());
        StartError::from(BadSetting::ClusterKey { place, path, problem })
    };
    let text = std::fs::read_to_string(&path).map(Zeroizing::new);
    let text = text.map_err(|error| {
        flaw(format!("it cannot be read ({error}): make one with `shardcast keygen --out FILE`"))
    })?;
    let keys = ClusterKeys::parse(&text).map_err(|error| flaw(error.to_string()))?;
    let mode = std::fs::metadata(&path).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        let path = path.display();
        warnings.push(format!(
            "others on this machine may read {path}, and who has the cluster's key can do what a \
             node can: `chmod 600 {path}`"
        ));
    }
    Ok(keys)
}

fn seed_names(said: Option<&Said>) -> Result<Vec<String>, StartError> {
    let Some(said) = said else { return Ok(Vec::new()) };
    for text in &said.texts {
        let is_named = text.rsplit_once(':').is_some_and(|(host, port)| {
            let port = port.parse::<u16>().is_ok_and(|port| port != 0);
            port && !host.is_empty() && (!host.contains(':') || host.starts_with('['))
        });
        if !is_named {
            return Err(bad(said, text, "a name or an address with its port, as node1:7000"));
        }
    }
    Ok(said.texts.clone())
}

/// The hub of this start.
pub(crate) fn hub(cluster: &plan::Cluster, plan: &Plan) -> Result<Cluster, StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| BadRights::Machine {
        what: "read random bytes",
        cause: error.to_string(),
    })?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let config = HubConfig {
        keys: cluster.keys.clone(),
        address: cluster.address,
        seeds: Vec::new(),
        shards: u8::try_from(plan.pins.len()).unwrap_or(u8::MAX),
        // Each shard has a socket of its own there: the kernel tells them apart.
        links: vec![cluster.address; plan.pins.len()],
        versions: Versions::of(VERSION),
        caps: 0,
        start_ms: since.map_or(0, |since| since.as_millis() as u64),
    };
    let apps = plan.apps.iter().map(|app| app.id.clone()).collect();
    Ok(Cluster::new(config, apps, clock::now(), seed))
}

/// Looks seeds up in a thread of its own, now and each 30 s: the system's resolver may take long.
pub(crate) fn seeds(cluster: &plan::Cluster) -> Result<Receiver<Vec<SocketAddr>>, StartError> {
    let (sender, receiver) = channel();
    let names = cluster.seeds.clone();
    if names.is_empty() {
        return Ok(receiver);
    }
    let mut warned = false;
    let watch = move || {
        loop {
            let found: Vec<_> = names.iter().flat_map(|name| look_up(name)).collect();
            let none = found.is_empty();
            if none && !warned {
                tracing::warn!("no seed of the cluster could be looked up; it is tried again");
            }
            warned = none;
            // What was found before is better than nothing.
            if !none && sender.send(found).is_err() {
                return;
            }
            std::thread::sleep(if none { SEEDS_RETRY } else { SEEDS_PERIOD });
        }
    };
    let thread = std::thread::Builder::new().name("seeds".into()).spawn(watch);
    thread.map(|_| receiver).map_err(|error| {
        BadRights::Machine { what: "start a thread", cause: error.to_string() }.into()
    })
}

fn look_up(name: &str) -> Vec<SocketAddr> {
    name.to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

const ADDRESS: &str = "an address of this machine that the other nodes reach, with a port, such \
    as 10.0.0.5:7000: not 0.0.0.0 or [::]";
