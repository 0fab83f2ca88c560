// What does not compile: test_cpp.py looks for the message of each line that begins with "refused", and its type.

#include <npcache.hpp>

#include <functional>

struct mesh {
    std::vector<double> points;
};
struct refined : mesh {
    int level;
};
template <> struct npcache::describe_as<mesh> {
    auto operator()(const mesh &value) const { return std::tie(value.points); }
};
template <int> struct stencil {
    int width;
};

void refused(const npcache::cache &cache);

// Each line ends with a part of the message, and a part of the type that it names.
void refused(const npcache::cache &cache)
{
    double scale = 2;
    cache.memoize("f", "1", [](const stencil<1> &) { return 1; });        // describe_as<Type>: stencil<1>
    cache.memoize("f", "1", [](std::vector<stencil<2>>) { return 1; });   // describe_as<Type>: std::vector<stencil<2>
    cache.memoize("f", "1", [](const refined &) { return 1; });           // describe_as<Type>: refined
    cache.memoize("f", "1", [](std::optional<std::optional<int>>) { return 1; }); // describe_as<Type>: std::optional<int
    cache.memoize("f", "1", [](std::map<int, double>) { return 1; });     // describe_as<Type>: std::map<int
    cache.memoize("f", "1", [](std::shared_ptr<int>) { return 1; });      // describe_as<Type>: std::shared_ptr<int
    npcache::arguments().add(stencil<3>());                               // describe_as<Type>: stencil<3>
    cache.memoize("f", "1", npcache::captures([scale] { return scale; }, stencil<4>())); // describe_as<Type>: stencil<4>
    cache.memoize("f", "1", [](const double *, int) { return 1; });       // how much it points to: const double
    cache.memoize("f", "1", [](std::vector<double> &) { return 1; });     // could write to this parameter: std::vector<double
    cache.memoize("f", "1", [](npcache::view<double>) { return 1; });     // could write to this parameter: npcache::view<double
    cache.memoize("f", "1", [](int) {});                                  // a function returns a number: void
    cache.memoize("f", "1", [](int) { return std::string(); });           // a function returns a number: string
    cache.memoize("f", "1", [](int) { return &refused; });                // a function returns a number: npcache::cache
    cache.memoize("f", "1", [](int) { return std::vector<std::vector<double>>(); }); // a function returns: std::vector<std::vector
    cache.memoize("f", "1", [scale](double x) { return scale * x; });     // npcache::captures(function: lambda
    cache.memoize("f", std::function<double(double)>());                  // npcache::captures(function: std::function<double
    cache.memoize("f", "1", [](auto x) { return x; });                    // cache.memoize<double(double, int)>: lambda
    cache.memoize("f", "1", [](int n) mutable { return n++; });           // changes itself: lambda
}
