// Memoized functions in C++: `memoize DIRECTORY` runs the checks, `memoize DIRECTORY keys` prints the keys that
// test_cpp.py compares with those of the Python reference.
//
// Relies on: NPCACHE_MEMORY_BYTES=0, so that every hit here is read from the directory.

#include "check.h"

#include <npcache.hpp>

#include <atomic>
#include <functional>
#include <numeric>
#include <thread>

#ifdef __cpp_lib_mdspan
#include <mdspan>
#endif

namespace {

/* ------------------------------------------------------------------------------------------------- what is memoized */

enum class scheme { upwind = 1, central = 2 };
enum parity : bool { even, odd };

/// As C++23's, for standard libraries without it.
struct strided_layout {};
template <typename T> struct plain_access {
    using reference = T &;
};
template <std::size_t... Sizes> struct extents {
};
template <typename T, typename Extents, typename Layout, typename Access> class fake_mdspan;
template <typename T, std::size_t... Sizes, typename Layout, typename Access>
class fake_mdspan<T, extents<Sizes...>, Layout, Access> {
  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using extents_type = extents<Sizes...>;
    using accessor_type = Access;
    using data_handle_type = T *;
    fake_mdspan(T *data, std::array<std::size_t, sizeof...(Sizes)> strides) : data_(data), strides_(strides) {}
    static constexpr std::size_t rank() { return sizeof...(Sizes); }
    static constexpr bool is_always_strided() { return std::is_same<Layout, strided_layout>::value; }
    T *data_handle() const { return data_; }
    std::size_t extent(std::size_t i) const { return sizes_[i]; }
    std::size_t stride(std::size_t i) const { return strides_[i]; }

  private:
    T *data_;
    std::array<std::size_t, sizeof...(Sizes)> sizes_{{Sizes...}};
    std::array<std::size_t, sizeof...(Sizes)> strides_;
};

struct point {
    double x, y;
};
struct mesh {
    std::vector<point> points;
    std::vector<int> cells;
};
template <typename T> struct interval {
    T low, high;
};
struct flow {
    double nu;
    std::string name;
    interval<float> range;
};

/// What is described alone: not what is derived from it.
struct refined : mesh {
    int level;
};
struct longer : std::vector<double> {
    int more;
};
struct labelled : fake_mdspan<const double, extents<2>, strided_layout, plain_access<const double>> {
    int label;
};

} // namespace

template <> struct npcache::describe_as<point> {
    auto operator()(const point &value) const { return std::array<double, 2>{value.x, value.y}; }
};
template <> struct npcache::describe_as<mesh> {
    auto operator()(const mesh &value) const { return std::tie(value.points, value.cells); }
};
template <typename T> struct npcache::describe_as<interval<T>> {
    auto operator()(const interval<T> &value) const { return std::make_pair(value.low, value.high); }
};
template <> struct npcache::describe_as<flow> {
    auto operator()(const flow &value) const
    {
        return npcache::fields("range", value.range, "nu", value.nu, "name", value.name, "letters", value.name.size());
    }
};

