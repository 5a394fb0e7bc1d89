//! Queues are listed by name, filtered before the page is cut, and paged by a name that need not exist.

use isimud_contract::{Filter, FilterValue, Kind, QueueRecord, QueueSelection};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::outcome::{Outcome, Step};
use crate::promise::promises;

promises! {
    an_empty_project_lists_nothing,
    queues_come_in_byte_order,
    a_listing_shows_names_metadata_and_versions,
    a_page_holds_at_most_its_limit,
    paging_covers_every_queue_once,
    the_first_queue_is_a_marker_like_any_other,
    a_marker_needs_no_queue,
    a_marker_may_be_any_text,
    dotted_names_are_whole,
    a_name_filter_is_plain_text,
    a_name_filter_tells_cases_apart,
    an_integer_filter_matches_that_integer,
    a_text_filter_matches_that_text,
    a_filter_key_is_plain_text,
    every_filter_must_match,
    filters_do_not_use_up_the_page,
    queues_of_other_projects_are_not_listed,
    deleted_queues_are_not_listed,
    topics_are_listed_apart,
    what_the_service_keeps_is_not_listed,
}

/// A listing of the first hundred queues.
fn all() -> QueueSelection {
    QueueSelection {
        limit: 100,
        ..QueueSelection::default()
    }
}

fn containing(text: &str) -> QueueSelection {
    QueueSelection {
        name_contains: Some(text.into()),
        ..all()
    }
}

fn following(name: &str) -> QueueSelection {
    QueueSelection {
        after: Some(name.into()),
        ..all()
    }
}

fn integer(key: &str, value: i64) -> Filter {
    Filter {
        key: key.into(),
        value: FilterValue::Integer(value),
    }
}

fn text(key: &str, value: &str) -> Filter {
    Filter {
        key: key.into(),
        value: FilterValue::Text(value.into()),
    }
}

impl Bench {
    async fn queues(&self, selection: &QueueSelection) -> Step<Vec<QueueRecord>> {
        let store = self.management()?;
        Ok(store.list_queues(&self.queue.project, selection).await?)
    }

    async fn names(&self, selection: &QueueSelection) -> Step<Vec<String>> {
        let queues = self.queues(selection).await?;
        Ok(queues.iter().map(|queue| queue.name.to_string()).collect())
    }

    async fn names_where(&self, filters: Vec<Filter>) -> Step<Vec<String>> {
        self.names(&QueueSelection { filters, ..all() }).await
    }

    async fn create_all(&self, names: &[&str]) -> Step<()> {
        for name in names {
            self.on(name).create(json!({})).await?;
        }
        Ok(())
    }

    /// Creates queues that have one metadata key each, or none.
    async fn create_with(&self, key: &str, values: &[(&str, Option<Value>)]) -> Step<()> {
        for (name, value) in values {
            let metadata = match value {
                Some(value) => json!({ key: value }),
                None => json!({}),
            };
            self.on(name).create(metadata).await?;
        }
        Ok(())
    }
}

async fn an_empty_project_lists_nothing(bench: Bench) -> Outcome {
    assert!(bench.queues(&all()).await?.is_empty());
    Ok(())
}

async fn queues_come_in_byte_order(bench: Bench) -> Outcome {
    let ordered = [
        "-", ".0", "0", "10", "9", "A", "Z", "_", "a", "a-", "a.", "a0", "aA", "aa", "b",
    ];
    let mut shuffled = ordered;
    shuffled.reverse();
    shuffled.swap(1, 8);
    bench.create_all(&shuffled).await?;
    assert_eq!(bench.names(&all()).await?, ordered);
    Ok(())
}

async fn a_listing_shows_names_metadata_and_versions(bench: Bench) -> Outcome {
    let one = bench.on("one").create(json!({"z": 1, "a": "ü"})).await?;
    let two = bench.on("two").create(json!({})).await?;
    assert_eq!(bench.queues(&all()).await?, [one, two]);
    Ok(())
}

