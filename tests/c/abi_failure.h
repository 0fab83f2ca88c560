/* What goes wrong: functions that fail, NULL for every pointer, names, numbers and shapes out of range. A status and a
   message each time, never a crash, and nothing cached. */

/* What the function `misbehave` does, in this order. */
struct misbehaviour {
    const char *complaint; /* given to npcache_output_fail */
    int wrong_alloc;
    int alloc;
    int commits;
    int alloc_after;
    int end;
    int32_t code;
    int return_commit;
};

static int32_t misbehave(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    const struct misbehaviour *m = (const struct misbehaviour *)user_data;
    npcache_status status = NPCACHE_OK;
    const int64_t shape[] = {2};
    int i;

    (void)args, (void)args_len;
    if (m->complaint)
        OK(npcache_output_fail(out, m->complaint));
    if (m->wrong_alloc)
        CHECK(npcache_output_alloc(out, NULL, NPCACHE_INT8, 33, shape, NPCACHE_ORDER_C) == NULL);
    if (m->alloc)
        CHECK(npcache_output_alloc(out, NULL, NPCACHE_INT8, 1, shape, NPCACHE_ORDER_C) != NULL);
    for (i = 0; i < m->commits; i++)
        status = npcache_output_commit(out);
    if (m->alloc_after)
        CHECK(npcache_output_alloc(out, NULL, NPCACHE_INT8, 1, shape, NPCACHE_ORDER_C) == NULL);
    if (m->end) {
        npcache_buffer *none = POISON(npcache_buffer);
        npcache_error *error = NULL;
        REFUSED(npcache_end(out, &none, &error));
        CHECK(none == NULL && says(&error, NPCACHE_ERR_ARGUMENT, "npcache_call"));
    }
    return m->return_commit ? status : m->code;
}