namespace {

using npcache_detail::description;
using npcache_detail::form;
using npcache_detail::returned;
using npcache_detail::writable;

static_assert(!description<refined>::value && !description<longer>::value && !description<labelled>::value);
static_assert(!description<double *>::value && !description<void *>::value && !description<char *>::value);
static_assert(!description<std::map<int, double>>::value && !description<std::vector<refined>>::value);
static_assert(!description<std::optional<std::optional<int>>>::value, "two kinds of none would be one argument");
static_assert(!description<std::shared_ptr<int>>::value && !description<std::function<void()>>::value);
static_assert(!description<fake_mdspan<double, extents<2>, int, plain_access<double>>>::value,
              "a layout without strides");
static_assert(!description<fake_mdspan<double, extents<2>, strided_layout, plain_access<float>>>::value,
              "another accessor");
static_assert(writable<fake_mdspan<double, extents<2>, strided_layout, plain_access<double>>>::value);
static_assert(!writable<fake_mdspan<const double, extents<2>, strided_layout, plain_access<const double>>>::value);
static_assert(!returned<std::string>::value && !returned<std::vector<std::vector<double>>>::value);
static_assert(!returned<std::tuple<>>::value && !returned<std::tuple<std::tuple<int>>>::value
              && !returned<scheme>::value);
static_assert(std::is_same_v<decltype(std::declval<npcache::array<double>>().data()), const double *>, "read-only");
static_assert(std::is_same_v<decltype(*std::declval<npcache::array<double>>().begin()), const double &>);
static_assert(std::is_nothrow_copy_constructible_v<npcache::array<double>> && sizeof(npcache::array<double>) <= 64);

double half_of(double x) { return x / 2; }
[[maybe_unused]] double overloaded(double x) { return x; }
[[maybe_unused]] int overloaded(int x) { return 2 * x; }

/* ------------------------------------------------------------------------------------------------------------- keys */

template <typename... Values> void print_key(const npcache::cache &cache, const char *label, const Values &...values)
{
    npcache::arguments call;
    (call.add(values), ...);
    char key[65];
    npcache::check(npcache_function_key(npcache::describe(cache, "f", "1").get(), call.get(), key, nullptr));
    std::printf("%s %s\n", label, key);
}

void print_keys(const npcache::cache &cache)
{
    using std::optional, std::string, std::vector;
    const auto print = [&](const char *label, const auto &...values) { print_key(cache, label, values...); };
    print("none");
    print("integers", 1, -1, short(300), 4000000000U, std::int64_t(-5000000000), ~std::uint64_t(0), 'a',
          std::uint8_t(7));
    print("floats", 1.0, 1.0F, -0.0, 1.0L);
    print("bools", true, false);
    print("enums", scheme::central, odd, std::byte(7));
    print("complex", std::complex<double>(1, -2), std::complex<float>(0.5F, 0));
    print("texts", "naïve", string("a\0b", 3), std::string_view("text").substr(1), "", std::string_view());
    print("float64", vector<double>{1, 2.5, -3});
    print("int32", vector<std::int32_t>{1, -2}, std::array<std::uint16_t, 2>{{3, 4}}, vector<float>{});
    print("longlong", vector<long long>{1}, vector<unsigned long>{2}, vector<std::int8_t>{3}, vector<unsigned char>{4});
    print("bits", vector<bool>{true, false, true}, std::array<bool, 1>{{true}}, vector<bool>{});
    print("complexes", vector<std::complex<double>>{{1, 2}, {3, 4}}, vector<std::complex<float>>{{5, 6}});
    print("longdoubles", vector<long double>{1, -2.5L}, vector<long double>{});
    print("matrix", std::array<std::array<double, 3>, 2>{{{{1, 2, 3}}, {{4, 5, 6}}}});
    print("points", vector<std::array<float, 2>>{{{1, 2}}, {{3, 4}}, {{5, 6}}});
    print("nested", vector<vector<double>>{{1}, {}, {2, 3}}, vector<string>{"a", "b"}, std::array<string, 1>{{"c"}});
    print("rows", std::make_pair(1, 2.0), std::make_tuple(string("x"), vector<double>{1}, true), std::tuple<>());
    print("optional", optional<int>(), optional<int>(3), std::nullopt, optional<vector<double>>(vector<double>{1}));
    print("maps", std::map<string, double>{{"nu", 0.1}, {"steps", 2}},
          std::unordered_map<string, int>{{"b", 1}, {"aa", 2}, {"c", 3}});
    print("bytes", vector<std::byte>{std::byte(0), std::byte(255)}, std::array<std::byte, 1>{{std::byte(9)}}, vector<std::byte>());
    print("mesh", mesh{{{1, 2}, {3, 4}}, {5, 6}}, interval<float>{1, 2});
    print("flow", flow{0.1, "couette", {0, 1}});

    double numbers[6] = {1, 2, 3, 4, 5, 6};
    using columns = fake_mdspan<const double, extents<2, 3>, strided_layout, plain_access<const double>>;
    print("mdspan", columns(numbers, {1, 2}), columns(numbers, {3, 1}));
    print("mdspan0", fake_mdspan<double, extents<>, strided_layout, plain_access<double>>(numbers, {}));
#ifdef __cpp_lib_span
    print("span", std::span<const double>(numbers).subspan(1), std::span<const double, 2>(numbers, 2));
#endif
#ifdef __cpp_lib_mdspan
    print("mdspan", std::mdspan<const double, std::extents<int, 2, 3>, std::layout_left>(numbers),
          std::mdspan(numbers, 2, 3));
#endif

    vector<double> large(300000);
    std::iota(large.begin(), large.end(), 0.0);
    print("large", large);

    npcache_digest *read = nullptr;
    const std::int64_t six = 6;
    npcache::check(npcache_digest_new("<f8", 1, &six, nullptr, numbers, sizeof numbers, 0, &read, nullptr));
    const npcache::digest digest(read);
    npcache::arguments named;
    named.add(1).key("b").add(2.0).key("a").add(digest);
    char key[65];
    npcache::check(npcache_function_key(npcache::describe(cache, "f", "1").get(), named.get(), key, nullptr));
    std::printf("keywords %s\n", key);

    // Memoized functions: converted arguments, identities.
    const auto f = cache.memoize(
        "f", "1", [](double x, const string &name, std::optional<int>) { return x + double(name.size()); });
    std::printf("converted %s\n", f.key(1, "name", {}).c_str());
    std::printf("pointer %s\n", cache.memoize("f", half_of).key(1).c_str());
    std::printf("lambda %s\n", cache.memoize("f", [](double x) { return x; }).key(1).c_str());
    auto depends = cache.memoize("f", "1", half_of);
    depends.depends_on("blas", "0.3").depends_on(npcache_abi_version).depends_on("a", "");
    std::printf("depends %s\n", depends.key(1).c_str());
    std::printf("strict %s\n", cache.memoize("f", "1", half_of).set("layout", "strict").key(1).c_str());
}

/* ------------------------------------------------------------------------------------------------------- the checks */

template <typename Body> npcache_status code_thrown(Body &&body, const char *message)
{
    try {
        body();
    } catch (const npcache::error &e) {
        if (!CHECK(std::string(e.what()).find(message) != std::string::npos))
            std::printf("    %s\n", e.what());
        return e.code();
    }
    return NPCACHE_OK;
}

npcache::cache open_below_root(const char *name)
{
    char path[PATH_LEN];
    path_below_root(path, name);
    return npcache::cache(path, {{"lock_timeout", "60"}}); // to fail before the tests' patience ends
}

void arguments_are_converted_before_they_are_hashed(const npcache::cache &cache)
{
    int runs = 0;
    const auto f = cache.memoize("converted", "1", npcache::captures([&runs](double x, std::size_t n) {
                                     ++runs;
                                     return std::vector<double>(n, x);
                                 }));
    const npcache::array<double> computed = f(1, 3);
    const npcache::array<double> found = f(1.0, 3U);
    CHECK(runs == 1 && computed.origin() == NPCACHE_ORIGIN_COMPUTED && found.origin() == NPCACHE_ORIGIN_DISK);
    CHECK(f(1.0F, short(3)).size() == 3 && runs == 1);
    CHECK(f(1.5, 3)[0] == 1.5 && runs == 2);
    CHECK(found.stored() == NPCACHE_OK && exists(found.path()) && found.seconds() >= 0 && computed.seconds() > 0);

    const std::function<npcache::array<double>(double, std::size_t)> erased = f; // copies share
    CHECK(erased(1, 3)[2] == 1 && runs == 2);
}

/// That what comes from the function and what comes from the directory is `equal` to what it returns.
template <typename Function, typename Equal>
void is_kept(const npcache::cache &cache, const char *name, Function function, Equal equal)
{
    const auto f = cache.memoize(name, "1", function);
    CHECK(!f.is_cached());
    if (!CHECK(equal(f())))
        std::printf("    %s, computed\n", name);
    CHECK(f.is_cached());
    const auto found = f.lookup();
    if (!CHECK(found && equal(*found)))
        std::printf("    %s, found\n", name);
}
template <typename T, typename Function>
void array_is_kept(const npcache::cache &cache, const char *name, Function function)
{
    is_kept(cache, name, function, [&](const npcache::array<T> &found) {
        const auto expected = function();
        return found.size() == expected.size() && std::equal(found.begin(), found.end(), expected.begin())
               && found.shape() == npcache::shape(expected.size());
    });
}
template <typename T> void number_is_kept(const npcache::cache &cache, const std::string &name, T)
{
    const auto f = [] { return static_cast<T>(std::numeric_limits<T>::max() / 3); };
    is_kept(cache, ("number " + name).c_str(), f, [&](T found) { return found == f(); });
    array_is_kept<T>(cache, ("vector " + name).c_str(), [] {
        return std::vector<T>{0, std::numeric_limits<T>::max(), 1};
    });
    array_is_kept<T>(cache, ("array " + name).c_str(), [] { return std::array<T, 2>{{3, 4}}; });
    array_is_kept<T>(cache, ("empty " + name).c_str(), [] { return std::vector<T>(); });
}

void results_come_back_as_they_were(const npcache::cache &cache)
{
    number_is_kept(cache, "i8", std::int8_t());
    number_is_kept(cache, "long long", 0LL);
    number_is_kept(cache, "double", double());
    number_is_kept(cache, "long double", 0.0L);
    using complex = std::complex<double>;
    is_kept(
        cache, "bool", [] { return true; }, [](bool found) { return found; });
    is_kept(
        cache, "complex", [] { return complex(1, 2); }, [](complex found) { return found == complex(1, 2); });
    array_is_kept<complex>(cache, "complexes", [] { return std::vector<complex>{{1, 2}, {3, 4}}; });
    array_is_kept<std::complex<float>>(cache, "complex64", [] { return std::vector<std::complex<float>>{{1, 2}}; });
    array_is_kept<bool>(cache, "bits", [] { return std::vector<bool>{true, false, true}; });

    const auto points = [] { return std::vector<std::array<float, 3>>{{{1, 2, 3}}, {{4, 5, 6}}}; };
    is_kept(cache, "points", points, [](const npcache::array<float> &found) {
        return found.shape() == npcache::shape(2, 3) && found(1, 0) == 4 && found.at(0, 2) == 3;
    });
    const auto two = [] { return std::make_pair(std::vector<int>{1, 2}, 0.5); };
    is_kept(cache, "pair", two, [](const std::pair<npcache::array<int>, double> &found) {
        return found.first.size() == 2 && found.first[1] == 2 && found.second == 0.5;
    });
    const auto three = [] { return std::make_tuple(true, std::vector<bool>{false}, std::array<std::int8_t, 1>{{7}}); };
    is_kept(cache, "tuple", three, [](const auto &found) {
        const auto &[first, second, third] = found;
        static_assert(std::is_same_v<decltype(third), const npcache::array<std::int8_t>>);
        return first && !second[0] && third[0] == 7;
    });
    const auto again = [](const npcache::array<int> &given) { return given; };
    const npcache::array<int> given = cache.memoize("pair", "1", two)().first;
    npcache_view first, second;
    npcache_buffer_view(given.get(), 0, &first, sizeof first);
    npcache_buffer_view(given.get(), 1, &second, sizeof second);
    CHECK(std::string(first.name) == "0" && std::string(second.name) == "1");
    CHECK(cache.memoize("again", "1", again)(given)[1] == 2);
    CHECK(cache.memoize("again", "1", again)(given).origin() == NPCACHE_ORIGIN_DISK);
}

void functions_compute_in_place(const npcache::cache &cache)
{
    const auto filled = cache.memoize("filled", "1", [](npcache::output &out, int rows, std::size_t cols) {
        npcache::view<double> made = out.alloc<double>({rows, cols}, NPCACHE_ORDER_F);
        CHECK(made.size() == 6 && made(1, 2) == 0 && made.stride(0) == 8);
        for (int i = 0; i < rows; i++)
            for (std::size_t j = 0; j < cols; j++)
                made(i, j) = 10 * i + static_cast<double>(j);
        out.note("solver", "direct");
        return made;
    });
    for (int i = 0; i < 2; i++) {
        const npcache::array<double> found = filled(2, 3);
        CHECK(found.shape() == npcache::shape(2, 3) && found.strides() == npcache::shape(8, 16) && found.ndim() == 2);
        CHECK(found(1, 2) == 12 && found[1] == 10
              && found.origin() == (i ? NPCACHE_ORIGIN_DISK : NPCACHE_ORIGIN_COMPUTED));
        CHECK(std::vector<double>(found) == (std::vector<double>{0, 10, 1, 11, 2, 12}));
    }

    const auto several = cache.memoize("several", "1", [](npcache::output &out) {
        auto first = out.alloc<float>({2});
        first[1] = 1;
        auto second = out.alloc<long double>({});
        second() = 2;
        return std::make_tuple(first, second, 3);
    });
    for (int i = 0; i < 2; i++) {
        const auto [first, second, third] = several();
        CHECK(first[1] == 1 && second() == 2 && second.ndim() == 0 && third == 3);
    }

    const auto named = cache.memoize("named", "1", [](npcache::output &out, double x) {
        out.alloc<double>({1}, NPCACHE_ORDER_C, "value")[0] = x;
        out.write(std::vector<int>{1, 2}, "steps");
        out.write(x / 2, "half:float");
    });
    for (int i = 0; i < 2; i++) {
        const npcache::result found = named(4);
        CHECK(found.array<double>("half")() == 2 && found.array<double>("half:float")() == 2);
        IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { found.array<double>("hal"); }, "no array"));
        IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { found.array<double>(""); }, "no array"));
        CHECK(found.count() == 3 && found.array<double>("value")[0] == 4 && found.array<int>(1)[1] == 2);
        CHECK(found.origin() == (i ? NPCACHE_ORIGIN_DISK : NPCACHE_ORIGIN_COMPUTED) && found.stored() == NPCACHE_OK);
        IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { found.array<double>("other"); }, "other"));
        IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { found.array<double>(3); }, "no array 3"));
        IS(NPCACHE_ERR_DTYPE, code_thrown([&] { found.array<float>(); }, "<f8 and not <f4"));
    }

    const auto unordered = cache.memoize("unordered", "1", [](npcache::output &out) {
        auto first = out.alloc<int>({1}), second = out.alloc<int>({1});
        return std::make_pair(second, first);
    });
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { unordered(); }, "in their order"));
    const auto forgotten = cache.memoize("forgotten", "1", [](npcache::output &out) {
        out.alloc<int>({1});
        return 1.0;
    });
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { forgotten(); }, "all its arrays"));
    const auto missing = cache.memoize("missing", "1", [](npcache::output &) {});
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { missing(); }, "without an array"));
    const auto negative = cache.memoize("negative", "1", [](npcache::output &out) { out.alloc<int>({-1}); });
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { negative(); }, "npcache::output::alloc"));
    CHECK(!unordered.is_cached() && !forgotten.is_cached() && !missing.is_cached() && !negative.is_cached());
}