async fn a_page_holds_at_most_its_limit(bench: Bench) -> Outcome {
    bench.create_all(&["a", "b", "c"]).await?;
    for limit in 1..=4 {
        let page = bench.names(&QueueSelection { limit, ..all() }).await?;
        assert_eq!(page, ["a", "b", "c"][..limit.min(3)]);
    }
    Ok(())
}

async fn paging_covers_every_queue_once(bench: Bench) -> Outcome {
    let names: Vec<_> = (0..25).map(|number| format!("queue-{number:02}")).collect();
    for name in &names {
        bench.on(name).create(json!({})).await?;
    }
    let mut seen = Vec::new();
    let mut page = QueueSelection { limit: 7, ..all() };
    while seen.len() <= names.len() {
        let found = bench.names(&page).await?;
        if found.is_empty() {
            break;
        }
        page.after = found.last().cloned();
        seen.extend(found);
    }
    assert_eq!(seen, names);
    Ok(())
}

/// The reference shows that queue again, for ever (quirk Q-QUE-1).
async fn the_first_queue_is_a_marker_like_any_other(bench: Bench) -> Outcome {
    bench.create_all(&["a", "b", "c"]).await?;
    assert_eq!(bench.names(&following("a")).await?, ["b", "c"]);
    assert!(bench.names(&following("c")).await?.is_empty());
    Ok(())
}

/// The reference starts again from the first queue (quirk Q-QUE-9).
async fn a_marker_needs_no_queue(bench: Bench) -> Outcome {
    bench.create_all(&["a", "b", "c", "d"]).await?;
    assert_eq!(bench.names(&following("bb")).await?, ["c", "d"]);
    bench
        .management()?
        .delete_queue(&bench.on("b").queue)
        .await?;
    assert_eq!(bench.names(&following("b")).await?, ["c", "d"]);
    Ok(())
}

async fn a_marker_may_be_any_text(bench: Bench) -> Outcome {
    bench.create_all(&["a", "b"]).await?;
    for (marker, expected) in [
        ("", &["a", "b"][..]),
        ("\0", &["a", "b"]),
        ("a\0", &["b"]),
        ("a'; --", &["b"]),
        ("%", &["a", "b"]),
        ("ü🦀", &[]),
        (&"b".repeat(1000), &[]),
    ] {
        let names = bench.names(&following(marker)).await?;
        assert_eq!(names, expected, "after {marker:?}");
    }
    Ok(())
}

/// The reference cuts them at the dot (quirk Q-QUE-2).
async fn dotted_names_are_whole(bench: Bench) -> Outcome {
    let names = ["svc", "svc.a", "svc.a.b", "svc.b"];
    bench.create_all(&names).await?;
    assert_eq!(bench.names(&all()).await?, names);
    assert_eq!(bench.names(&following("svc.a")).await?, names[2..]);
    assert_eq!(bench.names(&containing(".a")).await?, names[1..3]);
    Ok(())
}

async fn a_name_filter_is_plain_text(bench: Bench) -> Outcome {
    bench
        .create_all(&["a-b", "a.b", "a_b", "axb", "other"])
        .await?;
    for (text, expected) in [
        ("a_b", &["a_b"][..]),
        ("a.b", &["a.b"]),
        ("_", &["a_b"]),
        ("x", &["axb"]),
        ("ax", &["axb"]),
        ("axb", &["axb"]),
        ("", &["a-b", "a.b", "a_b", "axb", "other"]),
        ("%", &[]),
        ("a%b", &[]),
        ("a*b", &[]),
        ("a?b", &[]),
        ("[a]", &[]),
        ("^a", &[]),
        ("'", &[]),
        ("\\", &[]),
        ("\0", &[]),
        ("ü", &[]),
        ("axbb", &[]),
    ] {
        let names = bench.names(&containing(text)).await?;
        assert_eq!(names, expected, "containing {text:?}");
    }
    Ok(())
}

async fn a_name_filter_tells_cases_apart(bench: Bench) -> Outcome {
    bench.create_all(&["Queue", "QUEUE", "queue"]).await?;
    assert_eq!(bench.names(&containing("ueue")).await?, ["Queue", "queue"]);
    assert_eq!(bench.names(&containing("UE")).await?, ["QUEUE"]);
    Ok(())
}

