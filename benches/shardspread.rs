//! What a second shard costs a whole server: the same stage with all viewers on the publisher's
//! shard, and spread over two.
//!
//! Both servers have one and the same CPU, and the generator the other one, so that a pair
//! differs by the shards alone: mail, doorbells, a second loop with its wake-ups, the kernel
//! steering to two sockets, and, which two CPUs would not have, switching between the threads.
//! What moving cache lines between two CPUs costs is not in the figures. Rounds of one and of
//! two shards take turns, and ratios are of pairs.
//!
//! `cargo bench --bench shardspread [-- --viewers 500 --duration 10 --rounds 5]`

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]

mod common;
mod live;

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

fn main() {
    let Asked { settings } = Asked::parse();
    println!(
        "1 publisher, {} viewers, {} s; ns of CPU per forwarded packet; all shards on CPU {}, \
         generator on CPU {}\n",
        settings.viewers, settings.duration, settings.server_cpu, settings.generator_cpu
    );
    for server in settings.servers() {
        println!("   round  one shard  two shards   ratio   run of one, of two   lost  balance");
        let mut pairs = Vec::new();
        for number in 1..=settings.rounds {
            let pair = [1, 2].map(|shards| settings.run(&server, shards, None, None));
            println!("{number:>8} {}", line(&pair));
            pairs.push(pair);
        }
        let ratio = median_of(&pairs, ratio);
        let verdict = if ratio <= TARGET { "within" } else { "BEYOND" };
        println!(
            "\nmedians: one shard {:.0} ns, two shards {:.0} ns, ratio ×{ratio:.2}, {verdict} the \
             aim of ×{TARGET}",
            median_of(&pairs, |pair| cost(&pair[0])),
            median_of(&pairs, |pair| cost(&pair[1])),
        );
    }
}

fn cost(report: &Report) -> f64 {
    report.server_cpu_ns_per_packet.expect("the server is a process of this machine")
}

fn ratio(pair: &[Report; 2]) -> f64 {
    cost(&pair[1]) / cost(&pair[0])
}

fn line(pair: &[Report; 2]) -> String {
    let [one, two] = pair;
    let run = |report: &Report| report.server_gso_run.unwrap_or(f64::NAN);
    let shards = two.server_shards.iter().flat_map(|shards| shards.values());
    let balance: Vec<String> = shards.map(u64::to_string).collect();
    format!(
        "{:>10.0} {:>11.0}   ×{:<5.2} {:>11.2} {:>8.2} {:>6}  {}",
        cost(one),
        cost(two),
        ratio(pair),
        run(one),
        run(two),
        one.lost + two.lost,
        balance.join(" : "),
    )
}
