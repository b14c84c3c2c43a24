//! What the API relies on, case by case.

use super::client::{Brand, Client};
use super::*;
use crate::command::MediaKind;
use crate::media::format::{Codec, Extension};

fn send(kind: MediaKind, ssrc: u32) -> Want {
    Want::Send { kind, spec: spec(ssrc, None) }
}

fn role(mid: &str, role: Role) -> [(String, Role); 1] {
    [(mid.to_owned(), role)]
}

/// The client offers, we answer, the client takes it.
fn exchange(
    negotiator: &mut Negotiator,
    client: &mut Client,
    plan: &[(String, Role)],
) -> Description {
    let text = client.offer();
    let offer = negotiator.read_offer(&text).expect("offer");
    let (answer, _) = negotiator.answer(offer, plan, &local()).expect("answer");
    client.take(&answer);
    check_answer(&parse(&text).expect("offer"), &answer)
}

/// We offer, the client agrees to everything.
fn serve(
    negotiator: &mut Negotiator,
    client: &mut Client,
    wants: &[Want],
) -> (Vec<String>, String) {
    let (offer, mids) = negotiator.offer(wants, &local()).expect("offer");
    check_ours(&offer);
    let answer = client.answer(&offer, |_, wish| Some(wish));
    let (_, rejected) = negotiator.accept_answer(&answer).expect("answer");
    assert_eq!(rejected, []);
    (mids, offer)
}

fn direction(negotiator: &Negotiator, mid: &str) -> Direction {
    negotiator.line(mid).expect("line").direction()
}

#[test]
fn our_mids_are_the_first_free_numbers_in_order() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    client.add_as("1", "audio", Direction::SendOnly);
    client.add_as("cam", "video", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &[]);
    let wants = [send(MediaKind::Video, 1), send(MediaKind::Audio, 3), Want::Data];
    let (mids, _) = serve(&mut negotiator, &mut client, &wants);
    assert_eq!(mids, ["0", "2", "3"]);
    let order: Vec<&str> = negotiator.lines().iter().map(|line| line.mid.as_str()).collect();
    assert_eq!(order, ["1", "cam", "0", "2", "3"]);
}

#[test]
fn a_mid_the_client_once_used_is_never_ours() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    client.add_as("0", "audio", Direction::SendOnly);
    client.add_as("1", "video", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &[]);
    client.stop(1);
    exchange(&mut negotiator, &mut client, &[]);
    assert!(negotiator.lines()[1].stopped);
    let (mids, _) = serve(&mut negotiator, &mut client, &[send(MediaKind::Video, 1)]);
    assert_eq!(mids, ["2"]);
    assert_eq!(negotiator.lines().len(), 2, "the stopped line's index was taken");
    assert_eq!(negotiator.line("1"), None);
}

#[test]
fn the_client_may_put_a_new_mid_where_a_line_was_stopped() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    client.add("audio", Direction::SendOnly);
    client.add("video", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &[]);
    client.stop(0);
    let answer = exchange(&mut negotiator, &mut client, &[]);
    assert_eq!(answer.bundle, Some(vec!["1".to_owned()]));
    assert_eq!(client.add("video", Direction::SendOnly), 0);
    exchange(&mut negotiator, &mut client, &role("2", Role::Receive));
    assert_eq!((negotiator.lines()[0].mid.as_str(), negotiator.lines().len()), ("2", 2));
    assert_eq!(negotiator.lines()[0].kind, LineKind::Video);
    assert_eq!(direction(&negotiator, "2"), Direction::RecvOnly);
}

