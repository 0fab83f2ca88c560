/*
 * npcache for C++17 and later: functions that are computed once, arrays that are read from then on.
 *
 *     npcache::cache cache("results");
 *     auto spectrum = cache.memoize("spectrum", "1", [](const std::vector<double> &signal, double rate) {
 *         std::vector<std::complex<double>> lines = fft(signal, rate);
 *         return lines;
 *     });
 *     npcache::array<std::complex<double>> lines = spectrum(signal, 44100); // 44100 is a double here as there
 *
 * docs/cpp.md is the tour; npcache.h says what a cache is, what can still be stale in it, and what the options do.
 * Relies on npcache.h and the standard library alone, and needs nothing linked but libnpcache. Eigen's matrices and
 * mdspan are known by their members, so neither is included.
 *
 * What is refused does not compile, and says what to write instead: arguments that nothing describes, function objects
 * with captures, parameters that the function could write its result to.
 *
 * Errors are thrown as npcache::error. That a result could not be stored is none: array::stored() tells.
 *
 * `npcache` is a struct, whose members are what would stand in a namespace, because C has that name for its handle and
 * C++ allows no namespace beside a struct.
 */

#ifndef NPCACHE_HPP
#define NPCACHE_HPP

#include "npcache.h"

#include <array>
#include <cassert>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#if __cplusplus > 201703L
#include <version>
#ifdef __cpp_lib_span
#include <span>
#endif
#endif

/** What stands here is named `npcache::cache` and so on: a scope, of which nobody makes an object. */
struct npcache final {
    npcache() = delete;
    ~npcache() = delete;

    /* What programs use; each is described where it is defined, below. */

    class cache;
    template <typename Function, typename Signature, bool InPlace> class memoized;
    template <typename T> class array;
    template <typename T> class view;
    class result;
    class output;
    class shape;
    class arguments;
    struct file;
    template <typename... Parts> struct fields_of;
    template <typename Function, typename... Values> struct captured;

    /** The options of a cache by name: `{{"memory_bytes", "1G"}, {"umask", "group"}}`; npcache_options_set has them. */
    using options = std::map<std::string, std::string>;

    /**
     * How a type of yours counts as an argument: as the value that this returns, which is anything that is an argument
     * by itself. It has to hold all that a result can depend on.
     *
     *     template <> struct npcache::describe_as<mesh> {
     *         auto operator()(const mesh &value) const { return std::tie(value.points, value.cells); }
     *     };
     *
     * Like std::hash it is specialised in the global namespace, for a template as for a class, and holds for the type
     * itself, not for types derived from it, which may have more to them.
     */
    template <typename T> struct describe_as;

    /** Several values under names, as one argument: a map. `npcache::fields("nu", flow.nu, "steps", flow.steps)`. */
    template <typename... Parts> static fields_of<Parts...> fields(Parts &&...names_and_values);

    /**
     * A function object with captures, to be memoized: `values` are what of them counts, as they are now. None is the
     * promise that no result depends on them: a logger, a counter, a pool of threads.
     */
    template <typename Function, typename... Values>
    static captured<Function, Values...> captures(Function function, Values... values);

    /** What went wrong; what() is the message. */
    class error : public std::runtime_error {
      public:
        /** An error of your own, as those of the library are made. */
        error(npcache_status code, std::int32_t function_code, const std::string &message)
            : std::runtime_error(message), code_(code), function_code_(function_code)
        {
        }
        /** An NPCACHE_ERR status. */
        npcache_status code() const noexcept { return code_; }
        /** What a function in C returned, for NPCACHE_ERR_FUNCTION. */
        std::int32_t function_code() const noexcept { return function_code_; }

      private:
        npcache_status code_;
        std::int32_t function_code_;
    };

    /* The C API under owners, for what has no class above: std::unique_ptrs of the size of a pointer. */

    /** How an owner frees its handle. */
    template <typename Handle, void (*free)(Handle *)> struct deleter {
        /** Never called with NULL. */
        void operator()(Handle *handle) const noexcept { free(handle); }
    };
    /** The one that frees a handle of the C API. */
    template <typename Handle, void (*free)(Handle *)> using owner = std::unique_ptr<Handle, deleter<Handle, free>>;

    /** A function whose calls are cached. */
    using function = owner<npcache_function, npcache_function_free>;
    /** An array that was read once. */
    using digest = owner<npcache_digest, npcache_digest_free>;
    /** One reference to a result; npcache_buffer_retain makes another. */
    using buffer = owner<npcache_buffer, npcache_buffer_release>;
    /** The C object of an error; check() makes an exception of it. */
    using error_object = owner<npcache_error, npcache_error_free>;

    /** Ends a task without a result: nothing is stored, even if it was committed, and the next who waits computes. */
    static void abandon(npcache_output *todo) noexcept
    {
        npcache_output_fail(todo, "given up by an exception");
        npcache_end(todo, nullptr, nullptr);
    }
    /**
     * A task: abandoned where its scope is left without commit_and_end(). Not for the output that npcache_call lends.
     */
    using task = owner<npcache_output, abandon>;

    /**
     * Throws error if `status` is negative, else returns it. `object` is what the same call wrote to its `err`, NULL or
     * an error, which is freed. By reference, so that one expression can hold both: `check(npcache_clear(c, 0, &e),
     * e)`.
     */
    static npcache_status check(npcache_status status, npcache_error *&object)
    {
        const error_object owned(object);
        object = nullptr;
        if (status < 0) {
            const char *message = owned ? npcache_error_message(owned.get()) : npcache_status_string(status);
            throw error(status, npcache_error_function_code(owned.get()), message);
        }
        return status;
    }

    /** For functions that have no `err`: the message is npcache_status_string. */
    static npcache_status check(npcache_status status)
    {
        npcache_error *none = nullptr;
        return check(status, none);
    }

    /** npcache_function_new. */
    static function describe(const cache &in, const char *name, const char *version);

    /** The first half of a call: one of the two is set, or neither where another caller was busy all the time. */
    struct begun {
        /** The result that was found. */
        buffer hit;
        /** The result that is to be computed. */
        task todo;
    };

    /** npcache_begin. */
    static begun begin(const function &of, const npcache_args *with = nullptr, std::int64_t wait_ms = -1)
    {
        npcache_buffer *hit = nullptr;
        npcache_output *todo = nullptr;
        npcache_error *object = nullptr;
        check(npcache_begin(of.get(), with, wait_ms, &hit, &todo, &object), object);
        return {buffer(hit), task(todo)};
    }

    /**
     * npcache_output_commit and npcache_end. Where the result is not whole it throws, and the next who waits computes.
     */
    static buffer commit_and_end(task todo)
    {
        npcache_buffer *result = nullptr;
        npcache_error *object = nullptr;
        npcache_output_commit(todo.get()); // npcache_end returns its error, with a message
        check(npcache_end(todo.release(), &result, &object), object);
        return buffer(result);
    }
};

/* --------------------------------------------------------------------------------------- types of elements, layouts */

/* Not for programs: how types become arguments and results. */
namespace npcache_detail {

template <typename T> using bare = std::remove_cv_t<std::remove_reference_t<T>>;

/** NPCACHE_FLOAT64 and its like; 0 for what has none. */
template <typename T> constexpr std::int32_t dtype_of()
{
    if constexpr (std::is_same_v<T, bool>) {
        return NPCACHE_BOOL;
    } else if constexpr (std::is_integral_v<T>) {
        constexpr std::int32_t first = std::is_signed_v<T> ? NPCACHE_INT8 : NPCACHE_UINT8;
        return sizeof(T) == 1   ? first
               : sizeof(T) == 2 ? first + 1
               : sizeof(T) == 4 ? first + 2
               : sizeof(T) == 8 ? first + 3
                                : 0;
    } else if constexpr (std::is_floating_point_v<T>) {
        constexpr int digits = std::numeric_limits<T>::digits; // those of bfloat16 and of float128 are none of numpy's
        return digits == 11 ? NPCACHE_FLOAT16 : digits == 24 ? NPCACHE_FLOAT32 : digits == 53 ? NPCACHE_FLOAT64 : 0;
    } else {
        return std::is_same_v<T, std::complex<float>>    ? NPCACHE_COMPLEX64
               : std::is_same_v<T, std::complex<double>> ? NPCACHE_COMPLEX128
                                                         : 0;
    }
}

/** numpy's longdouble: 80 bits and 6 bytes that mean nothing, on x86-64. It has a descr only. */
template <typename T>
constexpr bool is_wide = std::is_same_v<T, long double> && sizeof(long double) == 16 && dtype_of<T>() == 0;
constexpr const char wide_descr[] = "<f16";
constexpr std::size_t wide_bytes = std::numeric_limits<long double>::digits == 64 ? 10 : sizeof(long double);

/** Whether T is the type of an array's elements. */
template <typename T> constexpr bool is_element = dtype_of<T>() != 0 || is_wide<T>;

template <typename T> constexpr const char *descr_of()
{
    constexpr const char *descrs[] = {wide_descr, "|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2",
                                      "<u4",      "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"};
    return descrs[dtype_of<T>()];
}

constexpr std::size_t max_dimensions = 32;

/** Where the elements of an array are. Strides in bytes. */
struct layout {
    const char *data;
    std::int32_t ndim = 0;
    std::array<std::int64_t, max_dimensions> shape{};
    std::array<std::int64_t, max_dimensions> strides{};