void what_another_function_stored_is_no_result(const npcache::cache &cache)
{
    cache.memoize("other", "1", [](int) { return std::vector<float>{1, 2}; })(1);
    const auto doubles = cache.memoize("other", "1", [](int) { return std::vector<double>{1, 2}; });
    IS(NPCACHE_ERR_DTYPE, code_thrown([&] { doubles(1); }, "<f4 and not <f8"));
    IS(NPCACHE_ERR_DTYPE, code_thrown([&] { doubles(1); }, root)); // the path
    IS(NPCACHE_ERR_DTYPE, code_thrown([&] { doubles.lookup(1); }, "another function stored it"));
    const auto number = cache.memoize("other", "1", [](int) { return 1.0F; });
    IS(NPCACHE_ERR_DTYPE, code_thrown([&] { number(1); }, "not a number"));
    const auto two = cache.memoize("other", "1", [](int) { return std::make_pair(1.0F, 1.0F); });
    IS(NPCACHE_ERR_DTYPE, code_thrown([&] { two(1); }, "1 arrays and not 2"));
    CHECK(doubles.is_cached(1) && doubles(2).size() == 2);
}

/* Of what a function reads besides its parameters. */

auto scaled_by(const npcache::cache &cache, double scale)
{
    return cache.memoize("closure", "1", npcache::captures([scale](double x) { return scale * x; }, scale));
}