async fn an_integer_filter_matches_that_integer(bench: Bench) -> Outcome {
    let values = [
        ("one", Some(json!(1))),
        ("text", Some(json!("1"))),
        ("float", Some(json!(1.5))),
        ("true", Some(json!(true))),
        ("null", Some(json!(null))),
        ("list", Some(json!([1]))),
        ("minus", Some(json!(-1))),
        ("least", Some(json!(i64::MIN))),
        ("none", None),
    ];
    bench.create_with("n", &values).await?;
    for (value, expected) in [(1, "one"), (-1, "minus"), (i64::MIN, "least")] {
        assert_eq!(
            bench.names_where(vec![integer("n", value)]).await?,
            [expected]
        );
    }
    assert!(bench.names_where(vec![integer("n", 0)]).await?.is_empty());
    assert!(bench.names_where(vec![integer("m", 1)]).await?.is_empty());
    Ok(())
}

async fn a_text_filter_matches_that_text(bench: Bench) -> Outcome {
    let values = [
        ("plain", Some(json!("infra"))),
        ("upper", Some(json!("INFRA"))),
        ("longer", Some(json!("infra "))),
        ("crab", Some(json!("ü 🦀 'quoted' \"too\" % \\"))),
        ("number", Some(json!(1))),
        ("null", Some(json!(null))),
        ("empty", Some(json!(""))),
        ("none", None),
    ];
    bench.create_with("team", &values).await?;
    for (value, expected) in [
        ("infra", &["plain"][..]),
        ("ü 🦀 'quoted' \"too\" % \\", &["crab"]),
        ("", &["empty"]),
        ("1", &[]),
        ("null", &[]),
        ("infr", &[]),
        ("infra%", &[]),
    ] {
        let names = bench.names_where(vec![text("team", value)]).await?;
        assert_eq!(names, expected, "team {value:?}");
    }
    Ok(())
}

/// It is one key of the object, and no path, no pattern, no expression.
async fn a_filter_key_is_plain_text(bench: Bench) -> Outcome {
    let keys = [
        "a.b", "a\"b", "a'b", "$", "$.a", "a[0]", "", "ü🦀", "a\0b", "*", "%",
    ];
    for (number, key) in keys.iter().enumerate() {
        let bench = bench.on(&format!("queue-{number:02}"));
        bench.create(json!({ *key: 1 })).await?;
    }
    bench.on("nested").create(json!({"a": {"b": 1}})).await?;
    bench.on("list").create(json!({"a": [1]})).await?;
    for (number, key) in keys.iter().enumerate() {
        let names = bench.names_where(vec![integer(key, 1)]).await?;
        assert_eq!(names, [format!("queue-{number:02}")], "key {key:?}");
    }
    Ok(())
}

async fn every_filter_must_match(bench: Bench) -> Outcome {
    let metadata = [
        ("app-1", json!({"team": "infra", "n": 1})),
        ("app-2", json!({"team": "infra", "n": 2})),
        ("app-3", json!({"team": "other", "n": 1})),
        ("job-1", json!({"team": "infra", "n": 1})),
    ];
    for (name, metadata) in metadata {
        bench.on(name).create(metadata).await?;
    }
    let selection = QueueSelection {
        filters: vec![text("team", "infra"), integer("n", 1)],
        ..all()
    };
    assert_eq!(bench.names(&selection).await?, ["app-1", "job-1"]);
    let selection = QueueSelection {
        name_contains: Some("app".into()),
        ..selection
    };
    assert_eq!(bench.names(&selection).await?, ["app-1"]);
    let contradiction = vec![integer("n", 1), integer("n", 2)];
    assert!(bench.names_where(contradiction).await?.is_empty());
    Ok(())
}

