//! The wire contract with the Realtime API's clients: request bytes in, response bytes out,
//! with a desk that answers as told.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::cell::RefCell;
use std::time::Instant;

use http::api::{self, Api, Step};
use http::auth::Door;
use http::conn::Conn;
use http::{Admin, App, Apps, NodeInfo, Timing};
use serde_json::{Value, json};
use shards::command::{
    Answer, Ask, CloseRequest, Command, Description, ItemError, Location, MediaKind, Refusal,
    Reply, SdpKind, SessionInfo, Simulcast, TrackInfo, TrackObject, TrackResult, TracksReply,
    TracksRequest,
};
use shards::ids::{AppId, NodeId, SessionId, ShardId};

#[test]
fn a_session_is_opened_with_and_without_an_offer() {
    for (body, headers) in [("", ""), ("", "Content-Type: application/json\r\n"), ("{}", "")] {
        let got = call("POST", "/sessions/new?", headers, body, |command| {
            assert_eq!(command, Command { app: AppId(1), ask: Ask::Create { offer: None } });
            Ok(Reply::Created { session: me(), answer: None })
        });
        assert_eq!(got.status, 201);
        assert_eq!(got.json(), json!({"sessionId": me().to_string()}));
    }
    let body = r#"{"sessionDescription":{"type":"offer","sdp":"v=0\r\n"}}"#;
    let got = call("POST", "/sessions/new", "Content-Type: text/plain\r\n", body, |command| {
        assert_eq!(command.ask, Ask::Create { offer: Some(offer("v=0\r\n")) });
        Ok(Reply::Created { session: me(), answer: Some(answer("v=1\r\n")) })
    });
    assert_eq!(got.status, 201);
    let expected = json!({"sessionId": me().to_string(),
        "sessionDescription": {"type": "answer", "sdp": "v=1\r\n"}});
    assert_eq!(got.json(), expected);
}

#[test]
fn row_a_push_with_a_client_offer() {
    let body = concat!(
        r#"{"sessionDescription":{"type":"offer","sdp":"o"},"tracks":[{"location":"local","#,
        r#""mid":"1","trackName":"camera-4f7a"}]}"#,
    );
    let got = call("POST", &on("/tracks/new"), "", body, |command| {
        let track = TrackObject {
            location: Some(Location::Local),
            mid: Some("1".into()),
            track_name: Some("camera-4f7a".into()),
            ..TrackObject::default()
        };
        let request =
            TracksRequest { offer: Some(offer("o")), tracks: vec![track], auto_discover: false };
        assert_eq!(command.ask, Ask::NewTracks { session: me(), request });
        Ok(Reply::Tracks(TracksReply {
            requires_immediate_renegotiation: false,
            description: Some(answer("a")),
            tracks: vec![pushed("1", "camera-4f7a")],
        }))
    });
    assert_eq!(got.status, 200);
    // The very bytes: one client compares results as strings.
    assert_eq!(
        got.body,
        concat!(
            r#"{"requiresImmediateRenegotiation":false,"sessionDescription":{"type":"answer","#,
            r#""sdp":"a"},"tracks":[{"mid":"1","trackName":"camera-4f7a"}]}"#,
        )
    );
}

#[test]
fn row_b_auto_discover_tells_generated_names_and_kinds() {
    let body = r#"{"autoDiscover":true,"sessionDescription":{"type":"offer","sdp":"o"}}"#;
    let got = call("POST", &on("/tracks/new"), "", body, |command| {
        let request =
            TracksRequest { offer: Some(offer("o")), tracks: vec![], auto_discover: true };
        assert_eq!(command.ask, Ask::NewTracks { session: me(), request });
        let video = TrackResult { kind: Some(MediaKind::Video), ..pushed("0", "n") };
        Ok(Reply::Tracks(TracksReply { tracks: vec![video], ..TracksReply::default() }))
    });
    assert_eq!(got.json()["tracks"], json!([{"mid": "0", "trackName": "n", "kind": "video"}]));
}

