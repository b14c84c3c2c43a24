//! From method and path to what is meant.
//!
//! Invariants: pure; the query is ignored but for `thirdparty`, because clients append what
//! they like; the API is found under any prefix, by its `apps` segment.
//!
//! Not here: who may, and what the body says.

use crate::problem::Problem;
use crate::request::Method;

/// What is asked for. Texts are as in the path, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// May a page of another origin ask?
    Preflight,
    Health,
    Metrics,
    /// What this node knows of its cluster.
    Cluster,
    /// A file of the demo, by its name; the page is the empty name.
    Demo(&'a str),
    DemoConfig,
    Api {
        app: &'a str,
        endpoint: Endpoint<'a>,
    },
}

/// One operation on an application's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint<'a> {
    Create,
    Describe {
        session: &'a str,
    },
    Delete {
        session: &'a str,
    },
    NewTracks {
        session: &'a str,
    },
    Renegotiate {
        session: &'a str,
    },
    CloseTracks {
        session: &'a str,
    },
    UpdateTracks {
        session: &'a str,
    },
    /// Known to the Realtime API, or planned, and not built; the feature's name.
    Missing(&'static str),
}

impl<'a> Endpoint<'a> {
    pub fn session(&self) -> Option<&'a str> {
        match *self {
            Self::Create | Self::Missing(_) => None,
            Self::Describe { session }
            | Self::Delete { session }
            | Self::NewTracks { session }
            | Self::Renegotiate { session }
            | Self::CloseTracks { session }
            | Self::UpdateTracks { session } => Some(session),
        }
    }
}

/// Finds what `target`, a path or an absolute URI, means with `method`.
pub fn route(method: Method, target: &str) -> Result<Route<'_>, Problem> {
    let (path, query) = split(target).ok_or(Problem::NoSuchEndpoint)?;
    let segments: Vec<&str> =
        path.split('/').filter(|segment| !segment.is_empty()).take(SEGMENTS + 1).collect();
    if segments.len() > SEGMENTS {
        return Err(Problem::NoSuchEndpoint);
    }
    // The last one: a prefix may itself contain `apps`, what follows it never does.
    if let Some(at) = segments.iter().rposition(|segment| *segment == "apps") {
        return api(method, &segments[at + 1..], query);
    }
    if method == Method::Options {
        return Ok(Route::Preflight);
    }
    let found = match segments.as_slice() {
        [] => Route::Demo(""),
        ["healthz"] => Route::Health,
        ["metrics"] => Route::Metrics,
        ["v1", "cluster"] => Route::Cluster,
        ["demo", "config.json"] => Route::DemoConfig,
        ["demo", file] => Route::Demo(file),
        ["v1", "turn", ..] | ["turn", ..] => return Err(Problem::Missing("TURN credentials")),
        ["whip", ..] => return Err(Problem::Missing("WHIP")),
        ["whep", ..] => return Err(Problem::Missing("WHEP")),
        _ => return Err(Problem::NoSuchEndpoint),
    };
    match method {
        Method::Get | Method::Head => Ok(found),
        Method::Post | Method::Put | Method::Delete | Method::Options | Method::Other => {
            Err(Problem::Method("GET, HEAD"))
        }
    }
}

fn api<'a>(method: Method, segments: &[&'a str], query: &str) -> Result<Route<'a>, Problem> {
    if method == Method::Options {
        return Ok(Route::Preflight);
    }
    let [app, rest @ ..] = segments else { return Err(Problem::NoSuchEndpoint) };
    let endpoint = match *rest {
        ["sessions", "new"] => {
            only(method, Method::Post, "POST, OPTIONS")?;
            match asks_third_party(query) {
                true => Endpoint::Missing("thirdparty sessions"),
                false => Endpoint::Create,
            }
        }
        ["sessions", session] => match method {
            Method::Get | Method::Head => Endpoint::Describe { session },
            Method::Delete => Endpoint::Delete { session },
            Method::Post | Method::Put | Method::Options | Method::Other => {
                return Err(Problem::Method("GET, HEAD, DELETE, OPTIONS"));
            }
        },
        ["sessions", session, "tracks", "new"] => {
            only(method, Method::Post, "POST, OPTIONS")?;
            Endpoint::NewTracks { session }
        }
        ["sessions", session, "renegotiate"] => {
            only(method, Method::Put, "PUT, OPTIONS")?;
            Endpoint::Renegotiate { session }
        }
        ["sessions", session, "tracks", "close"] => {
            only(method, Method::Put, "PUT, OPTIONS")?;
            Endpoint::CloseTracks { session }
        }
        ["sessions", session, "tracks", "update"] => {
            only(method, Method::Put, "PUT, OPTIONS")?;
            Endpoint::UpdateTracks { session }
        }
        ["sessions", _, "datachannels", ..] => Endpoint::Missing("data channels"),
        ["adapters", ..] => Endpoint::Missing("media adapters"),
        ["whip", ..] => Endpoint::Missing("WHIP"),
        ["whep", ..] => Endpoint::Missing("WHEP"),
        _ => return Err(Problem::NoSuchEndpoint),
    };
    Ok(Route::Api { app, endpoint })
}

