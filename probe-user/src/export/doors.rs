//! Where the agent listens: what the service manager holds for it, and what it opens itself.
//!
//! A port that is bound with the agent's start is free while it restarts, for anybody to take and to answer
//! in its place. A socket unit keeps it.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::accounts;
use super::peer::Trusted;
use crate::config::{Config, DEFAULT_SOCKET, NO_SOCKET};
use crate::confine::user::{self, User};

/// Root and the group may connect, and nobody else.
const MODE: u32 = 0o660;

/// All that the agent listens on.
#[derive(Debug, Default)]
pub struct Doors {
    /// Addresses.
    pub tcp: Vec<TcpListener>,
    /// Sockets, and whom they are for.
    pub unix: Vec<(UnixListener, Trusted)>,
    /// Why there is no socket, for a person to know once the agent serves.
    pub lacking: Option<String>,
    /// The socket that was made here, to be removed at the end.
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    path: PathBuf,
    inode: u64,
}

impl Doors {
    /// Takes what the service manager holds, and opens the rest of what the configuration wants.
    ///
    /// # Errors
    /// One line on the address or the socket that cannot be had.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let mut doors = Self::default();
        for descriptor in inherited()? {
            doors.take(descriptor)?;
        }
        let is_held = |listener: &TcpListener| listener.local_addr().is_ok_and(|held| held == config.listen);
        if !doors.tcp.iter().any(is_held) {
            let is_first = doors.tcp.is_empty();
            doors.tcp.push(bind(config.listen, is_first)?);
        }
        if doors.unix.is_empty() && config.socket != Path::new(NO_SOCKET) {
            doors.open_socket(&config.socket)?;
        }
        for listener in &doors.tcp {
            listener.set_nonblocking(true)?;
        }
        for (listener, _) in &doors.unix {
            listener.set_nonblocking(true)?;
        }
        Ok(doors)
    }

    /// A descriptor of the service manager's.
    fn take(&mut self, descriptor: OwnedFd) -> anyhow::Result<()> {
        let listener = UnixListener::from(descriptor.try_clone()?);
        if let Ok(address) = listener.local_addr() {
            // Who may connect is the unit's business (SocketGroup=): the file has it.
            let gid = address
                .as_pathname()
                .and_then(|path| Some(fs::metadata(path).ok()?.gid()));
            self.unix.push((listener, trusted(gid.unwrap_or(0))));
            return Ok(());
        }
        let listener = TcpListener::from(descriptor);
        let address = listener.local_addr().map_err(|error| {
            anyhow::anyhow!("the service manager handed over something that is no listening socket: {error}")
        })?;
        tracing::info!("the service manager holds {address}");
        self.tcp.push(listener);
        Ok(())
    }

    /// Makes the socket. The usual one may be impossible or another agent's; the agent then serves without,
    /// and says so.
    fn open_socket(&mut self, path: &Path) -> anyhow::Result<()> {
        match make(path) {
            Ok((listener, made)) => {
                self.unix.push((listener, trusted(made.1)));
                self.made = Some(made.0);
                Ok(())
            }
            Err(error) if path == Path::new(DEFAULT_SOCKET) => {
                if error.kind() == io::ErrorKind::AddrInUse {
                    tracing::info!("no socket: {} is another agent's", path.display());
                } else {
                    self.lacking = Some(format!(
                        "no socket at {}: {error} (socket = \"none\" leaves it out)",
                        path.display()
                    ));
                }
                Ok(())
            }
            Err(error) => Err(anyhow::anyhow!(
                "cannot listen on {}: {error} (choose another path with --socket, or none)",
                path.display()
            )),
        }
    }
}

impl Drop for Doors {
    /// Removes the socket, if it is still this one.
    fn drop(&mut self) {
        if let Some(made) = &self.made
            && fs::symlink_metadata(&made.path).is_ok_and(|found| found.ino() == made.inode)
        {
            let _ = fs::remove_file(&made.path);
        }
    }
}

fn trusted(gid: u32) -> Trusted {
    // SAFETY: no arguments, cannot fail.
    let uid = unsafe { libc::geteuid() };
    Trusted { uid, gid }
}

/// What the service manager handed over (`LISTEN_FDS`).
fn inherited() -> io::Result<Vec<OwnedFd>> {
    let descriptors = sd_notify::listen_fds()?;
    // SAFETY: the service manager opened them for this process alone, which takes them once, here, before it
    // opens any descriptor of its own under those numbers.
    Ok(descriptors
        .map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
        .collect())
}

fn bind(address: SocketAddr, is_only: bool) -> anyhow::Result<TcpListener> {
    let remedy = if is_only {
        "is another agent running? choose another with --listen"
    } else {
        "procprobe.socket holds another address: systemctl edit procprobe.socket, or systemctl mask --now it"
    };
    TcpListener::bind(address)
        .map_err(|error| anyhow::anyhow!("cannot listen on {address}: {error} ({remedy})"))
}

/// Makes a socket that is right from the moment it can be seen: under another name first. One that nobody
/// listens at any more is replaced.
fn make(path: &Path) -> io::Result<(UnixListener, (Made, u32))> {
    if let Some(directory) = path.parent().filter(|_| path == Path::new(DEFAULT_SOCKET)) {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) => prepare(directory)?,
            Err(_) => {}
        }
    }
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) => {}
        Err(error) => return Err(error),
    }
    if fs::symlink_metadata(path).is_ok_and(|found| !is_socket(&found)) {
        return Err(io::Error::other("there is something else by that name"));
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let made = bind_socket(&temporary, path);
    if made.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    made
}

/// A directory that was made just now: everybody finds the socket there, and the user that a root agent
/// becomes can remove it at the end. Without that it stays, and the next agent replaces it.
fn prepare(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    if let User::Ours(uid) = user::planned() {
        lchown(directory, Some(uid), None)?;
    }
    Ok(())
}

/// The directory may be another user's, who could put a link in the place of the socket between two steps:
/// what was made is held, and changed by that.
fn bind_socket(temporary: &Path, path: &Path) -> io::Result<(UnixListener, (Made, u32))> {
    let _ = fs::remove_file(temporary);
    let listener = UnixListener::bind(temporary)?;
    let held = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(temporary)?;
    if !is_socket(&held.metadata()?) {
        return Err(io::Error::other("somebody put something else in its place"));
    }
    let made = format!("/proc/self/fd/{}", held.as_raw_fd());
    let group = accounts::gid(accounts::OURS);
    // Who is in no such group cannot give the socket to it; then it stays its own.
    if let Some(gid) = group {
        let _ = chown(&made, None, Some(gid));
    }
    fs::set_permissions(&made, fs::Permissions::from_mode(MODE))?;
    let found = held.metadata()?;
    fs::rename(temporary, path)?;
    let made = Made {
        path: path.to_owned(),
        inode: found.ino(),
    };
    Ok((listener, (made, found.gid())))
}

fn is_socket(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    found.file_type().is_socket()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_its_group_replaces_a_dead_one_and_respects_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            socket: path.clone(),
            ..Config::default()
        };
        let doors = Doors::open(&config).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing beside it"
        );
        let refused = Doors::open(&config).unwrap_err().to_string();
        assert!(refused.contains("--socket"), "another agent has it: {refused}");
        drop(doors);
        assert!(!path.exists(), "removed at the end");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind by somebody who was killed");
        drop(Doors::open(&config).unwrap());
        fs::write(&path, "a file").unwrap();
        assert!(Doors::open(&config).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
    }
}