    explicit layout(const volatile void *at) : data(static_cast<const char *>(const_cast<const void *>(at))) {}

    template <typename Size> void add(Size size, std::int64_t stride = 0)
    {
        shape[static_cast<std::size_t>(ndim)] = static_cast<std::int64_t>(size);
        strides[static_cast<std::size_t>(ndim)] = stride;
        ++ndim;
    }

    /** The strides of an array without gaps. */
    layout &packed(std::size_t itemsize, std::uint32_t order = NPCACHE_ORDER_C)
    {
        std::int64_t stride = static_cast<std::int64_t>(itemsize);
        for (std::size_t i = 0, n = static_cast<std::size_t>(ndim); i < n; i++) {
            const std::size_t axis = order == NPCACHE_ORDER_F ? i : n - 1 - i;
            strides[axis] = stride;
            stride *= shape[axis];
        }
        return *this;
    }

    std::size_t size() const
    {
        std::int64_t product = 1;
        for (std::size_t i = 0; i < static_cast<std::size_t>(ndim); i++)
            product *= shape[i];
        return static_cast<std::size_t>(product);
    }
};

/** Calls `visit` with the place of each element, in C order. */
template <typename Visit> void each(const layout &of, const char *at, std::size_t axis, Visit &&visit)
{
    if (axis == static_cast<std::size_t>(of.ndim))
        return visit(at);
    for (std::int64_t i = 0; i < of.shape[axis]; i++)
        each(of, at + i * of.strides[axis], axis + 1, visit);
}

/* ------------------------------------------------------------------------------------ what has the form of an array */

/** Whether T has the form of an array: with `element` and a function `of` that gives the layout. */
template <typename T, typename = void> struct form : std::false_type {};

/** std::arrays within each other are dimensions, since their sizes cannot differ. */
template <typename T> struct block {
    using element = T;
    static void extend(layout &) {}
};
template <typename T, std::size_t N> struct block<std::array<T, N>> {
    using element = typename block<T>::element;
    static void extend(layout &to)
    {
        static_assert(N == 0 || sizeof(std::array<T, N>) == N * sizeof(T), "std::array has no padding");
        to.add(N);
        block<T>::extend(to);
    }
};
template <typename T> using block_element = typename block<T>::element;

template <typename T, typename Allocator>
struct form<std::vector<T, Allocator>, std::enable_if_t<is_element<block_element<T>> && !std::is_same_v<T, bool>>>
    : std::true_type {
    using element = block_element<T>;
    static layout of(const std::vector<T, Allocator> &value)
    {
        layout made(value.data());
        made.add(value.size());
        block<T>::extend(made);
        return made.packed(sizeof(element));
    }
};

template <typename T, std::size_t N>
struct form<std::array<T, N>, std::enable_if_t<is_element<block_element<T>>>> : std::true_type {
    using element = block_element<T>;
    static layout of(const std::array<T, N> &value)
    {
        layout made(value.data());
        block<std::array<T, N>>::extend(made);
        return made.packed(sizeof(element));
    }
};

#ifdef __cpp_lib_span
template <typename T, std::size_t N>
struct form<std::span<T, N>, std::enable_if_t<is_element<block_element<std::remove_cv_t<T>>>>> : std::true_type {
    using element = block_element<std::remove_cv_t<T>>;
    static layout of(const std::span<T, N> &value)
    {
        layout made(value.data());
        made.add(value.size());
        block<std::remove_cv_t<T>>::extend(made);
        return made.packed(sizeof(element));
    }
};
#endif

template <typename View> layout layout_of_view(const View &value)
{
    layout made(value.data());
    for (std::size_t i = 0; i < value.ndim(); i++)
        made.add(value.shape(i), value.stride(i));
    return made;
}
template <typename T> struct form<npcache::view<T>> : std::true_type {
    using element = std::remove_cv_t<T>;
    static layout of(const npcache::view<T> &value) { return layout_of_view(value); }
};
template <typename T> struct form<npcache::array<T>> : std::true_type {
    using element = T;
    static layout of(const npcache::array<T> &value) { return layout_of_view(value); }
};

/** A dense Eigen type itself, not one derived from it, which may have more to it: derived() tells. */
template <typename T>
using if_eigen = std::enable_if_t<
    std::is_same_v<decltype(std::declval<const T &>().derived()), const T &> && is_element<typename T::Scalar>
    && std::is_convertible_v<decltype(std::declval<const T &>().data()), const typename T::Scalar *>
    && std::is_integral_v<decltype(std::declval<const T &>().rowStride() + std::declval<const T &>().colStride())>
    && (T::IsVectorAtCompileTime || true)>;

template <typename T> struct form<T, if_eigen<T>> : std::true_type {
    using element = typename T::Scalar;
    static layout of(const T &value)
    {
        constexpr std::int64_t itemsize = sizeof(element);
        layout made(value.data());
        if constexpr (T::IsVectorAtCompileTime) {
            made.add(value.size(), itemsize * value.innerStride());
        } else {
            made.add(value.rows(), itemsize * value.rowStride());
            made.add(value.cols(), itemsize * value.colStride());
        }
        return made;
    }
};

/** std::mdspan and the reference implementation: with strides, and an accessor that reads what lies in memory. */
template <typename T>
using if_mdspan = std::enable_if_t<
    is_element<typename T::value_type> && (T::rank() <= max_dimensions) && T::is_always_strided()
    && std::is_same_v<typename T::data_handle_type, typename T::element_type *>
    && std::is_same_v<typename T::accessor_type::reference, typename T::element_type &>>;

/* A template of these four, so no type that is derived from one and has more to it. */
template <template <typename...> class Mdspan, typename E, typename Extents, typename Layout, typename Accessor>
struct form<Mdspan<E, Extents, Layout, Accessor>, if_mdspan<Mdspan<E, Extents, Layout, Accessor>>> : std::true_type {
    using element = std::remove_cv_t<E>;
    using mdspan = Mdspan<E, Extents, Layout, Accessor>;
    static layout of(const mdspan &value)
    {
        layout made(value.data_handle());
        if constexpr (mdspan::rank() > 0) // else there is no stride()
            for (std::size_t i = 0; i < mdspan::rank(); i++)
                made.add(value.extent(i),
                         static_cast<std::int64_t>(sizeof(element)) * static_cast<std::int64_t>(value.stride(i)));
        return made;
    }
};

/** Whether a function could write through a parameter of this type; a hit would write nothing. */
template <typename T, typename = void> struct writable : std::false_type {};
template <typename T> struct writable<npcache::view<T>> : std::negation<std::is_const<T>> {};
#ifdef __cpp_lib_span
template <typename T, std::size_t N> struct writable<std::span<T, N>> : std::negation<std::is_const<T>> {};
#endif
template <typename T> struct writable<T, if_mdspan<T>> : std::negation<std::is_const<typename T::element_type>> {};
template <typename T>
struct writable<T, if_eigen<T>>
    : std::bool_constant<!std::is_same_v<typename T::PlainObject, T>
                         && std::is_same_v<decltype(std::declval<T &>().data()), typename T::Scalar *>> {};

/** A std::vector<bool> as bytes. */
template <typename Allocator> struct unpacked {
    explicit unpacked(const std::vector<bool, Allocator> &bits) : bytes(bits.begin(), bits.end()), form(bytes.data())
    {
        static_assert(sizeof(bool) == 1, "numpy's bool has one byte");
        form.add(bytes.size());
        form.packed(1);
    }
    std::vector<unsigned char> bytes;
    layout form;
};

/* -------------------------------------------------------------------------------------------------------- arguments */

/** The text for a C function. `what` it is: a NUL in it would make two texts one. */
inline const char *c_text(const std::string &text, const char *what)
{
    if (text.find('\0') != std::string::npos)
        throw npcache::error(NPCACHE_ERR_ARGUMENT, 0, std::string(what) + " contains a NUL character");
    return text.c_str();
}

template <typename T> void describe_wide(npcache_args *to, const layout &at)
{
    std::vector<std::array<unsigned char, sizeof(T)>> clean; // without what the padding happens to hold
    clean.reserve(at.size());
    each(at, at.data, 0, [&](const char *element) {
        clean.emplace_back();
        clean.back().fill(0);
        std::memcpy(clean.back().data(), element, wide_bytes);
    });
    const void *elements = clean.empty() ? nullptr : clean.data();
    npcache_args_add_array_descr(to, wide_descr, at.ndim, at.shape.data(), nullptr, elements, clean.size() * sizeof(T),
                                 0);
}

template <typename T> void describe_array(npcache_args *to, const layout &at)
{
    if constexpr (is_wide<T>) {
        describe_wide<T>(to, at);
    } else {
        std::int64_t low = 0, high = sizeof(T);
        for (std::size_t i = 0; i < static_cast<std::size_t>(at.ndim); i++) {
            const std::int64_t reach = (at.shape[i] - 1) * at.strides[i];
            (reach < 0 ? low : high) += reach;
        }
        const bool empty = at.size() == 0;
        npcache_args_add_array(to, dtype_of<T>(), at.ndim, at.shape.data(), empty ? nullptr : at.strides.data(),
                               empty ? nullptr : at.data + low, empty ? 0 : static_cast<std::size_t>(high - low),
                               empty ? 0 : static_cast<std::size_t>(-low));
    }
}

/** How T is added to arguments. Statuses are not looked at: npcache_begin returns the first error. */
template <typename T, typename = void> struct built_in : std::false_type {};

template <typename T, typename = void> struct customised : std::false_type {};
template <typename T>
struct customised<T, std::void_t<decltype(npcache::describe_as<T>()(std::declval<const T &>()))>> : std::true_type {
    using type = bare<decltype(npcache::describe_as<T>()(std::declval<const T &>()))>;
};

template <typename T> struct by_its_author;
template <typename T> struct description : std::conditional_t<customised<T>::value, by_its_author<T>, built_in<T>> {};

template <typename T> struct by_its_author : description<typename customised<T>::type> {
    static void add(npcache_args *to, const T &value)
    {
        description<typename customised<T>::type>::add(to, npcache::describe_as<T>()(value));
    }
};

/** Whether an argument of type T can be the one that stands for none. */
template <typename T, typename = void> struct nullable : std::false_type {};
template <typename T>
struct nullable<T, std::enable_if_t<customised<T>::value>> : nullable<typename customised<T>::type> {};
template <> struct nullable<std::nullopt_t> : std::true_type {};
template <typename T> struct nullable<std::optional<T>> : std::true_type {};

template <typename T> struct built_in<T, std::enable_if_t<is_element<T>>> : std::true_type {
    static void add(npcache_args *to, const T &value)
    {
        if constexpr (std::is_same_v<T, bool>)
            npcache_args_add_bool(to, value);
        else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>)
            npcache_args_add_int(to, value);
        else if constexpr (std::is_integral_v<T>)
            npcache_args_add_uint(to, value);
        else if constexpr (is_wide<T>)
            describe_wide<T>(to, layout(&value));
        else
            npcache_args_add_scalar(to, dtype_of<T>(), &value);
    }
};