#[test]
fn row_c_push_where_we_offer() {
    let body = concat!(
        r#"{"tracks":[{"location":"local","trackName":"a","kind":"audio","#,
        r#""bidirectionalMediaStream":true}]}"#,
    );
    let got = call("POST", &on("/tracks/new"), "", body, |command| {
        let Ask::NewTracks { request, .. } = command.ask else { panic!("not a push") };
        assert!(request.tracks[0].bidirectional);
        assert_eq!(request.tracks[0].kind, Some(MediaKind::Audio));
        Ok(Reply::Tracks(TracksReply {
            requires_immediate_renegotiation: true,
            description: Some(offer("o")),
            tracks: vec![pushed("0", "a")],
        }))
    });
    let expected = json!({"requiresImmediateRenegotiation": true,
        "sessionDescription": {"type": "offer", "sdp": "o"},
        "tracks": [{"mid": "0", "trackName": "a"}]});
    assert_eq!(got.json(), expected);
}

#[test]
fn rows_d_and_h_pull_where_we_offer_what_there_is() {
    let body = r#"{"tracks":[
        {"location":"remote","sessionId":"p","trackName":"t","simulcast":{"preferredRid":"h"}},
        {"location":"remote","sessionId":"p","trackName":"u"}]}"#;
    let got = call("POST", &on("/tracks/new"), "", body, |_| {
        let simulcast = Simulcast { preferred_rid: Some("h".into()), ..Simulcast::default() };
        let good = TrackResult { simulcast: Some(simulcast), ..pulled("0", "t") };
        let bad = TrackResult { error: Some(ItemError::NotFoundTrack), ..pulled("", "u") };
        Ok(Reply::Tracks(TracksReply {
            requires_immediate_renegotiation: true,
            description: Some(offer("o")),
            tracks: vec![good, bad],
        }))
    });
    assert_eq!(got.status, 200);
    let said = "Track not found on remote peer. Make sure the publisher peer is connected \
        and sending packets for this track";
    let expected = json!({"requiresImmediateRenegotiation": true,
        "sessionDescription": {"type": "offer", "sdp": "o"},
        "tracks": [
            {"mid": "0", "sessionId": "p", "trackName": "t", "simulcast": {"preferredRid": "h"}},
            {"mid": "", "sessionId": "p", "trackName": "u",
                "errorCode": "not_found_track_error", "errorDescription": said}]});
    assert_eq!(got.json(), expected);
}

#[test]
fn row_e_pull_with_a_client_offer() {
    let body = concat!(
        r#"{"sessionDescription":{"type":"offer","sdp":"o"},"tracks":[{"location":"remote","#,
        r#""sessionId":"p","trackName":"t","kind":"audio"}]}"#,
    );
    let got = call("POST", &on("/tracks/new"), "", body, |command| {
        let Ask::NewTracks { request, .. } = command.ask else { panic!("not a pull") };
        assert_eq!(request.offer, Some(offer("o")));
        Ok(Reply::Tracks(TracksReply {
            requires_immediate_renegotiation: false,
            description: Some(answer("a")),
            tracks: vec![pulled("2", "t")],
        }))
    });
    assert_eq!(got.json()["sessionDescription"]["type"], "answer");
    assert_eq!(got.json()["tracks"][0]["mid"], "2");
}

#[test]
fn rows_f_and_i_pull_without_any_sdp() {
    let body =
        r##"{"tracks":[{"location":"remote","sessionId":"p","trackName":"t","mid":"#mic-1"}]}"##;
    let got = call("POST", &on("/tracks/new"), "", body, |command| {
        let Ask::NewTracks { request, .. } = command.ask else { panic!("not a pull") };
        assert_eq!(request.tracks[0].mid.as_deref(), Some("#mic-1"));
        Ok(Reply::Tracks(TracksReply { tracks: vec![pulled("0", "t")], ..TracksReply::default() }))
    });
    let expected = json!({"requiresImmediateRenegotiation": false,
        "tracks": [{"mid": "0", "sessionId": "p", "trackName": "t"}]});
    assert_eq!(got.json(), expected);
}

#[test]
fn row_g_a_pull_that_fails_altogether() {
    let body = r#"{"tracks":[{"location":"remote","sessionId":"p","trackName":"t"}]}"#;
    let got = call("POST", &on("/tracks/new"), "", body, |_| {
        let failed = TrackResult { error: Some(ItemError::EmptyTrack), ..pulled("", "t") };
        Ok(Reply::Tracks(TracksReply { tracks: vec![failed], ..TracksReply::default() }))
    });
    assert_eq!(got.status, 200);
    assert_eq!(
        got.body,
        concat!(
            r#"{"requiresImmediateRenegotiation":false,"tracks":[{"mid":"","sessionId":"p","#,
            r#""trackName":"t","errorCode":"empty_track_error","#,
            r#""errorDescription":"No track data from remote peer. Make sure the publisher peer "#,
            r#"is connected and sending packets for this track"}]}"#,
        )
    );
}

