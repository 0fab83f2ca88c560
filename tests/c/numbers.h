/* The function that the tests' processes call: an array that depends on its key alone, and whether an array is that. */
#ifndef NPCACHE_TESTS_NUMBERS_H
#define NPCACHE_TESTS_NUMBERS_H

#include <stdint.h>
#include <string.h>

#include "npcache.h"

/* One in eight is over 256 KiB and so mapped, one over 8 KiB, the others smaller. */
static int64_t length_of(uint64_t key)
{
    return key % 8 == 0 ? 40000 + (int64_t)(key % 1000) * 64 : key % 8 == 4 ? 4000 : 100 + (int64_t)(key % 8);
}

static uint64_t number(uint64_t key, int64_t i)
{
    return (key + (uint64_t)i) * UINT64_C(0x9E3779B97F4A7C15);
}

/* Makes the array of `key` the result; 0, or what a function returns that could not. */
static int32_t put_numbers(uint64_t key, npcache_output *out)
{
    int64_t length = length_of(key);
    uint64_t *array = npcache_output_alloc(out, NULL, NPCACHE_UINT64, 1, &length, NPCACHE_ORDER_C);
    if (!array)
        return 2;
    for (int64_t i = 0; i < length; i++)
        array[i] = number(key, i);
    return npcache_output_commit(out) == NPCACHE_OK ? 0 : 3;
}

static int holds_numbers(const npcache_buffer *result, uint64_t key)
{
    size_t count;
    const uint64_t *array = npcache_buffer_data(result, 0, NPCACHE_UINT64, &count);
    int right = array && count == (size_t)length_of(key);
    for (size_t i = 0; right && i < count; i++)
        right = array[i] == number(key, (int64_t)i);
    return right;
}

#endif
