//! The pools as they are registered, and which of them takes a new queue.

use isimud_contract::{Flavor, FlavorName, Pool, PoolName, PoolRecord, StoreId};

use super::Random;

/// Every pool, sorted by name.
#[derive(Debug, Default)]
pub(crate) struct PoolRegistry(Vec<PoolRecord>);

impl PoolRegistry {
    /// From pools in any order.
    pub(crate) fn new(mut pools: Vec<PoolRecord>) -> Self {
        pools.sort_by(|one, other| one.pool.name.cmp(&other.pool.name));
        Self(pools)
    }

    pub(crate) fn find(&self, name: &PoolName) -> Option<&Pool> {
        let found = self
            .0
            .binary_search_by(|record| record.pool.name.cmp(name))
            .ok()?;
        Some(&self.0[found].pool)
    }

    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.0.iter().map(|record| &record.pool)
    }

    /// The pools of a flavor, or those of none.
    pub(crate) fn members(&self, flavor: Option<&FlavorName>) -> impl Iterator<Item = &Pool> {
        let is_member = move |pool: &&Pool| pool.flavor.as_ref() == flavor;
        self.pools().filter(is_member)
    }

    /// Chooses one of the pools of a flavor, or of none, at random in proportion to their weights (spec:
    /// pools-flavors.md 1). `None` when no pool takes queues.
    pub(super) fn choose_weighted(
        &self,
        flavor: Option<&FlavorName>,
        random: &Random,
    ) -> Option<&Pool> {
        let weights = self.members(flavor).map(|pool| u64::from(pool.weight));
        let all = weights.sum();
        if all == 0 {
            return None;
        }
        let mut left = random(all);
        self.members(flavor).find(|pool| {
            let weight = u64::from(pool.weight);
            let hit = left < weight;
            left = left.saturating_sub(weight);
            hit
        })
    }

    /// Whether a store is one that queues of a flavor, or of none, belong in.
    pub(super) fn fits(&self, store_id: &StoreId, flavor: Option<&Flavor>) -> bool {
        let wanted = flavor.map(|flavor| &flavor.name);
        match store_id {
            StoreId::Default => wanted.is_none(),
            StoreId::Pool(name) => self
                .find(name)
                .is_some_and(|pool| pool.flavor.as_ref() == wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use isimud_contract::Metadata;

    use super::*;

    fn pool(name: &str, weight: u32, flavor: Option<&str>) -> PoolRecord {
        let flavor = flavor.map(|flavor| FlavorName::parse(flavor).expect("a name"));
        PoolRecord {
            pool: Pool {
                name: PoolName::parse(name).expect("a name"),
                uri: format!("sqlite:{name}"),
                weight,
                flavor,
                options: Metadata::new(),
            },
            version: 1,
        }
    }

    fn chosen(registry: &PoolRegistry, flavor: Option<&str>, number: u64) -> Option<String> {
        let flavor = flavor.map(|flavor| FlavorName::parse(flavor).expect("a name"));
        let random: Random = Arc::new(move |_| number);
        let pool = registry.choose_weighted(flavor.as_ref(), &random)?;
        Some(pool.name.to_string())
    }

    #[test]
    fn every_number_below_the_sum_of_weights_has_its_pool() {
        let registry = PoolRegistry::new(vec![
            pool("a", 1, None),
            pool("b", 0, None),
            pool("c", 2, None),
            pool("d", 7, Some("f")),
            pool("e", 7, None),
        ]);
        let mut shares: BTreeMap<String, u64> = BTreeMap::new();
        for number in 0..10 {
            *shares
                .entry(chosen(&registry, None, number).expect("a pool"))
                .or_default() += 1;
        }
        let shares: Vec<_> = shares.into_iter().collect();
        assert_eq!(shares, [("a".into(), 1), ("c".into(), 2), ("e".into(), 7)]);
    }

    #[test]
    fn a_flavor_has_its_own_pools_only() {
        let registry = PoolRegistry::new(vec![
            pool("a", 5, None),
            pool("b", 5, Some("f")),
            pool("c", 0, Some("g")),
        ]);
        for number in 0..5 {
            assert_eq!(chosen(&registry, Some("f"), number).as_deref(), Some("b"));
            assert_eq!(chosen(&registry, None, number).as_deref(), Some("a"));
        }
        assert_eq!(chosen(&registry, Some("g"), 0), None);
        assert_eq!(chosen(&registry, Some("unknown"), 0), None);
    }

    #[test]
    fn the_heaviest_weights_do_not_overflow() {
        let pools = ["a", "b", "c"].map(|name| pool(name, u32::MAX, None));
        let registry = PoolRegistry::new(pools.into());
        let last = 3 * u64::from(u32::MAX) - 1;
        assert_eq!(chosen(&registry, None, last).as_deref(), Some("c"));
    }
}
