/* The two halves of a call, begin and end: tasks, waits, and who takes over. */

static void begin_gives_a_task_and_then_a_hit(void)
{
    npcache *cache = open_cache("split");
    npcache_function *function = NULL;
    npcache_buffer *hit = POISON(npcache_buffer);
    npcache_output *todo = POISON(npcache_output);
    npcache_error *error = POISON(npcache_error);

    OK(npcache_function_new(cache, "split", "1", &function, NULL));
    npcache_free(cache); /* the function keeps it open */
    OK(npcache_begin(function, NULL, -1, &hit, &todo, &error));
    CHECK(hit == NULL && todo != NULL && error == NULL);
    OK(put_halves(todo, 6));
    hit = POISON(npcache_buffer);
    OK(npcache_end(todo, &hit, &error));
    CHECK(is_computed(hit) && holds_halves(hit, 6) && error == NULL);
    OK(npcache_buffer_stored(hit));
    npcache_buffer_release(hit);

    OK(npcache_begin(function, NULL, 0, &hit, &todo, NULL));
    CHECK(todo == NULL && is_hit(hit) && holds_halves(hit, 6));
    npcache_buffer_release(hit);
    REFUSED(npcache_begin(function, NULL, -2, &hit, &todo, &error));
    CHECK(!hit && !todo && says(&error, NPCACHE_ERR_ARGUMENT, "wait_ms"));
    REFUSED(npcache_begin(function, NULL, INT64_MIN, &hit, &todo, NULL));
    OK(npcache_begin(function, NULL, INT64_MAX, &hit, &todo, NULL));
    npcache_buffer_release(hit);
    npcache_function_free(function);
}

static void end_says_what_is_missing(void)
{
    npcache *cache = open_cache("end");
    npcache_function *function = NULL;
    npcache_buffer *hit = NULL;
    npcache_output *todo = NULL;
    npcache_error *error = NULL;
    const int64_t negative = -1;

    OK(npcache_function_new(cache, "end", "1", &function, NULL));
    OK(npcache_begin(function, NULL, -1, &hit, &todo, NULL));
    hit = POISON(npcache_buffer);
    IS(NPCACHE_ERR_NOT_COMMITTED, npcache_end(todo, &hit, &error));
    CHECK(hit == NULL && says(&error, NPCACHE_ERR_NOT_COMMITTED, "end"));
    OK(npcache_begin(function, NULL, 0, &hit, &todo, NULL));
    CHECK(todo != NULL);
    OK(put_halves(todo, 2));
    OK(npcache_output_fail(todo, "did not converge"));
    IS(NPCACHE_ERR_FUNCTION, npcache_end(todo, &hit, &error));
    CHECK(hit == NULL && says(&error, NPCACHE_ERR_FUNCTION, "did not converge"));
    OK(npcache_begin(function, NULL, 0, &hit, &todo, NULL));
    CHECK(npcache_output_alloc(todo, NULL, NPCACHE_INT8, 1, &negative, NPCACHE_ORDER_C) == NULL);
    REFUSED(npcache_output_commit(todo));
    REFUSED(npcache_end(todo, &hit, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "negative"));
    OK(npcache_begin(function, NULL, 0, &hit, &todo, NULL));
    IS(NPCACHE_ERR_NOT_COMMITTED, npcache_end(todo, NULL, NULL));

    /* Not wanted, but stored. */
    OK(npcache_begin(function, NULL, 0, &hit, &todo, NULL));
    OK(put_halves(todo, 2));
    OK(npcache_end(todo, NULL, NULL));
    OK(npcache_begin(function, NULL, 0, &hit, &todo, NULL));
    CHECK(todo == NULL && holds_halves(hit, 2));
    npcache_buffer_release(hit);
    npcache_function_free(function);
    npcache_free(cache);
}

/* A thread that asks for `function`'s only call, and computes it with `count` numbers if it has to. */
struct asker {
    npcache_function *function;
    int64_t wait_ms;
    int64_t count;
    npcache_status status;
    npcache_buffer *buffer;
    int computed;
};

static void *ask(void *argument)
{
    struct asker *asker = (struct asker *)argument;
    npcache_output *todo = NULL;

    asker->status = npcache_begin(asker->function, NULL, asker->wait_ms, &asker->buffer, &todo, NULL);
    asker->computed = todo != NULL;
    if (todo) {
        OK(put_halves(todo, asker->count));
        OK(npcache_end(todo, &asker->buffer, NULL));
    }
    return NULL;
}

static struct asker ask_in_a_thread(npcache_function *function, int64_t wait_ms)
{
    struct asker asker;
    memset(&asker, 0, sizeof asker);
    asker.function = function;
    asker.wait_ms = wait_ms;
    asker.count = 11;
    pthread_join(start(ask, &asker), NULL);
    return asker;
}

