//! Requests cut anywhere, smuggled, slow, or no requests at all.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn a_connection_is_kept_and_answers_in_order() {
    let mut conn = new();
    conn.handle_bytes(
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        t(0),
    );
    assert_eq!(conn.poll_request().unwrap().target, "/1");
    assert_eq!(conn.poll_request(), None, "one at a time");
    assert!(!conn.wants_bytes());
    conn.respond(&ok(), t(0));
    assert_eq!(conn.poll_request().unwrap().target, "/2");
    conn.respond(&ok(), t(0));
    assert!(conn.wants_bytes() && !conn.is_done());
    assert_eq!(take(&mut conn).matches("HTTP/1.1 200 OK").count(), 2);
    assert!(!conn.is_done());
}

#[test]
fn close_is_honoured_and_later_requests_are_not_answered() {
    let mut conn = new();
    conn.handle_bytes(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /2 HT", t(0));
    assert!(conn.poll_request().is_some());
    conn.respond(&ok(), t(0));
    assert!(take(&mut conn).contains("connection: close\r\n"));
    assert!(conn.is_done());
}

#[test]
fn http10_closes_unless_asked() {
    let mut conn = new();
    conn.handle_bytes(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", t(0));
    conn.poll_request().unwrap();
    conn.respond(&ok(), t(0));
    assert!(take(&mut conn).contains("connection: keep-alive\r\n"));
    conn.handle_bytes(b"GET / HTTP/1.0\r\n\r\n", t(0));
    conn.poll_request().unwrap();
    conn.respond(&ok(), t(0));
    assert!(take(&mut conn).contains("connection: close\r\n"));
    assert!(conn.is_done());
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_before_its_body() {
    let mut conn = new();
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    conn.handle_bytes(head, t(0));
    assert_eq!(take(&mut conn), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(conn.poll_request(), None);
    conn.handle_bytes(b"{}", t(1));
    assert_eq!(conn.poll_request().unwrap().body, b"{}");
}

#[test]
fn a_body_too_large_is_refused_before_it_is_sent() {
    let mut conn = new();
    let head =
        "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n";
    conn.handle_bytes(head.as_bytes(), t(0));
    let said = take(&mut conn);
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    assert!(said.contains("\"errorCode\":\"payload_too_large\""), "{said}");
    assert!(said.contains("access-control-allow-origin: *"), "{said}");
    assert!(conn.is_done());
}

#[test]
fn a_head_too_large_is_refused_whether_or_not_it_ends() {
    for end in ["", "\r\n\r\n"] {
        let mut conn = new();
        let text = format!("GET / HTTP/1.1\r\nHost: {}{end}", "h".repeat(limits::HEAD_BYTES));
        conn.handle_bytes(text.as_bytes(), t(0));
        assert!(take(&mut conn).starts_with("HTTP/1.1 431 "));
        assert!(conn.is_done());
    }
}

#[test]
fn tls_to_the_plain_port_is_refused_at_once() {
    let mut conn = new();
    conn.handle_bytes(&[0x16, 3, 1], t(0));
    assert!(take(&mut conn).starts_with("HTTP/1.1 400 "));
    assert!(conn.is_done());
}

#[test]
fn every_phase_has_its_deadline() {
    let timing = Timing::default();
    let mut conn = new();
    assert_eq!(conn.deadline(), Some(t(0) + timing.head), "a silent connection");
    conn.handle_bytes(b"POST / HTTP/1.1\r\n", t(5));
    assert_eq!(conn.deadline(), Some(t(5) + timing.head));
    conn.handle_bytes(b"Host: h\r\n", t(9));
    assert_eq!(conn.deadline(), Some(t(5) + timing.head), "drops of a head gain nothing");
    conn.handle_bytes(b"Content-Length: 2\r\n\r\n", t(10));
    assert_eq!(conn.deadline(), Some(t(10) + timing.body));
    conn.handle_bytes(b"{", t(11));
    assert_eq!(conn.deadline(), Some(t(10) + timing.body));
    conn.handle_bytes(b"}", t(12));
    assert_eq!(conn.deadline(), None, "the desk may take its time");
    conn.poll_request().unwrap();
    conn.respond(&ok(), t(20));
    assert_eq!(conn.deadline(), Some(t(20) + timing.write));
    take(&mut conn);
    assert_eq!(conn.deadline(), Some(t(20) + timing.idle));
    conn.handle_timeout(t(80));
    assert!(conn.is_done());
}

#[test]
fn a_slow_head_is_told_and_a_slow_reader_is_dropped() {
    let mut conn = new();
    conn.handle_bytes(b"GET / HT", t(0));
    conn.handle_timeout(t(9));
    assert!(conn.output().is_empty());
    conn.handle_timeout(t(10));
    assert!(conn.output().starts_with(b"HTTP/1.1 408 "));
    assert!(!conn.is_done());
    conn.handle_timeout(t(20));
    assert!(conn.is_done(), "what it does not read is not kept");
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let mut conn = new();
    conn.handle_bytes(
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        t(0),
    );
    conn.handle_eof(t(0));
    for target in ["/1", "/2"] {
        assert_eq!(conn.poll_request().unwrap().target, target);
        conn.respond(&ok(), t(0));
    }
    take(&mut conn);
    assert!(conn.is_done());
}

#[test]
fn a_leaving_node_finishes_what_it_began() {
    let mut idle = new();
    idle.leave();
    assert!(idle.is_done());

    let mut busy = new();
    busy.handle_bytes(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", t(0));
    busy.poll_request().unwrap();
    busy.leave();
    assert!(!busy.is_done());
    busy.respond(&ok(), t(0));
    assert!(take(&mut busy).contains("connection: close"));
    assert!(busy.is_done());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn how_the_stream_is_cut_changes_nothing(
        parts in prop::collection::vec(part(), 1..8),
        cuts in prop::collection::vec(1usize..200, 1..40),
    ) {
        let stream = parts.concat();
        let whole = run(&[&stream]);
        prop_assert_eq!(&whole, &run(&cut(&stream, &cuts)));
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&whole, &run(&bytes));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        stream in prop::collection::vec(any::<u8>(), 0..2000),
        cuts in prop::collection::vec(1usize..200, 1..20),
    ) {
        run(&cut(&stream, &cuts));
    }

    #[test]
    fn bytes_that_look_like_requests_never_panic(
        pieces in prop::collection::vec(piece(), 0..40),
        cuts in prop::collection::vec(1usize..50, 1..20),
    ) {
        let stream = pieces.concat();
        let whole = run(&[stream.as_bytes()]);
        prop_assert_eq!(whole, run(&cut(stream.as_bytes(), &cuts)));
    }
}

/// A request, good or bad.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        Just(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        Just(b"\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        Just(b"GET /c HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec()),
        Just(b"GET /d HTTP/1.1\r\n\r\n".to_vec()),
        Just(format!("GET /e HTTP/1.1\r\nHost: {}\r\n\r\n", "h".repeat(16300)).into_bytes()),
        Just(format!("GET /f HTTP/1.1\r\nHost: {}\r\n\r\n", "h".repeat(16400)).into_bytes()),
        body.clone().prop_map(|body| {
            let len = body.len();
            let head = format!("PUT /g HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n\r\n");
            [head.as_bytes(), &body].concat()
        }),
        body.prop_map(|body| {
            let mut all = b"PUT /h HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\
                Transfer-Encoding: chunked\r\n\r\n"
                .to_vec();
            for chunk in body.chunks(7) {
                all.extend(format!("{:x};x\r\n", chunk.len()).bytes());
                all.extend(chunk);
                all.extend(b"\r\n");
            }
            all.extend(b"0\r\nTrailer: x\r\n\r\n");
            all
        }),
    ]
}

/// A fragment of a request.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "GET ",
        "PUT ",
        "/x",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "Host: h\r\n",
        "\r\n",
        "\r",
        "\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "Expect: 100-continue\r\n",
        "Connection: close\r\n",
        "abc",
        " ",
        "\t",
        ":",
        "\0",
        "GET /x HTTP/1.1\r\nHost: h\r\n",
        "PUT /x HTTP/1.1\r\nHost: h\r\n",
    ])
}

fn cut<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = stream;
    let mut out = Vec::new();
    for size in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (front, back) = rest.split_at(rest.len().min(*size));
        out.push(front);
        rest = back;
    }
    out
}

/// Feeds the reads to a new connection as `serve` would; what came out of it.
fn run(reads: &[&[u8]]) -> (Vec<Request>, Vec<u8>, bool) {
    let mut conn = new();
    let (mut requests, mut output) = (Vec::new(), Vec::new());
    for read in reads {
        conn.handle_bytes(read, t(0));
        while let Some(request) = conn.poll_request() {
            requests.push(request);
            conn.respond(&ok(), t(0));
        }
        output.extend_from_slice(conn.output());
        conn.handle_sent(conn.output().len());
    }
    (requests, output, conn.is_done())
}

fn ok() -> Response {
    Response::json(200, &serde_json::json!({}))
}

fn new() -> Conn {
    Conn::new(Timing::default(), t(0))
}

fn take(conn: &mut Conn) -> String {
    let out = String::from_utf8(conn.output().to_vec()).unwrap();
    conn.handle_sent(out.len());
    out
}

/// So many seconds into the test.
fn t(secs: u64) -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_secs(secs)
}
