/* The directory: what cannot be one, clearing it, and removing it. */

/* That the cache cannot be opened there, for this reason. */
static void cannot_open(const char *path, npcache_status expected, const char *message)
{
    npcache *cache = POISON(npcache);
    npcache_error *error = NULL;

    IS(expected, npcache_new(path, NULL, &cache, &error));
    CHECK(cache == NULL && says(&error, expected, message));
    IS(expected, npcache_new(path, NULL, &cache, NULL));
}

static void what_is_no_cache_is_not_opened(void)
{
    char path[PATH_LEN];
    npcache *cache;

    path_below_root(path, "a file");
    write_file(path, "precious");
    cannot_open(path, NPCACHE_ERR_DIRECTORY, "a file");
    path_below_root(path, "a file/below");
    cannot_open(path, NPCACHE_ERR_IO, "a file/below");
    memset(path, 'x', 300);
    path[0] = '/';
    path[300] = 0;
    cannot_open(path, NPCACHE_ERR_IO, "xxx");

    path_below_root(path, "newer");
    CHECK(mkdir(path, 0777) == 0);
    path_below_root(path, "newer/.npcache-format");
    write_file(path, "npcache 999\n");
    path_below_root(path, "newer");
    cannot_open(path, NPCACHE_ERR_DIRECTORY, "999");
    path_below_root(path, "newer/.npcache-format");
    write_file(path, "something else\n");
    path_below_root(path, "newer");
    cannot_open(path, NPCACHE_ERR_DIRECTORY, "newer");

    /* Made with its parents; any bytes are a path. */
    cache = open_cache("some/parents/caf\xe9");
    path_below_root(path, "some/parents/caf\xe9/CACHEDIR.TAG");
    CHECK(exists(path));
    npcache_free(cache);
}