static void *end_it(void *argument)
{
    OK(put_halves((npcache_output *)argument, 5));
    OK(npcache_end((npcache_output *)argument, NULL, NULL));
    return NULL;
}

static void another_thread_is_busy_or_waits(void)
{
    npcache *cache = open_cache("busy");
    npcache_function *function = NULL;
    npcache_buffer *hit = NULL;
    npcache_output *todo = NULL, *again = NULL;
    struct asker asker, waiter;
    pthread_t thread;
    double began;

    OK(npcache_function_new(cache, "busy", "1", &function, NULL));
    OK(npcache_begin(function, NULL, -1, &hit, &todo, NULL));
    asker = ask_in_a_thread(function, 0);
    IS(NPCACHE_BUSY, asker.status);
    CHECK(!asker.buffer && !asker.computed);
    began = seconds();
    asker = ask_in_a_thread(function, 100);
    IS(NPCACHE_BUSY, asker.status);
    CHECK(seconds() - began >= 0.1);

    /* This thread would wait for itself: it computes unshared. */
    OK(npcache_begin(function, NULL, -1, &hit, &again, NULL));
    CHECK(again != NULL);
    IS(NPCACHE_ERR_NOT_COMMITTED, npcache_end(again, NULL, NULL));

    /* Ended without a commit: the waiter computes, long before its lock_timeout. */
    memset(&waiter, 0, sizeof waiter);
    waiter.function = function;
    waiter.wait_ms = -1;
    waiter.count = 8;
    thread = start(ask, &waiter);
    sleep_ms(50);
    began = seconds();
    IS(NPCACHE_ERR_NOT_COMMITTED, npcache_end(todo, NULL, NULL));
    pthread_join(thread, NULL);
    CHECK(seconds() - began < 30);
    OK(waiter.status);
    CHECK(waiter.computed && holds_halves(waiter.buffer, 8));
    npcache_buffer_release(waiter.buffer);

    /* Ended with one, by yet another thread: the waiter shares the result. */
    OK(npcache_clear(cache, 0, NULL));
    OK(npcache_begin(function, NULL, -1, &hit, &todo, NULL));
    CHECK(todo != NULL);
    thread = start(ask, &waiter);
    sleep_ms(50);
    pthread_join(start(end_it, todo), NULL);
    pthread_join(thread, NULL);
    OK(waiter.status);
    CHECK(!waiter.computed && holds_halves(waiter.buffer, 5));
    CHECK(npcache_buffer_origin(waiter.buffer) == NPCACHE_ORIGIN_SHARED || is_hit(waiter.buffer));
    npcache_buffer_release(waiter.buffer);
    npcache_function_free(function);
    npcache_free(cache);
}

static void short_waits_add_up_to_the_lock_timeout(void)
{
    npcache *cache = NULL;
    npcache_options *options = npcache_options_new();
    npcache_function *function = NULL;
    npcache_buffer *hit = NULL;
    npcache_output *todo = NULL;
    struct asker asker;
    char path[PATH_LEN];
    int busy = 0;

    path_below_root(path, "patience");
    OK(npcache_options_set(options, "lock_timeout", "0.5", NULL));
    OK(npcache_new(path, options, &cache, NULL));
    npcache_options_free(options);
    OK(npcache_function_new(cache, "slow", "1", &function, NULL));
    OK(npcache_begin(function, NULL, -1, &hit, &todo, NULL));
    do {
        asker = ask_in_a_thread(function, 50);
        busy += asker.status == NPCACHE_BUSY;
    } while (asker.status == NPCACHE_BUSY && busy < 1000);
    OK(asker.status);
    CHECK(busy > 0 && busy < 1000 && asker.computed && holds_halves(asker.buffer, 11));
    npcache_buffer_release(asker.buffer);
    /* The first one's result is good all the same, and in its place. */
    OK(put_halves(todo, 11));
    OK(npcache_end(todo, &hit, NULL));
    CHECK(is_computed(hit));
    OK(npcache_buffer_stored(hit));
    npcache_buffer_release(hit);
    npcache_function_free(function);
    npcache_free(cache);
}

/* Of 16 threads that call at once, one computes. */
struct crowd {
    npcache *cache;
    int runs;
};

static int32_t slow_halves(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    (void)args, (void)args_len;
    __sync_fetch_and_add(&((struct crowd *)user_data)->runs, 1);
    sleep_ms(100);
    return put_halves(out, 4);
}

