/*
 * The kinds of results in C++, for test_hosts.py: `results CACHE` stores them as c++'s, and `results CACHE HOST ...` finds
 * those that the hosts stored; what is not there, or is another, ends the program.
 */

#include <iostream>
#include <npcache.hpp>

namespace {

bool stores;

void needed()
{
    if (!stores)
        throw std::runtime_error("it is not stored");
}

void check(bool holds, const char *what)
{
    if (!holds)
        throw std::runtime_error(std::string(what) + " is another");
}

template <typename T> std::vector<T> elements(const npcache::array<T> &of) { return of; }

void visit(const npcache::cache &cache, const std::string &host)
{
    const npcache::array<double> array = cache.memoize(host + " array", "1", [](npcache::output &out) {
        needed();
        npcache::view<double> made = out.alloc<double>({2, 3}, NPCACHE_ORDER_F);
        for (int i = 0; i < 6; i++)
            made(i / 3, i % 3) = i + 1;
        return made;
    })();
    check(array.shape() == npcache::shape(2, 3) && array.strides() == npcache::shape(8, 16) && array(1, 0) == 4, "array");

    check(cache.memoize(host + " number", "1", [] { return needed(), 2.5; })() == 2.5, "number");

    const auto [steps, half] = cache.memoize(host + " tuple", "1", [] {
        return needed(), std::make_tuple(std::vector<std::int32_t>{1, 2}, 0.5);
    })();
    check(elements(steps) == std::vector<std::int32_t>{1, 2} && half == 0.5, "tuple");

    const auto [one] = cache.memoize(host + " tuple of one", "1", [] {
        return needed(), std::make_tuple(std::vector<double>{1});
    })();
    check(elements(one) == std::vector<double>{1}, "tuple of one");

    const npcache::result map = cache.memoize(host + " map", "1", [](npcache::output &out) {
        needed();
        out.write(1.5, "mean");
        out.write(std::vector<std::int64_t>{3, 4}, "steps");
    })();
    check(map.array<double>("mean")() == 1.5 && map.array<std::int64_t>("steps")[1] == 4, "map");

    const npcache::result nested = cache.memoize(host + " nested", "1", [](npcache::output &out) {
        needed();
        out.write(0.5, "range/0");
        out.write(2.5, "range/1");
        out.write(std::vector<bool>{true, false}, "of/flags");
    })();
    check(nested.array<double>("range/1")() == 2.5 && nested.array<bool>("of/flags")[0], "nested");
}

} // namespace

int main(int count, char **words)
{
    try {
        const npcache::cache cache(words[1]);
        stores = count == 2;
        if (stores)
            visit(cache, "c++");
        for (int i = 2; i < count; i++)
            visit(cache, words[i]);
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
