/*
 * The C++ host of test_hosts.py, with npcache.hpp: test_hosts.py writes its calls, one a golden vector, as a program that
 * includes this and ends with a table of them. host.py says what it reads and answers.
 */

#include <cstdio>
#include <iostream>
#include <npcache.hpp>
#include <sstream>

using namespace std::string_literals;

namespace {

/* ------------------------------------------------------------------------------------------ arguments, from their notation */

template <typename T, typename Bits> T of_bits(Bits bits)
{
    static_assert(sizeof(T) == sizeof bits, "all the bits, and no others");
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

/** Of hexadecimal digits. */
std::string digits(const std::string &word)
{
    std::string bytes;
    for (std::size_t i = 0; i + 1 < word.size(); i += 2)
        bytes += static_cast<char>(std::stoi(word.substr(i, 2), nullptr, 16));
    return bytes;
}

std::string generated(std::uint32_t multiply, std::size_t length)
{
    std::string bytes(length, '\0');
    for (std::size_t i = 0; i < length; i++)
        bytes[i] = static_cast<char>(static_cast<std::uint32_t>(i) * multiply >> 24);
    return bytes;
}

std::string repeated(const std::string &once, std::size_t times)
{
    std::string text;
    for (std::size_t i = 0; i < times; i++)
        text += once;
    return text;
}

std::vector<std::byte> bytes(const std::string &data)
{
    std::vector<std::byte> made(data.size());
    if (!data.empty())
        std::memcpy(made.data(), data.data(), data.size());
    return made;
}

template <typename T> std::vector<T> row(const std::string &data)
{
    std::vector<T> made(data.size() / sizeof(T));
    for (std::size_t i = 0; i < made.size(); i++) {
        T element;
        std::memcpy(&element, data.data() + i * sizeof element, sizeof element);
        made[i] = element;
    }
    return made;
}

/** As C++23's mdspan, which the compiler may not have: known to npcache.hpp by its members. */
template <typename T> struct plain_access {
    using reference = T &;
};
struct strided_layout {};
template <typename T, typename Rank, typename Layout, typename Accessor> class mdspan {
  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using accessor_type = Accessor;
    using data_handle_type = T *;
    using numbers = std::array<std::int64_t, Rank::value>;

    mdspan(T *data, const numbers &shape, const numbers &strides) : data_(data), shape_(shape), strides_(strides) {}
    static constexpr std::size_t rank() { return Rank::value; }
    static constexpr bool is_always_strided() { return true; }
    T *data_handle() const { return data_; }
    std::int64_t extent(std::size_t i) const { return shape_[i]; }
    std::int64_t stride(std::size_t i) const { return strides_[i]; }

  private:
    T *data_;
    numbers shape_, strides_;
};
template <typename T, std::size_t N>
using strided_view = mdspan<const T, std::integral_constant<std::size_t, N>, strided_layout, plain_access<const T>>;

/** An array on a buffer that is kept. Strides and offset in elements. */
template <typename T, std::size_t N>
strided_view<T, N> strided(const std::string &data, const std::array<std::int64_t, N> &shape,
                           const std::array<std::int64_t, N> &strides, std::size_t offset)
{
    static std::list<std::vector<T>> kept;
    kept.emplace_back(data.size() / sizeof(T) + 1);
    std::memcpy(kept.back().data(), data.data(), data.size());
    return {kept.back().data() + offset, shape, strides};
}

/* ------------------------------------------------------------------------------------------------------------------- results */

const npcache::cache *cache;

/** The words after the vector's number: none where the result has to be there. */
std::vector<std::string> wanted;

/** Calls `use` with a value of the type that npcache.h has this number for; C++17 has none for NPCACHE_FLOAT16. */
template <typename Use> void with_type(int dtype, Use &&use)
{
    const auto each = [&](auto... zeros) {
        ((npcache_detail::dtype_of<decltype(zeros)>() == dtype ? use(zeros) : void()), ...);
    };
    each(false, std::int8_t(), std::int16_t(), std::int32_t(), std::int64_t(), std::uint8_t(), std::uint16_t(),
         std::uint32_t(), std::uint64_t(), float(), double(), std::complex<float>(), std::complex<double>());
}

bool computed;

void compute(npcache::output &out)
{
    if (wanted.empty())
        throw std::runtime_error("this was not to be computed");
    computed = true;
    const int dtype = std::stoi(wanted[0]);
    std::vector<std::int64_t> sizes;
    std::istringstream words(wanted[1]);
    for (std::string word; wanted[1] != "-" && std::getline(words, word, ',');)
        sizes.push_back(std::stoll(word));
    const std::uint32_t order = wanted[2] == "f" ? NPCACHE_ORDER_F : NPCACHE_ORDER_C;
    const std::string data = wanted[3] == "-" ? "" : digits(wanted[3]);
    if (dtype == NPCACHE_FLOAT16) {
        void *place = npcache_output_alloc(out.get(), nullptr, dtype, static_cast<std::int32_t>(sizes.size()),
                                           sizes.data(), order);
        std::memcpy(place, data.data(), data.size());
    }
    with_type(dtype, [&](auto zero) {
        const auto made = out.alloc<decltype(zero)>({sizes.data(), sizes.size()}, order);
        if (made.size() * sizeof zero != data.size())
            throw std::runtime_error("the data do not have this shape");
        std::memcpy(static_cast<void *>(made.data()), data.data(), data.size());
    });
}

void answer(const npcache::result &found)
{
    const npcache_view view = found.view(0);
    std::printf("%s %d ", computed ? "computed" : "found", view.dtype);
    for (std::int32_t i = 0; i < view.ndim; i++)
        std::printf("%s%lld", i ? "," : "", static_cast<long long>(view.shape[i]));
    std::printf("%s %c ", view.ndim ? "" : "-", view.flags & NPCACHE_ORDER_F ? 'f' : 'c');
    std::string data(static_cast<const char *>(view.data), view.dtype == NPCACHE_FLOAT16 ? view.nbytes : 0);
    with_type(view.dtype, [&](auto zero) {
        const npcache::array<decltype(zero)> typed = found.array<decltype(zero)>();
        data.assign(reinterpret_cast<const char *>(typed.data()), typed.size() * sizeof zero);
    });
    for (const char byte : data)
        std::printf("%02x", static_cast<unsigned char>(byte));
    std::printf("%s\n", data.empty() ? "-" : "");
}

template <typename... Parameters> struct task {
    void operator()(npcache::output &out, const Parameters &...) const { compute(out); }
};

/** The identity of a vector's function. */
struct identity {
    std::string name, version, layout;
    std::vector<std::pair<std::string, std::string>> dependencies;
};

template <typename... Arguments> void call(const identity &of, const Arguments &...arguments)
{
    auto memoized = cache->memoize(of.name, of.version, task<Arguments...>());
    for (const auto &[name, value] : of.dependencies)
        memoized.depends_on(name, value);
    memoized.set("layout", of.layout);
    answer(memoized(arguments...));
}

/** With keyword arguments, which the functions of C++ do not have. */
void call_with(const identity &of, const npcache::arguments &arguments)
{
    const npcache::function function = npcache::describe(*cache, of.name.c_str(), of.version.c_str());
    npcache::check(npcache_function_set(function.get(), "layout", of.layout.c_str(), nullptr));
    npcache::begun begun = npcache::begin(function, arguments.get());
    if (begun.todo) {
        npcache::output out(begun.todo.get());
        compute(out);
        begun.hit = npcache::commit_and_end(std::move(begun.todo));
    }
    answer(npcache::result(std::move(begun.hit)));
}

/** Answers what is asked, by the calls in `of`, where nullptr is one that C++ does not have. */
int host(const char *path, void (*const of[])())
{
    const npcache::cache opened(path);
    cache = &opened;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string operation, word;
        std::size_t number;
        words >> operation >> number;
        for (wanted.clear(); words >> word;)
            wanted.push_back(word);
        computed = false;
        std::printf("%zu ", number);
        of[number] ? of[number]() : static_cast<void>(std::puts("cannot"));
        std::fflush(stdout);
    }
    return 0;
}

} // namespace
