//! What stores log, shown in tests.

use tracing_subscriber::EnvFilter;

/// Shows on standard error what stores log from now on, as far as the environment variable `RUST_LOG` asks for it
/// (`RUST_LOG=isimud_redis=debug`); nothing without it. May be called again.
pub fn show_logs() {
    if std::env::var_os(EnvFilter::DEFAULT_ENV).is_none() {
        return;
    }
    let shown = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .try_init();
    // Another test of this process has done it.
    drop(shown);
}
