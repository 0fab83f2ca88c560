// C++ exceptions and ended threads between the halves of a call: `guard DIRECTORY`. What a function throws reaches its
// caller unharmed, nothing is stored, and whoever waits computes at once.
//
// Relies on: guard_other.cpp, the second file that includes npcache.hpp.

#include "check.h"

#include <npcache.hpp>

#include <atomic>
#include <type_traits>
#include <vector>

npcache::buffer computed_elsewhere(const npcache::function &function, std::int64_t count);
int32_t throw_elsewhere(npcache_status status);

namespace {

/// Counts its lives, to see that every frame is unwound.
struct witness {
    static std::atomic<int> alive;
    witness() { ++alive; }
    ~witness() { --alive; }
    witness(const witness &) = delete;
    witness &operator=(const witness &) = delete;
};
std::atomic<int> witness::alive(0);

struct tangled : std::runtime_error {
    explicit tangled(int where_) : std::runtime_error("the mesh is tangled"), where(where_) {}
    int where;
};

npcache::buffer call(const npcache::cache &cache, const char *name, npcache_fn function, void *user_data = nullptr)
{
    npcache_buffer *result = nullptr;
    npcache_error *object = nullptr;
    npcache::check(npcache_call(cache.get(), name, "1", nullptr, 0, function, user_data, &result, &object), object);
    return npcache::buffer(result);
}

npcache::cache open_below_root(const char *name)
{
    char path[PATH_LEN];
    path_below_root(path, name);
    return npcache::cache(path, {{"lock_timeout", "60"}}); // to fail before the tests' patience ends
}

/// A thread that asks for a call which another one is computing.
class waiter {
  public:
    waiter(const npcache::cache &cache, const char *name) : cache_(cache), name_(name), thread_(start(run, this))
    {
        sleep_ms(50);
    }
    waiter(const waiter &) = delete;
    waiter &operator=(const waiter &) = delete;

    /// That it computed, soon after `began`.
    void computed_at_once(double began)
    {
        pthread_join(thread_, nullptr);
        CHECK(seconds() - began < 30);
        CHECK(runs_ == 1 && result_ && holds_halves(result_.get(), 3));
    }

  private:
    static void *run(void *self)
    {
        waiter *me = static_cast<waiter *>(self);
        me->result_ = call(me->cache_, me->name_, halves, &me->runs_);
        return nullptr;
    }

