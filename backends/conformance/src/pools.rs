//! Pools are registered once and changed by version; flavors are sets of them, and every change of a set is one step.

use isimud_contract::{
    ErrorKind, Flavor, FlavorName, MembershipChange, Metadata, Pool, PoolName, PoolRecord,
    ProjectId, Resource,
};
use serde_json::json;

use crate::bench::Bench;
use crate::management::metadata;
use crate::outcome::{Abort, Outcome, Step, refused, together};
use crate::promise::promises;

promises! {
    an_unknown_pool_is_not_found,
    a_pool_is_kept_as_written,
    a_pool_is_registered_once,
    a_pool_is_replaced_by_its_version,
    an_outdated_replacement_changes_nothing,
    an_unknown_pool_is_not_replaced,
    a_version_ends_with_its_pool,
    one_of_many_registrations_wins,
    one_of_many_replacements_wins,
    a_deleted_pool_is_gone,
    pools_come_in_byte_order_page_by_page,
    a_flavor_is_a_set_of_pools,
    a_new_member_has_a_new_version,
    a_pool_moves_to_its_newest_flavor,
    members_are_added,
    members_are_replaced,
    a_pool_may_name_a_flavor_before_it_is_there,
    a_flavor_of_an_unknown_pool_changes_nothing,
    a_flavor_belongs_to_one_project,
    the_last_pool_of_a_flavor_stays,
    one_of_the_last_two_pools_stays,
    a_pool_of_no_flavor_that_exists_may_go,
    a_pool_may_leave_its_flavor_empty,
    a_deleted_flavor_lets_its_pools_go,
    a_flavor_is_deleted_by_its_project_alone,
    flavors_are_listed_by_project,
    strange_names_of_flavors_are_told_apart,
    pools_and_flavors_are_kept,
}

pub(crate) fn pool_name(text: &str) -> PoolName {
    PoolName::parse(text).expect("trials use valid names of pools")
}

fn flavor_name(text: &str) -> FlavorName {
    FlavorName::parse(text).expect("trials use valid names of flavors")
}

pub(crate) fn pool(name: &str) -> Pool {
    Pool {
        name: pool_name(name),
        uri: format!("redis://user:secret@host/{name}"),
        weight: 10,
        flavor: None,
        options: Metadata::new(),
    }
}

fn names(pools: &[PoolRecord]) -> Vec<&str> {
    pools
        .iter()
        .map(|record| record.pool.name.as_str())
        .collect()
}

/// Demands that a call was refused, and whom the refusal names.
fn refused_over<T>(
    answer: Result<T, impl Into<Abort>>,
    kind: ErrorKind,
    key: &str,
    name: &str,
) -> Step<()> {
    match answer.map_err(Into::into) {
        Err(Abort::Refused(error)) if error.kind() == kind && error.about(key) == Some(name) => {
            Ok(())
        }
        Err(Abort::Refused(error)) => Err(Abort::Unexpected(format!(
            "expected a refusal as {kind:?} that names {name:?}, got {error:?}"
        ))),
        Err(other) => Err(other),
        Ok(_) => Err(Abort::Unexpected(format!(
            "expected a refusal as {kind:?}, but the call was served"
        ))),
    }
}

impl Bench {
    /// Registers pools, which must be new, and returns their versions.
    pub(crate) async fn register<const N: usize>(&self, names: [&str; N]) -> Step<[u64; N]> {
        let mut versions = [0; N];
        for (name, version) in names.into_iter().zip(&mut versions) {
            let saved = self.management()?.save_pool(&pool(name), None).await?;
            *version =
                saved.ok_or_else(|| Abort::Unexpected(format!("{name:?} exists already")))?;
        }
        Ok(versions)
    }

    /// The record of a pool, which must exist.
    async fn pool(&self, name: &str) -> Step<PoolRecord> {
        let found = self.management()?.find_pool(&pool_name(name)).await?;
        found.ok_or_else(|| Abort::Unexpected(format!("there is no pool {name:?}")))
    }

