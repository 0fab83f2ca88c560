/*
 * Builds calls through the C ABI as a script on standard input says, and prints their keys: a golden vector, or one of
 * the calls that test_keys.py and test_identity.py make up, without a parser of JSON.
 *
 * One operation a line, words separated by one space; test_keys.py writes them. A word that is data or text is `-` if
 * it is empty, `~` for NULL, hexadecimal digits, `+<digits>:<n>` for n repetitions, or `*<k>:<n>` for n generated
 * bytes, the top bytes of i * k modulo 2^32; `^<bit>` after the last turns one bit of them over. Numbers along
 * dimensions are joined by commas. `key`, `call` and `begin` print a line; so does `status`, that of the first addition
 * since `args` that failed; and so does what fails outside of arguments. `compute` and `ask` are test_hosts.py's.
 */

#define _POSIX_C_SOURCE 200809L

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npcache.h"

#define MAX_NDIM 40
#define MAX_WORDS 8
#define MAX_KEPT 64

typedef struct {
    char *bytes; /* followed by a NUL; NULL for the word ~ */
    size_t len;
} data;

static npcache *cache;
static npcache_function *function;
static npcache_args *args;
static npcache_fn compute;

/* The buffers of the arguments under construction, which `overwrite` overwrites while the call computes. */
static data kept[MAX_KEPT];
static int kept_count;
static int overwriting;

static void die(const char *what) {
    fprintf(stderr, "keys: %s\n", what);
    exit(2);
}

/* -------------------------------------------------------------------------------------------------------- words */

static data new_data(size_t len) {
    data made = {malloc(len + 1), len};
    if (made.bytes == NULL) die("out of memory");
    made.bytes[len] = 0;
    return made;
}

static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    die("not a hexadecimal digit");
    return 0;
}

static data parse_digits(const char *word, size_t digits) {
    data made = new_data(digits / 2);
    for (size_t i = 0; i < made.len; i++) {
        made.bytes[i] = (char)(digit(word[2 * i]) << 4 | digit(word[2 * i + 1]));
    }
    return made;
}

static data parse_data(const char *word) {
    if (word == NULL) die("a word is missing");
    if (*word == '~') {
        data none = {NULL, 0};
        return none;
    }
    if (*word == '-') return new_data(0);
    if (*word == '+') {
        data once = parse_digits(word + 1, strcspn(word + 1, ":"));
        size_t times = (size_t)strtoull(strchr(word, ':') + 1, NULL, 10);
        data made = new_data(once.len * times);
        for (size_t i = 0; i < times; i++) memcpy(made.bytes + i * once.len, once.bytes, once.len);
        free(once.bytes);
        return made;
    }
    if (*word == '*') {
        char *rest;
        uint32_t multiply = (uint32_t)strtoull(word + 1, &rest, 10);
        data made = new_data((size_t)strtoull(rest + 1, &rest, 10));
        for (size_t i = 0; i < made.len; i++) made.bytes[i] = (char)((uint32_t)i * multiply >> 24);
        if (*rest == '^') {
            size_t bit = (size_t)strtoull(rest + 1, NULL, 10);
            made.bytes[bit / 8] ^= (char)(1 << bit % 8);
        }
        return made;
    }
    return parse_digits(word, strlen(word));
}

/* Numbers along dimensions; returns how many. */
static int32_t parse_numbers(const char *word, int64_t *numbers) {
    int32_t count = 0;
    if (*word == '-' && word[1] == 0) return 0;
    while (count < MAX_NDIM) {
        char *end;
        numbers[count++] = strtoll(word, &end, 10);
        if (*end == 0) return count;
        word = end + 1;
    }
    die("too many dimensions");
    return 0;
}

/* ------------------------------------------------------------------------------------------------------- results */

static void print_error(npcache_status status, npcache_error *err) {
    printf("error %d %s\n", (int)status, npcache_error_message(err));
    npcache_error_free(err);
}

