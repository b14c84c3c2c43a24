//! The real node, on threads of this process.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

pub(crate) const APP: &str = "test";
pub(crate) const SECRET: &str = "a-secret-of-this-test";

/// Starts a node; it ends with the process. Returns where its API is, in the clear and with a
/// certificate that nobody signed.
pub(crate) fn start() -> (String, String) {
    let (http, https) = (free_port(), free_port());
    let args = ["shardcast", "--udp", "127.0.0.1:0", "--shards", "1", "--log", "warn"];
    let app = format!("{APP}:{SECRET}");
    let (clear, tls) = (http.to_string(), https.to_string());
    let more = ["--app", &app, "--http", &clear, "--https", &tls, "--tls-self-signed"];
    let args = args.into_iter().chain(more).map(OsString::from);
    let flags = match shardcast::flags::read(args).unwrap() {
        shardcast::flags::Asked::Run(flags) => flags,
        shardcast::flags::Asked::Help(_) | shardcast::flags::Asked::Keygen(_) => {
            unreachable!("no help was asked for")
        }
    };
    let settings = shardcast::config::gather(&flags, |_| None).unwrap();
    let machine = shardcast::resolve::Machine::read().unwrap();
    let mut plan = shardcast::resolve::plan(&settings, &machine).unwrap();
    shardcast::check::ports(&mut plan).unwrap();
    std::thread::spawn(move || shardcast::boot::run(plan).unwrap());
    while TcpStream::connect(https).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    (format!("http://{http}"), format!("https://{https}"))
}

/// Where nobody listens now.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