    /// The pools that name a flavor.
    async fn members(&self, flavor: &str) -> Step<Vec<String>> {
        let pools = self.management()?.list_pools(None, 1_000).await?;
        let members = pools.into_iter().map(|record| record.pool);
        let members = members.filter(|pool| pool.flavor == Some(flavor_name(flavor)));
        Ok(members.map(|pool| pool.name.to_string()).collect())
    }

    fn flavor(&self, name: &str) -> Flavor {
        Flavor {
            name: flavor_name(name),
            project: self.queue.project.clone(),
        }
    }

    /// Stores a flavor of the bench's project.
    pub(crate) async fn save_flavor(
        &self,
        flavor: &str,
        pools: &[&str],
        members: MembershipChange,
    ) -> Step<()> {
        let pools: Vec<_> = pools.iter().map(|name| pool_name(name)).collect();
        let store = self.management()?;
        let flavor = self.flavor(flavor);
        Ok(store.save_flavor(&flavor, &pools, members).await?)
    }

    async fn flavors(&self, after: Option<&str>, limit: usize) -> Step<Vec<String>> {
        let project = &self.queue.project;
        let found = self.management()?.list_flavors(project, after, limit);
        let found = found.await?;
        assert!(found.iter().all(|flavor| flavor.project == *project));
        Ok(found.iter().map(|flavor| flavor.name.to_string()).collect())
    }
}

async fn an_unknown_pool_is_not_found(bench: Bench) -> Outcome {
    let store = bench.management()?;
    bench.register(["pool.too"]).await?;
    assert_eq!(store.find_pool(&pool_name("pool")).await?, None);
    assert_eq!(store.find_flavor(&flavor_name("pool.too")).await?, None);
    Ok(())
}

async fn a_pool_is_kept_as_written(bench: Bench) -> Outcome {
    let store = bench.management()?;
    for (name, uri, weight, flavor, options) in [
        ("plain", "sqlite::memory:", 0, None, json!({})),
        (
            "a b!/%{}*\"'ü🦀",
            "amqp://u:p%40ss@h:1/v?a=b&c",
            1,
            Some("f"),
            json!({"z": 1, "a": 2}),
        ),
        (
            "~",
            "x",
            u32::MAX,
            Some("a b!/%{}*\"'ü🦀"),
            json!({"": {"deep": [null, 1.5, "\n"]}}),
        ),
        ("no uri", "", 7, None, json!({"n": u64::MAX, "m": i64::MIN})),
    ] {
        let pool = Pool {
            name: pool_name(name),
            uri: uri.into(),
            weight,
            flavor: flavor.map(flavor_name),
            options: metadata(options),
        };
        let version = store.save_pool(&pool, None).await?;
        let found = bench.pool(name).await?;
        assert_eq!(Some(found.version), version);
        assert_eq!(
            json!(found.pool.options).to_string(),
            json!(pool.options).to_string()
        );
        assert_eq!(found.pool, pool);
    }
    Ok(())
}

async fn a_pool_is_registered_once(bench: Bench) -> Outcome {
    bench.register(["p"]).await?;
    let before = bench.pool("p").await?;
    let other = Pool {
        uri: "other".into(),
        ..pool("p")
    };
    assert_eq!(bench.management()?.save_pool(&other, None).await?, None);
    assert_eq!(bench.pool("p").await?, before);
    Ok(())
}

async fn a_pool_is_replaced_by_its_version(bench: Bench) -> Outcome {
    let mut versions = bench.register(["p"]).await?.to_vec();
    bench.register(["q"]).await?;
    let neighbour = bench.pool("q").await?;
    for weight in 0..5 {
        let new = Pool {
            uri: format!("uri {weight}"),
            weight,
            flavor: (weight % 2 == 0).then(|| flavor_name("even")),
            options: metadata(json!({ "w": weight })),
            ..pool("p")
        };
        let store = bench.management()?;
        let version = store.save_pool(&new, versions.last().copied()).await?;
        let version = version.ok_or_else(|| Abort::Unexpected("an update is refused".into()))?;
        assert!(!versions.contains(&version), "{version} was used before");
        versions.push(version);
        assert_eq!(bench.pool("p").await?, PoolRecord { pool: new, version });
    }
    assert_eq!(bench.pool("q").await?, neighbour);
    Ok(())
}

