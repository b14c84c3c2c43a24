//! Three real nodes on this machine as one cluster: they find each other, and any of them answers
//! for the sessions of all.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const APP: &str = "test:0123456789abcdef0123";
const SECRET: &str = "0123456789abcdef0123";
/// Debug builds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn any_node_answers_for_the_sessions_of_all() {
    let key = Key::new("answers");
    let ports = free_ports();
    let [a, b, c] = ports.map(|port| Node::start(&key, port, ports[0]));
    for node in [&a, &b, &c] {
        node.wait_for_nodes(2);
    }
    let session = a.create();
    let path = format!("/v1/apps/test/sessions/{session}");
    let far = b.create();
    let remote = |of: &str| {
        let track = json!({"location": "remote", "sessionId": of, "trackName": "cam"});
        json!({"tracks": [track]}).to_string()
    };
    let offer = json!({"sessionDescription": {"type": "offer", "sdp": "v=0"}}).to_string();
    for (method, path, body) in [
        ("GET", path.clone(), String::new()),
        ("POST", format!("{path}/tracks/new"), "{}".into()),
        ("PUT", format!("{path}/renegotiate"), offer),
        ("PUT", format!("{path}/tracks/close"), r#"{"tracks":[{"mid":"7"}],"force":true}"#.into()),
        ("PUT", format!("{path}/tracks/update"), r#"{"tracks":[{"mid":"7"}]}"#.into()),
    ] {
        let expected = a.request(method, &path, &body);
        for other in [&b, &c] {
            assert_eq!(other.request(method, &path, &body), expected, "{method} {path}");
        }
    }
    // A track that a session of another node does not have: sought there, and told per item.
    let (status, said) = c.request("POST", &format!("{path}/tracks/new"), &remote(&far));
    assert_eq!(status, 200, "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["tracks"][0]["errorCode"], "not_found_track_error", "{said}");
    assert_eq!(c.request("DELETE", &path, ""), (200, "{}".into()));
    for node in [&a, &b, &c] {
        assert_eq!(node.request("GET", &path, "").0, 410);
    }
    let calls = c.metric(r#"shardcast_cluster_calls_total{direction="out",outcome="answered"}"#);
    assert!(calls >= 6.0, "{calls}");
}

#[test]
fn sessions_of_a_node_that_was_killed_are_gone_within_10_s() {
    let key = Key::new("killed");
    let ports = free_ports();
    let [mut a, b, _c] = ports.map(|port| Node::start(&key, port, ports[1]));
    b.wait_for_nodes(2);
    let path = format!("/v1/apps/test/sessions/{}", a.create());
    assert_eq!(b.request("GET", &path, "").0, 200);
    a.child.kill().unwrap();
    a.child.wait().unwrap();
    let killed = Instant::now();
    let mut unreachable = 0;
    loop {
        let (status, said) = b.request("GET", &path, "");
        if status == 410 {
            break;
        }
        assert_eq!(status, 503, "{said}");
        assert!(said.contains("went away or did not answer"), "{said}");
        unreachable += 1;
        assert!(killed.elapsed() < Duration::from_secs(10), "still {said}");
    }
    assert!(killed.elapsed() < Duration::from_secs(10) && unreachable > 0);
    // At the same address again, it is another node.
    let again = Node::start(&key, ports[0], ports[1]);
    again.wait_for_nodes(2);
    b.wait_for_nodes(2);
    for node in [&again, &b] {
        assert_eq!(node.request("GET", &path, "").0, 410);
    }
    let new = format!("/v1/apps/test/sessions/{}", again.create());
    assert_eq!(b.request("GET", &new, "").0, 200);
}

#[test]
fn a_node_that_ends_says_so_and_its_sessions_are_gone_at_once() {
    let key = Key::new("ended");
    let ports = free_ports();
    let [a, mut b, _c] = ports.map(|port| Node::start(&key, port, ports[0]));
    a.wait_for_nodes(2);
    let path = format!("/v1/apps/test/sessions/{}", b.create());
    assert_eq!(a.request("GET", &path, "").0, 200);
    let pid = b.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    let ended = Instant::now();
    loop {
        let (status, said) = a.request("GET", &path, "");
        assert!([200, 410, 503].contains(&status), "{status} {said}");
        if status == 410 && a.nodes().is_some_and(|nodes| nodes == 1) {
            break;
        }
        assert!(ended.elapsed() < Duration::from_secs(5), "still {status} {said}");
    }
    assert_eq!(b.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_node_with_another_key_stays_alone_and_is_counted() {
    let (key, other) = (Key::new("right"), Key::new("wrong"));
    let [first, second, _] = free_ports();
    let a = Node::start(&key, first, first);
    let b = Node::start(&other, second, first);
    let end = Instant::now() + PATIENCE;
    let foreign = r#"shardcast_cluster_faults_total{plane="members",kind="#;
    let counted = || {
        let unknown = a.metric(&format!("{foreign}\"unknown_key\"}}"));
        unknown + a.metric(&format!("{foreign}\"forged\"}}"))
    };
    while counted() == 0.0 {
        assert!(Instant::now() < end, "nothing was counted");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!((a.nodes(), b.nodes()), (Some(0), Some(0)));
    let path = format!("/v1/apps/test/sessions/{}", a.create());
    assert_eq!(b.request("GET", &path, "").0, 410);
}

/// A file with a new key. Removed when dropped.
struct Key(PathBuf);

impl Key {
    fn new(name: &str) -> Self {
        let name = format!("shardcast-cluster-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let mut keygen = Command::new(env!("CARGO_BIN_EXE_shardcast"));
        assert!(keygen.args(["keygen", "--out"]).arg(&path).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Three UDP ports that are free, all at the same time.
fn free_ports() -> [u16; 3] {
    let sockets = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

/// The program as a node of a cluster. Killed when dropped.
struct Node {
    child: Child,
    address: SocketAddr,
}

impl Node {
    fn start(key: &Key, port: u16, seed: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast"));
        command.env_clear().env("SHARDCAST_HTTP", "127.0.0.1:0").env("SHARDCAST_SHARDS", "2");
        command.env("SHARDCAST_UDP", "127.0.0.1:0").env("SHARDCAST_APP", APP);
        command.env("SHARDCAST_CLUSTER_KEY", &key.0).env("SHARDCAST_LOG", "warn");
        command.args(["--cluster", &format!("127.0.0.1:{port}")]);
        command.args(["--seed", &format!("localhost:{seed}"), "--seed"]);
        command.arg(format!("127.0.0.1:{seed}"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("Ctrl-C") {
            assert!(lines.read_line(&mut banner).unwrap() > 0, "it did not start: {banner}");
        }
        let (before, _) = banner.split_once("/v1/apps/").expect("the API's address");
        let port = before.rsplit(':').next().unwrap().parse().unwrap();
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn create(&self) -> String {
        let (status, said) = self.request("POST", "/v1/apps/test/sessions/new", "");
        assert_eq!(status, 201, "{said}");
        let said: Value = serde_json::from_str(&said).unwrap();
        said["sessionId"].as_str().unwrap().to_owned()
    }

    /// How many others it says are up.
    fn nodes(&self) -> Option<usize> {
        let (status, said) = self.request("GET", "/v1/cluster", "");
        assert_eq!(status, 200, "{said}");
        let said: Value = serde_json::from_str(&said).unwrap();
        said["nodes"].as_array().map(Vec::len)
    }

    fn wait_for_nodes(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.nodes() != Some(count) {
            assert!(Instant::now() < end, "it has {:?} nodes", self.nodes());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn metric(&self, series: &str) -> f64 {
        let (status, said) = self.request("GET", "/metrics", "");
        assert_eq!(status, 200, "{said}");
        let line = said.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series}")).trim().parse().unwrap()
    }

    /// The status and body of the answer.
    fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (address, length) = (self.address, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {SECRET}\r\n\
             Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
