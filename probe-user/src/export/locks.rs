//! Windows on locks that API requests have open.

use super::engine::Engine;
use crate::kernel::snapshot::SnapshotError;
use crate::model::event::Event;
use crate::model::locks::report::Report;
use crate::model::locks::window::LockWindow;
use crate::model::locks::{Look, Tables};
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::tracker::Units;
use crate::source::locks::DETAIL;

/// One of them.
pub struct OpenLockWindow {
    window: LockWindow,
    began_ns: u64,
    losses: Losses,
}

impl OpenLockWindow {
    /// Takes an event into account, if it is of the window.
    pub fn event(&mut self, event: &Event, units: &mut dyn Units) {
        if event.at_ns >= self.began_ns {
            self.window.event(event, units);
        }
    }

    /// Takes into account what was deleted from the tables.
    pub fn forget(&mut self, deleted: &Tables) {
        self.window.forget(deleted);
    }
}

impl Engine {
    /// Opens a window on locks; it is fed with events until it is closed.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator or the tables cannot be read.
    pub fn open_lock_window(&mut self, pid: Option<u32>) -> Result<u64, SnapshotError> {
        let (snapshot, tables) = self.source.look(DETAIL)?;
        let look = Look {
            snapshot: &snapshot,
            tables: &tables,
        };
        let open = OpenLockWindow {
            window: LockWindow::begin(look, pid),
            began_ns: snapshot.began_ns,
            losses: snapshot.losses.clone(),
        };
        let id = self.new_window();
        self.lock_windows.insert(id, open);
        Ok(id)
    }

    /// Closes a window; `None` if it is not open.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator or the tables cannot be read.
    pub fn close_lock_window(
        &mut self,
        id: u64,
    ) -> Result<Option<(Report, Snapshot, Losses)>, SnapshotError> {
        let window = self.lock_windows.get_mut(&id).map(|open| &mut open.window);
        let (snapshot, tables) = self.source.look_until(DETAIL, |look| {
            window.is_some_and(|window| window.needs_second_look(look))
        })?;
        self.drain();
        let Some(open) = self.lock_windows.remove(&id) else {
            return Ok(None);
        };
        let losses = snapshot.losses.since(&open.losses);
        let look = Look {
            snapshot: &snapshot,
            tables: &tables,
        };
        let report = open.window.end(look, &mut self.source.cgroups);
        Ok(Some((report, snapshot, losses)))
    }
}
