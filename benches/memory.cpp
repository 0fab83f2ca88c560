// Hits in memory: npcache through its C ABI beside the table that a C++ programmer writes, a std::unordered_map behind a
// std::shared_mutex, with string keys made of the function's name and the argument bytes. And how both scale with threads,
// beside private atomic counters, which is as well as anything on this machine does.
//
//     memory DIR ROUNDS CALLS
//
// prints one line of JSON a row, with the nanoseconds of every round, as npcache-bench does.
#include <npcache.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

using Bytes = std::vector<char>;

double now()
{
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void require(bool fine, const char *what)
{
    if (!fine) {
        std::fprintf(stderr, "memory: %s\n", what);
        std::exit(1);
    }
}

// The function whose results are cached: `*user_data` bytes.
int32_t kernel(void *user_data, const void *, size_t, npcache_output *out)
{
    const int64_t len = *static_cast<int64_t *>(user_data);
    if (void *place = npcache_output_alloc(out, nullptr, NPCACHE_UINT8, 1, &len, NPCACHE_ORDER_C))
        std::memset(place, 7, len);
    return npcache_output_commit(out);
}

class Map {
public:
    std::shared_ptr<const Bytes> find(const Bytes &args) const
    {
        const std::string key = make_key(args);
        std::shared_lock lock(mutex);
        const auto found = table.find(key);
        return found == table.end() ? nullptr : found->second;
    }
    void insert(const Bytes &args, std::shared_ptr<const Bytes> value)
    {
        std::unique_lock lock(mutex);
        table.emplace(make_key(args), std::move(value));
    }

private:
    static std::string make_key(const Bytes &args)
    {
        std::string key("kernel");
        return key.append(args.data(), args.size());
    }
    mutable std::shared_mutex mutex;
    std::unordered_map<std::string, std::shared_ptr<const Bytes>> table;
};

struct Scene {
    npcache *cache;
    Map map;
    std::vector<Bytes> args;
    int64_t result;

    Scene(npcache *cache, size_t keys, size_t args_len, int64_t result) : cache(cache), result(result)
    {
        const auto value = std::make_shared<const Bytes>(result, 7);
        for (size_t i = 0; i < keys; i++) {
            Bytes bytes(args_len, 0x5a);
            std::memcpy(bytes.data(), &i, sizeof i);
            std::memcpy(bytes.data() + sizeof i, &result, sizeof result);
            map.insert(bytes, value);
            args.push_back(std::move(bytes));
        }
        for (const Bytes &bytes : args)
            ours(bytes);
    }
    void ours(const Bytes &bytes, int32_t origin = 0)
    {
        npcache_buffer *buffer = nullptr;
        npcache_call(cache, "kernel", "1", bytes.data(), bytes.size(), kernel, &result, &buffer, nullptr);
        const char *data = static_cast<const char *>(npcache_buffer_data(buffer, 0, NPCACHE_UINT8, nullptr));
        require(data && *data == 7 && (!origin || npcache_buffer_origin(buffer) == origin), "a hit is not from memory");
        npcache_buffer_release(buffer);
    }
    void other(const Bytes &bytes)
    {
        const auto found = map.find(bytes);
        require(found && found->front() == 7, "the map lost a key");
    }
};

// Nanoseconds from the first start to the last end of `threads` threads that each run `work(thread)`.
double run(int threads, const std::function<void(int)> &work)
{
    if (threads == 1) {
        const double start = now();
        work(0);
        return now() - start;
    }
    std::atomic<int> waiting{threads};
    std::vector<double> starts(threads), ends(threads);
    std::vector<std::thread> all;
    for (int thread = 0; thread < threads; thread++)
        all.emplace_back([&, thread] {
            for (waiting--; waiting > 0;)
                std::this_thread::yield();
            starts[thread] = now();
            work(thread);
            ends[thread] = now();
        });
    double start = 1e300, end = 0;
    for (int thread = 0; thread < threads; thread++) {
        all[thread].join();
        start = std::min(start, starts[thread]);
        end = std::max(end, ends[thread]);
    }
    return end - start;
}

struct alignas(128) Counter {
    std::atomic<long> count{0};
};

// `calls` atomic additions in each thread, to a counter of its own.
double private_atomics(int threads, int calls)
{
    std::vector<Counter> counters(threads);
    return run(threads, [&](int thread) {
        for (int i = 0; i < calls; i++)
            counters[thread].count.fetch_add(1);
    });
}

void report(const std::string &name, const char *unit, int calls, const std::vector<double> (&sides)[2])
{
    std::printf("{\"name\": \"%s\", \"unit\": \"%s\", \"calls\": %d", name.c_str(), unit, calls);
    for (int side = 0; side < 2; side++) {
        std::printf(", \"%s\": [", side ? "other" : "ours");
        for (size_t i = 0; i < sides[side].size(); i++)
            std::printf("%s%.4f", i ? ", " : "", sides[side][i]);
        std::printf("]");
    }
    std::puts("}");
}

// Both sides in alternating order, `rounds` times and one to warm up.
void row(const std::string &name, const char *unit, int rounds, int calls, const std::function<double()> &ours,
         const std::function<double()> &other)
{
    std::vector<double> sides[2];
    for (int round = 0; round <= rounds; round++)
        for (int turn = 0; turn < 2; turn++) {
            const int side = (round + turn) % 2;
            const double value = side ? other() : ours();
            if (round)
                sides[side].push_back(value);
        }
    report(name, unit, calls, sides);
}

} // namespace

