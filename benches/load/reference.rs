//! The reference implementation, from a virtual environment: its WSGI application under uWSGI, on the bench's Redis.
//!
//! uWSGI with a thread a connection cost it a third less than gunicorn did, so that is what it is compared with. Two
//! processes, since the machine of the first figures had two cores.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::Result;

/// Messages that a claim may take: with the default of 20, preparing the comparison of depth would take an hour.
const MAX_BATCH: usize = 1_000;

const PROCESSES: u16 = 2;

/// Reads its configuration from the file beside it. The module that it comes with looks in the standard places only.
const APPLICATION: &str = "\
from oslo_config import cfg
from oslo_log import log
from zaqar import bootstrap

log.register_options(cfg.CONF)
cfg.CONF(project='zaqar', prog='zaqar-queues', args=['--config-file', 'zaqar.conf'])
log.setup(cfg.CONF, 'zaqar')
application = bootstrap.Bootstrap(cfg.CONF).transport.app
";

/// Writes what it needs into `home`, and returns the command that serves it there.
pub(crate) fn command(
    address: SocketAddr,
    redis: SocketAddr,
    connections: u16,
    venv: &Path,
    home: &Path,
) -> Result<Command> {
    let uwsgi = venv.join("bin/uwsgi");
    if !uwsgi.exists() {
        let venv = venv.display();
        return Err(format!(
            "the reference is not in {venv}; scripts/bench --reference puts it there"
        )
        .into());
    }
    fs::write(home.join("zaqar.conf"), configuration(redis))?;
    fs::write(home.join("application.py"), APPLICATION)?;
    // A connection keeps its thread; some more for who looks whether it is up.
    let threads = connections.div_ceil(PROCESSES) + 2;
    let mut command = Command::new(uwsgi);
    command
        .args(["--http11-socket", &address.to_string()])
        .args(["--processes", &PROCESSES.to_string()])
        .args(["--threads", &threads.to_string()])
        .args(["--wsgi-file", "application.py"])
        // A connection is idle while the other servers have their turns.
        .args(["--socket-timeout", "3600"])
        .args([
            "--master",
            "--lazy-apps",
            "--die-on-term",
            "--disable-logging",
        ]);
    Ok(command)
}

fn configuration(redis: SocketAddr) -> String {
    let store = format!("uri = redis://{redis}?dbid=2&socket_timeout=600");
    format!(
        "[DEFAULT]\nauth_strategy =\nunreliable = true\npooling = false\n\
         [drivers]\nmessage_store = redis\nmanagement_store = redis\n\
         [drivers:message_store:redis]\n{store}\n\
         [drivers:management_store:redis]\n{store}\n\
         [transport]\nmax_messages_per_claim_or_pop = {MAX_BATCH}\n"
    )
}
