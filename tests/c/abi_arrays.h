/* Arrays: every dtype, order, stride and dimension through alloc and write, and back through view, data and read. */

static const struct {
    const char *descr;
    size_t itemsize;
} types[] = {
    {"", 0}, {"|b1", 1}, {"|i1", 1}, {"<i2", 2}, {"<i4", 4}, {"<i8", 8}, {"|u1", 1}, {"<u2", 2},
    {"<u4", 4}, {"<u8", 8}, {"<f2", 2}, {"<f4", 4}, {"<f8", 8}, {"<c8", 8}, {"<c16", 16},
};

enum { I = 3, J = 4, K = 2, COUNT = I * J * K, MAX_ITEMSIZE = 16 };

enum way { ALLOC_C, ALLOC_F, WRITE_C, WRITE_F, WRITE_BACKWARDS, WRITE_WITH_GAPS, WRITE_ROW_AGAIN_AND_AGAIN, WAYS };

struct array_case {
    int32_t dtype;
    int32_t way;
};

/* The bytes of element (i, j, k). */
static void element(const struct array_case *c, int i, int j, int k, unsigned char *bytes)
{
    size_t b, number = (size_t)(((c->way == WRITE_ROW_AGAIN_AND_AGAIN ? 0 : i) * J + j) * K + k);
    for (b = 0; b < types[c->dtype].itemsize; b++)
        bytes[b] = (unsigned char)(c->dtype == NPCACHE_BOOL ? number % 3 == 1 : number * 37 + b * 11 + (size_t)c->dtype);
}

/* Lays the elements out from `first` on by these strides in bytes. */
static void lay_out(const struct array_case *c, unsigned char *first, const int64_t *strides)
{
    int i, j, k;
    for (i = 0; i < I; i++)
        for (j = 0; j < J; j++)
            for (k = 0; k < K; k++)
                element(c, i, j, k, first + i * strides[0] + j * strides[1] + k * strides[2]);
}

static void set_strides(int64_t strides[3], int64_t i, int64_t j, int64_t k)
{
    strides[0] = i;
    strides[1] = j;
    strides[2] = k;
}

static int32_t make_array(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    const struct array_case *c = (const struct array_case *)args;
    const int64_t shape[] = {I, J, K}, size = (int64_t)types[c->dtype].itemsize;
    int64_t strides[3];
    unsigned char memory[8 * COUNT * MAX_ITEMSIZE], *first = memory;

    (void)user_data, (void)args_len;
    memset(memory, 0xee, sizeof memory);
    set_strides(strides, J * K * size, K * size, size);
    switch (c->way) {
    case ALLOC_C:
        first = (unsigned char *)npcache_output_alloc(out, NULL, c->dtype, 3, shape, NPCACHE_ORDER_C);
        break;
    case ALLOC_F:
        set_strides(strides, size, I * size, I * J * size);
        first = (unsigned char *)npcache_output_alloc(out, NULL, c->dtype, 3, shape, NPCACHE_ORDER_F);
        break;
    case WRITE_F:
        set_strides(strides, size, I * size, I * J * size);
        break;
    case WRITE_BACKWARDS:
        set_strides(strides, -J * K * size, K * size, -size);
        first += (I - 1) * J * K * size + (K - 1) * size;
        break;
    case WRITE_WITH_GAPS:
        set_strides(strides, 8 * J * K * size, 4 * K * size + 1, 2 * size);
        break;
    case WRITE_ROW_AGAIN_AND_AGAIN:
        strides[0] = 0;
        break;
    }
    if (!CHECK(first != NULL))
        return 1;
    lay_out(c, first, strides);
    if (c->way >= WRITE_C)
        OK(npcache_output_write(out, NULL, c->dtype, 3, shape, c->way == WRITE_C ? NULL : strides, first));
    return npcache_output_commit(out);
}

