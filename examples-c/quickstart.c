/* Values of the Riemann zeta function, summed once and then read from ./quickstart-cache: run it twice.
   cc quickstart.c -lnpcache -lm -Wl,--build-id */
#include <math.h>
#include <npcache.h>
#include <stdio.h>

/* The expensive function. Its result is kept under the bytes of args; user_data is no part of the key. */
static int32_t zeta(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    const int64_t *terms = args, shape[] = {10};
    double *value = npcache_output_alloc(out, NULL, NPCACHE_FLOAT64, 1, shape, NPCACHE_ORDER_C);

    fprintf(user_data, "computing, from %zu bytes of arguments\n", args_len);
    for (int s = 2; value && s < shape[0]; s++)
        for (int64_t n = *terms; n > 0; n--)
            value[s] += pow(n, -s);
    return npcache_output_commit(out); /* says so where the allocation failed */
}

int main(void)
{
    int64_t terms = 10000000;
    npcache *cache = NULL;
    npcache_buffer *result = NULL;
    npcache_error *error = NULL;

    if (npcache_new("quickstart-cache", NULL, &cache, &error)
        || npcache_call(cache, "zeta", NULL, &terms, sizeof terms, zeta, stderr, &result, &error)) {
        fprintf(stderr, "quickstart: %s\n", npcache_error_message(error));
    } else {
        const double *value = npcache_buffer_data(result, 0, NPCACHE_FLOAT64, NULL);
        int computed = npcache_buffer_origin(result) == NPCACHE_ORIGIN_COMPUTED;
        printf("zeta(3) = %.12f, %s\n", value[3], computed ? "computed" : "from disk");
    }
    int failed = result == NULL;
    npcache_buffer_release(result);
    npcache_error_free(error);
    npcache_free(cache);
    return failed;
}
