//! An HTTP connection fed in two pieces, and what its requests mean.
#![no_main]

use std::time::Instant;

use http::conn::Conn;
use http::limits::Timing;
use http::route::route;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let now = Instant::now();
    let mut conn = Conn::new(Timing::default(), now);
    let (first, second) =
        bytes.split_at(bytes.first().map_or(0, |&at| usize::from(at).min(bytes.len())));
    for piece in [first, second] {
        conn.handle_bytes(piece, now);
        while let Some(request) = conn.poll_request() {
            let _ = route(request.method, &request.target);
            conn.respond(&http::problem::Problem::Crowded.response(), now);
        }
    }
});
