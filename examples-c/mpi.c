/* The temperatures of a square plate in equilibrium, computed by all ranks of an MPI program together, once.

       mpicc mpi.c -lnpcache -lm -Wl,--build-id
       mpirun -n 2 ./a.out [CACHE_DIR]

   A rank that finds the result while another one computes would leave that one alone in its next collective call. So
   one rank asks for all of them: rank 0 begins the call and broadcasts hit or miss, all ranks compute, rank 0 stores,
   and everybody gets the result from it. docs/mpi.md says more.

   One edge of the plate is hot, three are cold. Jacobi's iteration replaces each temperature by the mean of its four
   neighbours', until none changes. Each rank has some of the rows. Four such plates, one for each hot edge, add up to
   one that is hot all around, so the centre ends a quarter of the way from cold to hot. */
#include <math.h>
#include <mpi.h>
#include <npcache.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS = 65, INNER = POINTS - 2 }; /* rows and columns; without the edges, which stay as they are */

static const double cold = 20.0, hot = 100.0, tolerance = 1e-8; /* degrees C */

/* The first of the inner rows, from 1, that belongs to a rank; for rank == size, one past the last. */
static int first_row(int rank, int size)
{
    return 1 + INNER * rank / size;
}

/* The expensive function, and a collective one: every rank has to call it. Fills plate, of POINTS * POINTS elements, on
   rank 0. */
static void equilibrium(double *plate, int rank, int size)
{
    const int first = first_row(rank, size), rows = first_row(rank + 1, size) - first;
    const int above = rank > 0 ? rank - 1 : MPI_PROC_NULL, below = rank + 1 < size ? rank + 1 : MPI_PROC_NULL;
    double (*u)[POINTS] = calloc((size_t)rows + 2, sizeof *u); /* with a row of the neighbours' on either side */
    double (*next)[POINTS] = calloc((size_t)rows + 2, sizeof *next);
    int *counts = malloc((size_t)size * sizeof *counts), *starts = malloc((size_t)size * sizeof *starts);
    double change;

    if (u == NULL || next == NULL || counts == NULL || starts == NULL)
        MPI_Abort(MPI_COMM_WORLD, 1); /* the others are waiting for this rank */
    fprintf(stderr, "rank %d of %d computes %d rows\n", rank, size, rows);
    for (int y = 0; y < rows + 2; y++)
        for (int x = 0; x < POINTS; x++)
            u[y][x] = next[y][x] = first + y - 1 == 0 ? hot : cold;
    do {
        double largest = 0.0;
        MPI_Sendrecv(u[1], POINTS, MPI_DOUBLE, above, 0, u[rows + 1], POINTS, MPI_DOUBLE, below, 0, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        MPI_Sendrecv(u[rows], POINTS, MPI_DOUBLE, below, 0, u[0], POINTS, MPI_DOUBLE, above, 0, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        for (int y = 1; y <= rows; y++)
            for (int x = 1; x <= INNER; x++) {
                next[y][x] = 0.25 * (u[y][x - 1] + u[y][x + 1] + u[y - 1][x] + u[y + 1][x]);
                largest = fmax(largest, fabs(next[y][x] - u[y][x]));
            }
        memcpy(u[1], next[1], (size_t)rows * sizeof *u);
        MPI_Allreduce(&largest, &change, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    } while (change > tolerance);

    for (int r = 0; r < size; r++) {
        starts[r] = first_row(r, size) * POINTS;
        counts[r] = first_row(r + 1, size) * POINTS - starts[r];
    }
    MPI_Gatherv(u[1], rows * POINTS, MPI_DOUBLE, plate, counts, starts, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    for (int x = 0; rank == 0 && x < POINTS; x++) {
        plate[x] = hot;
        plate[(POINTS - 1) * POINTS + x] = cold;
    }
    free(u);
    free(next);
    free(counts);
    free(starts);
}

enum { HIT, MISS, FAILED }; /* what rank 0 tells the others */

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : "mpi-cache";
    const int64_t shape[] = {POINTS, POINTS};
    npcache *cache = NULL;
    npcache_function *function = NULL;
    npcache_args *args = NULL;
    npcache_buffer *result = NULL;
    npcache_output *todo = NULL;
    npcache_error *error = NULL;
    double *plate = NULL;
    int rank, size, answer = HIT;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size > INNER) {
        fprintf(stderr, "mpi: at most %d ranks, one for each row\n", INNER);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }

    /* Rank 0 asks. The number of ranks is no argument: Jacobi's iteration gives the same numbers with any. */
    if (rank == 0) {
        args = npcache_args_new();
        npcache_args_add_float(args, cold);
        npcache_args_add_float(args, hot);
        npcache_args_add_float(args, tolerance);
        npcache_args_add_int(args, POINTS);
        if (npcache_new(directory, NULL, &cache, &error)
            || npcache_function_new(cache, "equilibrium", NULL, &function, &error)
            || npcache_function_add_object(function, (void (*)(void))equilibrium, &error)
            || npcache_begin(function, args, -1, &result, &todo, &error))
            answer = FAILED;
        else if (todo != NULL) {
            answer = MISS;
            plate = npcache_output_alloc(todo, NULL, NPCACHE_FLOAT64, 2, shape, NPCACHE_ORDER_C);
            if (plate == NULL) {
                answer = FAILED;
                npcache_end(todo, NULL, &error); /* says why */
            }
        }
    }

    /* All ranks do what it says. */
    MPI_Bcast(&answer, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (answer == MISS) {
        equilibrium(plate, rank, size);
        if (rank == 0) {
            npcache_output_commit(todo);
            if (npcache_end(todo, &result, &error))
                answer = FAILED;
        }
        MPI_Bcast(&answer, 1, MPI_INT, 0, MPI_COMM_WORLD);
    }

    /* Everybody gets the result from rank 0, where it need not be the program's own memory. */
    if (answer != FAILED) {
        double *all = malloc(sizeof(double[POINTS][POINTS]));
        if (all == NULL)
            MPI_Abort(MPI_COMM_WORLD, 1);
        if (rank == 0)
            npcache_buffer_read(result, 0, all, sizeof(double[POINTS][POINTS]), NPCACHE_ORDER_C);
        MPI_Bcast(all, POINTS * POINTS, MPI_DOUBLE, 0, MPI_COMM_WORLD);
        printf("rank %d of %d: %.4f degrees at the centre, %s\n", rank, size, all[POINTS * POINTS / 2],
               answer == MISS ? "computed" : "from the cache");
        free(all);
    } else if (rank == 0) {
        fprintf(stderr, "mpi: %s\n", npcache_error_message(error));
    }

    npcache_buffer_release(result);
    npcache_error_free(error);
    npcache_args_free(args);
    npcache_function_free(function);
    npcache_free(cache);
    MPI_Finalize();
    return answer == FAILED;
}
