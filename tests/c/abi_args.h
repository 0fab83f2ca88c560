/* The argument builder: which arguments are equal, which are not, and what it refuses. */

static npcache_function *args_function;

/* Takes the arguments and gives their key. */
static const char *take_key(npcache_args *args)
{
    static char keys[4][65];
    static int next;
    char *key = keys[next++ % 4];
    npcache_error *error = NULL;

    if (!OK(npcache_function_key(args_function, args, key, &error)))
        printf("    %s\n", npcache_error_message(error));
    npcache_error_free(error);
    npcache_args_free(args);
    return key;
}

static npcache_args *from_bytes(const void *bytes, size_t len)
{
    npcache_args *args = NULL;
    OK(npcache_args_from_bytes(bytes, len, &args, NULL));
    return args;
}

/* That the built arguments are these bytes, written as a string literal. */
#define ENCODES(args, literal) \
    CHECK(strcmp(take_key(args), take_key(from_bytes(literal, sizeof(literal) - 1))) == 0)

static void arguments_are_their_documented_bytes(void)
{
    npcache_args *args = npcache_args_new();
    const uint16_t half = 0x3e00;
    const float single = 1.5f;
    const double number = 1.5;
    const int8_t minus_one = -1;
    const uint8_t most = 255, truth = 1;

    ENCODES(args, "\x82\x80\xa0");
    args = npcache_args_new();
    OK(npcache_args_add_int(args, -1));
    OK(npcache_args_add_uint(args, UINT64_MAX));
    OK(npcache_args_add_bool(args, 17));
    OK(npcache_args_add_bool(args, 0));
    OK(npcache_args_add_null(args));
    ENCODES(args, "\x82\x85\x20\x1b\xff\xff\xff\xff\xff\xff\xff\xff\xf5\xf4\xf6\xa0");
    args = npcache_args_new();
    OK(npcache_args_add_float(args, 1.5));
    OK(npcache_args_add_scalar(args, NPCACHE_FLOAT16, &half));
    OK(npcache_args_add_scalar(args, NPCACHE_FLOAT32, &single));
    OK(npcache_args_add_scalar(args, NPCACHE_FLOAT64, &number));
    OK(npcache_args_add_scalar(args, NPCACHE_INT8, &minus_one));
    OK(npcache_args_add_scalar(args, NPCACHE_UINT8, &most));
    OK(npcache_args_add_scalar(args, NPCACHE_BOOL, &truth));
    ENCODES(args, "\x82\x87\xfb\x3f\xf8\0\0\0\0\0\0\xf9\x3e\0\xfa\x3f\xc0\0\0\xfb\x3f\xf8\0\0\0\0\0\0\x20\x18\xff\xf5\xa0");
    args = npcache_args_new();
    OK(npcache_args_add_string(args, "a\0b", 3));
    OK(npcache_args_add_bytes(args, "a\0b", 3));
    OK(npcache_args_add_string(args, NULL, 0));
    OK(npcache_args_add_bytes(args, NULL, 0));
    ENCODES(args, "\x82\x84\x63" "a\0b\x43" "a\0b\x60\x40\xa0");
    args = npcache_args_new();
    OK(npcache_args_key(args, "nu"));
    OK(npcache_args_add_int(args, 2));
    OK(npcache_args_begin_list(args));
    OK(npcache_args_add_int(args, 1));
    OK(npcache_args_begin_map(args));
    OK(npcache_args_key(args, "b"));
    OK(npcache_args_add_int(args, 3));
    OK(npcache_args_key(args, "a"));
    OK(npcache_args_add_null(args));
    OK(npcache_args_end(args));
    OK(npcache_args_end(args));
    ENCODES(args, "\x82\x81\x82\x01\xa2\x61" "a\xf6\x61" "b\x03\xa1\x62nu\x02");
    args = npcache_args_new();
    OK(npcache_args_add_bigint(args, 1, "\x01\0\0\0\0\0\0\0\0", 9)); /* -2^64 */
    OK(npcache_args_add_bigint(args, 1, "\x01\0\0\0\0\0\0\0\x01", 9));
    OK(npcache_args_add_bigint(args, 0, "\0\0\x05", 3));
    OK(npcache_args_add_bigint(args, 1, NULL, 0)); /* 0 has no sign */
    ENCODES(args, "\x82\x84\x3b\xff\xff\xff\xff\xff\xff\xff\xff\xc3\x49\x01\0\0\0\0\0\0\0\0\x05\0\xa0");
}