#[test]
fn closing_is_by_list_of_mids_whatever_the_line_says() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    client.add("audio", Direction::SendOnly);
    client.add("video", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &[]);
    let answer = exchange(&mut negotiator, &mut client, &role("1", Role::Close));
    assert_eq!(answer.sections[1].direction, Direction::Inactive);
    assert_ne!(answer.sections[1].port, 0);
    // It stays closed while others negotiate …
    client.add("audio", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &role("2", Role::Receive));
    assert_eq!(direction(&negotiator, "1"), Direction::Inactive);
    // … until it is published on again.
    exchange(&mut negotiator, &mut client, &role("1", Role::Receive));
    assert_eq!(direction(&negotiator, "1"), Direction::RecvOnly);
    exchange(&mut negotiator, &mut client, &[]);
    assert_eq!(direction(&negotiator, "1"), Direction::RecvOnly);
}

#[test]
fn an_inactive_line_is_closed_and_may_come_back() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Firefox));
    client.add("video", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &[]);
    client.wishes[0] = Direction::Inactive;
    exchange(&mut negotiator, &mut client, &[]);
    assert_eq!(direction(&negotiator, "0"), Direction::Inactive);
    client.wishes[0] = Direction::SendOnly;
    exchange(&mut negotiator, &mut client, &role("0", Role::Receive));
    assert_eq!(direction(&negotiator, "0"), Direction::RecvOnly);
}

#[test]
fn a_pull_closed_by_the_client_can_be_pulled_into_again_by_its_offer() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    serve(&mut negotiator, &mut client, &[send(MediaKind::Video, 1), send(MediaKind::Audio, 3)]);
    assert_eq!(direction(&negotiator, "0"), Direction::SendOnly);
    client.wishes[0] = Direction::Inactive;
    exchange(&mut negotiator, &mut client, &role("0", Role::Close));
    assert_eq!(direction(&negotiator, "0"), Direction::Inactive);
    client.wishes[0] = Direction::RecvOnly;
    let answer = exchange(&mut negotiator, &mut client, &role("0", Role::Send(spec(9, None))));
    assert_eq!(answer.sections[0].direction, Direction::SendOnly);
    assert_eq!(negotiator.lines()[0].sending.as_ref().map(|sending| sending.ssrc), Some(9));
    // The other pull went on unasked.
    assert_eq!(negotiator.lines()[1].sending.as_ref().map(|sending| sending.ssrc), Some(3));
}

#[test]
fn a_free_line_is_reused_only_if_its_client_would_see_a_track() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    client.add("video", Direction::RecvOnly);
    client.add("video", Direction::SendOnly);
    client.add("video", Direction::Inactive);
    exchange(&mut negotiator, &mut client, &[]);
    let (mids, offer) = serve(&mut negotiator, &mut client, &[send(MediaKind::Video, 1)]);
    assert_eq!(mids, ["0"], "recvonly, answered inactive: free");
    assert_eq!(parse(&offer).expect("offer").sections[0].direction, Direction::SendOnly);
    let (mids, _) = serve(&mut negotiator, &mut client, &[send(MediaKind::Video, 3)]);
    assert_eq!(mids, ["3"], "one is in use, the others cannot receive");
    assert_eq!(direction(&negotiator, "1"), Direction::RecvOnly);
}

#[test]
fn a_client_pulls_with_its_own_offer() {
    for brand in [Brand::Chromium, Brand::Firefox] {
        let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(brand));
        client.add("video", Direction::RecvOnly);
        client.add("audio", Direction::SendRecv);
        let text = client.offer();
        let offer = negotiator.read_offer(&text).expect("offer");
        let wanted = codec(Codec::Vp9, "profile-id=0");
        assert!(find(&offer.lines()[0].codecs, &wanted).is_some());
        assert!(find(&offer.lines()[0].codecs, &codec(Codec::H265, "")).is_none());
        let plan = [
            ("0".to_owned(), Role::Send(spec(1, Some(wanted)))),
            ("1".to_owned(), Role::Both(spec(3, None))),
        ];
        let (answer, _) = negotiator.answer(offer, &plan, &local()).expect("answer");
        let answer = check_answer(&parse(&text).expect("offer"), &answer);
        assert_eq!(answer.sections[0].direction, Direction::SendOnly);
        assert_eq!(answer.sections[1].direction, Direction::SendRecv);
        let line = negotiator.line("1").expect("line");
        assert!(line.sending.is_some() && line.receiving.is_some());
    }
}

