//! Janus's VideoRoom over its HTTP API.
//!
//! A room holds the whole run. Each peer has a session with one handle, and a handle is one
//! PeerConnection that either publishes or subscribes. A message is acknowledged at once; its
//! result comes with the session's news, which is why sessions have [`news`].
//!
//! Invariants: whatever a step fails with, its session is destroyed, and with it the handle.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::backoff::Backoff;
use super::{Caller, Cause, Endpoint, Failure, Joined, LineWish, Method, Pull, Push};
use super::{Request, Source, answer};
use events::{Event, Outcome, Refusal};
use news::Desk;
use streams::{Feed, Streams};

mod events;
mod news;
mod streams;
#[cfg(test)]
mod tests;

/// Streams one message may name. Janus has no limit; descriptions of more lines than this are
/// nothing anybody tests.
const STREAMS_PER_CALL: usize = 64;

/// Publishers a room takes. Janus's default is 3.
const PUBLISHERS: u32 = 100_000;

/// Events one request for news may bring.
const EVENTS_PER_CALL: usize = 10;

/// What Janus says when a feed is not there, and when a session is not.
const NO_SUCH_FEED: i64 = 428;
const NO_SUCH_SESSION: i64 = 458;

/// One room of one server.
#[derive(Debug, Clone)]
pub struct Janus {
    /// Up to and with `/janus`.
    base: String,
    credentials: Credentials,
    room: Room,
    desk: Desk,
}

/// What each request carries, where the server asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Credentials {
    pub(super) api_secret: Option<String>,
    pub(super) token: Option<String>,
    /// Both, as a query: requests for news have no body.
    pub(super) query: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// Somebody else's, which stays.
    Given(u64),
    /// Ours, once it is made.
    Own(Option<u64>),
}

/// A session's only handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Handle {
    session: u64,
    handle: u64,
}

impl Janus {
    pub(super) fn new(base: String, credentials: Credentials, room: Option<u64>) -> Self {
        let room = room.map_or(Room::Own(None), Room::Given);
        Self { base, credentials, room, desk: Desk::default() }
    }

    /// Makes the room, or sees that the given one is there.
    pub(super) async fn prepare<C: Caller>(&mut self, caller: &C) -> Result<(), Failure> {
        let made = match self.room {
            Room::Given(room) => {
                let body = json!({"request": "exists", "room": room});
                let data = self.once(caller, "exists (room)", body).await?;
                if data.get("exists") != Some(&Value::Bool(true)) {
                    let what = "the server has no such room: --room names one that exists";
                    return Err(Failure::new(Cause::Refused, what));
                }
                return Ok(());
            }
            // Numbers up to 2^53 survive everybody's JSON.
            Room::Own(_) => caller.random() >> 11 | 1,
        };
        let body = json!({
            "request": "create", "room": made, "permanent": false, "is_private": true,
            "publishers": PUBLISHERS, "bitrate": 0,
            "audiocodec": "opus", "videocodec": "vp8,h264,vp9,av1",
        });
        self.once(caller, "create (room)", body).await?;
        self.room = Room::Own(Some(made));
        Ok(())
    }

    pub(super) async fn finish<C: Caller>(&self, caller: &C) -> Result<(), Failure> {
        let Room::Own(Some(room)) = self.room else { return Ok(()) };
        let body = json!({"request": "destroy", "room": room});
        self.once(caller, "destroy (room)", body).await.map(drop)
    }

    /// One request that is answered at once, in a session of its own.
    async fn once<C: Caller>(&self, caller: &C, call: &str, body: Value) -> Result<Value, Failure> {
        let at = self.open(caller).await?;
        let outcome = self.message(caller, call, at, body, None).await;
        self.destroy(caller, at).await?;
        Ok(outcome?.data)
    }