/* A call given its bytes raw and one built are the same call. */
static void built_and_raw_arguments_find_each_other(void)
{
    static const unsigned char bytes[] = {0x82, 0x81, 0x03, 0xa0}; /* [[3], {}] */
    npcache *cache = open_cache("args");
    npcache_function *function = NULL;
    npcache_args *args = npcache_args_new(), *raw = from_bytes(bytes, sizeof bytes);
    npcache_buffer *buffer = NULL;
    npcache_output *todo = NULL;
    npcache_error *error = NULL;
    int runs = 0;

    OK(npcache_call(cache, "halves", "1", bytes, sizeof bytes, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_function_new(cache, "halves", "1", &function, NULL));
    OK(npcache_args_add_int(args, 3));
    OK(npcache_begin(function, args, 0, &buffer, &todo, NULL));
    CHECK(is_hit(buffer) && todo == NULL);
    npcache_buffer_release(buffer);
    OK(npcache_begin(function, raw, 0, &buffer, &todo, NULL));
    CHECK(is_hit(buffer) && todo == NULL);
    npcache_buffer_release(buffer);
    /* Arguments can be used again, and go on. */
    OK(npcache_args_add_int(args, 4));
    OK(npcache_begin(function, args, 0, &buffer, &todo, NULL));
    CHECK(!buffer && todo != NULL);
    IS(NPCACHE_ERR_NOT_COMMITTED, npcache_end(todo, NULL, NULL));
    REFUSED(npcache_args_add_int(raw, 1));
    REFUSED(npcache_begin(function, raw, 0, &buffer, &todo, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "ready bytes"));
    npcache_args_free(args);
    npcache_args_free(raw);
    npcache_function_free(function);
    npcache_free(cache);
}

/* Arguments that are the one array of doubles with these strides in `memory`. */
static npcache_args *one_array(int32_t ndim, const int64_t *shape, const int64_t *strides, const void *memory, size_t len,
                               size_t offset)
{
    npcache_args *args = npcache_args_new();
    OK(npcache_args_add_array(args, NPCACHE_FLOAT64, ndim, shape, strides, memory, len, offset));
    return args;
}

static void equal_arrays_are_equal_arguments_however_they_lie(void)
{
    const double c_order[] = {1, 2, 3, 4, 5, 6}, f_order[] = {1, 4, 2, 5, 3, 6}, backwards[] = {6, 5, 4, 3, 2, 1};
    const double gaps[] = {1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6};
    const int64_t shape[] = {2, 3}, turned[] = {3, 2};
    const int64_t f_strides[] = {8, 16}, back_strides[] = {-24, -8}, gap_strides[] = {48, 16};
    char expected[65];
    unsigned char unaligned[sizeof c_order + 1];
    npcache_args *args;
    npcache_digest *digest = POISON(npcache_digest);

    strcpy(expected, take_key(one_array(2, shape, NULL, c_order, sizeof c_order, 0)));
    CHECK(strcmp(expected, take_key(one_array(2, shape, f_strides, f_order, sizeof f_order, 0))) == 0);
    CHECK(strcmp(expected, take_key(one_array(2, shape, back_strides, backwards, sizeof backwards, 40))) == 0);
    CHECK(strcmp(expected, take_key(one_array(2, shape, gap_strides, gaps, sizeof gaps, 0))) == 0);
    memcpy(unaligned + 1, c_order, sizeof c_order);
    CHECK(strcmp(expected, take_key(one_array(2, shape, NULL, unaligned + 1, sizeof c_order, 0))) == 0);
    CHECK(strcmp(expected, take_key(one_array(2, shape, NULL, unaligned, sizeof unaligned, 1))) == 0);
    CHECK(strcmp(expected, take_key(one_array(2, turned, NULL, c_order, sizeof c_order, 0))) != 0);
    CHECK(strcmp(expected, take_key(one_array(2, shape, NULL, f_order, sizeof f_order, 0))) != 0);
    CHECK(strcmp(expected, take_key(one_array(0, NULL, NULL, c_order, sizeof c_order, 0))) != 0);

    args = npcache_args_new();
    OK(npcache_args_add_array_descr(args, "<f8", 2, shape, f_strides, f_order, sizeof f_order, 0));
    CHECK(strcmp(expected, take_key(args)) == 0);
    args = npcache_args_new();
    OK(npcache_args_add_array_descr(args, ">f8", 2, shape, f_strides, f_order, sizeof f_order, 0));
    CHECK(strcmp(expected, take_key(args)) != 0);

    /* A digest is the array; it does not follow what becomes of the memory. */
    {
        double memory[6];
        memcpy(memory, f_order, sizeof memory);
        OK(npcache_digest_new("<f8", 2, shape, f_strides, memory, sizeof memory, 0, &digest, NULL));
        memory[0] = 17;
    }
    args = npcache_args_new();
    OK(npcache_args_add_digest(args, digest));
    CHECK(strcmp(expected, take_key(args)) == 0);
    args = npcache_args_new();
    OK(npcache_args_add_digest(args, digest));
    npcache_digest_free(digest);
    CHECK(strcmp(expected, take_key(args)) == 0);

    /* An array without elements needs no memory. */
    {
        const int64_t empty[] = {0, 3};
        args = npcache_args_new();
        OK(npcache_args_add_array(args, NPCACHE_FLOAT64, 2, empty, NULL, NULL, 0, 0));
        CHECK(strcmp(expected, take_key(args)) != 0);
    }
}

/* 5 MiB: hashed as a tree, on all cores. */
static void large_arguments_have_one_key_too(void)
{
    const int64_t shape[] = {640, 1024}, strides[] = {8, 8 * 640}, byte_count = 8 * 640 * 1024;
    double *c_order = (double *)malloc((size_t)byte_count), *f_order = (double *)malloc((size_t)byte_count);
    char expected[65], path[PATH_LEN];
    npcache_args *args;
    npcache_digest *digest = NULL;
    FILE *file;
    int i, j;

    for (i = 0; i < 640; i++)
        for (j = 0; j < 1024; j++)
            c_order[i * 1024 + j] = f_order[j * 640 + i] = i + 0.001 * j;
    strcpy(expected, take_key(one_array(2, shape, NULL, c_order, (size_t)byte_count, 0)));
    CHECK(strcmp(expected, take_key(one_array(2, shape, strides, f_order, (size_t)byte_count, 0))) == 0);
    OK(npcache_digest_new("<f8", 2, shape, strides, f_order, (size_t)byte_count, 0, &digest, NULL));
    args = npcache_args_new();
    OK(npcache_args_add_digest(args, digest));
    CHECK(strcmp(expected, take_key(args)) == 0);
    npcache_digest_free(digest);

    /* A file counts by its contents, and is no byte string. */
    for (i = 0; i < 2; i++) {
        path_below_root(path, i ? "input" : "the same input");
        file = fopen(path, "wb");
        CHECK(file && fwrite(c_order, 1, (size_t)byte_count, file) == (size_t)byte_count && fclose(file) == 0);
        args = npcache_args_new();
        OK(npcache_args_add_file(args, path));
        if (i == 0)
            strcpy(expected, take_key(args));
        else
            CHECK(strcmp(expected, take_key(args)) == 0);
    }
    args = npcache_args_new();
    OK(npcache_args_add_bytes(args, c_order, (size_t)byte_count));
    CHECK(strcmp(expected, take_key(args)) != 0);
    free(c_order);
    free(f_order);
}

/* That the arguments are refused from now on, by this message, whatever is added still. */
static void refuses(npcache_args *args, const char *message)
{
    npcache_buffer *hit = POISON(npcache_buffer);
    npcache_output *todo = POISON(npcache_output);
    npcache_error *error = NULL;
    char key[65];

    npcache_args_add_int(args, 1);
    REFUSED(npcache_begin(args_function, args, 0, &hit, &todo, &error));
    CHECK(!hit && !todo && says(&error, NPCACHE_ERR_ARGUMENT, message));
    REFUSED(npcache_function_key(args_function, args, key, &error));
    CHECK(key[0] == 0 && says(&error, NPCACHE_ERR_ARGUMENT, message));
    npcache_args_free(args);
}

static void the_first_wrong_argument_is_reported_by_begin(void)
{
    npcache_args *args = npcache_args_new();
    const double numbers[] = {1, 2, 3, 4};
    const int64_t four[] = {4}, five[] = {5}, twice[] = {16}, back[] = {-8}, far_away[] = {INT64_MAX}, back_far[] = {INT64_MIN};
    const int64_t square[] = {INT64_MAX, INT64_MAX}, zeros[] = {0, 0}, negative[] = {-1};
    int i;

    REFUSED(npcache_args_end(args));
    REFUSED(npcache_args_add_string(args, "\xff", 1));
    refuses(args, "no list or map");
    args = npcache_args_new();
    for (i = 0; i < 64; i++)
        OK(npcache_args_begin_list(args));
    REFUSED(npcache_args_begin_map(args));
    refuses(args, "64");
    args = npcache_args_new();
    OK(npcache_args_begin_list(args));
    refuses(args, "not ended");
    args = npcache_args_new();
    OK(npcache_args_begin_map(args));
    REFUSED(npcache_args_add_int(args, 1));
    refuses(args, "needs a key");
    args = npcache_args_new();
    OK(npcache_args_begin_list(args));
    REFUSED(npcache_args_key(args, "x"));
    refuses(args, "list");
    args = npcache_args_new();
    OK(npcache_args_key(args, "nu"));
    OK(npcache_args_add_int(args, 1));
    REFUSED(npcache_args_key(args, "nu"));
    refuses(args, "twice");
    args = npcache_args_new();
    OK(npcache_args_key(args, "nu"));
    REFUSED(npcache_args_key(args, "mu"));
    refuses(args, "nu");
    args = npcache_args_new();
    OK(npcache_args_begin_map(args));
    OK(npcache_args_key(args, "nu"));
    REFUSED(npcache_args_end(args));
    refuses(args, "no value");

    {
        struct {
            int32_t ndim;
            const int64_t *shape, *strides;
            size_t len, offset;
        } wrong[10];
        memset(wrong, 0, sizeof wrong);
        for (i = 0; i < 10; i++) {
            wrong[i].ndim = 1;
            wrong[i].shape = four;
            wrong[i].len = sizeof numbers;
        }
        wrong[0].shape = five;
        wrong[1].strides = twice;
        wrong[2].strides = back;
        wrong[3].strides = far_away;
        wrong[4].strides = back_far;
        wrong[5].offset = 8;
        wrong[6].len = sizeof numbers - 1;
        wrong[7].ndim = 2, wrong[7].shape = square;
        wrong[8].ndim = 2, wrong[8].shape = square, wrong[8].strides = zeros;
        wrong[9].shape = negative;
        for (i = 0; i < 10; i++) {
            npcache_digest *digest = POISON(npcache_digest);
            npcache_error *error = NULL;
            args = npcache_args_new();
            if (!REFUSED(npcache_args_add_array(args, NPCACHE_FLOAT64, wrong[i].ndim, wrong[i].shape, wrong[i].strides,
                                                numbers, wrong[i].len, wrong[i].offset)))
                printf("    wrong array %d\n", i);
            refuses(args, "");
            REFUSED(npcache_digest_new("<f8", wrong[i].ndim, wrong[i].shape, wrong[i].strides, numbers, wrong[i].len,
                                       wrong[i].offset, &digest, &error));
            CHECK(digest == NULL && says(&error, NPCACHE_ERR_ARGUMENT, ""));
        }
    }
}

static void args_tests(void)
{
    npcache *cache = open_cache("args keys");

    OK(npcache_function_new(cache, "f", "1", &args_function, NULL));
    arguments_are_their_documented_bytes();
    built_and_raw_arguments_find_each_other();
    equal_arrays_are_equal_arguments_however_they_lie();
    large_arguments_have_one_key_too();
    the_first_wrong_argument_is_reported_by_begin();
    npcache_function_free(args_function);
    npcache_free(cache);
}
