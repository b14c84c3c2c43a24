//! From a request body to what is asked of the session.
//!
//! Invariants: what is refused here names the field, in the upstream's words where they are
//! known; what passes is within the bounds of [`crate::limits`], and is all local or all
//! remote. Whether a mid or name exists is the session's to say, per item.
//!
//! Not here: SDP, which is carried as text.

use shards::command::{
    Ask, CloseRequest, Description, Location, MediaKind, Refusal, SdpKind, Simulcast, TrackObject,
    TracksRequest,
};
use shards::ids::SessionId;

use super::model::{Body, Fields};
use crate::limits;
use crate::problem::Problem;
use crate::route::Endpoint;

/// What `endpoint` with `body` asks for.
pub(crate) fn ask(endpoint: Endpoint<'_>, body: &[u8]) -> Result<Ask, Problem> {
    match endpoint {
        Endpoint::Create => {
            let body = Body::parse(body)?;
            Ok(Ask::Create { offer: offer(&body.fields())? })
        }
        Endpoint::Describe { session } => Ok(Ask::Describe { session: id(session)? }),
        Endpoint::Delete { session } => Ok(Ask::Delete { session: id(session)? }),
        Endpoint::NewTracks { session } => {
            let session = id(session)?;
            let body = Body::parse(body)?;
            Ok(Ask::NewTracks { session, request: new_tracks(&body.fields())? })
        }
        Endpoint::Renegotiate { session } => {
            let session = id(session)?;
            let body = Body::parse(body)?;
            let description = description(&body.fields())?
                .ok_or_else(|| invalid("Missing sessionDescription"))?;
            Ok(Ask::Renegotiate { session, description })
        }
        Endpoint::CloseTracks { session } => {
            let session = id(session)?;
            let body = Body::parse(body)?;
            Ok(Ask::CloseTracks { session, request: close_tracks(&body.fields())? })
        }
        Endpoint::UpdateTracks { session } => {
            let session = id(session)?;
            let body = Body::parse(body)?;
            Ok(Ask::UpdateTracks { session, tracks: update_tracks(&body.fields())? })
        }
        Endpoint::Missing(feature) => Err(Problem::Missing(feature)),
    }
}

/// What is no id of ours names no session that lives.
fn id(text: &str) -> Result<SessionId, Problem> {
    text.parse().map_err(|_| {
        let session = text.chars().take(limits::NAME_BYTES).collect();
        Refusal::Gone { session, publisher: false }.into()
    })
}

fn new_tracks(body: &Fields<'_>) -> Result<TracksRequest, Problem> {
    let offer = offer(body)?;
    let auto_discover = body.flag("autoDiscover")?;
    let items = tracks(body)?;
    if items.is_empty() && offer.is_none() {
        return Err(invalid("Expecting at least 1 track in the request"));
    }
    if auto_discover && offer.is_none() {
        return Err(invalid("autoDiscover needs a sessionDescription"));
    }
    if auto_discover && !items.is_empty() {
        return Err(invalid("autoDiscover excludes tracks"));
    }
    let mut tracks = Vec::with_capacity(items.len());
    for item in &items {
        let track = track(item)?;
        match track.location {
            Some(Location::Local) => needs_of_push(item, &track, offer.is_some())?,
            Some(Location::Remote) => needs_of_pull(item, &track)?,
            None => return Err(missing(item, "location")),
        }
        tracks.push(track);
    }
    if tracks.windows(2).any(|pair| pair[0].location != pair[1].location) {
        return Err(invalid("Pushing and pulling tracks in one request is unsupported"));
    }
    Ok(TracksRequest { offer, tracks, auto_discover })
}

fn needs_of_push(item: &Fields<'_>, track: &TrackObject, offered: bool) -> Result<(), Problem> {
    if track.mid.is_none() && offered {
        return Err(missing(item, "mid"));
    }
    if track.track_name.is_none() {
        return Err(missing(item, "trackName"));
    }
    // Without an offer and a transceiver, the m-line is ours to make.
    if track.mid.is_none() && track.kind.is_none() {
        return Err(missing(item, "kind"));
    }
    Ok(())
}

fn needs_of_pull(item: &Fields<'_>, track: &TrackObject) -> Result<(), Problem> {
    if track.session_id.is_none() {
        return Err(missing(item, "sessionId"));
    }
    if track.track_name.is_none() {
        return Err(missing(item, "trackName"));
    }
    Ok(())
}

fn close_tracks(body: &Fields<'_>) -> Result<CloseRequest, Problem> {
    let offer = offer(body)?;
    let force = body.flag("force")?;
    let items = tracks(body)?;
    if items.is_empty() {
        return Err(invalid("Expecting at least 1 track in the request"));
    }
    let mid = |item: &Fields<'_>| {
        let mid = name(item, "mid")?.ok_or_else(|| missing(item, "mid"))?;
        Ok(mid)
    };
    let mids = items.iter().map(mid).collect::<Result<_, Problem>>()?;
    Ok(CloseRequest { mids, force, offer })
}

