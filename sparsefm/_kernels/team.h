/* Threads that work through the same phases: each claims pieces of the present one, all wait for its end.
 *
 * Whoever arrives early spins for some microseconds and then sleeps, so that a core that another process wants is
 * given up. The threads themselves come from the caller. Without POSIX threads a team has one member.
 */
#ifndef SPARSEFM_TEAM
#define SPARSEFM_TEAM
#include <stddef.h>

#if defined(__GNUC__) && !defined(_WIN32)
#include <pthread.h>
#define HAVE_TEAMS 1

typedef struct {
    int members, arrived, asleep;
    unsigned phase;
    pthread_mutex_t mutex;
    pthread_cond_t all_here;
} team_t;

static inline void team_open(team_t *t, int members) {
    t->members = members;
    t->arrived = t->asleep = 0;
    t->phase = 0;
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->all_here, NULL);
}

static inline void team_close(team_t *t) {
    pthread_mutex_destroy(&t->mutex);
    pthread_cond_destroy(&t->all_here);
}

/* Returns when every member has called it as often. */
static inline void team_wait(team_t *t) {
    if (t->members == 1) return;
    const unsigned phase = __atomic_load_n(&t->phase, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&t->arrived, 1, __ATOMIC_ACQ_REL) == t->members) {
        __atomic_store_n(&t->arrived, 0, __ATOMIC_RELAXED);
        pthread_mutex_lock(&t->mutex);
        __atomic_store_n(&t->phase, phase + 1, __ATOMIC_RELEASE);
        if (t->asleep) pthread_cond_broadcast(&t->all_here);
        pthread_mutex_unlock(&t->mutex);
        return;
    }
    for (int spin = 0; spin < 2000; spin++) {
        if (__atomic_load_n(&t->phase, __ATOMIC_ACQUIRE) != phase) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&t->mutex);
    t->asleep++;
    while (__atomic_load_n(&t->phase, __ATOMIC_ACQUIRE) == phase) pthread_cond_wait(&t->all_here, &t->mutex);
    t->asleep--;
    pthread_mutex_unlock(&t->mutex);
}

static inline ptrdiff_t team_claim(ptrdiff_t *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }

#else
#define HAVE_TEAMS 0
typedef struct {
    int members;
} team_t;
static inline void team_open(team_t *t, int members) { t->members = members; }
static inline void team_close(team_t *t) { (void)t; }
static inline void team_wait(team_t *t) { (void)t; }
static inline ptrdiff_t team_claim(ptrdiff_t *next) { return (*next)++; }
#endif
#endif