async fn filters_do_not_use_up_the_page(bench: Bench) -> Outcome {
    for number in 0..60 {
        let metadata = json!({"fifth": i32::from(number % 5 == 0)});
        bench
            .on(&format!("queue-{number:02}"))
            .create(metadata)
            .await?;
    }
    let selection = QueueSelection {
        after: Some("queue-05".into()),
        limit: 3,
        name_contains: Some("queue".into()),
        filters: vec![integer("fifth", 1)],
        ..all()
    };
    let names = bench.names(&selection).await?;
    assert_eq!(names, ["queue-10", "queue-15", "queue-20"]);
    Ok(())
}

async fn queues_of_other_projects_are_not_listed(bench: Bench) -> Outcome {
    bench.create_all(&["mine"]).await?;
    for project in [
        "project.",
        "project ",
        "projec",
        "Project",
        "project\0",
        "%",
        "*",
    ] {
        let other = bench.at(project, "theirs");
        other.create(json!({})).await?;
        assert_eq!(other.names(&all()).await?, ["theirs"], "{project:?}");
    }
    assert_eq!(bench.names(&all()).await?, ["mine"]);
    assert!(bench.names(&containing("theirs")).await?.is_empty());
    Ok(())
}

async fn deleted_queues_are_not_listed(bench: Bench) -> Outcome {
    bench.create_all(&["a", "b", "c"]).await?;
    bench
        .management()?
        .delete_queue(&bench.on("b").queue)
        .await?;
    assert_eq!(bench.names(&all()).await?, ["a", "c"]);
    Ok(())
}

/// Everything that holds for a listing of queues: order, markers, names, filters, pages.
async fn topics_are_listed_apart(bench: Bench) -> Outcome {
    let topics = QueueSelection {
        kind: Kind::Topic,
        ..all()
    };
    bench.create_all(&["a", "z", "queue"]).await?;
    assert!(bench.queues(&topics).await?.is_empty());
    for (number, name) in ["z", "a", "-", "b.topic"].iter().enumerate() {
        let metadata = json!({ "n": number });
        bench.topic(name).create(metadata).await?;
    }
    bench
        .at("stranger", "q")
        .topic("x")
        .create(json!({}))
        .await?;
    assert_eq!(bench.names(&all()).await?, ["a", "queue", "z"]);
    let listed = async |selection: QueueSelection| {
        let found = bench.queues(&selection).await?;
        assert!(found.iter().all(|record| record.name.is_topic()));
        let shown = found.iter().map(|record| record.name.shown().to_owned());
        Step::Ok(shown.collect::<Vec<_>>())
    };
    assert_eq!(listed(topics.clone()).await?, ["-", "a", "b.topic", "z"]);
    for (after, expected) in [
        ("a", &["b.topic", "z"][..]),
        ("", &["-", "a", "b.topic", "z"]),
        ("z", &[]),
    ] {
        let after = QueueSelection {
            after: Some(after.into()),
            ..topics.clone()
        };
        assert_eq!(listed(after).await?, expected);
    }
    for (part, expected) in [("topic", &["b.topic"][..]), ("~", &[]), ("a", &["a"])] {
        let named = QueueSelection {
            name_contains: Some(part.into()),
            ..topics.clone()
        };
        assert_eq!(listed(named).await?, expected, "containing {part:?}");
    }
    let filtered = QueueSelection {
        filters: vec![integer("n", 1)],
        ..topics.clone()
    };
    assert_eq!(listed(filtered).await?, ["a"]);
    let page = QueueSelection { limit: 2, ..topics };
    assert_eq!(listed(page).await?, ["-", "a"]);
    Ok(())
}

async fn what_the_service_keeps_is_not_listed(bench: Bench) -> Outcome {
    bench.create_all(&["q"]).await?;
    bench.topic("t").create(json!({})).await?;
    for name in ["-", "q", "t", "z"] {
        bench.internal(name).create(json!({})).await?;
    }
    assert_eq!(bench.names(&all()).await?, ["q"]);
    let topics = QueueSelection {
        kind: Kind::Topic,
        ..all()
    };
    assert_eq!(bench.names(&topics).await?, ["~t"]);
    Ok(())
}