template <typename T> struct built_in<T, std::enable_if_t<std::is_enum_v<T>>> : built_in<std::underlying_type_t<T>> {
    static void add(npcache_args *to, T value)
    {
        using number = std::underlying_type_t<T>;
        using integer = std::conditional_t<std::is_same_v<number, bool>, int, number>;
        built_in<integer>::add(to, static_cast<integer>(value));
    }
};

template <> struct built_in<std::string_view> : std::true_type {
    static void add(npcache_args *to, std::string_view value)
    {
        npcache_args_add_string(to, value.data(), value.size());
    }
};
template <typename Allocator>
struct built_in<std::basic_string<char, std::char_traits<char>, Allocator>> : built_in<std::string_view> {};
template <> struct built_in<const char *> : std::true_type {
    static void add(npcache_args *to, const char *value)
    {
        if (!value)
            throw npcache::error(NPCACHE_ERR_ARGUMENT, 0,
                                 "an argument of type const char * is NULL: take std::optional");
        npcache_args_add_string(to, value, std::strlen(value));
    }
};

template <typename T> struct built_in<T, std::enable_if_t<form<T>::value>> : std::true_type {
    static void add(npcache_args *to, const T &value)
    {
        describe_array<typename form<T>::element>(to, form<T>::of(value));
    }
};
template <typename Allocator> struct built_in<std::vector<bool, Allocator>> : std::true_type {
    static void add(npcache_args *to, const std::vector<bool, Allocator> &value)
    {
        describe_array<bool>(to, unpacked<Allocator>(value).form);
    }
};

template <typename T> struct bytes : std::true_type {
    static void add(npcache_args *to, const T &value) { npcache_args_add_bytes(to, value.data(), value.size()); }
};
template <typename Allocator>
struct built_in<std::vector<std::byte, Allocator>> : bytes<std::vector<std::byte, Allocator>> {};
template <std::size_t N> struct built_in<std::array<std::byte, N>> : bytes<std::array<std::byte, N>> {};
#ifdef __cpp_lib_span
template <std::size_t N> struct built_in<std::span<const std::byte, N>> : bytes<std::span<const std::byte, N>> {};
#endif

template <typename T> struct list : description<typename T::value_type> {
    static void add(npcache_args *to, const T &values)
    {
        npcache_args_begin_list(to);
        for (const auto &value : values)
            description<typename T::value_type>::add(to, value);
        npcache_args_end(to);
    }
};
template <typename T>
constexpr bool is_item = !is_element<block_element<T>> && !std::is_same_v<T, std::byte> && description<T>::value;
template <typename T, typename Allocator>
struct built_in<std::vector<T, Allocator>, std::enable_if_t<is_item<T>>> : list<std::vector<T, Allocator>> {};
template <typename T, std::size_t N>
struct built_in<std::array<T, N>, std::enable_if_t<is_item<T>>> : list<std::array<T, N>> {};

template <typename T, typename... Ts> struct row : std::conjunction<description<bare<Ts>>...> {
    static void add(npcache_args *to, const T &value)
    {
        npcache_args_begin_list(to);
        std::apply([to](const auto &...item) { (description<bare<Ts>>::add(to, item), ...); }, value);
        static_cast<void>(to); // used by nothing in a tuple of nothing
        npcache_args_end(to);
    }
};
template <typename... Ts> struct built_in<std::tuple<Ts...>> : row<std::tuple<Ts...>, Ts...> {};
template <typename A, typename B> struct built_in<std::pair<A, B>> : row<std::pair<A, B>, A, B> {};

template <> struct built_in<std::nullopt_t> : std::true_type {
    static void add(npcache_args *to, std::nullopt_t) { npcache_args_add_null(to); }
};
/** Not of what is none already: std::nullopt, and an optional that holds it, would be one argument. */
template <typename T> struct built_in<std::optional<T>, std::enable_if_t<!nullable<T>::value>> : description<T> {
    static void add(npcache_args *to, const std::optional<T> &value)
    {
        if (value)
            description<T>::add(to, *value);
        else
            npcache_args_add_null(to);
    }
};

template <typename T> struct dictionary : description<typename T::mapped_type> {
    static void add(npcache_args *to, const T &values)
    {
        npcache_args_begin_map(to);
        for (const auto &[name, value] : values) {
            npcache_args_key(to, c_text(std::string(name), "a key"));
            description<typename T::mapped_type>::add(to, value);
        }
        npcache_args_end(to);
    }
};
template <typename T>
using if_text = std::enable_if_t<std::is_same_v<T, std::string> || std::is_same_v<T, std::string_view>>;
template <typename K, typename V, typename... More>
struct built_in<std::map<K, V, More...>, if_text<K>> : dictionary<std::map<K, V, More...>> {};
template <typename K, typename V, typename... More>
struct built_in<std::unordered_map<K, V, More...>, if_text<K>> : dictionary<std::unordered_map<K, V, More...>> {};

/*
 * What does not compile does so here: a failed assertion says what to write, and its template argument what of. `auto`,
 * so that the compiler comes here at once, and still knows the line that it came from.
 */

template <typename T> auto must_describe()
{
    static_assert(!std::is_pointer_v<T> || description<T>::value,
                  "npcache: a pointer is no argument, since it does not say how much it points to: take a std::span of "
                  "const elements, a std::vector, or a reference to const.");
    static_assert(
        std::is_pointer_v<T> || description<T>::value,
        "npcache: nothing describes this type, so it cannot be part of a key. Write, in the global namespace: "
        "template <> struct npcache::describe_as<Type> { auto operator()(const Type &value) const { return "
        "std::tie(value.member, value.other_member); } };");
}

} // namespace npcache_detail