static void check_array(const struct array_case *c, const npcache_buffer *buffer)
{
    const size_t size = types[c->dtype].itemsize;
    const int is_f = c->way == ALLOC_F || c->way == WRITE_F;
    unsigned char expected[COUNT * MAX_ITEMSIZE], found[COUNT * MAX_ITEMSIZE];
    int64_t c_strides[3], f_strides[3];
    const int64_t *own = is_f ? f_strides : c_strides;
    npcache_view view;
    size_t count = 0;
    int32_t other;

    set_strides(c_strides, (int64_t)(J * K * size), (int64_t)(K * size), (int64_t)size);
    set_strides(f_strides, (int64_t)size, (int64_t)(I * size), (int64_t)(I * J * size));
    OK(npcache_buffer_view(buffer, 0, &view, sizeof view));
    CHECK(view.dtype == c->dtype && strcmp(view.descr, types[c->dtype].descr) == 0);
    CHECK(view.itemsize == (int64_t)size && view.nbytes == COUNT * size && view.name == NULL);
    CHECK(view.ndim == 3 && view.shape[0] == I && view.shape[1] == J && view.shape[2] == K);
    CHECK(memcmp(view.strides, own, 3 * sizeof *own) == 0);
    CHECK(view.flags == (uint32_t)(is_f ? NPCACHE_ORDER_F : NPCACHE_ORDER_C));
    lay_out(c, expected, own);
    CHECK(memcmp(view.data, expected, view.nbytes) == 0);
    CHECK(npcache_buffer_data(buffer, 0, c->dtype, &count) == view.data && count == COUNT);
    for (other = -1; other < 17; other++)
        if (other != c->dtype)
            CHECK(npcache_buffer_data(buffer, 0, other, &count) == NULL && count == 0);

    lay_out(c, expected, c_strides);
    OK(npcache_buffer_read(buffer, 0, found, COUNT * size, NPCACHE_ORDER_C));
    CHECK(memcmp(found, expected, COUNT * size) == 0);
    lay_out(c, expected, f_strides);
    OK(npcache_buffer_read(buffer, 0, found, COUNT * size, NPCACHE_ORDER_F));
    CHECK(memcmp(found, expected, COUNT * size) == 0);
    REFUSED(npcache_buffer_read(buffer, 0, found, COUNT * size - 1, NPCACHE_ORDER_C));
    REFUSED(npcache_buffer_read(buffer, 0, found, COUNT * size + 1, NPCACHE_ORDER_C));
    REFUSED(npcache_buffer_read(buffer, 0, found, COUNT * size, 2));
    REFUSED(npcache_buffer_read(buffer, 0, NULL, COUNT * size, NPCACHE_ORDER_C));
}

static void every_dtype_comes_back_however_it_was_given(void)
{
    npcache *cache = open_cache("dtypes");
    struct array_case c;

    for (c.dtype = NPCACHE_BOOL; c.dtype <= NPCACHE_COMPLEX128; c.dtype++)
        for (c.way = 0; c.way < WAYS; c.way++) {
            int again;
            for (again = 0; again < 2; again++) {
                npcache_buffer *buffer = NULL;
                OK(npcache_call(cache, "array", "1", &c, sizeof c, make_array, NULL, &buffer, NULL));
                CHECK(again ? is_hit(buffer) : is_computed(buffer));
                check_array(&c, buffer);
                npcache_buffer_release(buffer);
            }
        }
    npcache_free(cache);
}

struct descr_case {
    const char *descr;
    const char *canonical;
    size_t itemsize;
    int32_t dtype;
};

static int32_t make_by_descr(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    const struct descr_case *c = (const struct descr_case *)user_data;
    const int64_t shape[] = {2, 2};
    void *memory = npcache_output_alloc_descr(out, "by descr", c->descr, 2, shape, NPCACHE_ORDER_F);

    (void)args, (void)args_len;
    if (memory)
        memset(memory, 0x41, 4 * c->itemsize);
    return npcache_output_commit(out);
}

static void other_types_are_carried_by_their_descr(void)
{
    static const struct descr_case cases[] = {
        {">f4", ">f4", 4, 0},
        {"<U10", "<U10", 40, 0},
        {"|S5", "|S5", 5, 0},
        {"<M8[ns]", "<M8[ns]", 8, 0},
        {"[('x', '<f8'), ('label', '|S4')]", "[('x', '<f8'), ('label', '|S4')]", 12, 0},
        {"<f8", "<f8", 8, NPCACHE_FLOAT64},
    };
    npcache *cache = open_cache("descrs");
    size_t i, b;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct descr_case *c = &cases[i];
        int again;
        for (again = 0; again < 2; again++) {
            npcache_buffer *buffer = NULL;
            npcache_view view;
            size_t count = 1;
            char copy[4 * 40];
            OK(npcache_call(cache, "descr", "1", c->descr, strlen(c->descr), make_by_descr, (void *)(uintptr_t)c, &buffer,
                            NULL));
            CHECK(again ? is_hit(buffer) : is_computed(buffer));
            OK(npcache_buffer_view(buffer, 0, &view, sizeof view));
            CHECK(strcmp(view.descr, c->canonical) == 0 && view.dtype == c->dtype);
            CHECK(view.itemsize == (int64_t)c->itemsize && view.nbytes == 4 * c->itemsize);
            CHECK(view.flags == NPCACHE_ORDER_F && strcmp(view.name, "by descr") == 0);
            OK(npcache_buffer_read(buffer, 0, copy, view.nbytes, NPCACHE_ORDER_C));
            for (b = 0; b < view.nbytes; b++)
                if (((const char *)view.data)[b] != 0x41 || copy[b] != 0x41)
                    CHECK(!"bytes of the array");
            CHECK(npcache_buffer_data(buffer, 0, NPCACHE_FLOAT64, &count) == (c->dtype ? view.data : NULL));
            CHECK(npcache_buffer_data(buffer, 0, 0, &count) == NULL && count == 0);
            npcache_buffer_release(buffer);
        }
    }
    npcache_free(cache);
}