void captured_values_count(const npcache::cache &cache)
{
    CHECK(scaled_by(cache, 2)(10) == 20 && scaled_by(cache, 3)(10) == 30 && scaled_by(cache, 2)(10) == 20);
    CHECK(scaled_by(cache, 2).is_cached(10) && !scaled_by(cache, 4).is_cached(10));
    int runs = 0;
    const mesh grid{{{1, 2}}, {3}};
    const auto counted = [&] {
        return cache.memoize("closures", "1",
                             npcache::captures([&runs, grid] { return ++runs + grid.cells[0]; }, grid, 7));
    };
    CHECK(counted()() == 4 && counted()() == 4 && runs == 1);
    CHECK(cache.memoize("generic", "1", npcache::captures(std::function<double(double)>(half_of)))(3) == 1.5);
}

void versions_are_apart(const npcache::cache &cache)
{
    const auto make = [&](const char *version) { return cache.memoize("versions", version, half_of); };
    CHECK(make("1")(1) == 0.5 && make("1").is_cached(1) && !make("2").is_cached(1) && !make("").is_cached(1));
    const auto built = cache.memoize("versions", half_of);
    CHECK(!built.is_cached(1) && built(1) == 0.5 && built.is_cached(1)
          && cache.memoize("versions", &half_of).is_cached(1));
    CHECK(built.key(1) != make("1").key(1));
}

