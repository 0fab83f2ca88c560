/* Threads that share whatever may be shared: `threads DIRECTORY` prints what is not as it should be, and a count.

   Each does one thing after the other by chance, on one cache and one function: calls, calls in two halves, look-ups,
   clears, bounds, statistics, listeners, further handles on the directory, and results that another thread releases. It is
   for the sanitizers and valgrind above all. `threads race` does what must not be done, two threads at one options object:
   a thread sanitizer that does not see it is not looking into the library. */
#include "check.h"
#include "numbers.h"

enum { THREADS = 4, STEPS = 500, KEYS = 24 };

static npcache *cache;
static npcache_function *function;
/* Handed from thread to thread. */
static npcache_buffer *last;

static int32_t numbers(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    uint64_t key;
    (void)user_data, (void)args_len;
    memcpy(&key, args, sizeof key);
    return put_numbers(key, out);
}

static void listen(void *user_data, int32_t level, const char *message)
{
    (void)user_data;
    CHECK(level >= NPCACHE_LOG_INFO && strlen(message) > 0);
}

/* Looks at a result, or NULL for none, and gives it away. */
static void use(npcache_buffer *result, uint64_t key, int hand_on)
{
    if (!result)
        return;
    CHECK(holds_numbers(result, key));
    if (hand_on)
        result = __atomic_exchange_n(&last, result, __ATOMIC_ACQ_REL);
    npcache_buffer_release(result);
}

static void call(npcache *of, uint64_t key, int hand_on)
{
    npcache_buffer *result = NULL;
    if (OK(npcache_call(of, "numbers", "1", &key, sizeof key, numbers, NULL, &result, NULL)))
        use(result, key, hand_on);
}

static void call_in_halves(npcache_args *args, uint64_t key)
{
    npcache_buffer *result = NULL;
    npcache_output *todo = NULL;
    OK(npcache_begin(function, args, -1, &result, &todo, NULL));
    if (todo) {
        CHECK(put_numbers(key, todo) == 0);
        OK(npcache_end(todo, &result, NULL));
    }
    use(result, key, 1);
}

static void step(unsigned *seed)
{
    uint64_t key = (uint64_t)rand_r(seed) % KEYS;
    npcache_statistics counted;
    npcache_args *args = NULL;
    npcache_buffer *hit = NULL;
    npcache *other;
    char *text = NULL;

    OK(npcache_args_from_bytes(&key, sizeof key, &args, NULL));
    switch (rand_r(seed) % 32) {
    case 0:
        OK(npcache_clear(cache, 0, NULL));
        break;
    case 1:
        OK(npcache_clear_function(cache, "numbers", NULL));
        break;
    case 2:
        OK(npcache_stats(cache, "numbers", &counted, sizeof counted, NULL));
        break;
    case 3:
        OK(npcache_configure(cache, "max_entries", key % 2 ? "none" : "8", NULL));
        break;
    case 4:
        npcache_set_log(key % 2 ? listen : NULL, NULL);
        break;
    case 5:
        other = open_cache("shared");
        call(other, key, 1);
        npcache_free(other);
        break;
    case 6:
        OK(npcache_forget(function, args, NULL));
        break;
    case 7:
        OK(npcache_explain(NULL, function, args, &text, NULL));
        npcache_text_free(text);
        break;
    case 8:
    case 9:
        OK(npcache_lookup(function, args, &hit, NULL));
        use(hit, key, 1);
        break;
    case 10:
    case 11:
    case 12:
    case 13:
    case 14:
    case 15:
        call_in_halves(args, key);
        break;
    default:
        call(cache, key, (int)(key % 2));
    }
    npcache_args_free(args);
}

static void *act(void *seed)
{
    for (int i = 0; i < STEPS; i++)
        step((unsigned *)seed);
    return NULL;
}

static void *set(void *options)
{
    for (int i = 0; i < STEPS; i++)
        npcache_options_set((npcache_options *)options, "min_compute_ms", "1", NULL);
    return NULL;
}

static int race(void)
{
    npcache_options *options = npcache_options_new();
    pthread_t other = start(set, options);
    set(options);
    pthread_join(other, NULL);
    npcache_options_free(options);
    return 0;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];

    if (argc != 2) {
        fprintf(stderr, "usage: threads DIRECTORY|race\n");
        return 2;
    }
    if (strcmp(argv[1], "race") == 0)
        return race();
    root = argv[1];
    cache = open_cache("shared");
    OK(npcache_function_new(cache, "numbers", "1", &function, NULL));
    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i;
        threads[i] = start(act, &seeds[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    npcache_buffer_release(last);
    npcache_set_log(NULL, NULL);
    npcache_function_free(function);
    npcache_free(cache);
    return finish();
}
