//! Users and groups of this host by name, from the files themselves: the C library's look-ups load plug-ins,
//! which a static binary cannot, and may ask servers that do not answer.

use std::path::Path;

use crate::config::file;

/// The user and the group that the packaged agent runs as.
pub const OURS: &str = "procprobe";

/// The number of a user; `None` if there is none by that name.
pub fn uid(name: &str) -> Option<u32> {
    Some(user(name)?.0)
}

/// The numbers of a user and of its own group; `None` if there is none by that name.
pub fn user(name: &str) -> Option<(u32, u32)> {
    numbers(&file::read_text(Path::new("/etc/passwd")).ok()?, name)
}

/// The number of a group; `None` if there is none by that name.
pub fn gid(name: &str) -> Option<u32> {
    number(&file::read_text(Path::new("/etc/group")).ok()?, name)
}

/// The name of a user, or its number.
pub fn user_name(uid: u32) -> String {
    let users = file::read_text(Path::new("/etc/passwd")).unwrap_or_default();
    let name = users.lines().find(|line| {
        let id = line.split(':').nth(2).and_then(|id| id.parse().ok());
        id == Some(uid)
    });
    let name = name.and_then(|line| line.split(':').next());
    name.map_or_else(
        || format!("uid {uid}"),
        |name| crate::model::escape(name.as_bytes()),
    )
}

/// The third and the fourth field of a user's line.
fn numbers(text: &str, name: &str) -> Option<(u32, u32)> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The third field of the line that begins with a name: both files have the number there.
fn number(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_the_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/sh\nprocprobes:x:7:\nprocprobe:x:998:joe\nbad\n:::\n";
        assert_eq!(number(text, "procprobe"), Some(998));
        assert_eq!(number(text, "root"), Some(0));
        assert_eq!(number(text, "proc"), None);
        assert_eq!(number(text, "bad"), None);
        assert_eq!(numbers(text, "root"), Some((0, 0)));
        assert_eq!(numbers(text, "procprobes"), None, "no group");
        assert_eq!(uid("root"), Some(0));
        assert_eq!(user_name(0), "root");
    }
}