void signatures_can_be_said(const npcache::cache &cache)
{
    const auto generic = [](auto x) { return x + x; };
    CHECK(cache.memoize<double(double)>("said", "1", generic)(2) == 4);
    CHECK(cache.memoize<int(int)>("said", "1", generic)(2) == 4);
    CHECK(cache.memoize<double(double)>("said", "2", overloaded)(2) == 2);
    CHECK(cache.memoize<int(int)>("said", generic)(3) == 6);
    const auto in_place = [](auto &out, int n) { out.template alloc<int>({1})[0] = n; };
    CHECK((cache.memoize<void(npcache::output &, int)>("said", "3", in_place)(5).array<int>()[0] == 5));
}

void parameters_reach_the_function_as_declared(const npcache::cache &cache)
{
    const auto takes = cache.memoize("takes", "1",
                                     [](std::string name, std::vector<double> &&moved, const char *text,
                                        std::string_view view, const mesh &grid, scheme with,
                                        std::optional<double> maybe, const std::map<std::string, int> &steps) {
                                         CHECK(name == "name" && text == std::string("text") && view == "view"
                                               && grid.cells[0] == 3 && with == scheme::central);
                                         const std::vector<double> mine = std::move(moved);
                                         return double(mine.size()) + maybe.value_or(0.5) + steps.at("a");
                                     });
    CHECK(takes("name", {1, 2}, "text", "view", {{{1, 2}}, {3}}, scheme::central, {}, {{"a", 1}}) == 3.5);
    std::vector<double> large(1000, 1.0);
    CHECK(takes("name", std::move(large), "text", "view", {{}, {3}}, scheme::central, 1, {{"a", 1}}) == 1002);
    const auto unique = cache.memoize("unique", "1", [](npcache::file file) { return file.path.size(); });
    char path[PATH_LEN];
    path_below_root(path, "argument");
    write_file(path, "one");
    const std::string first = unique.key({path});
    CHECK(unique({path}) == std::strlen(path));
    write_file(path, "two");
    CHECK(unique.key({path}) != first);
    unlink(path);
    IS(NPCACHE_ERR_IO, code_thrown([&] { unique({path}); }, path));
}

