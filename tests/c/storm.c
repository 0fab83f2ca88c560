/*
 * One process of a storm, for tests/faults/test_kills.py to start and to kill at any instant.
 *
 *     storm DIRECTORY TALLY KEYS THREADS TIMER SEED
 *
 * Opens the cache and, until its standard input ends, does one thing after the other at random in each of its threads:
 * mostly it calls one of two functions for one of KEYS keys and looks whether the array is right, sometimes it clears one
 * function, or all. What it did is added up in the file TALLY, which all processes of a storm map, so that a kill loses
 * none of it. Where TIMER is not 0, a signal comes each so many microseconds and interrupts what the threads wait for.
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "numbers.h"

/* test_kills.py reads it by this order. */
struct tally {
    uint64_t calls, computed, unstored, clears, wrong, errors, longest_us, signals;
};

enum { MAX_THREADS = 16 };

static struct tally *tally;
static npcache *cache;
static uint64_t keys;

static void add(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static int32_t numbers(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    uint64_t key;
    (void)user_data;
    (void)args_len;
    memcpy(&key, args, sizeof key);
    add(&tally->computed);
    struct timespec pause = {0, (long)(key % 4) * 1000000};
    nanosleep(&pause, NULL);
    return put_numbers(key, out);
}

static uint64_t microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void call(const char *name, uint64_t key)
{
    npcache_buffer *result;
    npcache_error *err;
    uint64_t began = microseconds();
    if (npcache_call(cache, name, "1", &key, sizeof key, numbers, NULL, &result, &err)) {
        fprintf(stderr, "storm: %s\n", npcache_error_message(err));
        npcache_error_free(err);
        add(&tally->errors);
        return;
    }
    uint64_t took = microseconds() - began, longest = __atomic_load_n(&tally->longest_us, __ATOMIC_RELAXED);
    while (took > longest && !__atomic_compare_exchange_n(&tally->longest_us, &longest, took, 0, __ATOMIC_RELAXED,
                                                          __ATOMIC_RELAXED))
        ;
    add(&tally->calls);
    if (npcache_buffer_stored(result))
        add(&tally->unstored);
    if (!holds_numbers(result, key))
        add(&tally->wrong);
    npcache_buffer_release(result);
}

static void *act(void *seed)
{
    struct pollfd input = {0, POLLIN, 0};
    for (;;) {
        int ready = poll(&input, 1, 0);
        if (ready > 0)
            return NULL;
        const char *name = rand_r(seed) % 2 ? "storm" : "other storm";
        int action = rand_r(seed) % 4000;
        npcache_status status = NPCACHE_OK;
        if (action == 0)
            status = npcache_clear(cache, 0, NULL);
        else if (action < 10)
            status = npcache_clear_function(cache, name, NULL);
        else
            call(name, (uint64_t)rand_r(seed) % keys);
        if (action < 10)
            add(&tally->clears);
        if (status)
            add(&tally->errors);
    }
}

static void on_signal(int number)
{
    (void)number;
    add(&tally->signals);
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    int file = open(argv[2], O_RDWR | O_CLOEXEC);
    tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    keys = strtoull(argv[3], NULL, 10);
    int threads = atoi(argv[4]);
    long timer = atol(argv[5]);
    if (tally == MAP_FAILED || threads > MAX_THREADS)
        return 2;
    if (timer) {
        struct sigaction action = {0};
        action.sa_handler = on_signal; /* and no SA_RESTART */
        sigaction(SIGALRM, &action, NULL);
        struct itimerval each = {{0, timer}, {0, timer}};
        setitimer(ITIMER_REAL, &each, NULL);
    }
    if (npcache_new(argv[1], NULL, &cache, NULL))
        return 3;
    pthread_t others[MAX_THREADS];
    unsigned seeds[MAX_THREADS];
    for (int i = 0; i < threads; i++) {
        seeds[i] = (unsigned)atol(argv[6]) + (unsigned)i;
        pthread_create(&others[i], NULL, act, &seeds[i]);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(others[i], NULL);
    npcache_free(cache);
    return 0;
}
