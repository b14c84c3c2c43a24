//! The program itself: how it starts, refuses and ends.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

#[test]
fn what_is_wrong_at_start_is_one_sentence_and_a_code() {
    for (args, code, reason) in [
        (&["--prot", "1"][..], 2, "unexpected argument '--prot'"),
        (&["--http"], 2, "a value is required for '--http <ADDR>'"),
        (&["--http", "here"], 2, "--http is `here` but must be"),
        (&["--http", "0.0.0.0:0"], 2, "HTTP will not listen on 0.0.0.0:0 for the development app"),
        (&["--https", "[::]:0", "--tls-self-signed"], 2, "HTTPS will not listen on [::]:0"),
        (&["--app", "x:short"], 2, "at least 16 characters"),
        (&["--config", "/nonexistent.toml"], 2, "/nonexistent.toml cannot be read"),
        (&["--cpus", "1023"], 2, "--cpus names CPU 1023"),
        (&["--http", "127.0.0.1:0", "--udp", "203.0.113.254:0"], 3, "is no address of this"),
        (&["--udp", "127.0.0.1:0", "--public-ip", "2001:db8::1"], 3, "no IPv6 socket or address"),
        (
            &["--https", "127.0.0.1:0", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"],
            5,
            "there is no file /nonexistent",
        ),
    ] {
        refuses(shardcast().args(args), code, reason);
    }
}

#[test]
fn a_taken_port_is_named_with_its_setting() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = tcp.local_addr().unwrap().to_string();
    refuses(
        shardcast().args(["--http", &http]),
        3,
        &format!("TCP {http} (--http) is taken, perhaps by another shardcast: see who holds it"),
    );
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let media = udp.local_addr().unwrap().to_string();
    refuses(
        shardcast().args(["--http", "127.0.0.1:0", "--udp", &media]),
        3,
        &format!("UDP {media} (--udp) is taken"),
    );
}

#[test]
fn a_second_node_on_the_same_ports_is_refused() {
    let first = Node::start(&mut shardcast());
    let port = first.media_port();
    refuses(shardcast().args(["--udp", &port]), 3, &format!(":{port} (--udp) is taken"));
}

#[test]
fn a_variable_is_a_setting_and_a_flag_wins_over_it() {
    refuses(shardcast().env("SHARDCAST_SHARDS", "many"), 2, "SHARDCAST_SHARDS is `many` but");
    let mut both = shardcast();
    both.env("SHARDCAST_SHARDS", "many").args(["--shards", "1"]);
    let node = Node::start(&mut both);
    assert!(node.banner.contains("Shards    1 on CPU "), "{}", node.banner);
}

#[test]
fn a_file_with_an_unknown_key_is_refused_by_name() {
    let path = std::env::temp_dir().join(format!("start-{}.toml", std::process::id()));
    std::fs::write(&path, "shards = 1\nhtpp = 'x'\n").unwrap();
    refuses(shardcast().arg("--config").arg(&path), 2, "has the key `htpp`, which is none of");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_banner_of_a_configured_node_keeps_its_secret() {
    let secret = "c0ffee0123456789c0ffee";
    let node = Node::start(shardcast().env("SHARDCAST_APP", format!("prod:{secret}")));
    assert!(node.banner.contains("/v1/apps/prod\n"), "{}", node.banner);
    let (code, rest) = node.end("TERM");
    assert_eq!(code, Some(0));
    assert!(!rest.contains(secret), "{rest}");
}

#[test]
fn sigterm_and_sigint_end_it_in_time_with_success() {
    for signal in ["TERM", "INT"] {
        let node = Node::start(shardcast().args(["--drain", "2"]));
        let asked = Instant::now();
        assert_eq!(node.end(signal).0, Some(0), "SIG{signal}");
        assert!(asked.elapsed() < Duration::from_secs(3), "SIG{signal}: {:?}", asked.elapsed());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let node = Node::start(&mut shardcast());
    // Stopped, it gets both signals in one go, before it can act on the first. Stopping takes a
    // moment on a busy machine.
    node.signal("STOP");
    node.wait_until_stopped();
    for signal in ["TERM", "INT"] {
        node.signal(signal);
    }
    assert_eq!(node.end("CONT").0, Some(130));
}

#[test]
fn help_documents_the_exit_codes() {
    let output = shardcast().arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    for part in ["Exit codes:", "--udp-ports", "Examples:", "[default: 127.0.0.1:8080]"] {
        assert!(help.contains(part), "{part}");
    }
}

/// A running node that has shown its banner. Killed when dropped.
struct Node {
    child: Child,
    banner: String,
}

impl Node {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("Ctrl-C") {
            if lines.read_line(&mut banner).unwrap() == 0 {
                let mut said = String::new();
                child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("it did not start: {banner}{said}");
            }
        }
        Self { child, banner }
    }

    /// The first, where each shard has its own (`57001-57002`).
    fn media_port(&self) -> String {
        let (_, rest) = self.banner.split_once("udp ").unwrap();
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().to_owned()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn wait_until_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal; the exit code and all that was written.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        let code = self.child.wait().unwrap().code();
        let mut said = self.banner.clone();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (code, said)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program on free ports and with no settings from outside.
fn shardcast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast"));
    command.env_clear().env("SHARDCAST_HTTP", "127.0.0.1:0").env("SHARDCAST_UDP", "0");
    command
}

fn refuses(command: &mut Command, code: i32, reason: &str) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it started, although: {reason}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{said}");
    assert!(said.starts_with("shardcast: ") && said.contains(reason), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(stdout.is_empty(), "nothing runs");
}
