/* Scenes at locks whose truth is known, of which this program tells: `locks PROTOCOL SCENE [crowd]`.
 *
 * It says on stdout, a line each:
 *   object KIND[|KIND] ADDRESS SIZE contended|idle|either   what is waited at; `any`: not judged, 0: anywhere
 *   expect none|maybe|stall|deadlock
 *   dead TID                                                a holder that has ended
 *   ready                                                   the scene stands
 *   without WHY                                             this library has no such thing
 *
 * Threads have names by their part: h may hold, w waits and never holds, d is in a deadlock, x has nothing to
 * do with it; xfailed says that the scene is not what was said. It ends by itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __GLIBC__
enum { GLIBC = 1 };
#else
enum { GLIBC = 0 };
#define PTHREAD_MUTEX_ADAPTIVE_NP PTHREAD_MUTEX_DEFAULT
#endif
enum { LIFE_S = 100, FIGHTERS = 6, CROWD = 34, NORMAL_PRIORITY = 10 };

union lock {
    pthread_mutex_t mutex;
    pthread_rwlock_t rwlock;
    sem_t semaphore;
};

static const char *protocol, *scene;
static union lock private_locks[2], *locks = private_locks;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER, answer = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_once_t once[2] = {PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT};
static sem_t queue;
static volatile unsigned long work;
static volatile int turn;
static int crowded;
static pthread_t ring[3];
static FILE *streams[2];

static int is(const char *name) { return !strcmp(protocol, name); }
static int plays(const char *name) { return !strcmp(scene, name); }
static void name(const char *it) { prctl(PR_SET_NAME, it); }
static void ms(long n) {
    struct timespec t = {n / 1000, n % 1000 * 1000000};
    nanosleep(&t, 0);
}
static void end(int signal) { (void)signal; _exit(0); }
static void spin(long us) {
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - from.tv_sec) * 1000000L + (now.tv_nsec - from.tv_nsec) / 1000 < us);
}
static pthread_t start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, 0, run, argument)) { puts("without threads"); exit(0); }
    return thread;
}

static void without(const char *why) { printf("without %s\n", why); exit(0); }
static void object(const char *kind, const void *at, size_t size, const char *contended) {
    printf("object %s %#lx %zu %s\n", kind, (unsigned long)(uintptr_t)at, size, contended);
}
static void expect(const char *what) { printf("expect %s\n", what); }
static void ready(void) { ms(300); puts("ready"); fflush(stdout); }
static void stay(void) { for (;;) ms(100000); }

/* --- What can be taken and given back. --- */

static const char *kind(void) {
    if (is("pi")) return "pi_mutex";
    if (is("rwlock")) return "rwlock";
    return is("sem") ? "semaphore|mutex" : "mutex";
}

/* Whether memory names the holder. musl's ordinary mutexes, its rwlocks, all semaphores and
 * glibc's streams, which keep a thread's address, do not. */
static int owned(void) {
    if (is("sem")) return 0;
    if (is("stdio")) return !GLIBC;
    return GLIBC || !(is("mutex") || is("adaptive") || is("rwlock"));
}
/* Of what does not get on. Where no memory names holders, one that sleeps might be the one: then there is
 * nothing to be known. Of PI mutexes the kernel refuses the wait that would close the circle, and the library
 * sleeps elsewhere instead, for ever. */
static const char *deadlock(void) {
    if (is("pi")) return "stall";
    if (owned()) return "deadlock";
    return plays("ticks") || crowded ? "maybe" : "stall";
}

