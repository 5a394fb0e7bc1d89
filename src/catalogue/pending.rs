//! Until the stores keep pools: there are none.
use isimud_contract::*;

#[async_trait::async_trait]
pub(crate) trait PendingPools {
    async fn list_pools(&self, _: Option<&str>, _: usize) -> Result<Vec<PoolRecord>> {
        Ok(Vec::new())
    }
    async fn find_flavor(&self, _: &FlavorName) -> Result<Option<Flavor>> {
        Ok(None)
    }
    async fn find_pool(&self, _: &PoolName) -> Result<Option<PoolRecord>> {
        Ok(None)
    }
}
impl PendingPools for dyn ManagementStore {}
