// The versions of lambdas and function objects without a version: the program's part prints the key of its own, then that
// of the library, which is this file with LIBRARY defined. Both use the same type, whose code the linker makes one.

#include <npcache.hpp>

#include <cstdio>

struct half {
    double operator()(double x) const { return x / 2; }
};

void print_library_key();

#ifdef LIBRARY
void print_library_key()
{
    std::puts(npcache::cache(nullptr).memoize("f", half()).key(1).c_str());
}
#else
int main()
{
    std::puts(npcache::cache(nullptr).memoize("f", half()).key(1).c_str());
    std::fflush(stdout);
    print_library_key();
}
#endif