async fn an_outdated_replacement_changes_nothing(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let [first] = bench.register(["p"]).await?;
    let second = store.save_pool(&pool("p"), Some(first)).await?;
    let before = bench.pool("p").await?;
    assert_eq!(Some(before.version), second);
    let other = Pool {
        weight: 99,
        ..pool("p")
    };
    for version in [first, before.version + 1, 0, u64::MAX] {
        assert_eq!(store.save_pool(&other, Some(version)).await?, None);
    }
    assert_eq!(bench.pool("p").await?, before);
    Ok(())
}

async fn an_unknown_pool_is_not_replaced(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let [version] = bench.register(["other"]).await?;
    for version in [0, 1, version] {
        assert_eq!(store.save_pool(&pool("p"), Some(version)).await?, None);
    }
    assert_eq!(store.find_pool(&pool_name("p")).await?, None);
    assert_eq!(names(&store.list_pools(None, 10).await?), ["other"]);
    Ok(())
}

/// A pool that is deleted and registered again is another one, and an update of the first must not hit it.
async fn a_version_ends_with_its_pool(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let [first] = bench.register(["p"]).await?;
    assert!(store.delete_pool(&pool_name("p")).await?);
    let [second] = bench.register(["p"]).await?;
    assert_ne!(first, second);
    assert_eq!(store.save_pool(&pool("p"), Some(first)).await?, None);
    assert_eq!(bench.pool("p").await?.version, second);
    Ok(())
}

async fn one_of_many_registrations_wins(bench: Bench) -> Outcome {
    let saved = together((0..8).map(|weight| {
        let bench = bench.clone();
        async move {
            let new = Pool {
                weight,
                ..pool("p")
            };
            let saved = bench.management()?.save_pool(&new, None).await?;
            Ok(saved.map(|_| weight))
        }
    }));
    let winners: Vec<_> = saved.await?.into_iter().flatten().collect();
    assert_eq!(winners, [bench.pool("p").await?.pool.weight]);
    Ok(())
}

async fn one_of_many_replacements_wins(bench: Bench) -> Outcome {
    let [version] = bench.register(["p"]).await?;
    let saved = together((0..8).map(|weight| {
        let bench = bench.clone();
        async move {
            let new = Pool {
                weight,
                ..pool("p")
            };
            let saved = bench.management()?.save_pool(&new, Some(version)).await?;
            Ok(saved.map(|_| weight))
        }
    }));
    let winners: Vec<_> = saved.await?.into_iter().flatten().collect();
    assert_eq!(winners, [bench.pool("p").await?.pool.weight]);
    Ok(())
}

async fn a_deleted_pool_is_gone(bench: Bench) -> Outcome {
    let store = bench.management()?;
    assert!(!store.delete_pool(&pool_name("p")).await?);
    bench.register(["p", "q"]).await?;
    assert!(store.delete_pool(&pool_name("p")).await?);
    assert_eq!(store.find_pool(&pool_name("p")).await?, None);
    assert_eq!(names(&store.list_pools(None, 10).await?), ["q"]);
    assert!(!store.delete_pool(&pool_name("p")).await?);
    Ok(())
}

async fn pools_come_in_byte_order_page_by_page(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let ordered = [
        " ", "!", "-", "10", "9", "A", "Z", "[", "a", "a b", "a-", "aA", "b", "~", "ü",
    ];
    for at in [7, 14, 0, 3, 9, 1, 12, 5, 2, 11, 4, 13, 6, 10, 8] {
        bench.register([ordered[at]]).await?;
    }
    assert_eq!(names(&store.list_pools(None, 100).await?), ordered);
    for limit in [1, 4, 15] {
        let mut seen: Vec<String> = Vec::new();
        while seen.len() <= ordered.len() {
            let page = store.list_pools(seen.last().map(String::as_str), limit);
            let page = page.await?;
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit);
            seen.extend(names(&page).into_iter().map(str::to_owned));
        }
        assert_eq!(seen, ordered, "by {limit}");
    }
    for (after, expected) in [("", &ordered[..]), ("a0", &ordered[11..]), ("🦀", &[])] {
        let found = store.list_pools(Some(after), 100).await?;
        assert_eq!(names(&found), expected, "after {after:?}");
    }
    Ok(())
}

