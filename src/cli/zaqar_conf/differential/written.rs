//! The configuration that is written, compared with what the real reader makes of the same files.

use super::*;

/// How the value of an option becomes that of a key.
#[derive(Clone, Copy)]
enum Becomes {
    Same,
    /// Within these bounds.
    Within(i64, i64),
    /// Whether notifications are among the stages.
    Notifier,
    /// One key of several.
    OneOf,
}

const LONGEST_SECS: i64 = 100 * 366 * 86_400;

/// Options that are carried over, and their keys.
const CARRIED: &[(&str, &str, &str, Becomes)] = &[
    ("DEFAULT", "admin_mode", "access.admin_api", Becomes::Same),
    (
        "DEFAULT",
        "enable_checksum",
        "messages.checksums",
        Becomes::Same,
    ),
    (
        "transport",
        "message_delete_with_claim_id",
        "messages.delete_with_claim_ids",
        Becomes::Same,
    ),
    (
        "transport",
        "message_encryption_key",
        "messages.encryption_keys",
        Becomes::OneOf,
    ),
    (
        "transport",
        "client_id_uuid_safe",
        "access.client_id",
        Becomes::Same,
    ),
    (
        "transport",
        "subscriber_types",
        "notifications.subscriber_types",
        Becomes::Same,
    ),
    (
        "transport",
        "default_message_ttl",
        "limits.default_message_ttl",
        Becomes::Within(1, LONGEST_SECS),
    ),
    (
        "transport",
        "default_message_delay",
        "limits.default_message_delay",
        Becomes::Within(0, LONGEST_SECS),
    ),
    (
        "transport",
        "default_claim_ttl",
        "limits.default_claim_ttl",
        Becomes::Within(1, LONGEST_SECS),
    ),
    (
        "transport",
        "default_claim_grace",
        "limits.default_claim_grace",
        Becomes::Within(1, LONGEST_SECS),
    ),
    (
        "transport",
        "default_subscription_ttl",
        "limits.default_subscription_ttl",
        Becomes::Within(60, LONGEST_SECS),
    ),
    (
        "transport",
        "max_queues_per_page",
        "limits.max_queues_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_messages_per_page",
        "limits.max_messages_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_subscriptions_per_page",
        "limits.max_subscriptions_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_messages_per_claim_or_pop",
        "limits.max_messages_per_claim_or_pop",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_pools_per_page",
        "limits.max_pools_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_flavors_per_page",
        "limits.max_flavors_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_queue_metadata",
        "limits.max_queue_metadata",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_messages_post_size",
        "limits.max_messages_post_size",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_message_ttl",
        "limits.max_message_ttl",
        Becomes::Within(60, LONGEST_SECS),
    ),
    (
        "transport",
        "max_message_delay",
        "limits.max_message_delay",
        Becomes::Within(0, LONGEST_SECS),
    ),
    (
        "transport",
        "max_claim_ttl",
        "limits.max_claim_ttl",
        Becomes::Within(60, LONGEST_SECS),
    ),
    (
        "transport",
        "max_claim_grace",
        "limits.max_claim_grace",
        Becomes::Within(60, LONGEST_SECS),
    ),
    (
        "storage",
        "message_pipeline",
        "notifications.enabled",
        Becomes::Notifier,
    ),
    (
        "notification",
        "require_confirmation",
        "notifications.require_confirmation",
        Becomes::Same,
    ),
    (
        "notification",
        "external_confirmation_url",
        "notifications.external_confirmation_url",
        Becomes::Same,
    ),
    (
        "notification",
        "smtp_command",
        "notifications.mail.command",
        Becomes::Same,
    ),
    (
        "signed_url",
        "secret_key",
        "signed_url.secret_key",
        Becomes::Same,
    ),
    (
        "cors",
        "allowed_origin",
        "cors.allowed_origins",
        Becomes::Same,
    ),
    (
        "cors",
        "expose_headers",
        "cors.expose_headers",
        Becomes::Same,
    ),
    ("cors", "allow_methods", "cors.allow_methods", Becomes::Same),
    ("cors", "allow_headers", "cors.allow_headers", Becomes::Same),
    (
        "cors",
        "max_age",
        "cors.max_age_secs",
        Becomes::Within(0, i64::MAX),
    ),
];