static void print_buffer(npcache_buffer *buffer) {
    static const char *const origins[] = {"none", "computed", "memory", "disk", "shared"};
    const char *path = npcache_buffer_path(buffer);
    const double *value = npcache_buffer_data(buffer, 0, NPCACHE_FLOAT64, NULL);
    const char *name = path == NULL ? NULL : strrchr(path, '/');
    printf("%s %g %.64s\n", origins[npcache_buffer_origin(buffer)], value == NULL ? 0.0 : *value,
           name == NULL ? "unstored" : name + 1);
    npcache_buffer_release(buffer);
}

static void overwrite(char *bytes, size_t len) {
    if (overwriting && bytes != NULL) memset(bytes, 0x5a, len);
}

/* The function of calls that name no library. Its argument bytes are this program's own, so it may overwrite them. */
static int32_t compute_one(void *user_data, const void *bytes, size_t len, npcache_output *out) {
    double *value = npcache_output_alloc(out, NULL, NPCACHE_FLOAT64, 0, NULL, NPCACHE_ORDER_C);
    (void)user_data;
    overwrite((char *)bytes, len);
    if (value == NULL) return 1;
    *value = 1.0;
    return npcache_output_commit(out);
}

/* A library's function; this program's own for the path ~. */
static npcache_fn load(const char *path_word, const char *symbol) {
    data path = parse_data(path_word);
    npcache_fn loaded = NULL;
    if (path.bytes == NULL) return compute_one;
    void *library = dlopen(path.bytes, RTLD_NOW);
    if (library == NULL) die(dlerror());
    *(void **)&loaded = dlsym(library, symbol);
    if (loaded == NULL) die(dlerror());
    free(path.bytes);
    return loaded;
}

/* ---------------------------------------------------------------------------------------------------- operations */

static void new_args(npcache_args *made) {
    npcache_args_free(args);
    while (kept_count > 0) free(kept[--kept_count].bytes);
    args = made;
}

/* array dtype shape strides buffer offset; descr and digest have a descr in place of dtype. */
static npcache_status add_array(const char *how, char **words) {
    int64_t shape[MAX_NDIM] = {0}, strides[MAX_NDIM] = {0};
    int32_t ndim = parse_numbers(words[2], shape);
    const int64_t *given_strides = *words[3] == '~' ? NULL : strides;
    data buffer = parse_data(words[4]);
    size_t offset = (size_t)strtoull(words[5], NULL, 10);
    npcache_status status;
    if (given_strides != NULL) parse_numbers(words[3], strides);

    if (strcmp(how, "array") == 0) {
        status = npcache_args_add_array(args, atoi(words[1]), ndim, shape, given_strides, buffer.bytes, buffer.len,
                                        offset);
    } else {
        data descr = parse_data(words[1]);
        if (strcmp(how, "descr") == 0) {
            status = npcache_args_add_array_descr(args, descr.bytes, ndim, shape, given_strides, buffer.bytes,
                                                  buffer.len, offset);
        } else {
            npcache_digest *digest;
            status = npcache_digest_new(descr.bytes, ndim, shape, given_strides, buffer.bytes, buffer.len, offset,
                                        &digest, NULL);
            if (status == 0) status = npcache_args_add_digest(args, digest);
            npcache_digest_free(digest);
        }
        free(descr.bytes);
    }
    if (kept_count == MAX_KEPT) die("too many arrays");
    kept[kept_count++] = buffer;
    return status;
}

static npcache_status add_float(const char *word) {
    uint64_t bits = strtoull(word, NULL, 16);
    double value;
    memcpy(&value, &bits, sizeof value);
    return npcache_args_add_float(args, value);
}