async fn a_flavor_is_a_set_of_pools(bench: Bench) -> Outcome {
    let store = bench.management()?;
    bench.register(["a", "b", "c"]).await?;
    bench
        .save_flavor("f", &["c", "a"], MembershipChange::Add)
        .await?;
    let found = store.find_flavor(&flavor_name("f")).await?;
    assert_eq!(found, Some(bench.flavor("f")));
    assert_eq!(bench.members("f").await?, ["a", "c"]);
    assert_eq!(bench.pool("b").await?.pool, pool("b"));
    let member = Pool {
        flavor: Some(flavor_name("f")),
        ..pool("a")
    };
    assert_eq!(bench.pool("a").await?.pool, member);
    Ok(())
}

/// So that an update that has not seen it does not undo it.
async fn a_new_member_has_a_new_version(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let [old, _] = bench.register(["a", "b"]).await?;
    bench
        .save_flavor("f", &["a", "b"], MembershipChange::Add)
        .await?;
    let joined = bench.pool("a").await?.version;
    assert_ne!(joined, old);
    assert_eq!(store.save_pool(&pool("a"), Some(old)).await?, None);
    bench
        .save_flavor("f", &["b"], MembershipChange::Replace)
        .await?;
    let left = bench.pool("a").await?.version;
    assert!(left != joined && left != old);
    bench
        .save_flavor("f", &["a"], MembershipChange::Add)
        .await?;
    let again = bench.pool("a").await?.version;
    store
        .delete_flavor(&bench.queue.project, &flavor_name("f"))
        .await?;
    assert!(![again, left, joined, old].contains(&bench.pool("a").await?.version));
    Ok(())
}

async fn a_pool_moves_to_its_newest_flavor(bench: Bench) -> Outcome {
    bench.register(["a", "b"]).await?;
    bench
        .save_flavor("f", &["a", "b"], MembershipChange::Add)
        .await?;
    bench
        .save_flavor("g", &["b"], MembershipChange::Add)
        .await?;
    assert_eq!(bench.members("f").await?, ["a"]);
    assert_eq!(bench.members("g").await?, ["b"]);
    Ok(())
}

async fn members_are_added(bench: Bench) -> Outcome {
    bench.register(["a", "b", "c"]).await?;
    bench
        .save_flavor("f", &["a"], MembershipChange::Add)
        .await?;
    bench
        .save_flavor("f", &["b", "a", "b"], MembershipChange::Add)
        .await?;
    assert_eq!(bench.members("f").await?, ["a", "b"]);
    bench.save_flavor("f", &[], MembershipChange::Add).await?;
    assert_eq!(bench.members("f").await?, ["a", "b"]);
    Ok(())
}

async fn members_are_replaced(bench: Bench) -> Outcome {
    bench.register(["a", "b", "c", "d"]).await?;
    bench
        .save_flavor("g", &["d"], MembershipChange::Add)
        .await?;
    bench
        .save_flavor("f", &["a", "b"], MembershipChange::Replace)
        .await?;
    assert_eq!(bench.members("f").await?, ["a", "b"]);
    bench
        .save_flavor("f", &["b", "c"], MembershipChange::Replace)
        .await?;
    assert_eq!(bench.members("f").await?, ["b", "c"]);
    assert_eq!(bench.pool("a").await?.pool, pool("a"));
    assert_eq!(bench.members("g").await?, ["d"]);
    Ok(())
}

async fn a_pool_may_name_a_flavor_before_it_is_there(bench: Bench) -> Outcome {
    let early = Pool {
        flavor: Some(flavor_name("f")),
        ..pool("early")
    };
    bench.management()?.save_pool(&early, None).await?;
    bench.register(["late"]).await?;
    bench
        .save_flavor("f", &["late"], MembershipChange::Add)
        .await?;
    assert_eq!(bench.members("f").await?, ["early", "late"]);
    Ok(())
}

