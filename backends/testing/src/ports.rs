//! Ports for the servers of tests.
//!
//! A server is a while in starting, and away where a test kills it; whoever looked for a free port meanwhile would find its.
//! So a port is reserved, by the lock of a file, until the program ends that asked for it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The locks of this program.
static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Reserves a port on which nobody listens, nor on those so far above it that are named. Take a range below 32,768, from
/// where on the system gives ports to whoever asks for any.
pub(crate) fn reserve(range: Range<u16>, above: &[u16]) -> Result<u16, String> {
    let folder = std::env::temp_dir().join("isimud-ports");
    fs::create_dir_all(&folder).ok();
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..200 {
        let port = fastrand::u16(range.clone());
        // Where the files are another user's, ports are his too, and nothing is reserved.
        let lock = File::create(folder.join(port.to_string())).ok();
        let is_mine = lock.as_ref().is_none_or(|lock| lock.try_lock().is_ok());
        if is_mine && is_free(port) && above.iter().all(|it| is_free(port + it)) {
            let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
            reserved.extend(lock);
            return Ok(port);
        }
    }
    Err(format!("no port of {range:?} is free"))
}
