/* npcache_call where all is well: computed, found, shared between handles and processes, unstored on purpose. */

static void a_call_is_computed_once(void)
{
    npcache *first = open_cache("call"), *second = open_cache("call");
    npcache_buffer *computed = NULL, *found = NULL, *again;
    npcache_error *error = NULL;
    npcache_view view;
    int64_t count = 1000;
    int runs = 0;
    char path[PATH_LEN];

    OK(npcache_call(first, "halves", "1", &count, sizeof count, halves, &runs, &computed, &error));
    CHECK(computed && !error && runs == 1);
    CHECK(is_computed(computed));
    OK(npcache_buffer_stored(computed));
    CHECK(npcache_buffer_path(computed) && npcache_buffer_path(computed)[0] == '/');
    CHECK(exists(npcache_buffer_path(computed)));
    CHECK(npcache_buffer_count(computed) == 1);
    CHECK(holds_halves(computed, 1000));

    OK(npcache_call(second, "halves", "1", &count, sizeof count, halves, &runs, &found, NULL));
    CHECK(runs == 1 && is_hit(found) && holds_halves(found, 1000));
    OK(npcache_buffer_stored(found));
    CHECK(strcmp(npcache_buffer_path(found), npcache_buffer_path(computed)) == 0);
    OK(npcache_buffer_view(found, 0, &view, sizeof view));
    CHECK(view.ndim == 1 && view.shape[0] == 1000 && view.strides[0] == 8 && view.nbytes == 8000);
    CHECK(view.dtype == NPCACHE_FLOAT64 && view.itemsize == 8 && strcmp(view.descr, "<f8") == 0);
    CHECK(strcmp(view.name, "halves") == 0 && view.flags == NPCACHE_ORDER_C);
    CHECK((uintptr_t)view.data % 64 == 0);
    CHECK(npcache_buffer_data(found, 0, NPCACHE_FLOAT64, NULL) == view.data);

    /* A reference more, and the result outlives its handles, a clear and its file. */
    again = npcache_buffer_retain(found);
    CHECK(again == found);
    npcache_buffer_release(found);
    OK(npcache_clear(first, 0, NULL));
    npcache_free(first);
    npcache_free(second);
    CHECK(holds_halves(again, 1000) && holds_halves(computed, 1000));
    snprintf(path, sizeof path, "%s", npcache_buffer_path(again));
    CHECK(!exists(path));
    npcache_buffer_release(again);
    npcache_buffer_release(computed);
}