async fn a_flavor_of_an_unknown_pool_changes_nothing(bench: Bench) -> Outcome {
    let missing = ErrorKind::NotFound(Resource::Pool);
    bench.register(["a", "b"]).await?;
    let new = bench.save_flavor("f", &["a", "no 1", "no 2"], MembershipChange::Add);
    refused_over(new.await, missing, "pool", "no 1")?;
    let store = bench.management()?;
    assert_eq!(store.find_flavor(&flavor_name("f")).await?, None);
    assert!(bench.flavors(None, 10).await?.is_empty());
    assert_eq!(bench.pool("a").await?.pool, pool("a"));
    bench
        .save_flavor("f", &["a"], MembershipChange::Add)
        .await?;
    let before = bench.pool("a").await?;
    let change = bench.save_flavor("f", &["b", "no"], MembershipChange::Replace);
    refused_over(change.await, missing, "pool", "no")?;
    assert_eq!(bench.pool("a").await?, before);
    assert_eq!(bench.members("f").await?, ["a"]);
    Ok(())
}

async fn a_flavor_belongs_to_one_project(bench: Bench) -> Outcome {
    bench.register(["a", "b"]).await?;
    bench
        .save_flavor("f", &["a"], MembershipChange::Add)
        .await?;
    let stranger = bench.at("stranger", "q");
    let taken = stranger
        .save_flavor("f", &["b"], MembershipChange::Replace)
        .await;
    refused(taken, ErrorKind::AlreadyExists(Resource::Flavor))?;
    assert_eq!(bench.members("f").await?, ["a"]);
    let found = bench.management()?.find_flavor(&flavor_name("f")).await?;
    assert_eq!(found, Some(bench.flavor("f")));
    assert!(stranger.flavors(None, 10).await?.is_empty());
    Ok(())
}

async fn the_last_pool_of_a_flavor_stays(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let in_use = ErrorKind::InUse(Resource::Flavor);
    bench.register(["a", "b", "free"]).await?;
    bench
        .save_flavor("f ü", &["a", "b"], MembershipChange::Add)
        .await?;
    assert!(store.delete_pool(&pool_name("a")).await?);
    let before = bench.pool("b").await?;
    let last = store.delete_pool(&pool_name("b")).await;
    refused_over(last, in_use, "flavor", "f ü")?;
    assert_eq!(bench.pool("b").await?, before);
    assert!(store.delete_pool(&pool_name("free")).await?);
    Ok(())
}

async fn one_of_the_last_two_pools_stays(bench: Bench) -> Outcome {
    for round in 0..10 {
        let names = [format!("{round} a"), format!("{round} b")];
        bench.register([&names[0], &names[1]]).await?;
        let flavor = format!("f{round}");
        bench
            .save_flavor(&flavor, &[&names[0], &names[1]], MembershipChange::Add)
            .await?;
        let deleted = together(names.map(|name| {
            let bench = bench.clone();
            async move { Ok(bench.management()?.delete_pool(&pool_name(&name)).await) }
        }));
        let deleted = deleted.await?;
        assert_eq!(deleted.iter().filter(|gone| gone.is_ok()).count(), 1);
        assert_eq!(bench.members(&flavor).await?.len(), 1);
    }
    Ok(())
}

async fn a_pool_of_no_flavor_that_exists_may_go(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let lonely = Pool {
        flavor: Some(flavor_name("nowhere")),
        ..pool("p")
    };
    store.save_pool(&lonely, None).await?;
    assert!(store.delete_pool(&lonely.name).await?);
    Ok(())
}

async fn a_pool_may_leave_its_flavor_empty(bench: Bench) -> Outcome {
    let store = bench.management()?;
    bench.register(["p"]).await?;
    bench
        .save_flavor("f", &["p"], MembershipChange::Add)
        .await?;
    let version = bench.pool("p").await?.version;
    assert!(store.save_pool(&pool("p"), Some(version)).await?.is_some());
    assert!(bench.members("f").await?.is_empty());
    assert_eq!(bench.flavors(None, 10).await?, ["f"]);
    assert!(store.delete_pool(&pool_name("p")).await?);
    Ok(())
}