fn update_tracks(body: &Fields<'_>) -> Result<Vec<TrackObject>, Problem> {
    let items = tracks(body)?;
    if items.is_empty() {
        return Err(invalid("Expecting at least 1 track in the request"));
    }
    let read = |item: &Fields<'_>| {
        let track = track(item)?;
        let by_name = track.session_id.is_some() && track.track_name.is_some();
        if track.mid.is_none() && !by_name {
            return Err(missing(item, "mid"));
        }
        Ok(track)
    };
    items.iter().map(read).collect()
}

fn tracks<'a>(body: &Fields<'a>) -> Result<Vec<Fields<'a>>, Problem> {
    let items = body.objects("tracks")?;
    if items.len() > limits::TRACKS_PER_REQUEST {
        let most = limits::TRACKS_PER_REQUEST;
        return Err(invalid(format!("Expecting at most {most} track in the request")));
    }
    Ok(items)
}

fn track(item: &Fields<'_>) -> Result<TrackObject, Problem> {
    let location = match item.text("location")? {
        None => None,
        Some("local") => Some(Location::Local),
        Some("remote") => Some(Location::Remote),
        Some(_) => return Err(unexpected(item, "location", "local or remote")),
    };
    let kind = match item.text("kind")? {
        None | Some("") => None,
        Some("audio") => Some(MediaKind::Audio),
        Some("video") => Some(MediaKind::Video),
        Some(_) => return Err(unexpected(item, "kind", "audio or video")),
    };
    let simulcast = item.object("simulcast")?.map(|object| simulcast(&object)).transpose()?;
    Ok(TrackObject {
        location,
        mid: name(item, "mid")?,
        session_id: name(item, "sessionId")?,
        track_name: name(item, "trackName")?,
        bidirectional: item.flag("bidirectionalMediaStream")?,
        kind,
        simulcast,
    })
}

fn simulcast(object: &Fields<'_>) -> Result<Simulcast, Problem> {
    let text = |field| bounded(object, field);
    Ok(Simulcast {
        preferred_rid: text("preferredRid")?,
        priority_ordering: text("priorityOrdering")?,
        rid_not_available: text("ridNotAvailable")?,
    })
}

/// The offer of a call that takes no answer.
fn offer(body: &Fields<'_>) -> Result<Option<Description>, Problem> {
    match description(body)? {
        Some(Description { kind: SdpKind::Answer, .. }) => {
            Err(invalid("sessionDescription.type=offer is expected"))
        }
        offer => Ok(offer),
    }
}

fn description(body: &Fields<'_>) -> Result<Option<Description>, Problem> {
    let Some(object) = body.object("sessionDescription")? else { return Ok(None) };
    let kind = match object.text("type")? {
        Some("offer") => SdpKind::Offer,
        Some("answer") => SdpKind::Answer,
        Some(_) => return Err(unexpected(&object, "type", "offer or answer")),
        None => return Err(missing(&object, "type")),
    };
    let sdp = object.text("sdp")?.ok_or_else(|| missing(&object, "sdp"))?;
    Ok(Some(Description { kind, sdp: sdp.to_owned() }))
}

/// A name or id; empty is absent.
fn name(item: &Fields<'_>, field: &str) -> Result<Option<String>, Problem> {
    Ok(bounded(item, field)?.filter(|text| !text.is_empty()))
}