static int32_t make_extremes(void *user_data, const void *args, size_t args_len, npcache_output *out)
{
    const int64_t empty[] = {0}, also_empty[] = {3, 0, 2};
    int64_t many[33];
    const double pi = 3.25;
    int i;
    double *scalar = (double *)npcache_output_alloc(out, "scalar", NPCACHE_FLOAT64, 0, NULL, NPCACHE_ORDER_C);

    (void)user_data, (void)args, (void)args_len;
    *scalar = pi;
    CHECK(npcache_output_alloc(out, "empty", NPCACHE_INT16, 1, empty, NPCACHE_ORDER_C) != NULL);
    CHECK(npcache_output_alloc(out, "also empty", NPCACHE_INT16, 3, also_empty, NPCACHE_ORDER_F) != NULL);
    OK(npcache_output_write(out, "scalar copy", NPCACHE_FLOAT64, 0, NULL, NULL, &pi));
    OK(npcache_output_write(out, "empty copy", NPCACHE_FLOAT64, 1, empty, NULL, NULL));
    for (i = 0; i < 33; i++)
        many[i] = i % 16 == 3 ? 2 : 1;
    memset(npcache_output_alloc(out, "many", NPCACHE_UINT8, 32, many, NPCACHE_ORDER_F), 9, 4);
    return npcache_output_commit(out);
}

static void arrays_of_no_size_no_and_many_dimensions_come_back(void)
{
    npcache *cache = open_cache("extremes");
    int again;

    for (again = 0; again < 2; again++) {
        npcache_buffer *buffer = NULL;
        npcache_view view;
        size_t count = 1;
        double number = 0;
        unsigned char bytes[4];
        OK(npcache_call(cache, "extremes", "1", NULL, 0, make_extremes, NULL, &buffer, NULL));
        CHECK(again ? is_hit(buffer) : is_computed(buffer));
        CHECK(npcache_buffer_count(buffer) == 6);
        OK(npcache_buffer_view(buffer, 0, &view, sizeof view));
        CHECK(view.ndim == 0 && view.nbytes == 8 && *(const double *)view.data == 3.25);
        OK(npcache_buffer_read(buffer, 3, &number, sizeof number, NPCACHE_ORDER_F));
        CHECK(number == 3.25);
        OK(npcache_buffer_view(buffer, 1, &view, sizeof view));
        CHECK(view.ndim == 1 && view.nbytes == 0 && view.shape[0] == 0 && view.data != NULL);
        CHECK(npcache_buffer_data(buffer, 1, NPCACHE_INT16, &count) != NULL && count == 0);
        OK(npcache_buffer_view(buffer, 2, &view, sizeof view));
        CHECK(view.ndim == 3 && view.shape[0] == 3 && view.shape[1] == 0 && view.shape[2] == 2 && view.nbytes == 0);
        CHECK(view.data != NULL && (uintptr_t)view.data % 64 == 0);
        OK(npcache_buffer_read(buffer, 2, bytes, 0, NPCACHE_ORDER_F));
        OK(npcache_buffer_view(buffer, 5, &view, sizeof view));
        CHECK(view.ndim == 32 && view.shape[3] == 2 && view.shape[19] == 2 && view.shape[31] == 1 && view.nbytes == 4);
        OK(npcache_buffer_read(buffer, 5, bytes, sizeof bytes, NPCACHE_ORDER_C));
        CHECK(bytes[0] == 9 && bytes[3] == 9);
        npcache_buffer_release(buffer);
    }
    npcache_free(cache);
}

/* A program of an older header knows fewer fields, one of a newer header more. */
static void a_view_is_filled_up_to_its_size(void)
{
    npcache *cache = open_cache(NULL);
    npcache_buffer *buffer = NULL;
    struct {
        npcache_view view;
        unsigned char more[32];
    } wide;
    unsigned char *bytes = (unsigned char *)&wide;
    size_t size, b;

    OK(npcache_call(cache, "halves", "1", NULL, 0, halves, NULL, &buffer, NULL));
    for (size = 0; size <= sizeof wide; size++) {
        size_t zeros = 0, beyond = 0;
        memset(&wide, 0xaa, sizeof wide);
        OK(npcache_buffer_view(buffer, 0, &wide.view, size));
        for (b = sizeof wide.view; b < size; b++)
            zeros += bytes[b] == 0;
        for (b = size; b < sizeof wide; b++)
            beyond += bytes[b] == 0xaa;
        CHECK(zeros == (size > sizeof wide.view ? size - sizeof wide.view : 0) && beyond == sizeof wide - size);
        if (size >= offsetof(npcache_view, shape))
            CHECK(wide.view.nbytes == 24 && wide.view.data == npcache_buffer_data(buffer, 0, NPCACHE_FLOAT64, NULL));
    }
    memset(&wide, 0xaa, sizeof wide);
    REFUSED(npcache_buffer_view(buffer, 9, &wide.view, sizeof wide));
    for (b = 0; b < sizeof wide; b++)
        if (bytes[b] != 0)
            CHECK(!"a refused view is zeroed");
    npcache_buffer_release(buffer);
    npcache_free(cache);
}

