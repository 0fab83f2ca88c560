// Values of the Riemann zeta function, summed once and then read from ./quickstart-cache: run it twice.
// c++ -std=c++17 quickstart.cpp -lnpcache -Wl,--build-id
#include <cmath>
#include <cstdio>
#include <npcache.hpp>

// The expensive function. Its results are kept under its arguments, until a rebuild changes the program.
std::vector<double> zeta(std::int64_t terms, int largest)
{
    std::vector<double> value(static_cast<std::size_t>(largest) + 1);
    for (int s = 2; s <= largest; s++)
        for (std::int64_t n = terms; n > 0; n--)
            value[static_cast<std::size_t>(s)] += std::pow(static_cast<double>(n), -s);
    return value;
}

int main()
{
    try {
        const npcache::cache cache("quickstart-cache");
        const auto cached_zeta = cache.memoize("zeta", zeta);
        const npcache::array<double> value = cached_zeta(10'000'000, 3);
        const bool computed = value.origin() == NPCACHE_ORIGIN_COMPUTED;
        std::printf("zeta(3) = %.12f, %s\n", value[3], computed ? "computed" : "from disk");
    } catch (const npcache::error &error) {
        std::fprintf(stderr, "quickstart: %s\n", error.what());
        return 1;
    }
}
