//! Recorded offers and answers of real clients.

use super::*;

const OFFERS: &[(&str, &str)] = &[
    ("chromium a", fixture!("chromium156_a_sendonly_av")),
    ("chromium b", fixture!("chromium156_b_simulcast_3rids")),
    ("chromium c", fixture!("chromium156_c_recvonly_av")),
    ("chromium d", fixture!("chromium156_d_datachannel_only")),
    ("chromium e", fixture!("chromium156_e_sendrecv_av_dc_all_codecs")),
    ("chromium f", fixture!("chromium156_f_sendonly_trackonly_no_stream")),
    ("chromium g", fixture!("chromium156_g_two_video_two_audio")),
    ("chromium h av1", fixture!("chromium156_h_svc_av1_L1T3")),
    ("chromium h vp8", fixture!("chromium156_h_svc_vp8_L1T3")),
    ("chromium h vp9", fixture!("chromium156_h_svc_vp9_L3T3_KEY")),
    ("chromium i", fixture!("chromium156_i_bundle_balanced_nomax")),
    ("chromium k", fixture!("chromium156_k_reoffer_icerestart_added_mline")),
    ("chromium l", fixture!("chromium156_l_reoffer_stopped_mline")),
    ("firefox a", fixture!("firefox153_a_sendonly_av")),
    ("firefox b", fixture!("firefox153_b_simulcast_3rids")),
    ("firefox c", fixture!("firefox153_c_recvonly_av")),
    ("firefox d", fixture!("firefox153_d_datachannel_only")),
    ("firefox e", fixture!("firefox153_e_sendrecv_av_dc_all_codecs")),
    ("firefox f", fixture!("firefox153_f_sendonly_trackonly_no_stream")),
    ("firefox g", fixture!("firefox153_g_two_video_two_audio")),
    ("firefox h av1", fixture!("firefox153_h_svc_av1_L1T3")),
    ("firefox h vp8", fixture!("firefox153_h_svc_vp8_L1T3")),
    ("firefox h vp9", fixture!("firefox153_h_svc_vp9_L3T3_KEY")),
    ("firefox i", fixture!("firefox153_i_bundle_balanced_nomax")),
    ("firefox k", fixture!("firefox153_k_reoffer_icerestart_added_mline")),
    ("firefox l", fixture!("firefox153_l_reoffer_stopped_mline")),
    ("aiortc", fixture!("aiortc1.16_offer_default")),
    ("aiortc h264", fixture!("aiortc1.16_offer_video_H264")),
    ("gstreamer h264", fixture!("gstreamer1.22_webrtcbin_offer_h264")),
    ("gstreamer vp8", fixture!("gstreamer1.22_webrtcbin_offer_vp8")),
    ("eyewhip", fixture!("whip_offer_eyewhip")),
    ("eyewhep", fixture!("whep_offer_eyewhep")),
    ("whipclientsink", fixture!("whip_offer_gst_whipclientsink_0.13.7")),
    ("pyav active", fixture!("whip_offer_pyav_active")),
];

#[test]
fn every_recorded_offer_is_answered() {
    for (name, text) in OFFERS {
        let offer = parse(text).expect(name);
        let mut negotiator = Negotiator::new(7);
        let read = negotiator.read_offer(text).expect(name);
        let (answer, remote) = negotiator.answer(read, &[], &local()).expect(name);
        let answer = check_answer(&offer, &answer);
        assert!(!remote.ice_restart);
        for ((offered, answered), line) in
            offer.sections.iter().zip(&answer.sections).zip(negotiator.lines())
        {
            assert_eq!(line.stopped, offered.is_stopped(), "{name}");
            assert_eq!(line.sending, None, "{name}");
            if line.kind == LineKind::Application {
                assert_eq!(answered.sctp_port, Some(5000));
                assert_eq!(answered.max_message_size, Some(262_144));
                assert!(line.data.is_some(), "{name}");
            } else if !line.stopped {
                assert_eq!(line.receiving.is_some(), offered.direction.sends(), "{name}");
                assert_eq!(answered.direction.receives(), offered.direction.sends(), "{name}");
            }
        }
    }
}