#[test]
fn renegotiation_is_answered_with_an_object() {
    let body = r#"{"sessionDescription":{"type":"answer","sdp":"a"}}"#;
    let got = call("PUT", &on("/renegotiate"), "", body, |command| {
        let description = answer("a");
        assert_eq!(command.ask, Ask::Renegotiate { session: me(), description });
        Ok(Reply::Renegotiated { answer: None })
    });
    assert_eq!((got.status, got.body.as_str()), (200, "{}"));
    // An extension: an offer, as for an ICE restart, is answered.
    let body = r#"{"sessionDescription":{"type":"offer","sdp":"o"}}"#;
    let got = call("PUT", &on("/renegotiate"), "", body, |_| {
        Ok(Reply::Renegotiated { answer: Some(answer("a")) })
    });
    assert_eq!(got.json(), json!({"sessionDescription": {"type": "answer", "sdp": "a"}}));
}

#[test]
fn closing_reports_every_mid() {
    let body = r#"{"tracks":[{"mid":"1"},{"mid":"7"}],"force":true}"#;
    let got = call("PUT", &on("/tracks/close"), "", body, |command| {
        let request = CloseRequest { mids: vec!["1".into(), "7".into()], force: true, offer: None };
        assert_eq!(command.ask, Ask::CloseTracks { session: me(), request });
        let item =
            |mid: &str, error| TrackResult { mid: mid.into(), error, ..TrackResult::default() };
        let tracks = vec![item("1", None), item("7", Some(ItemError::AlreadyClosed))];
        Ok(Reply::Tracks(TracksReply { tracks, ..TracksReply::default() }))
    });
    let expected = json!({"requiresImmediateRenegotiation": false, "tracks": [{"mid": "1"},
        {"mid": "7", "errorCode": "close_track_error",
            "errorDescription": "Track doesn't exist or was already closed"}]});
    assert_eq!(got.json(), expected);
}

#[test]
fn an_update_chooses_a_layer_or_another_publication() {
    let body = concat!(
        r#"{"tracks":[{"location":"remote","sessionId":"p","trackName":"t","mid":"7","#,
        r#""simulcast":{"preferredRid":""}}]}"#,
    );
    let got = call("PUT", &on("/tracks/update"), "", body, |command| {
        let Ask::UpdateTracks { tracks, .. } = command.ask else { panic!("not an update") };
        let simulcast = tracks[0].simulcast.clone().unwrap();
        assert_eq!(simulcast.preferred_rid.as_deref(), Some(""));
        let item = TrackResult { error: Some(ItemError::NotSimulcast), ..pulled("7", "t") };
        Ok(Reply::Tracks(TracksReply { tracks: vec![item], ..TracksReply::default() }))
    });
    assert_eq!(got.json()["tracks"][0]["errorCode"], "update_track_error");
}

#[test]
fn a_session_is_described_and_deleted() {
    let info = SessionInfo {
        tracks: vec![
            TrackInfo {
                location: Location::Local,
                mid: "2".into(),
                session_id: None,
                track_name: "cam".into(),
                kind: MediaKind::Video,
                active: true,
                reason: None,
            },
            TrackInfo {
                location: Location::Remote,
                mid: "7".into(),
                session_id: Some("p".into()),
                track_name: "x".into(),
                kind: MediaKind::Audio,
                active: false,
                reason: Some("the publisher left".into()),
            },
        ],
        shard: Some(ShardId(3)),
        connected: true,
    };
    let got = call("GET", &on(""), "", "", |command| {
        assert_eq!(command.ask, Ask::Describe { session: me() });
        Ok(Reply::Described(info.clone()))
    });
    let expected = json!({"tracks": [
        {"location": "local", "mid": "2", "trackName": "cam", "kind": "video", "status": "active"},
        {"location": "remote", "mid": "7", "sessionId": "p", "trackName": "x", "kind": "audio",
            "status": "inactive", "reason": "the publisher left"}],
        "dataChannels": [], "shardcast": {"shard": 3, "connected": true}});
    assert_eq!(got.json(), expected);
    let got = call("DELETE", &on(""), "", "", |_| Ok(Reply::Deleted));
    assert_eq!((got.status, got.body.as_str()), (200, "{}"));
}

