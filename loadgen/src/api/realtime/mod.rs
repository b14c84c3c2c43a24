//! The Realtime API, as shardcast serves it and Cloudflare does.
//!
//! One session is one PeerConnection, which pushes with our offers and pulls with the server's.
//! Calls of a session are made one after the other: an offer that is not answered forbids
//! everything else.
//!
//! Invariants: every pull has one result, in the order of the wishes; a pull that may still
//! succeed is asked for again, a bounded number of times.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::{Caller, Cause, Endpoint, Failure, Joined, LineWish, Method, Pull, Push};
use super::{Request, Response, Source, answer};

#[cfg(test)]
mod tests;

/// Tracks one call may name: the API's limit.
pub const TRACKS_PER_CALL: usize = 64;

/// One app of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realtime {
    /// Up to and with `/apps/{id}`.
    base: String,
    secret: String,
}

/// A refusal, and whether asking again may help.
#[derive(Debug)]
enum Refused {
    Later(Failure),
    Finally(Failure),
}

type Mid = Result<String, Refused>;

impl Realtime {
    pub(super) fn new(base: String, secret: String) -> Self {
        Self { base, secret }
    }

    /// Opens a session and leaves it: the address, the app and its secret are right.
    pub(super) async fn prepare<C: Caller>(&self, caller: &C) -> Result<(), Failure> {
        let session = self.open(caller).await?;
        self.leave(caller, &session).await
    }

