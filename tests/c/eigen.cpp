// Eigen's types as arguments and results: `eigen DIRECTORY` runs the checks, `eigen DIRECTORY keys` prints the keys that
// test_cpp.py compares with those of the Python reference, and stores a matrix that numpy reads.

#include "check.h"

#include <npcache.hpp>

#include <Eigen/Core>

namespace {

using npcache_detail::description;
using npcache_detail::returned;
using npcache_detail::writable;
using row_major = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct labelled : Eigen::MatrixXd {
    int label;
};
using expression = decltype(Eigen::MatrixXd() + Eigen::MatrixXd());
static_assert(!description<labelled>::value, "what is derived from a matrix has more to it");
static_assert(!description<expression>::value && !returned<expression>::value);
static_assert(!writable<Eigen::MatrixXd>::value && !writable<Eigen::Ref<const Eigen::MatrixXd>>::value);
static_assert(!writable<Eigen::Map<const Eigen::MatrixXd>>::value && writable<Eigen::Map<Eigen::MatrixXd>>::value);
static_assert(writable<Eigen::Ref<Eigen::VectorXd>>::value);

Eigen::MatrixXd counted(Eigen::Index rows, Eigen::Index cols)
{
    return Eigen::VectorXd::LinSpaced(rows * cols, 0, double(rows * cols - 1)).reshaped<Eigen::RowMajor>(rows, cols);
}

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
    const Eigen::MatrixXd matrix = counted(3, 4);
    const row_major rows = matrix;
    print_key(cache, "matrix", matrix);
    print_key(cache, "matrix", rows);
    print_key(cache, "matrix", Eigen::Ref<const Eigen::MatrixXd>(matrix));
    print_key(cache, "matrix", Eigen::Map<const Eigen::MatrixXd>(matrix.data(), 3, 4));
    print_key(cache, "matrix", Eigen::ArrayXXd(matrix));
    print_key(cache, "transpose", matrix.transpose(), rows.transpose());
    print_key(cache, "block", matrix.block(1, 1, 2, 2), rows.block(1, 1, 2, 2));
    print_key(cache, "row", matrix.row(1), rows.row(1), matrix.col(2), rows.col(2));
    const Eigen::VectorXd vector = matrix.row(1);
    using backwards = Eigen::Map<const Eigen::VectorXd, 0, Eigen::InnerStride<>>;
    print_key(cache, "backwards", backwards(vector.data() + 3, 4, Eigen::InnerStride<>(-1)), vector);
    print_key(cache, "fixed", Eigen::Vector3f(1, 2, 3), Eigen::Matrix2i::Identity().eval(), Eigen::RowVector2cd(1, 2));
    print_key(cache, "empty", Eigen::MatrixXd(0, 3), Eigen::VectorXd(), Eigen::Matrix<double, 1, 1>(5.0));
    print_key(cache, "list", std::vector<Eigen::Vector2d>{{1, 2}, {3, 4}}, std::make_pair(matrix, 1));
    std::printf("stored %s\n", cache.memoize("stored", "1", [] { return counted(2, 3); })().path());
}