int main(int argc, char **argv)
{
    require(argc == 4, "usage: memory DIR ROUNDS CALLS");
    const int rounds = std::atoi(argv[2]), calls = std::atoi(argv[3]);
    const size_t keys = 1000;
    npcache *cache = nullptr;
    require(npcache_new(argv[1], nullptr, &cache, nullptr) == 0, "npcache_new");

    // Steps through the keys in an order that no prefetcher guesses.
    const auto at = [](size_t keys, int thread, int i) { return (size_t(i) * 7919 + thread * 104729) % keys; };
    const auto hits = [&](Scene &scene, int threads, int calls) {
        return run(threads, [&, calls](int thread) {
            for (int i = 0; i < calls; i++)
                scene.ours(scene.args[at(scene.args.size(), thread, i)], NPCACHE_ORIGIN_MEMORY);
        });
    };
    const auto finds = [&](Scene &scene, int threads, int calls) {
        return run(threads, [&, calls](int thread) {
            for (int i = 0; i < calls; i++)
                scene.other(scene.args[at(scene.args.size(), thread, i)]);
        });
    };

    for (size_t len : {16, 256, 1024}) {
        Scene scene(cache, keys, len, 1024);
        const std::string name = "memory hit, " + (len < 1024 ? std::to_string(len) + " B" : "1 KiB") + " of arguments";
        row(name + " ÷ C++ map", "ns", rounds, calls, [&] { return hits(scene, 1, calls) / calls; },
            [&] { return finds(scene, 1, calls) / calls; });
    }
    {
        Scene one(cache, 1, 16, 1024);
        row("memory hit, the same key again ÷ C++ map", "ns", rounds, calls, [&] { return hits(one, 1, calls) / calls; },
            [&] { return finds(one, 1, calls) / calls; });
    }
    {
        Scene large(cache, 100, 16, 1 << 20);
        row("memory hit, 1 MiB result ÷ C++ map", "ns", rounds, calls, [&] { return hits(large, 1, calls) / calls; },
            [&] { return finds(large, 1, calls) / calls; });
    }

    Scene scene(cache, keys, 16, 1024);
    for (int threads : {2, 8})
        row("memory hit, " + std::to_string(threads) + " threads, the same keys ÷ C++ map", "ns", rounds, calls * threads,
            [&] { return hits(scene, threads, calls) / calls / threads; },
            [&] { return finds(scene, threads, calls) / calls / threads; });

    // Each thread has its own half of the keys. Throughput with two threads over that with one.
    const auto halves = [&](int threads) {
        return run(threads, [&](int thread) {
            for (int i = 0; i < calls; i++)
                scene.ours(scene.args[at(keys / 2, 0, i) + thread * (keys / 2)], NPCACHE_ORIGIN_MEMORY);
        });
    };
    const auto one_key = [&](int threads) {
        return run(threads, [&](int) {
            for (int i = 0; i < calls; i++)
                scene.ours(scene.args[0], NPCACHE_ORIGIN_MEMORY);
        });
    };
    const auto atomics = [&](int threads) { return private_atomics(threads, 10 * calls); };
    const auto scaling = [&](const auto &work) { return 2 * work(1) / work(2); };
    row("memory hits, 2 threads, distinct keys: throughput over that of 1 ÷ private atomics", "times", rounds, calls,
        [&] { return scaling(halves); }, [&] { return scaling(atomics); });
    row("memory hits, 2 threads, one shared key: throughput over that of 1 ÷ private atomics", "times", rounds, calls,
        [&] { return scaling(one_key); }, [&] { return scaling(atomics); });
    npcache_free(cache);
}