    pub(super) async fn join<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        pushes: &[Push],
        pulls: &[Pull],
    ) -> Result<Joined, Failure> {
        if !pushes.is_empty() && !pulls.is_empty() {
            let what = "with Janus, a session either publishes or subscribes";
            return Err(Failure::new(Cause::Local, what));
        }
        let at = self.open(caller).await?;
        let joining = async {
            let mut joined = Joined {
                session: at.to_string(),
                source: Source(String::new()),
                pushed: Vec::new(),
                pulled: Vec::new(),
            };
            if !pushes.is_empty() {
                (joined.source, joined.pushed) = self.publish(caller, endpoint, at, pushes).await?;
            }
            joined.pulled = self.subscribe(caller, endpoint, at, pulls, false).await?;
            Ok(joined)
        };
        let joined = joining.await;
        if joined.is_err() {
            // The first failure is the one to tell.
            let _ = self.destroy(caller, at).await;
        }
        joined
    }

    async fn publish<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        at: Handle,
        pushes: &[Push],
    ) -> Result<(Source, Vec<String>), Failure> {
        let call = "joinandconfigure (publisher)";
        let wish = |push: &Push| LineWish { kind: push.kind, sends: true };
        let offer = endpoint.offer(pushes.iter().map(wish).collect()).await?;
        let body = json!({
            "request": "joinandconfigure", "ptype": "publisher", "room": self.room()?,
        });
        let result = self.message(caller, call, at, body, Some(("offer", &offer.sdp))).await?;
        let feed = result.data.get("id").cloned();
        let feed = feed.ok_or_else(|| answer::lacks(call, "the feed's id"))?;
        endpoint.accept(result.description(call, "answer")?).await?;
        let mids = pushes.iter().map(|push| push.name.clone()).zip(offer.mids.iter().cloned());
        Ok((Feed { feed, mids: mids.collect() }.source(), offer.mids))
    }

    pub(super) async fn pull_more<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        joined: &Joined,
        pulls: &[Pull],
    ) -> Result<Vec<Result<String, Failure>>, Failure> {
        if !joined.pushed.is_empty() {
            let what = "with Janus, a session that publishes cannot subscribe";
            return Err(Failure::new(Cause::Local, what));
        }
        let subscribed = joined.pulled.iter().any(Result::is_ok);
        self.subscribe(caller, endpoint, joined.session.parse()?, pulls, subscribed).await
    }

    /// Subscribes to streams, each with its mid or why not. `subscribed` says whether the
    /// handle has been used for that already.
    async fn subscribe<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        at: Handle,
        pulls: &[Pull],
        mut subscribed: bool,
    ) -> Result<Vec<Result<String, Failure>>, Failure> {
        let mut wanted = Streams::of(pulls)?;
        let mut backoff = Backoff::default();
        // Each round serves streams, sets some aside, or waits: it ends.
        loop {
            let part = wanted.next(STREAMS_PER_CALL);
            if part.is_empty() {
                if wanted.is_done() || !backoff.wait(caller).await {
                    return Ok(wanted.into_results());
                }
                wanted.again();
                continue;
            }
            let call = if subscribed { "subscribe" } else { "join (subscriber)" };
            let mut body = json!({"request": "subscribe", "streams": wanted.named(&part)});
            if !subscribed {
                body = json!({
                    "request": "join", "ptype": "subscriber", "room": self.room()?,
                    "streams": wanted.named(&part),
                });
            }
            match self.asked(caller, call, at, body, None).await? {
                Ok(outcome) => {
                    subscribed = true;
                    wanted.served(call, &part, &outcome.data);
                    self.start(caller, endpoint, call, at, outcome).await?;
                }
                Err(Refusal { code: NO_SUCH_FEED, failure, said }) => {
                    wanted.missing(&part, &said, &failure);
                }
                Err(refusal) => return Err(refusal.failure),
            }
        }
    }

    /// Answers the offer of an outcome, if it has one.
    async fn start<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        call: &str,
        at: Handle,
        outcome: Outcome,
    ) -> Result<(), Failure> {
        if !outcome.has_description() {
            return Ok(());
        }
        let answer = endpoint.answer(outcome.description(call, "offer")?).await?;
        let body = json!({"request": "start"});
        self.message(caller, "start", at, body, Some(("answer", &answer))).await.map(drop)
    }

    /// Closes tracks. A publisher's m-lines stay, without media.
    pub(super) async fn close<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        joined: &Joined,
        mids: &[String],
    ) -> Result<(), Failure> {
        let at = joined.session.parse()?;
        if !joined.pushed.is_empty() {
            let streams: Value =
                mids.iter().map(|mid| json!({"mid": mid, "send": false})).collect();
            let body = json!({"request": "configure", "streams": streams});
            return self.message(caller, "configure", at, body, None).await.map(drop);
        }
        let streams: Value = mids.iter().map(|mid| json!({"sub_mid": mid})).collect();
        let body = json!({"request": "unsubscribe", "streams": streams});
        let outcome = self.message(caller, "unsubscribe", at, body, None).await?;
        self.start(caller, endpoint, "unsubscribe", at, outcome).await
    }

    pub(super) async fn restart_ice<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        joined: &Joined,
    ) -> Result<(), Failure> {
        let call = "configure (ICE restart)";
        let at = joined.session.parse()?;
        if joined.pushed.is_empty() {
            let body = json!({"request": "configure", "restart": true});
            let outcome = self.message(caller, call, at, body, None).await?;
            return self.start(caller, endpoint, call, at, outcome).await;
        }
        let offer = endpoint.offer_restart().await?;
        let body = json!({"request": "configure"});
        let outcome = self.message(caller, call, at, body, Some(("offer", &offer.sdp))).await?;
        endpoint.accept(outcome.description(call, "answer")?).await
    }

    pub(super) async fn leave<C: Caller>(
        &self,
        caller: &C,
        joined: &Joined,
    ) -> Result<(), Failure> {
        self.destroy(caller, joined.session.parse()?).await
    }

    pub(super) async fn keep<C: Caller>(&self, caller: &C, joined: &Joined) -> Failure {
        match joined.session.parse::<Handle>() {
            Ok(at) => self.desk.keep(caller, &self.news(at), at.session).await,
            Err(failure) => failure,
        }
    }

    /// A session and its handle.
    async fn open<C: Caller>(&self, caller: &C) -> Result<Handle, Failure> {
        let call = "create (session)";
        let transaction = transaction(caller);
        let created = self.post(caller, call, "", json!({"janus": "create"}), &transaction);
        let session = created.await?.made(call)?;
        self.desk.open(session);
        let attach = json!({"janus": "attach", "plugin": "janus.plugin.videoroom"});
        let call = "attach (VideoRoom)";
        let path = format!("/{session}");
        let attached = self.post(caller, call, &path, attach, &transaction).await;
        match attached.and_then(|event| event.made(call)) {
            Ok(handle) => Ok(Handle { session, handle }),
            Err(failure) => {
                let _ = self.destroy(caller, Handle { session, handle: 0 }).await;
                Err(failure)
            }
        }
    }

    /// Ends a session and what belongs to it. One that is gone already is no failure.
    async fn destroy<C: Caller>(&self, caller: &C, at: Handle) -> Result<(), Failure> {
        self.desk.close(at.session);
        let call = "destroy (session)";
        let path = format!("/{}", at.session);
        let transaction = transaction(caller);
        let event = self.send(caller, call, &path, json!({"janus": "destroy"}), &transaction);
        match event.await?.outcome(call) {
            Ok(_) | Err(Refusal { code: NO_SUCH_SESSION, .. }) => Ok(()),
            Err(refusal) => Err(refusal.failure),
        }
    }

    async fn message<C: Caller>(
        &self,
        caller: &C,
        call: &str,
        at: Handle,
        body: Value,
        jsep: Option<(&str, &str)>,
    ) -> Result<Outcome, Failure> {
        let outcome = self.asked(caller, call, at, body, jsep).await?;
        outcome.map_err(|refusal| refusal.failure)
    }

    /// A message to the plugin, and what it came to, now or with the news.
    async fn asked<C: Caller>(
        &self,
        caller: &C,
        call: &str,
        at: Handle,
        body: Value,
        jsep: Option<(&str, &str)>,
    ) -> Result<Result<Outcome, Refusal>, Failure> {
        let mut message = json!({"janus": "message", "body": body});
        if let Some((kind, sdp)) = jsep {
            message["jsep"] = json!({"type": kind, "sdp": sdp});
        }
        let transaction = transaction(caller);
        let expected = self.desk.expect(at.session, at.handle, transaction.clone());
        let path = format!("/{at}");
        let event = self.send(caller, call, &path, message, &transaction).await?;
        if event.janus != "ack" {
            return Ok(event.outcome(call));
        }
        let event = self.desk.result(caller, call, &self.news(at), expected).await?;
        Ok(event.outcome(call))
    }

    /// A request that must succeed at once.
    async fn post<C: Caller>(
        &self,
        caller: &C,
        call: &str,
        path: &str,
        message: Value,
        transaction: &str,
    ) -> Result<Event, Failure> {
        let event = self.send(caller, call, path, message, transaction).await?;
        event.clone().outcome(call).map_err(|refusal| refusal.failure)?;
        Ok(event)
    }

    async fn send<C: Caller>(
        &self,
        caller: &C,
        call: &str,
        path: &str,
        mut message: Value,
        transaction: &str,
    ) -> Result<Event, Failure> {
        message["transaction"] = transaction.into();
        let Credentials { api_secret, token, .. } = &self.credentials;
        for (name, value) in [("apisecret", api_secret), ("token", token)] {
            if let Some(value) = value {
                message[name] = value.as_str().into();
            }
        }
        let url = format!("{}{path}", self.base);
        let response = caller.call(Request::new(Method::Post, url).json(&message)).await?;
        Event::read(call, &response)
    }

    fn news(&self, at: Handle) -> Request {
        let Credentials { query, .. } = &self.credentials;
        let url = format!("{}/{}?maxev={EVENTS_PER_CALL}{query}", self.base, at.session);
        Request::new(Method::Get, url)
    }

    fn room(&self) -> Result<u64, Failure> {
        match self.room {
            Room::Given(room) | Room::Own(Some(room)) => Ok(room),
            Room::Own(None) => Err(Failure::new(Cause::Local, "no room was made before the run")),
        }
    }
}

fn transaction<C: Caller>(caller: &C) -> String {
    format!("{:016x}", caller.random())
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.handle)
    }
}

impl FromStr for Handle {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let ids = || {
            let (session, handle) = text.split_once('/')?;
            Some(Self { session: session.parse().ok()?, handle: handle.parse().ok()? })
        };
        ids().ok_or_else(|| Failure::new(Cause::Local, "this is no session of Janus"))
    }
}
