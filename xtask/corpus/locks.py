# Scenes at CPython's locks: `locks.py PROTOCOL SCENE [crowd]`. What it says, and how its threads are named,
# is as in locks.c.
import ctypes
import multiprocessing
import sys
import threading
import time

protocol, scene = sys.argv[1:3]
libc = ctypes.CDLL(None)
SEMAPHORE_SIZE = 32


def start(name, run):
    def named():
        libc.prctl(15, name.encode(), 0, 0, 0)
        run()

    thread = threading.Thread(target=named, daemon=True)
    thread.start()
    return thread


def lock(contended):
    """A lock, after saying where it waits: up to 3.12 a semaphore whose address follows the object's head."""
    made = threading.Lock()
    at = ctypes.c_size_t.from_address(id(made) + 16).value
    print(f"object semaphore|mutex {at:#x} {SEMAPHORE_SIZE} {contended}")
    return made


def in_process(run, *arguments):
    def alone():
        libc.prctl(1, 9, 0, 0, 0)
        libc.alarm(100)
        libc.prctl(15, b"hfighter", 0, 0, 0)
        run(*arguments)

    multiprocessing.get_context("fork").Process(target=alone, daemon=True).start()


def stay():
    while True:
        time.sleep(1000)


def fight(held):
    while True:
        with held:
            time.sleep(0.012)


def cross(mine, other):
    with mine:
        time.sleep(0.1)
        other.acquire()


if sys.version_info >= (3, 13):
    print("without semaphores")
    sys.exit()
# A handler, because the first process of a namespace does not die of a signal that it does not handle.
libc.signal(14, libc._exit)
libc.alarm(100)
libc.prctl(15, b"xmain", 0, 0, 0)
for _ in range(34 if len(sys.argv) > 3 else 0):
    start("xsleeper", stay)
if protocol == "process":
    # A semaphore in memory that the processes share; where, the module does not say.
    print("object semaphore|mutex 0 0 contended")
    shared = multiprocessing.get_context("fork").Lock()
    for _ in range(6):
        in_process(fight, shared)
    print("expect none")
elif scene == "long":
    shared = lock("contended")
    for _ in range(6):
        start("hfighter", lambda: fight(shared))
    print("expect none")
elif scene == "ticks":
    one, other = lock("either"), lock("either")
    start("dcross", lambda: cross(one, other))
    start("dcross", lambda: cross(other, one))
    # Main goes on, and might be the one that holds both, for all that can be known.
    print("expect maybe")
else:
    empty = lock("either")
    empty.acquire()
    for _ in range(4):
        start("waiter", empty.acquire)
    print("expect none")
time.sleep(0.3)
print("ready", flush=True)
stay()