/* Exceptions. */

struct tangled : std::runtime_error {
    tangled() : std::runtime_error("the mesh is tangled") {}
};

template <typename Throwing>
void an_exception_frees_the_next(const npcache::cache &cache, const char *name, Throwing throwing)
{
    std::atomic<bool> asked(false);
    std::atomic<int> runs(0);
    const auto f = cache.memoize<npcache::view<double>(npcache::output &, int)>(
        name, "1", npcache::captures([&](npcache::output &out, int n) {
            auto made = out.template alloc<double>({n});
            if (runs++ == 0) {
                asked = true;
                sleep_ms(100);
                throwing();
            }
            made[0] = 7;
            return made;
        }));
    double waited = 0;
    std::thread waiter([&] {
        while (!asked)
            sleep_ms(1);
        const double began = seconds();
        CHECK(f(3)[0] == 7);
        waited = seconds() - began;
    });
    try {
        f(3);
        CHECK(!"reached");
    } catch (const tangled &e) {
        CHECK(std::string(e.what()) == "the mesh is tangled");
    } catch (int e) {
        CHECK(e == 42);
    }
    waiter.join();
    CHECK(runs == 2 && waited < 30 && f(3).origin() == NPCACHE_ORIGIN_DISK);
}

void exceptions_pass_and_waiters_go_on(const npcache::cache &cache)
{
    an_exception_frees_the_next(cache, "throws", [] { throw tangled(); });
    an_exception_frees_the_next(cache, "throws an int", [] { throw 42; });
    int runs = 0;
    const auto f = cache.memoize("returns", "1", npcache::captures([&](int n) {
                                     if (runs++ == 0)
                                         throw tangled();
                                     return n;
                                 }));
    try {
        f(1);
        CHECK(!"reached");
    } catch (const tangled &) {
    }
    CHECK(!f.is_cached(1) && f(1) == 1 && runs == 2);
}

