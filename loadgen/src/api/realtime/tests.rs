//! The exact sequences of calls, and what becomes of answers that are none.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::Kind::{Audio, Video};
use crate::api::testing::{Script, Words, garbage, now, pull, push, told};

const SECRET: &str = "s3cret";

fn api() -> Realtime {
    Realtime::new("http://t/v1/apps/a".into(), SECRET.into())
}

fn created() -> Response {
    told(201, &json!({"sessionId": "0a"}))
}

fn item_error(code: &str) -> Value {
    json!({"mid": "", "errorCode": code, "errorDescription": "No such track 5f"})
}

/// A line of the log: a call on the session.
fn called(method: &str, path: &str, body: &Value) -> String {
    format!("{method} http://t/v1/apps/a/sessions/{path} [{SECRET}] {body}")
}

fn renegotiated(offer: &str) -> String {
    let answer = format!("answer to {offer}");
    let body = json!({"sessionDescription": {"type": "answer", "sdp": answer}});
    called("PUT", "0a/renegotiate", &body)
}

#[test]
fn a_session_pushes_then_pulls_on_one_connection() {
    let answer = json!({
        "requiresImmediateRenegotiation": false,
        "sessionDescription": {"type": "answer", "sdp": "ans"},
        "tracks": [{"mid": "m0", "trackName": "mic"}, {"mid": "m1", "trackName": "cam"}],
    });
    let offer = json!({
        "requiresImmediateRenegotiation": true,
        "sessionDescription": {"type": "offer", "sdp": "off"},
        "tracks": [{"mid": "7", "sessionId": "0b", "trackName": "x"}],
    });
    let answers = [created(), told(200, &answer), told(200, &offer), told(200, &json!({}))];
    let script = Script::new(answers);
    let endpoint = Words::of(&script);
    let pushes = [push(Audio, "mic"), push(Video, "cam")];
    let joined = now(api().join(&script, &endpoint, &pushes, &[pull(Video, "x", "0b")])).unwrap();
    assert_eq!(joined.session, "0a");
    assert_eq!(joined.source, Source("0a".into()));
    assert_eq!(joined.pushed, ["m0", "m1"]);
    assert_eq!(joined.pulled, [Ok("7".into())]);
    let pushed = json!({
        "sessionDescription": {"type": "offer", "sdp": "offer audio sends video sends"},
        "tracks": [
            {"location": "local", "mid": "m0", "trackName": "mic"},
            {"location": "local", "mid": "m1", "trackName": "cam"},
        ],
    });
    let pulled = json!({
        "tracks": [{"location": "remote", "sessionId": "0b", "trackName": "x"}],
    });
    let expected = [
        format!("POST http://t/v1/apps/a/sessions/new [{SECRET}]"),
        called("POST", "0a/tracks/new", &pushed),
        "accept ans".into(),
        called("POST", "0a/tracks/new", &pulled),
        "answer off".into(),
        renegotiated("off"),
    ];
    assert_eq!(script.done(), expected);
}

#[test]
fn what_does_not_flow_yet_is_asked_for_again_and_what_flows_is_kept() {
    let some = json!({
        "requiresImmediateRenegotiation": true,
        "sessionDescription": {"type": "offer", "sdp": "one"},
        "tracks": [{"mid": "0"}, item_error("empty_track_error"), item_error("track_error")],
    });
    let rest = json!({
        "requiresImmediateRenegotiation": true,
        "sessionDescription": {"type": "offer", "sdp": "two"},
        "tracks": [{"mid": "1"}],
    });
    let ok = || told(200, &json!({}));
    let script = Script::new([
        created(),
        told(425, &json!({"errorCode": "session_error"})),
        told(200, &some),
        ok(),
        told(200, &rest),
        ok(),
    ]);
    let pulls = ["a", "b", "c"].map(|name| pull(Audio, name, "0b"));
    let joined = now(api().join(&script, &Words::of(&script), &[], &pulls)).unwrap();
    let refused = "tracks/new (pull): track_error: No such track #";
    let refused = Failure::new(Cause::Refused, refused);
    assert_eq!(joined.pulled, [Ok("0".into()), Ok("1".into()), Err(refused)]);
    let wanted = |names: &[&str]| {
        let track =
            |name: &&str| json!({"location": "remote", "sessionId": "0b", "trackName": name});
        let tracks: Value = names.iter().map(track).collect();
        called("POST", "0a/tracks/new", &json!({"tracks": tracks}))
    };
    let expected = [
        wanted(&["a", "b", "c"]),
        "pause".into(),
        wanted(&["a", "b", "c"]),
        "answer one".into(),
        renegotiated("one"),
        "pause".into(),
        wanted(&["b"]),
        "answer two".into(),
        renegotiated("two"),
    ];
    assert_eq!(script.done()[1..], expected);
}

#[test]
fn a_track_that_never_comes_is_given_up() {
    let none = told(200, &json!({"tracks": [item_error("not_found_track_error")]}));
    let script = Script::endless([none]);
    let pulls = [pull(Audio, "a", "0b")];
    let pulled = now(api().pull(&script, &Words::of(&script), "0a", &pulls)).unwrap();
    assert!(pulled[0].as_ref().unwrap_err().what.contains("not_found_track_error"));
    assert!(script.log.borrow().len() < 20, "{:?}", script.log);
}

#[test]
fn many_pulls_go_by_as_many_as_a_call_may_name() {
    let tracks = |mids: std::ops::Range<usize>| {
        let tracks: Value = mids.map(|mid| json!({"mid": mid.to_string()})).collect();
        told(200, &json!({"tracks": tracks}))
    };
    let script = Script::new([tracks(0..64), tracks(64..128), tracks(128..130)]);
    let pulls: Vec<Pull> = (0..130).map(|n| pull(Audio, &format!("t{n}"), "0b")).collect();
    let pulled = now(api().pull(&script, &Words::of(&script), "0a", &pulls)).unwrap();
    let expected: Vec<_> = (0..130).map(|mid| Ok(mid.to_string())).collect();
    assert_eq!(pulled, expected);
    assert_eq!(script.done().len(), 3);
}