static void type(pthread_mutexattr_t *to) {
    pthread_mutexattr_init(to);
    if (is("errorcheck")) pthread_mutexattr_settype(to, PTHREAD_MUTEX_ERRORCHECK);
    if (is("recursive")) pthread_mutexattr_settype(to, PTHREAD_MUTEX_RECURSIVE);
    if (is("adaptive")) {
        if (!GLIBC) without("adaptive mutexes");
        pthread_mutexattr_settype(to, PTHREAD_MUTEX_ADAPTIVE_NP);
    }
    if (is("robust")) pthread_mutexattr_setrobust(to, PTHREAD_MUTEX_ROBUST);
    if (is("pi") && pthread_mutexattr_setprotocol(to, PTHREAD_PRIO_INHERIT)) without("priority inheritance");
#ifdef __GLIBC__
    if (is("protect")) {
        /* The ceiling is for threads that have a priority at all. */
        struct sched_param below = {.sched_priority = NORMAL_PRIORITY / 2};
        if (sched_setscheduler(0, SCHED_FIFO, &below)) without("the right to a priority");
        pthread_mutexattr_setprotocol(to, PTHREAD_PRIO_PROTECT);
        pthread_mutexattr_setprioceiling(to, NORMAL_PRIORITY);
    }
#else
    if (is("protect")) without("priority ceilings");
#endif
}

static void make(int shared) {
    if (is("stdio")) {
        for (int i = 0; i < 2; i++) streams[i] = fopen("/dev/null", "w");
        return;
    }
    if (shared >= 0) {
        locks = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (locks == MAP_FAILED) without("memory");
    }
    for (int i = 0; i < 2; i++) {
        if (is("sem")) sem_init(&locks[i].semaphore, shared > 0, 1);
        else if (is("rwlock")) {
            pthread_rwlockattr_t attributes;
            pthread_rwlockattr_init(&attributes);
            pthread_rwlockattr_setpshared(&attributes, shared > 0);
            pthread_rwlock_init(&locks[i].rwlock, &attributes);
        } else {
            pthread_mutexattr_t attributes;
            type(&attributes);
            pthread_mutexattr_setpshared(&attributes, shared > 0);
            pthread_mutex_init(&locks[i].mutex, &attributes);
        }
    }
}

static void take(int i) {
    int failed;
    if (is("stdio")) { flockfile(streams[i]); return; }
    if (is("sem")) failed = sem_wait(&locks[i].semaphore);
    else if (is("rwlock")) failed = pthread_rwlock_wrlock(&locks[i].rwlock);
    else failed = pthread_mutex_lock(&locks[i].mutex);
    /* Nobody would wait any more: the scene is not what was said. */
    if (failed) {
        name("xfailed");
        fprintf(stderr, "%s %s: taking failed with %d\n", protocol, scene, failed);
        stay();
    }
}
static void give(int i) {
    if (is("stdio")) funlockfile(streams[i]);
    else if (is("sem")) sem_post(&locks[i].semaphore);
    else if (is("rwlock")) pthread_rwlock_unlock(&locks[i].rwlock);
    else pthread_mutex_unlock(&locks[i].mutex);
}
static size_t size(void) {
    if (is("sem")) return sizeof(sem_t);
    return is("rwlock") ? sizeof(pthread_rwlock_t) : sizeof(pthread_mutex_t);
}
static void lock_object(int i, const char *contended) {
    /* Where a stream's lock is, the library alone knows. */
    if (is("stdio")) { if (!i) object(plays("abba") ? "mutex|join" : "mutex", 0, 0, contended); }
    else object(kind(), &locks[i], size(), contended);
}

/* --- Contention. --- */

static void *fight(void *nothing) {
    int brief = plays("brief"), lasting = plays("long");
    name("hfighter");
    for (;;) {
        take(0);
        if (lasting) ms(5);
        else if (brief) spin(50);
        else for (int i = 0; i < 20; i++) work++;
        give(0);
        if (brief) spin(50);
        else if (!lasting) for (volatile int i = 0; i < 20; i++);
    }
    return nothing;
}
/* musl spins a while: whether anybody waits at what is held that shortly, nobody knows. */
static int spins(void) { return !GLIBC && plays("short"); }
static void fights(void) {
    make(-1);
    for (int i = 0; i < FIGHTERS; i++) start(fight, 0);
    lock_object(0, spins() ? "either" : "contended");
    expect("none");
}

