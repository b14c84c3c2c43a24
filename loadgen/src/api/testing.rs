//! What the sequences of the dialects are tested with: a caller that answers from a script,
//! and an endpoint that makes descriptions of words. Both write down what was asked of them,
//! into one list.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Caller, Cause, Endpoint, Failure, Kind, LineWish, Method, Offer, Pull, Push};
use super::{Request, Response, Source};

/// What happened, in order.
pub(super) type Log = Rc<RefCell<Vec<String>>>;

/// Answers one request after the other. `$T` in an answer is the last request's transaction.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) log: Log,
    answers: Rc<RefCell<VecDeque<Response>>>,
    /// Begins again when all were given.
    endless: bool,
    transaction: Rc<RefCell<String>>,
    random: Rc<Cell<u64>>,
}

impl Script {
    pub(super) fn new(answers: impl IntoIterator<Item = Response>) -> Self {
        Self {
            log: Log::default(),
            answers: Rc::new(RefCell::new(answers.into_iter().collect())),
            endless: false,
            transaction: Rc::default(),
            random: Rc::default(),
        }
    }

    pub(super) fn endless(answers: impl IntoIterator<Item = Response>) -> Self {
        Self { endless: true, ..Self::new(answers) }
    }

    fn answer(&self, method: &str, request: &Request) -> Response {
        let mut line = format!("{method} {}", request.url);
        if let Some(token) = &request.bearer {
            write!(line, " [{token}]").unwrap();
        }
        if !request.body.is_empty() {
            write!(line, " {}", request.body).unwrap();
        }
        if let Ok(body) = serde_json::from_str::<Value>(&request.body)
            && let Some(transaction) = body.get("transaction").and_then(Value::as_str)
        {
            *self.transaction.borrow_mut() = transaction.to_owned();
            line = line.replace(transaction, "T");
        }
        self.log.borrow_mut().push(line);
        let mut answers = self.answers.borrow_mut();
        let mut answer = answers.pop_front().expect("the script goes on");
        if self.endless {
            answers.push_back(answer.clone());
        }
        answer.body = answer.body.replace("$T", &self.transaction.borrow());
        answer
    }

    /// All that happened; and nothing was left of the script.
    pub(super) fn done(&self) -> Vec<String> {
        assert_eq!(*self.answers.borrow(), [], "answers nobody asked for");
        self.log.take()
    }
}

impl Caller for Script {
    async fn call(&self, request: Request) -> Result<Response, Failure> {
        let method = match request.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        };
        Ok(self.answer(method, &request))
    }

    async fn wait_for_news(&self, request: Request) -> Result<Response, Failure> {
        Ok(self.answer("NEWS", &request))
    }

    async fn pause(&self, time: Duration) {
        assert!(time <= Duration::from_secs(4), "{time:?}");
        self.log.borrow_mut().push("pause".into());
    }

    fn random(&self) -> u64 {
        self.random.set(self.random.get() + 1);
        0xabcd_ef00_0000_0000 + self.random.get()
    }
}

/// Makes descriptions of words.
pub(super) struct Words {
    log: Log,
    mids: Cell<u32>,
    /// Accepts nothing.
    refuses: bool,
}

impl Words {
    pub(super) fn of(script: &Script) -> Self {
        Self { log: script.log.clone(), mids: Cell::new(0), refuses: false }
    }

    pub(super) fn that_refuse(script: &Script) -> Self {
        Self { refuses: true, ..Self::of(script) }
    }

    fn say(&self, what: String) -> Result<(), Failure> {
        self.log.borrow_mut().push(what);
        match self.refuses {
            false => Ok(()),
            true => Err(Failure::new(Cause::Negotiation, "not with me")),
        }
    }
}

impl Endpoint for Words {
    async fn offer(&self, lines: Vec<LineWish>) -> Result<Offer, Failure> {
        let mut sdp = "offer".to_owned();
        let mut mids = Vec::new();
        for line in lines {
            let direction = if line.sends { "sends" } else { "receives" };
            write!(sdp, " {} {direction}", line.kind.name()).unwrap();
            mids.push(format!("m{}", self.mids.get()));
            self.mids.set(self.mids.get() + 1);
        }
        Ok(Offer { sdp, mids })
    }

    async fn offer_restart(&self) -> Result<Offer, Failure> {
        Ok(Offer { sdp: "restart".into(), mids: Vec::new() })
    }

    async fn accept(&self, answer: String) -> Result<(), Failure> {
        self.say(format!("accept {answer}"))
    }

    async fn answer(&self, offer: String) -> Result<String, Failure> {
        self.say(format!("answer {offer}"))?;
        Ok(format!("answer to {offer}"))
    }
}

pub(super) fn told(status: u16, body: &Value) -> Response {
    Response { status, location: None, body: body.to_string() }
}

pub(super) fn push(kind: Kind, name: &str) -> Push {
    Push { kind, name: name.into() }
}

pub(super) fn pull(kind: Kind, name: &str, source: &str) -> Pull {
    Pull { kind, name: name.into(), source: Source(source.into()) }
}

/// Runs what never has to wait.
pub(super) fn now<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

/// Answers that are nearly right, or not at all.
pub(super) fn garbage() -> impl Strategy<Value = Vec<Response>> {
    let status = prop::sample::select(vec![200u16, 201, 302, 400, 401, 404, 410, 425, 503]);
    let words = vec![
        "",
        "0",
        "1",
        "offer",
        "answer",
        "event",
        "success",
        "ack",
        "hangup",
        "keepalive",
        "$T",
        "not_found_track_error",
        "v=0",
    ];
    let keys = vec![
        "sessionId",
        "sessionDescription",
        "type",
        "sdp",
        "tracks",
        "mid",
        "errorCode",
        "janus",
        "requiresImmediateRenegotiation",
        "data",
        "id",
        "plugindata",
        "jsep",
        "transaction",
        "streams",
        "feed_id",
        "feed_mid",
        "error_code",
        "error",
        "sender",
        "token",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(428)),
        prop::sample::select(words).prop_map(Value::from),
        "\\PC{0,300}".prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(5, 40, 4, move |inner| {
        let key = prop::sample::select(keys.clone());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..8).prop_map(|fields| json!(fields)),
        ]
    });
    let body = prop_oneof![
        8 => tree.prop_map(|tree| tree.to_string()),
        1 => "\\PC{0,100}",
        1 => Just("[".repeat(100_000)),
    ];
    let location = prop::option::of(Just("http://t/x".to_owned()));
    let response = (status, location, body).prop_map(|(status, location, body)| Response {
        status,
        location,
        body,
    });
    prop::collection::vec(response, 1..8)
}