#[test]
fn a_session_whose_join_fails_is_not_left_behind() {
    let offer =
        json!({"sessionDescription": {"type": "offer", "sdp": "o"}, "tracks": [{"mid": "0"}]});
    let script = Script::new([created(), told(200, &offer), told(200, &json!({}))]);
    let endpoint = Words::that_refuse(&script);
    let failure = now(api().join(&script, &endpoint, &[], &[pull(Audio, "a", "0b")])).unwrap_err();
    assert_eq!(failure.cause, Cause::Negotiation);
    let last = format!("DELETE http://t/v1/apps/a/sessions/0a [{SECRET}]");
    assert_eq!(script.done().last(), Some(&last));
}

#[test]
fn a_publisher_that_left_ends_the_pull_and_an_end_of_ones_own_the_session() {
    let gone = |whose: &str| {
        let said = format!("Session appears to be disconnected. ({whose} 0c)");
        told(410, &json!({"errorCode": "session_error", "errorDescription": said}))
    };
    let pulls = [pull(Audio, "a", "0c")];
    let script = Script::new([gone("publisher session")]);
    let pulled = now(api().pull(&script, &Words::of(&script), "0a", &pulls)).unwrap();
    assert_eq!(pulled[0].as_ref().unwrap_err().cause, Cause::Refused);
    let script = Script::new([gone("session")]);
    let failure = now(api().pull(&script, &Words::of(&script), "0a", &pulls)).unwrap_err();
    assert_eq!(failure.cause, Cause::Closed);
}

#[test]
fn a_session_that_had_ended_before_it_left_is_a_failure() {
    let left = |status| {
        let answer = Response { status, location: None, body: String::new() };
        now(api().leave(&Script::new([answer]), "s")).map_err(|failure| failure.cause)
    };
    assert_eq!((left(204), left(404), left(410)), (Ok(()), Ok(()), Err(Cause::Closed)));
}

#[test]
fn a_restart_offers_and_a_close_forces() {
    let answer = json!({"sessionDescription": {"type": "answer", "sdp": "ans"}});
    let closed = json!({"tracks": [{"mid": "0"}, {"mid": "1", "errorCode": "close_track_error"}]});
    let script = Script::new([told(200, &answer), told(200, &closed)]);
    now(api().restart_ice(&script, &Words::of(&script), "0a")).unwrap();
    now(api().close(&script, "0a", &["0".into(), "1".into()])).unwrap();
    let restart = json!({"sessionDescription": {"type": "offer", "sdp": "restart"}});
    let close = json!({"tracks": [{"mid": "0"}, {"mid": "1"}], "force": true});
    let expected = [
        called("PUT", "0a/renegotiate", &restart),
        "accept ans".into(),
        called("PUT", "0a/tracks/close", &close),
    ];
    assert_eq!(script.done(), expected);
}

#[test]
fn an_answer_that_makes_no_sense_is_said_to_make_none() {
    let table = [
        (
            told(200, &json!({})),
            "sessions/new: the answer lacks something: missing field `sessionId`",
        ),
        (told(200, &json!({"sessionId": "a/../b"})), "sessions/new: the session's id is none"),
        (told(200, &json!({"errorCode": "x"})), "sessions/new: 200 x"),
        (
            Response { status: 200, location: None, body: "<html>".into() },
            "sessions/new: the answer is no JSON",
        ),
        (told(401, &json!({"errorCode": "unauthorized"})), "sessions/new: 401 unauthorized"),
    ];
    for (answer, expected) in table {
        let script = Script::new([answer]);
        assert_eq!(now(api().prepare(&script)).unwrap_err().what, expected);
    }
}

proptest! {
    #[test]
    fn any_answers_come_to_an_end(answers in garbage(), opens in any::<bool>()) {
        let script = Script::endless(opens.then(created).into_iter().chain(answers));
        let pulls = [pull(Audio, "a", "0b"), pull(Video, "b", "0b")];
        let joined = now(api().join(&script, &Words::of(&script), &[push(Audio, "m")], &pulls));
        if let Ok(joined) = joined {
            prop_assert_eq!(joined.pulled.len(), 2);
        }
        let pulled = now(api().pull(&script, &Words::of(&script), "0a", &pulls));
        prop_assert!(pulled.is_err() || pulled.is_ok_and(|pulled| pulled.len() == 2));
    }
}

#[test]
fn a_look_is_one_call_and_wants_the_tracks() {
    let tracks = told(200, &json!({"tracks": []}));
    let gone = told(410, &json!({"errorCode": "session_error", "errorDescription": "gone"}));
    let unknown = told(404, &json!({"errorCode": "session_error", "errorDescription": "none"}));
    let script = Script::new([tracks, told(200, &json!({})), gone, unknown]);
    assert_eq!(now(api().look(&script, "0a")), Ok(()));
    let lacking = now(api().look(&script, "0a")).unwrap_err();
    assert!(lacking.cause == Cause::Incomprehensible && lacking.what.contains("its tracks"));
    assert_eq!(now(api().look(&script, "0a")).unwrap_err().cause, Cause::Closed);
    assert_eq!(now(api().look(&script, "0a")).unwrap_err().cause, Cause::Closed);
    assert_eq!(script.done(), vec![format!("GET http://t/v1/apps/a/sessions/0a [{SECRET}]"); 4]);
}
