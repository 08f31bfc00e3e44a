// Scenes at what C++20 and its static initialisers wait at: `locks PROTOCOL SCENE [crowd]`. What it says, and
// how its threads are named, is as in locks.c.
#include <atomic>
#include <barrier>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <latch>
#include <mutex>
#include <semaphore>
#include <shared_mutex>
#include <string>
#include <sys/prctl.h>
#include <thread>
#include <unistd.h>

using namespace std;

static string protocol, scene;
static mutex mutexes[2];
static shared_mutex shared;
static condition_variable condition;
static counting_semaphore<64> places(2), nothing(0);
static binary_semaphore binary(1), binaries[2] = {binary_semaphore(1), binary_semaphore(1)};
static atomic<int> state{2};
static barrier<> meeting(4);
static latch gate(2);

static bool is(const char *name, const char *plays) { return protocol == name && scene == plays; }
static void name(const char *it) { prctl(PR_SET_NAME, it); }
static void ms(int n) { this_thread::sleep_for(chrono::milliseconds(n)); }
static void spin(int us) {
    auto until = chrono::steady_clock::now() + chrono::microseconds(us);
    while (chrono::steady_clock::now() < until);
}
static void end(int) { _exit(0); }
[[noreturn]] static void stay() { for (;;) ms(100000); }
static void start(const char *called, function<void()> run) { thread([=] { name(called); run(); }).detach(); }
static void start(int count, const char *called, function<void()> run) { while (count--) start(called, run); }
static void object(const char *kind, const void *at, size_t size, const char *contended) {
    printf("object %s %#lx %zu %s\n", kind, (unsigned long)(uintptr_t)at, size, contended);
}

// --- A static initialiser that waits for another, or takes its time. ---
static int first();
static int second();
struct First { First() { ms(100); second(); } };
struct Second { Second() { ms(100); first(); } };
struct Slow { Slow() { name("hinit"); stay(); } };
static int first() { static First it; return 0; }
static int second() { static Second it; return 0; }
static int slow() { static Slow it; return 0; }

static const char *initialisers() {
    object("mutex", nullptr, 0, scene == "behind" ? "contended" : "either");
    if (scene == "behind") {
        start("hinit", [] { slow(); });
        ms(50);
        start(3, "waiter", [] { slow(); });
        return "none";
    }
    // Nobody is left who goes on, and nobody waits at anything else.
    printf("expect stall\n");
    start("dinit", [] { first(); });
    start("dinit", [] { second(); });
    name("dmain");
    ms(300);
    puts("ready");
    fflush(stdout);
    first();
    return "stall";
}

template <class Take, class Give> static void fight(int count, int hold_ms, Take take, Give give) {
    start(count, "hfighter", [=] {
        for (;;) {
            take();
            if (hold_ms) ms(hold_ms); else spin(50);
            give();
            if (!hold_ms) spin(50);
        }
    });
}

static const char *contended() {
    int hold_ms = scene == "long" ? 5 : 0;
    if (protocol == "mutex") {
        object("mutex", &mutexes[0], sizeof(mutex), "contended");
        fight(6, hold_ms, [] { mutexes[0].lock(); }, [] { mutexes[0].unlock(); });
    } else if (protocol == "shared") {
        object("rwlock", &shared, sizeof shared, "contended");
        fight(3, hold_ms, [] { shared.lock(); }, [] { shared.unlock(); });
        fight(3, hold_ms, [] { shared.lock_shared(); }, [] { shared.unlock_shared(); });
    } else if (protocol == "semaphore") {
        object("semaphore", &places, sizeof places, "contended");
        fight(6, hold_ms, [] { places.acquire(); }, [] { places.release(); });
    } else {
        object("semaphore|mutex", &binary, sizeof binary, "contended");
        fight(6, hold_ms, [] { binary.acquire(); }, [] { binary.release(); });
    }
    return "none";
}

static const char *idle() {
    if (protocol == "cond") {
        object("mutex", &mutexes[0], sizeof(mutex), "either");
        object("condvar", &condition, sizeof condition, "idle");
        start(6, "hworker", [] { unique_lock held(mutexes[0]); for (;;) condition.wait(held); });
        start("xproducer", [] { for (;;) { ms(50); condition.notify_one(); } });
    } else if (protocol == "atomic") {
        // Nine workers wait for a value that a producer changes; libstdc++ has them wait at the value itself.
        object("unknown|parker|condvar|semaphore", &state, sizeof state, "idle");
        start(9, "worker", [] { for (;;) { state.wait(2); state.store(2); } });
        start("xproducer", [] { for (;;) { ms(50); state.store(1); state.notify_one(); } });
    } else if (protocol == "semaphore") {
        object("semaphore|unknown", &nothing, sizeof nothing, "idle");
        start(6, "worker", [] { for (;;) nothing.acquire(); });
        start("xproducer", [] { for (;;) { ms(50); nothing.release(); } });
    } else if (protocol == "barrier") {
        object("barrier|unknown|parker", nullptr, 0, "idle");
        for (int i = 0; i < 4; i++)
            start("worker", [=] { for (;;) { ms(i ? 5 : 60); meeting.arrive_and_wait(); } });
    } else {
        object("barrier|unknown|parker", &gate, sizeof gate, "idle");
        start(4, "worker", [] { gate.wait(); });
    }
    return "none";
}

static const char *crossing() {
    object("semaphore|mutex|unknown", binaries, sizeof binaries, "either");
    thread one([] { name("dcross"); binaries[0].acquire(); ms(100); binaries[1].acquire(); });
    thread other([] { name("dcross"); binaries[1].acquire(); ms(100); binaries[0].acquire(); });
    printf("expect stall\n");
    ms(300);
    puts("ready");
    fflush(stdout);
    one.join();
    other.join();
    return "stall";
}

int main(int count, char **values) {
    if (count < 3) return 2;
    protocol = values[1];
    scene = values[2];
    // A handler could release a semaphore: with one nobody can say that nobody will. The first process of a pid
    // namespace gets no signal without.
    if (scene != "abba" || getpid() == 1) signal(SIGALRM, end);
    alarm(100);
    name("xmain");
    if (count > 3) start(34, "xsleeper", [] { stay(); });
    const char *expected = is("static", "behind") || is("static", "abba") ? initialisers()
        : scene == "abba" ? crossing() : scene == "idle" ? idle() : contended();
    printf("expect %s\n", expected);
    ms(300);
    puts("ready");
    fflush(stdout);
    stay();
}