    pub(super) async fn join<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        pushes: &[Push],
        pulls: &[Pull],
    ) -> Result<Joined, Failure> {
        let session = self.open(caller).await?;
        let exchange = async {
            let pushed = self.push(caller, endpoint, &session, pushes).await?;
            let pulled = self.pull(caller, endpoint, &session, pulls).await?;
            Ok((pushed, pulled))
        };
        match exchange.await {
            Ok((pushed, pulled)) => {
                let source = Source(session.clone());
                Ok(Joined { session, source, pushed, pulled })
            }
            Err(failure) => {
                // The first failure is the one to tell.
                let _ = self.leave(caller, &session).await;
                Err(failure)
            }
        }
    }

    async fn open<C: Caller>(&self, caller: &C) -> Result<String, Failure> {
        let call = "sessions/new";
        let request = self.request(Method::Post, "/sessions/new");
        let created: Created = read(call, &caller.call(request).await?)?;
        answer::id(call, created.session_id)
    }

    async fn push<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        session: &str,
        pushes: &[Push],
    ) -> Result<Vec<String>, Failure> {
        let call = "tracks/new (push)";
        let mut mids = Vec::with_capacity(pushes.len());
        for part in pushes.chunks(TRACKS_PER_CALL) {
            let wish = |push: &Push| LineWish { kind: push.kind, sends: true };
            let offer = endpoint.offer(part.iter().map(wish).collect()).await?;
            let track = |(push, mid): (&Push, &String)| json!({"location": "local", "mid": mid, "trackName": push.name});
            let tracks: Vec<Value> = part.iter().zip(&offer.mids).map(track).collect();
            let body = json!({"sessionDescription": {"type": "offer", "sdp": offer.sdp}, "tracks": tracks});
            let path = format!("/sessions/{session}/tracks/new");
            let request = self.request(Method::Post, &path).json(&body);
            let reply: Tracks = read(call, &caller.call(request).await?)?;
            for track in &reply.tracks {
                track.error(call).map_or(Ok(()), |(failure, _)| Err(failure))?;
            }
            let answer = reply.description("answer");
            endpoint
                .accept(answer.ok_or_else(|| answer::lacks(call, "a session description"))?)
                .await?;
            mids.extend(offer.mids);
        }
        Ok(mids)
    }

    /// Pulls; each has its mid or why not.
    pub(super) async fn pull<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        session: &str,
        pulls: &[Pull],
    ) -> Result<Vec<Result<String, Failure>>, Failure> {
        let mut results: Vec<Option<Result<String, Failure>>> = vec![None; pulls.len()];
        let mut wanted: Vec<usize> = (0..pulls.len()).collect();
        let mut backoff = Backoff::default();
        while !wanted.is_empty() {
            let mut later = Vec::new();
            for part in wanted.chunks(TRACKS_PER_CALL) {
                let asked: Vec<&Pull> = part.iter().map(|at| &pulls[*at]).collect();
                let mids = self.pull_part(caller, endpoint, session, &asked).await?;
                for (at, mid) in part.iter().zip(mids) {
                    results[*at] = Some(match mid {
                        Ok(mid) => Ok(mid),
                        Err(Refused::Finally(failure)) => Err(failure),
                        Err(Refused::Later(failure)) => {
                            later.push(*at);
                            Err(failure)
                        }
                    });
                }
            }
            wanted = later;
            if !wanted.is_empty() && !backoff.wait(caller).await {
                break;
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// One call's worth of pulls. An error is the end of the session.
    async fn pull_part<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        session: &str,
        pulls: &[&Pull],
    ) -> Result<Vec<Mid>, Failure> {
        let call = "tracks/new (pull)";
        let track = |pull: &&Pull| json!({"location": "remote", "sessionId": pull.source.0, "trackName": pull.name});
        let tracks: Vec<Value> = pulls.iter().map(track).collect();
        let path = format!("/sessions/{session}/tracks/new");
        let request = self.request(Method::Post, &path).json(&json!({"tracks": tracks}));
        let response = caller.call(request).await?;
        let reply: Tracks = match read(call, &response) {
            Ok(reply) => reply,
            Err(failure) => return all_refused(&response, failure, pulls.len()),
        };
        if reply.tracks.len() != pulls.len() {
            return Err(answer::lacks(call, "a result for each track"));
        }
        let answered = match reply.description("offer") {
            Some(offer) => Some(endpoint.answer(offer).await?),
            None if reply.requires_immediate_renegotiation => {
                return Err(answer::lacks(call, "the offer it wants answered"));
            }
            None => None,
        };
        if let Some(answer) = answered {
            self.renegotiate(caller, session, "answer", answer).await?;
        }
        let mid = |track: Track| match track.error(call) {
            Some((failure, true)) => Err(Refused::Later(failure)),
            Some((failure, false)) => Err(Refused::Finally(failure)),
            None if track.mid.is_empty() => Err(Refused::Finally(answer::lacks(call, "a mid"))),
            None => Ok(track.mid),
        };
        Ok(reply.tracks.into_iter().map(mid).collect())
    }

    async fn renegotiate<C: Caller>(
        &self,
        caller: &C,
        session: &str,
        kind: &str,
        sdp: String,
    ) -> Result<Renegotiated, Failure> {
        let path = format!("/sessions/{session}/renegotiate");
        let body = json!({"sessionDescription": {"type": kind, "sdp": sdp}});
        let request = self.request(Method::Put, &path).json(&body);
        read("renegotiate", &caller.call(request).await?)
    }

    /// Closes tracks; the m-lines stay, without media.
    pub(super) async fn close<C: Caller>(
        &self,
        caller: &C,
        session: &str,
        mids: &[String],
    ) -> Result<(), Failure> {
        let call = "tracks/close";
        for part in mids.chunks(TRACKS_PER_CALL) {
            let tracks: Vec<Value> = part.iter().map(|mid| json!({"mid": mid})).collect();
            let path = format!("/sessions/{session}/tracks/close");
            let body = json!({"tracks": tracks, "force": true});
            let request = self.request(Method::Put, &path).json(&body);
            let reply: Tracks = read(call, &caller.call(request).await?)?;
            for track in &reply.tracks {
                // What is closed already, because its publisher left, is closed.
                match track.error(call) {
                    Some((failure, _)) if track.code() != Some("close_track_error") => {
                        return Err(failure);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(super) async fn restart_ice<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        session: &str,
    ) -> Result<(), Failure> {
        let offer = endpoint.offer_restart().await?;
        let reply = self.renegotiate(caller, session, "offer", offer.sdp).await?;
        let answer = reply.session_description.and_then(|description| description.of("answer"));
        endpoint
            .accept(answer.ok_or_else(|| answer::lacks("renegotiate", "a session description"))?)
            .await
    }

    /// Asks what the server knows of the session.
    pub(super) async fn look<C: Caller>(&self, caller: &C, session: &str) -> Result<(), Failure> {
        let call = "GET session";
        let request = self.request(Method::Get, &format!("/sessions/{session}"));
        let response = caller.call(request).await?;
        // Of one that stood, a server that keeps no record of what it closed says that.
        if response.status == 404 {
            return Err(Failure { cause: Cause::Closed, ..answer::refusal(call, &response) });
        }
        let known: Value = read(call, &response)?;
        known["tracks"].as_array().map(drop).ok_or_else(|| answer::lacks(call, "its tracks"))
    }

    /// Ends the session. Servers without this call notice the end themselves.
    pub(super) async fn leave<C: Caller>(&self, caller: &C, session: &str) -> Result<(), Failure> {
        let request = self.request(Method::Delete, &format!("/sessions/{session}"));
        let response = caller.call(request).await?;
        match response.status {
            // A server that lacks the call cannot say more than that it finds nothing there.
            200..=299 | 404 | 405 | 501 => Ok(()),
            410 => Err(Failure {
                cause: Cause::Closed,
                ..answer::refusal("DELETE session", &response)
            }),
            _ => Err(answer::refusal("DELETE session", &response)),
        }
    }

    fn request(&self, method: Method, path: &str) -> Request {
        Request::new(method, format!("{}{path}", self.base)).bearer(Some(&self.secret))
    }
}

/// What a pull that was refused as a whole means for its tracks.
fn all_refused(response: &Response, failure: Failure, pulls: usize) -> Result<Vec<Mid>, Failure> {
    let later = matches!(response.status, 425 | 429 | 503);
    // A publisher that left is not the end of this session.
    let publisher_left = response.status == 410 && response.body.contains("(publisher session");
    if !later && !publisher_left {
        return Err(failure);
    }
    let refused = |_| {
        let failure = Failure { cause: Cause::Refused, ..failure.clone() };
        Err(if later { Refused::Later(failure) } else { Refused::Finally(failure) })
    };
    Ok((0..pulls).map(refused).collect())
}

/// An answer of success, read.
fn read<T: DeserializeOwned>(call: &str, response: &Response) -> Result<T, Failure> {
    match response.status {
        200..=299 => {}
        410 => return Err(Failure { cause: Cause::Closed, ..answer::refusal(call, response) }),
        _ => return Err(answer::refusal(call, response)),
    }
    // Clients take an error code for failure whatever the status.
    let told: Told = answer::json(call, &response.body)?;
    if told.error_code.is_some_and(|code| !code.is_empty()) {
        return Err(answer::refusal(call, response));
    }
    answer::json(call, &response.body)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    error_code: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    session_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Renegotiated {
    session_description: Option<Description>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tracks {
    #[serde(default)]
    requires_immediate_renegotiation: bool,
    session_description: Option<Description>,
    #[serde(default)]
    tracks: Vec<Track>,
}

impl Tracks {
    fn description(&self, kind: &str) -> Option<String> {
        self.session_description.clone()?.of(kind)
    }
}

#[derive(Deserialize, Clone)]
struct Description {
    r#type: String,
    sdp: String,
}

impl Description {
    fn of(self, kind: &str) -> Option<String> {
        (self.r#type == kind).then_some(self.sdp)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Track {
    #[serde(default)]
    mid: String,
    error_code: Option<String>,
    error_description: Option<String>,
}

impl Track {
    fn code(&self) -> Option<&str> {
        self.error_code.as_deref()
    }

    /// Why this track was refused, and whether it may come later.
    fn error(&self, call: &str) -> Option<(Failure, bool)> {
        let code = self.code()?;
        let later = matches!(
            code,
            "not_found_track_error"
                | "empty_track_error"
                | "retryable_transient_error"
                | "temporarily_unavailable_error"
                | "transport_unavailable_error"
        );
        let said = answer::scrub(self.error_description.as_deref().unwrap_or("no reason given"));
        let what = format!("{call}: {}: {said}", answer::line(&[code]));
        Some((Failure::new(Cause::Refused, what), later))
    }
}