fn bounded(item: &Fields<'_>, field: &str) -> Result<Option<String>, Problem> {
    match item.text(field)? {
        Some(text) if text.len() > limits::NAME_BYTES => {
            let most = limits::NAME_BYTES;
            Err(invalid(format!("{}: longer than {most} bytes", item.name(field))))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

fn missing(item: &Fields<'_>, field: &str) -> Problem {
    let what = if item.path().starts_with("tracks") { "track" } else { "sessionDescription" };
    invalid(format!("{}: Missing {field} in {what}", item.path()))
}

fn unexpected(item: &Fields<'_>, field: &str, expected: &str) -> Problem {
    invalid(format!("{}: {expected} is expected", item.name(field)))
}

fn invalid(what: impl Into<String>) -> Problem {
    Problem::Invalid(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "0000000000000000000000000000000a";

    #[test]
    fn what_is_wrong_is_named() {
        let many = format!("{{\"tracks\":[{}]}}", vec!["{}"; 65].join(","));
        let offered = r#""sessionDescription":{"type":"offer","sdp":"v=0"}"#;
        let table = [
            ("{}".into(), "Expecting at least 1 track in the request"),
            (many, "Expecting at most 64 track in the request"),
            (r#"{"tracks":[{}]}"#.into(), "tracks[0]: Missing location in track"),
            (
                format!(r#"{{{offered},"tracks":[{{"location":"local","trackName":"a"}}]}}"#),
                "tracks[0]: Missing mid in track",
            ),
            (
                format!(
                    r#"{{{offered},"tracks":[{{"location":"local","mid":"","trackName":"a"}}]}}"#
                ),
                "tracks[0]: Missing mid in track",
            ),
            (
                r#"{"tracks":[{"location":"local","trackName":"a"}]}"#.into(),
                "tracks[0]: Missing kind in track",
            ),
            (
                r#"{"tracks":[{"location":"remote","trackName":"a"}]}"#.into(),
                "tracks[0]: Missing sessionId in track",
            ),
            (
                r#"{"tracks":[{"location":"remote","sessionId":"s","trackName":"a"},
                    {"location":"local","mid":"1","trackName":"b"}]}"#
                    .into(),
                "Pushing and pulling tracks in one request is unsupported",
            ),
            (
                r#"{"sessionDescription":{"type":"answer","sdp":""}}"#.into(),
                "sessionDescription.type=offer is expected",
            ),
            (
                r#"{"autoDiscover":true,"tracks":[{}]}"#.into(),
                "autoDiscover needs a sessionDescription",
            ),
            (
                format!(
                    r#"{{"tracks":[{{"location":"local","trackName":"{}"}}]}}"#,
                    "a".repeat(257)
                ),
                "tracks[0].trackName: longer than 256 bytes",
            ),
            (
                r#"{"tracks":[{"location":"nowhere"}]}"#.into(),
                "tracks[0].location: local or remote is expected",
            ),
        ];
        for (body, expected) in table {
            let got = ask(Endpoint::NewTracks { session: SESSION }, body.as_bytes());
            assert_eq!(got, Err(Problem::Invalid(expected.into())), "{body}");
        }
        let close = ask(Endpoint::CloseTracks { session: SESSION }, br#"{"tracks":[{"mid":""}]}"#);
        assert_eq!(close, Err(Problem::Invalid("tracks[0]: Missing mid in track".into())));
        let renegotiate = ask(Endpoint::Renegotiate { session: SESSION }, b"");
        assert_eq!(renegotiate, Err(Problem::Invalid("Missing sessionDescription".into())));
    }

    #[test]
    fn fields_of_the_wrong_type_are_named() {
        let table = [
            (r#"[]"#, "The body is not a JSON object"),
            (r#"{"tracks":{}}"#, "tracks: expected an array, got an object"),
            (r#"{"tracks":[1]}"#, "tracks[0]: expected an object, got a number"),
            (r#"{"tracks":[{"mid":5}]}"#, "tracks[0].mid: expected a string, got a number"),
            (
                r#"{"sessionDescription":{"type":"offer","sdp":[]}}"#,
                "sessionDescription.sdp: expected a string, got an array",
            ),
            (r#"{"autoDiscover":"yes"}"#, "autoDiscover: expected a boolean, got a string"),
            (
                r#"{"tracks":[{"simulcast":{"preferredRid":1}}]}"#,
                "tracks[0].simulcast.preferredRid: expected a string, got a number",
            ),
        ];
        for (body, expected) in table {
            let got = ask(Endpoint::NewTracks { session: SESSION }, body.as_bytes());
            assert_eq!(got, Err(Problem::Undecodable(expected.into())), "{body}");
        }
        let broken = ask(Endpoint::Create, b"{\"a\":\xff}");
        assert!(matches!(broken, Err(Problem::Undecodable(_))), "{broken:?}");
        let deep = "[".repeat(100_000);
        assert!(matches!(ask(Endpoint::Create, deep.as_bytes()), Err(Problem::Undecodable(_))));
    }

    #[test]
    fn what_clients_send_beside_the_point_is_ignored() {
        for body in ["", "  \r\n", "null", "{}", r#"{"mode":"buffer","sessionDescription":null}"#] {
            let got = ask(Endpoint::Create, body.as_bytes());
            assert_eq!(got, Ok(Ask::Create { offer: None }), "{body:?}");
        }
        let body = br#"{"tracks":[{"location":"remote","sessionId":"p","trackName":"t","mid":"",
            "x":[1],"simulcast":{"preferredRid":"","fallbackStrategy":"leastBandwidth"}}]}"#;
        let Ok(Ask::UpdateTracks { tracks, .. }) =
            ask(Endpoint::UpdateTracks { session: SESSION }, body)
        else {
            panic!("an update without mid but with a name is one");
        };
        assert_eq!(tracks[0].mid, None);
        assert_eq!(tracks[0].simulcast.as_ref().unwrap().preferred_rid.as_deref(), Some(""));
    }

    #[test]
    fn an_id_that_is_none_of_ours_is_gone() {
        let got = ask(Endpoint::Describe { session: "xyz" }, b"");
        let gone = Refusal::Gone { session: "xyz".into(), publisher: false };
        assert_eq!(got, Err(gone.into()));
    }
}