/* Small and mapped results, computed and found. */
static void a_writable_result_is_the_callers_alone(void)
{
    npcache *cache = open_cache("writable");
    int64_t count;

    for (count = 3; count < 200000; count += 100000) {
        int again;
        for (again = 0; again < 2; again++) {
            npcache_buffer *buffer = NULL, *mine = POISON(npcache_buffer), *twice = NULL;
            npcache_error *error = POISON(npcache_error);
            npcache_view view;
            int runs = 0;
            OK(npcache_call(cache, "halves", "1", &count, sizeof count, halves, &runs, &buffer, NULL));
            CHECK(runs == !again);
            OK(npcache_buffer_writable(buffer, &mine, &error));
            CHECK(error == NULL && holds_halves(mine, count));
            OK(npcache_buffer_view(buffer, 0, &view, sizeof view));
            CHECK((view.flags & NPCACHE_WRITABLE) == 0);
            OK(npcache_buffer_view(mine, 0, &view, sizeof view));
            CHECK((view.flags & NPCACHE_WRITABLE) != 0 && (uintptr_t)view.data % 64 == 0);
            ((double *)(uintptr_t)view.data)[count - 1] = -1;
            ((double *)(uintptr_t)view.data)[0] = -1;
            OK(npcache_buffer_writable(buffer, &twice, NULL));
            CHECK(!holds_halves(mine, count) && holds_halves(buffer, count) && holds_halves(twice, count));
            npcache_buffer_release(buffer);
            OK(npcache_call(cache, "halves", "1", &count, sizeof count, halves, &runs, &buffer, NULL));
            CHECK(is_hit(buffer) && holds_halves(buffer, count) && !holds_halves(mine, count));
            npcache_buffer_release(twice);
            npcache_buffer_release(mine);
            npcache_buffer_release(buffer);
        }
    }
    npcache_free(cache);
}

/* DLManagedTensorVersioned of dlpack.h 1.0. */
struct tensor {
    uint32_t major, minor;
    void *manager;
    void (*deleter)(struct tensor *self);
    uint64_t flags;
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};

static void a_tensor_outlives_its_buffer(void)
{
    npcache *cache = open_cache("tensor");
    npcache_buffer *buffer = NULL;
    npcache_error *error = NULL;
    void *made = POISON(void);
    struct tensor *tensor;

    OK(npcache_call(cache, "three", "1", NULL, 0, three_arrays, NULL, &buffer, NULL));
    REFUSED(npcache_buffer_to_dlpack(NULL, 0, &made, &error));
    CHECK(made == NULL && says(&error, NPCACHE_ERR_ARGUMENT, "buffer"));
    REFUSED(npcache_buffer_to_dlpack(buffer, 0, NULL, &error));
    CHECK(says(&error, NPCACHE_ERR_ARGUMENT, "out"));
    REFUSED(npcache_buffer_to_dlpack(buffer, 3, &made, NULL));
    REFUSED(npcache_buffer_to_dlpack(buffer, -1, &made, NULL));
    OK(npcache_buffer_to_dlpack(buffer, 0, &made, NULL));
    tensor = (struct tensor *)made;
    CHECK(tensor->data == npcache_buffer_data(buffer, 0, NPCACHE_INT32, NULL));
    npcache_buffer_release(buffer);
    npcache_free(cache);
    CHECK(tensor->major == 1 && tensor->minor == 0 && tensor->flags == 1 && tensor->device_type == 1);
    CHECK(tensor->ndim == 2 && tensor->shape[0] == 2 && tensor->shape[1] == 3);
    CHECK(tensor->strides[0] == 1 && tensor->strides[1] == 2 && tensor->byte_offset == 0);
    CHECK(tensor->code == 0 && tensor->bits == 32 && tensor->lanes == 1 && ((int32_t *)tensor->data)[5] == 5);
    tensor->deleter(tensor);
}

static void array_tests(void)
{
    every_dtype_comes_back_however_it_was_given();
    other_types_are_carried_by_their_descr();
    arrays_of_no_size_no_and_many_dimensions_come_back();
    a_view_is_filled_up_to_its_size();
    a_writable_result_is_the_callers_alone();
    a_tensor_outlives_its_buffer();
}
