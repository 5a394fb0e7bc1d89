//! What is read of a request, without Keystone.

use super::*;

fn headers(all: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in all {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn read(all: &[(&str, &str)]) -> Result<(String, Option<String>), Malformed> {
    let tokens = Tokens::of_request(&headers(all))?;
    let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
    Ok((text(&tokens.user), tokens.service.as_ref().map(text)))
}

#[test]
fn the_token_is_that_of_the_first_header_that_has_one() {
    let user = |token: &str| Ok((token.to_owned(), None));
    assert_eq!(read(&[("X-Auth-Token", "a")]), user("a"));
    assert_eq!(read(&[("X-Storage-Token", "s")]), user("s"));
    assert_eq!(
        read(&[("X-Storage-Token", "s"), ("X-Auth-Token", "a")]),
        user("a")
    );
    assert_eq!(read(&[("X-Auth-Token", " \t a ")]), user("a"));
    assert_eq!(
        read(&[("X-Auth-Token", " "), ("X-Storage-Token", "s")]),
        user("s")
    );
    let both = read(&[("X-Auth-Token", "a"), ("X-Service-Token", " b")]);
    assert_eq!(both, Ok(("a".to_owned(), Some("b".to_owned()))));
    assert_eq!(
        read(&[("X-Auth-Token", "a"), ("X-Service-Token", "")]),
        user("a")
    );
}

#[test]
fn what_is_no_token_is_malformed() {
    let long = "x".repeat(MAX_TOKEN_BYTES + 1);
    for all in [
        &[][..],
        &[("X-Auth-Token", "")],
        &[("X-Service-Token", "b")],
        &[("Authorization", "Bearer a")],
        &[("X-Auth-Token", "a"), ("X-Auth-Token", "a")],
        &[("X-Auth-Token", "a,a")],
        &[("X-Auth-Token", "a a")],
        &[("X-Auth-Token", "ä")],
        &[("X-Auth-Token", &long)],
        &[("X-Auth-Token", "a"), ("X-Service-Token", "b c")],
        // A bad one is not replaced by the other header.
        &[("X-Auth-Token", "a b"), ("X-Storage-Token", "s")],
    ] {
        assert_eq!(read(all), Err(Malformed), "{all:?}");
    }
}

#[test]
fn nothing_shows_a_token() {
    let all = headers(&[
        ("X-Auth-Token", "gAAAAsecret"),
        ("X-Service-Token", "gAAAAother"),
    ]);
    let shown = format!("{:?}", Tokens::of_request(&all));
    assert!(!shown.contains("gAAAA"), "{shown}");
}

/// The spellings in which clients may try to say who they are; none of them is ever read.
const IDENTITY_HEADERS: [&str; 27] = [
    "x-identity-status",
    "x-service-identity-status",
    "x-user-id",
    "x-user-name",
    "x-user-domain-id",
    "x-user-domain-name",
    "x-project-id",
    "x-project-name",
    "x-project-domain-id",
    "x-project-domain-name",
    "x-domain-id",
    "x-domain-name",
    "openstack-system-scope",
    "x-roles",
    "x-is-admin-project",
    "x-service-catalog",
    "x-service-user-id",
    "x-service-roles",
    "x-service-project-id",
    "x-role",
    "x-user",
    "x-tenant-id",
    "x-tenant-name",
    "x-tenant",
    "x-group-ids",
    "x-trust-id",
    "x-is-admin",
];

#[test]
fn no_identity_header_of_any_spelling_changes_what_is_read() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..2_000 {
        let mut all = headers(&[("x-auth-token", "a")]);
        for _ in 0..random.usize(1..6) {
            let name = random.choice(IDENTITY_HEADERS).unwrap();
            let spelled: String = name
                .chars()
                .map(|char| match char {
                    '-' if random.bool() => '_',
                    other if random.bool() => other.to_ascii_uppercase(),
                    other => other,
                })
                .collect();
            let name = HeaderName::from_bytes(spelled.as_bytes()).expect("a name");
            all.append(name, HeaderValue::from_static("admin"));
        }
        let tokens = Tokens::of_request(&all).expect("it has a token");
        assert_eq!(tokens.user, "a");
        assert!(tokens.service.is_none());
    }
}
