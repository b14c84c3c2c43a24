//! The exact sequences of calls, and what becomes of answers that are none.

use proptest::prelude::*;

use super::*;
use crate::api::Kind::{Audio, Video};
use crate::api::testing::{Script, Words, garbage, now, pull, push, told};

fn whip(tokens: Tokens) -> Whip {
    Whip::new("http://t/whip/{name}".into(), "http://t/whep/{name}".into(), tokens)
}

fn made(at: &str) -> Response {
    Response { status: 201, location: Some(at.into()), body: "ans".into() }
}

fn issued(token: &str) -> Response {
    told(200, &json!({"status": true, "data": {"token": token}}))
}

const NAME_1: &str = "load-abcdef0000000001";

#[test]
fn a_stream_is_published_played_and_ended() {
    let api = whip(Tokens::Fixed("key-{name}".into()));
    let ok = || Response { status: 200, location: None, body: String::new() };
    let script = Script::new([made("http://t/r/1"), made("http://t/r/2"), ok(), ok()]);
    let endpoint = Words::of(&script);
    let pushes = [push(Audio, "mic"), push(Video, "cam")];
    let published = now(api.join(&script, &endpoint, &pushes, &[])).unwrap();
    assert_eq!(published.pushed, ["m0", "m1"]);
    let source = &published.source.0;
    let pulls = [pull(Video, "cam", source), pull(Audio, "mic", source)];
    let played = now(api.join(&script, &endpoint, &[], &pulls)).unwrap();
    assert_eq!(played.pulled, [Ok("m2".into()), Ok("m3".into())]);
    now(api.leave(&script, &played)).unwrap();
    now(api.leave(&script, &published)).unwrap();
    let expected = [
        format!("POST http://t/whip/{NAME_1} [key-{NAME_1}] offer audio sends video sends"),
        "accept ans".into(),
        format!("POST http://t/whep/{NAME_1} [key-{NAME_1}] offer video receives audio receives"),
        "accept ans".into(),
        format!("DELETE http://t/r/2 [key-{NAME_1}]"),
        format!("DELETE http://t/r/1 [key-{NAME_1}]"),
    ];
    assert_eq!(script.done(), expected);
}

#[test]
fn tokens_are_asked_for_once_per_publisher() {
    let api = whip(Tokens::Issued { url: "http://t/token".into(), secret: "s".into() });
    let script =
        Script::new([issued("A"), made("http://t/r/1"), issued("B"), made("http://t/r/2")]);
    let endpoint = Words::of(&script);
    let published = now(api.join(&script, &endpoint, &[push(Audio, "mic")], &[])).unwrap();
    let pulls = [pull(Audio, "mic", &published.source.0)];
    now(api.join(&script, &endpoint, &[], &pulls)).unwrap();
    let room = json!({"room": NAME_1, "peer": "publisher", "ttl": 86400});
    let viewers = json!({"room": NAME_1, "ttl": 86400});
    let expected = [
        format!("POST http://t/token/whip [s] {room}"),
        format!("POST http://t/whip/{NAME_1} [A] offer audio sends"),
        "accept ans".into(),
        format!("POST http://t/token/whep [s] {viewers}"),
        format!("POST http://t/whep/{NAME_1} [B] offer audio receives"),
        "accept ans".into(),
    ];
    assert_eq!(script.done(), expected);
}

#[test]
fn a_wrong_secret_and_a_wrong_place_are_told_before_the_run() {
    let api = whip(Tokens::Issued { url: "http://t/token".into(), secret: "s".into() });
    let no = json!({"status": false, "error": "APP_TOKEN_INVALID"});
    let failure = now(api.prepare(&Script::new([told(200, &no)]))).unwrap_err();
    assert_eq!(failure.cause, Cause::Unauthorized);
    assert_eq!(failure.what, "token/whip: APP_TOKEN_INVALID");

    let api = whip(Tokens::None);
    let tried = |status| {
        let answer = Response { status, location: None, body: String::new() };
        now(api.prepare(&Script::new([answer]))).map_err(|failure| failure.what)
    };
    assert_eq!(tried(404).unwrap_err(), "WHIP POST: 404 (not found)");
    assert_eq!(tried(401).unwrap_err(), "WHIP POST: 401 (unauthorized)");
    assert_eq!(tried(200).unwrap_err(), "WHIP POST: 200 for an empty offer: is this WHIP?");
    assert_eq!(tried(400), Ok(()));
}

#[test]
fn a_stream_that_is_not_live_yet_is_asked_for_again() {
    let api = whip(Tokens::None);
    let not_yet = Response { status: 404, location: None, body: "Live not started yet".into() };
    let script = Script::new([not_yet, made("http://t/r")]);
    let source = json!({"name": "n", "token": null}).to_string();
    let endpoint = Words::of(&script);
    now(api.join(&script, &endpoint, &[], &[pull(Audio, "mic", &source)])).unwrap();
    let posted = "POST http://t/whep/n offer audio receives";
    assert_eq!(script.done(), [posted, "pause", posted, "accept ans"]);
}

#[test]
fn what_the_peer_does_not_accept_is_deleted() {
    let api = whip(Tokens::None);
    let gone = Response { status: 404, location: None, body: String::new() };
    let script = Script::new([made("http://t/r"), gone]);
    let endpoint = Words::that_refuse(&script);
    let failure = now(api.join(&script, &endpoint, &[push(Audio, "mic")], &[])).unwrap_err();
    assert_eq!(failure.cause, Cause::Negotiation);
    assert_eq!(script.done().last().unwrap(), "DELETE http://t/r");
}

#[test]
fn a_session_that_is_gone_is_left_all_the_same() {
    let session = json!({"url": "http://t/r", "token": null}).to_string();
    let joined = Joined { session, source: Source(String::new()), pushed: vec![], pulled: vec![] };
    let left = |status, body: &str| {
        let answer = Response { status, location: None, body: body.into() };
        now(whip(Tokens::None).leave(&Script::new([answer]), &joined)).map_err(|f| f.what)
    };
    for (status, body) in [(200, "OK"), (204, ""), (404, ""), (410, ""), (400, "EndpointNotFound")]
    {
        assert_eq!(left(status, body), Ok(()));
    }
    assert_eq!(left(400, "no").unwrap_err(), "DELETE resource: 400 no");
}

#[test]
fn one_session_plays_one_publisher() {
    let api = whip(Tokens::None);
    let script = Script::new([]);
    let pulls = [pull(Audio, "a", "x"), pull(Audio, "b", "y")];
    let failure = now(api.join(&script, &Words::of(&script), &[], &pulls)).unwrap_err();
    assert_eq!(failure.cause, Cause::Local);
    assert_eq!(script.done(), [""; 0]);
}

proptest! {
    #[test]
    fn any_answers_come_to_an_end(answers in garbage()) {
        let script = Script::endless(answers);
        let endpoint = Words::of(&script);
        let api = whip(Tokens::Issued { url: "http://t/token".into(), secret: "s".into() });
        let _ = now(api.prepare(&script));
        let _ = now(api.join(&script, &endpoint, &[push(Audio, "mic")], &[]));
        let source = json!({"name": "n", "token": null}).to_string();
        let played = now(api.join(&script, &endpoint, &[], &[pull(Audio, "mic", &source)]));
        if let Ok(played) = played {
            prop_assert_eq!(played.pulled.len(), 1);
            let _ = now(api.leave(&script, &played));
        }
    }
}
