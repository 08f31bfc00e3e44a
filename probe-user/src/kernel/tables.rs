//! The tables of locks and edges, read whole: hundreds of entries a system call, where aya has one call per entry and
//! another per key.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData};
use bytemuck::Pod;
use probe_ebpf::lock::{EdgeKey, EdgeStats, LockKey, LockStats};
use thiserror::Error;

use super::load_error::LoadError;

/// `enum bpf_cmd`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;
/// Entries asked for at once. A bucket of the kernel's table must fit in; with half as many buckets as entries none comes near.
const BATCH: u32 = 512;

/// A table could not be read.
#[derive(Debug, Error)]
#[error("cannot {action} the eBPF map {map}: {cause} (`procprobe doctor` lists what this host allows)")]
pub struct TableError {
    action: &'static str,
    map: &'static str,
    cause: io::Error,
}

/// The part of `union bpf_attr` for batches.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A hash map of the programs', by its descriptor.
pub struct Table<K, V> {
    name: &'static str,
    map: OwnedFd,
    entries: PhantomData<(K, V)>,
}

/// Waits by lock.
pub type Locks = Table<LockKey, LockStats>;
/// Waits by waiter and holder.
pub type Edges = Table<EdgeKey, EdgeStats>;

impl<K: Pod, V: Pod> Table<K, V> {
    /// Takes the map over.
    ///
    /// # Errors
    /// [`LoadError::Missing`] if it is not a hash map.
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, LoadError> {
        let Map::HashMap(data) = map else {
            return Err(LoadError::Missing(name));
        };
        let map = duplicate(&data).map_err(|_| LoadError::Missing(name))?;
        Ok(Self {
            name,
            map,
            entries: PhantomData,
        })
    }

    /// Every entry. One that is written meanwhile may be torn between its sums.
    ///
    /// # Errors
    /// [`TableError`] with the kernel's answer.
    pub fn read(&self) -> Result<Vec<(K, V)>, TableError> {
        let mut keys = vec![K::zeroed(); BATCH as usize];
        let mut values = vec![V::zeroed(); BATCH as usize];
        let mut all = Vec::new();
        // Where the kernel is in its walk: the number of a bucket.
        let mut position = 0_u32;
        let mut next = 0_u32;
        let mut first = true;
        loop {
            let mut batch = Batch {
                in_batch: if first { 0 } else { address(&raw mut position) },
                out_batch: address(&raw mut next),
                keys: address(keys.as_mut_ptr()),
                values: address(values.as_mut_ptr()),
                count: BATCH,
                ..Batch::default()
            };
            let outcome = self.call(BPF_MAP_LOOKUP_BATCH, &mut batch);
            let over = matches!(&outcome, Err(error) if error.raw_os_error() == Some(libc::ENOENT));
            if !over {
                outcome.map_err(|cause| self.failed("read", cause))?;
            }
            let count = batch.count.min(BATCH) as usize;
            all.extend(keys[..count].iter().copied().zip(values[..count].iter().copied()));
            if over {
                return Ok(all);
            }
            position = next;
            first = false;
        }
    }

    /// Deletes entries; those that are gone already are no error.
    ///
    /// # Errors
    /// [`TableError`] with the kernel's answer.
    pub fn delete(&self, keys: &[K]) -> Result<(), TableError> {
        let mut rest = keys.to_vec();
        let mut at = 0;
        while at < rest.len() {
            let mut batch = Batch {
                keys: address(rest[at..].as_mut_ptr()),
                count: u32::try_from(rest.len() - at).unwrap_or(u32::MAX),
                ..Batch::default()
            };
            match self.call(BPF_MAP_DELETE_BATCH, &mut batch) {
                Ok(()) => return Ok(()),
                // It stops at a key that is not there: go on behind it.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => at += batch.count as usize + 1,
                Err(cause) => return Err(self.failed("clean up", cause)),
            }
        }
        Ok(())
    }

    fn call(&self, command: libc::c_long, batch: &mut Batch) -> io::Result<()> {
        batch.map_fd = self.map.as_raw_fd().unsigned_abs();
        // SAFETY: the attribute is as long as said; keys and values have room for `count` entries, the positions for the
        // four bytes that a hash map's walk takes.
        let outcome = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *batch, size_of::<Batch>()) };
        if outcome == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn failed(&self, action: &'static str, cause: io::Error) -> TableError {
        TableError {
            action,
            map: self.name,
            cause,
        }
    }
}

fn duplicate(data: &MapData) -> io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    let borrowed: BorrowedFd<'_> = data.fd().as_fd();
    borrowed.try_clone_to_owned()
}

/// An address as the system call wants it.
fn address<T>(pointer: *mut T) -> u64 {
    pointer.expose_provenance() as u64
}