void errors_say_what_is_wrong(const npcache::cache &cache)
{
    const auto text = cache.memoize("text", "1", [](const char *name) { return int(std::strlen(name)); });
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { text("\xff"); }, "UTF-8"));
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { text(nullptr); }, "NULL"));
    const auto map = cache.memoize("map", "1", [](const std::map<std::string, int> &) { return 1; });
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { map({{std::string("a\0b", 3), 1}}); }, "NUL"));
    IS(NPCACHE_ERR_ARGUMENT,
       code_thrown([&] { cache.memoize(std::string("a\0b", 3), "1", half_of); }, "a name contains a NUL"));
    IS(NPCACHE_ERR_ARGUMENT,
       code_thrown([&] { cache.memoize("a", std::string("1\0", 2), half_of); }, "a version contains"));
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { cache.memoize("", "1", half_of); }, "name"));
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([] { npcache::cache("x", {{"speed", "high"}}); }, "speed"));
    IS(NPCACHE_ERR_DIRECTORY, code_thrown([] { npcache::cache("/dev/null"); }, "/dev/null"));
    IS(NPCACHE_ERR_ARGUMENT, code_thrown([&] { cache.memoize("a", "1", half_of).set("speed", "high"); }, "speed"));
    try {
        const std::array<std::int64_t, 33> sizes{};
        npcache::shape(sizes.data(), sizes.size());
        CHECK(!"reached");
    } catch (const npcache::error &) {
    }
}

void arrays_are_read(const npcache::cache &cache)
{
    const auto f = cache.memoize("read", "1", [](double first) {
        return std::array<std::array<double, 3>, 2>{{{{first, 1, 2}}, {{3, 4, 5}}}};
    });
    f(0);
    npcache::array<double> found = f(0);
    CHECK(found(1, 2) == 5 && found.at(1U, 0L) == 3 && found.end() - found.begin() == 6 && !found.empty());
    CHECK(std::accumulate(found.begin(), found.end(), 0.0) == 15);
    int out_of_range = 0;
    const auto reads = [&](auto... indices) {
        try {
            found.at(indices...);
        } catch (const std::out_of_range &) {
            ++out_of_range;
        }
    };
    reads(2, 0), reads(0, 3), reads(-1, 0), reads(0), reads(0, 0, 0), reads();
    CHECK(out_of_range == 6);

    // What was read from the cache and then written to is asked for again.
    std::vector<double> mine = found;
    mine[0] = 77;
    CHECK(f(0)[0] == 0 && found[0] == 0);

    const npcache::array<double> copy = found, other = f(8);
    const npcache::array<double> moved = std::move(found);
    CHECK(copy.data() == moved.data() && moved(1, 2) == 5);
    found = other;
    CHECK(found[0] == 8 && copy[0] == 0);
    cache.clear_function("read");
    CHECK(copy(1, 2) == 5 && moved(0, 1) == 1 && !f.is_cached(0));
    cache.configure("max_age", "30d");
    CHECK(f(8)[0] == 8 && f.is_cached(8));
}

