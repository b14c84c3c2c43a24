//! The exact sequences of calls, and what becomes of answers that are none.

use proptest::prelude::*;

use super::*;
use crate::api::Kind::{Audio, Video};
use crate::api::testing::{Script, Words, garbage, now, pull, push, told};
use crate::api::{Api, Response};

const SOURCE: &str = r#"{"feed":9,"mids":{"cam":"v","mic":"a"}}"#;
const JOINED: &str = r#"{"streams":[{"feed_id":9,"feed_mid":"a","mid":"0"},
    {"feed_id":9,"feed_mid":"v","mid":"1"}]}"#;

fn janus() -> Janus {
    Janus::new("http://t/janus".into(), Credentials::default(), Some(7))
}

fn done(body: &Value) -> Response {
    told(200, body)
}

/// The answers to the opening of session 1 with handle 2.
fn opened() -> [Response; 2] {
    let made = |id| done(&json!({"janus": "success", "transaction": "$T", "data": {"id": id}}));
    [made(1), made(2)]
}

fn ack() -> Response {
    done(&json!({"janus": "ack", "session_id": 1, "transaction": "$T"}))
}

fn event(data: &Value, jsep: &Value) -> Value {
    json!({
        "janus": "event", "sender": 2, "transaction": "$T",
        "plugindata": {"plugin": "janus.plugin.videoroom", "data": data}, "jsep": jsep,
    })
}

fn offered(data: &str) -> Response {
    let data: Value = serde_json::from_str(data).unwrap();
    done(&json!([event(&data, &json!({"type": "offer", "sdp": "off"}))]))
}

fn started() -> Response {
    done(&json!([event(&json!({"started": "ok"}), &Value::Null)]))
}

fn destroyed() -> Response {
    done(&json!({"janus": "success", "transaction": "$T"}))
}

const NEWS: &str = "NEWS http://t/janus/1?maxev=10";

fn posted(path: &str, mut message: Value) -> String {
    message["transaction"] = "T".into();
    format!("POST http://t/janus{path} {message}")
}

fn message(body: Value) -> String {
    posted("/1/2", json!({"janus": "message", "body": body}))
}

fn message_with(body: Value, kind: &str, sdp: &str) -> String {
    let jsep = json!({"type": kind, "sdp": sdp});
    posted("/1/2", json!({"janus": "message", "body": body, "jsep": jsep}))
}

#[test]
fn a_publisher_joins_with_its_offer_while_other_news_comes_and_leaves() {
    let data = json!({"videoroom": "joined", "id": 9, "publishers": []});
    let others = json!([{"janus": "webrtcup", "sender": 2}, {"janus": "event", "sender": 2}]);
    let answer = event(&data, &json!({"type": "answer", "sdp": "ans"}));
    let news = [ack(), done(&others), done(&answer), destroyed()];
    let script = Script::new(opened().into_iter().chain(news));
    let (api, endpoint) = (janus(), Words::of(&script));
    let pushes = [push(Audio, "mic"), push(Video, "cam")];
    let joined = now(api.join(&script, &endpoint, &pushes, &[])).unwrap();
    assert_eq!(joined.pushed, ["m0", "m1"]);
    let expected = r#"{"feed":9,"mids":{"cam":"m1","mic":"m0"}}"#;
    assert_eq!(joined.source.0, expected);
    now(api.leave(&script, &joined)).unwrap();
    let body = json!({"request": "joinandconfigure", "ptype": "publisher", "room": 7});
    let expected = [
        posted("", json!({"janus": "create"})),
        posted("/1", json!({"janus": "attach", "plugin": "janus.plugin.videoroom"})),
        message_with(body, "offer", "offer audio sends video sends"),
        NEWS.into(),
        NEWS.into(),
        "accept ans".into(),
        posted("/1", json!({"janus": "destroy"})),
    ];
    assert_eq!(script.done(), expected);
}

