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
    async fn save_pool(&self, _: &Pool, _: Option<u64>) -> Result<Option<u64>> {
        Ok(None)
    }
    async fn delete_pool(&self, _: &PoolName) -> Result<bool> {
        Ok(false)
    }
    async fn save_flavor(&self, _: &Flavor, _: &[PoolName], _: Members) -> Result<()> {
        Ok(())
    }
    async fn list_flavors(&self, _: &ProjectId, _: Option<&str>, _: usize) -> Result<Vec<Flavor>> {
        Ok(Vec::new())
    }
    async fn delete_flavor(&self, _: &ProjectId, _: &FlavorName) -> Result<bool> {
        Ok(false)
    }
    async fn find_pool(&self, _: &PoolName) -> Result<Option<PoolRecord>> {
        Ok(None)
    }
}
impl PendingPools for dyn ManagementStore {}