/* A bound by npcache_configure holds for all caches on the directory; one by npcache_options_set for that cache alone. */
static void a_directory_keeps_its_bounds(void)
{
    npcache *cache = open_cache("bounded"), *other = NULL;
    npcache_options *options = npcache_options_new();
    npcache_buffer *buffer = NULL;
    char path[PATH_LEN];
    int runs = 0;

    OK(npcache_configure(cache, "max_entries", "1", NULL));
    OK(npcache_configure(cache, "policy", "none", NULL));
    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    OK(npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", "2", NULL, 0, halves, &runs, &buffer, NULL));
    IS(NPCACHE_UNSTORED_TOO_LARGE, npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);

    path_below_root(path, "bounded");
    OK(npcache_options_set(options, "max_entries", "none", NULL));
    OK(npcache_new(path, options, &other, NULL));
    npcache_options_free(options);
    OK(npcache_call(other, "f", "3", NULL, 0, halves, &runs, &buffer, NULL));
    OK(npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    CHECK(runs == 3);
    npcache_free(other);
    npcache_free(cache);
}

static void clear_function_clears_one(void)
{
    npcache *cache = open_cache("clear one");
    npcache_buffer *buffer = NULL;
    int runs = 0;

    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", "2", NULL, 0, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "g", "1", NULL, 0, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    CHECK(runs == 3);
    OK(npcache_clear_function(cache, "f", NULL));
    OK(npcache_clear_function(cache, "never called", NULL));
    OK(npcache_call(cache, "g", "1", NULL, 0, halves, &runs, &buffer, NULL));
    CHECK(is_hit(buffer));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    CHECK(is_computed(buffer));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", "2", NULL, 0, halves, &runs, &buffer, NULL));
    CHECK(is_computed(buffer));
    npcache_buffer_release(buffer);
    npcache_free(cache);
}

static void calls_are_counted(void)
{
    npcache *cache = open_cache("statistics");
    npcache_statistics found;
    npcache_buffer *buffer = NULL;
    npcache_error *error = NULL;
    const char *names[] = {"f", "f", "f", "g"};
    int runs = 0;

    OK(npcache_stats(cache, NULL, &found, sizeof found, &error));
    CHECK(found.misses == 0 && found.memory == 0 && found.complete == 1);
    for (int i = 0; i < 4; i++) {
        OK(npcache_call(cache, names[i], "1", NULL, 0, halves, &runs, &buffer, NULL));
        npcache_buffer_release(buffer);
    }
    OK(npcache_stats(cache, NULL, &found, sizeof found, NULL));
    CHECK(found.misses == 2 && found.stored == 2 && found.memory + found.disk == 2 && found.seconds_spent > 0);
    OK(npcache_stats(cache, "g", &found, sizeof found, NULL));
    CHECK(found.misses == 1 && found.memory == 0 && found.seconds_saved == 0);
    OK(npcache_stats(cache, "never called", &found, sizeof found, NULL));
    CHECK(found.misses == 0 && found.complete == 1);

    /* A caller that knows fewer fields gets those, and nothing beyond. */
    memset(&found, 7, sizeof found);
    OK(npcache_stats(cache, "f", &found, offsetof(npcache_statistics, shared), NULL));
    CHECK(found.memory + found.disk == 2 && found.shared == 0x0707070707070707);
    REFUSED(npcache_stats(cache, "f", NULL, sizeof found, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "statistics"));
    REFUSED(npcache_stats(cache, "\xff", &found, sizeof found, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "function"));
    REFUSED(npcache_stats(NULL, NULL, &found, sizeof found, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "cache") && found.memory == 0);
    npcache_free(cache);
}

/* Clears the cache at `user_data` while it computes. */
static int32_t clear_meanwhile(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    (void)args, (void)args_len;
    OK(npcache_clear((npcache *)user_data, 0, NULL));
    return put_halves(out, 3);
}

static void what_was_begun_before_a_clear_is_not_stored_after_it(void)
{
    npcache *cache = open_cache("clear meanwhile");
    npcache_buffer *buffer = NULL;
    int runs = 0;

    OK(npcache_call(cache, "f", "1", NULL, 0, clear_meanwhile, cache, &buffer, NULL));
    CHECK(is_computed(buffer) && holds_halves(buffer, 3) && npcache_buffer_path(buffer) == NULL);
    IS(NPCACHE_UNSTORED_CLEARED, npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    CHECK(runs == 1);
    npcache_buffer_release(buffer);
    npcache_free(cache);
}

static void removing_the_directory_spares_what_is_not_ours(void)
{
    npcache *cache = open_cache("remove");
    npcache_buffer *buffer = NULL;
    npcache_error *error = NULL;
    char path[PATH_LEN], mine[PATH_LEN + 16], entry[PATH_LEN];
    int runs = 0;

    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    snprintf(entry, sizeof entry, "%s", npcache_buffer_path(buffer));
    npcache_buffer_release(buffer);
    path_below_root(path, "remove");
    snprintf(mine, sizeof mine, "%s/notes.txt", path);
    write_file(mine, "precious");
    IS(NPCACHE_ERR_NOT_EMPTY, npcache_clear(cache, NPCACHE_CLEAR_REMOVE_DIR, &error));
    CHECK(strstr(npcache_error_message(error), "remove") != NULL);
    CHECK(says(&error, NPCACHE_ERR_NOT_EMPTY, "notes.txt"));
    CHECK(exists(mine) && !exists(entry));
    /* It stays a cache. */
    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    CHECK(runs == 2);
    OK(npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    /* One beside the entries survives as well. */
    CHECK(unlink(mine) == 0);
    *strrchr(entry, '/') = 0;
    snprintf(mine, sizeof mine, "%s/mine.txt", entry);
    write_file(mine, "precious");
    IS(NPCACHE_ERR_NOT_EMPTY, npcache_clear(cache, NPCACHE_CLEAR_REMOVE_DIR, NULL));
    CHECK(exists(mine));
    OK(npcache_clear(cache, 0, NULL));
    CHECK(exists(mine) && unlink(mine) == 0);

    OK(npcache_call(cache, "f", "1", NULL, 0, halves, NULL, &buffer, NULL));
    npcache_buffer_release(buffer);
    OK(npcache_clear(cache, NPCACHE_CLEAR_REMOVE_DIR, &error));
    CHECK(error == NULL && !exists(path));
    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    CHECK(runs == 3 && is_computed(buffer) && holds_halves(buffer, 3) && npcache_buffer_path(buffer) == NULL);
    IS(NPCACHE_UNSTORED_REMOVED, npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    CHECK(!exists(path));
    npcache_free(cache);

    /* Opened anew, it is a cache again. */
    cache = open_cache("remove");
    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    OK(npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    npcache_free(cache);
}

static void a_read_only_cache_is_not_cleared(void)
{
    npcache *cache;
    npcache_error *error = NULL;

    npcache_free(open_cache("read only"));
    setenv("NPCACHE_MODE", "readonly", 1);
    cache = open_cache("read only");
    unsetenv("NPCACHE_MODE");
    REFUSED(npcache_clear(cache, 0, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "readonly"));
    REFUSED(npcache_clear_function(cache, "f", NULL));
    npcache_free(cache);
}

struct heard {
    npcache *cache; /* to be used by the listener */
    int count;
    int32_t level;
    char message[1024];
};

static void hear(void *user_data, int32_t level, const char *message)
{
    struct heard *heard = (struct heard *)user_data;
    npcache_buffer *buffer = NULL;
    int runs = 0;

    heard->count++;
    heard->level = level;
    snprintf(heard->message, sizeof heard->message, "%s", message);
    /* It may use the cache: no lock is held. */
    OK(npcache_call(heard->cache, "heard", "1", message, strlen(message), halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
}

static void a_listener_hears_of_each_degradation_once(void)
{
    static struct heard heard;
    npcache *cache = open_cache("heard");
    npcache_buffer *buffer = NULL;
    char entry[PATH_LEN], path[PATH_LEN];
    int runs = 0, i;

    heard.cache = cache;
    npcache_set_log(hear, &heard);
    OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
    CHECK(heard.count == 0);
    snprintf(entry, sizeof entry, "%s", npcache_buffer_path(buffer));
    npcache_buffer_release(buffer);
    OK(npcache_clear(cache, 0, NULL)); /* of what is in memory */
    OK(npcache_call(cache, "f", "2", NULL, 0, halves, &runs, &buffer, NULL));
    npcache_buffer_release(buffer);
    for (i = 0; i < 2; i++) {
        *strrchr(strcpy(path, entry), '/') = 0;
        CHECK(mkdir(path, 0777) == 0 || i == 1);
        unlink(entry);
        write_file(entry, "no entry");
        OK(npcache_call(cache, "f", "1", NULL, 0, halves, &runs, &buffer, NULL));
        CHECK(is_computed(buffer) || i == 1); /* by then it is in memory */
        npcache_buffer_release(buffer);
        CHECK(heard.count == 1 && heard.level == NPCACHE_LOG_WARNING && strstr(heard.message, entry));
    }
    /* One that is gone hears nothing. */
    npcache_set_log(NULL, NULL);
    OK(npcache_clear(cache, NPCACHE_CLEAR_REMOVE_DIR, NULL));
    OK(npcache_call(cache, "f", "3", NULL, 0, halves, &runs, &buffer, NULL));
    IS(NPCACHE_UNSTORED_REMOVED, npcache_buffer_stored(buffer));
    npcache_buffer_release(buffer);
    CHECK(heard.count == 1);
    npcache_free(cache);
}

static void directory_tests(void)
{
    what_is_no_cache_is_not_opened();
    clear_function_clears_one();
    calls_are_counted();
    a_directory_keeps_its_bounds();
    what_was_begun_before_a_clear_is_not_stored_after_it();
    removing_the_directory_spares_what_is_not_ours();
    a_read_only_cache_is_not_cleared();
    a_listener_hears_of_each_degradation_once();
}
