/* Geodesic distances between handwritten digits: a program that does seconds of real work once.

       geodesics [CACHE_DIR [K [TABLE.npy]]]

   Each row of the table is a point (an 8 x 8 image). Points are joined to their K nearest neighbours, and
   Floyd-Warshall finds the length of the shortest path between every two of them, and its first step: what
   Isomap starts from. One line on standard output says where the result came from; one on standard error
   appears only when the function really runs, which is how demo.py counts computations. */
#define _POSIX_C_SOURCE 199309L /* clock_gettime, which C99 alone does not have */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <npcache.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Ink that counts as one unit of length: 16 would put every pixel between 0 and 1. demo.py edits this line
   and rebuilds: the new build has another build ID, hence its own results. */
#define INK_UNIT 1.0

/* The most rows and columns that a table may have: 32 GB of distances, and a squared distance fits an int. */
enum { MAX_ROWS = 65536, MAX_COLS = 4096 };

/* The arguments of the function, whose bytes are its key. A pointer to the pixels would not do: npcache would
   see the address and not the image. So the table itself is in here. Three int64_t and then bytes leave no
   padding (see heat.c for why that matters). */
struct problem {
    int64_t neighbours, rows, cols;
    uint8_t pixel[];
};

static int squared_distance(const uint8_t *restrict a, const uint8_t *restrict b, int64_t cols)
{
    int sum = 0;
    for (int64_t c = 0; c < cols; c++)
        sum += (a[c] - b[c]) * (a[c] - b[c]);
    return sum;
}

/* An edge between i and j wherever one is among the other's nearest. Ties go to the lower row, so that the
   graph does not depend on the machine. `square` is room for one row of distances. */
static void neighbour_graph(const struct problem *p, int *square, double *length, int32_t *step)
{
    const int64_t n = p->rows;
    for (int64_t i = 0; i < n * n; i++) {
        length[i] = INFINITY;
        step[i] = -1;
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++)
            square[j] = squared_distance(p->pixel + i * p->cols, p->pixel + j * p->cols, p->cols);
        square[i] = INT32_MAX;
        for (int64_t found = 0; found < p->neighbours; found++) {
            int64_t nearest = 0;
            for (int64_t j = 1; j < n; j++)
                if (square[j] < square[nearest])
                    nearest = j;
            length[i * n + nearest] = length[nearest * n + i] = sqrt(square[nearest]) / INK_UNIT;
            step[i * n + nearest] = (int32_t)nearest;
            step[nearest * n + i] = (int32_t)i;
            square[nearest] = INT32_MAX;
        }
        length[i * n + i] = 0.0;
        step[i * n + i] = (int32_t)i;
    }
}

static int32_t geodesics(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    const struct problem *p = args;
    const int64_t n = p->rows, shape[] = {n, n};
    double *length = npcache_output_alloc(out, "length", NPCACHE_FLOAT64, 2, shape, NPCACHE_ORDER_C);
    int32_t *step = npcache_output_alloc(out, "step", NPCACHE_INT32, 2, shape, NPCACHE_ORDER_C);
    int *square = malloc((size_t)n * sizeof *square);

    fprintf(user_data, "computing: %zu bytes of arguments, %" PRId64 " neighbours\n", args_len, p->neighbours);
    if (square == NULL)
        npcache_output_fail(out, "no memory for a row of distances");
    if (square != NULL && length != NULL && step != NULL) {
        neighbour_graph(p, square, length, step);
        for (int64_t via = 0; via < n; via++)
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < n; j++) {
                    const double through = length[i * n + via] + length[via * n + j];
                    if (through < length[i * n + j]) {
                        length[i * n + j] = through;
                        step[i * n + j] = step[i * n + via];
                    }
                }
    }
    free(square);
    return npcache_output_commit(out); /* reports whatever failed above */
}

/* The problem with its table from an .npy file: exactly what numpy.save writes for a C-order array of uint8.
   NULL, after a message, for any other. */
static struct problem *read_problem(const char *path, int64_t neighbours)
{
    unsigned char start[10];
    char header[256] = "";
    int64_t rows = 0, cols = 0;
    int end = 0;
    struct problem *p = NULL;
    const char *wrong = "not an .npy file of format 1.0";
    FILE *file = fopen(path, "rb");

