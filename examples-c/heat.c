/* How far a square plate has warmed up after half a minute, for eight materials: a parameter sweep whose second
   run is all hits.

       heat [CACHE_DIR]

   The plate is cold at first; then one edge is held hot and three are held cold. Explicit finite differences
   solve the heat equation, du/dt = a (d2u/dx2 + d2u/dy2), for each diffusivity a. The four plates with one hot
   edge each add up to one that is hot all around, so the centre ends a quarter of the way from cold to hot. */
#define _POSIX_C_SOURCE 199309L /* clock_gettime, which C99 alone does not have */
#include <math.h>
#include <npcache.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The arguments, whose bytes are the key. Members of one size leave no padding between or after them. Padding
   would be in the key without having a defined value: equal parameters would then miss, at random, and be
   computed again. The array has a negative size, and does not compile, once there is some. */
struct plate {
    double diffusivity; /* m^2/s */
    double side;        /* m */
    double duration;    /* s */
    double cold, hot;   /* degrees C */
    int64_t points;     /* along an edge; odd, so that one is the centre */
};
typedef char plate_has_no_padding[sizeof(struct plate) == 5 * sizeof(double) + sizeof(int64_t) ? 1 : -1];

/* At 300 K; Incropera and DeWitt, Fundamentals of Heat and Mass Transfer, table A.1. */
static const struct {
    const char *name;
    double diffusivity; /* m^2/s */
} materials[] = {
    {"silver", 174e-6}, {"copper", 117e-6}, {"aluminium", 97.1e-6}, {"tungsten", 68.3e-6},
    {"zinc", 41.8e-6},  {"iron", 23.1e-6},  {"titanium", 9.32e-6},  {"stainless steel", 3.95e-6},
};
enum { MATERIALS = sizeof materials / sizeof materials[0] };

/* r = a dt / h^2, which must not exceed 1/4: above that, the explicit scheme amplifies rounding errors. */
static void time_step(double *restrict next, const double *restrict u, int64_t n, double r)
{
    for (int64_t y = 1; y < n - 1; y++)
        for (int64_t i = y * n + 1; i < (y + 1) * n - 1; i++)
            next[i] = u[i] + r * (u[i - 1] + u[i + 1] + u[i - n] + u[i + n] - 4.0 * u[i]);
}

static int32_t heat(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    const struct plate *p = args;
    const int64_t n = p->points, shape[] = {n, n};
    const double h = p->side / (double)(n - 1);
    const double steps = 2.0 * ceil(2.0 * p->diffusivity * p->duration / (h * h)); /* even: they come in pairs */
    const double r = p->diffusivity * (p->duration / steps) / (h * h);
    double *temperature = npcache_output_alloc(out, NULL, NPCACHE_FLOAT64, 2, shape, NPCACHE_ORDER_C);
    double *next = malloc((size_t)(n * n) * sizeof *next);

    fprintf(user_data, "computing: %zu bytes of arguments, %.0f time steps\n", args_len, steps);
    if (next == NULL)
        npcache_output_fail(out, "no memory for the next time step");
    if (next != NULL && temperature != NULL) {
        for (int64_t i = 0; i < n * n; i++)
            temperature[i] = next[i] = i < n ? p->hot : p->cold;
        for (double step = 0; step < steps; step += 2) {
            time_step(next, temperature, n, r);
            time_step(temperature, next, n, r);
        }
    }
    free(next);
    return npcache_output_commit(out); /* reports whatever failed above */
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : "heat-cache";
    struct plate plate = {0.0, 0.1, 30.0, 20.0, 100.0, 129};
    npcache *cache = NULL;
    npcache_error *error = NULL;
    int material, computed = 0;

    const double start = now();
    npcache_status status = npcache_new(directory, NULL, &cache, &error);
    for (material = 0; status == NPCACHE_OK && material < MATERIALS; material++) {
        npcache_buffer *result = NULL;
        plate.diffusivity = materials[material].diffusivity;
        status = npcache_call(cache, "heat", NULL, &plate, sizeof plate, heat, stderr, &result, &error);
        if (status == NPCACHE_OK) {
            const double *temperature = npcache_buffer_data(result, 0, NPCACHE_FLOAT64, NULL);
            const int fresh = npcache_buffer_origin(result) == NPCACHE_ORIGIN_COMPUTED;
            computed += fresh;
            printf("%-16s %8.4f degrees at the centre, %s\n", materials[material].name,
                   temperature[plate.points * plate.points / 2], fresh ? "computed" : "from the cache");
        }
        npcache_buffer_release(result);
    }
    if (status == NPCACHE_OK)
        printf("%d materials in %.6f s: %d computed, %d from the cache\n", MATERIALS, now() - start, computed,
               MATERIALS - computed);
    else
        fprintf(stderr, "heat: %s\n", npcache_error_message(error));
    npcache_error_free(error);
    npcache_free(cache);
    return status != NPCACHE_OK;
}
