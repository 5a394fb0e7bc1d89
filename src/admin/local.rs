//! The token for commands of the machine that the service runs on.
//!
//! At its start a server writes a token of its own into a file that only its user can read, and takes it back when it
//! ends. A command that asks an address of this machine looks for the file, so that whoever may read the files of the
//! service may operate it, and nobody else: a web page and another user cannot. It counts only for connections of
//! this machine, and ends with the process: one that a killed server leaves behind opens nothing.
//!
//! The folder is the first of these that there is: `$RUNTIME_DIRECTORY` (what systemd makes for `RuntimeDirectory=`),
//! `isimud` in `$XDG_RUNTIME_DIR`, `isimud-UID` among the temporary files. The last of them may have been made by somebody
//! else, so one that is not the user's own, or that others can enter, is not used.

use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::tokens::{self, Hash};

/// The longest file that is read, in bytes.
const LONGEST: u64 = 4096;

/// The token of this server, for as long as it runs.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) hash: Hash,
    file: PathBuf,
}

impl Local {
    /// Makes a token for the listener at an address, and writes it into its file.
    pub(super) fn lay(address: SocketAddr) -> Result<Self, String> {
        Self::lay_in(&folder(), address)
    }

    fn lay_in(folder: &Path, address: SocketAddr) -> Result<Self, String> {
        let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(wrong)?;
        // Not what a link leads to.
        let found = folder.symlink_metadata().map_err(wrong)?;
        let user = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != user || found.mode() & 0o022 != 0 {
            let why = "it is not a folder of this user's own that nobody else can write to";
            return Err(format!("{}: {why}", folder.display()));
        }
        let token = tokens::random()?;
        let file = folder.join(name(address.ip(), address.port()));
        let new = file.with_extension(format!("{}", std::process::id()));
        // A file that was left behind may be anybody's, and have any mode.
        drop(std::fs::remove_file(&new));
        let mut options = File::options();
        let mut opened = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(wrong)?;
        opened.write_all(token.as_bytes()).map_err(wrong)?;
        std::fs::rename(&new, &file).map_err(wrong)?;
        Ok(Self {
            hash: tokens::hash(&token),
            file,
        })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Another server may have the address by now, and its own token there.
        if read(&self.file).is_some_and(|token| tokens::hash(&token) == self.hash) {
            drop(std::fs::remove_file(&self.file));
        }
    }
}

/// The token with which a command of this machine may ask the listener at an address; `None` where there is none, or this
/// user may not read it.
pub fn find(address: SocketAddr) -> Option<String> {
    let (ip, port) = (address.ip().to_canonical(), address.port());
    if !ip.is_loopback() {
        return None;
    }
    // A listener at every address of IPv6 has those of IPv4 too, and not the other way round.
    let everywhere = Some(Ipv4Addr::UNSPECIFIED.into()).filter(|_| ip.is_ipv4());
    let names = [Some(ip), everywhere, Some(Ipv6Addr::UNSPECIFIED.into())];
    let names = names.into_iter().flatten();
    let names: Vec<String> = names.map(|ip| name(ip, port)).collect();
    let service = PathBuf::from("/run/isimud");
    let folders = [folder(), service, temporary()];
    let files = folders
        .iter()
        .filter(|folder| is_safe(folder))
        .flat_map(|folder| names.iter().map(|name| folder.join(name)));
    files.into_iter().find_map(|file| read(&file))
}

/// Whether nobody else can have laid something into a folder: it is the user's or the system's own, and no link.
fn is_safe(folder: &Path) -> bool {
    let Ok(found) = folder.symlink_metadata() else {
        return false;
    };
    let user = rustix::process::geteuid().as_raw();
    // The service has a user of its own, and its folder below /run can be made by root alone.
    let is_ours = found.uid() == user || found.uid() == 0 || folder.starts_with("/run");
    found.is_dir() && is_ours && found.mode() & 0o022 == 0
}

fn read(file: &Path) -> Option<String> {
    if !file.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    let opened = std::fs::File::open(file).ok()?;
    opened.take(LONGEST).read_to_string(&mut text).ok()?;
    let token = text.trim_end();
    (!token.is_empty()).then(|| token.to_owned())
}

fn name(ip: IpAddr, port: u16) -> String {
    let ip = ip.to_canonical().to_string().replace(':', "_");
    format!("admin-{ip}-{port}.token")
}

fn folder() -> PathBuf {
    let named = |variable: &str| {
        let value = std::env::var_os(variable).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    named("RUNTIME_DIRECTORY")
        .or_else(|| Some(named("XDG_RUNTIME_DIR")?.join("isimud")))
        .unwrap_or_else(temporary)
}

fn temporary() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("isimud-{user}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_token_lies_where_only_its_user_can_read_it_until_the_server_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("run");
        let first = Local::lay_in(&folder, address("127.0.0.1:9090")).expect("a token");
        let mode = |path: &Path| path.metadata().expect("it is there").mode() & 0o777;
        assert_eq!((mode(&folder), mode(&first.file)), (0o700, 0o600));
        let token = read(&first.file).expect("the token");
        assert_eq!(tokens::hash(&token), first.hash);
        // The next server at this address has another one, which the end of the first leaves alone.
        let second = Local::lay_in(&folder, address("127.0.0.1:9090")).expect("a token");
        assert_ne!(read(&second.file), Some(token));
        let file = second.file.clone();
        drop(first);
        assert!(file.exists());
        drop(second);
        assert!(!file.exists());
    }

    #[test]
    fn a_folder_that_others_can_write_to_or_that_is_a_link_gets_no_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = folder.path().join("open");
        std::fs::create_dir(&open).expect("a folder");
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&open, mode).expect("its mode");
        let link = folder.path().join("link");
        let own = folder.path().join("own");
        std::fs::create_dir(&own).expect("a folder");
        symlink(&own, &link).expect("a link");
        for wrong in [open, link] {
            Local::lay_in(&wrong, address("127.0.0.1:9090")).expect_err("it is not safe");
        }
        assert_eq!(std::fs::read_dir(own).expect("it is there").count(), 0);
    }

    #[test]
    fn what_another_user_can_have_laid_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("own");
        std::fs::create_dir(&own).expect("a folder");
        assert!(is_safe(&own));
        let link = folder.path().join("link");
        symlink(&own, &link).expect("a link");
        assert!(!is_safe(&link) && !is_safe(&folder.path().join("missing")));
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&own, mode).expect("its mode");
        assert!(!is_safe(&own));
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "token\n").expect("a file");
        assert_eq!(read(&secret).as_deref(), Some("token"));
        let linked = folder.path().join("linked");
        symlink(&secret, &linked).expect("a link");
        assert_eq!(read(&linked), None);
        // It would be read without an end.
        let zeros = folder.path().join("zeros");
        symlink("/dev/zero", &zeros).expect("a link");
        assert_eq!(read(&zeros), None);
        assert_eq!(read(folder.path()), None);
    }

    #[test]
    fn only_addresses_of_this_machine_have_one() {
        assert_eq!(find(address("192.0.2.1:9090")), None);
        assert_eq!(
            name(address("[::1]:9090").ip(), 9090),
            "admin-__1-9090.token"
        );
        assert_eq!(
            name(address("[::ffff:127.0.0.1]:1").ip(), 1),
            name(address("127.0.0.1:1").ip(), 1)
        );
    }
}
