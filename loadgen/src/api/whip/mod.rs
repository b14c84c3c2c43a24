//! WHIP (RFC 9725) and WHEP: one HTTP request publishes, or plays, one stream.
//!
//! A session is one resource. It publishes all its tracks in one offer, or plays what one
//! publisher sends; it cannot change later. A publisher's stream lives where the address
//! says, with the stream's name in the place of `{name}`.
//!
//! Invariants: what was created is deleted when the rest fails.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::backoff::Backoff;
use super::{Caller, Cause, Endpoint, Failure, Joined, LineWish, Method, Offer, Pull, Push};
use super::{Request, Response, Source, answer};

#[cfg(test)]
mod tests;

/// What stands for the stream's name in addresses and tokens.
pub(super) const NAME: &str = "{name}";

/// How long an issued token is good: longer than any run.
const TOKEN_SECONDS: u32 = 86_400;

/// One server, by where it takes streams and where it gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whip {
    publish: String,
    play: String,
    tokens: Tokens,
}

/// Where bearer tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tokens {
    None,
    /// One for all, or one made of the stream's name.
    Fixed(String),
    /// Made by the server for each stream, as atm0s does: `{url}/whip` and `{url}/whep`.
    Issued {
        url: String,
        secret: String,
    },
}

/// A publisher's stream, for those who play it.
#[derive(Debug, Serialize, Deserialize)]
struct Stream {
    name: String,
    token: Option<String>,
}

/// What a session is, for who ends it.
#[derive(Debug, Serialize, Deserialize)]
struct Resource {
    url: String,
    token: Option<String>,
}

impl Whip {
    pub(super) fn new(publish: String, play: String, tokens: Tokens) -> Self {
        Self { publish, play, tokens }
    }

    /// An empty offer finds out whether WHIP is spoken there; a token, whether the secret is
    /// right.
    pub(super) async fn prepare<C: Caller>(&self, caller: &C) -> Result<(), Failure> {
        let call = "WHIP POST";
        let name = name(caller);
        let token = self.token(caller, "whip", &name).await?;
        let url = self.publish.replace(NAME, &name);
        let response = self.post(caller, &url, token.as_deref(), "").await?;
        match response.status {
            201 => {
                let url = response.location.ok_or_else(|| answer::lacks(call, "a Location"))?;
                delete(caller, &Resource { url, token }).await
            }
            401 | 403 | 404 | 405 | 500..=599 => Err(answer::refusal(call, &response)),
            400..=499 => Ok(()),
            _ => {
                let what = format!("{call}: {} for an empty offer: is this WHIP?", response.status);
                Err(Failure::new(Cause::Incomprehensible, what))
            }
        }
    }

