//! What may be typed, and what is said to it.

use super::*;

fn realtime(url: &str, app: Option<&str>) -> Result<String, String> {
    let app = app.map(str::to_owned);
    let target = Target { url: url.into(), app, secret: Some("s".into()), ..Target::default() };
    target.api(ApiKind::Realtime).map(|api| format!("{api:?}"))
}

#[test]
fn an_app_is_named_in_the_address_or_beside_it() {
    let base = |url, app| {
        let api = realtime(url, app).unwrap();
        api.split('"').nth(1).unwrap().to_owned()
    };
    let expected = "http://h:8080/v1/apps/a";
    assert_eq!(base("http://h:8080", Some("a")), expected);
    assert_eq!(base("http://h:8080/", Some("a")), expected);
    assert_eq!(base("http://h:8080/v1", Some("a")), expected);
    assert_eq!(base("http://h:8080/v1/apps/a", None), expected);
    assert_eq!(base("http://h:8080/v1/apps/a/", Some("a")), expected);
    assert_eq!(base("http://h:8080/apps/a", None), "http://h:8080/apps/a");
    assert_eq!(base("https://h/sub/v1/apps/a", None), "https://h/sub/v1/apps/a");
    assert_eq!(base("https://[::1]:1/sub", Some("a")), "https://[::1]:1/sub/v1/apps/a");
}

#[test]
fn what_is_wrong_is_one_sentence() {
    let table = [
        ("", "--target is missing: write it as http://127.0.0.1:8080"),
        ("h:8080", "--target `h:8080` does not say http or https: write it as"),
        ("http://", "--target `http://` is no URL (empty host)"),
        ("ws://h", "--target is a ws address, but the API speaks http or https"),
        ("http://u:p@h", "--target holds a user name or password: credentials are flags"),
        ("http://h?x", "--target `http://h?x` has a query or fragment"),
        ("http://h", "--app is missing"),
        ("http://h/v1/apps/a b", "`a%20b` is no id of an app"),
    ];
    for (url, expected) in table {
        let said = realtime(url, None).unwrap_err();
        assert!(said.starts_with(expected), "{url}: {said}");
    }
    let two = realtime("http://h/v1/apps/a", Some("b")).unwrap_err();
    assert_eq!(two, "--target names the app a, but --app says b");
    let silent = Target { url: "http://h".into(), app: Some("a".into()), ..Target::default() };
    let said = silent.api(ApiKind::Realtime).unwrap_err();
    assert_eq!(said, "--secret is missing: the secret of the app");
    let kind = "rtmp".parse::<ApiKind>().unwrap_err();
    assert_eq!(kind, "`rtmp` is no API known here: it is one of realtime, whip, janus");
    for kind in ApiKind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
}

#[test]
fn whep_is_beside_whip_unless_it_is_said() {
    let whip = |url: &str, whep: Option<&str>| {
        let whep = whep.map(str::to_owned);
        Target { url: url.into(), whep, ..Target::default() }.whip()
    };
    let expected =
        Whip::new("http://h/whip/{name}".into(), "http://h/whep/{name}".into(), Tokens::None);
    assert_eq!(whip("http://h/whip/{name}", None), Ok(expected));
    let said = Whip::new("http://h/in".into(), "http://h/out".into(), Tokens::None);
    assert_eq!(whip("http://h/in", Some("http://h/out")), Ok(said));
    assert!(whip("http://h/in", None).unwrap_err().starts_with("--whep is missing"));
}

#[test]
fn tokens_of_whip_are_given_or_made() {
    let tokens = |token: Option<&str>, tokens: Option<&str>, secret: Option<&str>| {
        let [token, tokens, secret] = [token, tokens, secret].map(|text| text.map(str::to_owned));
        Target { url: "http://h/whip".into(), token, tokens, secret, ..Target::default() }.whip()
    };
    let made = Tokens::Issued { url: "http://h/token".into(), secret: "s".into() };
    let expected = Whip::new("http://h/whip".into(), "http://h/whep".into(), made);
    assert_eq!(tokens(None, Some("http://h/token/"), Some("s")), Ok(expected));
    assert!(tokens(Some("t"), None, None).is_ok());
    for (said, expected) in [
        (tokens(Some("t"), Some("http://h"), None), "--token and --tokens exclude each other"),
        (tokens(None, Some("http://h"), None), "--secret is missing"),
        (tokens(None, None, Some("s")), "--secret alone is of no use"),
        (tokens(Some("a b"), None, None), "--token has characters"),
    ] {
        assert!(said.as_ref().unwrap_err().starts_with(expected), "{said:?}");
    }
}

#[test]
fn credentials_of_janus_go_into_addresses_as_text() {
    let (url, secret) = ("http://h:8088".to_owned(), Some("a&b=c".to_owned()));
    let janus = Target { url, secret, ..Target::default() }.janus().unwrap();
    let said = format!("{janus:?}");
    assert!(said.contains(r#"base: "http://h:8088/janus""#), "{said}");
    assert!(said.contains(r#"query: "&apisecret=a%26b%3Dc""#), "{said}");
}
