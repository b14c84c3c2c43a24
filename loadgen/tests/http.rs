//! The HTTP client against servers that answer badly, late, or not at all.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use loadgen::api::{Caller, Cause, Failure, Method, Request, Response};
use loadgen::real::http::{Http, Settings, run};

/// Serves connections one request each by writing `answer`, and notes what it was asked.
fn serve(answer: impl Into<Vec<u8>>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answer, notes) = (answer.into(), asked.clone());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            let mut request = String::new();
            let mut byte = [0];
            while !request.ends_with("\r\n\r\n") && connection.read(&mut byte).expect("a head") > 0
            {
                request.push(byte[0] as char);
            }
            notes.lock().expect("no panics").push(request);
            // A client that has heard enough closes; that is its right.
            let _ = connection.write_all(&answer);
        }
    });
    (address, asked)
}

fn request(address: SocketAddr) -> Request {
    Request {
        method: Method::Get,
        url: format!("http://{address}/a/b"),
        bearer: Some("token".into()),
        content_type: Some("application/sdp"),
        body: String::new(),
    }
}

fn call(settings: &Settings, address: SocketAddr) -> Result<Response, Failure> {
    let http = Http::new(settings, Rc::new(|_, _| {})).expect("a client");
    run(http.call(request(address))).expect("an event loop")
}

#[test]
fn what_is_asked_and_what_comes_back_is_whole() {
    let answer = "HTTP/1.1 201 Created\r\nLocation: ../r/1\r\nContent-Length: 3\r\n\r\nabc";
    let (address, asked) = serve(answer);
    let measured = Rc::new(RefCell::new(0));
    let count = {
        let measured = measured.clone();
        Rc::new(move |_, _| *measured.borrow_mut() += 1)
    };
    let http = Http::new(&Settings::default(), count).expect("a client");
    let response = run(http.call(request(address))).expect("an event loop").expect("an answer");
    let location = Some(format!("http://{address}/r/1"));
    assert_eq!(response, Response { status: 201, location, body: "abc".into() });
    assert_eq!(*measured.borrow(), 1);
    let asked = asked.lock().expect("no panics")[0].to_lowercase();
    for part in [
        "get /a/b http/1.1\r\n",
        "\r\nauthorization: bearer token\r\n",
        "\r\ncontent-type: application/sdp\r\n",
        "\r\nuser-agent: shardcast-loadgen/",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
}

#[test]
fn what_is_no_answer_is_a_failure_with_its_cause() {
    let head = "HTTP/1.1 200 OK\r\n";
    let huge = format!("{head}Content-Length: 9000000\r\n\r\n{}", "a".repeat(9_000_000));
    let table: [(Vec<u8>, Cause, &str); 6] = [
        (huge.into(), Cause::Incomprehensible, "answers with more than"),
        (b"SSH-2.0-x\r\n\r\n".to_vec(), Cause::Unreachable, "broke: invalid HTTP version"),
        (Vec::new(), Cause::Unreachable, "broke: connection closed"),
        (format!("{head}Content-Length: 5\r\n\r\nab").into(), Cause::Unreachable, "broke: "),
        (
            [head.as_bytes(), b"Content-Length: 2\r\n\r\n\xff\xfe"].concat(),
            Cause::Incomprehensible,
            "what is no text",
        ),
        (
            b"HTTP/1.1 307 R\r\nLocation: /a/b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                .to_vec(),
            Cause::Incomprehensible,
            "redirects without end",
        ),
    ];
    for (answer, cause, expected) in table {
        let (address, _) = serve(answer);
        let failure = call(&Settings::default(), address).expect_err("no answer");
        assert_eq!(failure.cause, cause, "{failure}");
        assert!(failure.what.contains(expected), "{failure}");
        assert!(failure.what.contains(&address.to_string()), "{failure}");
    }
}

#[test]
fn a_server_that_only_listens_is_slow() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let settings = Settings { timeout: Duration::from_millis(200), ..Settings::default() };
    let failure = call(&settings, address).expect_err("no answer");
    let what = format!("{address} did not answer within 0.2 s");
    assert_eq!(failure, Failure { cause: Cause::Slow, what });
}

#[test]
fn no_more_calls_are_under_way_than_may_be() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while connection.read(&mut buffer).expect("a request") > 0 {
                    MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(20));
                    NOW.fetch_sub(1, Ordering::SeqCst);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    connection.write_all(answer).expect("a client");
                }
            });
        }
    });
    let settings = Settings { at_once: 3, ..Settings::default() };
    let http = Http::new(&settings, Rc::new(|_, _| {})).expect("a client");
    run(async {
        let calls = (0..12).map(|_| {
            let http = http.clone();
            tokio::task::spawn_local(async move { http.call(request(address)).await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("no panics").expect("an answer");
        }
    })
    .expect("an event loop");
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
}

/// A client whose calls are timed, and their times.
fn timed(settings: &Settings) -> (Http, Rc<RefCell<Vec<Duration>>>) {
    let times = Rc::new(RefCell::new(Vec::new()));
    let noted = times.clone();
    let note = Rc::new(move |_, took| noted.borrow_mut().push(took));
    (Http::new(settings, note).expect("a client"), times)
}

#[test]
fn a_call_is_timed_from_when_it_was_wanted_not_from_when_its_turn_came() {
    const EACH: Duration = Duration::from_millis(30);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            while connection.read(&mut [0; 4096]).expect("a request") > 0 {
                thread::sleep(EACH);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                connection.write_all(answer).expect("a client");
            }
        }
    });
    let (http, times) = timed(&Settings { at_once: 1, ..Settings::default() });
    run(async {
        let calls = (0..4).map(|_| {
            let http = http.clone();
            tokio::task::spawn_local(async move { http.call(request(address)).await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("no panics").expect("an answer");
        }
    })
    .expect("an event loop");
    let times = times.borrow();
    // All were wanted at once: each waited for those before it.
    for (at, time) in (1..).zip(times.iter()) {
        assert!(*time >= EACH * at, "call {at}: {times:?}");
    }
    assert_eq!(times.len(), 4);
}

#[test]
fn a_call_without_an_answer_counts_with_the_time_it_was_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let slow = silent.local_addr().expect("bound");
    let timeout = Duration::from_millis(100);
    let (http, times) = timed(&Settings { timeout, ..Settings::default() });
    let failure = run(http.call(request(slow))).expect("an event loop").expect_err("no answer");
    assert_eq!((failure.cause, times.borrow().len()), (Cause::Slow, 1));
    assert!(times.borrow()[0] >= timeout, "{times:?}");
    drop(silent);
    let failure = run(http.call(request(slow))).expect("an event loop").expect_err("no answer");
    assert_eq!((failure.cause, times.borrow().len()), (Cause::Unreachable, 2));
}

#[test]
fn a_connection_that_breaks_late_counts_with_its_time() {
    const HELD: Duration = Duration::from_millis(100);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            let _ = connection.read(&mut [0; 4096]);
            thread::sleep(HELD);
        }
    });
    let (http, times) = timed(&Settings::default());
    let failure = run(http.call(request(address))).expect("an event loop").expect_err("no answer");
    assert_eq!((failure.cause, times.borrow().len()), (Cause::Unreachable, 1));
    assert!(times.borrow()[0] >= HELD, "{times:?}");
}