const SOUND: &[&str] = &[
    "plain",
    "two words",
    "\"quoted\"",
    "a=b:c # d",
    "pa$$ss\\$x",
    "$",
    "$9",
    "${",
    "${debug}",
    "$auth_strategy.",
    "é ü",
    "${transport.max_claim_ttl}x",
    "$cors.allow_methods",
    "a\\b\"c'd",
    "",
];
const SOUND_NUMBERS: &[&str] = &[
    "0",
    "1",
    "59",
    "60",
    "61",
    "-7",
    "1_000",
    " 3600 ",
    "$max_queue_metadata",
    "99999999999",
    "",
];
const SOUND_WORDS: &[&str] = &["true", "YES", "on", "1", "False", "no", "'off'", "0"];
const SOUND_LISTS: &[&str] = &[
    "a,b",
    "zaqar.notification.notifier",
    "x, zaqar.notification.notifier",
    ",",
    "https://a:1,https://b",
    "\"http\",mailto",
];

/// A file of values that are all right, of options that are carried over.
fn sound_file(random: &mut fastrand::Rng) -> String {
    let mut pick = |from: &[&'static str]| from[random.usize(..from.len())];
    let mut text = String::from("[drivers]\nmessage_store = redis\nmanagement_store = redis\n");
    for (group, name, _, _) in CARRIED {
        if pick(&["set", "set", "not"]) == "not" {
            continue;
        }
        let option = schema::group(group)
            .and_then(|options| options.iter().find(|option| option.name == *name));
        let value = match option.expect("an option").kind {
            Kind::Bool => pick(SOUND_WORDS),
            Kind::Int(..) => pick(SOUND_NUMBERS),
            Kind::List => pick(SOUND_LISTS),
            Kind::Choice(choices) => pick(choices),
            _ => pick(SOUND),
        };
        writeln!(text, "[{group}]\n{name} = {value}").expect("a text");
    }
    text
}

#[test]
fn the_configuration_has_the_values_that_the_reference_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = fastrand::Rng::with_seed(5);
    let cases: Vec<Case> = (0..200)
        .map(|number| {
            let path = folder.path().join(format!("{number}.conf"));
            std::fs::write(&path, sound_file(&mut random)).expect("a file");
            Case {
                name: number.to_string(),
                sources: vec![Source::File(path)],
                environment: BTreeMap::new(),
            }
        })
        .collect();
    let requests: Vec<Json> = cases.iter().map(Case::request).collect();
    let answers = reference("read", &Json::Array(requests));
    let keys =
        std::fs::read_to_string(root().join("config/default.toml")).expect("the server's keys");
    let defaults = Figment::from(Toml::string(PLANNED)).merge(Toml::string(&keys));
    let server = Server {
        defaults: &keys,
        operations: &[],
        check_policies: |_| Ok(()),
        check_store: |_| Ok(()),
        check: |_| Ok(()),
    };
    let mut compared = 0;
    for (case, answer) in cases.iter().zip(answers.as_array().expect("answers")) {
        let reader = case.read().expect("files");
        let Ok(mapped) = mapping::map(&reader, server, &mapping::Decisions::default()) else {
            // A value may refer to one that is of no use to it.
            continue;
        };
        let written = mapped.document.render(&[], Secrets::Inline);
        let effective = defaults.clone().merge(Toml::string(&written));
        for (group, name, path, becomes) in CARRIED {
            let theirs = &answer["values"][group][name]["value"];
            let default: Json = defaults.extract_inner(path).expect("a key");
            let expected = expected(theirs, *becomes, &default);
            let ours: Json = effective.extract_inner(path).expect("a key");
            assert_eq!(
                ours, expected,
                "{} [{group}] {name}: {theirs}\n{written}",
                case.name
            );
            compared += 1;
        }
    }
    println!("{compared} keys");
    assert!(compared > 3000, "{compared}");
}

/// What a key has to be where the reference reads this.
fn expected(theirs: &Json, becomes: Becomes, default: &Json) -> Json {
    match (becomes, theirs) {
        // Where there is no value, the default stays.
        (_, Json::Null) => default.clone(),
        (Becomes::Same | Becomes::OneOf, Json::String(text)) if text.is_empty() => default.clone(),
        (Becomes::OneOf, theirs) => json!([theirs]),
        (Becomes::Within(least, most), theirs) => {
            json!(theirs.as_i64().expect("a number").clamp(least, most))
        }
        (Becomes::Notifier, theirs) => {
            let stages = theirs.as_array().expect("stages");
            json!(
                stages
                    .iter()
                    .any(|stage| stage == "zaqar.notification.notifier")
            )
        }
        (Becomes::Same, theirs) => theirs.clone(),
    }
}