#[test]
fn publishing_on_the_transceiver_of_a_pull_keeps_the_pull() {
    // What pc.addTrack() does: it takes the first transceiver that never sent.
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    serve(&mut negotiator, &mut client, &[send(MediaKind::Video, 1)]);
    client.wishes[0] = Direction::SendRecv;
    let answer = exchange(&mut negotiator, &mut client, &role("0", Role::Receive));
    assert_eq!(answer.sections[0].direction, Direction::SendRecv);
    assert_eq!(negotiator.lines()[0].sending.as_ref().map(|sending| sending.ssrc), Some(1));
    assert!(negotiator.lines()[0].receiving.is_some());
}

#[test]
fn a_role_must_fit_its_line() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    client.add("video", Direction::SendOnly);
    client.add("audio", Direction::RecvOnly);
    client.add("application", Direction::SendRecv);
    let text = client.offer();
    let mut refused = |plan: &[(String, Role)]| {
        let offer = negotiator.read_offer(&text).expect("offer");
        let error = negotiator.answer(offer, plan, &local()).expect_err("refused");
        assert_eq!(negotiator.signaling(), Signaling::New);
        match error {
            SdpError::Request(error) => error,
            other => panic!("{other}"),
        }
    };
    let error = refused(&role("0", Role::Send(spec(1, None))));
    assert!(matches!(error, BadRequest::CannotSend { .. }));
    let error = refused(&role("1", Role::Receive));
    assert!(matches!(error, BadRequest::CannotReceive { .. }));
    assert_eq!(refused(&role("2", Role::Close)), BadRequest::NotMedia("2".to_owned()));
    assert_eq!(refused(&role("7", Role::Close)), BadRequest::UnknownMid("7".to_owned()));
    let twice = [("0".to_owned(), Role::Receive), ("0".to_owned(), Role::Close)];
    assert_eq!(refused(&twice), BadRequest::PlannedTwice("0".to_owned()));
}

#[test]
fn an_abandoned_offer_leaves_no_trace() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    client.add("video", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &[]);
    let before = negotiator.lines().to_vec();
    let (first, mids) = negotiator.offer(&[send(MediaKind::Audio, 1)], &local()).expect("offer");
    assert_eq!(negotiator.signaling(), Signaling::HaveLocalOffer);
    let busy = |error| error == SdpError::from(BadRequest::HaveLocalOffer);
    assert!(negotiator.read_offer(&client.offer()).is_err_and(busy));
    assert!(negotiator.offer(&[Want::Data], &local()).is_err_and(busy));
    negotiator.abandon_offer();
    assert_eq!((negotiator.lines(), negotiator.signaling()), (&before[..], Signaling::Stable));
    let (second, again) = negotiator.offer(&[send(MediaKind::Audio, 1)], &local()).expect("offer");
    assert_eq!(mids, again);
    // All but the version is the same.
    let rest = |text: &str| text.split_once("s=-").map(|(_, rest)| rest.to_owned());
    assert_eq!(rest(&first), rest(&second));
    assert!(first.starts_with("v=0\r\no=- 0 2 IN IP4 0.0.0.0\r\n"), "{first}");
    assert!(second.starts_with("v=0\r\no=- 0 3 IN IP4 0.0.0.0\r\n"));
    negotiator.abandon_offer();
    let no_offer = |error| error == SdpError::from(BadRequest::NoLocalOffer);
    assert!(negotiator.accept_answer(&first).is_err_and(no_offer));
}

#[test]
fn an_offer_read_before_another_negotiation_is_stale() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    client.add("video", Direction::SendOnly);
    let old = negotiator.read_offer(&client.offer()).expect("offer");
    exchange(&mut negotiator, &mut client, &[]);
    let error = negotiator.answer(old, &[], &local()).expect_err("stale");
    assert_eq!(error, BadRequest::Stale.into());
}

