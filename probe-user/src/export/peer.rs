//! Who is at the other end of a connection.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use tokio::net::UnixStream;

/// Whom connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Somebody on this host, over TCP: nobody knows who.
    Loopback,
    /// Another host. Of IPv6 a whole /64, which is what one host gets.
    Host(IpAddr),
    /// A user of this host, over the socket.
    User(u32),
}

impl Peer {
    /// Of an address.
    pub fn of(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            ip if ip.is_loopback() => Self::Loopback,
            IpAddr::V6(ip) => {
                let network = ip.to_bits() & !u128::from(u64::MAX);
                Self::Host(IpAddr::V6(Ipv6Addr::from_bits(network)))
            }
            IpAddr::V4(ip) => Self::Host(IpAddr::V4(ip)),
        }
    }
}

/// Whom the socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The agent's own user.
    pub uid: u32,
    /// The socket's group.
    pub gid: u32,
}

/// A user at the other end of a socket, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// All its groups.
    pub groups: Vec<u32>,
}

impl Caller {
    /// Who connected: who it was at that moment, whatever it has become since.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut groups = supplementary(stream)?;
        groups.push(credentials.gid());
        Ok(Self {
            uid: credentials.uid(),
            groups,
        })
    }

    /// Whether it may see everything: root, the agent's own user, members of the socket's group. The socket's
    /// mode says the same, but can be changed by accident, and a descriptor handed on.
    pub fn is_trusted(&self, trusted: Trusted) -> bool {
        self.uid == 0 || self.uid == trusted.uid || self.groups.contains(&trusted.gid)
    }
}

/// More than the kernel lets anybody have (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;

/// The supplementary groups of who connected: `SO_PEERGROUPS`.
fn supplementary(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut length =
            libc::socklen_t::try_from(size_of_val(groups.as_slice())).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the buffer is as long as `length` says, and the kernel writes no more than that.
        let outcome = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if outcome == 0 {
            groups.truncate(length as usize / size_of::<u32>());
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        let wanted = length as usize / size_of::<u32>();
        if error.raw_os_error() != Some(libc::ERANGE) || wanted > MOST_GROUPS {
            return Err(error);
        }
        groups.resize(wanted, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_who_can_make_them() {
        let peer = |text: &str| Peer::of(text.parse().unwrap());
        assert_eq!(peer("127.0.0.1:1"), Peer::Loopback);
        assert_eq!(peer("127.8.0.1:1"), Peer::Loopback);
        assert_eq!(peer("[::1]:1"), Peer::Loopback);
        assert_eq!(peer("[::ffff:127.0.0.1]:1"), Peer::Loopback);
        assert_eq!(peer("[2001:db8::1]:1"), peer("[2001:db8::2:3:4:5]:9"));
        assert_ne!(peer("[2001:db8::1]:1"), peer("[2001:db8:0:1::1]:1"));
        assert_ne!(peer("10.0.0.1:1"), peer("10.0.0.2:1"));
    }

    #[test]
    fn root_the_agents_user_and_the_group_are_trusted_and_nobody_else() {
        let trusted = Trusted { uid: 998, gid: 997 };
        let may = |uid, groups: &[u32]| {
            let groups = groups.to_vec();
            Caller { uid, groups }.is_trusted(trusted)
        };
        assert!(may(0, &[0]) && may(998, &[5]) && may(1000, &[1000, 997]));
        assert!(!may(1000, &[1000, 27]) && !may(997, &[998]) && !may(65534, &[65534]));
    }

    #[tokio::test]
    async fn the_kernel_says_who_connected() {
        let (one, _other) = UnixStream::pair().unwrap();
        let caller = Caller::of(&one).unwrap();
        // SAFETY: no arguments, cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        assert_eq!(caller.uid, uid);
        assert!(caller.groups.contains(&gid));
    }
}
