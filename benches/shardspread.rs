//! What a second shard costs a whole server: the same stage with all viewers on the publisher's
//! shard, and spread over two.
//!
//! Both servers have one and the same CPU, and the generator the other one, so that runs differ
//! by the shards alone: mail, doorbells, a second loop with its wake-ups, the kernel steering to
//! two sockets, and, which two CPUs would not have, switching between the threads. What moving
//! cache lines between two CPUs costs is not in the figures.
//!
//! A shard wakes up for every batch, however few viewers it has. Half as many viewers for each
//! shard therefore make a packet dearer, also without a second shard: the third run of a round
//! is one shard with half of the viewers, and tells how much of the ratio that is.
//!
//! `cargo bench --bench shardspread [-- --viewers 500 --duration 10 --rounds 5]`

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]

mod common;
mod live;

use std::process::ExitCode;

use clap::Parser;
use live::{Settings, median_of};
use loadgen::report::summary::Report;

/// What a forwarded packet may cost more with viewers on two shards.
const TARGET: f64 = 1.05;

/// What a second shard costs a whole server.
#[derive(Debug, Parser)]
struct Asked {
    #[command(flatten)]
    settings: Settings,
}

fn main() -> ExitCode {
    let Asked { settings } = Asked::parse();
    let mut half = settings.clone();
    half.viewers /= 2;
    println!(
        "1 publisher, {} viewers, {} s; ns of CPU per forwarded packet; all shards on CPU {}, \
         generator on CPU {}\n",
        settings.viewers, settings.duration, settings.pair.server_cpu, settings.pair.generator_cpu
    );
    let mut whole = true;
    for server in settings.pair.servers() {
        println!("{HEAD}");
        let mut rounds = Vec::new();
        for number in 1..=settings.rounds {
            match Round::play(&settings, &half, &server) {
                Ok(round) => {
                    println!("{number:>8} {}", round.line());
                    rounds.push(round);
                }
                Err(sentence) => println!("{number:>8}   FAILED: {sentence}"),
            }
        }
        whole &= rounds.len() == settings.rounds;
        if rounds.is_empty() {
            continue;
        }
        let ratio = median_of(&rounds, Round::ratio);
        let verdict = if ratio <= TARGET { "within" } else { "BEYOND" };
        println!(
            "\nmedians: one shard {:.0} ns, two {:.0} ns, one with half of the viewers {:.0} ns",
            median_of(&rounds, |round| cost(&round.one)),
            median_of(&rounds, |round| cost(&round.two)),
            median_of(&rounds, |round| cost(&round.half)),
        );
        println!(
            "two shards to one ×{ratio:.2}, {verdict} the aim of ×{TARGET}; to one with half of \
             the viewers ×{:.2}",
            median_of(&rounds, Round::ratio_to_half)
        );
    }
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const HEAD: &str = "   round  one shard  two shards     half   ratio  to half   run of one, of two, of half   \
                    lost  balance";

/// A run of each kind.
struct Round {
    one: Report,
    two: Report,
    /// One shard, half of the viewers.
    half: Report,
}

impl Round {
    fn play(settings: &Settings, half: &Settings, server: &str) -> Result<Self, String> {
        Ok(Self {
            one: settings.run(server, 1, None, None)?,
            two: settings.run(server, 2, None, None)?,
            half: half.run(server, 1, None, None)?,
        })
    }

    fn ratio(&self) -> f64 {
        cost(&self.two) / cost(&self.one)
    }

    fn ratio_to_half(&self) -> f64 {
        cost(&self.two) / cost(&self.half)
    }

    fn line(&self) -> String {
        let Self { one, two, half } = self;
        let run = |report: &Report| report.server_gso_run.unwrap_or(f64::NAN);
        let shards = two.server_shards.iter().flat_map(|shards| shards.values());
        let balance: Vec<String> = shards.map(u64::to_string).collect();
        format!(
            "{:>10.0} {:>11.0} {:>8.0}   ×{:<5.2} ×{:<5.2} {:>13.2} {:>7.2} {:>8.2} {:>6}  {}",
            cost(one),
            cost(two),
            cost(half),
            self.ratio(),
            self.ratio_to_half(),
            run(one),
            run(two),
            run(half),
            one.lost + two.lost + half.lost,
            balance.join(" : "),
        )
    }
}

fn cost(report: &Report) -> f64 {
    report.server_cpu_ns_per_packet.expect("the server is a process of this machine")
}
