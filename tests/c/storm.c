/*
 * One process of a storm, for tests/faults/test_kills.py to start and to kill at any instant.
 *
 *     storm DIRECTORY TALLY KEYS SEED
 *
 * Opens the cache and, until its standard input ends, does one thing after the other at random: mostly it calls one of
 * two functions for one of KEYS keys and looks whether the array is right, sometimes it clears one function, or all. What
 * it did is added up in the file TALLY, which all processes of a storm map, so that a kill loses none of it.
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "numbers.h"

/* test_kills.py reads it by this order. */
struct tally {
    uint64_t calls, computed, unstored, clears, wrong, errors, longest_us;
};

static struct tally *tally;

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

static void call(npcache *cache, const char *name, uint64_t key)
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

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    int file = open(argv[2], O_RDWR | O_CLOEXEC);
    tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    uint64_t keys = strtoull(argv[3], NULL, 10);
    srandom((unsigned)strtoul(argv[4], NULL, 10));
    npcache *cache;
    npcache_error *err;
    if (tally == MAP_FAILED || npcache_new(argv[1], NULL, &cache, &err))
        return 2;
    struct pollfd input = {0, POLLIN, 0};
    while (poll(&input, 1, 0) == 0) {
        const char *name = random() % 2 ? "storm" : "other storm";
        long action = random() % 4000;
        npcache_status status = NPCACHE_OK;
        if (action == 0)
            status = npcache_clear(cache, 0, NULL);
        else if (action < 10)
            status = npcache_clear_function(cache, name, NULL);
        else
            call(cache, name, (uint64_t)random() % keys);
        if (action < 10)
            add(&tally->clears);
        if (status)
            add(&tally->errors);
    }
    npcache_free(cache);
    return 0;
}
