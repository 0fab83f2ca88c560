/* What the test programs in C share: counted checks, the cache directory, and a function worth caching.

   Relies on: every program is one translation unit that includes this file first and returns finish(). Plain C99 that
   is C++11 as well, so memory from a void pointer is cast. */
#ifndef NPCACHE_TESTS_CHECK_H
#define NPCACHE_TESTS_CHECK_H

#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif

#include <npcache.h>

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Not every program uses everything here. */
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

static int passed, failed;

static int check(int holds, const char *file, int line, const char *what)
{
    __sync_fetch_and_add(holds ? &passed : &failed, 1);
    if (!holds)
        printf("%s:%d: not true: %s\n", file, line, what);
    return holds;
}

#define CHECK(condition) check((condition) ? 1 : 0, __FILE__, __LINE__, #condition)

static int check_status(npcache_status expected, npcache_status found, const char *file, int line, const char *what)
{
    int holds = check(expected == found, file, line, what);
    if (!holds)
        printf("    %d, %s, and not %d\n", (int)found, npcache_status_string(found), (int)expected);
    return holds;
}

/* That the call returns this status. */
#define IS(status, call) check_status((status), (call), __FILE__, __LINE__, #call)
#define OK(call) IS(NPCACHE_OK, call)
#define REFUSED(call) IS(NPCACHE_ERR_ARGUMENT, call)

/* Whether there is an error of this status whose message contains `text`; frees it. */
static int says(npcache_error **error, npcache_status status, const char *text)
{
    int holds = *error && npcache_error_code(*error) == status && strstr(npcache_error_message(*error), text);
    if (!holds)
        printf("    error %d, \"%s\", and not %d with \"%s\"\n", (int)npcache_error_code(*error),
               npcache_error_message(*error), (int)status, text);
    npcache_error_free(*error);
    *error = NULL;
    return holds;
}

/* What an out-parameter holds before a call, to see that it is always written. */
static void *poison(void)
{
    static char nothing;
    return &nothing;
}
#define POISON(type) ((type *)poison())

static int finish(void)
{
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void sleep_ms(long ms)
{
    struct timespec pause;
    pause.tv_sec = ms / 1000;
    pause.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&pause, NULL);
}

static pthread_t start(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, argument) != 0)
        abort();
    return thread;
}

/* The program's own directory, its first argument. */
static const char *root;

enum { PATH_LEN = 4096 };

static void path_below_root(char path[PATH_LEN], const char *name)
{
    snprintf(path, PATH_LEN, "%s/%s", root, name);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (CHECK(file != NULL)) {
        fputs(text, file);
        fclose(file);
    }
}

static int exists(const char *path)
{
    struct stat found;
    return stat(path, &found) == 0;
}

/* The cache in the directory `name` below the root; NULL for one without a directory. */
static npcache *open_cache(const char *name)
{
    char path[PATH_LEN];
    npcache *cache = NULL;
    npcache_error *error = NULL;
    if (name)
        path_below_root(path, name);
    if (!OK(npcache_new(name ? path : NULL, NULL, &cache, &error))) {
        printf("    %s\n", npcache_error_message(error));
        exit(finish());
    }
    CHECK(cache != NULL && error == NULL);
    return cache;
}

/* Found in the directory or, in this process, in memory. */
static int is_hit(const npcache_buffer *buffer)
{
    int32_t origin = npcache_buffer_origin(buffer);
    return origin == NPCACHE_ORIGIN_DISK || origin == NPCACHE_ORIGIN_MEMORY;
}

static int is_computed(const npcache_buffer *buffer)
{
    return npcache_buffer_origin(buffer) == NPCACHE_ORIGIN_COMPUTED;
}

/* 0, 0.5, 1, …: as many doubles as the int64_t at `args` says. */
static npcache_status put_halves(npcache_output *out, int64_t count)
{
    double *value = (double *)npcache_output_alloc(out, "halves", NPCACHE_FLOAT64, 1, &count, NPCACHE_ORDER_C);
    int64_t i;
    for (i = 0; value && i < count; i++)
        value[i] = 0.5 * (double)i;
    return npcache_output_commit(out);
}

/* The same as a function; counts its runs in the int at `user_data`. */
static int32_t halves(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    int64_t count = 3;
    if (args_len == sizeof count)
        memcpy(&count, args, sizeof count);
    if (user_data)
        ++*(int *)user_data;
    return put_halves(out, count);
}

static int holds_halves(const npcache_buffer *buffer, int64_t count)
{
    size_t found = 0;
    const double *value = (const double *)npcache_buffer_data(buffer, 0, NPCACHE_FLOAT64, &found);
    int64_t i;
    if (!value || found != (size_t)count)
        return 0;
    for (i = 0; i < count; i++)
        if (value[i] != 0.5 * (double)i)
            return 0;
    return 1;
}

#endif
