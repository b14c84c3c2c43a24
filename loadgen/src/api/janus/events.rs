//! What Janus answers and reports, read.
//!
//! Invariants: refusals hide in answers of success; [`Event::outcome`] finds them all.

use serde::Deserialize;
use serde_json::Value;

use crate::api::{Cause, Failure, Response, answer};

/// An answer to a request, or an event of a session.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Event {
    /// What it is: `success`, `ack`, `event`, `error`, `hangup`, ...
    pub(super) janus: String,
    pub(super) transaction: Option<String>,
    /// The handle it is about.
    pub(super) sender: Option<u64>,
    /// Why, for a hangup.
    pub(super) reason: Option<String>,
    data: Option<Made>,
    error: Option<Trouble>,
    plugindata: Option<PluginData>,
    jsep: Option<Jsep>,
}

#[derive(Debug, Clone, Deserialize)]
struct Made {
    id: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Trouble {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Clone, Deserialize)]
struct PluginData {
    #[serde(default)]
    data: Value,
}

#[derive(Debug, Clone, Deserialize)]
struct Jsep {
    r#type: String,
    sdp: String,
}

/// What a request came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The plugin's words.
    pub(super) data: Value,
    jsep: Option<Jsep>,
}

/// A request that was refused, by Janus or by its plugin.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: i64,
    /// The server's words as they are, with ids.
    pub(super) said: String,
    pub(super) failure: Failure,
}

impl Event {
    /// The answer to a request.
    pub(super) fn read(call: &str, response: &Response) -> Result<Self, Failure> {
        if response.status != 200 {
            return Err(answer::refusal(call, response));
        }
        answer::json(call, &response.body)
    }

    /// A session's news: one event or a list of them.
    pub(super) fn read_all(call: &str, response: &Response) -> Result<Vec<Self>, Failure> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum News {
            Many(Vec<Event>),
            One(Event),
        }
        match response.status {
            200 => {}
            404 => {
                let what = format!("{call}: the server has ended the session");
                return Err(Failure::new(Cause::Closed, what));
            }
            _ => return Err(answer::refusal(call, response)),
        }
        Ok(match answer::json(call, &response.body)? {
            News::Many(events) => events,
            News::One(event) => vec![event],
        })
    }

    /// The id of what was created.
    pub(super) fn made(&self, call: &str) -> Result<u64, Failure> {
        let id = self.data.as_ref().and_then(|made| made.id);
        id.ok_or_else(|| answer::lacks(call, "an id"))
    }

    pub(super) fn outcome(self, call: &str) -> Result<Outcome, Refusal> {
        let data = self.plugindata.map_or(Value::Null, |plugin| plugin.data);
        let by_plugin = data.get("error_code").and_then(Value::as_i64).map(|code| {
            let said = data.get("error").and_then(Value::as_str).unwrap_or_default();
            (code, said.to_owned())
        });
        let by_janus = self.error.map(|error| (error.code, error.reason));
        let refused = by_janus.or(by_plugin);
        let (code, said) = match refused {
            Some(refused) => refused,
            None if self.janus == "error" => (0, "without a reason".to_owned()),
            None => return Ok(Outcome { data, jsep: self.jsep }),
        };
        // Unauthorized by Janus, for a plugin, by the VideoRoom.
        let cause = match code {
            403 | 405 | 433 => Cause::Unauthorized,
            _ => Cause::Refused,
        };
        let failure = Failure::new(cause, format!("{call}: {code} {}", answer::scrub(&said)));
        Err(Refusal { code, said, failure })
    }
}

impl Outcome {
    pub(super) fn has_description(&self) -> bool {
        self.jsep.is_some()
    }

    pub(super) fn description(self, call: &str, kind: &str) -> Result<String, Failure> {
        let jsep = self.jsep.filter(|jsep| jsep.r#type == kind);
        jsep.map(|jsep| jsep.sdp).ok_or_else(|| answer::lacks(call, "a session description"))
    }
}
