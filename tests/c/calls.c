/*
 * The program whose system calls are made to fail one by one, by tests/faults/test_system_calls.py.
 *
 *     calls DIRECTORY
 *
 * Opens the cache and makes one call after the other: of what is stored, of what is not, of what is damaged; clears a
 * function and calls it again. Where each part begins it asks for access to a file that is not there, by which the test
 * knows it in a trace. Says at the end what it saw: "new STATUS", then a line "KEY STATUS ORIGIN STORED" for each call and
 * "clear STATUS". Ends with 0 if every array was right and what was cleared was not found again.
 */
#define _GNU_SOURCE

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "numbers.h"

/* What test_system_calls.py puts there: each kind has one that is read at once, one in two steps, and one mapped. */
#define STORED 1, 12, 8
#define DAMAGED 2, 20, 16
#define MISSING 3, 28, 24

static npcache *cache;
static char said[8192];
static size_t said_len;
static int wrong;

#define SAY(...) (said_len += (size_t)snprintf(said + said_len, sizeof said - said_len, __VA_ARGS__))

static int32_t numbers(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    uint64_t key;
    (void)user_data;
    (void)args_len;
    memcpy(&key, args, sizeof key);
    return put_numbers(key, out);
}

static void call(uint64_t key)
{
    npcache_buffer *result = NULL;
    npcache_status status = npcache_call(cache, "numbers", "1", &key, sizeof key, numbers, NULL, &result, NULL);
    if (result && !holds_numbers(result, key)) {
        fprintf(stderr, "calls: a wrong array for %llu\n", (unsigned long long)key);
        wrong = 1;
    }
    SAY("%llu %d %d %d\n", (unsigned long long)key, (int)status, (int)npcache_buffer_origin(result),
        (int)npcache_buffer_stored(result));
    npcache_buffer_release(result);
}

/* How often `counted` has run. */
static uint64_t runs;

static int32_t counted(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    int64_t length = 1;
    uint64_t *array = npcache_output_alloc(out, NULL, NPCACHE_UINT64, 1, &length, NPCACHE_ORDER_C);
    (void)user_data;
    (void)args;
    (void)args_len;
    if (array)
        *array = ++runs;
    return npcache_output_commit(out);
}

/* The run that a call of `counted` gives the result of; 0 for none. */
static uint64_t run_of(void)
{
    npcache_buffer *result = NULL;
    npcache_status status = npcache_call(cache, "counted", "1", "", 0, counted, NULL, &result, NULL);
    const uint64_t *array = npcache_buffer_data(result, 0, NPCACHE_UINT64, NULL);
    uint64_t run = array ? *array : 0;
    SAY("counted %d %d %d\n", (int)status, (int)npcache_buffer_origin(result), (int)npcache_buffer_stored(result));
    npcache_buffer_release(result);
    return run;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    runs = (uint64_t)getpid() << 32; /* a number that no other process had */
    access("/npcache-mark-new", F_OK);
    npcache_status status = npcache_new(argv[1], NULL, &cache, NULL);
    access("/npcache-mark-calls", F_OK);
    SAY("new %d\n", (int)status);
    if (!status) {
        static const uint64_t keys[] = {STORED, DAMAGED, MISSING};
        for (size_t i = 0; i < 2 * sizeof keys / sizeof *keys; i++) /* each twice */
            call(keys[i / 2]);
        run_of();
        uint64_t before = run_of();
        npcache_status cleared = npcache_clear_function(cache, "counted", NULL);
        SAY("clear %d\n", (int)cleared);
        uint64_t after = run_of();
        if (cleared == NPCACHE_OK && before && after == before) {
            fprintf(stderr, "calls: found after a clear\n");
            wrong = 1;
        }
        npcache_free(cache);
    }
    access("/npcache-mark-end", F_OK);
    fputs(said, stdout);
    return wrong;
}