#[test]
fn every_recorded_offer_that_receives_can_be_sent_to() {
    for (name, text) in OFFERS {
        let offer = parse(text).expect(name);
        let mut negotiator = Negotiator::new(7);
        let read = negotiator.read_offer(text).expect(name);
        let takes = |l: &&OfferedLine| {
            l.kind != LineKind::Application && !l.stopped && l.direction.receives()
        };
        let plan: Vec<(String, Role)> = read
            .lines()
            .iter()
            .filter(takes)
            .map(|l| (l.mid.clone(), Role::Send(spec(1000 + 10 * l.index as u32, None))))
            .collect();
        let (answer, _) = negotiator.answer(read, &plan, &local()).expect(name);
        let answer = check_answer(&offer, &answer);
        for (mid, _) in &plan {
            let line = negotiator.line(mid).expect(name);
            let sending = line.sending.as_ref().expect(name);
            assert_eq!((line.receiving.as_ref(), sending.cname.as_str()), (None, "publisher"));
            let section = &answer.sections[line.index];
            assert_eq!(section.direction, Direction::SendOnly);
            let track = format!("track{}", sending.ssrc);
            assert_eq!(section.msid, Some(("stream".to_owned(), track)));
            let ssrcs: Vec<u32> = section.ssrcs.iter().map(|line| line.ssrc).collect();
            let repaired = sending.codecs.iter().any(|codec| codec.rtx_pt.is_some());
            assert_eq!(sending.rtx_ssrc, repaired.then_some(sending.ssrc + 1));
            let expected: Vec<u32> =
                [Some(sending.ssrc), sending.rtx_ssrc].into_iter().flatten().collect();
            assert_eq!(ssrcs, expected);
            assert_eq!(section.groups.len(), usize::from(repaired));
        }
    }
}

#[test]
fn recorded_answers_are_accepted_by_a_matching_offer() {
    // The offers these answer were audio, video and data, all sendonly.
    let answers = [
        ("chromium j", fixture!("chromium156_j_answer_to_sendonly_av_dc"), 111, 96),
        ("firefox m", fixture!("firefox153_m_answer_to_chromium_sendonly_av_dc"), 111, 96),
    ];
    for (name, text, audio_pt, video_pt) in answers {
        let mut negotiator = Negotiator::new(7);
        let wants = [
            Want::Send { kind: crate::command::MediaKind::Audio, spec: spec(10, None) },
            Want::Send { kind: crate::command::MediaKind::Video, spec: spec(20, None) },
            Want::Data,
        ];
        let (_, mids) = negotiator.offer(&wants, &local()).expect(name);
        assert_eq!(mids, ["0", "1", "2"]);
        let (remote, rejected) = negotiator.accept_answer(text).expect(name);
        assert_eq!(rejected, [], "{name}");
        assert!(text.contains(&remote.ufrag));
        let sending = |mid| negotiator.line(mid).and_then(|line| line.sending.clone()).expect(name);
        assert_eq!(sending("0").codecs[0].pt, audio_pt, "{name}");
        assert_eq!(sending("1").codecs[0].pt, video_pt, "{name}");
        assert_eq!(sending("1").codecs[0].rtx_pt, Some(97), "{name}");
        assert!(sending("1").codecs[0].feedback.nack);
        assert!(negotiator.line("2").is_some_and(|line| line.data.is_some()));
    }
}

#[test]
fn a_recorded_answer_that_took_other_payload_types_carries_nothing() {
    // Answers to Firefox's offer: 109 and 120, which ours do not have.
    let text = fixture!("chromium156_m_answer_to_firefox_sendonly_av_dc");
    let mut negotiator = Negotiator::new(7);
    let audio =
        |ssrc| Want::Send { kind: crate::command::MediaKind::Audio, spec: spec(ssrc, None) };
    let video = Want::Send { kind: crate::command::MediaKind::Video, spec: spec(20, None) };
    negotiator.offer(&[audio(10), video, Want::Data], &local()).expect("offer");
    let (_, rejected) = negotiator.accept_answer(text).expect("answer");
    // PCMU and PCMA have the same payload types everywhere.
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].mid.as_str(), rejected[0].because), ("1", RejectedBecause::NoCodec));
    assert_eq!(negotiator.lines()[1].sending, None);
}

