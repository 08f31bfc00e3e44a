//! What an event of the ring means: births, execs, deaths and reapings in the model's terms. Pure, as [`super::resolve`].

use probe_ebpf::ledger::{HAS_RARE, OOM_VICTIM};
use probe_ebpf::record::{EventRecord, ExitRecord};
use probe_ebpf::state::{EXIT_ZOMBIE, PF_KTHREAD};

use super::accounts::closed;
use super::resolve::{ns_tids, switches, wait_status};
use crate::kernel::events::RawEvent;
use crate::model::account::{Account, Histograms};
use crate::model::event::{Event, EventKind, Exit, Sender, exit_signal};
use crate::model::thread::{Comm, ThreadId};

/// Makes an event of a raw one.
pub fn event(raw: &RawEvent) -> Event {
    match raw {
        RawEvent::Fork(record) => head(
            record,
            EventKind::Fork {
                caller: record.other_tid,
            },
        ),
        RawEvent::Exec(record) => head(
            record,
            EventKind::Exec {
                old_tid: record.other_tid,
            },
        ),
        RawEvent::Reap(record) => head(record, EventKind::Reap),
        RawEvent::Exit(record) => head(&record.event, EventKind::Exit(Box::new(exit(record)))),
    }
}

fn head(record: &EventRecord, kind: EventKind) -> Event {
    let facts = &record.facts;
    Event {
        at_ns: record.at_ns,
        kind,
        id: ThreadId {
            tid: facts.tid,
            start_ns: facts.start_ns,
        },
        pid: facts.pid,
        ppid: facts.ppid,
        parent_start_ns: facts.parent_start_ns,
        namespace_init: facts.tid == facts.pid && ns_tids(facts).last() == Some(&1),
        comm: Comm::from_kernel(facts.comm),
        kernel: facts.task_flags & PF_KTHREAD != 0,
        cgroup_id: facts.cgroup_id,
    }
}

fn exit(record: &ExitRecord) -> Exit {
    let facts = &record.event.facts;
    let ledger = Some(&record.ledger).filter(|ledger| ledger.birth_ns != 0);
    let status = wait_status(facts);
    let killer = &record.killer;
    let fits = exit_signal(status).is_some_and(|signal| signal == killer.signal);
    let oom = fits && killer.flags & OOM_VICTIM != 0;
    Exit {
        status,
        last: record.event.other_tid != 0,
        zombie: facts.exit_state & EXIT_ZOMBIE != 0,
        // Whose allocation failed says nothing: the out-of-memory killer is nobody.
        killer: (fits && !oom && killer.pid != 0).then(|| Sender {
            pid: killer.pid,
            start_ns: killer.start_ns,
            comm: Comm::from_kernel(killer.comm),
        }),
        oom,
        switches: switches(facts),
        account: ledger.map(|ledger| Account {
            read_ns: record.event.at_ns,
            histograms: Some(Histograms::from_kernel(
                &ledger.histogram,
                (ledger.flags & HAS_RARE != 0).then_some(&record.rare.histogram),
            )),
            ..closed(ledger)
        }),
    }
}
