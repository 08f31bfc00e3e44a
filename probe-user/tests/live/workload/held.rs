//! Scenes of processes that neither run freely nor are dead: what holds them is the question.

use std::time::Duration;

use crate::{ready, sys};

/// Computes, with a short nap now and then for whoever shares the CPU.
fn spin() -> ! {
    loop {
        for _ in 0..2_000_000 {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// A first thread asleep in `read`, and one that computes: to be frozen by the test, the one inside a system call and the
/// other outside.
pub fn napper_and_spinner() {
    sys::set_name(b"pp-frozen");
    std::thread::spawn(|| {
        sys::set_name(b"pp-spinner");
        loop {
            std::hint::spin_loop();
        }
    });
    ready(&[("pid", i64::from(std::process::id()))]);
}

/// A child whose first thread has ended while another computes.
pub fn headless_and_busy() {
    let child = sys::fork(|| {
        sys::set_name(b"pp-headbusy");
        std::thread::spawn(|| {
            sys::set_name(b"pp-burner");
            spin()
        });
        sys::exit_thread(5);
    });
    while !std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| stat.contains(") Z ")) {
        std::thread::sleep(Duration::from_millis(1));
    }
    ready(&[("pid", child.into())]);
}
