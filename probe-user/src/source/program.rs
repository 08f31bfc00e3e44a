//! What a process's code is: whose it is at an instruction, and which program or run-time system it belongs
//! to.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use super::address_space::{Answer, Request, mapping};
use super::code::{CodeCache, NotNow};
use super::reader::files::Directory;
use crate::model::locks::site::{Caller, Library, Runtime, Site};
use crate::namer::id_of as file_of;

/// Whose code waits in an address space, and what is known of its program.
pub(super) fn code_of(
    directory: &Directory,
    code: &CodeCache,
    maps: &[MemoryMap],
    space: u64,
    request: &Request,
) -> Vec<Answer> {
    let sites = request.sites.iter();
    let sites: Vec<_> = sites
        .map(|&(_, ip)| (ip, site(directory, code, maps, ip)))
        .collect();
    let is_go = |(_, site): &(u64, Result<Arc<Site>, NotNow>)| {
        site.as_ref().is_ok_and(|site| site.library == Library::Go)
    };
    let go = sites.iter().any(is_go).then_some(Runtime::Go);
    let semaphores = semaphores(directory, code, maps);
    let python = python(directory, code, maps);
    let is_whole = semaphores.is_ok() && python.is_ok() && sites.iter().all(|(_, site)| site.is_ok());
    let sites = sites.into_iter();
    let told = sites.filter_map(|(ip, site)| Some(Answer::Site((space, ip), site.ok()?)));
    let mut answers: Vec<_> = told.collect();
    answers.push(Answer::Runtime(space, go.or_else(|| runtime(maps))));
    answers.extend(
        semaphores
            .ok()
            .flatten()
            .map(|caller| Answer::Semaphores(space, caller)),
    );
    answers.extend(python.ok().flatten().map(|range| Answer::Python(space, range)));
    answers.push(if is_whole {
        Answer::Whole(space)
    } else {
        Answer::NotNow(space)
    });
    answers
}

/// Whose code is at an instruction pointer, which stands behind the system call.
///
/// # Errors
/// [`NotNow`].
pub(super) fn site(
    directory: &Directory,
    code: &CodeCache,
    maps: &[MemoryMap],
    ip: u64,
) -> Result<Arc<Site>, NotNow> {
    let other = |library| {
        Ok(Arc::new(Site {
            library,
            function: None,
            caller: None,
        }))
    };
    let at = ip.saturating_sub(1);
    let Some(map) = mapping(maps, at) else {
        return Ok(Arc::new(Site::UNREAD));
    };
    let path = match &map.pathname {
        MMapPath::Path(path) => inside(directory, path),
        MMapPath::Vdso => return other(Library::Vdso),
        _ => return other(Library::Other),
    };
    let offset = at - map.address.0 + map.offset;
    Ok(Arc::new(code.site(file_of(map), offset, &path)?))
}

/// A path as the process itself sees it.
pub(super) fn inside(directory: &Directory, path: &Path) -> PathBuf {
    directory
        .path()
        .join("root")
        .join(path.strip_prefix("/").unwrap_or(path))
}

/// The run-time system, by the library or the program that is mapped.
fn runtime(maps: &[MemoryMap]) -> Option<Runtime> {
    let known = [
        ("libjvm.so", Runtime::Java),
        ("libruby", Runtime::Ruby),
        ("ruby", Runtime::Ruby),
        ("libnode.so", Runtime::Node),
        ("node", Runtime::Node),
    ];
    maps.iter()
        .filter(|map| map.perms.contains(MMPermissions::EXECUTE))
        .find_map(|map| {
            let MMapPath::Path(path) = &map.pathname else {
                return None;
            };
            let name = path.file_name()?.to_str()?;
            let found = known.iter().find(|(word, _)| {
                name == *word
                    || (word.starts_with("lib") && name.starts_with(word))
                    || (*word == "ruby" && name.starts_with("ruby"))
            });
            found.map(|(_, runtime)| *runtime)
        })
}