#[test]
fn a_subscriber_joins_with_streams_and_grows() {
    let more = r#"{"streams":[{"feed_id":9,"feed_mid":"a","mid":"0"},
        {"feed_id":9,"feed_mid":"v","mid":"1"},{"feed_id":8,"feed_mid":"a","mid":"2"}]}"#;
    let news = [ack(), offered(JOINED), ack(), started(), ack(), offered(more), ack(), started()];
    let script = Script::new(opened().into_iter().chain(news));
    let mut api = Api::Janus(janus());
    let endpoint = Words::of(&script);
    let pulls = [pull(Video, "cam", SOURCE), pull(Audio, "mic", SOURCE)];
    let mut joined = now(api.join(&script, &endpoint, &[], &pulls)).unwrap();
    assert_eq!(joined.pulled, [Ok("1".into()), Ok("0".into())]);
    let other = pull(Audio, "mic", r#"{"feed":8,"mids":{"mic":"a"}}"#);
    now(api.pull_more(&script, &endpoint, &mut joined, &[other])).unwrap();
    assert_eq!(joined.pulled[2..], [Ok("2".into())]);
    let streams = json!([{"feed": 9, "mid": "v"}, {"feed": 9, "mid": "a"}]);
    let join = json!({"request": "join", "ptype": "subscriber", "room": 7, "streams": streams});
    let subscribe = json!({"request": "subscribe", "streams": [{"feed": 8, "mid": "a"}]});
    let start = || message_with(json!({"request": "start"}), "answer", "answer to off");
    let round = |body| [message(body), NEWS.into(), "answer off".into(), start(), NEWS.into()];
    let expected: Vec<String> = round(join).into_iter().chain(round(subscribe)).collect();
    assert_eq!(script.done()[2..], expected);
    assert!(matches!(&mut api, Api::Janus(_)));
}