#[test]
fn recorded_renegotiations_of_browsers_are_followed() {
    for (first, second) in [
        (
            fixture!("chromium156_k_reoffer_icerestart_added_mline"),
            fixture!("chromium156_l_reoffer_stopped_mline"),
        ),
        (
            fixture!("firefox153_k_reoffer_icerestart_added_mline"),
            fixture!("firefox153_l_reoffer_stopped_mline"),
        ),
    ] {
        let mut negotiator = Negotiator::new(7);
        let offer = negotiator.read_offer(first).expect("first");
        negotiator.answer(offer, &[], &local()).expect("first");
        let offer = negotiator.read_offer(second).expect("second");
        assert!(offer.lines()[0].stopped);
        let (answer, _) = negotiator.answer(offer, &[], &local()).expect("second");
        // The line that carried the transport is gone; candidates moved (trap 7).
        let answer = check_answer(&parse(second).expect("second"), &answer);
        assert_eq!(answer.bundle, Some(vec!["1".to_owned()]));
        assert_eq!(answer.sections[0].port, 0);
        assert_eq!(answer.sections[0].mid.as_deref(), Some("0"));
        assert!(negotiator.lines()[0].stopped);
    }
}

#[test]
fn simulcast_of_browsers_is_answered_in_their_order() {
    for text in
        [fixture!("chromium156_b_simulcast_3rids"), fixture!("firefox153_b_simulcast_3rids")]
    {
        let mut negotiator = Negotiator::new(7);
        let offer = negotiator.read_offer(text).expect("offer");
        assert_eq!(offer.lines()[1].rids, ["f", "h", "q"]);
        let (answer, _) = negotiator.answer(offer, &[], &local()).expect("answer");
        assert!(answer.contains("a=rid:f recv\r\na=rid:h recv\r\na=rid:q recv\r\n"));
        assert!(answer.contains("a=simulcast:recv f;h;q\r\n"));
        let receiving = negotiator.lines()[1].receiving.as_ref().expect("receives");
        assert_eq!(receiving.rids, ["f", "h", "q"]);
        let extensions = &receiving.extensions;
        assert!(extensions.get(crate::media::format::Extension::Rid).is_some());
        assert!(extensions.get(crate::media::format::Extension::RepairedRid).is_some());
        // A repeat of the line keeps the layers.
        let want = Want::Send { kind: crate::command::MediaKind::Audio, spec: spec(1, None) };
        let (ours, _) = negotiator.offer(&[want], &local()).expect("offer");
        assert!(ours.contains("a=simulcast:recv f;h;q\r\n"));
    }
}

#[test]
fn firefox_pairs_of_ssrcs_are_read() {
    let mut negotiator = Negotiator::new(7);
    let offer = negotiator.read_offer(fixture!("firefox153_b_simulcast_3rids")).expect("offer");
    assert_eq!(
        offer.lines()[1].msid,
        Some((
            "{aafb8dd7-e4f6-4d54-9ddb-245d0e7aa5b4}".to_owned(),
            "{7d223404-ac23-4174-a025-ba0d622aab11}".to_owned()
        ))
    );
    negotiator.answer(offer, &[], &local()).expect("answer");
    let receiving = negotiator.lines()[1].receiving.as_ref().expect("receives");
    assert_eq!(
        receiving.ssrcs,
        [
            (1_468_092_417, Some(3_235_617_327)),
            (2_280_216_420, Some(1_590_064_981)),
            (1_549_394_524, Some(849_346_844))
        ]
    );
    // playout-delay was offered as recvonly: nothing of it comes from the client.
    let delay = crate::media::format::Extension::PlayoutDelay;
    assert_eq!(receiving.extensions.get(delay), None);
}

#[test]
fn h264_is_answered_with_the_offered_profiles() {
    let offer = fixture!("chromium156_a_sendonly_av");
    let mut negotiator = Negotiator::new(7);
    let read = negotiator.read_offer(offer).expect("offer");
    let (answer, _) = negotiator.answer(read, &[], &local()).expect("answer");
    for line in offer.lines().filter(|line| line.contains("profile-level-id")) {
        assert!(answer.contains(&format!("{line}\r\n")), "{line}");
    }
    assert!(answer.contains("a=fmtp:63 111/111\r\n"));
    assert!(!answer.contains("ulpfec"), "what is not forwarded is not answered");
    assert!(!answer.contains("sprop-"));
}

#[test]
fn a_client_that_will_only_be_the_dtls_server_gets_its_way() {
    let mut negotiator = Negotiator::new(7);
    let read = negotiator.read_offer(fixture!("whip_offer_pyav")).expect("offer");
    let (answer, remote) = negotiator.answer(read, &[], &local()).expect("answer");
    assert!(remote.we_are_dtls_client);
    assert!(answer.contains("a=setup:active\r\n"));
}