fn only(method: Method, wanted: Method, allow: &'static str) -> Result<(), Problem> {
    if method == wanted { Ok(()) } else { Err(Problem::Method(allow)) }
}

/// Path and query of a target: `/path?query`, or the same after `http://host`.
fn split(target: &str) -> Option<(&str, &str)> {
    let origin_form = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    if !origin_form.starts_with(['/', '?']) && origin_form != "*" {
        return None;
    }
    Some(origin_form.split_once('?').unwrap_or((origin_form, "")))
}

fn asks_third_party(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "thirdparty" | "thirdparty=true" | "thirdparty=1"))
}

/// More segments than any endpoint under any sensible prefix.
const SEGMENTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use Method::{Delete, Get, Head, Options, Post, Put};

    #[test]
    fn the_api_is_found_under_any_prefix_and_query() {
        let create = Ok(Route::Api { app: "a1", endpoint: Endpoint::Create });
        for target in [
            "/v1/apps/a1/sessions/new",
            "/apps/a1/sessions/new",
            "/foo/bar/v1/apps/a1/sessions/new",
            "/apps/x/v1/apps/a1/sessions/new",
            "/v1/apps/a1/sessions/new?",
            "/v1/apps/a1/sessions/new?correlationId=x&streamDebug",
            "/v1/apps/a1/sessions/new?thirdparty=false",
            "/v1/apps/a1/sessions/new/",
            "//v1/apps/a1/sessions/new",
            "https://rtc.example:443/v1/apps/a1/sessions/new?x=http://y/apps",
        ] {
            assert_eq!(route(Post, target), create, "{target}");
        }
    }

    #[test]
    fn every_endpoint_takes_its_method_and_names_it_otherwise() {
        let session = "s1";
        let table = [
            ("", Get, Endpoint::Describe { session }),
            ("", Head, Endpoint::Describe { session }),
            ("", Delete, Endpoint::Delete { session }),
            ("/tracks/new", Post, Endpoint::NewTracks { session }),
            ("/renegotiate", Put, Endpoint::Renegotiate { session }),
            ("/tracks/close", Put, Endpoint::CloseTracks { session }),
            ("/tracks/update", Put, Endpoint::UpdateTracks { session }),
            ("/datachannels/new", Post, Endpoint::Missing("data channels")),
        ];
        for (path, method, endpoint) in table {
            let target = format!("/v1/apps/a1/sessions/s1{path}");
            assert_eq!(route(method, &target), Ok(Route::Api { app: "a1", endpoint }), "{target}");
            assert_eq!(route(Options, &target), Ok(Route::Preflight));
        }
        let put = route(Put, "/v1/apps/a1/sessions/s1/tracks/new");
        assert_eq!(put, Err(Problem::Method("POST, OPTIONS")));
        assert_eq!(route(Get, "/metrics?x"), Ok(Route::Metrics));
        assert_eq!(route(Get, "/v1/cluster"), Ok(Route::Cluster));
        for target in ["/healthz", "/metrics", "/v1/cluster"] {
            assert_eq!(route(Post, target), Err(Problem::Method("GET, HEAD")));
        }
    }

    #[test]
    fn what_is_planned_is_told_from_what_is_unknown() {
        let third_party = route(Post, "/apps/a1/sessions/new?correlationId=x&thirdparty=true");
        let endpoint = Endpoint::Missing("thirdparty sessions");
        assert_eq!(third_party, Ok(Route::Api { app: "a1", endpoint }));
        let turn = route(Post, "/v1/turn/keys/k/credentials/generate-ice-servers");
        assert_eq!(turn, Err(Problem::Missing("TURN credentials")));
        for target in ["/nothing", "/v1/apps", "/v1/apps/a1", "/v1/apps/a1/x", "host:443"] {
            assert_eq!(route(Get, target), Err(Problem::NoSuchEndpoint), "{target}");
        }
        let deep = format!("{}/apps/a1/sessions/s1", "/x".repeat(SEGMENTS));
        assert_eq!(route(Get, &deep), Err(Problem::NoSuchEndpoint));
        assert_eq!(route(Get, "/"), Ok(Route::Demo("")));
        assert_eq!(route(Get, "/?session=x"), Ok(Route::Demo("")));
        assert_eq!(route(Get, "/demo/config.json"), Ok(Route::DemoConfig));
    }
}