void calls_are_looked_up_forgotten_and_explained(const npcache::cache &cache)
{
    auto f = cache.memoize("looked up", "1", [](double x, int n) { return std::vector<double>(std::size_t(n), x); });
    CHECK(!f.lookup(1, 2) && !f.is_cached(1, 2));
    f(1, 2);
    const auto hits = [&] { return cache.stats("looked up").memory + cache.stats("looked up").disk; };
    CHECK(f.is_cached(1, 2) && !f.is_cached(1, 3) && hits() == 0);
    CHECK(f.lookup(1, 2)->size() == 2 && hits() == 1);
    CHECK(f.explain(1, 3).find("argument") != std::string::npos);
    CHECK(f.explain(1, 2) != f.explain(1, 3));
    f(1, 3);
    f.forget(1, 2);
    CHECK(!f.is_cached(1, 2) && f.is_cached(1, 3));
    const auto other = cache.memoize("not cleared", "1", half_of);
    other(1);
    cache.clear_function("looked up");
    CHECK(!f.is_cached(1, 3) && other.is_cached(1));
    cache.clear();
    CHECK(!other.is_cached(1));
}

void caches_close_and_move(const char *name)
{
    char path[PATH_LEN];
    path_below_root(path, name);
    const auto make = [&] {
        npcache::cache cache{std::string(path)};
        const npcache::cache moved = std::move(cache);
        return moved.memoize("f", "1", [](int n) { return std::vector<int>{n}; });
    };
    const auto f = make();
    const npcache::array<int> found = f(4);
    CHECK(found.origin() == NPCACHE_ORIGIN_COMPUTED && make()(4).origin() == NPCACHE_ORIGIN_DISK);
    npcache::cache(path).clear(NPCACHE_CLEAR_REMOVE_DIR);
    CHECK(!exists(path) && found[0] == 4 && f(4)[0] == 4);

    const npcache::cache none(nullptr);
    const auto computed = none.memoize("f", "1", half_of);
    CHECK(computed(2) == 1 && !computed.is_cached(2));
    CHECK(none.memoize("g", "1", [] { return std::vector<int>{1}; })().stored() == NPCACHE_UNSTORED_NO_DIRECTORY);
    const npcache::cache off(path, {{"mode", "off"}});
    CHECK(off.memoize("f", "1", half_of)(2) == 1);
}

void threads_share_a_function(const npcache::cache &cache)
{
    std::atomic<int> runs(0), wrong(0);
    const auto f = cache.memoize("threads", "1", npcache::captures([&](int n, const std::vector<double> &x) {
                                     ++runs;
                                     sleep_ms(5);
                                     return std::make_pair(std::vector<double>(x.size(), n), n);
                                 }));
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; t++)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 80; i++) {
                const int n = (i + t) % 20;
                const auto [array, number] = f(n, {1, 2, 3});
                wrong += number != n || array.size() != 3 || array[2] != n;
            }
        });
    for (std::thread &thread : threads)
        thread.join();
    CHECK(runs == 20 && wrong == 0);
}

void run(const npcache::cache &cache)
{
    arguments_are_converted_before_they_are_hashed(cache);
    results_come_back_as_they_were(cache);
    functions_compute_in_place(cache);
    what_another_function_stored_is_no_result(cache);
    captured_values_count(cache);
    versions_are_apart(cache);
    signatures_can_be_said(cache);
    parameters_reach_the_function_as_declared(cache);
    exceptions_pass_and_waiters_go_on(cache);
    errors_say_what_is_wrong(cache);
    arrays_are_read(cache);
    calls_are_looked_up_forgotten_and_explained(cache);
    caches_close_and_move("closed");
    threads_share_a_function(cache);
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    root = argv[1];
    try {
        const npcache::cache cache = open_below_root("cache");
        if (argc > 2) {
            print_keys(cache);
            return 0;
        }
        run(cache);
    } catch (const std::exception &e) {
        CHECK(!"an exception that nothing expected");
        std::printf("    %s\n", e.what());
    }
    return finish();
}