/** An argument that is a file: what counts is its contents, read at every call, not its path. */
struct npcache::file {
    /** As for open(): relative to the working directory. */
    std::string path;
};
template <> struct npcache_detail::built_in<npcache::file> : std::true_type {
    static void add(npcache_args *to, const npcache::file &value)
    {
        npcache_args_add_file(to, c_text(value.path, "a path"));
    }
};

/** What fields() makes. */
template <typename... Parts> struct npcache::fields_of {
    /** Names and values in turn; references to what was no temporary. */
    std::tuple<Parts...> parts;
};
template <typename... Parts> npcache::fields_of<Parts...> npcache::fields(Parts &&...names_and_values)
{
    static_assert(sizeof...(Parts) % 2 == 0, "npcache::fields takes names and values in turn");
    return {std::tuple<Parts...>(std::forward<Parts>(names_and_values)...)};
}
template <typename... Parts> struct npcache_detail::built_in<npcache::fields_of<Parts...>> {
    using indices = std::make_index_sequence<sizeof...(Parts) / 2>;
    template <std::size_t I> using value_type = std::decay_t<std::tuple_element_t<2 * I + 1, std::tuple<Parts...>>>;

    template <std::size_t... I> static constexpr bool all_described(std::index_sequence<I...>)
    {
        return (description<value_type<I>>::value && ...);
    }
    template <std::size_t... I>
    static void add_all(npcache_args *to, const npcache::fields_of<Parts...> &fields, std::index_sequence<I...>)
    {
        ((npcache_args_key(to, c_text(std::get<2 * I>(fields.parts), "a field's name")),
          description<value_type<I>>::add(to, std::get<2 * I + 1>(fields.parts))),
         ...);
        static_cast<void>(to), static_cast<void>(fields); // used by nothing where there are none
    }

    static constexpr bool value = all_described(indices());
    static void add(npcache_args *to, const npcache::fields_of<Parts...> &fields)
    {
        npcache_args_begin_map(to);
        add_all(to, fields, indices());
        npcache_args_end(to);
    }
};

/** The arguments of a call; for one thread at a time. Errors, such as text that is not UTF-8, are those of the call. */
class npcache::arguments {
  public:
    arguments() : owned_(npcache_args_new())
    {
        if (!owned_)
            throw std::bad_alloc();
    }
    /** Adds the next argument by position, or the value of the key before. */
    template <typename T> arguments &add(const T &value)
    {
        if constexpr (npcache_detail::description<T>::value)
            npcache_detail::description<T>::add(owned_.get(), value);
        else
            npcache_detail::must_describe<T>();
        return *this;
    }
    /** Text, in UTF-8. */
    arguments &add(const char *text) { return add<const char *>(text); }
    /** npcache_args_add_digest. */
    arguments &add(const digest &value)
    {
        npcache_args_add_digest(owned_.get(), value.get());
        return *this;
    }
    /** Names the next value: a keyword argument. */
    arguments &key(const std::string &name)
    {
        npcache_args_key(owned_.get(), npcache_detail::c_text(name, "a keyword"));
        return *this;
    }
    /** For the C functions. */
    npcache_args *get() const noexcept { return owned_.get(); }

  private:
    owner<npcache_args, npcache_args_free> owned_;
};

/* ---------------------------------------------------------------------------------------------------------- results */

/** The sizes of an array, outermost first: `{rows, cols}`, of integers of any type. */
class npcache::shape {
  public:
    /** Without sizes: an array of one element, without dimensions. */
    template <typename... Sizes, typename = std::enable_if_t<(std::is_integral_v<Sizes> && ...)>>
    shape(Sizes... sizes) : size_(sizeof...(Sizes)), sizes_{static_cast<std::int64_t>(sizes)...}
    {
        static_assert(sizeof...(Sizes) <= npcache_detail::max_dimensions, "npcache: at most 32 dimensions");
    }
    /** NPCACHE_ERR_ARGUMENT: `count` is over 32. */
    shape(const std::int64_t *sizes, std::size_t count) : size_(count), sizes_{}
    {
        if (count > npcache_detail::max_dimensions)
            throw error(NPCACHE_ERR_ARGUMENT, 0, "an array has at most 32 dimensions");
        for (std::size_t i = 0; i < count; i++)
            sizes_[i] = sizes[i];
    }

    /** How many dimensions there are. */
    std::size_t size() const noexcept { return size_; }
    /** The size along one of them, which is not checked. */
    std::int64_t operator[](std::size_t axis) const { return sizes_[axis]; }
    /** The sizes, one after the other. */
    const std::int64_t *data() const noexcept { return sizes_.data(); }
    /** The first size. */
    const std::int64_t *begin() const noexcept { return data(); }
    /** Behind the last size. */
    const std::int64_t *end() const noexcept { return data() + size_; }
    /** Whether they have as many dimensions, of the same sizes. */
    friend bool operator==(const shape &a, const shape &b) { return a.size_ == b.size_ && a.sizes_ == b.sizes_; }
    /** Whether they have not. */
    friend bool operator!=(const shape &a, const shape &b) { return !(a == b); }

  private:
    std::size_t size_;
    std::array<std::int64_t, npcache_detail::max_dimensions> sizes_; // zero behind size_
};

/**
 * The elements of an array without gaps, in C or Fortran order, that something else owns. Begin to end, and [], go in
 * the order of memory; () and at() take as many indices as there are dimensions.
 */
template <typename T> class npcache::view {
  public:
    /** An element, const if it cannot be written to. */
    using element_type = T;
    /** A copy of an element. */
    using value_type = std::remove_cv_t<T>;
    /** In the order of memory. */
    using iterator = T *;
    /** In the order of memory. */
    using const_iterator = const T *;

    /** The element with all indices 0: no element lies before it. */
    T *data() const noexcept { return data_; }
    /** How many elements there are. */
    std::size_t size() const noexcept { return size_; }
    /** Whether there are none. */
    bool empty() const noexcept { return size_ == 0; }
    /** How many dimensions there are. */
    std::size_t ndim() const noexcept { return ndim_; }
    /** The sizes along them, outermost first. */
    npcache::shape shape() const { return {shape_, ndim_}; }
    /** The size along one of them, which is not checked. */
    std::int64_t shape(std::size_t axis) const { return shape_[axis]; }
    /** In bytes, as in npcache.h and numpy. */
    npcache::shape strides() const { return {strides_, ndim_}; }
    /** In bytes, along one dimension, which is not checked. */
    std::int64_t stride(std::size_t axis) const { return strides_[axis]; }

    /** The first element in memory. */
    T *begin() const noexcept { return data_; }
    /** Behind the last one. */
    T *end() const noexcept { return data_ + size_; }
    /** The `i`th element in memory, which is not checked. */
    T &operator[](std::size_t i) const { return data_[i]; }

    /** The element with these indices, which are not checked. */
    template <typename... Indices> T &operator()(Indices... indices) const
    {
        static_assert((std::is_integral_v<Indices> && ...), "npcache: indices are integers");
        assert(sizeof...(Indices) == ndim_);
        const std::int64_t *stride = strides_;
        std::int64_t bytes = 0;
        ((bytes += static_cast<std::int64_t>(indices) * *stride++), ...);
        static_cast<void>(stride);
        return data_[bytes / static_cast<std::int64_t>(sizeof(T))];
    }

    /** The element with these indices. std::out_of_range: there is none. */
    template <typename... Indices> T &at(Indices... indices) const
    {
        const npcache::shape wanted(indices...);
        bool inside = wanted.size() == ndim_;
        for (std::size_t i = 0; inside && i < ndim_; i++)
            inside = wanted[i] >= 0 && wanted[i] < shape_[i];
        if (!inside)
            throw std::out_of_range("npcache: no element of the array has these indices");
        return (*this)(indices...);
    }

  protected:
    friend class npcache::output;
    /** Of no elements. */
    view() = default;
    /** Borrows all three. */
    view(T *data, std::size_t size, std::size_t ndim, const std::int64_t *shape, const std::int64_t *strides)
        : data_(data), size_(size), ndim_(ndim), shape_(shape), strides_(strides)
    {
    }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t ndim_ = 0;
    const std::int64_t *shape_ = nullptr;
    const std::int64_t *strides_ = nullptr;
};

