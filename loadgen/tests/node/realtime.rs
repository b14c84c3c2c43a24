//! The Realtime dialect against the real node, over real HTTP and real UDP.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::support::node::{APP, SECRET, free_port, start};
use crate::support::peer::Peer;
use loadgen::api::{Api, ApiKind, Cause, Kind, Pull, Push, Target};
use loadgen::real::http::{Http, Settings, run};

fn target(url: &str) -> Target {
    let (app, secret) = (Some(APP.to_owned()), Some(SECRET.to_owned()));
    Target { url: url.into(), app, secret, ..Target::default() }
}

fn api(target: &Target) -> Api {
    target.api(ApiKind::Realtime).expect("a target that is right")
}

fn pushes() -> [Push; 2] {
    let push = |kind: Kind, name: &str| Push { kind, name: name.into() };
    [push(Kind::Audio, "mic"), push(Kind::Video, "cam")]
}

#[test]
fn what_one_publishes_reaches_who_pulls_it() {
    let (url, _) = start();
    let calls = Rc::new(RefCell::new(Vec::new()));
    let measured = {
        let calls = calls.clone();
        Rc::new(move |_, time| calls.borrow_mut().push(time))
    };
    let http = Http::new(&Settings::default(), measured).expect("a client");
    let mut api = api(&target(&url));
    run(async {
        api.prepare(&http).await.expect("a target that answers");
        let publisher = Peer::start("127.0.0.1:0", "from the publisher");
        let source = api.join(&http, &publisher, &pushes(), &[]).await.expect("a publisher");
        assert_eq!(source.pushed.len(), 2);
        let pull = |push: &Push| Pull {
            kind: push.kind,
            name: push.name.clone(),
            source: source.source.clone(),
        };
        let pulls: Vec<Pull> = pushes().iter().map(pull).collect();

        // One that only pulls, one that also publishes, one that pulls later.
        let viewer = Peer::start("127.0.0.1:0", "");
        let viewing = api.join(&http, &viewer, &[], &pulls).await.expect("a viewer");
        let both = Peer::start("127.0.0.1:0", "from both");
        let mut talking =
            api.join(&http, &both, &pushes()[..1], &pulls[..1]).await.expect("a talker");
        let mut later = viewing.clone();
        let back = Pull { source: talking.source.clone(), ..pulls[0].clone() };
        api.pull_more(&http, &viewer, &mut later, &[back]).await.expect("one more");
        assert_eq!(later.pulled.len(), 3);

        let came = async |peer: &Peer, mid: &Result<String, _>, text: &str| {
            let mid = mid.as_ref().expect("a pull that went well");
            let payloads = peer.payloads(mid, 5).await;
            assert!(payloads.iter().all(|p| p.ends_with(text.as_bytes())), "{payloads:?}");
        };
        came(&viewer, &later.pulled[0], "from the publisher").await;
        came(&viewer, &later.pulled[1], "from the publisher").await;
        came(&viewer, &later.pulled[2], "from both").await;
        came(&both, &talking.pulled[0], "from the publisher").await;

        api.restart_ice(&http, &viewer, &viewing).await.expect("a restart");
        let before = viewer.payloads(viewing.pulled[0].as_ref().expect("a mid"), 1).await.len();
        viewer.payloads(viewing.pulled[0].as_ref().expect("a mid"), before + 20).await;

        let mids: Vec<String> = talking.pulled.drain(..).map(|mid| mid.expect("a mid")).collect();
        api.close(&http, &both, &talking, &mids).await.expect("a close");
        for joined in [&source, &viewing, &talking] {
            api.leave(&http, joined).await.expect("a goodbye");
            let gone = api.leave(&http, joined).await.expect_err("it had ended before");
            assert_eq!(gone.cause, Cause::Closed);
        }
        let refused = api.pull_more(&http, &viewer, &mut later, &pulls).await.expect_err("gone");
        assert_eq!(refused.cause, Cause::Closed);
        assert!(refused.what.starts_with("tracks/new (pull): 410 session_error"), "{refused}");
        let viewer = Peer::start("127.0.0.1:0", "");
        let joined = api.join(&http, &viewer, &[], &pulls).await.expect("a session all the same");
        let [Err(no), Err(other)] = &joined.pulled[..] else { panic!("{joined:?}") };
        assert_eq!(no, other);
        assert_eq!(no.cause, Cause::Refused);
        api.finish(&http).await.expect("nothing to remove");
    })
    .expect("an event loop");
    assert!(calls.borrow().len() > 10 && calls.borrow().iter().all(|t| *t > Duration::ZERO));
}

#[test]
fn a_wrong_target_is_one_sentence_before_anything_starts() {
    let (url, secure) = start();
    let http = Http::new(&Settings::default(), Rc::new(|_, _| {})).expect("a client");
    let refused = |target: &Target| {
        let mut api = api(target);
        run(api.prepare(&http)).expect("an event loop").expect_err("a wrong target")
    };
    let wrong = refused(&Target { secret: Some("not-the-secret-of-it".into()), ..target(&url) });
    assert_eq!(wrong.cause, Cause::Unauthorized);
    assert!(wrong.what.starts_with("sessions/new: 401 unauthorized: Invalid bearer"), "{wrong}");
    let other = refused(&Target { app: Some("other".into()), ..target(&url) });
    assert!(other.what.starts_with("sessions/new: 404 not_found: App not found"), "{other}");
    let nobody = free_port();
    let nobody = refused(&target(&format!("http://{nobody}")));
    assert_eq!(nobody.cause, Cause::Unreachable);
    assert!(nobody.what.contains("no connection to 127.0.0.1:"), "{nobody}");
    assert!(nobody.what.contains("refused"), "{nobody}");
    let unsigned = refused(&target(&secure));
    assert_eq!(unsigned.cause, Cause::Unreachable);
    assert!(unsigned.what.contains("certificate"), "{unsigned}");
    assert!(unsigned.what.ends_with("(--insecure takes any)"), "{unsigned}");
    let settings = Settings { insecure: true, ..Settings::default() };
    let http = Http::new(&settings, Rc::new(|_, _| {})).expect("a client");
    run(api(&target(&secure)).prepare(&http)).expect("an event loop").expect("any certificate");
}
