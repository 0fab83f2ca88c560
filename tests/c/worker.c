/*
 * A process that calls a cached function, for tests/test_processes.py and its like to start, count, interrupt and kill.
 *
 *     worker DIRECTORY THREADS MILLISECONDS COUNTS FIRST LAST
 *
 * Opens the cache, says "ready", waits for the end of its standard input, and calls `numbers` in each of its threads
 * for every key from FIRST to LAST, without LAST. The function appends a line "key pid" to the file COUNTS, sleeps, and
 * fills an array that depends on the key alone. Each call's "key origin stored" goes to standard output. Ends with 0 if
 * every result was right. How the cache behaves is set by the NPCACHE_ environment variables.
 */
#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "numbers.h"

enum { MAX_THREADS = 64 };

static npcache *cache;
static long milliseconds, first, last;
static int counts;

static int32_t numbers(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    uint64_t key;
    (void)user_data;
    (void)args_len;
    memcpy(&key, args, sizeof key);
    char line[64];
    int n = snprintf(line, sizeof line, "%llu %ld\n", (unsigned long long)key, (long)getpid());
    if (write(counts, line, (size_t)n) != n)
        return 1;
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
    return put_numbers(key, out);
}

static int call(uint64_t key)
{
    npcache_buffer *result;
    npcache_error *err;
    if (npcache_call(cache, "numbers", "1", &key, sizeof key, numbers, NULL, &result, &err)) {
        fprintf(stderr, "%s\n", npcache_error_message(err));
        npcache_error_free(err);
        return 1;
    }
    int right = holds_numbers(result, key);
    if (right)
        printf("%llu %d %d\n", (unsigned long long)key, (int)npcache_buffer_origin(result),
               (int)npcache_buffer_stored(result));
    else
        fprintf(stderr, "a wrong result for %llu\n", (unsigned long long)key);
    npcache_buffer_release(result);
    return !right;
}

static void *thread(void *number_of_thread)
{
    long keys = last - first;
    for (long i = 0; i < keys; i++) /* each thread begins elsewhere */
        if (call((uint64_t)(first + (i + *(long *)number_of_thread) % keys)))
            exit(1);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    long threads = atol(argv[2]);
    milliseconds = atol(argv[3]);
    counts = open(argv[4], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    first = atol(argv[5]);
    last = atol(argv[6]);
    npcache_error *err;
    if (npcache_new(argv[1], NULL, &cache, &err)) {
        fprintf(stderr, "%s\n", npcache_error_message(err));
        npcache_error_free(err);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    pthread_t others[MAX_THREADS];
    long indexes[MAX_THREADS];
    if (threads > MAX_THREADS)
        return 2;
    for (long i = 0; i < threads; i++) {
        indexes[i] = i;
        pthread_create(&others[i], NULL, thread, &indexes[i]);
    }
    for (long i = 0; i < threads; i++)
        pthread_join(others[i], NULL);
    npcache_free(cache);
    return 0;
}