/** All arrays of one result, of whatever types. Read-only; copying it copies a reference. */
class npcache::result {
  public:
    /** Takes over what npcache_end or npcache_begin gave. */
    explicit result(buffer owned) : owned_(std::move(owned)) {}
    /** Another reference to the same arrays. */
    result(const result &other) noexcept : owned_(npcache_buffer_retain(other.get())) {}
    /** The reference itself: the other has no arrays then, and is not to be asked for any. */
    result(result &&) = default;
    /** Another reference in place of this one. */
    result &operator=(result other) noexcept
    {
        owned_.swap(other.owned_);
        return *this;
    }
    ~result() = default;

    /** How many arrays there are. */
    std::int32_t count() const noexcept { return npcache_buffer_count(get()); }
    /** The `i`th array. NPCACHE_ERR_DTYPE: its elements are of another type; NPCACHE_ERR_ARGUMENT: there is none. */
    template <typename T> npcache::array<T> array(std::int32_t i = 0) const { return npcache::array<T>(*this, i); }
    /** The array of that name; where there is none, of that name and a kind: "tolerance" is Python's `tolerance:float`. */
    template <typename T> npcache::array<T> array(const std::string &name) const
    {
        std::int32_t of_a_kind = -1;
        for (std::int32_t i = 0; i < count(); i++) {
            const char *given = view(i).name;
            const std::string_view found = given ? given : "";
            if (given && found == name)
                return npcache::array<T>(*this, i);
            if (found.substr(0, found.find(':')) == name)
                of_a_kind = i;
        }
        if (of_a_kind >= 0)
            return npcache::array<T>(*this, of_a_kind);
        throw error(NPCACHE_ERR_ARGUMENT, 0, "the result has no array \"" + name + "\"");
    }

    /** NPCACHE_ORIGIN_COMPUTED, _MEMORY, _DISK or _SHARED. */
    std::int32_t origin() const noexcept { return npcache_buffer_origin(get()); }
    /** 0 if the cache has it, or why not: an NPCACHE_UNSTORED status. */
    npcache_status stored() const noexcept { return npcache_buffer_stored(get()); }
    /** Its file, NULL where it is not stored. It may be removed at any time. */
    const char *path() const noexcept { return npcache_buffer_path(get()); }
    /** How long computing it took. */
    double seconds() const noexcept { return npcache_buffer_seconds(get()); }
    /** For the C functions. */
    const npcache_buffer *get() const noexcept { return owned_.get(); }

    /** npcache_buffer_view. NPCACHE_ERR_ARGUMENT: there is no `i`th array. */
    npcache_view view(std::int32_t i) const
    {
        npcache_view found;
        if (npcache_buffer_view(get(), i, &found, sizeof found) != NPCACHE_OK)
            throw error(NPCACHE_ERR_ARGUMENT, 0, "the result has no array " + std::to_string(i) + where());
        return found;
    }
    /** What messages say of it. */
    std::string where() const { return path() ? std::string(": ") + path() : std::string(); }

  private:
    buffer owned_;
};

/**
 * One array of a result, of elements of type T. Read-only: to change it, copy it, `std::vector<double> mine = result`.
 * It outlives the cache, a clear, and its file; copying it copies a reference. Can be read by many threads.
 */
template <typename T> class npcache::array : public npcache::view<const T> {
    static_assert(npcache_detail::is_element<T>,
                  "npcache: arrays hold bool, integers, floating-point or complex numbers");

  public:
    /** A copy of an element. */
    using value_type = T;

    /** NPCACHE_ERR_DTYPE: the elements are of another type; they are never converted. */
    explicit array(const result &whole, std::int32_t i = 0) : array(whole, whole.view(i), i) {}
    /** Another reference. A moved array is a copied one, so that its old place never points to what is gone. */
    array(const array &) = default;
    /** Another reference in place of this one. */
    array &operator=(const array &) = default;

    /** A copy, in the order of memory. */
    operator std::vector<T>() const { return std::vector<T>(this->begin(), this->end()); }

    /**
     * As an Eigen type: `as<Eigen::Map<const Eigen::MatrixXd>>()` without a copy, valid as long as this array, or
     * `as<Eigen::MatrixXd>()`, a copy.
     *
     * NPCACHE_ERR_ARGUMENT: it has not one dimension for a vector, or two for a matrix, or for a map not the order (C
     * order needs Eigen::RowMajor) or size.
     */
    template <typename Eigenish> Eigenish as() const;

    /** NPCACHE_ORIGIN_COMPUTED, _MEMORY, _DISK or _SHARED. */
    std::int32_t origin() const noexcept { return whole_.origin(); }
    /** 0 if the cache has it, or why not: an NPCACHE_UNSTORED status. */
    npcache_status stored() const noexcept { return whole_.stored(); }
    /** Its file, NULL where it is not stored. It may be removed at any time. */
    const char *path() const noexcept { return whole_.path(); }
    /** How long computing it took. */
    double seconds() const noexcept { return whole_.seconds(); }
    /** For the C functions. */
    const npcache_buffer *get() const noexcept { return whole_.get(); }

  private:
    array(const result &whole, const npcache_view &found, std::int32_t i)
        : npcache::view<const T>(static_cast<const T *>(found.data), found.nbytes / sizeof(T),
                                 static_cast<std::size_t>(found.ndim), found.shape, found.strides),
          whole_(whole)
    {
        const char *wanted = npcache_detail::descr_of<T>();
        if (std::strcmp(found.descr, wanted) != 0)
            throw error(NPCACHE_ERR_DTYPE, 0,
                        "array " + std::to_string(i) + " of the result holds " + found.descr + " and not " + wanted
                            + ", so another function stored it under this name and version" + whole.where());
    }

    result whole_;
};

template <typename T> template <typename Eigenish> Eigenish npcache::array<T>::as() const
{
    constexpr bool copies = std::is_same_v<typename Eigenish::PlainObject, Eigenish>;
    constexpr std::size_t dimensions = Eigenish::IsVectorAtCompileTime ? 1 : 2;
    static_assert(std::is_same_v<typename Eigenish::Scalar, T>,
                  "npcache: Eigen's scalar is not the array's element type");
    // In one row or column the order does not matter, nor does it without elements.
    const std::size_t outer = Eigenish::IsRowMajor ? 0 : 1;
    const bool ordered = copies || dimensions == 1 || this->ndim() != 2 || this->empty() || this->shape(0) == 1
                         || this->shape(1) == 1 || this->stride(outer) > this->stride(1 - outer);
    if (this->ndim() != dimensions || !ordered)
        throw error(NPCACHE_ERR_ARGUMENT, 0,
                    this->ndim() != dimensions
                        ? "the array has another number of dimensions than the Eigen type"
                        : "the array lies in another order than the Eigen type: use Eigen::RowMajor "
                          "for C order, or copy, as<Eigen::Matrix<...>>()");
    using index = decltype(std::declval<Eigenish>().rows());
    const auto fits = [](index fixed, std::int64_t size) { return fixed < 0 || fixed == static_cast<index>(size); };
    const std::int64_t first = this->shape(0), second = dimensions == 2 ? this->shape(1) : 1;
    if (dimensions == 1 ? !fits(Eigenish::SizeAtCompileTime, first)
                        : !fits(Eigenish::RowsAtCompileTime, first) || !fits(Eigenish::ColsAtCompileTime, second))
        throw error(NPCACHE_ERR_ARGUMENT, 0, "the array has another size than the Eigen type");
    if constexpr (!copies && dimensions == 1) {
        return Eigenish(this->data(), static_cast<index>(first));
    } else if constexpr (!copies) {
        return Eigenish(this->data(), static_cast<index>(first), static_cast<index>(second));
    } else if constexpr (dimensions == 1) {
        Eigenish made;
        made.resize(static_cast<index>(first));
        for (std::int64_t i = 0; i < first; i++)
            made(static_cast<index>(i)) = (*this)(i);
        return made;
    } else {
        Eigenish made;
        made.resize(static_cast<index>(first), static_cast<index>(second));
        for (std::int64_t j = 0; j < second; j++)
            for (std::int64_t i = 0; i < first; i++)
                made(static_cast<index>(i), static_cast<index>(j)) = (*this)(i, j);
        return made;
    }
}

/** A result under construction, which a function takes as its first parameter to compute its arrays in place. */
class npcache::output {
  public:
    /** Borrows `todo`. */
    explicit output(npcache_output *todo) : todo_(todo) {}
    output(const output &) = delete;
    output &operator=(const output &) = delete;