static void *call_with_the_others(void *argument)
{
    struct crowd *crowd = (struct crowd *)argument;
    npcache_buffer *buffer = NULL;

    OK(npcache_call(crowd->cache, "crowd", "1", NULL, 0, slow_halves, crowd, &buffer, NULL));
    CHECK(holds_halves(buffer, 4));
    npcache_buffer_release(buffer);
    return NULL;
}

static void sixteen_threads_compute_once(void)
{
    struct crowd crowd = {NULL, 0};
    pthread_t threads[16];
    int i;

    crowd.cache = open_cache("crowd");
    for (i = 0; i < 16; i++)
        threads[i] = start(call_with_the_others, &crowd);
    for (i = 0; i < 16; i++)
        pthread_join(threads[i], NULL);
    CHECK(crowd.runs == 1);
    npcache_free(crowd.cache);
}

static void key_of(npcache_function *function, const npcache_args *args, char key[65])
{
    OK(npcache_function_key(function, args, key, NULL));
    CHECK(strspn(key, "0123456789abcdef") == 64 && key[64] == 0);
}

static void versions_objects_and_dependencies_make_the_key(void)
{
    npcache *cache = open_cache("keys");
    npcache_function *plain = NULL, *built = NULL, *other = NULL;
    npcache_buffer *hit = NULL;
    npcache_output *todo = NULL;
    npcache_error *error = NULL;
    char first[65], second[65], third[65];
    int runs = 0;

    OK(npcache_function_new(cache, "f", "1", &plain, NULL));
    OK(npcache_function_new(cache, "f", "1", &other, NULL));
    key_of(plain, NULL, first);
    OK(npcache_begin(plain, NULL, -1, &hit, &todo, NULL));
    OK(put_halves(todo, 1));
    OK(npcache_end(todo, &hit, NULL));
    CHECK(strstr(npcache_buffer_path(hit), first) != NULL); /* the key names the file */
    npcache_buffer_release(hit);

    OK(npcache_function_add_dependency(plain, "lapack", "3.11", NULL));
    key_of(plain, NULL, second);
    CHECK(strcmp(first, second) != 0);
    OK(npcache_function_add_dependency(plain, "blas", "", NULL));
    key_of(plain, NULL, second);
    OK(npcache_function_add_dependency(other, "blas", "", NULL));
    OK(npcache_function_add_dependency(other, "lapack", "3.11", NULL));
    key_of(other, NULL, third);
    CHECK(strcmp(second, third) == 0); /* in any order */
    OK(npcache_function_add_object(other, (void (*)(void))key_of, NULL));
    key_of(other, NULL, second);
    CHECK(strcmp(second, third) != 0);
    OK(npcache_begin(plain, NULL, 0, &hit, &todo, NULL));
    CHECK(todo != NULL); /* what was stored without them is not found */
    IS(NPCACHE_ERR_NOT_COMMITTED, npcache_end(todo, NULL, NULL));

    OK(npcache_function_set(plain, "flight", "off", NULL));
    OK(npcache_function_set(plain, "flight", "thread", NULL));
    OK(npcache_function_set(plain, "flight", "process", NULL));
    OK(npcache_function_set(plain, "layout", "strict", NULL));
    key_of(plain, NULL, first);
    CHECK(strcmp(first, third) != 0);
    OK(npcache_function_set(plain, "layout", "equal", NULL));
    key_of(plain, NULL, first);
    CHECK(strcmp(first, third) == 0);
    REFUSED(npcache_function_set(plain, "mode", "off", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "flight"));
    REFUSED(npcache_function_set(plain, "flight", "maybe", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "process"));
    REFUSED(npcache_function_add_dependency(plain, "\xff", "", NULL));
    REFUSED(npcache_function_add_dependency(plain, "x", "\xff", NULL));

    /* Without a version: the first object gives it. */
    OK(npcache_function_new(cache, "halves", NULL, &built, NULL));
    IS(NPCACHE_ERR_BUILD_ID, npcache_begin(built, NULL, 0, &hit, &todo, &error));
    CHECK(!hit && !todo && says(&error, NPCACHE_ERR_BUILD_ID, "npcache_function_add_object"));
    IS(NPCACHE_ERR_BUILD_ID, npcache_function_key(built, NULL, first, NULL));
    CHECK(first[0] == 0);
    IS(NPCACHE_ERR_BUILD_ID, npcache_function_add_dependency(built, "x", "y", NULL));
    IS(NPCACHE_ERR_BUILD_ID, npcache_function_set(built, "flight", "off", NULL));
    OK(npcache_function_add_object(built, (void (*)(void))halves, NULL));
    key_of(built, NULL, first);
    OK(npcache_begin(built, NULL, 0, &hit, &todo, NULL));
    OK(put_halves(todo, 3));
    OK(npcache_end(todo, NULL, NULL));
    npcache_function_free(built);
    {
        /* The same call as npcache_call's, with the bytes of no arguments. */
        static const unsigned char no_arguments[] = {0x82, 0x80, 0xa0};
        OK(npcache_call(cache, "halves", NULL, no_arguments, sizeof no_arguments, halves, &runs, &hit, NULL));
        CHECK(runs == 0 && is_hit(hit));
        npcache_buffer_release(hit);
    }
    npcache_function_free(other);
    npcache_function_free(plain);
    npcache_free(cache);
}

