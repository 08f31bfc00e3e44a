//! What the agent will have left once it is attached. Not by the rules: this process gives up what the agent
//! does, in the same way, and then looks at what the kernel says of it.

use crate::aide::client as aide;
use crate::confine::refused::{self, Role};
use crate::confine::status::Status;
use crate::confine::user::User;
use crate::confine::{self, Confined};
use crate::export::accounts;
use crate::kernel::preflight::{Item, Verdict};

/// What it is called.
const USER: &str = "user";
const FILTER: &str = "system calls";
const LANDLOCK: &str = "Landlock";
const WHOLE: &str = "confinement";

/// Confines this process, for good.
pub fn items() -> Vec<Item> {
    // That of this process: the aide shall start another, as later.
    crate::namer::shared().retire();
    let started = aide::start();
    match confine::agent(|| true) {
        Ok(confined) => {
            let status = Status::read();
            let mut items = vec![user(&confined, &status), filter(&confined, &status)];
            let named = match started {
                Ok(started) => {
                    items.push(landlock(started.ready.landlock));
                    crate::namer::trial().map_err(|why| format!("the process that reads symbols {why}"))
                }
                Err(why) => Err(format!("the process that starts the namer {why}")),
            };
            items.extend(named.err().map(|why| no_names(&why)));
            items
        }
        Err(error) => vec![Item::new(
            WHOLE,
            Verdict::Limited,
            format!("the agent would not start: {error:#}"),
            "allow it prctl and capset (SystemCallFilter=, the container's seccomp profile)",
        )],
    }
}

fn user(confined: &Confined, status: &Status) -> Item {
    let found = format!("once attached, the agent is {}", confined.user.text());
    if status.is_no_root() {
        return Item::new(USER, Verdict::Ok, found, "");
    }
    let remedy = match &confined.user {
        User::Root(_) if accounts::uid(accounts::OURS).is_none() => {
            "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin procprobe"
        }
        _ => "give it CAP_SETUID and CAP_SETGID, or start it as that user, as procprobe.service does",
    };
    Item::new(USER, Verdict::Limited, found, remedy)
}

fn filter(confined: &Confined, status: &Status) -> Item {
    let why = match &confined.filter {
        Ok(applied) if status.is_filtered() => {
            let log = if applied.is_logged {
                "the kernel's log tells of each"
            } else {
                "not logged: seccomp(2) may not be called"
            };
            let count = refused::count(Role::Agent);
            let found = format!(
                "once attached, the agent is refused {count} of them, some by their arguments; {log}"
            );
            return Item::new(FILTER, Verdict::Ok, found, "");
        }
        Ok(_) => "the kernel does not say that it holds",
        Err(why) => why,
    };
    Item::new(
        FILTER,
        Verdict::Limited,
        format!("nothing is refused to the agent: {why}"),
        "use a kernel with CONFIG_SECCOMP_FILTER, and allow the service prctl and seccomp",
    )
}

/// Of the processes that look at no other; the agent itself cannot be under it.
fn landlock(version: Option<u8>) -> Item {
    match version {
        Some(version) => {
            let found = format!("version {version} holds for the namer and the process that starts it");
            Item::new(LANDLOCK, Verdict::Ok, found, "")
        }
        None => Item::new(
            LANDLOCK,
            Verdict::Limited,
            "not there: the namer and the process that starts it have their filters of system calls alone",
            "boot with lsm=landlock,… (/sys/kernel/security/lsm), and allow the service the landlock_* calls",
        ),
    }
}

/// Where names can be had without confinement and not with it.
fn no_names(why: &str) -> Item {
    Item::new(
        WHOLE,
        Verdict::Limited,
        format!("once confined, the agent has no names of functions and locks: {why}"),
        "make the binary executable for everybody (chmod 755), and allow the service processes (TasksMax=)",
    )
}