/* Additions, whose errors `key` and `begin` report. Returns 0 for another operation. */
static int add(const char *operation, char **words, npcache_status *status) {
    data word = {NULL, 0};
    if (strcmp(operation, "null") == 0) {
        *status = npcache_args_add_null(args);
    } else if (strcmp(operation, "bool") == 0) {
        *status = npcache_args_add_bool(args, atoi(words[1]));
    } else if (strcmp(operation, "int") == 0) {
        *status = npcache_args_add_int(args, strtoll(words[1], NULL, 10));
    } else if (strcmp(operation, "uint") == 0) {
        *status = npcache_args_add_uint(args, strtoull(words[1], NULL, 10));
    } else if (strcmp(operation, "bigint") == 0) {
        word = parse_data(words[2]);
        *status = npcache_args_add_bigint(args, atoi(words[1]), word.bytes, word.len);
    } else if (strcmp(operation, "float") == 0) {
        *status = add_float(words[1]);
    } else if (strcmp(operation, "scalar") == 0) {
        word = parse_data(words[2]);
        *status = npcache_args_add_scalar(args, atoi(words[1]), word.bytes);
    } else if (strcmp(operation, "string") == 0) {
        word = parse_data(words[1]);
        *status = npcache_args_add_string(args, word.bytes, word.len);
    } else if (strcmp(operation, "bytes") == 0) {
        word = parse_data(words[1]);
        *status = npcache_args_add_bytes(args, word.bytes, word.len);
    } else if (strcmp(operation, "file") == 0) {
        word = parse_data(words[1]);
        *status = npcache_args_add_file(args, word.bytes);
    } else if (strcmp(operation, "list") == 0) {
        *status = npcache_args_begin_list(args);
    } else if (strcmp(operation, "map") == 0) {
        *status = npcache_args_begin_map(args);
    } else if (strcmp(operation, "end") == 0) {
        *status = npcache_args_end(args);
    } else if (strcmp(operation, "name") == 0) {
        word = parse_data(words[1]);
        *status = npcache_args_key(args, word.bytes);
    } else if (strcmp(operation, "array") == 0 || strcmp(operation, "descr") == 0 || strcmp(operation, "digest") == 0) {
        *status = add_array(operation, words);
    } else {
        return 0;
    }
    free(word.bytes);
    return 1;
}

static void print_key(void) {
    char key[65];
    npcache_error *err;
    npcache_status status = npcache_function_key(function, args, key, &err);
    if (status == 0) {
        puts(key);
    } else {
        print_error(status, err);
    }
}

/* call name version arguments */
static void call(char **words) {
    data name = parse_data(words[1]), version = parse_data(words[2]), bytes = parse_data(words[3]);
    npcache_buffer *buffer;
    npcache_error *err;
    npcache_status status =
        npcache_call(cache, name.bytes, version.bytes, bytes.bytes, bytes.len, compute, NULL, &buffer, &err);
    if (status == 0) {
        print_buffer(buffer);
    } else {
        print_error(status, err);
    }
    free(name.bytes);
    free(version.bytes);
    free(bytes.bytes);
}

static void begin(void) {
    npcache_buffer *buffer;
    npcache_output *todo;
    npcache_error *err;
    npcache_status status = npcache_begin(function, args, -1, &buffer, &todo, &err);
    if (todo != NULL) {
        compute(NULL, NULL, 0, todo);
        for (int i = 0; i < kept_count; i++) overwrite(kept[i].bytes, kept[i].len);
        status = npcache_end(todo, &buffer, &err);
    }
    if (status == 0) {
        print_buffer(buffer);
    } else {
        print_error(status, err);
    }
}

/* compute id dtype shape order data: begins the call, and gives it this result. ask id: the result has to be there. */
static void compute_or_ask(char **words) {
    npcache_buffer *buffer;
    npcache_output *todo;
    npcache_error *err;
    npcache_view view;
    npcache_status status = npcache_begin(function, args, -1, &buffer, &todo, &err);
    int computes = todo != NULL;
    if (computes && *words[0] == 'c') {
        int64_t shape[MAX_NDIM];
        int32_t ndim = parse_numbers(words[3], shape);
        data bytes = parse_data(words[5]);
        uint32_t order = *words[4] == 'f' ? NPCACHE_ORDER_F : NPCACHE_ORDER_C;
        void *place = npcache_output_alloc(todo, NULL, atoi(words[2]), ndim, shape, order);
        if (place != NULL) memcpy(place, bytes.bytes, bytes.len);
        free(bytes.bytes);
        npcache_output_commit(todo);
    }
    if (computes) status = npcache_end(todo, &buffer, &err);
    if (status != 0) {
        print_error(status, err);
        return;
    }
    npcache_buffer_view(buffer, 0, &view, sizeof view);
    printf("%s %s %d ", words[1], computes ? "computed" : "found", (int)view.dtype);
    for (int i = 0; i < view.ndim; i++) printf("%s%" PRId64, i == 0 ? "" : ",", view.shape[i]);
    printf("%s %c ", view.ndim == 0 ? "-" : "", (view.flags & NPCACHE_ORDER_F) != 0 ? 'f' : 'c');
    for (size_t i = 0; i < view.nbytes; i++) printf("%02x", ((const unsigned char *)view.data)[i]);
    puts(view.nbytes == 0 ? "-" : "");
    npcache_buffer_release(buffer);
}