static void code_in_no_object_needs_a_version(void)
{
    npcache *cache = open_cache("no object");
    npcache_function *function = NULL;
    npcache_error *error = NULL;
    void *heap = malloc(64);

    OK(npcache_function_new(cache, "f", NULL, &function, NULL));
    IS(NPCACHE_ERR_BUILD_ID, npcache_function_add_object(function, (void (*)(void))(uintptr_t)heap, &error));
    CHECK(says(&error, NPCACHE_ERR_BUILD_ID, "version"));
    npcache_function_free(function);
    free(heap);
    npcache_free(cache);
}

/* What the text that explains a call contains. */
static int explains(npcache *cache, npcache_function *function, const npcache_args *args, const char *words)
{
    char *text = POISON(char);
    int holds;
    OK(npcache_explain(cache, function, args, &text, NULL));
    holds = text && strstr(text, words);
    if (!holds)
        printf("    the explanation, without \"%s\": %s\n", words, text ? text : "NULL");
    npcache_text_free(text);
    return holds;
}

static void one_call_is_looked_up_explained_and_forgotten(void)
{
    npcache *cache = open_cache("lookup");
    npcache_function *function = NULL, *other = NULL;
    npcache_args *three = npcache_args_new(), *four = npcache_args_new();
    npcache_buffer *hit = POISON(npcache_buffer);
    npcache_output *todo = NULL;
    npcache_statistics found;
    int32_t cached = 7;

    OK(npcache_args_add_int(three, 3));
    OK(npcache_args_add_int(four, 4));
    OK(npcache_function_new(cache, "lookup", "version one", &function, NULL));
    OK(npcache_function_new(cache, "lookup", "version two", &other, NULL));
    OK(npcache_lookup(function, three, &hit, NULL));
    CHECK(hit == NULL);
    OK(npcache_forget(function, three, NULL)); /* nothing there is no error */
    OK(npcache_begin(function, three, 0, &hit, &todo, NULL));
    CHECK(todo != NULL);
    OK(put_halves(todo, 3));
    OK(npcache_end(todo, NULL, NULL));

    OK(npcache_is_cached(function, three, &cached, NULL));
    CHECK(cached == 1);
    OK(npcache_is_cached(function, four, &cached, NULL));
    CHECK(cached == 0);
    OK(npcache_stats(cache, "lookup", &found, sizeof found, NULL));
    CHECK(found.memory + found.disk == 0 && found.misses == 1);
    OK(npcache_lookup(function, three, &hit, NULL));
    CHECK(is_hit(hit) && holds_halves(hit, 3) && npcache_buffer_seconds(hit) >= 0);
    OK(npcache_stats(cache, "lookup", &found, sizeof found, NULL));
    CHECK(found.memory + found.disk == 1);
    npcache_buffer_release(hit);
    OK(npcache_lookup(function, four, &hit, NULL));
    CHECK(hit == NULL);
    OK(npcache_lookup(other, three, &hit, NULL));
    CHECK(hit == NULL);
    CHECK(explains(cache, function, three, ""));
    CHECK(explains(NULL, function, four, "3"));
    CHECK(explains(cache, other, three, "version one"));
    OK(npcache_forget(function, four, NULL));
    OK(npcache_lookup(function, three, &hit, NULL));
    CHECK(is_hit(hit));
    OK(npcache_forget(function, three, NULL));
    CHECK(holds_halves(hit, 3) && !exists(npcache_buffer_path(hit)));
    npcache_buffer_release(hit);
    OK(npcache_lookup(function, three, &hit, NULL));
    CHECK(hit == NULL);
    npcache_args_free(three);
    npcache_args_free(four);
    npcache_function_free(other);
    npcache_function_free(function);
    npcache_free(cache);
}

static void split_tests(void)
{
    begin_gives_a_task_and_then_a_hit();
    end_says_what_is_missing();
    another_thread_is_busy_or_waits();
    short_waits_add_up_to_the_lock_timeout();
    sixteen_threads_compute_once();
    versions_objects_and_dependencies_make_the_key();
    one_call_is_looked_up_explained_and_forgotten();
    code_in_no_object_needs_a_version();
}