#[test]
fn what_the_client_refuses_is_told_with_its_reason() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Firefox));
    client.add("video", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &[]);
    let h265 = Some(codec(Codec::H265, "profile-id=1"));
    let wants = [
        send(MediaKind::Audio, 1),
        send(MediaKind::Audio, 3),
        Want::Send { kind: MediaKind::Video, spec: spec(5, h265) },
    ];
    let (offer, mids) = negotiator.offer(&wants, &local()).expect("offer");
    let decide = |index: usize, wish| match index {
        1 => None,
        2 => Some(Direction::Inactive),
        _ => Some(wish),
    };
    let answer = client.answer(&offer, decide);
    // A client drops what it does not know.
    let answer: String = answer.split_inclusive("\r\n").filter(|l| !l.contains("H265")).collect();
    let (_, rejected) = negotiator.accept_answer(&answer).expect("answer");
    let rejected: Vec<(&str, RejectedBecause)> =
        rejected.iter().map(|line| (line.mid.as_str(), line.because)).collect();
    assert_eq!(
        rejected,
        [
            (mids[0].as_str(), RejectedBecause::Stopped),
            (mids[1].as_str(), RejectedBecause::Direction(Direction::Inactive)),
            (mids[2].as_str(), RejectedBecause::Codec(Codec::H265)),
        ]
    );
    assert!(negotiator.line(&mids[0]).is_some_and(|line| line.stopped));
    assert_eq!(direction(&negotiator, &mids[1]), Direction::Inactive);
    assert_eq!(direction(&negotiator, &mids[2]), Direction::SendOnly);
}

#[test]
fn our_offer_puts_the_tracks_codec_first_with_its_profile() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    let fmtp = "profile-level-id=42c01e;packetization-mode=1;sprop-parameter-sets=Z0I=";
    let wanted = codec(Codec::H264, fmtp);
    let want = Want::Send { kind: MediaKind::Video, spec: spec(1, Some(wanted.clone())) };
    let (_, offer) = serve(&mut negotiator, &mut client, std::slice::from_ref(&want));
    assert!(offer.contains("m=video 9 UDP/TLS/RTP/SAVPF 108 109 96 97 "), "{offer}");
    assert!(!offer.contains("sprop"));
    let high = codec(Codec::H264, "profile-level-id=f40028;packetization-mode=1");
    let want = Want::Send { kind: MediaKind::Video, spec: spec(3, Some(high)) };
    let (_, offer) = serve(&mut negotiator, &mut client, &[want]);
    let fmtp = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=f40028\r\n";
    assert!(offer.contains(fmtp), "a profile of its own gets a payload type of its own");
    let codecs = &negotiator.lines()[0].sending.as_ref().expect("sends").codecs;
    assert_eq!(find(codecs, &wanted).map(|codec| codec.pt), Some(108));
}

#[test]
fn our_offers_speak_the_clients_payload_types_and_extension_ids() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Firefox));
    client.add("audio", Direction::SendOnly);
    client.add("video", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &[]);
    let wants = [send(MediaKind::Audio, 1), send(MediaKind::Video, 3)];
    let (_, offer) = serve(&mut negotiator, &mut client, &wants);
    let offer = parse(&offer).expect("offer");
    assert_eq!(offer.sections[2].formats, ["109", "0", "8"]);
    assert_eq!(offer.sections[3].formats, ["120", "124", "121", "125", "99", "100"]);
    let sending = |index: usize| negotiator.lines()[index].sending.as_ref().expect("sends");
    assert_eq!(sending(3).extensions.get(Extension::Mid), Some(3));
    assert_eq!(sending(3).extensions.get(Extension::TransportCc), Some(7));
    assert_eq!(sending(3).extensions.get(Extension::Rid), None);
    let ids: Vec<u16> = offer.sections[3].extensions.iter().map(|map| map.id).collect();
    // 1, 2 and 5 mean something else to this client.
    assert!(!ids.contains(&1) && !ids.contains(&2) && !ids.contains(&5), "{ids:?}");
}

