// The second file of guard.cpp's program: npcache.hpp can be included in several, and a task and an exception can pass
// from one to the other.

#include <npcache.hpp>

npcache::buffer computed_elsewhere(const npcache::function &function, std::int64_t count);
std::int32_t throw_elsewhere(npcache_status status);

npcache::buffer computed_elsewhere(const npcache::function &function, std::int64_t count)
{
    npcache::begun begun = npcache::begin(function);
    double *value =
        static_cast<double *>(npcache_output_alloc(begun.todo.get(), nullptr, NPCACHE_FLOAT64, 1, &count, NPCACHE_ORDER_C));
    for (std::int64_t i = 0; i < count; i++)
        value[i] = 0.5 * static_cast<double>(i);
    return npcache::commit_and_end(std::move(begun.todo));
}

std::int32_t throw_elsewhere(npcache_status status)
{
    try {
        npcache::check(status);
    } catch (const npcache::error &e) {
        return e.code();
    }
    return 0;
}
