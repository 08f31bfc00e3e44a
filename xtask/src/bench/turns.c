/* Two threads that take turns for so many seconds, at a futex or at pipes. Each has a CPU of its own where there are two, so
   that every turn is a sleep: a thread that shared its CPU could find its turn come before it has fallen asleep. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static atomic_int turn[2];
static int ends[2][2], by_futex;
static time_t end;
static int over(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec >= end; }
static void give(long to, char what) {
    if (!by_futex) { if (write(ends[to][1], &what, 1) != 1) abort(); return; }
    atomic_store(&turn[to], what);
    syscall(SYS_futex, &turn[to], FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}
static char take(long me) {
    char what;
    if (!by_futex) { if (read(ends[me][0], &what, 1) != 1) abort(); return what; }
    while (!atomic_load(&turn[me])) syscall(SYS_futex, &turn[me], FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
    return atomic_exchange(&turn[me], 0);
}
static void *play(void *argument) {
    long me = (long)argument;
    cpu_set_t mine;
    CPU_ZERO(&mine);
    CPU_SET(me, &mine);
    sched_setaffinity(0, sizeof mine, &mine);
    for (;;) {
        char what = take(me);
        if (what == 'q' || over()) { give(1 - me, 'q'); return 0; }
        give(1 - me, 'x');
    }
}
int main(int count, char **values) {
    pthread_t threads[2];
    struct timespec t;
    if (count != 3 || pipe(ends[0]) || pipe(ends[1])) return 1;
    by_futex = !strcmp(values[1], "futex");
    clock_gettime(CLOCK_MONOTONIC, &t);
    end = t.tv_sec + atoi(values[2]);
    for (long i = 0; i < 2; i++) pthread_create(&threads[i], 0, play, (void *)i);
    give(0, 'x');
    for (int i = 0; i < 2; i++) pthread_join(threads[i], 0);
    return 0;
}
