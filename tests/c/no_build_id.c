/* A program linked without a build ID: `no_build_id DIRECTORY`. A call without a version is an error that names the linker's
   flag; one with a version works. */
#include "check.h"

int main(int argc, char **argv)
{
    npcache *cache;
    npcache_function *function = NULL;
    npcache_buffer *buffer = POISON(npcache_buffer);
    npcache_error *error = NULL;
    int runs = 0;

    root = argc == 2 ? argv[1] : ".";
    cache = open_cache("cache");
    IS(NPCACHE_ERR_BUILD_ID, npcache_call(cache, "halves", NULL, NULL, 0, halves, &runs, &buffer, &error));
    CHECK(buffer == NULL && runs == 0 && says(&error, NPCACHE_ERR_BUILD_ID, "--build-id"));
    OK(npcache_function_new(cache, "halves", NULL, &function, NULL));
    IS(NPCACHE_ERR_BUILD_ID, npcache_function_add_object(function, (void (*)(void))halves, &error));
    CHECK(says(&error, NPCACHE_ERR_BUILD_ID, "--build-id"));
    /* The library has one of its own. */
    OK(npcache_function_add_object(function, (void (*)(void))npcache_abi_version, NULL));
    npcache_function_free(function);

    OK(npcache_call(cache, "halves", "1", NULL, 0, halves, &runs, &buffer, NULL));
    CHECK(runs == 1 && is_computed(buffer) && holds_halves(buffer, 3));
    npcache_buffer_release(buffer);
    OK(npcache_call(cache, "halves", "1", NULL, 0, halves, &runs, &buffer, NULL));
    CHECK(runs == 1 && is_hit(buffer) && exists(npcache_buffer_path(buffer)));
    npcache_buffer_release(buffer);
    npcache_free(cache);
    return finish();
}