static void *hold(void *nothing) { name("holder"); take(0); stay(); return nothing; }
static void *wait_for_it(void *nothing) { name("waiter"); take(0); name("hwaiter"); return nothing; }

static void *write_long(void *nothing) {
    name("hwriter");
    for (;;) { take(0); ms(20); give(0); ms(1); }
    return nothing;
}
static void *read_it(void *nothing) {
    name("hreader");
    for (;;) { pthread_rwlock_rdlock(&locks[0].rwlock); ms(1); give(0); }
    return nothing;
}
static void readers(void) {
    make(-1);
    start(write_long, 0);
    for (int i = 0; i < 4; i++) start(read_it, 0);
    lock_object(0, "contended");
    expect("none");
}

/* Readers give way to writers here: who reads already and asks again waits for a writer who waits for it. */
static void *read_again(void *nothing) {
    name("dreader");
    pthread_rwlock_rdlock(&locks[0].rwlock);
    ms(100);
    pthread_rwlock_rdlock(&locks[0].rwlock);
    return nothing;
}
static void *write_between(void *nothing) { name("dwriter"); ms(50); take(0); return nothing; }
static int reread(void) {
#ifdef __GLIBC__
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&locks[0].rwlock, &attributes);
#else
    without("readers that give way to writers");
#endif
    ring[0] = start(read_again, 0);
    start(write_between, 0);
    lock_object(0, "contended");
    expect(crowded ? "maybe" : "stall");
    return 1;
}

static void *allocate(void *nothing) {
    void *kept[64] = {0};
    name("hallocates");
    for (unsigned i = 0;; i++) {
        free(kept[i % 64]);
        kept[i % 64] = malloc(1500 + i % 3000);
        *(char *)kept[i % 64] = 1;
    }
    return nothing;
}
static void arena(void) {
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1);
#endif
    for (int i = 0; i < FIGHTERS; i++) start(allocate, 0);
    object("mutex", 0, 0, spins() ? "either" : "contended");
    expect("none");
}

/* --- Waiting that is nobody's fault. --- */

static void *pool(void *nothing) {
    /* Of the mutex, which whoever is woken takes. */
    name("hworker");
    pthread_mutex_lock(&locks[0].mutex);
    for (;;) {
        pthread_cond_wait(&condition, &locks[0].mutex);
        if (plays("herd")) for (int i = 0; i < 2000; i++) work++;
    }
    return nothing;
}
static void *produce(void *nothing) {
    name("xproducer");
    for (;;) {
        ms(50);
        if (plays("herd")) pthread_cond_broadcast(&condition);
        else if (plays("idle")) pthread_cond_signal(&condition);
    }
    return nothing;
}
static void *pingpong(void *side) {
    int mine = (int)(intptr_t)side;
    name("hplayer");
    pthread_mutex_lock(&locks[0].mutex);
    for (;;) {
        while (turn != mine) pthread_cond_wait(mine ? &answer : &condition, &locks[0].mutex);
        turn = !mine;
        pthread_cond_signal(mine ? &condition : &answer);
    }
    return side;
}
static void conditions(void) {
    make(-1);
    /* Who waits at musl's does so on its own stack. */
    size_t size = GLIBC ? sizeof condition : 0;
    /* musl moves those who are woken there, while they are in the call of the condition. */
    object(GLIBC ? "mutex" : "mutex|condvar", &locks[0], sizeof(pthread_mutex_t), "either");
    object("condvar", &condition, size, "idle");
    if (plays("pingpong")) {
        if (size) object("condvar", &answer, size, "idle");
        for (int i = 0; i < 2; i++) start(pingpong, (void *)(intptr_t)i);
    } else {
        for (int i = 0; i < 6; i++) start(pool, 0);
        start(produce, 0);
    }
    expect("none");
}