#[test]
fn refusals_have_their_status_code_and_words() {
    let gone = |publisher| Refusal::Gone { session: "s".into(), publisher };
    let table = [
        (gone(false), 410, "session_error"),
        (gone(true), 410, "session_error"),
        (Refusal::NotReady, 425, "session_error"),
        (Refusal::InvalidParams("x".into()), 406, "invalid_params"),
        (Refusal::InvalidDescription("x".into()), 406, "invalid_session_description"),
        (Refusal::HaveLocalOffer, 406, "invalid_session_description"),
        (Refusal::NoLocalOffer, 406, "invalid_session_description"),
        (Refusal::NotImplemented("x".into()), 501, "not_implemented"),
        (Refusal::Busy("sessions per shard".into()), 503, "temporarily_unavailable_error"),
        (Refusal::Draining, 503, "temporarily_unavailable_error"),
        (Refusal::Internal, 500, "internal_error"),
    ];
    for (refusal, status, code) in table {
        let got = call("GET", &on(""), "", "", |_| Err(refusal.clone()));
        assert_eq!(got.status, status, "{refusal:?}");
        assert_eq!(got.json()["errorCode"], code, "{refusal:?}");
        assert_eq!(got.header("retry-after").is_some(), status == 503, "{refusal:?}");
    }
    let not_ready = call("GET", &on(""), "", "", |_| Err(Refusal::NotReady));
    let said = "Session is not ready yet. Please ensure the PeerConnection is connected before \
        making this request";
    assert_eq!(not_ready.json()["errorDescription"], said);
}

#[test]
fn strangers_are_told_so_before_anything_is_asked() {
    let nobody = |_| -> Answer { panic!("the desk was asked") };
    let request = |authorization: &str, app: &str| {
        let target = format!("/v1/apps/{app}/sessions/new");
        send(&format!("POST {target} HTTP/1.1\r\nHost: h\r\n{authorization}\r\n"), nobody)
    };
    let wrong = request("Authorization: Bearer no\r\n", "app");
    assert_eq!(wrong.status, 401);
    let expected = json!({"errorCode": "unauthorized", "errorDescription":
        "Invalid bearer token, please ensure the token is current and not expired"});
    assert_eq!(wrong.json(), expected);
    assert_eq!(request("", "app").status, 401);
    let unknown = request("Authorization: Bearer secret\r\n", "nobody");
    assert_eq!((unknown.status, &unknown.json()["errorCode"]), (404, &json!("not_found")));
}

#[test]
fn every_api_response_is_json_with_cors_and_preflights_need_no_secret() {
    let nobody = |_| -> Answer { panic!("the desk was asked") };
    let requests = [
        "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n",
        "PUT /v1/apps/app/sessions/new HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /v1/apps/app/sessions/new HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "rubbish\r\n\r\n",
    ];
    for request in requests {
        let got = send(request, nobody);
        assert_eq!(got.header("content-type"), Some("application/json"), "{request}");
        assert_eq!(got.header("access-control-allow-origin"), Some("*"), "{request}");
        assert_eq!(got.header("vary"), Some("Origin"), "{request}");
        assert!(got.json().is_object(), "{request}");
    }
    let got = send(
        "OPTIONS /v1/apps/app/sessions/x/tracks/new HTTP/1.1\r\nHost: h\r\nOrigin: null\r\n\
        Access-Control-Request-Headers: authorization\r\n\r\n",
        nobody,
    );
    assert_eq!((got.status, got.body.as_str()), (204, ""));
    assert_eq!(got.header("access-control-allow-headers"), Some("authorization, content-type"));
    let methods = got.header("access-control-allow-methods");
    assert_eq!(methods, Some("GET, POST, PUT, DELETE, OPTIONS"));
    let wrong = send("PUT /v1/apps/app/sessions/new HTTP/1.1\r\nHost: h\r\n\r\n", nobody);
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST, OPTIONS")));
}