    pub(super) async fn join<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        pushes: &[Push],
        pulls: &[Pull],
    ) -> Result<Joined, Failure> {
        match (pushes, pulls) {
            (pushes, []) => self.publish(caller, endpoint, pushes).await,
            ([], pulls) => self.play(caller, endpoint, pulls).await,
            _ => {
                let what = "with WHIP and WHEP, a session either publishes or plays";
                Err(Failure::new(Cause::Local, what))
            }
        }
    }

    async fn publish<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        pushes: &[Push],
    ) -> Result<Joined, Failure> {
        let name = name(caller);
        let token = self.token(caller, "whip", &name).await?;
        let wish = |push: &Push| LineWish { kind: push.kind, sends: true };
        let offer = endpoint.offer(pushes.iter().map(wish).collect()).await?;
        let url = self.publish.replace(NAME, &name);
        let response = self.post(caller, &url, token.as_deref(), &offer.sdp).await?;
        let session = stand("WHIP POST", caller, endpoint, response, token).await?;
        // Its viewers need one too; asked for here, it is asked for once.
        let token = match self.token(caller, "whep", &name).await {
            Ok(token) => token,
            Err(failure) => {
                let _ = delete(caller, &session).await;
                return Err(failure);
            }
        };
        let source = Source(json!(Stream { name, token }).to_string());
        let session = json!(session).to_string();
        Ok(Joined { session, source, pushed: offer.mids, pulled: Vec::new() })
    }

    async fn play<C: Caller, E: Endpoint>(
        &self,
        caller: &C,
        endpoint: &E,
        pulls: &[Pull],
    ) -> Result<Joined, Failure> {
        let Some((first, others)) = pulls.split_first() else {
            return Err(Failure::new(Cause::Local, "WHEP has no session that plays nothing"));
        };
        if others.iter().any(|pull| pull.source != first.source) {
            let what = "with WHEP, a session plays one publisher's stream";
            return Err(Failure::new(Cause::Local, what));
        }
        let unknown = |_| Failure::new(Cause::Local, "a pull of what was not published");
        let Stream { name, token } = serde_json::from_str(&first.source.0).map_err(unknown)?;
        let wish = |pull: &Pull| LineWish { kind: pull.kind, sends: false };
        let offer = endpoint.offer(pulls.iter().map(wish).collect()).await?;
        let url = self.play.replace(NAME, &name);
        let response = self.post_patiently(caller, &url, token.as_deref(), &offer).await?;
        let session = stand("WHEP POST", caller, endpoint, response, token).await?;
        let pulled = offer.mids.into_iter().map(Ok).collect();
        let session = json!(session).to_string();
        Ok(Joined { session, source: Source(String::new()), pushed: Vec::new(), pulled })
    }

    /// Plays what may not flow yet.
    async fn post_patiently<C: Caller>(
        &self,
        caller: &C,
        url: &str,
        token: Option<&str>,
        offer: &Offer,
    ) -> Result<Response, Failure> {
        let mut backoff = Backoff::default();
        loop {
            let response = self.post(caller, url, token, &offer.sdp).await?;
            let later = matches!(response.status, 404 | 409 | 425 | 429 | 503);
            if !later || !backoff.wait(caller).await {
                return Ok(response);
            }
        }
    }

    async fn post<C: Caller>(
        &self,
        caller: &C,
        url: &str,
        token: Option<&str>,
        sdp: &str,
    ) -> Result<Response, Failure> {
        let request = Request::new(Method::Post, url.to_owned()).bearer(token);
        let content_type = Some("application/sdp");
        caller.call(Request { content_type, body: sdp.to_owned(), ..request }).await
    }

    /// The bearer token for a stream, `what` being `whip` or `whep`.
    async fn token<C: Caller>(
        &self,
        caller: &C,
        what: &str,
        name: &str,
    ) -> Result<Option<String>, Failure> {
        let (url, secret) = match &self.tokens {
            Tokens::None => return Ok(None),
            Tokens::Fixed(token) => return Ok(Some(token.replace(NAME, name))),
            Tokens::Issued { url, secret } => (url, secret),
        };
        let call = format!("token/{what}");
        // WHEP's token is for any viewer: one that names a peer would be for one.
        let body = match what {
            "whip" => json!({"room": name, "peer": "publisher", "ttl": TOKEN_SECONDS}),
            _ => json!({"room": name, "ttl": TOKEN_SECONDS}),
        };
        let request = Request::new(Method::Post, format!("{url}/{what}"));
        let response = caller.call(request.bearer(Some(secret)).json(&body)).await?;
        if !(200..300).contains(&response.status) {
            return Err(answer::refusal(&call, &response));
        }
        let issued: Issued = answer::json(&call, &response.body)?;
        match (issued.data, issued.error) {
            (Some(data), _) => Ok(Some(data.token)),
            (None, Some(error)) => {
                let what = format!("{call}: {}", answer::scrub(&error));
                Err(Failure::new(Cause::Unauthorized, what))
            }
            (None, None) => Err(answer::lacks(&call, "a token")),
        }
    }

    pub(super) async fn leave<C: Caller>(
        &self,
        caller: &C,
        joined: &Joined,
    ) -> Result<(), Failure> {
        let resource = serde_json::from_str(&joined.session);
        let unknown = |_| Failure::new(Cause::Local, "this is no session of WHIP or WHEP");
        delete(caller, &resource.map_err(unknown)?).await
    }
}

/// From the answer to an offer to a session, or to nothing.
async fn stand<C: Caller, E: Endpoint>(
    call: &str,
    caller: &C,
    endpoint: &E,
    response: Response,
    token: Option<String>,
) -> Result<Resource, Failure> {
    if response.status != 201 {
        return Err(answer::refusal(call, &response));
    }
    let url = response.location.ok_or_else(|| answer::lacks(call, "a Location"))?;
    let resource = Resource { url, token };
    if let Err(failure) = endpoint.accept(response.body).await {
        // The first failure is the one to tell.
        let _ = delete(caller, &resource).await;
        return Err(failure);
    }
    Ok(resource)
}

async fn delete<C: Caller>(caller: &C, resource: &Resource) -> Result<(), Failure> {
    let request = Request::new(Method::Delete, resource.url.clone());
    let response = caller.call(request.bearer(resource.token.as_deref())).await?;
    match response.status {
        // Gone already, or ended with the peer.
        200..=299 | 404 | 405 | 410 | 501 => Ok(()),
        // atm0s's words for a session that is gone.
        400 if response.body.contains("EndpointNotFound") => Ok(()),
        _ => Err(answer::refusal("DELETE resource", &response)),
    }
}

/// A stream's name, new in each run: servers remember those of the last one for a while.
fn name<C: Caller>(caller: &C) -> String {
    format!("load-{:016x}", caller.random())
}

#[derive(Deserialize)]
struct Issued {
    data: Option<Token>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}