static void *consume(void *nothing) { name("worker"); for (;;) sem_wait(&queue); return nothing; }
static void *post(void *nothing) { name("xproducer"); for (;;) { ms(50); sem_post(&queue); } return nothing; }
static void idle_semaphore(void) {
    sem_init(&queue, 0, 0);
    for (int i = 0; i < 6; i++) start(consume, 0);
    start(post, 0);
    object("semaphore", &queue, sizeof queue, "idle");
    expect("none");
}

static void *phase(void *number) {
    name("worker");
    for (;;) { ms(number ? 5 : 60); pthread_barrier_wait(&barrier); }
    return number;
}
static void phases(void) {
    pthread_barrier_init(&barrier, 0, 4);
    for (intptr_t i = 0; i < 4; i++) start(phase, (void *)i);
    object("barrier", &barrier, GLIBC ? sizeof barrier : 0, "idle");
    expect("none");
}

static void *sleeps(void *nothing) { name("xsleeper"); stay(); return nothing; }
static void *joins(void *whom) { name("wjoins"); pthread_join(*(pthread_t *)whom, 0); return whom; }
static void *joins_next(void *number) {
    name("djoins");
    ms(100);
    pthread_join(ring[((intptr_t)number + 1) % 3], 0);
    return number;
}
static int joining(void) {
    object("join", 0, 0, plays("ring") ? "either" : "idle");
    if (plays("ring")) {
        for (intptr_t i = 0; i < 3; i++) ring[i] = start(joins_next, (void *)i);
        expect(GLIBC ? "deadlock" : "stall");
    } else {
        ring[0] = start(sleeps, 0);
        start(joins, &ring[0]);
        expect("none");
    }
    return plays("ring");
}

/* --- What does not end. --- */

static void *cross(void *number) {
    int i = (int)(intptr_t)number;
    name("dcross");
    take(i);
    ms(100);
    take(!i);
    return number;
}
static void *twice(void *nothing) { name("dself"); take(0); take(0); return nothing; }
static void init_forever(void) { name("hinit"); stay(); }
static void init_first(void);
static void init_second(void) { ms(100); pthread_once(&once[0], init_first); }
static void init_first(void) { ms(100); pthread_once(&once[plays("self") ? 0 : 1], init_second); }
static void *initialise(void *number) {
    if (plays("abba") || plays("self")) name("dinit");
    else name("waiter");
    pthread_once(&once[number != 0], plays("behind") ? init_forever : number ? init_second : init_first);
    return number;
}
static void onces(void) {
    object("mutex", &once, sizeof once, plays("behind") ? "contended" : "either");
    int threads = plays("behind") ? 4 : plays("self") ? 1 : 2;
    if (plays("behind")) {
        start(initialise, 0);
        ms(50);
    }
    for (intptr_t i = 0; i < threads; i++) ring[0] = start(initialise, (void *)(plays("behind") ? 0 : i));
    expect(plays("behind") ? "none" : "stall");
}

/* In `ticks` somebody else goes on; in the others nobody does, so that it can be known even where no memory
 * names holders. */
static int deadlocks(void) {
    int self = plays("self");
    make(-1);
    int waits_for_oneself = is("mutex") || is("adaptive") || is("robust") || is("sem") || is("pi");
    if (self && !waits_for_oneself) without("a way to wait for oneself");
    ring[0] = start(self ? twice : cross, 0);
    if (!self) ring[1] = start(cross, (void *)1);
    lock_object(0, "either");
    if (!self) lock_object(1, "either");
    if (!is("stdio")) object(is("pi") ? "any" : "join", 0, 0, "either");
    expect(deadlock());
    return !plays("ticks");
}

static void *die(void *tid) { name("hdies"); take(0); *(int *)tid = (int)syscall(SYS_gettid); return tid; }
static void ended(void) {
    int tid = 0;
    make(-1);
    pthread_join(start(die, &tid), 0);
    ms(20);
    for (int i = 0; i < 2; i++) start(wait_for_it, 0);
    lock_object(0, "either");
    /* musl gives such a mutex a mark when its owner ends, in place of the tid: that it has ended is known, not
       who it was. */
    if (owned() && GLIBC) printf("dead %d\n", tid);
    expect(owned() ? "deadlock" : "maybe");
}