/* Calls misbehave for a key of its own; afterwards that key is computed as if nothing had been. */
static void call_fails(npcache *cache, const char *name, const struct misbehaviour *m, npcache_status expected,
                       const char *message)
{
    npcache_buffer *buffer = POISON(npcache_buffer);
    npcache_error *error = POISON(npcache_error);
    int runs = 0;

    IS(expected, npcache_call(cache, name, "1", NULL, 0, misbehave, (void *)(uintptr_t)m, &buffer, &error));
    CHECK(buffer == NULL);
    if (expected == NPCACHE_ERR_FUNCTION)
        CHECK(npcache_error_function_code(error) == m->code);
    else
        CHECK(npcache_error_function_code(error) == 0);
    CHECK(says(&error, expected, message));
    IS(expected, npcache_call(cache, name, "1", NULL, 0, misbehave, (void *)(uintptr_t)m, &buffer, NULL));
    OK(npcache_call(cache, name, "1", NULL, 0, halves, &runs, &buffer, &error));
    CHECK(runs == 1 && is_computed(buffer) && error == NULL);
    OK(npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
}

static void what_a_function_fails_to_do_is_not_cached(void)
{
    npcache *cache = open_cache("failing");
    npcache_buffer *buffer = NULL;
    struct misbehaviour m;

    memset(&m, 0, sizeof m);
    m.alloc = 1;
    call_fails(cache, "never commits", &m, NPCACHE_ERR_NOT_COMMITTED, "npcache_output_commit");
    m.commits = 1;
    m.code = 42;
    call_fails(cache, "returns 42", &m, NPCACHE_ERR_FUNCTION, "42");
    m.code = INT32_MIN;
    call_fails(cache, "returns the least", &m, NPCACHE_ERR_FUNCTION, "returns the least");
    m.complaint = "the mesh is tangled \xc3\xa9";
    m.code = 7;
    call_fails(cache, "complains", &m, NPCACHE_ERR_FUNCTION, "the mesh is tangled \xc3\xa9");
    m.code = 0;
    call_fails(cache, "complains and returns 0", &m, NPCACHE_ERR_FUNCTION, "the mesh is tangled");
    m.complaint = NULL;
    m.alloc = 0;
    call_fails(cache, "commits nothing", &m, NPCACHE_ERR_ARGUMENT, "without an array");
    m.wrong_alloc = 1;
    m.alloc = 1;
    call_fails(cache, "commits a part", &m, NPCACHE_ERR_ARGUMENT, "ndim");
    m.commits = 0;
    call_fails(cache, "allocates wrongly", &m, NPCACHE_ERR_ARGUMENT, "ndim");
    m.wrong_alloc = 0;
    m.commits = 1;
    m.alloc_after = 1;
    call_fails(cache, "allocates after the commit", &m, NPCACHE_ERR_ARGUMENT, "committed");

    memset(&m, 0, sizeof m);
    m.alloc = m.end = 1;
    m.commits = 2;
    OK(npcache_call(cache, "commits twice", "1", NULL, 0, misbehave, &m, &buffer, NULL));
    OK(npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    npcache_free(cache);
}

/* `return npcache_output_commit(out)` is how functions end, as README.md's does: what commit refused is said. */
static void a_returned_commit_error_reaches_the_caller(void)
{
    npcache *cache = open_cache("returned");
    npcache_buffer *buffer = POISON(npcache_buffer);
    npcache_error *error = NULL;
    struct misbehaviour m;

    memset(&m, 0, sizeof m);
    m.wrong_alloc = m.commits = m.return_commit = 1;
    CHECK(npcache_call(cache, "f", "1", NULL, 0, misbehave, &m, &buffer, &error) < 0 && buffer == NULL);
    CHECK(strstr(npcache_error_message(error), "ndim") != NULL);
    if (failed)
        printf("    the message: %s\n", npcache_error_message(error));
    npcache_error_free(error);
    npcache_free(cache);
}

/* One wrong array, the `which`th kind of it; 0 when there are no more. */
static int add_wrong_array(npcache_output *out, int which)
{
    const int64_t two = 2, negative = -1, most = INT64_MAX, square[] = {INT64_MAX, INT64_MAX};
    const int64_t wraps[] = {(int64_t)1 << 32, (int64_t)1 << 32}, wraps_with_type[] = {(int64_t)1 << 61};
    const int64_t more_than_memory[] = {(int64_t)1 << 46};
    const int64_t steps_too_far[] = {INT64_MAX}, steps_back_too_far[] = {INT64_MIN}, long_shape[] = {4};
    int64_t shape[34] = {0};
    const int64_t *unaligned = (const int64_t *)(const void *)((const char *)shape + 1);
    const double data[2] = {1, 2};
    char name[1026];

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    /* Allocations. */
    switch (which) {
#define ALLOC(number, name, dtype, ndim, shape, flags) \
    case number: \
        CHECK(npcache_output_alloc(out, name, dtype, ndim, shape, flags) == NULL); \
        return 1
        ALLOC(0, NULL, 0, 1, &two, NPCACHE_ORDER_C);
        ALLOC(1, NULL, -1, 1, &two, NPCACHE_ORDER_C);
        ALLOC(2, NULL, 15, 1, &two, NPCACHE_ORDER_C);
        ALLOC(3, NULL, INT32_MAX, 1, &two, NPCACHE_ORDER_C);
        ALLOC(4, NULL, INT32_MIN, 1, &two, NPCACHE_ORDER_C);
        ALLOC(5, NULL, NPCACHE_INT8, -1, &two, NPCACHE_ORDER_C);
        ALLOC(6, NULL, NPCACHE_INT8, INT32_MIN, &two, NPCACHE_ORDER_C);
        ALLOC(7, NULL, NPCACHE_INT8, INT32_MAX, &two, NPCACHE_ORDER_C);
        ALLOC(8, NULL, NPCACHE_INT8, 33, shape, NPCACHE_ORDER_C);
        ALLOC(9, NULL, NPCACHE_INT8, 1, NULL, NPCACHE_ORDER_C);
        ALLOC(10, NULL, NPCACHE_INT8, 1, &negative, NPCACHE_ORDER_C);
        ALLOC(11, NULL, NPCACHE_INT8, 1, &most, NPCACHE_ORDER_C);
        ALLOC(12, NULL, NPCACHE_INT8, 2, square, NPCACHE_ORDER_C);
        ALLOC(13, NULL, NPCACHE_INT8, 2, wraps, NPCACHE_ORDER_F);
        ALLOC(14, NULL, NPCACHE_FLOAT64, 1, wraps_with_type, NPCACHE_ORDER_C);
        ALLOC(15, NULL, NPCACHE_FLOAT64, 1, more_than_memory, NPCACHE_ORDER_C);
        ALLOC(16, NULL, NPCACHE_INT8, 1, &two, 2);
        ALLOC(17, NULL, NPCACHE_INT8, 1, &two, UINT32_MAX);
        ALLOC(18, "\xff", NPCACHE_INT8, 1, &two, NPCACHE_ORDER_C);
        ALLOC(19, name, NPCACHE_INT8, 1, &two, NPCACHE_ORDER_C);
        ALLOC(20, "taken", NPCACHE_INT8, 1, &two, NPCACHE_ORDER_C);
        ALLOC(21, NULL, NPCACHE_INT8, 1, unaligned, NPCACHE_ORDER_C);
#define ALLOC_DESCR(number, descr) \
    case number: \
        CHECK(npcache_output_alloc_descr(out, NULL, descr, 1, &two, NPCACHE_ORDER_C) == NULL); \
        return 1
        ALLOC_DESCR(22, NULL);
        ALLOC_DESCR(23, "");
        ALLOC_DESCR(24, "|O");
        ALLOC_DESCR(25, "[('x', '|O')]");
        ALLOC_DESCR(26, "float64?");
        ALLOC_DESCR(27, "|S");
        ALLOC_DESCR(28, "|S99999999999999999999");
        ALLOC_DESCR(29, "[('x', '<f8'");
        ALLOC_DESCR(30, "<f8\xff");
#define WRITE(number, name, dtype, ndim, shape, strides, data) \
    case number: \
        CHECK(npcache_output_write(out, name, dtype, ndim, shape, strides, data) < 0); \
        return 1
        WRITE(31, NULL, 99, 1, &two, NULL, data);
        WRITE(32, NULL, NPCACHE_FLOAT64, -1, &two, NULL, data);
        WRITE(33, NULL, NPCACHE_FLOAT64, INT32_MAX, &two, NULL, data);
        WRITE(34, NULL, NPCACHE_FLOAT64, 1, NULL, NULL, data);
        WRITE(35, NULL, NPCACHE_FLOAT64, 1, &two, NULL, NULL);
        WRITE(36, NULL, NPCACHE_FLOAT64, 1, &negative, NULL, data);
        WRITE(37, NULL, NPCACHE_FLOAT64, 2, square, NULL, data);
        WRITE(38, NULL, NPCACHE_FLOAT64, 2, wraps, NULL, data);
        WRITE(39, NULL, NPCACHE_FLOAT64, 1, long_shape, steps_too_far, data);
        WRITE(40, NULL, NPCACHE_FLOAT64, 1, long_shape, steps_back_too_far, data);
        WRITE(41, "\xff", NPCACHE_FLOAT64, 1, &two, NULL, data);
        WRITE(42, "taken", NPCACHE_FLOAT64, 1, &two, NULL, data);
        WRITE(43, NULL, NPCACHE_FLOAT64, 1, &two, unaligned, data);
    case 44:
        REFUSED(npcache_output_note(out, NULL, "value"));
        return 1;
    case 45:
        REFUSED(npcache_output_note(out, "name", NULL));
        return 1;
    case 46:
        REFUSED(npcache_output_note(out, name, "value"));
        return 1;
    case 47:
        REFUSED(npcache_output_note(out, "name", "\xff"));
        return 1;
    case 48:
        REFUSED(npcache_output_fail(out, NULL));
        return 1;
    case 49:
        REFUSED(npcache_output_fail(out, "\xc3"));
        return 1;
    }
    return 0;
}

static int no_more_wrong_arrays;

static int32_t add_a_wrong_array(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    const int64_t two = 2;

    (void)args, (void)args_len;
    CHECK(npcache_output_alloc(out, "taken", NPCACHE_INT8, 1, &two, NPCACHE_ORDER_C) != NULL);
    no_more_wrong_arrays = !add_wrong_array(out, *(int *)user_data);
    /* The first error counts, and the array before it does not make the result whole. */
    if (!no_more_wrong_arrays)
        CHECK(npcache_output_commit(out) < 0);
    CHECK(npcache_output_alloc(out, "another", NPCACHE_INT8, 1, &two, NPCACHE_ORDER_C) != NULL);
    return 0;
}

static void a_wrong_array_is_an_error_that_says_what(void)
{
    npcache *cache = open_cache("wrong arrays");
    int which;

    for (which = 0;; which++) {
        npcache_buffer *buffer = POISON(npcache_buffer);
        npcache_error *error = NULL;
        npcache_status status =
            npcache_call(cache, "wrong", "1", NULL, 0, add_a_wrong_array, &which, &buffer, &error);
        CHECK(buffer == NULL);
        if (no_more_wrong_arrays) {
            CHECK(which == 50 && says(&error, NPCACHE_ERR_NOT_COMMITTED, "wrong"));
            break;
        }
        if (!CHECK(status == NPCACHE_ERR_ARGUMENT || status == NPCACHE_ERR_DTYPE || status == NPCACHE_ERR_MEMORY)
            || !CHECK(strlen(npcache_error_message(error)) > 10))
            printf("    %d: %d: %s\n", which, (int)status, npcache_error_message(error));
        npcache_error_free(error);
    }
    npcache_free(cache);
}

static void null_is_an_error_for_every_pointer(void)
{
    npcache *cache = open_cache("null");
    npcache *no_cache = POISON(npcache);
    npcache_buffer *buffer = POISON(npcache_buffer);
    npcache_function *function = POISON(npcache_function);
    npcache_options *options = npcache_options_new();
    npcache_output *todo = POISON(npcache_output);
    npcache_args *args = npcache_args_new();
    npcache_digest *digest = POISON(npcache_digest);
    npcache_error *error = NULL;
    npcache_view view;
    const int64_t one = 1;
    const double number = 1;
    size_t count = 5;
    char key[65];
    int runs = 0;

    REFUSED(npcache_new("/tmp", NULL, NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "out"));
    REFUSED(npcache_new("/tmp", NULL, NULL, NULL));
    REFUSED(npcache_new("", NULL, &no_cache, &error));
    CHECK(no_cache == NULL && says(&error, NPCACHE_ERR_ARGUMENT, "path"));
    npcache_free(NULL);

    REFUSED(npcache_options_set(NULL, "mode", "off", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "options"));
    REFUSED(npcache_options_set(options, NULL, "off", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "name"));
    REFUSED(npcache_options_set(options, "mode", NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "value"));
    REFUSED(npcache_options_set(options, "mode", NULL, NULL));
    npcache_options_free(NULL);

    REFUSED(npcache_call(NULL, "f", "1", NULL, 0, halves, &runs, &buffer, &error));
    CHECK(buffer == NULL && says(&error, NPCACHE_ERR_ARGUMENT, "cache"));
    buffer = POISON(npcache_buffer);
    REFUSED(npcache_call(cache, NULL, "1", NULL, 0, halves, &runs, &buffer, &error));
    CHECK(buffer == NULL && says(&error, NPCACHE_ERR_ARGUMENT, "name"));
    REFUSED(npcache_call(cache, "f", "1", NULL, 1, halves, &runs, &buffer, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "args"));
    REFUSED(npcache_call(cache, "f", "1", NULL, SIZE_MAX, halves, &runs, &buffer, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "args"));
    REFUSED(npcache_call(cache, "f", "1", "x", SIZE_MAX, halves, &runs, &buffer, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "args"));
    REFUSED(npcache_call(cache, "f", "1", NULL, 0, NULL, &runs, &buffer, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "function"));
    REFUSED(npcache_call(cache, "f", NULL, NULL, 0, NULL, &runs, &buffer, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "function"));
    REFUSED(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "out"));
    REFUSED(npcache_call(cache, "f", "\xff", NULL, 0, halves, &runs, &buffer, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "version"));
    REFUSED(npcache_call(NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL));
    CHECK(runs == 0);
    OK(npcache_call(cache, "f", "1", NULL, 0, halves, NULL, &buffer, NULL));
    CHECK(buffer != NULL);

    REFUSED(npcache_clear(NULL, 0, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "cache"));
    REFUSED(npcache_clear(cache, 2, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "flags"));
    REFUSED(npcache_clear(cache, UINT32_MAX, NULL));
    REFUSED(npcache_clear_function(NULL, "f", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "cache"));
    REFUSED(npcache_clear_function(cache, NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "name"));
    REFUSED(npcache_clear_function(cache, "", NULL));
    REFUSED(npcache_clear_function(cache, "\xff", NULL));
    REFUSED(npcache_configure(NULL, "max_bytes", "1G", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "cache"));
    REFUSED(npcache_configure(cache, NULL, "1G", NULL));
    REFUSED(npcache_configure(cache, "max_bytes", NULL, NULL));
    REFUSED(npcache_configure(cache, "max_bytes", "0", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "none"));
    REFUSED(npcache_configure(cache, "verify", "always", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "max_entries"));

    CHECK(npcache_output_alloc(NULL, NULL, NPCACHE_INT8, 1, &one, NPCACHE_ORDER_C) == NULL);
    CHECK(npcache_output_alloc_descr(NULL, NULL, "<f8", 1, &one, NPCACHE_ORDER_C) == NULL);
    REFUSED(npcache_output_write(NULL, NULL, NPCACHE_FLOAT64, 1, &one, NULL, &number));
    REFUSED(npcache_output_note(NULL, "name", "value"));
    REFUSED(npcache_output_commit(NULL));
    REFUSED(npcache_output_fail(NULL, "message"));

    CHECK(npcache_buffer_count(NULL) == 0 && npcache_buffer_origin(NULL) == 0);
    REFUSED(npcache_buffer_stored(NULL));
    CHECK(npcache_buffer_path(NULL) == NULL && npcache_buffer_retain(NULL) == NULL);
    npcache_buffer_release(NULL);
    memset(&view, 1, sizeof view);
    REFUSED(npcache_buffer_view(NULL, 0, &view, sizeof view));
    CHECK(view.data == NULL && view.ndim == 0);
    REFUSED(npcache_buffer_view(buffer, 0, NULL, sizeof view));
    CHECK(npcache_buffer_data(NULL, 0, NPCACHE_FLOAT64, &count) == NULL && count == 0);
    REFUSED(npcache_buffer_read(NULL, 0, &view, sizeof view, NPCACHE_ORDER_C));
    REFUSED(npcache_buffer_read(buffer, 0, NULL, 3 * sizeof(double), NPCACHE_ORDER_C));
    {
        npcache_buffer *mine = POISON(npcache_buffer);
        REFUSED(npcache_buffer_writable(NULL, &mine, &error));
        CHECK(mine == NULL && says(&error, NPCACHE_ERR_ARGUMENT, "buffer"));
        REFUSED(npcache_buffer_writable(buffer, NULL, &error));
        CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "out"));
        CHECK(npcache_buffer_seconds(NULL) == 0);
    }
    npcache_buffer_release(buffer);

    REFUSED(npcache_function_new(NULL, "f", "1", &function, &error));
    CHECK(function == NULL && says(&error, NPCACHE_ERR_ARGUMENT, "cache"));
    REFUSED(npcache_function_new(cache, NULL, "1", &function, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "name"));
    REFUSED(npcache_function_new(cache, "", NULL, &function, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "name"));
    REFUSED(npcache_function_new(cache, "f", "\xff", &function, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "version"));
    REFUSED(npcache_function_new(cache, "f", "1", NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "out"));
    OK(npcache_function_new(cache, "g", "1", &function, NULL));
    REFUSED(npcache_function_add_object(NULL, (void (*)(void))npcache_abi_version, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "function"));
    REFUSED(npcache_function_add_object(function, NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "address"));
    REFUSED(npcache_function_add_dependency(NULL, "name", "value", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "function"));
    REFUSED(npcache_function_add_dependency(function, NULL, "value", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "name"));
    REFUSED(npcache_function_add_dependency(function, "name", NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "value"));
    REFUSED(npcache_function_set(NULL, "flight", "off", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "function"));
    REFUSED(npcache_function_set(function, NULL, "off", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "name"));
    REFUSED(npcache_function_set(function, "flight", NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "value"));
    npcache_function_free(NULL);

    buffer = POISON(npcache_buffer);
    REFUSED(npcache_begin(NULL, NULL, 0, &buffer, &todo, &error));
    CHECK(!buffer && !todo && says(&error, NPCACHE_ERR_ARGUMENT, "function"));
    todo = POISON(npcache_output);
    REFUSED(npcache_begin(function, NULL, 0, NULL, &todo, &error));
    CHECK(!todo && says(&error, NPCACHE_ERR_ARGUMENT, "hit"));
    buffer = POISON(npcache_buffer);
    REFUSED(npcache_begin(function, NULL, 0, &buffer, NULL, &error));
    CHECK(!buffer && says(&error, NPCACHE_ERR_ARGUMENT, "todo"));
    REFUSED(npcache_begin(NULL, NULL, 0, NULL, NULL, NULL));
    buffer = POISON(npcache_buffer);
    REFUSED(npcache_end(NULL, &buffer, &error));
    CHECK(!buffer && says(&error, NPCACHE_ERR_ARGUMENT, "todo"));
    REFUSED(npcache_end(NULL, NULL, NULL));

    {
        char *text = POISON(char);
        int32_t cached = 7;
        buffer = POISON(npcache_buffer);
        REFUSED(npcache_lookup(NULL, NULL, &buffer, &error));
        CHECK(!buffer && says(&error, NPCACHE_ERR_ARGUMENT, "function"));
        REFUSED(npcache_lookup(function, NULL, NULL, &error));
        CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "hit"));
        REFUSED(npcache_is_cached(NULL, NULL, &cached, &error));
        CHECK(cached == 0 && says(&error, NPCACHE_ERR_ARGUMENT, "function"));
        REFUSED(npcache_is_cached(function, NULL, NULL, &error));
        CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "cached"));
        REFUSED(npcache_forget(NULL, NULL, &error));
        CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "function"));
        REFUSED(npcache_explain(cache, NULL, NULL, &text, &error));
        CHECK(!text && says(&error, NPCACHE_ERR_ARGUMENT, "function"));
        REFUSED(npcache_explain(cache, function, NULL, NULL, &error));
        CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "out"));
        npcache_text_free(NULL);
    }
    memset(key, 'k', sizeof key);
    REFUSED(npcache_function_key(NULL, NULL, key, &error));
    CHECK(key[0] == 0 && says(&error, NPCACHE_ERR_ARGUMENT, "function"));
    REFUSED(npcache_function_key(function, NULL, NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "key"));
    npcache_function_free(function);

    {
        npcache_args *none = POISON(npcache_args);
        REFUSED(npcache_args_from_bytes(NULL, 1, &none, &error));
        CHECK(!none && says(&error, NPCACHE_ERR_ARGUMENT, "bytes"));
        REFUSED(npcache_args_from_bytes("x", SIZE_MAX, &none, NULL));
        REFUSED(npcache_args_from_bytes("x", 1, NULL, &error));
        CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "out"));
    }
    REFUSED(npcache_args_add_int(NULL, 1));
    REFUSED(npcache_args_add_uint(NULL, 1));
    REFUSED(npcache_args_add_bigint(NULL, 0, "x", 1));
    REFUSED(npcache_args_add_float(NULL, 1));
    REFUSED(npcache_args_add_scalar(NULL, NPCACHE_FLOAT64, &number));
    REFUSED(npcache_args_add_bool(NULL, 1));
    REFUSED(npcache_args_add_null(NULL));
    REFUSED(npcache_args_add_string(NULL, "x", 1));
    REFUSED(npcache_args_add_bytes(NULL, "x", 1));
    REFUSED(npcache_args_add_file(NULL, "/dev/null"));
    REFUSED(npcache_args_add_array(NULL, NPCACHE_FLOAT64, 1, &one, NULL, &number, sizeof number, 0));
    REFUSED(npcache_args_add_array_descr(NULL, "<f8", 1, &one, NULL, &number, sizeof number, 0));
    REFUSED(npcache_args_begin_list(NULL));
    REFUSED(npcache_args_begin_map(NULL));
    REFUSED(npcache_args_end(NULL));
    REFUSED(npcache_args_key(NULL, "x"));
    REFUSED(npcache_args_add_digest(NULL, NULL));
    REFUSED(npcache_args_add_digest(args, NULL));
    REFUSED(npcache_args_add_bigint(args, 0, NULL, 1));
    REFUSED(npcache_args_add_bigint(args, 0, "x", SIZE_MAX));
    REFUSED(npcache_args_add_scalar(args, NPCACHE_FLOAT64, NULL));
    IS(NPCACHE_ERR_DTYPE, npcache_args_add_scalar(args, 99, &number));
    REFUSED(npcache_args_add_string(args, NULL, 1));
    REFUSED(npcache_args_add_string(args, "x", SIZE_MAX));
    REFUSED(npcache_args_add_string(args, "\xff", 1));
    REFUSED(npcache_args_add_bytes(args, NULL, 1));
    REFUSED(npcache_args_add_bytes(args, "x", SIZE_MAX));
    REFUSED(npcache_args_add_file(args, NULL));
    IS(NPCACHE_ERR_IO, npcache_args_add_file(args, "/nonexistent/file"));
    REFUSED(npcache_args_add_array(args, NPCACHE_FLOAT64, 1, NULL, NULL, &number, sizeof number, 0));
    REFUSED(npcache_args_add_array(args, NPCACHE_FLOAT64, 1, &one, NULL, NULL, sizeof number, 0));
    REFUSED(npcache_args_add_array(args, NPCACHE_FLOAT64, 1, &one, NULL, NULL, 0, 0));
    REFUSED(npcache_args_add_array(args, NPCACHE_FLOAT64, 1, &one, NULL, &number, SIZE_MAX, 0));
    REFUSED(npcache_args_add_array(args, NPCACHE_FLOAT64, 1, &one, NULL, &number, sizeof number, SIZE_MAX));
    REFUSED(npcache_args_add_array(args, NPCACHE_FLOAT64, -1, &one, NULL, &number, sizeof number, 0));
    REFUSED(npcache_args_add_array(args, NPCACHE_FLOAT64, INT32_MAX, &one, NULL, &number, sizeof number, 0));
    IS(NPCACHE_ERR_DTYPE, npcache_args_add_array(args, -3, 1, &one, NULL, &number, sizeof number, 0));
    REFUSED(npcache_args_add_array_descr(args, NULL, 1, &one, NULL, &number, sizeof number, 0));
    IS(NPCACHE_ERR_DTYPE, npcache_args_add_array_descr(args, "|O", 1, &one, NULL, &number, sizeof number, 0));
    REFUSED(npcache_args_key(args, NULL));
    REFUSED(npcache_args_key(args, "\xff"));
    npcache_args_free(NULL);

    REFUSED(npcache_digest_new(NULL, 1, &one, NULL, &number, sizeof number, 0, &digest, &error));
    CHECK(!digest && says(&error, NPCACHE_ERR_ARGUMENT, "descr"));
    REFUSED(npcache_digest_new("<f8", 1, NULL, NULL, &number, sizeof number, 0, &digest, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "shape"));
    REFUSED(npcache_digest_new("<f8", 1, &one, NULL, NULL, sizeof number, 0, &digest, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "buffer"));
    REFUSED(npcache_digest_new("<f8", 1, &one, NULL, &number, sizeof number, 0, NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "out"));
    npcache_digest_free(NULL);

    CHECK(npcache_error_code(NULL) == 0 && npcache_error_function_code(NULL) == 0);
    CHECK(strcmp(npcache_error_message(NULL), "") == 0);
    npcache_error_free(NULL);
    npcache_args_free(args);
    npcache_options_free(options);
    npcache_free(cache);
}

