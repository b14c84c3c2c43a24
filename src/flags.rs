//! The command line: names, groups and help. Values stay text; [`crate::resolve`] reads them, so
//! that a flag, a variable and a line of the configuration file are judged by the same words.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use clap::error::ErrorKind;

use crate::start_error::{BadSetting, StartError};

/// A WebRTC SFU: one process, one port, a plain HTTPS API.
#[derive(Debug, Default, Parser)]
#[command(version, after_help = EXAMPLES, after_long_help = LONG_END, max_term_width = 100)]
pub struct Flags {
    /// Read settings from this TOML file; its keys are the names of these flags
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,

    /// Who may use the API; repeat for several [default: one made up at each start]
    ///
    /// The id is 1 to 64 of A-Z a-z 0-9 _ -, the secret at least 16 characters of
    /// A-Z a-z 0-9 - . _ ~ + / =, because anyone may try secrets as fast as the network lets them.
    /// Arguments are visible to everyone on the machine: prefer SHARDCAST_APP or the file.
    /// Without any app a development app is made up at each start, and the API answers on
    /// loopback only.
    #[arg(long, value_name = "ID:SECRET", help_heading = "Configuration")]
    pub app: Vec<String>,

    /// Who may read /metrics: whoever brings this as a bearer token [default: this machine only]
    ///
    /// At least 16 characters of A-Z a-z 0-9 - . _ ~ + / =. Without it the metrics are told only
    /// at a listener on loopback. Prefer SHARDCAST_ADMIN_SECRET or the file.
    #[arg(long, value_name = "SECRET", help_heading = "Configuration")]
    pub admin_secret: Option<String>,

    /// What to write to stderr: off, error, warn, info, debug or trace [default: info]
    ///
    /// Up to info the log names no ids, addresses, session descriptions or secrets.
    #[arg(long, value_name = "LEVEL", help_heading = "Configuration")]
    pub log: Option<String>,

    /// How long sessions may take to leave after SIGTERM or SIGINT [default: 5]
    #[arg(long, value_name = "SECONDS", help_heading = "Configuration")]
    pub drain: Option<String>,

    /// Where the API listens in clear text, or `off` [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", help_heading = "API")]
    pub http: Option<String>,

    /// Where the API listens with TLS; needs a certificate
    #[arg(long, value_name = "ADDR", help_heading = "API")]
    pub https: Option<String>,

    /// Certificate chain for --https, PEM
    #[arg(long, value_name = "FILE", help_heading = "API")]
    pub tls_cert: Option<String>,

    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = "API")]
    pub tls_key: Option<String>,

    /// Make up a certificate at each start; browsers will warn
    #[arg(long, help_heading = "API")]
    pub tls_self_signed: bool,

    /// Where media arrives: a port, or an address with a port, at most one of each family
    /// [default: 3478 on all addresses]
    #[arg(long, value_name = "ADDR|PORT", help_heading = "Media")]
    pub udp: Vec<String>,

    /// One port for all shards, or the port and the ones after it, one each
    /// [auto|shared|per-shard, default: auto]
    ///
    /// auto shares one port where the kernel lets this process load its packet steering (eBPF),
    /// and takes a port per shard elsewhere.
    #[arg(long, value_name = "HOW", help_heading = "Media")]
    pub udp_ports: Option<String>,

    /// Advertise this address instead of the machine's own of its family; repeatable
    ///
    /// For a machine behind 1:1 NAT, as in most clouds.
    #[arg(long, value_name = "IP", help_heading = "Media")]
    pub public_ip: Vec<String>,

    /// How datagrams reach the kernel [auto|ring|mmsg, default: auto]
    #[arg(long, value_name = "HOW", help_heading = "Media")]
    pub packet_io: Option<String>,

    /// How long a shard may wait for more packets, to be woken less often
    /// [auto|off|MICROSECONDS, default: auto]
    ///
    /// Waking up for one packet costs more than forwarding it to one viewer. auto waits up to
    /// 300 µs, and only while that finds something: a lightly loaded node answers at once. A
    /// number, at most 1000, waits that long after every turn that had packets.
    #[arg(long, value_name = "HOW", help_heading = "Media")]
    pub wake_delay: Option<String>,

    /// Diagnostic: write what each shard sends, lengths and addresses only, to FILE.0, FILE.1 and
    /// so on
    ///
    /// 32 bytes for each send, 512 MiB for a shard at most; a file that is there is replaced.
    /// shards/src/io/record.rs has the format, and `cargo bench --bench stage` replays it.
    #[arg(long, value_name = "FILE", help_heading = "Diagnostics")]
    pub record_sends: Option<String>,

    /// The key of the cluster this node is part of; make one with `shardcast keygen --out FILE`
    ///
    /// Whoever has it can do everything a node can: keep it as you keep a TLS key. A second line
    /// holds the next key while it is being changed.
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub cluster_key: Option<String>,

    /// Where the other nodes reach this one, by UDP; the address is this machine's own
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Cluster")]
    pub cluster: Option<String>,

    /// Where other nodes of the cluster may be; repeatable. Names are looked up again and again
    ///
    /// One that is up is enough. A name may stand for all of them, as that of a headless service
    /// does.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Cluster")]
    pub seed: Vec<String>,

    /// How many shards, at most 255 [default: one per available core]
    #[arg(long, value_name = "N", help_heading = "Cores")]
    pub shards: Option<String>,

    /// Which CPUs to pin shards to, such as 0-3,6 [default: all this process may use]
    #[arg(long, value_name = "LIST", help_heading = "Cores")]
    pub cpus: Option<String>,
}