/// Which function of the program itself waits at semaphores, if it is a program that is known.
fn semaphores(directory: &Directory, code: &CodeCache, maps: &[MemoryMap]) -> Result<Option<Caller>, NotNow> {
    let known = |path: &Path| path.file_name().is_some_and(|name| name == "postgres");
    let program = maps.iter().find_map(|map| match &map.pathname {
        MMapPath::Path(path) if known(path) => Some((map, path)),
        _ => None,
    });
    let Some((map, path)) = program else {
        return Ok(None);
    };
    code.semaphores(file_of(map), map.offset, &inside(directory, path))
}

/// Where `CPython` keeps its state: in the program, or in its shared library.
fn python(directory: &Directory, code: &CodeCache, maps: &[MemoryMap]) -> Result<Option<Range<u64>>, NotNow> {
    for (map, path) in pythons(maps) {
        if let Some((start, end)) = code.python(file_of(map), map.offset, &inside(directory, path))? {
            let at = |behind| map.address.0.wrapping_add(behind);
            return Ok(Some(at(start)..at(end)));
        }
    }
    Ok(None)
}

/// Files that may be `CPython`, each once, however often it is mapped: a process may map one 60,000 times.
fn pythons(maps: &[MemoryMap]) -> impl Iterator<Item = (&MemoryMap, &Path)> {
    let mut seen: HashSet<(u64, u64)> = HashSet::new();
    maps.iter().filter_map(move |map| {
        let MMapPath::Path(path) = &map.pathname else {
            return None;
        };
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let is_python = name.starts_with(b"python") || name.starts_with(b"libpython");
        let is_code = map.perms.contains(MMPermissions::EXECUTE);
        (is_code && is_python && seen.insert(file_of(map))).then_some((map, path.as_path()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_is_asked_about_once_however_often_it_is_mapped() {
        let lines = (0..1_000).map(|number| {
            let start = 0x7f00_0000_0000_u64 + number * 0x2000;
            let (access, file) = match number {
                3 => ("r--p", "41 /usr/lib/libpython3.so"),
                5 => ("r-xp", "43 /usr/lib/libpython3.11.so"),
                _ => ("r-xp", "42 /usr/bin/python3.11"),
            };
            format!("{start:x}-{:x} {access} 00000000 08:01 {file}\n", start + 0x1000)
        });
        let maps: Vec<MemoryMap> = maps_of(&lines.collect::<String>());
        assert_eq!(maps.len(), 1_000);
        let names: Vec<_> = pythons(&maps).map(|(_, path)| path.to_owned()).collect();
        let expected = ["/usr/bin/python3.11", "/usr/lib/libpython3.11.so"];
        assert_eq!(names, expected.map(PathBuf::from));
    }

    fn maps_of(text: &str) -> Vec<MemoryMap> {
        use procfs::FromRead;
        let maps = procfs::process::MemoryMaps::from_read(text.as_bytes()).unwrap();
        maps.into_iter().collect()
    }

    #[test]
    fn a_run_time_system_is_known_by_what_is_mapped() {
        let of = |path: &str, access: &str| {
            let line = format!("7f0000000000-7f0000001000 {access} 00000000 08:01 42 {path}\n");
            runtime(&maps_of(&line))
        };
        for (path, expected) in [
            ("/usr/lib/jvm/java-17/lib/server/libjvm.so", Some(Runtime::Java)),
            (
                "/usr/lib/x86_64-linux-gnu/libruby-3.1.so.3.1.2",
                Some(Runtime::Ruby),
            ),
            ("/usr/local/bin/ruby3.3", Some(Runtime::Ruby)),
            ("/usr/bin/node", Some(Runtime::Node)),
            ("/usr/lib/libnode.so.115", Some(Runtime::Node)),
            ("/usr/bin/node_exporter", None),
            ("/usr/bin/python3.11", None),
        ] {
            assert_eq!(of(path, "r-xp"), expected, "{path}");
            assert_eq!(of(path, "r--p"), None, "a file that it reads: {path}");
        }
    }
}