#[test]
fn what_is_not_built_is_named() {
    for (method, path, feature) in [
        ("POST", "/sessions/new?thirdparty=true", "thirdparty sessions"),
        ("POST", "/sessions/x/datachannels/new", "data channels"),
        ("POST", "/adapters/websocket/new", "media adapters"),
        ("POST", "/whip", "WHIP"),
    ] {
        let got = call(method, path, "", "", |_| panic!("the desk was asked"));
        assert_eq!((got.status, &got.json()["errorCode"]), (501, &json!("not_implemented")));
        let said = got.json()["errorDescription"].as_str().unwrap().to_owned();
        assert!(said.ends_with(feature), "{said}");
    }
}

#[test]
fn a_session_asked_too_often_is_told_to_wait() {
    let world = World::new();
    let mut last = None;
    for _ in 0..51 {
        let text = request("GET", &on(""), "", "");
        last = Some(world.send(&text, |_| Ok(Reply::Deleted)));
    }
    let got = last.unwrap();
    assert_eq!((got.status, got.header("retry-after")), (429, Some("1")));
    assert!(got.json()["errorCode"].is_string());
}

#[test]
fn health_and_head() {
    let nobody = |_| -> Answer { panic!("the desk was asked") };
    let got = send("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", nobody);
    assert_eq!(got.json(), json!({"status": "ok", "version": "1", "shards": 2, "sessions": 5}));
    let got = send("HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n", nobody);
    assert_eq!((got.status, got.body.as_str()), (200, ""));
    let got = send("GET / HTTP/1.1\r\nHost: h\r\n\r\n", nobody);
    assert_eq!(got.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(got.header("content-security-policy").is_some());
    assert_eq!(got.header("access-control-allow-origin"), None);
}

/// A response, taken apart.
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| line.split_once(": ").is_some_and(|(known, _)| known == name);
        let line = self.head.lines().find(|text| line(text))?;
        line.split_once(": ").map(|(_, value)| value)
    }
}

/// A shard's HTTP side, and a connection to it.
struct World {
    api: Api,
    conn: RefCell<Conn>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let apps = vec![App::configured("other", "x"), App::configured("app", "secret")];
        let now = Instant::now();
        let conn = RefCell::new(Conn::new(Timing::default(), now));
        Self { api: Api::new(Apps::new(apps), Admin::default()), conn, now }
    }

    fn send(&self, request: &str, desk: impl Fn(Command) -> Answer) -> Got {
        let mut conn = self.conn.borrow_mut();
        conn.handle_bytes(request.as_bytes(), self.now);
        while let Some(request) = conn.poll_request() {
            let node = || NodeInfo { version: "1", shards: 2, sessions: Some(5), draining: false };
            let (_, step) = self.api.receive(&request, Door::Network, node, self.now);
            let response = match step {
                Step::Respond(response) => response,
                Step::Measure | Step::Survey => panic!("nobody here may read the metrics"),
                Step::Ask(command) => api::answer(desk(command)),
            };
            conn.respond(&response, self.now);
        }
        let text = String::from_utf8(conn.output().to_vec()).unwrap();
        conn.handle_sent(text.len());
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Got { status, head: head.into(), body: body.into() }
    }
}

fn send(request: &str, desk: impl Fn(Command) -> Answer) -> Got {
    World::new().send(request, desk)
}

/// Calls an endpoint of the application as its owner.
fn call(
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
    desk: impl Fn(Command) -> Answer,
) -> Got {
    send(&request(method, path, headers, body), desk)
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} /v1/apps/app{path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\
        {headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

fn on(path: &str) -> String {
    format!("/sessions/{}{path}", me())
}

fn me() -> SessionId {
    SessionId::new(NodeId(1), ShardId(1), 2, 4)
}

fn offer(sdp: &str) -> Description {
    Description { kind: SdpKind::Offer, sdp: sdp.into() }
}

fn answer(sdp: &str) -> Description {
    Description { kind: SdpKind::Answer, sdp: sdp.into() }
}

fn pushed(mid: &str, name: &str) -> TrackResult {
    TrackResult { mid: mid.into(), track_name: Some(name.into()), ..TrackResult::default() }
}

fn pulled(mid: &str, name: &str) -> TrackResult {
    TrackResult { session_id: Some("p".into()), ..pushed(mid, name) }
}
