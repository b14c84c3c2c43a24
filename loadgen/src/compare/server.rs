//! A server that is started for its turn, and stopped after it, whatever happens meanwhile.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::targets::Entry;
use crate::real::clock;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);

/// How long it may take to leave when asked to.
const LEAVE: Duration = Duration::from_secs(10);

const LOOK: Duration = Duration::from_millis(50);

/// After it listens, before it is asked: what it still does to start is not the run's.
const CALM: Duration = Duration::from_millis(500);

/// A server's process.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Starts it and waits until it listens.
    pub fn start(entry: &Entry) -> Result<Self, String> {
        let name = entry.name.clone();
        let address = address(&entry.url).map_err(|what| format!("{name}: {what}"))?;
        if TcpStream::connect(&address[..]).is_ok() {
            return Err(format!("{name}: something listens at {} already", entry.url));
        }
        // The shell is replaced, so that the process found and stopped is the server.
        let pinned = entry.cpus.as_deref().map(|cpus| format!("taskset -c {cpus} "));
        let command = format!("exec {}{}", pinned.unwrap_or_default(), entry.start);
        let child = Command::new("/bin/sh")
            .args(["-c", &command])
            .envs(&entry.env)
            // Not the terminal's: Ctrl-C ends the run first, and the run ends the server.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("{name}: `{}` does not start: {error}", entry.start))?;
        let mut this = Self { name, child };
        let began = clock::moment().now;
        while TcpStream::connect(&address[..]).is_err() {
            if let Some(status) = this.ended() {
                return Err(format!("{}: `{}` ended: {status}", this.name, entry.start));
            }
            if is_over(began, START) {
                let seconds = START.as_secs();
                return Err(format!(
                    "{}: nothing listens at {} after {seconds} s",
                    this.name, entry.url
                ));
            }
            sleep(LOOK);
        }
        sleep(CALM);
        Ok(this)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(self) {
        drop(self);
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let began = clock::moment().now;
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        while self.ended().is_none() {
            if is_over(began, LEAVE) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            sleep(LOOK);
        }
    }
}

fn is_over(began: Instant, limit: Duration) -> bool {
    clock::moment().now.saturating_duration_since(began) > limit
}

fn address(url: &str) -> Result<Vec<std::net::SocketAddr>, String> {
    let url = reqwest::Url::parse(url).map_err(|error| format!("url {url}: {error}"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let found = (host.as_str(), port).to_socket_addrs();
    found.map(Iterator::collect).map_err(|error| format!("{host} is not known: {error}"))
}
