//! Which CPUs run shards.
//!
//! A shard is pinned; shard `i` runs on the `i`-th CPU of the list, and over again when there
//! are more shards than CPUs. Memory stays where the kernel puts it: a shard touches its memory
//! first, so that it is local to its NUMA node already.
//!
//! Not here: pinning itself, which the executor does.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use shards::ids::ShardId;

use crate::start_error::{BadRights, BadSetting, StartError};

/// A shard and the CPU it is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    pub shard: ShardId,
    pub cpu: usize,
}

/// The CPUs of this process's affinity mask, ascending.
pub fn affinity() -> Result<Vec<usize>, StartError> {
    let mask = sched_getaffinity(Pid::from_raw(0)).map_err(|errno| BadRights::Machine {
        what: "read its CPU affinity",
        cause: errno.to_string(),
    })?;
    Ok((0..CpuSet::count()).filter(|cpu| mask.is_set(*cpu) == Ok(true)).collect())
}

/// Reads a CPU list as the kernel writes them: `0-3,6`. Ascending, without repeats.
pub fn parse_cpus(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= CpuSet::count() {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// Writes a CPU list the same way.
pub fn show_cpus(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => runs.push((*cpu, *cpu)),
        }
    }
    let show = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(show).collect::<Vec<_>>().join(",")
}

/// Pins `shards` shards to `cpus`. `cpus` is not empty.
pub fn assign(shards: usize, cpus: &[usize]) -> Vec<Pin> {
    assert!(!cpus.is_empty(), "a process runs somewhere");
    assert!(shards <= ShardId::MAX_SHARDS, "bounded where the setting is read");
    (0u8..)
        .zip(cpus.iter().cycle())
        .take(shards)
        .map(|(n, cpu)| Pin { shard: ShardId(n), cpu: *cpu })
        .collect()
}

/// The first CPU of `wanted` that is not in `allowed` is an error.
pub fn permitted(wanted: &[usize], allowed: &[usize]) -> Result<(), StartError> {
    match wanted.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(cpu) => {
            Err(BadSetting::CpuForbidden { cpu: *cpu, allowed: show_cpus(allowed) }.into())
        }
        None => Ok(()),
    }
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<usize> {
    let text = text.trim();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_round_trip() {
        for (text, cpus) in [
            ("0", vec![0]),
            ("0-3,6", vec![0, 1, 2, 3, 6]),
            ("6,1-2,2", vec![1, 2, 6]),
            (" 4 , 5 ", vec![4, 5]),
        ] {
            assert_eq!(parse_cpus(text), Some(cpus), "{text}");
        }
        assert_eq!(show_cpus(&[0, 1, 2, 3, 6]), "0-3,6");
        assert_eq!(show_cpus(&[]), "");
    }

    #[test]
    fn text_that_is_no_cpu_list_is_refused() {
        for text in ["", ",", "3-1", "-1", "1-", "+1", "a", "0-99999999999999999999", "0-4096"] {
            assert_eq!(parse_cpus(text), None, "{text}");
        }
    }

    #[test]
    fn shards_beyond_the_cpus_start_over() {
        let pins = assign(3, &[2, 5]);
        let pairs: Vec<_> = pins.iter().map(|pin| (pin.shard.0, pin.cpu)).collect();
        assert_eq!(pairs, [(0, 2), (1, 5), (2, 2)]);
        assert_eq!(assign(ShardId::MAX_SHARDS, &[0]).len(), 255);
    }

    #[test]
    fn a_cpu_outside_the_mask_is_named() {
        assert_eq!(permitted(&[1, 2], &[0, 1, 2, 3]), Ok(()));
        assert_eq!(
            permitted(&[1, 9], &[0, 1]).unwrap_err().to_string(),
            "--cpus names CPU 9 but this process may only run on 0-1: choose from those, or \
             widen its cpuset or taskset"
        );
    }

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!affinity().unwrap().is_empty());
    }
}