/* --- More than one process. --- */

static void forked(void) {
    make(-1);
    start(hold, 0);
    ms(50);
    lock_object(0, "either");
    expect("stall");
    fflush(stdout);
    /* Without the handler that the first process of a namespace needs: it might post a semaphore. */
    if (!fork()) { signal(SIGALRM, SIG_DFL); alarm(LIFE_S); name("dchild"); take(0); stay(); }
}

static void child_holds(int stopped) {
    if (fork()) return;
    /* One that is stopped gets no alarm. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(LIFE_S);
    name("holder");
    take(0);
    if (stopped) raise(SIGSTOP);
    stay();
}
static void other_process(void) {
    make(plays("stopped"));
    /* Who waits at a semaphore for long might be a worker without work. */
    lock_object(0, is("sem") ? "either" : "contended");
    expect("none");
    fflush(stdout);
    child_holds(plays("stopped"));
    ms(100);
    for (int i = 0; i < 2; i++) start(wait_for_it, 0);
}

/* The holder was killed, and no list of robust locks tells the others. */
static void killed(void) {
    make(1);
    pid_t holder = fork();
    if (!holder) { alarm(LIFE_S); name("hdies"); take(0); stay(); }
    ms(100);
    kill(holder, SIGKILL);
    waitpid(holder, 0, 0);
    lock_object(0, "either");
    if (owned() && GLIBC) printf("dead %d\n", (int)holder);
    expect(owned() ? "deadlock" : "maybe");
    fflush(stdout);
    if (fork()) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(LIFE_S);
    name("waiter");
    take(0);
    stay();
}

/* The first process of a pid namespace of its own. */
static void in_namespace(void (*does)(void)) {
    if (fork()) return;
    alarm(LIFE_S);
    name("xouter");
    if (unshare(CLONE_NEWPID)) _exit(1);
    if (!fork()) {
        alarm(LIFE_S);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        does();
        stay();
    }
    stay();
}
static void holds(void) { name("holder"); take(0); }
static void waits(void) { name("waiter"); take(0); }
static void two_namespaces(void) {
    make(1);
    lock_object(0, "contended");
    expect("none");
    fflush(stdout);
    in_namespace(holds);
    ms(100);
    in_namespace(waits);
}

/* --- */

static int play(void) {
    if (is("hog")) { name("xhog"); puts("expect none\nready"); fflush(stdout); for (;;) work++; }
    if (is("once")) { onces(); return !plays("behind"); }
    if (is("cond")) { conditions(); return 0; }
    if (is("barrier")) { phases(); return 0; }
    if (is("join")) return joining();
    if (is("arena")) { arena(); return 0; }
    if (plays("idle")) { idle_semaphore(); return 0; }
    if (plays("readers")) { readers(); return 0; }
    if (plays("reread")) return reread();
    if (plays("short") || plays("brief") || plays("long")) { fights(); return 0; }
    if (plays("abba") || plays("self") || plays("ticks")) return deadlocks();
    if (plays("ended")) { ended(); return 0; }
    if (plays("forked")) { forked(); return 0; }
    if (plays("killed")) { killed(); return 0; }
    if (plays("shm") || plays("stopped")) { other_process(); return 0; }
    if (plays("twons")) { two_namespaces(); return 0; }
    without("such a scene");
    return 0;
}

int main(int count, char **values) {
    if (count < 3) return 2;
    protocol = values[1];
    scene = values[2];
    /* A handler, as the first process of a namespace does not die of a signal that it does not handle;
       elsewhere none, since a handler may post a semaphore. */
    if (getpid() == 1) signal(SIGALRM, end);
    alarm(LIFE_S);
    name("xmain");
    crowded = count > 3;
    if (crowded) for (int i = 0; i < CROWD; i++) start(sleeps, 0);
    int joined = play();
    ready();
    if (joined) pthread_join(ring[0], 0);
    stay();
}
