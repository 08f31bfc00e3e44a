//! Whose code an address in a file is, as the namer says; remembered for each file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::model::escape;
use crate::model::locks::site::{Library, Site};
use crate::namer::file::{FileId, open_below};
use crate::namer::protocol::{Answer, FileKey, Question, SiteAnswer};
use crate::namer::{self};

/// Places that are remembered; beyond that all are forgotten and asked for again.
const REMEMBERED: usize = 65_536;

/// What was found out about files. Locked for moments only: opening a file may take for ever.
#[derive(Default)]
pub struct CodeCache {
    known: Mutex<HashMap<(FileKey, u64), Site>>,
}

impl CodeCache {
    /// The site at a byte of a file; `path` is where it can be opened, `/proc/PID/root/…`.
    pub fn site(&self, id: FileId, offset: u64, path: &Path) -> Site {
        let Ok(file) = open_below(path, id) else {
            return Site::UNREAD;
        };
        let place = (file.key, offset);
        if let Some(known) = self.known().get(&place) {
            return known.clone();
        }
        let answer = namer::shared().ask(Question::Sites(vec![offset]), &[Some(file)]);
        let site = match answer {
            Some(Answer::Sites(sites)) => sites.and_then(|sites| sites.into_iter().next()).map(site),
            // Late or dead: another look asks again.
            _ => return Site::UNREAD,
        };
        let site = site.unwrap_or(Site::UNREAD);
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(place, site.clone());
        site
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(FileKey, u64), Site>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn site(answer: SiteAnswer) -> Site {
    Site {
        library: Library::from(answer.library),
        function: answer.function.map(|name| escape(name.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::address_space::tests::mapping_of;
    use super::*;

    fn site_of(address: u64) -> Site {
        let (path, offset, id) = mapping_of(address);
        let path = PathBuf::from("/proc/self/root").join(path.strip_prefix("/").unwrap());
        CodeCache::default().site(id, offset, &path)
    }

    /// This test's own C library, found as the agent finds it.
    #[test]
    fn the_exported_syscall_is_not_the_librarys_own_code() {
        let site = site_of(libc::syscall as *const () as u64);
        assert_eq!(
            (site.library, site.function.as_deref()),
            (Library::Syscall, Some("syscall"))
        );
        let site = site_of(libc::pthread_mutex_lock as *const () as u64);
        assert_eq!(site.library, Library::Glibc);
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        let (_, _, id) = mapping_of(libc::syscall as *const () as u64);
        for path in ["nothing", "dev/zero", "proc/self/status", "etc/passwd"] {
            let path = Path::new("/proc/self/root").join(path);
            assert_eq!(CodeCache::default().site(id, 0, &path), Site::UNREAD);
        }
    }
}
