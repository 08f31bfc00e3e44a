//! What the symbols of a file say of a place in its code, as the namer answers; remembered for each place.
//!
//! Whose code it is, the function that calls `syscall()` there, and how far from it `CPython` keeps its
//! state.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::reader::elsewhere;
use crate::model::escape;
use crate::model::locks::site::{Caller, Library, Site};
use crate::namer;
use crate::namer::file::{FileId, Refusal, open_below};
use crate::namer::protocol::{Answer, FileKey, Question, SiteAnswer, shortened};

/// Places that are remembered; beyond that all are forgotten and asked for again.
const REMEMBERED: usize = 65_536;

/// What was found out about files. Locked for moments only: opening a file may take for ever.
#[derive(Default)]
pub struct CodeCache {
    /// `None` where the file cannot be read.
    known: Mutex<HashMap<(FileKey, u64), Option<Place>>>,
}

/// The file could not be read now, which says nothing of it: another look asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNow;

/// One place in a file.
#[derive(Clone)]
struct Place {
    site: Site,
    caller: Caller,
    python: Option<(u64, u64)>,
    semaphores: Option<String>,
}

impl CodeCache {
    /// The site at a byte of a file; `path` is where it can be opened: through the `root` of a process's
    /// directory in /proc.
    ///
    /// # Errors
    /// [`NotNow`], as all of these.
    pub fn site(&self, id: FileId, offset: u64, path: &Path) -> Result<Site, NotNow> {
        let place = self.place(id, offset, path)?;
        Ok(place.map_or(Site::UNREAD, |place| place.site))
    }

    /// How far behind a byte of a file the state of `CPython` begins in memory and where it ends, modulo
    /// 2^64.
    ///
    /// # Errors
    /// [`NotNow`].
    pub fn python(&self, id: FileId, offset: u64, path: &Path) -> Result<Option<(u64, u64)>, NotNow> {
        Ok(self.place(id, offset, path)?.and_then(|place| place.python))
    }

    /// The function that waits at the semaphores of a program, if it has one that is known; the byte is any
    /// of it.
    ///
    /// # Errors
    /// [`NotNow`].
    pub fn semaphores(&self, id: FileId, offset: u64, path: &Path) -> Result<Option<Caller>, NotNow> {
        let place = self.place(id, offset, path)?;
        Ok(place.and_then(|place| {
            Some(Caller {
                function: Some(place.semaphores?),
                ..place.caller
            })
        }))
    }

    /// The function at a byte of a file, if it is one of those that wait by `syscall()`; as [`Self::site`].
    ///
    /// # Errors
    /// [`NotNow`].
    pub fn caller(&self, id: FileId, offset: u64, path: &Path) -> Result<Option<Caller>, NotNow> {
        Ok(self.place(id, offset, path)?.map(|place| place.caller))
    }

    fn place(&self, id: FileId, offset: u64, path: &Path) -> Result<Option<Place>, NotNow> {
        let file = match open_below(path, id) {
            Ok(file) => file,
            Err(Refusal::NotInMemory) => return Err(NotNow),
            Err(_) => return Ok(None),
        };
        let key = (file.key, offset);
        if let Some(known) = self.known().get(&key) {
            return Ok(known.clone());
        }
        let answer = elsewhere(|| namer::shared().ask(Question::Sites(vec![offset]), &[Some(file)]));
        let Some(Answer::Sites(sites)) = answer else {
            return Err(NotNow);
        };
        let place = sites.and_then(|sites| sites.into_iter().next()).map(place);
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, place.clone());
        Ok(place)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(FileKey, u64), Option<Place>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The namer may have been taken over by a file that it read: what it says is kept short here.
fn place(answer: SiteAnswer) -> Place {
    let text = |name: String| escape(shortened(name).as_bytes());
    Place {
        site: Site {
            library: Library::from(answer.library),
            function: answer.function.map(text),
            caller: None,
        },
        caller: Caller {
            function: answer.caller.map(text),
            has_symbols: answer.has_symbols,
        },
        python: answer.python,
        semaphores: answer.semaphores.map(text),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::address_space::tests::mapping_of;
    use super::*;

    /// What `CPython` calls its state, in this test.
    #[unsafe(export_name = "_PyRuntime")]
    static STATE: [u8; 48] = [1; 48];

    fn of<T>(address: u64, ask: impl Fn(CodeCache, FileId, u64, &Path) -> T) -> T {
        let (path, offset, id) = mapping_of(address);
        let path = PathBuf::from("/proc/self/root").join(path.strip_prefix("/").unwrap());
        ask(CodeCache::default(), id, offset, &path)
    }

    fn site_of(address: u64) -> Site {
        of(address, |code, id, offset, path| code.site(id, offset, path)).unwrap()
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
    fn the_state_of_python_is_found_from_any_place_in_the_file() {
        let state = (&raw const STATE).expose_provenance() as u64;
        let here = (site_of as *const ()).expose_provenance() as u64;
        let (start, end) = of(here, |code, id, offset, path| code.python(id, offset, path))
            .unwrap()
            .unwrap();
        assert_eq!(here.wrapping_add(start), state);
        assert_eq!(here.wrapping_add(end), state + 48);
    }

    /// This program has symbols, and none of its own functions waits by `syscall()`.
    #[test]
    fn a_function_that_does_not_wait_is_another_caller() {
        let here = (site_of as *const ()).expose_provenance() as u64;
        let caller = of(here, |code, id, offset, path| code.caller(id, offset, path));
        let expected = Caller {
            function: None,
            has_symbols: true,
        };
        assert_eq!(caller, Ok(Some(expected)));
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        let (_, _, id) = mapping_of(libc::syscall as *const () as u64);
        let root = Path::new("/proc/self/root");
        assert_eq!(
            CodeCache::default().site(id, 0, &root.join("nothing")),
            Err(NotNow),
            "or not in memory"
        );
        for path in ["dev/zero", "proc/self/status", "etc/passwd"] {
            let path = root.join(path);
            let code = CodeCache::default();
            assert_eq!(code.site(id, 0, &path), Ok(Site::UNREAD));
            assert_eq!(code.caller(id, 0, &path), Ok(None));
            assert_eq!(code.python(id, 0, &path), Ok(None));
        }
    }
}