#[test]
fn a_publisher_can_be_asked_for_a_track() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    let wants = [
        Want::Receive { kind: MediaKind::Video, both: None },
        Want::Receive { kind: MediaKind::Audio, both: Some(spec(1, None)) },
    ];
    let (mids, offer) = serve(&mut negotiator, &mut client, &wants);
    let offer = parse(&offer).expect("offer");
    assert_eq!(offer.sections[0].direction, Direction::RecvOnly);
    assert_eq!(offer.sections[1].direction, Direction::SendRecv);
    assert_eq!(direction(&negotiator, &mids[0]), Direction::RecvOnly);
    assert_eq!(direction(&negotiator, &mids[1]), Direction::SendRecv);
    let receiving = negotiator.lines()[0].receiving.as_ref().expect("receives");
    assert!(receiving.extensions.get(Extension::Rid).is_some());
}

#[test]
fn the_dtls_role_never_changes() {
    let offer = fixture!("chromium156_a_sendonly_av");
    let passive = offer.replace("setup:actpass", "setup:passive");
    let mut negotiator = Negotiator::new(1);
    let holding = offer.replace("setup:actpass", "setup:holdconn");
    let error = negotiator.read_offer(&holding).expect_err("role");
    assert_eq!(error, BadTransport::DtlsRole("holdconn").into());
    let read = negotiator.read_offer(offer).expect("offer");
    let (answer, remote) = negotiator.answer(read, &[], &local()).expect("answer");
    assert_eq!(answer.matches("a=setup:passive\r\n").count(), 2);
    assert!(!remote.we_are_dtls_client);
    // Later offers of either side are about the association that is up.
    let read = negotiator.read_offer(&passive).expect("offer");
    let (answer, remote) = negotiator.answer(read, &[], &local()).expect("answer");
    assert_eq!(answer.matches("a=setup:active\r\n").count(), 2);
    assert!(!remote.we_are_dtls_client);
    let (ours, _) = negotiator.offer(&[], &local()).expect("offer");
    assert_eq!(ours.matches("a=setup:actpass\r\n").count(), 2);
    negotiator.accept_answer(&passive.replace("sendonly", "inactive")).expect("answer");
}

#[test]
fn an_ice_restart_is_told_and_another_certificate_refused() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    client.add("audio", Direction::SendOnly);
    exchange(&mut negotiator, &mut client, &[]);
    client.restarts = 1;
    let offer = negotiator.read_offer(&client.offer()).expect("offer");
    assert!(offer.transport().ice_restart);
    let (_, remote) = negotiator.answer(offer, &[], &local()).expect("answer");
    assert!(remote.ice_restart);
    assert!(!negotiator.read_offer(&client.offer()).expect("offer").transport().ice_restart);
    let other = client.offer().replace("00:11:22", "00:11:23");
    let error = negotiator.read_offer(&other).expect_err("certificate");
    assert_eq!(error, BadTransport::FingerprintChanged.into());
}

#[test]
fn lines_that_cannot_be_carried_are_refused_and_keep_their_mid() {
    let text = fixture!("chromium156_a_sendonly_av").replace("VP8", "VP0").replace("VP9", "VP0");
    let text = text.replace("H264", "H0").replace("AV1", "AV0");
    let mut negotiator = Negotiator::new(1);
    let offer = negotiator.read_offer(&text).expect("offer");
    assert_eq!(offer.line("1").map(|line| line.codecs.len()), Some(0));
    let error = negotiator.answer(offer.clone(), &role("1", Role::Receive), &local());
    assert_eq!(error, Err(BadRequest::NoCodec("1".to_owned()).into()));
    let (answer, _) = negotiator.answer(offer, &[], &local()).expect("answer");
    assert!(answer.contains("a=group:BUNDLE 0\r\n"));
    assert!(answer.contains("m=video 0 UDP/TLS/RTP/SAVPF 96\r\n"));
    let text = fixture!("chromium156_d_datachannel_only").replace("m=application", "m=text");
    let error = Negotiator::new(1).read_offer(&text).expect_err("nothing");
    assert_eq!(error, BadTransport::NothingUsable.into());
}