/* Name, version and arguments, and nothing else, make the key. */
static void what_differs_is_another_call(void)
{
    npcache *cache = open_cache("differs");
    npcache_buffer *buffer = NULL;
    int64_t three = 3, four = 4;
    char other[] = "other user data";
    int runs = 0;

    OK(npcache_call(cache, "f", "1", &three, sizeof three, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "g", "1", &three, sizeof three, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", "2", &three, sizeof three, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", "", &three, sizeof three, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", NULL, &three, sizeof three, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", "1", &four, sizeof four, halves, &runs, &buffer, NULL));
    CHECK(holds_halves(buffer, 4));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    CHECK(runs == 7);
    OK(npcache_call(cache, "f", "1", "", 0, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", NULL, &three, sizeof three, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    CHECK(runs == 7);
    OK(npcache_call(cache, "f", "1", &three, sizeof three, halves, other, &buffer, NULL));
    CHECK(is_hit(buffer) && other[0] == 'o');
    npcache_buffer_release(buffer);
    npcache_free(cache);
}

static int32_t overwrite_arguments(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    CHECK(args == user_data && args_len == sizeof(int64_t));
    memset(user_data, 0xff, sizeof(int64_t));
    return put_halves(out, 2);
}

static void a_function_may_overwrite_its_arguments(void)
{
    npcache *cache = open_cache("overwrite");
    npcache_buffer *buffer = NULL;
    int64_t argument = 5;
    int runs = 0;

    OK(npcache_call(cache, "f", "1", &argument, sizeof argument, overwrite_arguments, &argument, &buffer, NULL));
    CHECK(argument == -1);
    npcache_buffer_release(buffer);
    argument = 5;
    OK(npcache_call(cache, "f", "1", &argument, sizeof argument, halves, &runs, &buffer, NULL));
    CHECK(runs == 0 && holds_halves(buffer, 2));
    npcache_buffer_release(buffer);
    npcache_free(cache);
}

/* The same call in a child, whose checks count there. */
static void a_call_is_found_by_another_process(void)
{
    npcache *cache = open_cache("process");
    npcache_buffer *buffer = NULL;
    int64_t count = 100000; /* 800 kB: mapped */
    int runs = 0, ended = 0;
    pid_t child;

    OK(npcache_call(cache, "halves", "1", &count, sizeof count, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    npcache_free(cache);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        failed = 0;
        buffer = NULL;
        cache = open_cache("process");
        OK(npcache_call(cache, "halves", "1", &count, sizeof count, halves, &runs, &buffer, NULL));
        CHECK(runs == 1 && npcache_buffer_origin(buffer) == NPCACHE_ORIGIN_DISK && holds_halves(buffer, count));
        npcache_buffer_release(buffer);
        npcache_free(cache);
        fflush(stdout);
        _exit(failed != 0);
    }
    CHECK(child > 0 && waitpid(child, &ended, 0) == child && WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
}

static int32_t three_arrays(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    const int64_t shape[] = {2, 3};
    const float complex_numbers[] = {1, 2, 3, 4};
    const int64_t two = 2;
    int32_t *grid = (int32_t *)npcache_output_alloc(out, "grid", NPCACHE_INT32, 2, shape, NPCACHE_ORDER_F);
    uint8_t *mask = (uint8_t *)npcache_output_alloc(out, "mask", NPCACHE_BOOL, 2, shape, NPCACHE_ORDER_C);
    int i;

    (void)args, (void)args_len, (void)user_data;
    CHECK((uintptr_t)grid % 64 == 0 && (uintptr_t)mask % 64 == 0);
    for (i = 0; i < 6; i++) {
        CHECK(grid[i] == 0 && mask[i] == 0); /* zeroed */
        grid[i] = i;
        mask[i] = (uint8_t)(i % 2);
    }
    OK(npcache_output_write(out, "", NPCACHE_COMPLEX64, 1, &two, NULL, complex_numbers));
    OK(npcache_output_note(out, "threads", "2"));
    OK(npcache_output_note(out, "threads", "3"));
    OK(npcache_output_note(out, "", ""));
    return npcache_output_commit(out);
}

static void check_three_arrays(npcache_buffer *buffer)
{
    npcache_view grid, mask, numbers;
    int32_t in_c_order[6];
    const int32_t expected[] = {0, 2, 4, 1, 3, 5};
    size_t count = 7;

    CHECK(npcache_buffer_count(buffer) == 3);
    OK(npcache_buffer_view(buffer, 0, &grid, sizeof grid));
    OK(npcache_buffer_view(buffer, 1, &mask, sizeof mask));
    OK(npcache_buffer_view(buffer, 2, &numbers, sizeof numbers));
    CHECK(strcmp(grid.name, "grid") == 0 && strcmp(mask.name, "mask") == 0 && numbers.name == NULL);
    CHECK(grid.flags == NPCACHE_ORDER_F && grid.strides[0] == 4 && grid.strides[1] == 8);
    CHECK(mask.flags == NPCACHE_ORDER_C && mask.strides[0] == 3 && mask.strides[1] == 1);
    CHECK(grid.dtype == NPCACHE_INT32 && mask.dtype == NPCACHE_BOOL && numbers.dtype == NPCACHE_COMPLEX64);
    CHECK(((const float *)numbers.data)[3] == 4 && numbers.nbytes == 16);
    CHECK((uintptr_t)grid.data % 64 == 0 && (uintptr_t)mask.data % 64 == 0 && (uintptr_t)numbers.data % 64 == 0);
    OK(npcache_buffer_read(buffer, 0, in_c_order, sizeof in_c_order, NPCACHE_ORDER_C));
    CHECK(memcmp(in_c_order, expected, sizeof expected) == 0);
    CHECK(npcache_buffer_data(buffer, 0, NPCACHE_UINT32, &count) == NULL && count == 0);
    CHECK(npcache_buffer_data(buffer, 3, NPCACHE_INT32, &count) == NULL);
    CHECK(npcache_buffer_data(buffer, -1, NPCACHE_INT32, &count) == NULL);
    REFUSED(npcache_buffer_view(buffer, 3, &grid, sizeof grid));
    REFUSED(npcache_buffer_view(buffer, -1, &grid, sizeof grid));
    CHECK(grid.data == NULL && grid.shape == NULL && grid.ndim == 0);
    REFUSED(npcache_buffer_read(buffer, 3, in_c_order, sizeof in_c_order, NPCACHE_ORDER_C));
}

static void a_result_of_three_arrays_comes_back(void)
{
    npcache *cache = open_cache("three");
    npcache_buffer *buffer = NULL;

    OK(npcache_call(cache, "three", "1", NULL, 0, three_arrays, NULL, &buffer, NULL));
    CHECK(is_computed(buffer));
    check_three_arrays(buffer);
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "three", "1", NULL, 0, three_arrays, NULL, &buffer, NULL));
    CHECK(is_hit(buffer));
    check_three_arrays(buffer);
    npcache_buffer_release(buffer);
    npcache_free(cache);
}

/* Opens "modes" with the option or, if `by_environment`, the variable, and makes one call for `count`. */
static npcache_buffer *call_in_mode(const char *mode, int by_environment, int64_t count, int *runs)
{
    char path[PATH_LEN];
    npcache_options *options = npcache_options_new();
    npcache *cache = NULL;
    npcache_buffer *buffer = NULL;

    path_below_root(path, "modes");
    if (by_environment)
        setenv("NPCACHE_MODE", mode, 1);
    else
        OK(npcache_options_set(options, "mode", mode, NULL));
    OK(npcache_new(path, options, &cache, NULL));
    unsetenv("NPCACHE_MODE");
    npcache_options_free(options);
    *runs = 0;
    OK(npcache_call(cache, "halves", "1", &count, sizeof count, halves, runs, &buffer, NULL));
    CHECK(holds_halves(buffer, count));
    npcache_free(cache);
    return buffer;
}

static void modes_do_what_they_say(void)
{
    int by_environment, runs = 0;
    npcache_buffer *buffer;

    npcache_buffer_release(call_in_mode("readwrite", 0, 3, &runs));
    for (by_environment = 0; by_environment < 2; by_environment++) {
        buffer = call_in_mode("readonly", by_environment, 3, &runs);
        CHECK(runs == 0 && is_hit(buffer));
        npcache_buffer_release(buffer);
        buffer = call_in_mode("readonly", by_environment, 4, &runs);
        CHECK(runs == 1 && npcache_buffer_path(buffer) == NULL);
        IS(NPCACHE_UNSTORED_READ_ONLY_MODE, npcache_buffer_stored(buffer));
        npcache_buffer_release(buffer);
        buffer = call_in_mode("refresh", by_environment, 3, &runs);
        CHECK(runs == 1 && is_computed(buffer));
        OK(npcache_buffer_stored(buffer));
        npcache_buffer_release(buffer);
        buffer = call_in_mode("off", by_environment, 3, &runs);
        CHECK(runs == 1 && is_computed(buffer) && npcache_buffer_path(buffer) == NULL);
        IS(NPCACHE_UNSTORED_NO_DIRECTORY, npcache_buffer_stored(buffer));
        npcache_buffer_release(buffer);
    }
}

static int32_t one_number(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    (void)args, (void)args_len;
    OK(npcache_output_write(out, NULL, NPCACHE_INT32, 0, NULL, NULL, user_data));
    return npcache_output_commit(out);
}

static void refresh_replaces_what_is_stored(void)
{
    npcache *cache = open_cache("refresh"), *refreshing = NULL;
    npcache_buffer *buffer = NULL;
    int32_t number = 1;

    OK(npcache_call(cache, "number", "1", NULL, 0, one_number, &number, &buffer, NULL));
    npcache_buffer_release(buffer);
    setenv("NPCACHE_MODE", "refresh", 1);
    refreshing = open_cache("refresh");
    unsetenv("NPCACHE_MODE");
    number = 2;
    OK(npcache_call(refreshing, "number", "1", NULL, 0, one_number, &number, &buffer, NULL));
    npcache_buffer_release(buffer);
    number = 3;
    OK(npcache_call(cache, "number", "1", NULL, 0, one_number, &number, &buffer, NULL));
    CHECK(is_hit(buffer) && *(const int32_t *)npcache_buffer_data(buffer, 0, NPCACHE_INT32, NULL) == 2);
    npcache_buffer_release(buffer);
    npcache_free(refreshing);
    npcache_free(cache);
}

static void without_a_directory_every_call_computes(void)
{
    npcache *cache = open_cache(NULL);
    npcache_buffer *buffer = NULL;
    int runs = 0, i;

    for (i = 0; i < 2; i++) {
        OK(npcache_call(cache, "halves", NULL, NULL, 0, halves, &runs, &buffer, NULL));
        CHECK(is_computed(buffer) && holds_halves(buffer, 3) && npcache_buffer_path(buffer) == NULL);
        IS(NPCACHE_UNSTORED_NO_DIRECTORY, npcache_buffer_stored(buffer));
        npcache_buffer_release(buffer);
    }
    CHECK(runs == 2);
    OK(npcache_clear(cache, 0, NULL));
    OK(npcache_clear(cache, NPCACHE_CLEAR_REMOVE_DIR, NULL));
    OK(npcache_clear_function(cache, "halves", NULL));
    npcache_free(cache);
}

/* Calls the cache for its own key while *user_data is positive, then for another one. */
struct nesting {
    npcache *cache;
    int depth;
    int runs;
};

static int32_t nested(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    struct nesting *nesting = (struct nesting *)user_data;
    npcache_buffer *inner = NULL;
    int64_t count = 7;

    nesting->runs++;
    if (nesting->depth-- > 0)
        OK(npcache_call(nesting->cache, "nested", "1", args, args_len, nested, nesting, &inner, NULL));
    else
        OK(npcache_call(nesting->cache, "halves", "1", &count, sizeof count, halves, NULL, &inner, NULL));
    CHECK(inner != NULL);
    npcache_buffer_release(inner);
    return put_halves(out, 4);
}

static void a_function_may_call_the_cache(void)
{
    struct nesting nesting = {NULL, 3, 0};
    npcache_buffer *buffer = NULL;

    nesting.cache = open_cache("nested");
    OK(npcache_call(nesting.cache, "nested", "1", NULL, 0, nested, &nesting, &buffer, NULL));
    CHECK(nesting.runs == 4 && is_computed(buffer) && holds_halves(buffer, 4));
    OK(npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    OK(npcache_call(nesting.cache, "nested", "1", NULL, 0, nested, &nesting, &buffer, NULL));
    CHECK(nesting.runs == 4 && is_hit(buffer));
    npcache_buffer_release(buffer);
    npcache_free(nesting.cache);
}

static void call_tests(void)
{
    a_call_is_computed_once();
    what_differs_is_another_call();
    a_function_may_overwrite_its_arguments();
    a_call_is_found_by_another_process();
    a_result_of_three_arrays_comes_back();
    modes_do_what_they_say();
    refresh_replaces_what_is_stored();
    without_a_directory_every_call_computes();
    a_function_may_call_the_cache();
}
