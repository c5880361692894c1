/* Waiting threads spin for some microseconds, then yield, and sleep between pieces of work: a
   machine that does something else too must not lose a core to waiting. */
#include "threads.h"

#include <stdatomic.h>
#include <stdlib.h>

#if defined(_WIN32)
#include <windows.h>
typedef HANDLE thread_t;
typedef SRWLOCK lock_t;
typedef CONDITION_VARIABLE signal_t;
#define lock_begin InitializeSRWLock
#define lock_take AcquireSRWLockExclusive
#define lock_leave ReleaseSRWLockExclusive
#define signal_begin InitializeConditionVariable
#define signal_all WakeAllConditionVariable
#define signal_wait(s, l) SleepConditionVariableSRW(s, l, INFINITE, 0)
#define yield_core SwitchToThread
#else
#include <pthread.h>
#include <sched.h>
typedef pthread_t thread_t;
typedef pthread_mutex_t lock_t;
typedef pthread_cond_t signal_t;
#define lock_begin(l) pthread_mutex_init(l, 0)
#define lock_take pthread_mutex_lock
#define lock_leave pthread_mutex_unlock
#define signal_begin(s) pthread_cond_init(s, 0)
#define signal_all pthread_cond_broadcast
#define signal_wait pthread_cond_wait
#define yield_core sched_yield
#endif

enum { SPINS = 2000, SPINS_BEFORE_SLEEP = 12000 };

struct pd_team {
    int size;
    lock_t lock;
    signal_t wake;
    thread_t *threads;
    int started;               /* threads that take their number */
    atomic_int pieces;         /* counts up: a new piece of work, or the end */
    atomic_int sleeping, done, met, meetings;
    int ended;
    void (*work)(void *, int);
    void *context;
};

static void relax(int spin) {
    if (spin > SPINS) {
        yield_core();
        return;
    }
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void pd_team_meet(pd_team *t) {
    const int meeting = atomic_load(&t->meetings);
    if (atomic_fetch_add(&t->met, 1) + 1 == t->size) {
        atomic_store(&t->met, 0);
        atomic_fetch_add(&t->meetings, 1);
        return;
    }
    for (int spin = 0; atomic_load(&t->meetings) == meeting; spin++) relax(spin);
}

static void wait_for_piece(pd_team *t, int last) {
    for (int spin = 0; spin < SPINS_BEFORE_SLEEP; spin++) {
        if (atomic_load(&t->pieces) != last) return;
        relax(spin < SPINS ? spin : SPINS);
    }
    lock_take(&t->lock);
    while (atomic_load(&t->pieces) == last) {
        signal_wait(&t->wake, &t->lock);
    }
    lock_leave(&t->lock);
}

#if defined(_WIN32)
static DWORD WINAPI member(void *team)
#else
static void *member(void *team)
#endif
{
    pd_team *t = team;
    lock_take(&t->lock);
    const int thread = ++t->started;
    lock_leave(&t->lock);
    for (int last = 0;;) {
        wait_for_piece(t, last);
        last++;
        if (t->ended) break;
        t->work(t->context, thread);
        atomic_fetch_add(&t->done, 1);
    }
    return 0;
}

static void announce(pd_team *t) {
    lock_take(&t->lock);
    atomic_fetch_add(&t->pieces, 1);
    signal_all(&t->wake);
    lock_leave(&t->lock);
}

void pd_team_run(pd_team *t, void (*work)(void *, int), void *context) {
    t->work = work;
    t->context = context;
    atomic_store(&t->done, 0);
    announce(t);
    work(context, 0);
    for (int spin = 0; atomic_load(&t->done) < t->size - 1; spin++) relax(spin);
}

pd_team *pd_team_begin(int size) {
    pd_team *t = calloc(1, sizeof *t);
    if (!t) return 0;
    t->threads = calloc((size_t)size, sizeof *t->threads);
    t->size = 1;
    lock_begin(&t->lock);
    signal_begin(&t->wake);
    for (int i = 1; t->threads && i < size; i++, t->size++) {
#if defined(_WIN32)
        if (!(t->threads[i] = CreateThread(0, 0, member, t, 0, 0))) break;
#else
        if (pthread_create(&t->threads[i], 0, member, t)) break;
#endif
    }
    if (t->size < size) {
        pd_team_end(t);
        return 0;
    }
    return t;
}

void pd_team_end(pd_team *t) {
    t->ended = 1;
    announce(t);
    for (int i = 1; t->threads && i < t->size; i++) {
#if defined(_WIN32)
        WaitForSingleObject(t->threads[i], INFINITE);
        CloseHandle(t->threads[i]);
#else
        pthread_join(t->threads[i], 0);
#endif
    }
    free(t->threads);
    free(t);
}