    /**
     * Adds an array, zeroed and aligned to 64 bytes, and returns it to be filled: `alloc<double>({rows, cols})`. It is
     * valid until the function returns. `order`: NPCACHE_ORDER_C or NPCACHE_ORDER_F. `name`: NULL for none.
     */
    template <typename T>
    npcache::view<T> alloc(const shape &sizes, std::uint32_t order = NPCACHE_ORDER_C, const char *name = nullptr)
    {
        static_assert(npcache_detail::is_element<T>,
                      "npcache: arrays hold bool, integers, floating-point or complex numbers");
        const std::int32_t ndim = static_cast<std::int32_t>(sizes.size());
        void *memory = nullptr;
        if constexpr (npcache_detail::is_wide<T>)
            memory = npcache_output_alloc_descr(todo_, name, npcache_detail::wide_descr, ndim, sizes.data(), order);
        else
            memory = npcache_output_alloc(todo_, name, npcache_detail::dtype_of<T>(), ndim, sizes.data(), order);
        if (!memory)
            failed("npcache::output::alloc");
        layouts_.emplace_back(memory);
        npcache_detail::layout &made = layouts_.back();
        for (const std::int64_t size : sizes)
            made.add(size);
        made.packed(sizeof(T), order);
        return {static_cast<T *>(memory), made.size(), sizes.size(), made.shape.data(), made.strides.data()};
    }

    /** Adds a copy of an array: a std::vector, an Eigen matrix, and whatever else a function can return. */
    template <typename T> void write(const T &value, const char *name = nullptr);

    /** npcache_output_note: a fact about this run for the stored file, no part of the key. */
    void note(const std::string &name, const std::string &value)
    {
        using npcache_detail::c_text;
        npcache_output_note(todo_, c_text(name, "a note's name"), c_text(value, "a note"));
    }

    /** How many arrays it has by alloc and write. */
    std::size_t count() const noexcept { return layouts_.size(); }
    /** Where the `i`th of them is; NULL for a copy. */
    const void *data(std::size_t i) const
    {
        auto at = layouts_.begin();
        std::advance(at, static_cast<std::ptrdiff_t>(i));
        return at->data;
    }
    /** For the C functions. */
    npcache_output *get() const noexcept { return todo_; }

  private:
    [[noreturn]] void failed(const char *operation) const
    {
        const npcache_status why = npcache_output_commit(todo_); // the first error
        throw error(why, 0, std::string(operation) + ": " + npcache_status_string(why));
    }

    npcache_output *todo_;
    std::list<npcache_detail::layout> layouts_; // views point into them
};

/* ---------------------------------------------------------------------------------------- what functions can return */

namespace npcache_detail {

/** How a value is kept as arrays of a result, `arrays` of them, and what a call returns for it. */
template <typename T, typename = void> struct returned : std::false_type {};

template <typename T> void write_layout(npcache_output *to, const char *name, const layout &from)
{
    if constexpr (is_wide<T>) { // npcache_output_write knows no descr
        void *memory = npcache_output_alloc_descr(to, name, wide_descr, from.ndim, from.shape.data(), NPCACHE_ORDER_C);
        char *next = static_cast<char *>(memory);
        each(from, from.data, 0, [&](const char *element) {
            if (next)
                std::memcpy(next, element, wide_bytes), next += sizeof(T);
        });
    } else {
        npcache_output_write(to, name, dtype_of<T>(), from.ndim, from.shape.data(), from.strides.data(), from.data);
    }
}

struct one_array : std::true_type {
    static constexpr std::size_t arrays = 1;
};

template <typename T> struct returned<T, std::enable_if_t<is_element<T>>> : one_array {
    using loaded = T;
    static void write(npcache_output *to, const char *name, const T &value)
    {
        write_layout<T>(to, name, layout(&value));
    }
    static T load(const npcache::result &from, std::size_t i)
    {
        const npcache::array<T> found(from, static_cast<std::int32_t>(i));
        if (found.ndim() != 0)
            throw npcache::error(NPCACHE_ERR_DTYPE, 0, "the result is an array and not a number" + from.where());
        return *found.data();
    }
};

template <typename T> struct load_array : one_array {
    using loaded = npcache::array<T>;
    static loaded load(const npcache::result &from, std::size_t i)
    {
        return loaded(from, static_cast<std::int32_t>(i));
    }
};
template <typename T> struct returned<T, std::enable_if_t<form<T>::value>> : load_array<typename form<T>::element> {
    static void write(npcache_output *to, const char *name, const T &value)
    {
        write_layout<typename form<T>::element>(to, name, form<T>::of(value));
    }
};
template <typename Allocator> struct returned<std::vector<bool, Allocator>> : load_array<bool> {
    static void write(npcache_output *to, const char *name, const std::vector<bool, Allocator> &value)
    {
        write_layout<bool>(to, name, unpacked<Allocator>(value).form);
    }
};

/** Keeps what a function returned as the `i`th array. `name`: its number in a tuple. */
template <typename T> void keep(npcache::output &to, std::size_t i, const T &value, const char *name = nullptr)
{
    if (to.count() != i)
        throw npcache::error(NPCACHE_ERR_ARGUMENT, 0,
                             "a function that computes in place returns all its arrays, in their order");
    to.write(value, name);
}
template <typename T>
void keep(npcache::output &to, std::size_t i, const npcache::view<T> &value, const char * = nullptr)
{
    if (to.count() <= i || to.data(i) != value.data())
        throw npcache::error(NPCACHE_ERR_ARGUMENT, 0,
                             "a function that computes in place returns all its arrays, in their order");
}

template <typename T, template <typename...> class Tuple, typename... Ts>
struct returned_tuple : std::conjunction<std::bool_constant<sizeof...(Ts) != 0>, returned<bare<Ts>>...> {
    using loaded = Tuple<typename returned<bare<Ts>>::loaded...>;
    static constexpr std::size_t arrays = sizeof...(Ts);

