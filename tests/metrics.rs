//! The program's own account of itself: media flows through it, and its metrics say exactly what
//! was sent; and who may read them.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

#[allow(dead_code, reason = "the tests in virtual time use all of it")]
#[path = "../shards/tests/engine/client.rs"]
mod client;
#[allow(dead_code, reason = "the tests of the text use all of it")]
#[path = "../http/tests/exposition/mod.rs"]
mod exposition;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{TryRecvError, channel};
use std::time::{Duration, Instant};

use client::{Abilities, Client, Source};
use exposition::{Family, assert_monotone, sum};
use serde_json::{Value, json};
use str0m::media::{Direction, MediaKind};

const SECRET: &str = "0123456789abcdef0123";
const PATIENCE: Duration = Duration::from_secs(30);

/// Packets under way at a time.
const WINDOW: usize = 32;

#[test]
fn the_counters_say_exactly_what_was_sent() {
    let node = Node::start(&[]);
    let peers = vec![Peer::new(), Peer::new()];
    let mut stage = Stage { node, peers, sends: None, turns: 0 };
    let publisher = stage.session();
    let (sdp, mids) = stage.peers[0].client.offer(&[MediaKind::Video], Direction::SendOnly);
    let track = json!({"location": "local", "mid": mids[0], "trackName": "cam"});
    let request = json!({"sessionDescription": described("offer", &sdp), "tracks": [track]});
    let reply = stage.ask("POST", &format!("/sessions/{publisher}/tracks/new"), &request);
    stage.peers[0].client.accept_answer(sdp_of(&reply));
    stage.connect(0, &publisher);

    // The pull waits for a packet, the keyframe.
    stage.sends = Some(Source { mid: mids[0].clone(), rid: None });
    let viewer = stage.session();
    let track = json!({"location": "remote", "sessionId": publisher, "trackName": "cam"});
    let request = json!({"tracks": [track]});
    let reply = stage.ask("POST", &format!("/sessions/{viewer}/tracks/new"), &request);
    // None may be forwarded before the viewer can read it.
    let source = stage.sends.take();
    let sdp = stage.peers[1].client.accept_offer(sdp_of(&reply));
    let request = json!({"sessionDescription": described("answer", &sdp)});
    stage.ask("PUT", &format!("/sessions/{viewer}/renegotiate"), &request);
    stage.connect(1, &viewer);

    let before = stage.settle();
    stage.peers[0].client.owed.extend(source.clone());
    stage.sends = source;
    stage.until("media arrives", |stage| stage.peers[1].client.got.len() >= 500);
    stage.sends = None;
    let after = stage.settle();
    assert_monotone(&before, &after);

    let all = |name: &str, having: &[&str]| sum(&after, name, having);
    let (ins, outs) = (r#"direction="in""#, r#"direction="out""#);
    assert_eq!(all("shardcast_media_packets", &[ins]), stage.peers[0].sent as f64);
    assert_eq!(all("shardcast_media_packets", &[outs]), stage.peers[1].client.got.len() as f64);
    assert_eq!(all("shardcast_resends", &[]), 0.0);
    assert_eq!(all("shardcast_drops", &[]), 0.0);
    assert_eq!(all("shardcast_sessions", &[]), 2.0);
    assert_eq!(all("shardcast_pulls", &[]), 1.0);
    assert_eq!(all("shardcast_tracks_published", &[]), 1.0);
    assert_eq!(all("shardcast_shard_up", &[]), 2.0);
    let messages = all("shardcast_messages", &[outs]);
    assert_eq!(all("shardcast_gso_run_length", &["_count"]), messages);
    assert_eq!(all("shardcast_gso_run_length", &["_sum"]), all("shardcast_datagrams", &[outs]));
    assert!(all("shardcast_arrival_to_send_seconds", &["_count"]) > 0.0);
    assert!(all("shardcast_shard_cpu_seconds", &[]) <= all("process_cpu_seconds", &[]));
    for (route, count) in [("sessions/new", 2.0), ("tracks/new", 2.0), ("renegotiate", 1.0)] {
        let route = format!("route=\"{route}\"");
        assert_eq!(all("shardcast_http_requests", &[&route, r#"code="2xx""#]), count, "{route}");
        assert_eq!(all("shardcast_api_latency_seconds", &[&route, "_count"]), count, "{route}");
    }
}

#[test]
fn the_metrics_need_a_secret_where_others_can_ask() {
    let open = Node::start(&[("SHARDCAST_HTTP", "0.0.0.0:0")]);
    let (status, said) = open.request("GET", "/metrics", None, "");
    assert!(status == 403 && said.contains("--admin-secret"), "{status} {said}");
    let admin = "fedcba9876543210";
    let closed = [("SHARDCAST_HTTP", "0.0.0.0:0"), ("SHARDCAST_ADMIN_SECRET", admin)];
    let closed = Node::start(&closed);
    assert!(!closed.banner.contains(admin), "{}", closed.banner);
    for wrong in [None, Some(SECRET)] {
        assert_eq!(closed.request("GET", "/metrics", wrong, "").0, 401);
    }
    let (status, said) = closed.request("GET", "/metrics", Some(admin), "");
    assert_eq!(status, 200, "{said}");
    exposition::read(&said);
}

/// A running node, its clients, and which source sends.
struct Stage {
    node: Node,
    peers: Vec<Peer>,
    sends: Option<Source>,
    turns: usize,
}

impl Stage {
    fn session(&mut self) -> String {
        let reply = self.ask("POST", "/sessions/new", &json!({}));
        reply["sessionId"].as_str().unwrap().to_owned()
    }

    /// Calls the API while the clients live on.
    fn ask(&mut self, method: &'static str, path: &str, body: &Value) -> Value {
        let (path, body) = (format!("/v1/apps/test{path}"), body.to_string());
        let (address, (tell, told)) = (self.node.address, channel());
        let what = format!("{method} {path}");
        let call = move || tell.send(request(address, method, &path, Some(SECRET), &body));
        std::thread::spawn(call);
        let end = Instant::now() + PATIENCE;
        loop {
            match told.try_recv() {
                Ok((status, said)) => {
                    assert!((200..300).contains(&status), "{status} {said}");
                    return serde_json::from_str(&said).unwrap();
                }
                Err(TryRecvError::Empty) => assert!(Instant::now() < end, "no answer to {what}"),
                Err(TryRecvError::Disconnected) => panic!("the call failed: {what}"),
            }
            self.turn();
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "in vain: {what}");
            self.turn();
        }
    }

    /// Waits until both sides can read each other.
    fn connect(&mut self, peer: usize, session: &str) {
        let end = Instant::now() + PATIENCE;
        let path = format!("/sessions/{session}");
        while self.ask("GET", &path, &json!({}))["shardcast"]["connected"] != true {
            assert!(Instant::now() < end, "client {peer} never connects");
            // A session may be asked 50 times a second.
            (0..40).for_each(|_| self.turn());
        }
        self.until("the client connects", |stage| stage.peers[peer].client.connected);
    }

    fn turn(&mut self) {
        self.turns += 1;
        // No faster than it arrives: a full socket of ours would lose what the node counts as
        // sent. What never arrives is not waited for.
        let arrived = self.peers[1].client.got.last().map_or(0, |got| got.stamp().number as usize);
        let due = self.peers[0].sent < arrived + WINDOW || self.turns.is_multiple_of(20);
        if let Some(source) = self.sends.as_ref().filter(|_| due) {
            self.peers[0].send(source);
        }
        self.peers.iter_mut().for_each(Peer::turn);
        std::thread::sleep(Duration::from_millis(1));
    }

    fn scrape(&self) -> BTreeMap<String, Family> {
        let (status, said) = self.node.request("GET", "/metrics", None, "");
        assert_eq!(status, 200, "{said}");
        exposition::read(&said)
    }

    /// The metrics at a moment at which nothing was under way: then every datagram and byte is
    /// counted as it was sent.
    fn settle(&mut self) -> BTreeMap<String, Family> {
        let end = Instant::now() + PATIENCE;
        loop {
            let before = self.scrape();
            std::thread::sleep(Duration::from_millis(20));
            self.peers.iter_mut().for_each(Peer::receive);
            let after = self.scrape();
            let counts = |of: &BTreeMap<String, Family>, direction: &str| {
                ["shardcast_datagrams", "shardcast_datagram_bytes"]
                    .map(|name| sum(of, name, &[&format!("direction=\"{direction}\"")]) as u64)
            };
            let both = |of| [counts(of, "in"), counts(of, "out")];
            if both(&before) == both(&after) {
                let total = |of: fn(&Peer) -> [u64; 2]| {
                    let [a, b] = [of(&self.peers[0]), of(&self.peers[1])];
                    [a[0] + b[0], a[1] + b[1]]
                };
                let clients = [total(|peer| peer.out), total(|peer| peer.into)];
                if both(&after) == clients {
                    return after;
                }
                assert!(Instant::now() < end, "{:?} but clients say {clients:?}", both(&after));
            }
            assert!(Instant::now() < end, "it never rests");
            self.turn();
        }
    }
}

/// A client and its socket.
struct Peer {
    client: Client,
    socket: UdpSocket,
    /// Packets of media.
    sent: usize,
    /// Datagrams and bytes sent, and received.
    out: [u64; 2],
    into: [u64; 2],
}

impl Peer {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let client = Client::new(address, Abilities::default(), Instant::now());
        Self { client, socket, sent: 0, out: [0; 2], into: [0; 2] }
    }

    fn send(&mut self, source: &Source) {
        let keyframe = self.client.owed.remove(source) || self.sent == 0;
        self.client.send(source, 1, 300, keyframe, Instant::now());
        self.sent += 1;
    }

    fn turn(&mut self) {
        self.receive();
        let now = Instant::now();
        if self.client.timeout.is_some_and(|at| at <= now) {
            self.client.drive(now);
        }
        for (to, bytes) in std::mem::take(&mut self.client.outgoing) {
            assert_eq!(self.socket.send_to(&bytes, to).unwrap(), bytes.len());
            self.out = [self.out[0] + 1, self.out[1] + bytes.len() as u64];
        }
    }

    fn receive(&mut self) {
        let mut bytes = [0; 2048];
        while let Ok((len, source)) = self.socket.recv_from(&mut bytes) {
            self.into = [self.into[0] + 1, self.into[1] + len as u64];
            self.client.receive(source, &bytes[..len], Instant::now());
        }
    }
}

/// The program on free ports, with an app of its own. Killed when dropped.
struct Node {
    child: Child,
    banner: String,
    address: SocketAddr,
}

impl Node {
    fn start(settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast"));
        command.env_clear().env("SHARDCAST_HTTP", "127.0.0.1:0").env("SHARDCAST_SHARDS", "2");
        command.env("SHARDCAST_UDP", "127.0.0.1:0").env("SHARDCAST_APP", format!("test:{SECRET}"));
        command.envs(settings.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("Ctrl-C") {
            assert!(lines.read_line(&mut banner).unwrap() > 0, "it did not start: {banner}");
        }
        let (before, _) = banner.split_once("/v1/apps/").expect("the API's address");
        let port = before.rsplit(':').next().unwrap().parse().unwrap();
        Self { child, banner, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn request(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        request(self.address, method, path, token, body)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The status and body of the answer.
fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{token}Connection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn described(kind: &str, sdp: &str) -> Value {
    json!({"type": kind, "sdp": sdp})
}

fn sdp_of(reply: &Value) -> &str {
    reply["sessionDescription"]["sdp"].as_str().unwrap_or_else(|| panic!("{reply}"))
}