    if (file == NULL) {
        fprintf(stderr, "geodesics: cannot open the table %s: %s (the third argument says where it is)\n",
                path, strerror(errno));
        return NULL;
    }
    if (fread(start, 1, sizeof start, file) != sizeof start || memcmp(start, "\x93NUMPY\x01\x00", 8) != 0)
        goto done;
    const size_t header_len = start[8] + 256u * start[9];
    if (header_len >= sizeof header || fread(header, 1, header_len, file) != header_len)
        goto done;
    wrong = "not a C-order table of uint8 (numpy.save(path, table.astype('u1')) writes one)";
    /* %n is reached only if all before it matched, the closing brace included. */
    sscanf(header, "{'descr': '|u1', 'fortran_order': False, 'shape': (%9" SCNd64 ", %9" SCNd64 "), }%n",
           &rows, &cols, &end);
    if (end == 0)
        goto done;
    wrong = "too large, or without rows or columns";
    if (rows < 1 || rows > MAX_ROWS || cols < 1 || cols > MAX_COLS)
        goto done;
    wrong = "too small for so many neighbours";
    if (neighbours >= rows)
        goto done;
    const size_t size = (size_t)(rows * cols);
    wrong = "too large for this machine's memory";
    p = malloc(sizeof *p + size);
    if (p == NULL)
        goto done;
    *p = (struct problem){neighbours, rows, cols};
    wrong = "cut short, or longer than its header says";
    if (fread(p->pixel, 1, size, file) == size && fgetc(file) == EOF)
        wrong = NULL;
done:
    fclose(file);
    if (wrong != NULL) {
        fprintf(stderr, "geodesics: %s is %s\n", path, wrong);
        free(p);
        p = NULL;
    }
    return p;
}

static const char *origin(const npcache_buffer *result)
{
    switch (npcache_buffer_origin(result)) {
    case NPCACHE_ORIGIN_COMPUTED: return "computed";
    case NPCACHE_ORIGIN_MEMORY: return "from memory";
    case NPCACHE_ORIGIN_DISK: return "from disk";
    case NPCACHE_ORIGIN_SHARED: return "shared";
    default: return "from somewhere new";
    }
}

/* The two points farthest apart among those that a path joins: a number that depends on the whole result. */
static void report(const npcache_buffer *result, int64_t n, double seconds)
{
    const double *length = npcache_buffer_data(result, 0, NPCACHE_FLOAT64, NULL);
    const int32_t *step = npcache_buffer_data(result, 1, NPCACHE_INT32, NULL);
    const char *path = npcache_buffer_path(result);
    int64_t far = 0;
    int steps = 0;

    for (int64_t i = 0; i < n * n; i++)
        if (length[i] > length[far] && length[i] < INFINITY)
            far = i;
    for (int64_t i = far / n; i != far % n; i = step[i * n + far % n])
        steps++;
    printf("%s in %.6f s; farthest: %" PRId64 " and %" PRId64 ", %.17g in %d steps; %s\n", origin(result), seconds,
           far / n, far % n, length[far], steps,
           path != NULL ? path : npcache_status_string(npcache_buffer_stored(result)));
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : "geodesics-cache";
    const long neighbours = argc > 2 ? strtol(argv[2], NULL, 10) : 6;
    const char *table = argc > 3 ? argv[3] : "data/digits.npy";
    npcache *cache = NULL;
    npcache_buffer *result = NULL;
    npcache_error *error = NULL;

    if (argc > 4 || neighbours < 1) {
        fprintf(stderr, "usage: geodesics [CACHE_DIR [K [TABLE.npy]]], K at least 1\n");
        return 2;
    }
    struct problem *p = read_problem(table, neighbours);
    if (p == NULL)
        return 1;

    const size_t args_len = sizeof *p + (size_t)(p->rows * p->cols);
    const double start = now();
    if (npcache_new(directory, NULL, &cache, &error)
        || npcache_call(cache, "geodesics", NULL, p, args_len, geodesics, stderr, &result, &error))
        fprintf(stderr, "geodesics: %s\n", npcache_error_message(error));
    else
        report(result, p->rows, now() - start);

    const int failed = result == NULL;
    npcache_buffer_release(result);
    npcache_error_free(error);
    npcache_free(cache);
    free(p);
    return failed;
}