    template <std::size_t... I> static void keep_all(npcache::output &to, const T &value, std::index_sequence<I...>)
    {
        (keep(to, I, std::get<I>(value), std::to_string(I).c_str()), ...);
    }
    template <std::size_t... I> static loaded load_all(const npcache::result &from, std::index_sequence<I...>)
    {
        return loaded(returned<bare<Ts>>::load(from, I)...);
    }
    static loaded load(const npcache::result &from, std::size_t)
    {
        return load_all(from, std::index_sequence_for<Ts...>());
    }
};
/** Tuples of arrays; a tuple within a tuple would have nothing to tell it in the file. */
template <typename T> struct is_tuple : std::false_type {};
template <typename... Ts> struct is_tuple<std::tuple<Ts...>> : std::true_type {};
template <typename A, typename B> struct is_tuple<std::pair<A, B>> : std::true_type {};
template <typename... Ts>
struct returned<std::tuple<Ts...>,
                std::enable_if_t<(returned<bare<Ts>>::value && ...) && !(is_tuple<bare<Ts>>::value || ...)>>
    : returned_tuple<std::tuple<Ts...>, std::tuple, Ts...> {};
template <typename A, typename B>
struct returned<std::pair<A, B>, std::enable_if_t<returned<bare<A>>::value && returned<bare<B>>::value
                                                  && !is_tuple<bare<A>>::value && !is_tuple<bare<B>>::value>>
    : returned_tuple<std::pair<A, B>, std::pair, A, B> {};

template <typename T> void keep_result(npcache::output &to, const T &value)
{
    if constexpr (is_tuple<T>::value)
        returned<T>::keep_all(to, value, std::make_index_sequence<returned<T>::arrays>());
    else
        keep(to, 0, value);
    if (to.count() != returned<T>::arrays)
        throw npcache::error(NPCACHE_ERR_ARGUMENT, 0,
                             "a function that computes in place returns all its arrays, in their order");
}

/** What a call returns. */
template <typename T> struct from_cache {
    using type = typename returned<T>::loaded;
    static type load(npcache::result from)
    {
        const std::int32_t wanted = static_cast<std::int32_t>(returned<T>::arrays);
        if (from.count() != wanted)
            throw npcache::error(NPCACHE_ERR_DTYPE, 0,
                                 "the result has " + std::to_string(from.count()) + " arrays and not "
                                     + std::to_string(wanted)
                                     + ", so another function stored it under this name and version" + from.where());
        return returned<T>::load(from, 0);
    }
};
template <> struct from_cache<void> {
    using type = npcache::result;
    static type load(npcache::result from) { return from; }
};

/* ------------------------------------------------------------------------------------------------------- signatures */

/** The type of a function object: R(Parameters...), or void for what is overloaded or a template. */
template <typename Function, typename = void> struct signature {
    using type = void;
};
template <typename Function>
struct signature<Function, std::void_t<decltype(&Function::operator())>>
    : signature<decltype(&Function::operator())> {};
template <typename R, typename... P> struct signature<R (*)(P...)> {
    using type = R(P...);
};
template <typename R, typename... P> struct signature<R (*)(P...) noexcept> : signature<R (*)(P...)> {};
template <typename C, typename R, typename... P> struct signature<R (C::*)(P...) const> : signature<R (*)(P...)> {};
template <typename C, typename R, typename... P>
struct signature<R (C::*)(P...) const noexcept> : signature<R (*)(P...)> {};
template <typename C, typename R, typename... P> struct signature<R (C::*)(P...) const &> : signature<R (*)(P...)> {};
template <typename C, typename R, typename... P>
struct signature<R (C::*)(P...) const &noexcept> : signature<R (*)(P...)> {};
/** One that changes itself when it is called. */
struct changing;
template <typename C, typename R, typename... P> struct signature<R (C::*)(P...)> {
    using type = changing;
};
template <typename C, typename R, typename... P>
struct signature<R (C::*)(P...) noexcept> : signature<R (C::*)(P...)> {};

/** A signature without the output of a function that computes in place. */
template <typename Signature> struct call_of;
template <typename R, typename... P> struct call_of<R(P...)> {
    static constexpr bool in_place = false;
    using type = bare<R>(P...);
};
template <typename R, typename... P> struct call_of<R(npcache::output &, P...)> {
    static constexpr bool in_place = true;
    using type = bare<R>(P...);
};

template <typename P>
constexpr bool only_read = (!std::is_lvalue_reference_v<P> || std::is_const_v<std::remove_reference_t<P>>)
                           && !writable<bare<P>>::value;
template <typename P> auto must_only_read()
{
    static_assert(
        only_read<P>,
        "npcache: the function could write to this parameter, and nothing would be written when its result is "
        "found: take it by value, by reference to const, or as a view of const elements (std::span<const "
        "double>, Eigen::Ref<const Eigen::MatrixXd>), and return what is computed. A function that computes in "
        "place has npcache::output & as its first parameter.");
}

template <typename R, bool InPlace>
constexpr bool are_arrays = std::disjunction_v<std::bool_constant<InPlace && std::is_void_v<R>>, returned<R>>;
template <typename R, bool InPlace> auto must_be_arrays()
{
    static_assert(
        are_arrays<R, InPlace>,
        "npcache: a function returns a number, a std::vector or std::array of numbers, an Eigen matrix (of an "
        "expression, its .eval()), an npcache::array, or a std::tuple of these; or it has npcache::output & as "
        "its first parameter, and returns nothing or the views that it allocated.");
}

template <typename Function> constexpr bool has_no_state = std::is_pointer_v<Function> || std::is_empty_v<Function>;
template <typename Function> auto must_have_no_state()
{
    static_assert(has_no_state<Function>,
                  "npcache: this function object has captures or members, which are no part of the key. Pass them as "
                  "arguments, or memoize npcache::captures(function, what, of, them, counts).");
}

/** Whether a function of this signature can be memoized; says() says why not. */
template <typename Function, bool Captures, typename Signature> struct acceptable : std::false_type {
    static auto says()
    {
        static_assert(!std::is_void_v<Signature>,
                      "npcache: the parameters of an overloaded function or a generic lambda are not known: say them, "
                      "cache.memoize<double(double, int)>(\"name\", \"1\", function).");
        static_assert(
            std::is_void_v<Signature>,
            "npcache: a function that changes itself when it is called (a mutable lambda) cannot be memoized, "
            "since it returns another result each time.");
    }
};
template <typename Call, bool InPlace> struct acceptable_call;
template <typename R, typename... P, bool InPlace> struct acceptable_call<R(P...), InPlace> {
    static constexpr bool value =
        (only_read<P> && ...) && (description<bare<P>>::value && ...) && are_arrays<R, InPlace>;
    static auto says()
    {
        (must_only_read<P>(), ...);
        (must_describe<bare<P>>(), ...);
        must_be_arrays<R, InPlace>();
    }
};
template <typename Function, bool Captures, typename R, typename... P> struct acceptable<Function, Captures, R(P...)> {
    using call = acceptable_call<typename call_of<R(P...)>::type, call_of<R(P...)>::in_place>;
    static constexpr bool value = (Captures || has_no_state<Function>) && call::value;
    static auto says()
    {
        if constexpr (!Captures)
            must_have_no_state<Function>();
        call::says();
    }
};

struct deduced;

/** In the program or library whose code takes its address, as each has its own. */
__attribute__((visibility("hidden"))) inline void here() {}

} // namespace npcache_detail

template <typename T> void npcache::output::write(const T &value, const char *name)
{
    if constexpr (npcache_detail::are_arrays<T, false>)
        npcache_detail::returned<T>::write(todo_, name, value); // npcache_end returns its error
    else
        npcache_detail::must_be_arrays<T, false>();
    layouts_.emplace_back(nullptr);
}

/** What captures() makes. */
template <typename Function, typename... Values> struct npcache::captured {
    /** The function object. */
    Function function;
    /** What of it counts. */
    std::tuple<Values...> values;
};
template <typename Function, typename... Values>
npcache::captured<Function, Values...> npcache::captures(Function function, Values... values)
{
    return {std::move(function), std::tuple<Values...>(std::move(values)...)};
}

/* ---------------------------------------------------------------------------------------------------------- calling */

/**
 * A function whose calls are cached, from cache::memoize. It can be copied, outlives its cache, and can be called by
 * many threads, as far as the function itself can. Its arguments are converted to the function's parameter types and
 * then hashed: so f(1) and f(1.0) are one call of a function of a double.
 *
 * A call blocks while the function runs, here or, for as long as the option lock_timeout says, in another thread or
 * process that was asked the same. What the function throws passes through; nothing is stored then, and the next who
 * waits computes. What it can throw itself is npcache::error: NPCACHE_ERR_DTYPE where the result found is of another
 * type, NPCACHE_ERR_ARGUMENT for text that is not UTF-8, NPCACHE_ERR_IO for an npcache::file that cannot be read.
 */
template <typename Function, typename Result, typename... Parameters, bool InPlace>
class npcache::memoized<Function, Result(Parameters...), InPlace> {
    using load = npcache_detail::from_cache<Result>;

  public:
    /**
     * An array for what has the form of one, the number for a number, a tuple of these; a result for an in-place void.
     */
    using result_type = typename load::type;

    /** `function` under an identity that was described before; cache::memoize does both. */
    memoized(Function function, npcache::function described)
        : shared_(std::make_shared<state>(state{std::move(function), std::move(described)}))
    {
    }

    /** The result: found, or computed now. */
    result_type operator()(Parameters... parameters) const
    {
        const arguments call = described(parameters...);
        begun begun = begin(shared_->described, call.get());
        while (!begun.hit && !begun.todo)
            begun = begin(shared_->described, call.get());
        if (begun.todo) {
            output out(begun.todo.get());
            const Function &function = shared_->function;
            if constexpr (InPlace && std::is_void_v<Result>)
                function(out, std::forward<Parameters>(parameters)...);
            else if constexpr (InPlace)
                npcache_detail::keep_result<Result>(out, function(out, std::forward<Parameters>(parameters)...));
            else
                npcache_detail::keep_result<Result>(out, function(std::forward<Parameters>(parameters)...));
            begun.hit = commit_and_end(std::move(begun.todo));
        }
        return load::load(npcache::result(std::move(begun.hit)));
    }

    /** The result if it is stored: never computes, never waits. */
    std::optional<result_type> lookup(Parameters... parameters) const
    {
        npcache_buffer *hit = nullptr;
        npcache_error *object = nullptr;
        check(npcache_lookup(shared_->described.get(), described(parameters...).get(), &hit, &object), object);
        if (!hit)
            return std::nullopt;
        return load::load(npcache::result(buffer(hit)));
    }
    /** Whether the result is stored. A lookup counts as a hit in npcache_stats, this does not. */
    bool is_cached(Parameters... parameters) const
    {
        std::int32_t cached = 0;
        npcache_error *object = nullptr;
        check(npcache_is_cached(shared_->described.get(), described(parameters...).get(), &cached, &object), object);
        return cached != 0;
    }
    /** Removes the stored result of one call, if there is one. */
    void forget(Parameters... parameters)
    {
        npcache_error *object = nullptr;
        check(npcache_forget(shared_->described.get(), described(parameters...).get(), &object), object);
    }
    /** In words, whether the call is stored, and if not, what differs from the stored calls that come nearest. */
    std::string explain(Parameters... parameters) const
    {
        char *text = nullptr;
        npcache_error *object = nullptr;
        const arguments call = described(parameters...);
        check(npcache_explain(nullptr, shared_->described.get(), call.get(), &text, &object), object);
        const owner<char, npcache_text_free> owned(text);
        return text;
    }
    /** The call's key, 64 hexadecimal digits: the name of its file in every language. */
    std::string key(Parameters... parameters) const { return key_of(shared_->described, described(parameters...)); }

    /* Before the first call. These hold for all copies. */