#[test]
fn feeds_that_are_not_there_do_not_hold_up_the_others() {
    let no = event(&json!({"error_code": 428, "error": "No such feed (5)"}), &Value::Null);
    let late = r#"{"streams":[{"feed_id":5,"feed_mid":"a","mid":"2"}]}"#;
    let news = [
        ack(),
        done(&json!([no])),
        ack(),
        offered(JOINED),
        ack(),
        started(),
        ack(),
        offered(late),
        ack(),
        started(),
    ];
    let script = Script::new(opened().into_iter().chain(news));
    let missing = pull(Audio, "mic", r#"{"feed":5,"mids":{"mic":"a"}}"#);
    let pulls = [missing, pull(Audio, "mic", SOURCE)];
    let joined = now(janus().join(&script, &Words::of(&script), &[], &pulls)).unwrap();
    assert_eq!(joined.pulled, [Ok("2".into()), Ok("0".into())]);
    let log = script.done();
    let pauses = log.iter().filter(|line| *line == "pause").count();
    assert_eq!(pauses, 1, "{log:?}");
}

#[test]
fn a_room_is_made_before_the_run_and_removed_after_it() {
    let sync = |data: Value| {
        let mut event = event(&data, &Value::Null);
        event["janus"] = "success".into();
        [done(&event), destroyed()]
    };
    let made = opened().into_iter().chain(sync(json!({"videoroom": "created"})));
    let script = Script::new(made.chain(opened()).chain(sync(json!({"videoroom": "destroyed"}))));
    let mut api = Janus::new("http://t/janus".into(), Credentials::default(), None);
    now(api.prepare(&script)).unwrap();
    now(api.finish(&script)).unwrap();
    let log = script.done();
    let number = |line: &str| {
        let (_, rest) = line.split_once(r#""room":"#).unwrap();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap()
    };
    assert_eq!(number(&log[2]), number(&log[6]));
    assert!(number(&log[2]) < 1 << 53, "numbers of other languages end there");
    assert!(log[2].contains(r#""bitrate":0"#) && log[6].contains(r#""request":"destroy""#));
}

#[test]
fn refusals_hide_in_success_and_are_found() {
    let refused = |answer: Value| {
        let script = Script::new([done(&answer)]);
        now(janus().open(&script)).unwrap_err()
    };
    let janus_says = |code| json!({"janus": "error", "error": {"code": code, "reason": "No 5"}});
    assert_eq!(refused(janus_says(403)).cause, Cause::Unauthorized);
    assert_eq!(refused(janus_says(454)).what, "create (session): 454 No #");
    assert_eq!(refused(json!({"janus": "error"})).what, "create (session): 0 without a reason");
    let nothing = refused(json!({"janus": "success"}));
    assert_eq!(nothing.what, "create (session): the answer lacks an id");
    assert_eq!(refused(json!([])).cause, Cause::Incomprehensible);
}

#[test]
fn a_result_that_never_comes_is_given_up_and_the_session_ended() {
    let nothing = || done(&json!([{"janus": "keepalive"}]));
    let news = [ack(), nothing(), nothing(), destroyed()];
    let script = Script::new(opened().into_iter().chain(news));
    let pulls = [pull(Audio, "mic", SOURCE)];
    let failure = now(janus().join(&script, &Words::of(&script), &[], &pulls)).unwrap_err();
    assert_eq!(failure.cause, Cause::Slow);
    assert_eq!(script.done().last().unwrap(), &posted("/1", json!({"janus": "destroy"})));
}

#[test]
fn whoever_keeps_a_session_brings_news_to_who_waits_and_ends_with_a_hangup() {
    // Kept from the beginning: the keeper asks, and what it gets is the other's result.
    let up = done(&json!([{"janus": "webrtcup", "sender": 2}]));
    let hangup = done(&json!([{"janus": "hangup", "sender": 2, "reason": "DTLS alert 5"}]));
    let result = done(&json!([event(&json!({"configured": "ok"}), &Value::Null)]));
    let script = Script::new([ack(), up, result, hangup]);
    let api = janus();
    api.desk.open(1);
    let at = Handle { session: 1, handle: 2 };
    let (outcome, over) = now(async {
        let asked = api.message(&script, "configure", at, json!({}), None);
        let news = api.news(at);
        let kept = api.desk.keep(&script, &news, 1);
        tokio::join!(asked, kept)
    });
    assert_eq!(outcome.unwrap().data, json!({"configured": "ok"}));
    assert_eq!(over, Failure::new(Cause::Closed, "the server hung up: DTLS alert #"));
    assert_eq!(script.done().len(), 4);
}

#[test]
fn who_leaves_ends_the_keeping() {
    let api = janus();
    api.desk.open(1);
    let keeping = api.clone();
    let over = now(async move {
        let kept = tokio::task::spawn_local(async move {
            let at = Handle { session: 1, handle: 2 };
            keeping.desk.keep(&Silent, &keeping.news(at), 1).await
        });
        tokio::task::yield_now().await;
        api.desk.close(1);
        kept.await.unwrap()
    });
    assert_eq!(over.what, "the session was left");
}

/// A server that never says anything.
struct Silent;

impl Caller for Silent {
    async fn call(&self, _: Request) -> Result<Response, Failure> {
        std::future::pending().await
    }

    async fn wait_for_news(&self, _: Request) -> Result<Response, Failure> {
        std::future::pending().await
    }

    async fn pause(&self, _: std::time::Duration) {
        std::future::pending().await
    }

    fn random(&self) -> u64 {
        0
    }
}

proptest! {
    #[test]
    fn any_answers_come_to_an_end(answers in garbage(), opens in any::<bool>()) {
        let opening = if opens { opened().to_vec() } else { Vec::new() };
        let script = Script::endless(opening.into_iter().chain(answers));
        let (api, endpoint) = (janus(), Words::of(&script));
        if let Ok(joined) = now(api.join(&script, &endpoint, &[push(Audio, "mic")], &[])) {
            let _ = now(api.leave(&script, &joined));
        }
        let pulls = [pull(Audio, "mic", SOURCE), pull(Video, "cam", SOURCE)];
        if let Ok(joined) = now(api.join(&script, &endpoint, &[], &pulls)) {
            prop_assert_eq!(joined.pulled.len(), 2);
            let _ = now(api.leave(&script, &joined));
        }
        prop_assert!(api.desk.is_empty());
    }
}