    const npcache::cache &cache_;
    const char *name_;
    int runs_ = 0;
    npcache::buffer result_;
    pthread_t thread_;
};

/// What the functions below are given, and where they leave the waiter that they started.
struct throwing {
    const npcache::cache *cache;
    const char *name;
    bool commits;
    std::unique_ptr<waiter> started;
    double thrown_at;
};

int32_t throws(void *user_data, const void *, size_t, npcache_output *out)
{
    throwing *what = static_cast<throwing *>(user_data);
    witness here;
    if (what->commits)
        OK(put_halves(out, 9));
    what->started.reset(new waiter(*what->cache, what->name));
    what->thrown_at = seconds();
    throw tangled(17);
}

void an_exception_passes_through_a_call(const npcache::cache &cache, const char *name, bool commits)
{
    throwing what = {&cache, name, commits, nullptr, 0};
    try {
        call(cache, name, throws, &what);
        CHECK(!"reached");
    } catch (const tangled &e) {
        CHECK(e.where == 17 && std::string(e.what()) == "the mesh is tangled");
    }
    CHECK(witness::alive == 0);
    what.started->computed_at_once(what.thrown_at);
    CHECK(is_hit(call(cache, name, halves).get()));
}

/// An exception through two calls, the inner one in the outer one's function.
int32_t calls_one_that_throws(void *user_data, const void *, size_t, npcache_output *)
{
    witness here;
    throwing *what = static_cast<throwing *>(user_data);
    call(*what->cache, "inner", throws, user_data);
    return 0;
}

void an_exception_passes_through_nested_calls(const npcache::cache &cache)
{
    throwing what = {&cache, "inner", false, nullptr, 0};
    try {
        call(cache, "outer", calls_one_that_throws, &what);
        CHECK(!"reached");
    } catch (const tangled &e) {
        CHECK(e.where == 17);
    }
    CHECK(witness::alive == 0);
    what.started->computed_at_once(what.thrown_at);
    CHECK(is_computed(call(cache, "outer", halves).get()));
}

int32_t ends_its_thread(void *user_data, const void *, size_t, npcache_output *out)
{
    throwing *what = static_cast<throwing *>(user_data);
    witness here;
    OK(put_halves(out, 9));
    what->started.reset(new waiter(*what->cache, what->name));
    what->thrown_at = seconds();
    pthread_exit(&witness::alive);
}

void *call_one_that_ends_the_thread(void *argument)
{
    throwing *what = static_cast<throwing *>(argument);
    witness here;
    call(*what->cache, what->name, ends_its_thread, what);
    CHECK(!"reached");
    return nullptr;
}

void a_function_may_end_its_thread(const npcache::cache &cache)
{
    throwing what = {&cache, "exit", false, nullptr, 0};
    void *value = nullptr;
    CHECK(pthread_join(start(call_one_that_ends_the_thread, &what), &value) == 0);
    CHECK(value == &witness::alive && witness::alive == 0);
    what.started->computed_at_once(what.thrown_at);
}

/// `where` is how far it comes before it throws: 0 nothing made, 1 an array, 2 committed.
void throw_between(const npcache::cache &cache, const char *name, int where, std::unique_ptr<waiter> &started, double &at)
{
    npcache::function function = npcache::describe(cache, name, "1");
    npcache_args *none = nullptr;
    npcache::check(npcache_args_from_bytes(nullptr, 0, &none, nullptr));
    npcache::begun begun = npcache::begin(function, none);
    npcache_args_free(none);
    CHECK(begun.todo && !begun.hit);
    started.reset(new waiter(cache, name));
    std::int64_t count = 9;
    if (where >= 1)
        CHECK(npcache_output_alloc(begun.todo.get(), nullptr, NPCACHE_FLOAT64, 1, &count, NPCACHE_ORDER_C) != nullptr);
    if (where >= 2)
        OK(npcache_output_commit(begun.todo.get()));
    at = seconds();
    throw tangled(where);
}

void an_exception_between_the_halves_gives_the_task_up(const npcache::cache &cache)
{
    const char *const names[] = {"between 0", "between 1", "between 2"};
    for (int where = 0; where < 3; where++) {
        std::unique_ptr<waiter> started;
        double at = 0;
        try {
            throw_between(cache, names[where], where, started, at);
            CHECK(!"reached");
        } catch (const tangled &e) {
            CHECK(e.where == where);
        }
        started->computed_at_once(at);
    }
}

void the_guard_stores_what_is_whole(const npcache::cache &cache)
{
    npcache::function function = npcache::describe(cache, "whole", "1");
    npcache::buffer result = computed_elsewhere(function, 5);
    CHECK(is_computed(result.get()) && holds_halves(result.get(), 5));
    OK(npcache_buffer_stored(result.get()));
    npcache::begun again = npcache::begin(function, nullptr, 0);
    CHECK(again.hit && !again.todo && holds_halves(again.hit.get(), 5));

    // Where nothing is made, or the function complained, commit_and_end throws and the task is free.
    npcache::function other = npcache::describe(cache, "not whole", "1");
    for (int complains = 0; complains < 2; complains++)
        try {
            npcache::begun begun = npcache::begin(other, nullptr, 0);
            CHECK(begun.todo != nullptr);
            if (complains)
                npcache_output_fail(begun.todo.get(), "did not converge");
            npcache::commit_and_end(std::move(begun.todo));
            CHECK(!"reached");
        } catch (const npcache::error &e) {
            CHECK(e.code() == (complains ? NPCACHE_ERR_FUNCTION : NPCACHE_ERR_ARGUMENT));
            CHECK(std::string(e.what()).find(complains ? "did not converge" : "without an array") != std::string::npos);
        }
}

int32_t returns_42(void *, const void *, size_t, npcache_output *)
{
    return 42;
}

template <typename Function> npcache_status status_thrown(Function &&body, const char *message)
{
    try {
        body();
    } catch (const npcache::error &e) {
        CHECK(std::string(e.what()).find(message) != std::string::npos);
        return e.code();
    }
    return NPCACHE_OK;
}

void errors_are_exceptions(const npcache::cache &cache)
{
    IS(NPCACHE_ERR_DIRECTORY, status_thrown([] { npcache::cache("/dev/null"); }, "/dev/null"));
    REFUSED(status_thrown([&] { npcache::describe(cache, "", "1"); }, "name"));
    REFUSED(status_thrown([&] { npcache::begin(npcache::describe(cache, "f", "1"), nullptr, -2); }, "wait_ms"));
    IS(NPCACHE_ERR_IO, status_thrown([] { npcache::check(NPCACHE_ERR_IO); }, npcache_status_string(NPCACHE_ERR_IO)));
    IS(NPCACHE_ERR_IO, throw_elsewhere(NPCACHE_ERR_IO));
    IS(NPCACHE_BUSY, npcache::check(NPCACHE_BUSY));
    try {
        call(cache, "returns 42", returns_42);
        CHECK(!"reached");
    } catch (const npcache::error &e) {
        const npcache::error copy = e;
        CHECK(copy.code() == NPCACHE_ERR_FUNCTION && copy.function_code() == 42);
    }
}

void owners_own(const npcache::cache &cache)
{
    static_assert(sizeof(npcache::cache) == sizeof(void *), "the deleter has no state");
    static_assert(sizeof(npcache::task) == sizeof(void *), "the deleter has no state");
    static_assert(!std::is_copy_constructible<npcache::buffer>::value, "one owner");
    static_assert(std::is_nothrow_move_constructible<npcache::begun>::value, "can be returned");
    static_assert(std::is_nothrow_copy_constructible<npcache::error>::value, "can be thrown");

    npcache::buffer first = call(npcache::cache(nullptr, {{"mode", "off"}}), "f", halves);
    npcache::buffer second(npcache_buffer_retain(first.get()));
    first.reset();
    CHECK(holds_halves(second.get(), 3));

    const double numbers[] = {1, 2};
    const std::int64_t two = 2;
    npcache_digest *made = nullptr;
    npcache::check(npcache_digest_new("<f8", 1, &two, nullptr, numbers, sizeof numbers, 0, &made, nullptr));
    npcache::digest digest(made);
    npcache::arguments args;
    args.add(digest);
    npcache::function function = npcache::describe(cache, "owners", "1");
    npcache::begun begun = npcache::begin(function, args.get());
    OK(put_halves(begun.todo.get(), 3));
    CHECK(is_computed(npcache::commit_and_end(std::move(begun.todo)).get()));
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    root = argv[1];
    try {
        npcache::cache cache = open_below_root("guard");
        an_exception_passes_through_a_call(cache, "throws", false);
        an_exception_passes_through_a_call(cache, "commits and throws", true);
        an_exception_passes_through_nested_calls(cache);
        a_function_may_end_its_thread(cache);
        an_exception_between_the_halves_gives_the_task_up(cache);
        the_guard_stores_what_is_whole(cache);
        errors_are_exceptions(cache);
        owners_own(cache);
    } catch (const std::exception &e) {
        CHECK(!"an exception that nothing expected");
        std::printf("    %s\n", e.what());
    }
    return finish();
}
