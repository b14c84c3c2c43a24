//! Which streams are still to be subscribed to, and what became of the others.
//!
//! Invariants: every pull has one result in the end, in the order of the wishes; every round
//! takes streams off those to ask for, so that asking ends.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::api::{Cause, Failure, Pull, Source, answer};

/// How a publisher is addressed: its feed, and the mids there of what it publishes, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Feed {
    /// A number, or text where the server is set so.
    pub(super) feed: Value,
    pub(super) mids: BTreeMap<String, String>,
}

impl Feed {
    pub(super) fn source(&self) -> Source {
        Source(json!(self).to_string())
    }
}

#[derive(Debug)]
pub(super) struct Streams {
    /// Feed and mid there.
    wishes: Vec<(Value, String)>,
    results: Vec<Result<String, Failure>>,
    now: Vec<usize>,
    later: Vec<usize>,
}

impl Streams {
    pub(super) fn of(pulls: &[Pull]) -> Result<Self, Failure> {
        let wish = |pull: &Pull| {
            let feed: Feed = serde_json::from_str(&pull.source.0).ok()?;
            let mid = feed.mids.get(&pull.name)?.clone();
            Some((feed.feed, mid))
        };
        let wishes = pulls.iter().map(wish).collect::<Option<Vec<_>>>();
        let unknown = || Failure::new(Cause::Local, "a pull of a track that was not published");
        let wishes = wishes.ok_or_else(unknown)?;
        let unasked = Failure::new(Cause::Local, "a pull that was not asked for");
        let results = vec![Err(unasked); wishes.len()];
        let now = (0..wishes.len()).collect();
        Ok(Self { wishes, results, now, later: Vec::new() })
    }

    /// Takes the next ones to ask for.
    pub(super) fn next(&mut self, most: usize) -> Vec<usize> {
        self.now.drain(..most.min(self.now.len())).collect()
    }

    pub(super) fn named(&self, part: &[usize]) -> Value {
        let named = |at: &usize| {
            let (feed, mid) = &self.wishes[*at];
            json!({"feed": feed, "mid": mid})
        };
        part.iter().map(named).collect()
    }

    /// Finds each stream of the part in what the subscription consists of now.
    pub(super) fn served(&mut self, call: &str, part: &[usize], data: &Value) {
        let none = Vec::new();
        let all = data.get("streams").and_then(Value::as_array).unwrap_or(&none);
        for at in part {
            let (feed, mid) = &self.wishes[*at];
            let is_it = |stream: &&Value| {
                stream.get("feed_id") == Some(feed)
                    && stream.get("feed_mid").and_then(Value::as_str) == Some(mid)
            };
            let ours = all.iter().find(is_it).and_then(|stream| stream.get("mid")?.as_str());
            if let Some(mid) = ours {
                self.results[*at] = Ok(mid.to_owned());
            } else {
                self.results[*at] = Err(answer::lacks(call, "one of the streams"));
                self.later.push(*at);
            }
        }
    }

    /// The part was refused because a feed that `said` names is not there: its streams wait,
    /// the others are asked for again at once.
    pub(super) fn missing(&mut self, part: &[usize], said: &str, failure: &Failure) {
        let names = |feed: &Value| match feed {
            Value::String(text) => said.contains(text.as_str()),
            number => {
                let number = number.to_string();
                said.split(|c: char| !c.is_ascii_digit()).any(|word| word == number)
            }
        };
        let (mut gone, mut there): (Vec<usize>, Vec<usize>) =
            part.iter().partition(|at| names(&self.wishes[**at].0));
        if gone.is_empty() {
            std::mem::swap(&mut gone, &mut there);
        }
        for at in gone {
            self.results[at] = Err(failure.clone());
            self.later.push(at);
        }
        self.now.splice(..0, there);
    }

    /// Whether none is left that could still come.
    pub(super) fn is_done(&self) -> bool {
        self.later.is_empty()
    }

    /// Those that were not there are asked for again.
    pub(super) fn again(&mut self) {
        self.now.append(&mut self.later);
    }

    pub(super) fn into_results(self) -> Vec<Result<String, Failure>> {
        self.results
    }
}