#[test]
fn broken_offers_are_refused_by_name_and_change_nothing() {
    let text = fixture!("chromium156_a_sendonly_av");
    let mut negotiator = Negotiator::new(1);
    let offer = negotiator.read_offer(text).expect("offer");
    negotiator.answer(offer, &[], &local()).expect("answer");
    let one_line = text.split("m=video").next().expect("audio").replace("BUNDLE 0 1", "BUNDLE 0");
    let cases = [
        (one_line, "has 1 m-lines but 2 were negotiated"),
        (text.replace("a=mid:0", "a=mid:7").replace("BUNDLE 0", "BUNDLE 7"), "negotiated as \"0\""),
        (text.replace("a=mid:1", "a=mid:0"), "names two m-lines"),
        (text.replace("a=mid:1\r\n", ""), "has no a=mid"),
        (text.replace("a=group:BUNDLE 0 1\r\n", ""), "no a=group:BUNDLE"),
        (text.replace("BUNDLE 0 1", "BUNDLE 0"), "is not in a=group:BUNDLE"),
        (text.replace("BUNDLE 0 1", "BUNDLE 0 1 9"), "which no m-line has"),
        (text.replace("BUNDLE 0 1", "BUNDLE 0 1 0"), "twice"),
        (text.replacen("a=rtcp-mux\r\n", "", 1), "has no a=rtcp-mux"),
        (text.replace(" 111 63", " 128 63"), "payload type \"128\""),
        (text.replace("a=ice-ufrag", "a=x"), "no a=ice-ufrag"),
        (text.replace("sha-256", "sha-1"), "no a=fingerprint:sha-256"),
        (text.replace("m=video", "m=audio"), "changed its media type"),
        ("m=audio".to_owned(), "v=0 first"),
        (String::new(), "v=0 first"),
        ("v=0\r\n".to_owned(), "no m= line"),
        (format!("v=0\r\n{}", "a=x\r\n".repeat(60_000)), "bytes; at most"),
    ];
    let before = negotiator.lines().to_vec();
    for (case, (text, message)) in cases.into_iter().enumerate() {
        let error = negotiator.read_offer(&text).expect_err(message).to_string();
        assert!(error.contains(message), "case {case}: {error}");
    }
    assert_eq!(negotiator.lines(), before);
}

#[test]
fn text_is_read_leniently() {
    let text = fixture!("chromium156_a_sendonly_av");
    for lenient in [text.replace("\r\n", "\n"), text.trim_end().to_owned(), format!("\n{text}\r\n")]
    {
        assert_eq!(parse(&lenient).expect("parses"), parse(text).expect("parses"));
    }
    let one = fixture!("chromium156_h_svc_vp8_L1T3").replace("a=group:BUNDLE 0\r\n", "");
    let mut negotiator = Negotiator::new(1);
    let offer = negotiator.read_offer(&one).expect("one line needs no group");
    let (answer, _) = negotiator.answer(offer, &[], &local()).expect("answer");
    check_answer(&parse(&one).expect("offer"), &answer);
}

#[test]
fn names_of_others_cannot_write_lines_of_their_own() {
    let (mut negotiator, mut client) = (Negotiator::new(1), Client::new(Brand::Chromium));
    let mut evil = spec(1, None);
    evil.track_id = "t\r\na=candidate:6 6 udp 1 203.0.113.6 6 typ host".to_owned();
    evil.cname = String::new();
    let want = Want::Send { kind: MediaKind::Audio, spec: evil };
    let (_, offer) = serve(&mut negotiator, &mut client, &[want]);
    assert!(!offer.contains("\r\na=candidate:6"));
    let inner = fixture!("chromium156_a_sendonly_av").replace("minptime=10", "a\rb");
    assert!(negotiator.read_offer(&inner).is_err());
}
