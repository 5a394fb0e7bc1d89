//! Names of hosts to addresses, by the machine's own resolver: `/etc/hosts`, search domains and all the rest.
//!
//! That resolver blocks, and a name server that is silent makes it block for half a minute. So lookups have threads of
//! their own, not those of the runtime, which files and the embedded store need: so many, of which a project may have a
//! few. A lookup is waited for a few seconds; a name that could not be resolved, or is still being looked up after that
//! time, fails at once until a while later.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isimud_contract::ProjectId;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use super::budget::Shares;

/// Lookups at once.
const MAX_CONCURRENT: usize = 64;
/// Lookups at once of one project.
const MAX_PER_PROJECT: usize = 8;
/// How long a lookup is waited for.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// For how long a name that could not be resolved is not looked up again.
const FAILURE_CACHE_TTL: Duration = Duration::from_secs(30);
/// Names that are remembered for it.
const CACHE_CAPACITY: usize = 4096;
/// The stack of a thread that looks up: what the C library needs, and more.
const STACK_BYTES: usize = 512 << 10;

type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What is known of a name.
#[derive(Debug, Clone, Copy)]
enum CachedLookup {
    /// It is being looked up, since then.
    Pending(Instant),
    /// It could not be resolved then.
    Failed(Instant),
}

/// Resolves names.
pub(crate) struct Resolver {
    lookup: Arc<Lookup>,
    threads: Arc<Semaphore>,
    shares: Shares<ProjectId>,
    names: Arc<Mutex<HashMap<String, CachedLookup>>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(Arc::new(|host| {
            Ok((host, 0)
                .to_socket_addrs()?
                .map(|found| found.ip())
                .collect())
        }))
    }
}

impl Resolver {
    fn new(lookup: Arc<Lookup>) -> Self {
        Self {
            lookup,
            threads: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            shares: Shares::new(MAX_PER_PROJECT),
            names: Arc::default(),
        }
    }

    /// The addresses of a host, looked up for a project.
    pub(crate) async fn resolve(&self, project: &ProjectId, host: &str) -> io::Result<Vec<IpAddr>> {
        timeout(LOOKUP_TIMEOUT, self.look_up(project, host))
            .await
            .unwrap_or_else(|_| Err(fault("its name is not resolved in time")))
    }

    async fn look_up(&self, project: &ProjectId, host: &str) -> io::Result<Vec<IpAddr>> {
        self.check(host)?;
        let ended = |_| fault("the service ends");
        let share = self.shares.of(project).acquire_owned().await;
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        let permits = (share.map_err(ended)?, thread.map_err(ended)?);
        // Others of the project may have found out meanwhile.
        self.check(host)?;
        self.note(host, Some(CachedLookup::Pending(Instant::now())));
        let (say, said) = oneshot::channel();
        let (lookup, names, name) = (
            Arc::clone(&self.lookup),
            Arc::clone(&self.names),
            host.to_owned(),
        );
        let looking = move || {
            let found = lookup(&name);
            let known = match &found {
                Ok(_) => None,
                Err(_) => Some(CachedLookup::Failed(Instant::now())),
            };
            note(&names, &name, known);
            // Nobody may wait for it any more.
            drop(say.send(found));
            drop(permits);
        };
        let thread = std::thread::Builder::new()
            .name("resolver".to_owned())
            .stack_size(STACK_BYTES);
        thread.spawn(looking)?;
        said.await
            .unwrap_or_else(|_| Err(fault("its name is not resolved")))
    }

    /// Refuses a name that was of no use a moment ago.
    fn check(&self, host: &str) -> io::Result<()> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(host) {
            Some(CachedLookup::Failed(when)) if when.elapsed() < FAILURE_CACHE_TTL => {
                Err(fault("its name could not be resolved a moment ago"))
            }
            Some(CachedLookup::Pending(since)) if since.elapsed() > LOOKUP_TIMEOUT => {
                Err(fault("its name is being looked up for too long"))
            }
            _ => Ok(()),
        }
    }

    fn note(&self, host: &str, known: Option<CachedLookup>) {
        note(&self.names, host, known);
    }
}

fn fault(sentence: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, sentence)
}

/// Remembers what is known of a name, or forgets it.
fn note(names: &Mutex<HashMap<String, CachedLookup>>, host: &str, known: Option<CachedLookup>) {
    let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(known) = known else {
        names.remove(host);
        return;
    };
    if names.len() >= CACHE_CAPACITY && !names.contains_key(host) {
        let still = |known: &CachedLookup| match known {
            CachedLookup::Pending(_) => true,
            CachedLookup::Failed(when) => when.elapsed() < FAILURE_CACHE_TTL,
        };
        names.retain(|_, known| still(known));
        if names.len() >= CACHE_CAPACITY {
            // Without room for it the name is looked up again, which its project pays for.
            return;
        }
    }
    // A second lookup does not make the first one younger.
    match (names.get(host), known) {
        (Some(CachedLookup::Pending(_)), CachedLookup::Pending(_)) => {}
        _ => drop(names.insert(host.to_owned(), known)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).expect("a project")
    }

    /// Names that begin with `silent` take longer than anybody waits, those with `no` do not exist.
    fn resolver(count: &Arc<AtomicUsize>) -> Arc<Resolver> {
        let count = Arc::clone(count);
        Arc::new(Resolver::new(Arc::new(move |host| {
            count.fetch_add(1, Ordering::SeqCst);
            if host.starts_with("silent") {
                std::thread::sleep(LOOKUP_TIMEOUT * 3);
            }
            if host.starts_with("no") {
                return Err(io::Error::other("no such name"));
            }
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        })))
    }

    #[tokio::test]
    async fn silent_name_servers_of_one_project_delay_no_other() {
        let count = Arc::new(AtomicUsize::new(0));
        let resolver = resolver(&count);
        for number in 0..1200 {
            let (resolver, host) = (Arc::clone(&resolver), format!("silent-{number}"));
            tokio::spawn(async move { resolver.resolve(&project("hostile"), &host).await });
        }
        while count.load(Ordering::SeqCst) < MAX_PER_PROJECT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let start = Instant::now();
        for number in 0..20 {
            let host = format!("host-{number}");
            let found = resolver.resolve(&project("victim"), &host).await;
            assert_eq!(found.expect("an address").len(), 1);
        }
        assert!(start.elapsed() < Duration::from_secs(1));
        // Files and the store have the runtime's own threads.
        assert_eq!(count.load(Ordering::SeqCst), MAX_PER_PROJECT + 20);
    }

    #[tokio::test]
    async fn what_could_not_be_resolved_is_not_asked_for_again_at_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let resolver = resolver(&count);
        for _ in 0..10 {
            let found = resolver.resolve(&project("p"), "no-such").await;
            assert!(found.is_err());
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_names_that_are_remembered_are_bounded() {
        let names = Mutex::default();
        for number in 0..CACHE_CAPACITY * 2 {
            let failed = CachedLookup::Failed(Instant::now());
            note(&names, &format!("host-{number}"), Some(failed));
        }
        assert_eq!(names.lock().expect("unpoisoned").len(), CACHE_CAPACITY);
    }
}