void results_are_matrices(const npcache::cache &cache)
{
    int runs = 0;
    const auto twice = cache.memoize(
        "twice", "1", npcache::captures([&runs](const Eigen::Ref<const Eigen::MatrixXd> &a) -> Eigen::MatrixXd {
            ++runs;
            return 2 * a;
        }));
    const Eigen::MatrixXd matrix = counted(3, 4);
    for (int i = 0; i < 2; i++) {
        const npcache::array<double> found = twice(matrix);
        CHECK(found.origin() == (i ? NPCACHE_ORIGIN_DISK : NPCACHE_ORIGIN_COMPUTED));
        CHECK(found.shape() == npcache::shape(3, 4) && found(1, 2) == 12 && found.stride(0) == 8);
        const Eigen::Map<const Eigen::MatrixXd> map(found.data(), found.shape(0), found.shape(1));
        CHECK(map == 2 * matrix && found.as<Eigen::MatrixXd>() == 2 * matrix);
        const auto checked = found.as<Eigen::Map<const Eigen::MatrixXd, Eigen::Aligned64>>();
        CHECK(checked == 2 * matrix && checked.data() == found.data());
        CHECK(found.as<row_major>() == 2 * matrix && (found.as<Eigen::Array<double, 3, 4>>() == 2 * matrix.array()).all());
    }
    // Equal contents are one call, whatever they lie in.
    CHECK(twice(row_major(matrix)).origin() == NPCACHE_ORIGIN_DISK && twice(matrix.block(0, 0, 3, 4))(0, 1) == 2);
    CHECK(twice(matrix + Eigen::MatrixXd::Zero(3, 4)).size() == 12 && runs == 1);
    auto strict = cache.memoize("strict", "1", [](const row_major &a) { return a; });
    CHECK(strict(matrix).stride(0) == 32 && strict(matrix).as<Eigen::Map<const row_major>>() == matrix);

    const auto several = cache.memoize("several", "1", [](const Eigen::VectorXd &v) {
        return std::make_tuple(Eigen::VectorXd(v.reverse()), v.norm(), Eigen::Array2Xi(Eigen::Array2Xi::Constant(2, 3, 7)));
    });
    for (int i = 0; i < 2; i++) {
        const auto [reversed, norm, sevens] = several(Eigen::Vector2d(3, 4));
        CHECK(reversed.ndim() == 1 && reversed[0] == 4 && norm == 5 && sevens.shape() == npcache::shape(2, 3));
        CHECK(reversed.as<Eigen::Vector2d>() == Eigen::Vector2d(4, 3) && reversed.as<Eigen::Map<const Eigen::VectorXd>>()[1] == 3);
        CHECK((sevens.as<Eigen::Map<const Eigen::Array2Xi>>() == 7).all());
    }
}

template <typename Type> void is_refused(const npcache::array<double> &array, const char *message)
{
    try {
        array.as<Type>();
        CHECK(!"reached");
    } catch (const npcache::error &e) {
        CHECK(e.code() == NPCACHE_ERR_ARGUMENT && std::string(e.what()).find(message) != std::string::npos);
    }
}

void a_map_of_another_order_or_size_is_refused(const npcache::cache &cache)
{
    const auto f = cache.memoize("rows", "1", [](int rows, int cols) { return row_major(counted(rows, cols)); });
    is_refused<Eigen::Map<const Eigen::MatrixXd>>(f(2, 3), "order");
    is_refused<Eigen::Map<const Eigen::MatrixXd>>(f(2, 2), "order");
    CHECK(f(2, 3).as<Eigen::MatrixXd>() == counted(2, 3) && f(2, 3).as<Eigen::Map<const row_major>>() == counted(2, 3));
    CHECK(f(1, 3).as<Eigen::Map<const Eigen::MatrixXd>>() == counted(1, 3));
    CHECK(f(3, 1).as<Eigen::Map<const Eigen::MatrixXd>>() == counted(3, 1));
    CHECK(f(0, 3).as<Eigen::Map<const Eigen::MatrixXd>>().cols() == 3);
    is_refused<Eigen::VectorXd>(f(2, 3), "dimensions");
    is_refused<Eigen::Matrix2d>(f(2, 3), "size");
    is_refused<Eigen::Map<const Eigen::Matrix<double, 2, 2, Eigen::RowMajor>>>(f(2, 3), "size");
    const auto vector = cache.memoize("vector", "1", [](double x) { return Eigen::Vector2d(x, x); });
    is_refused<Eigen::MatrixXd>(vector(1), "dimensions");
    is_refused<Eigen::Vector3d>(vector(1), "size");
    is_refused<Eigen::Map<const Eigen::Vector3d>>(vector(1), "size");
}

void matrices_are_computed_in_place(const npcache::cache &cache)
{
    const auto f = cache.memoize("in place", "1", [](npcache::output &out, Eigen::Index n) {
        const auto made = out.alloc<double>({n, n}, NPCACHE_ORDER_F);
        Eigen::Map<Eigen::MatrixXd>(made.data(), n, n) = counted(n, n);
        return made;
    });
    CHECK(f(3).as<Eigen::Map<const Eigen::MatrixXd>>() == counted(3, 3) && f(3)(0, 2) == 2);
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    root = argv[1];
    try {
        const npcache::cache cache(std::string(root) + "/cache");
        if (argc > 2) {
            print_keys(cache);
            return 0;
        }
        results_are_matrices(cache);
        a_map_of_another_order_or_size_is_refused(cache);
        matrices_are_computed_in_place(cache);
    } catch (const std::exception &e) {
        CHECK(!"an exception that nothing expected");
        std::printf("    %s\n", e.what());
    }
    return finish();
}
