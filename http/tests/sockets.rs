//! Real sockets, a real executor, and the clients a server must survive.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use glommio::{LocalExecutorBuilder, Placement};
use http::serve::Port;
use http::tls::{Identity, self_signed};
use http::{Admin, App, Apps, Desk, Drain, NodeInfo, Process, Server, Timing, TlsConfig};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use shards::command::{Answer, Ask, Command, Refusal, Reply};
use shards::ids::{NodeId, SessionId, ShardId};
use shards::snapshot::{ApiMeters, Snapshot};

#[test]
fn a_connection_is_kept_for_many_requests_and_pipelines_in_order() {
    let node = Node::start(Setup::default());
    let mut client = node.connect();
    for _ in 0..3 {
        client.write_all(GET_HEALTH.as_bytes()).unwrap();
        assert!(read_response(&mut client).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    // The first is answered after a wait, the second at once: order is kept.
    let slow = ask_new();
    client.write_all(format!("{slow}{GET_HEALTH}{slow}").as_bytes()).unwrap();
    assert!(read_response(&mut client).starts_with("HTTP/1.1 201 "));
    assert!(read_response(&mut client).starts_with("HTTP/1.1 200 "));
    assert!(read_response(&mut client).starts_with("HTTP/1.1 201 "));
}

#[test]
fn a_large_body_in_small_pieces_arrives() {
    let node = Node::start(Setup::default());
    let mut client = node.connect();
    let sdp = "a".repeat(400_000);
    let body = format!(r#"{{"sessionDescription":{{"type":"offer","sdp":"{sdp}"}}}}"#);
    let head = format!(
        "POST /v1/apps/app/sessions/new HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\
        Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_response(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    for piece in body.as_bytes().chunks(7001) {
        client.write_all(piece).unwrap();
    }
    assert!(read_response(&mut client).starts_with("HTTP/1.1 201 "));
}

#[test]
fn a_refused_body_does_not_cost_the_client_the_reason() {
    let node = Node::start(Setup::default());
    let mut client = node.connect();
    let head =
        "POST /v1/apps/app/sessions/new HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    // More than the server reads before it refuses, less than it bears while it parts.
    client.write_all(&[b'a'; 100_000]).unwrap();
    let said = read_to_end(&mut client);
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
}

#[test]
fn a_slow_head_is_dropped_and_a_silent_connection_too() {
    let timing =
        Timing { head: Duration::from_millis(300), linger: Duration::from_millis(100), ..quick() };
    let node = Node::start(Setup { timing, ..Setup::default() });
    let began = Instant::now();
    let mut silent = node.connect();
    let mut slow = node.connect();
    let mut said = String::new();
    for byte in GET_HEALTH.bytes().take(40) {
        if slow.write_all(&[byte]).is_err() {
            break;
        }
        sleep(Duration::from_millis(20));
        slow.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut buffer = [0; 1000];
        if let Ok(count) = slow.read(&mut buffer) {
            said.push_str(&String::from_utf8_lossy(&buffer[..count]));
            break;
        }
    }
    assert!(said.starts_with("HTTP/1.1 408 "), "{said:?}");
    assert_eq!(read_to_end(&mut silent), "");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let timing = Timing { write: Duration::from_millis(300), ..quick() };
    let node = Node::start(Setup { timing, ..Setup::default() });
    let mut client = node.connect();
    let many = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
    client.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let began = Instant::now();
    let refused = loop {
        if let Err(error) = client.write_all(many.as_bytes()) {
            break error;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "never dropped");
    };
    let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(reset.contains(&refused.kind()), "{refused}");
}

#[test]
fn connections_over_the_cap_are_told_and_places_come_back() {
    let node = Node::start(Setup { connections_max: 2, ..Setup::default() });
    let mut first = node.connect();
    let mut second = node.connect();
    for client in [&mut first, &mut second] {
        client.write_all(GET_HEALTH.as_bytes()).unwrap();
        read_response(client);
    }
    let said = read_to_end(&mut node.connect());
    assert!(said.starts_with("HTTP/1.1 503 "), "{said:?}");
    drop(first);
    sleep(Duration::from_millis(100));
    let mut third = node.connect();
    third.write_all(GET_HEALTH.as_bytes()).unwrap();
    assert!(read_response(&mut third).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_drain_closes_the_idle_and_finishes_what_began() {
    let node = Node::start(Setup::default());
    let mut idle = node.connect();
    idle.write_all(GET_HEALTH.as_bytes()).unwrap();
    read_response(&mut idle);
    let mut busy = node.connect();
    busy.write_all(ask_new().as_bytes()).unwrap();
    sleep(Duration::from_millis(50));
    node.drain.begin();
    let said = read_to_end(&mut busy);
    assert!(said.starts_with("HTTP/1.1 201 ") && said.contains("connection: close"), "{said}");
    assert_eq!(read_to_end(&mut idle), "");
    node.ended.recv_timeout(Duration::from_secs(5)).expect("serve() ends");
    assert!(TcpStream::connect(node.address).is_err());
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let timing = Timing { answer: Duration::from_millis(100), ..quick() };
    let node = Node::start(Setup { timing, ..Setup::default() });
    let mut client = node.connect();
    client.write_all(ask_new().as_bytes()).unwrap();
    assert!(read_response(&mut client).starts_with("HTTP/1.1 503 "));
}

#[test]
fn both_tls_versions_serve_and_resume() {
    let identity = identity();
    let roots = roots(&identity);
    let node = Node::start(Setup { tls: Some(identity), ..Setup::default() });
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = client_config(&roots, version, "http/1.1");
        let first = node.connect_tls(&config).unwrap();
        assert_eq!(first.conn.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(first.conn.protocol_version(), Some(version.version));
        assert_eq!(first.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let again = node.connect_tls(&config).unwrap();
        assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn a_large_page_of_requests_passes_tls() {
    let identity = identity();
    let roots = roots(&identity);
    let node = Node::start(Setup { tls: Some(identity), ..Setup::default() });
    let config = client_config(&roots, &rustls::version::TLS13, "http/1.1");
    let mut client = node.connect_tls(&config).unwrap();
    let body = format!(r#"{{"x":"{}"}}"#, "a".repeat(300_000));
    let request = format!(
        "POST /v1/apps/app/sessions/new HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\
        Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).unwrap();
    let said = read_to_end(&mut client);
    assert!(said.starts_with("HTTP/1.1 201 "), "{said}");
}

#[test]
fn a_client_of_another_protocol_is_told_by_alert() {
    let identity = identity();
    let roots = roots(&identity);
    let node = Node::start(Setup { tls: Some(identity), ..Setup::default() });
    let config = client_config(&roots, &rustls::version::TLS13, "h2");
    let error = node.connect_tls(&config).map(drop).unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    let mut plain = node.connect();
    plain.write_all(GET_HEALTH.as_bytes()).unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest);
    assert!(rest.len() < 100, "an alert at most");
}

#[test]
fn another_certificate_serves_new_connections_only() {
    let (old, new) = (identity(), identity());
    let mut trusted = roots(&old);
    trusted.add(new.leaf().to_vec().into()).unwrap();
    let new_leaf = new.leaf().to_vec();
    let node = Node::start(Setup { tls: Some(old), ..Setup::default() });
    let config = client_config(&trusted, &rustls::version::TLS13, "http/1.1");
    let mut before = node.connect_tls(&config).unwrap();
    node.tls.as_ref().unwrap().replace(new).unwrap();
    let config = client_config(&trusted, &rustls::version::TLS13, "http/1.1");
    let after = node.connect_tls(&config).unwrap();
    assert_eq!(after.conn.peer_certificates().unwrap()[0].as_ref(), new_leaf);
    before.write_all(GET_HEALTH.as_bytes()).unwrap();
    assert!(read_response(&mut before).starts_with("HTTP/1.1 200 "), "the old one goes on");
}

#[test]
fn a_shard_that_stalls_does_not_hang_the_metrics() {
    let timing = Timing { survey: Duration::from_millis(100), ..quick() };
    let node = Node::start(Setup { timing, ..Setup::default() });
    let mut client = node.connect();
    client.write_all(ask_new().as_bytes()).unwrap();
    read_response(&mut client);
    client.write_all(GET_METRICS.as_bytes()).unwrap();
    let said = read_response(&mut client);
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.lines().any(|line| line == kind), "{head}");
    assert!(head.lines().any(|line| line == "cache-control: no-store"), "{head}");
    let tells = |line: &str| assert!(body.lines().any(|told| told == line), "{line}: {body}");
    tells("shardcast_shard_up{shard=\"0\"} 1");
    tells("shardcast_shard_up{shard=\"1\"} 0");
    tells("shardcast_http_connections{shard=\"0\"} 1");
    tells(r#"shardcast_http_requests_total{shard="0",route="sessions/new",code="2xx"} 1"#);
    tells(r#"shardcast_api_latency_seconds_bucket{le="0.1",shard="0",route="sessions/new"} 0"#);
    tells(r#"shardcast_api_latency_seconds_count{shard="0",route="sessions/new"} 1"#);
    // And the connection lives on.
    client.write_all(GET_METRICS.as_bytes()).unwrap();
    let line = r#"shardcast_http_requests_total{shard="0",route="metrics",code="2xx"} 1"#;
    assert!(read_response(&mut client).contains(line));
}

#[test]
fn the_metrics_are_for_whom_the_secret_lets_in() {
    let admin = Admin::new(Some("0123456789abcdef".into()));
    let timing = Timing { survey: Duration::from_millis(1), ..quick() };
    let node = Node::start(Setup { timing, admin, ..Setup::default() });
    let mut client = node.connect();
    client.write_all(GET_METRICS.as_bytes()).unwrap();
    let said = read_response(&mut client);
    assert!(said.starts_with("HTTP/1.1 401 "), "{said}");
    assert!(said.contains("www-authenticate: Bearer"), "{said}");
    let with = "Host: h\r\nAuthorization: Bearer 0123456789abcdef\r\n";
    let request = format!("GET /metrics HTTP/1.1\r\n{with}\r\n");
    client.write_all(request.as_bytes()).unwrap();
    assert!(read_response(&mut client).starts_with("HTTP/1.1 200 "));
}

/// How a node is to be.
struct Setup {
    timing: Timing,
    connections_max: usize,
    tls: Option<Identity>,
    admin: Admin,
}

impl Default for Setup {
    fn default() -> Self {
        Self { timing: quick(), connections_max: 1000, tls: None, admin: Admin::default() }
    }
}

/// A shard on its own thread. It drains when dropped.
struct Node {
    address: SocketAddr,
    drain: Drain,
    tls: Option<TlsConfig>,
    ended: mpsc::Receiver<()>,
}

impl Node {
    fn start(setup: Setup) -> Self {
        let (tell_address, address) = mpsc::channel();
        let (tell_ended, ended) = mpsc::channel();
        let drain = Drain::default();
        let tls = setup.tls.map(|identity| TlsConfig::new(identity).unwrap());
        let (shared, config) = (drain.clone(), tls.clone());
        LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(64 << 10)
            .ring_depth(64)
            .spawn(move || async move {
                let listener = glommio::net::TcpListener::bind("127.0.0.1:0").unwrap();
                tell_address.send(listener.local_addr().unwrap()).unwrap();
                let apps = Apps::new(vec![App::configured("app", "secret")]);
                Server::new(Rc::new(Clerk::default()), apps, setup.admin, setup.timing, shared)
                    .with_connections_max(setup.connections_max)
                    .serve(vec![Port { listener, tls: config }])
                    .await;
                let _ = tell_ended.send(());
            })
            .unwrap();
        let address = address.recv_timeout(Duration::from_secs(10)).unwrap();
        Self { address, drain, tls, ended }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Connects, shakes hands, and makes one request, after which tickets have come.
    fn connect_tls(
        &self,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        let mut stream = StreamOwned::new(connection, self.connect());
        stream.write_all(GET_HEALTH.as_bytes())?;
        stream.flush()?;
        let mut first = [0; 1];
        stream.read_exact(&mut first)?;
        let rest = read_response(&mut stream);
        assert!(rest.starts_with("TTP/1.1 200 "), "{rest}");
        Ok(stream)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

/// Opens sessions, after a while. Of its two shards the other one never tells what it counted.
#[derive(Debug, Default)]
struct Clerk(RefCell<ApiMeters>);

impl Desk for Clerk {
    async fn ask(&self, command: Command) -> Answer {
        glommio::timer::sleep(Duration::from_millis(200)).await;
        match command.ask {
            Ask::Create { .. } => {
                let session = SessionId::new(NodeId(1), ShardId(0), 0, 1);
                Ok(Reply::Created { session, answer: None })
            }
            _ => Err(Refusal::Internal),
        }
    }

    fn node_info(&self) -> NodeInfo {
        NodeInfo { version: "test", shards: 2, sessions: None, draining: false }
    }

    async fn survey(&self, until: impl Future<Output = ()>) -> Vec<Option<Snapshot>> {
        until.await;
        let api = self.0.borrow().clone();
        vec![Some(Snapshot { api, ..Snapshot::default() }), None]
    }

    fn process(&self) -> Process {
        Process::default()
    }

    fn meters(&self) -> &RefCell<ApiMeters> {
        &self.0
    }
}

fn quick() -> Timing {
    Timing { tick: Duration::from_millis(20), drain: Duration::from_secs(3), ..Timing::default() }
}

fn ask_new() -> String {
    "POST /v1/apps/app/sessions/new HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\
    Content-Length: 0\r\n\r\n"
        .into()
}

/// Reads one response by its content length.
fn read_response(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0; 1];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a response's head");
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).expect("a response's body");
    head + &String::from_utf8(body).unwrap()
}

fn read_to_end(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("closed, not reset");
    String::from_utf8(text).unwrap()
}

fn identity() -> Identity {
    self_signed(&["localhost".into()], SystemTime::now()).unwrap()
}

fn roots(identity: &Identity) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(identity.leaf().to_vec().into()).unwrap();
    roots
}

fn client_config(
    roots: &RootCertStore,
    version: &'static rustls::SupportedProtocolVersion,
    alpn: &str,
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

const GET_METRICS: &str = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
const GET_HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
