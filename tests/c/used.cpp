// One use of each template of npcache.hpp, compiled with more warnings than the other test programs; see test_cpp.py.

#include <npcache.hpp>

namespace {

struct point {
    double x, y;
};

} // namespace

template <> struct npcache::describe_as<point> {
    auto operator()(const point &value) const { return npcache::fields("x", value.x, "y", value.y); }
};

int main()
{
    npcache::cache cache(nullptr, {{"mode", "off"}});
    int runs = 0;
    auto several = cache.memoize(
        "several", "1",
        npcache::captures(
            [&runs](point at, const std::vector<bool> &bits, std::optional<std::string> name, std::pair<char, float> pair,
                    const std::map<std::string, std::vector<std::array<int, 2>>> &maps, long double wide, npcache::file) {
                ++runs;
                return std::make_tuple(std::vector<double>{at.x}, bits, pair.second, wide, maps.size() + name->size());
            },
            1, "text"));
    several.depends_on("a", "b").depends_on(npcache_abi_version).set("layout", "strict");
    auto in_place = cache.memoize("in place", [](npcache::output &out, std::size_t n, short m) {
        auto made = out.alloc<std::complex<float>>({n, m}, NPCACHE_ORDER_F);
        made(0, m - 1) = 1;
        out.alloc<long double>({}) () = 2;
        out.write(std::array<signed char, 3>{{1, 2, 3}}, "three");
        out.note("name", "value");
    });
    const npcache::result result = in_place(2, 3);
    const auto numbers = result.array<std::complex<float>>();
    const std::vector<signed char> three = result.array<signed char>("three");
    double sum = std::abs(numbers(0, 2)) + std::abs(numbers.at(1U, 1L)) + three[0] + numbers.seconds();
    for (const long double value : result.array<long double>(1))
        sum += static_cast<double>(value);
    in_place.forget(2, 3);
    cache.clear_function("several");
    return sum > 0 && !in_place.lookup(2, 3) && !in_place.is_cached(2, 3) && in_place.explain(2, 3).empty()
           && numbers.shape() != npcache::shape(2, 3) && several.key({1, 2}, {}, {}, {}, {}, 1, {}).empty();
}