/// Makes a cluster key: one line of text, on stdout or in a file of its own.
#[derive(Debug, Default, Parser)]
#[command(name = "shardcast keygen", max_term_width = 100)]
pub struct KeygenFlags {
    /// Write it to this new file, which only you may read, instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// A cluster key.
    Keygen(KeygenFlags),
    /// The help or version text, to print.
    Help(clap::Error),
    /// A running node.
    Run(Box<Flags>),
}

/// Reads the command line, program name first.
pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Asked, StartError> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let parsed = if args.get(1).is_some_and(|word| word == "keygen") {
        args.remove(1);
        KeygenFlags::try_parse_from(args).map(Asked::Keygen)
    } else {
        Flags::try_parse_from(args).map(|flags| Asked::Run(Box::new(flags)))
    };
    match parsed {
        Ok(asked) => Ok(asked),
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            Ok(Asked::Help(error))
        }
        Err(error) => Err(BadSetting::Usage { problem: first_sentence(&error.to_string()) }.into()),
    }
}

/// clap's report is a paragraph with a usage line; its first line is the sentence.
fn first_sentence(report: &str) -> String {
    let line = report.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").trim_end_matches(':').to_owned()
}

macro_rules! examples {
    () => {
        "\
Examples:
  shardcast
      On this machine only, with an app made up at start; open the URL it prints.
  SHARDCAST_APP=myapp:$(openssl rand -hex 32) shardcast --https [::]:443 \\
      --tls-cert chain.pem --tls-key key.pem --public-ip 203.0.113.7
      On a server behind 1:1 NAT.
  shardcast --config shardcast.toml --log debug
      From a file, but saying more.
  shardcast keygen --out cluster.key
      Makes the key of a cluster; --cluster-key, --cluster and --seed then make nodes one.

Every flag is also a variable, SHARDCAST_ and its name in capitals (SHARDCAST_UDP_PORTS), lists
with commas. Flags win over variables, variables over the file; a list replaces, never extends."
    };
}

const EXAMPLES: &str = examples!();

const LONG_END: &str = concat!(
    examples!(),
    "

A configuration file:
  app = [\"myapp:0123456789abcdef0123456789abcdef\"]
  https = \"0.0.0.0:443\"
  tls-cert = \"/etc/shardcast/chain.pem\"
  tls-key = \"/etc/shardcast/key.pem\"
  udp = 3478

Exit codes:
  0    ended by SIGTERM or SIGINT, sessions drained or cut off at the deadline
  1    a shard ended by itself
  2    command line or configuration
  3    ports or addresses: taken, not of this machine, none to advertise
  4    rights or kernel limits: io_uring, locked memory, ports below 1024
  5    TLS certificate or key
  130  ended at once by a second signal"
);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn an_unknown_flag_is_one_sentence() {
        let error = read(["shardcast", "--prot", "1"].map(OsString::from)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(error.to_string(), "unexpected argument '--prot' found; see `shardcast --help`");
    }

    #[test]
    fn help_and_version_are_not_errors() {
        for flag in ["--help", "-h", "--version"] {
            let asked = read(["shardcast", flag].map(OsString::from));
            assert!(matches!(asked, Ok(Asked::Help(_))), "{flag}");
        }
    }
}