static void any_text_is_a_name(void)
{
    static char long_name[4097], too_long[10001];
    const char *const names[] = {"../../x", ".", "..", "...", "/", "/etc/passwd", "a/b", "a", "a/", ".npcache",
        ".npcache-format", "CACHEDIR.TAG", "lock", "tmp", "-rf", "a b\n", "%2e", "caf\xc3\xa9", "CAFE", "cafe", long_name};
    enum { NAMES = sizeof names / sizeof *names };
    npcache *cache = open_cache("names/cache");
    npcache_buffer *buffer = NULL;
    npcache_error *error = NULL;
    char inside[PATH_LEN], outside[PATH_LEN];
    int64_t count;
    int runs = 0;

    memset(long_name, 'x', sizeof long_name - 1);
    memset(too_long, 'x', sizeof too_long - 1);
    path_below_root(inside, "names/cache");
    if (CHECK(realpath(inside, outside) != NULL))
        snprintf(inside, sizeof inside, "%.4000s/", outside);
    for (count = 0; count < NAMES; count++) {
        OK(npcache_call(cache, names[count], "1", NULL, 0, halves, &runs, &buffer, NULL));
        OK(npcache_buffer_stored(buffer));
        CHECK(strncmp(npcache_buffer_path(buffer), inside, strlen(inside)) == 0);
        CHECK(strstr(npcache_buffer_path(buffer), "/../") == NULL && exists(npcache_buffer_path(buffer)));
        npcache_buffer_release(buffer);
        CHECK(runs == count + 1);
    }
    path_below_root(outside, "names/x");
    CHECK(!exists(outside));
    path_below_root(outside, "x");
    CHECK(!exists(outside));
    /* Each is found, and cleared, by itself. */
    for (count = 0; count < NAMES; count++) {
        int64_t other;
        OK(npcache_clear_function(cache, names[count], NULL));
        runs = 0;
        for (other = 0; other < NAMES; other++) {
            OK(npcache_call(cache, names[other], "1", NULL, 0, halves, &runs, &buffer, NULL));
            CHECK(is_hit(buffer) == (other != count));
            npcache_buffer_release(buffer);
        }
        CHECK(runs == 1);
    }
    runs = 0;
    REFUSED(npcache_call(cache, "", "1", NULL, 0, halves, &runs, &buffer, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "name"));
    REFUSED(npcache_call(cache, "\xff\xfe", "1", NULL, 0, halves, &runs, &buffer, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "UTF-8"));
    REFUSED(npcache_call(cache, "\xed\xa0\x80", "1", NULL, 0, halves, &runs, &buffer, NULL));
    REFUSED(npcache_call(cache, too_long, "1", NULL, 0, halves, &runs, &buffer, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "10000"));
    CHECK(runs == 0 && buffer == NULL);
    /* A version has no bound. */
    OK(npcache_call(cache, "f", too_long, NULL, 0, halves, &runs, &buffer, NULL));
    OK(npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    npcache_free(cache);
}

static void options_refuse_what_they_do_not_know(void)
{
    const char *const wrong[][2] = {{"", ""}, {"max_bites", "1"}, {"mode", ""}, {"mode", "fast"}, {"mode", "OFF"},
        {"lock_timeout", "-1"}, {"lock_timeout", "nan"}, {"lock_timeout", "ten"}, {"lock_timeout", "1e300"},
        {"flight", "yes"}, {"verify", "sometimes"}, {"memory_bytes", "-1"}, {"memory_bytes", "lots"}, {"min_compute_ms", "soon"}, {"\xff", "1"}, {"mode", "\xff"}};
    const char *const right[][2] = {{"mode", "readwrite"}, {"mode", "readonly"}, {"mode", "refresh"}, {"mode", "off"},
        {"lock_timeout", "0"}, {"lock_timeout", "2.5"}, {"flight", "process"}, {"flight", "thread"}, {"flight", "off"},
        {"verify", "auto"}, {"verify", "always"}, {"verify", "never"}, {"memory_bytes", "0"}, {"memory_bytes", "1.5G"},
        {"min_compute_ms", "0"}, {"min_compute_ms", "20"}};
    npcache_options *options = npcache_options_new();
    npcache *cache = POISON(npcache);
    npcache_error *error = NULL;
    size_t i;

    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        REFUSED(npcache_options_set(options, wrong[i][0], wrong[i][1], &error));
        CHECK(says(&error, NPCACHE_ERR_ARGUMENT, ""));
    }
    REFUSED(npcache_options_set(options, "max_bites", "1", &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "lock_timeout"));
    for (i = 0; i < sizeof right / sizeof *right; i++)
        OK(npcache_options_set(options, right[i][0], right[i][1], &error));
    setenv("NPCACHE_MODE", "fast", 1);
    REFUSED(npcache_new(root, NULL, &cache, &error));
    unsetenv("NPCACHE_MODE");
    CHECK(cache == NULL && says(&error, NPCACHE_ERR_ARGUMENT, "NPCACHE_MODE"));
    npcache_options_free(options);
}

static void every_status_has_its_own_text(void)
{
    npcache_status status, other;

    for (status = NPCACHE_ERR_INTERNAL; status <= NPCACHE_UNSTORED_DIFFERS; status++) {
        CHECK(strcmp(npcache_status_string(status), npcache_status_string(9999)) != 0);
        for (other = NPCACHE_ERR_INTERNAL; other < status; other++)
            CHECK(strcmp(npcache_status_string(status), npcache_status_string(other)) != 0);
    }
    CHECK(strstr(npcache_status_string(NPCACHE_UNSTORED_DISK_FULL), "min_free_bytes"));
    CHECK(npcache_status_string(INT32_MIN) && npcache_status_string(INT32_MAX));
    CHECK(npcache_abi_version() == 1);
}

static void failure_tests(void)
{
    what_a_function_fails_to_do_is_not_cached();
    a_returned_commit_error_reaches_the_caller();
    a_wrong_array_is_an_error_that_says_what();
    null_is_an_error_for_every_pointer();
    any_text_is_a_name();
    options_refuse_what_they_do_not_know();
    every_status_has_its_own_text();
}