async fn a_deleted_flavor_lets_its_pools_go(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let project = &bench.queue.project;
    assert!(!store.delete_flavor(project, &flavor_name("f")).await?);
    bench.register(["a", "b", "c"]).await?;
    bench
        .save_flavor("f", &["a", "b"], MembershipChange::Add)
        .await?;
    bench
        .save_flavor("g", &["c"], MembershipChange::Add)
        .await?;
    assert!(store.delete_flavor(project, &flavor_name("f")).await?);
    assert_eq!(store.find_flavor(&flavor_name("f")).await?, None);
    assert_eq!(bench.flavors(None, 10).await?, ["g"]);
    assert_eq!(bench.pool("a").await?.pool, pool("a"));
    assert_eq!(bench.pool("b").await?.pool, pool("b"));
    assert_eq!(bench.members("g").await?, ["c"]);
    assert!(!store.delete_flavor(project, &flavor_name("f")).await?);
    assert!(store.delete_pool(&pool_name("a")).await?);
    let stranger = bench.at("stranger", "q");
    stranger
        .save_flavor("f", &["b"], MembershipChange::Add)
        .await?;
    assert_eq!(stranger.flavors(None, 10).await?, ["f"]);
    Ok(())
}

async fn a_flavor_is_deleted_by_its_project_alone(bench: Bench) -> Outcome {
    let store = bench.management()?;
    bench.register(["a"]).await?;
    bench
        .save_flavor("f", &["a"], MembershipChange::Add)
        .await?;
    let before = bench.pool("a").await?;
    let stranger = ProjectId::parse("stranger").expect("a project");
    assert!(!store.delete_flavor(&stranger, &flavor_name("f")).await?);
    assert_eq!(bench.flavors(None, 10).await?, ["f"]);
    assert_eq!(bench.pool("a").await?, before);
    Ok(())
}

async fn flavors_are_listed_by_project(bench: Bench) -> Outcome {
    bench.register(["p"]).await?;
    let ordered = [" ", "10", "9", "A", "a", "a b", "a/b", "b", "~", "ü"];
    for at in [7, 9, 0, 3, 1, 5, 2, 4, 8, 6] {
        bench
            .save_flavor(ordered[at], &["p"], MembershipChange::Add)
            .await?;
    }
    for project in [
        "projec",
        "project ",
        "project/a",
        "project%2F",
        "Project",
        "project\0",
    ] {
        let other = bench.at(project, "q");
        let theirs = format!("of {project:?}");
        other
            .save_flavor(&theirs, &["p"], MembershipChange::Add)
            .await?;
        assert_eq!(other.flavors(None, 10).await?, [theirs]);
    }
    assert_eq!(bench.flavors(None, 100).await?, ordered);
    let mut seen: Vec<String> = Vec::new();
    while seen.len() <= ordered.len() {
        let page = bench.flavors(seen.last().map(String::as_str), 3).await?;
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 3);
        seen.extend(page);
    }
    assert_eq!(seen, ordered);
    assert_eq!(bench.flavors(Some("a0"), 1).await?, ["b"]);
    assert!(bench.flavors(Some("🦀"), 10).await?.is_empty());
    Ok(())
}

async fn strange_names_of_flavors_are_told_apart(bench: Bench) -> Outcome {
    let names = [
        "f", "F", "f ", "f/", "é", "e\u{301}", "%", "*", "{f}", "'", "🦀",
    ];
    for name in names {
        let pool = format!("pool of {name}");
        bench.register([&pool]).await?;
        bench
            .save_flavor(name, &[&pool], MembershipChange::Replace)
            .await?;
    }
    for name in names {
        assert_eq!(bench.members(name).await?, [format!("pool of {name}")]);
    }
    Ok(())
}

async fn pools_and_flavors_are_kept(bench: Bench) -> Outcome {
    bench.register(["a", "b"]).await?;
    bench
        .save_flavor("f", &["b"], MembershipChange::Add)
        .await?;
    let before = bench.management()?.list_pools(None, 10).await?;
    let bench = bench.reopen().await?;
    let store = bench.management()?;
    assert_eq!(store.list_pools(None, 10).await?, before);
    assert_eq!(bench.flavors(None, 10).await?, ["f"]);
    assert_eq!(before[1].pool.flavor, Some(flavor_name("f")));
    Ok(())
}