    /** Results also depend on `value`, called `name`: the version of a library, what an environment variable says. */
    memoized &depends_on(const std::string &name, const std::string &value)
    {
        using npcache_detail::c_text;
        npcache_error *object = nullptr;
        check(npcache_function_add_dependency(shared_->described.get(), c_text(name, "a dependency's name"),
                                              c_text(value, "a dependency"), &object),
              object);
        return *this;
    }
    /** Results also depend on the program or library that holds this function: on its build ID. */
    template <typename R, typename... P> memoized &depends_on(R (*in_object)(P...))
    {
        npcache_error *object = nullptr;
        const auto address = reinterpret_cast<void (*)()>(in_object);
        check(npcache_function_add_object(shared_->described.get(), address, &object), object);
        return *this;
    }
    /** npcache_function_set: `layout` or `flight`. */
    memoized &set(const std::string &option, const std::string &value)
    {
        using npcache_detail::c_text;
        npcache_error *object = nullptr;
        check(npcache_function_set(shared_->described.get(), c_text(option, "an option"), c_text(value, "an option"),
                                   &object),
              object);
        return *this;
    }

  private:
    friend class npcache::cache;

    struct state {
        Function function;
        npcache::function described;
    };

    static arguments described(const std::remove_reference_t<Parameters> &...parameters)
    {
        arguments call;
        (call.add<npcache_detail::bare<Parameters>>(parameters), ...);
        return call;
    }
    static std::string key_of(const npcache::function &function, const arguments &call)
    {
        char digits[65];
        npcache_error *object = nullptr;
        check(npcache_function_key(function.get(), call.get(), digits, &object), object);
        return digits;
    }

    std::shared_ptr<state> shared_;
};

/**
 * An open cache: a directory that threads, processes and programs share. It can be moved; what was memoized with it
 * outlives it. Any thread, at any time.
 */
class npcache::cache {
  public:
    /**
     * npcache_new. `path`: the directory, made with its parents if it is not there; NULL for a cache without one, in
     * which every call computes. NPCACHE_ERR_DIRECTORY or NPCACHE_ERR_IO: it cannot serve as one; NPCACHE_ERR_ARGUMENT:
     * there is no such option, or it takes no such value.
     */
    explicit cache(const char *path, const options &how = {})
    {
        using npcache_detail::c_text;
        const owner<npcache_options, npcache_options_free> set(npcache_options_new());
        npcache_error *object = nullptr;
        for (const auto &[name, value] : how)
            check(npcache_options_set(set.get(), c_text(name, "an option"), c_text(value, "an option"), &object),
                  object);
        ::npcache *opened = nullptr;
        check(npcache_new(path, set.get(), &opened, &object), object);
        owned_.reset(opened);
    }
    /** The same of a text. */
    explicit cache(const std::string &path, const options &how = {})
        : cache(npcache_detail::c_text(path, "a path"), how)
    {
    }

    /**
     * The function that looks a call up under `name`, `version` and its arguments, and calls `function` where it is not
     * stored. A version is your promise that results stay the same as long as it does, and shares them with other
     * programs and languages; "" promises it for ever.
     *
     * `function` is a pointer, a lambda or a function object; with captures it needs npcache::captures. Where it is
     * overloaded or generic, say the parameters: `memoize<double(double, int)>("name", "1", function)`. Its first
     * parameter may be an npcache::output &, to compute in place.
     */
    template <typename Signature = npcache_detail::deduced, typename Function>
    auto memoize(const std::string &name, const std::string &version, Function function) const
    {
        return make<Signature>(name, npcache_detail::c_text(version, "a version"), std::move(function), nullptr);
    }
    /** One of several overloads. */
    template <typename Signature, typename = std::enable_if_t<std::is_function_v<Signature>>>
    auto memoize(const std::string &name, const std::string &version, Signature *function) const
    {
        return make<Signature>(name, npcache_detail::c_text(version, "a version"), function, nullptr);
    }

    /**
     * Without a version results stay valid until the code changes: the version is the build ID of the program or
     * library that holds `function`, for a lambda or a function object of the one that calls this. It needs
     * -Wl,--build-id where the linker does not add it unasked. `object`: any function in another library whose code it
     * is.
     */
    template <typename Signature = npcache_detail::deduced, typename Function,
              typename = std::enable_if_t<!std::is_convertible_v<Function, std::string_view>>>
    auto memoize(const std::string &name, Function function, void (*object)() = npcache_detail::here) const
    {
        return make<Signature>(name, nullptr, std::move(function), object);
    }
    /** One of several overloads. */
    template <typename Signature, typename = std::enable_if_t<std::is_function_v<Signature>>>
    auto memoize(const std::string &name, Signature *function) const
    {
        return make<Signature>(name, nullptr, function, nullptr);
    }

    /**
     * Removes all results; what is being computed now is not found afterwards either. `flags`: NPCACHE_CLEAR_REMOVE_DIR
     * to remove the directory too, after which every call computes; NPCACHE_ERR_NOT_EMPTY where it holds files of
     * others.
     */
    void clear(std::uint32_t flags = 0) const
    {
        npcache_error *object = nullptr;
        check(npcache_clear(get(), flags, &object), object);
    }
    /** The same for one function, with all its versions. */
    void clear_function(const std::string &name) const
    {
        npcache_error *object = nullptr;
        check(npcache_clear_function(get(), npcache_detail::c_text(name, "a name"), &object), object);
    }

    /** How the calls of all functions went, in all processes since the cache was made. Clearing does not set it back. */
    npcache_statistics stats() const { return stats_of(nullptr); }
    /** The same of one function, all its versions. */
    npcache_statistics stats(const std::string &name) const
    {
        return stats_of(npcache_detail::c_text(name, "a name"));
    }

    /**
     * Sets max_bytes, max_entries, max_age, min_free_bytes or policy, with the values that options take, for all who use
     * the directory and do not set it themselves.
     */
    void configure(const std::string &name, const std::string &value) const
    {
        npcache_error *object = nullptr;
        check(npcache_configure(get(), npcache_detail::c_text(name, "a name"), npcache_detail::c_text(value, "a value"),
                                &object),
              object);
    }

    /** For the C functions. */
    ::npcache *get() const noexcept { return owned_.get(); }

  private:
    npcache_statistics stats_of(const char *name) const
    {
        npcache_error *object = nullptr;
        npcache_statistics found;
        check(npcache_stats(get(), name, &found, sizeof found, &object), object);
        return found;
    }

    template <typename Signature, typename Function>
    auto make(const std::string &name, const char *version, Function function, void (*object)()) const
    {
        return make<Signature>(name, version, captured<Function>{std::move(function), {}}, object, std::false_type());
    }
    template <typename Signature, typename Function, typename... Values>
    auto make(const std::string &name, const char *version, captured<Function, Values...> function,
              void (*object)()) const
    {
        return make<Signature>(name, version, std::move(function), object, std::true_type());
    }

    template <typename Signature, typename Function, typename... Values, bool Captures>
    auto make(const std::string &name, const char *version, captured<Function, Values...> given, void (*object)(),
              std::bool_constant<Captures>) const
    {
        using said = std::conditional_t<std::is_same_v<Signature, npcache_detail::deduced>,
                                        typename npcache_detail::signature<Function>::type, Signature>;
        using acceptable = npcache_detail::acceptable<Function, Captures, said>;
        if constexpr (!acceptable::value || !(npcache_detail::description<Values>::value && ...)) {
            acceptable::says();
            (npcache_detail::must_describe<Values>(), ...);
        } else {
            using call = npcache_detail::call_of<said>;
            using made = memoized<Function, typename call::type, call::in_place>;
            npcache::function described = describe(*this, npcache_detail::c_text(name, "a name"), version);
            npcache_error *error = nullptr;
            if (!version) {
                if constexpr (std::is_pointer_v<Function>)
                    object = reinterpret_cast<void (*)()>(given.function);
                check(npcache_function_add_object(described.get(), object, &error), error);
            }
            if constexpr (sizeof...(Values) != 0) {
                arguments values;
                std::apply([&values](const auto &...value) { (values.add(value), ...); }, given.values);
                const std::string key = made::key_of(described, values);
                check(npcache_function_add_dependency(described.get(), "captures", key.c_str(), &error), error);
            }
            return made(std::move(given.function), std::move(described));
        }
    }

    owner<::npcache, npcache_free> owned_;
};

inline npcache::function npcache::describe(const cache &in, const char *name, const char *version)
{
    npcache_function *described = nullptr;
    npcache_error *object = nullptr;
    check(npcache_function_new(in.get(), name, version, &described, &object), object);
    return function(described);
}

#endif /* NPCACHE_HPP */