/* What changes the function: reports an error at once. */
static void set_function(const char *operation, char **words) {
    npcache_error *err = NULL;
    npcache_status status;
    data first = parse_data(words[1]), second = {NULL, 0};
    if (strcmp(operation, "function") == 0) {
        npcache_function_free(function);
        second = parse_data(words[2]);
        status = npcache_function_new(cache, first.bytes, second.bytes, &function, &err);
    } else if (strcmp(operation, "dependency") == 0) {
        second = parse_data(words[2]);
        status = npcache_function_add_dependency(function, first.bytes, second.bytes, &err);
    } else {
        status = npcache_function_set(function, "layout", first.bytes, &err);
    }
    if (status != 0) print_error(status, err);
    free(first.bytes);
    free(second.bytes);
}

static void run(char **words) {
    const char *operation = words[0];
    static npcache_status first_failure;
    npcache_error *err;
    npcache_status status;
    if (add(operation, words, &status)) {
        if (first_failure == 0) first_failure = status;
        return;
    }
    if (strcmp(operation, "args") == 0) {
        first_failure = 0;
        new_args(npcache_args_new());
    } else if (strcmp(operation, "ready") == 0) {
        data bytes = parse_data(words[1]);
        npcache_args *made;
        status = npcache_args_from_bytes(bytes.bytes, bytes.len, &made, &err);
        if (status != 0) print_error(status, err);
        new_args(made);
        free(bytes.bytes);
    } else if (strcmp(operation, "key") == 0) {
        print_key();
    } else if (strcmp(operation, "status") == 0) {
        printf("%d\n", (int)first_failure);
    } else if (strcmp(operation, "call") == 0) {
        call(words);
    } else if (strcmp(operation, "begin") == 0) {
        begin();
    } else if (strcmp(operation, "compute") == 0 || strcmp(operation, "ask") == 0) {
        compute_or_ask(words);
        fflush(stdout);
    } else if (strcmp(operation, "cache") == 0) {
        data path = parse_data(words[1]);
        npcache_free(cache);
        status = npcache_new(path.bytes, NULL, &cache, &err);
        if (status != 0) print_error(status, err);
        free(path.bytes);
    } else if (strcmp(operation, "overwrite") == 0) {
        overwriting = 1;
    } else if (strcmp(operation, "library") == 0) {
        compute = load(words[1], words[2]);
    } else if (strcmp(operation, "object") == 0) {
        status = npcache_function_add_object(function, (void (*)(void))load(words[1], words[2]), &err);
        if (status != 0) print_error(status, err);
    } else if (strcmp(operation, "function") == 0 || strcmp(operation, "dependency") == 0 ||
               strcmp(operation, "layout") == 0) {
        set_function(operation, words);
    } else {
        die(operation);
    }
}

int main(void) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    compute = compute_one;
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        char *words[MAX_WORDS] = {NULL};
        line[length - 1] = 0;
        char *word = line;
        for (int i = 0; i < MAX_WORDS && word != NULL; i++) {
            words[i] = word;
            word = strchr(word, ' ');
            if (word != NULL) *word++ = 0;
        }
        run(words);
    }
    free(line);
    new_args(NULL);
    npcache_function_free(function);
    npcache_free(cache);
    return 0;
}
