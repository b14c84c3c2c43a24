//! Reading what servers say, and putting refusals into words that can be counted.
//!
//! Invariants: no answer, however wrong or large, does more than fail; a failure's sentence
//! holds no ids, because what differs from peer to peer is left out of what servers say.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Cause, Failure, Response};

/// How much of a server's own words is repeated. Enough for a sentence, and for a line of the
/// report.
const WORDS: usize = 160;

/// The JSON of an answer.
pub(super) fn json<T: DeserializeOwned>(call: &str, body: &str) -> Result<T, Failure> {
    serde_json::from_str(body).map_err(|error| {
        let why = match error.classify() {
            serde_json::error::Category::Data => format!("lacks something: {}", plain(&error)),
            _ => "is no JSON".to_owned(),
        };
        Failure::new(Cause::Incomprehensible, format!("{call}: the answer {why}"))
    })
}

/// Without the place, which differs with the length of ids.
fn plain(error: &serde_json::Error) -> String {
    let said = error.to_string();
    scrub(said.split(" at line ").next().unwrap_or_default())
}

/// The failure of an answer with a status that is none of success.
pub(super) fn refusal(call: &str, response: &Response) -> Failure {
    let status = response.status;
    let what = match words(&response.body) {
        words if words.is_empty() => format!("{call}: {status} {}", reason(status)),
        words => format!("{call}: {status} {words}"),
    };
    Failure::new(cause(status), what)
}

fn cause(status: u16) -> Cause {
    match status {
        401 | 403 => Cause::Unauthorized,
        _ => Cause::Refused,
    }
}

/// A server's reasons: codes of a JSON body, or a short plain text.
fn words(body: &str) -> String {
    match serde_json::from_str::<Value>(body) {
        Ok(Value::Object(fields)) => {
            // The Realtime API's names, those of RFC 9457, and what others use.
            let codes = ["errorCode", "errorSubcode", "error_code", "title"];
            let texts = ["errorDescription", "detail", "message", "error"];
            let text = |name: &&str| fields.get(*name)?.as_str().filter(|text| !text.is_empty());
            let codes: Vec<&str> = codes.iter().filter_map(text).collect();
            let said = texts.iter().find_map(text).map(scrub);
            let codes = line(&codes);
            match said {
                Some(said) if codes.is_empty() => said,
                Some(said) => format!("{codes}: {said}"),
                None => codes,
            }
        }
        // Pages for browsers say nothing that fits a line.
        _ if body.trim_start().starts_with('<') => String::new(),
        _ => scrub(body.trim()),
    }
}

/// Codes as they are, because they are what one looks up; one line, bounded.
pub(super) fn line(codes: &[&str]) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    codes.join(" ").chars().take(WORDS).map(visible).collect()
}

/// Puts `#` for every word with a digit, because ids and counts have them; one line, bounded.
pub(super) fn scrub(text: &str) -> String {
    let in_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() && out.len() < WORDS {
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.push_str(if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
        let mut chars = after.chars();
        if let Some(c) = chars.next() {
            out.push(if c.is_whitespace() || c.is_control() { ' ' } else { c });
        }
        rest = chars.as_str();
    }
    match out.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &out[..end]),
        None => out,
    }
}

/// The failure of an answer that is one, but not complete.
pub(super) fn lacks(call: &str, what: &str) -> Failure {
    Failure::new(Cause::Incomprehensible, format!("{call}: the answer lacks {what}"))
}

/// Names for the statuses one meets without a body.
fn reason(status: u16) -> &'static str {
    match status {
        301..=308 => "(redirected too often, or without a place)",
        400 => "(bad request)",
        401 => "(unauthorized)",
        403 => "(forbidden)",
        404 => "(not found)",
        405 => "(method not allowed)",
        415 => "(unsupported content type)",
        429 => "(too many requests)",
        500 => "(server error)",
        502 => "(bad gateway)",
        503 => "(unavailable)",
        504 => "(gateway timed out)",
        _ => "without a reason",
    }
}

/// An id that a server gave and that becomes part of a URL.
pub(super) fn id(call: &str, text: String) -> Result<String, Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    // Clients of the Realtime API accept up to 128 characters.
    if text.is_empty() || text.len() > 128 || !text.chars().all(fits) {
        let what = format!("{call}: the session's id is none");
        return Err(Failure::new(Cause::Incomprehensible, what));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(status: u16, body: &str) -> Failure {
        refusal("a/b", &Response { status, location: None, body: body.into() })
    }

    #[test]
    fn a_refusal_keeps_status_and_codes_and_loses_ids() {
        let gone = |id: &str| {
            let said = format!("Session appears to be disconnected. (session {id})");
            told(410, &format!(r#"{{"errorCode":"session_error","errorDescription":"{said}"}}"#))
        };
        assert_eq!(gone("00f1"), gone("00f2"));
        let expected = "a/b: 410 session_error: Session appears to be disconnected. (session #)";
        assert_eq!(gone("00f1").what, expected);
        assert_eq!(told(403, "").cause, Cause::Unauthorized);
        assert_eq!(told(503, "").what, "a/b: 503 (unavailable)");
        assert_eq!(told(500, "<html>x</html>").what, "a/b: 500 (server error)");
        assert_eq!(told(404, "no stream cam-17\n").what, "a/b: 404 no stream #");
        let subcode = r#"{"errorCode":"x_y","errorSubcode":"z"}"#;
        assert_eq!(told(406, subcode).what, "a/b: 406 x_y z");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        assert!(id("c", "0af".into()).is_ok());
        for bad in ["", "a/b", "a?b", "a b", "ä", &"a".repeat(129)] {
            assert!(id("c", bad.into()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_refusal_is_one_bounded_line(status in 0u16..1000, body in "\\PC{0,400}") {
            let what = told(status, &body).what;
            prop_assert!(what.len() < 5 * WORDS && !what.contains('\n'), "{what}");
        }

        #[test]
        fn words_with_digits_never_pass(text in "[a-z0-9 ]{0,200}") {
            prop_assert!(!scrub(&text).contains(|c: char| c.is_ascii_digit()));
        }
    }
}
