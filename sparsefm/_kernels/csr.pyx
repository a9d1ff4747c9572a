# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Passes over CSR arrays that know no model: checking them, and turning them into columns."""
from libc.math cimport fabs, isfinite
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

ctypedef fused IDX:
    int32_t
    int64_t

ctypedef fused REAL:
    float
    double

cdef extern from *:
    """
    #define RADIX_BITS 12 /* the counters of one pass stay in the first-level cache */
    """
    const int RADIX_BITS


def scan_indptr(const IDX[::1] indptr, Py_ssize_t nnz):
    """(first row whose bounds are no slice of 0 … nnz, or −1; length of every row, or −1 if they differ)."""
    cdef Py_ssize_t i, n_rows = indptr.shape[0] - 1, bad = -1
    cdef IDX length = indptr[1] - indptr[0] if n_rows > 0 else 0
    cdef bint same = True
    with nogil:
        for i in range(n_rows):
            if indptr[i] < 0 or indptr[i + 1] < indptr[i] or indptr[i + 1] > nnz:
                bad = i
                break
            if indptr[i + 1] - indptr[i] != length:
                same = False
    return bad, (length if same else -1)


def scan(
    const IDX[::1] indices,     # IN (nnz,)
    const REAL[::1] data,       # IN (nnz,)
    const IDX[::1] indptr,      # IN (n_rows + 1,), checked by scan_indptr
    Py_ssize_t n_features,
):
    """What is unusual about the entries, in one pass:
    (entry whose index is outside 0 … n_features − 1, or −1; entry that is not finite, or −1;
    every row strictly ascending; no stored zeros; every value one)."""
    cdef Py_ssize_t i, p, bad_index = -1, bad_value = -1
    cdef IDX j, previous, n = <IDX>n_features
    cdef REAL x
    cdef bint ascending = True, no_zeros = True, ones = True
    with nogil:
        for i in range(indptr.shape[0] - 1):
            previous = -1
            for p in range(indptr[i], indptr[i + 1]):
                j = indices[p]
                x = data[p]
                if j < 0 or j >= n:
                    bad_index = p
                    break
                if j <= previous:
                    ascending = False
                previous = j
                if x != 1:
                    ones = False
                    if x == 0:
                        no_zeros = False
                    elif not isfinite(x):
                        if bad_value < 0:
                            bad_value = p
            if bad_index >= 0:
                break
    return bad_index, bad_value, bool(ascending), bool(no_zeros), bool(ones)


cdef Py_ssize_t transposed(
    int64_t *features, int64_t *colptr, int64_t *entry_rows, REAL *entry_data,
    const IDX *indptr, const IDX *indices, const REAL *data, Py_ssize_t n_rows, Py_ssize_t nnz,
) except -1:
    """A stable radix sort of words (index, position), some bits of the index at a time: O(nnz) for any number of
    features, no table of that length, and entries of one feature stay in row order."""
    cdef Py_ssize_t i, p, at, here, n_touched = 0, last = nnz - 1
    cdef uint64_t top = 0, word, following, digits, place
    cdef int bits = 0, position_bits = 0, width, passes, shift, turn
    if nnz == 0:
        colptr[0] = 0
        return 0
    for p in range(nnz):
        top |= <uint64_t>indices[p]
    while top >> bits:
        bits += 1
    while last >> position_bits:
        position_bits += 1
    if bits + position_bits > 64:
        raise OverflowError(f"{nnz} entries with column indices up to {top} are too many for one batch; split it")
    # about as many buckets as entries, but no more than the first-level cache holds counters
    width = min(max(position_bits, 6), RADIX_BITS)
    passes = (bits + width - 1) // width
    if passes:
        width = (bits + passes - 1) // passes
    cdef uint64_t *a = <uint64_t *>malloc(nnz * sizeof(uint64_t))
    cdef uint64_t *b = <uint64_t *>malloc(nnz * sizeof(uint64_t))
    cdef Py_ssize_t *count = <Py_ssize_t *>calloc((passes + 1) << width, sizeof(Py_ssize_t))
    cdef Py_ssize_t *counter
    cdef Py_ssize_t *ahead
    cdef uint64_t *swap
    if a == NULL or b == NULL or count == NULL:
        free(a)
        free(b)
        free(count)
        raise MemoryError()
    with nogil:
        digits = (<uint64_t>1 << width) - 1
        for p in range(nnz):
            word = <uint64_t>indices[p]
            a[p] = word << position_bits | <uint64_t>p
            count[word & digits] += 1
        shift = position_bits
        for turn in range(passes):
            ahead = count + (<Py_ssize_t>digits + 1) * (turn + 1)  # counters of the next digit
            counter = ahead - (<Py_ssize_t>digits + 1)
            at = 0
            for i in range(<Py_ssize_t>digits + 1):
                here = counter[i]
                counter[i] = at
                at += here
            for p in range(nnz):
                word = a[p]
                i = (word >> shift) & digits
                here = counter[i]
                counter[i] = here + 1
                b[here] = word
                ahead[(word >> shift >> width) & digits] += 1
            swap = a
            a = b
            b = swap
            shift += width
        # b is free now: it holds the row of each position
        for i in range(n_rows):
            for p in range(indptr[i], indptr[i + 1]):
                b[p] = <uint64_t>i
        place = (<uint64_t>1 << position_bits) - 1
        following = a[0]
        for p in range(nnz):
            word = following
            following = a[p + 1] if p < last else ~word
            entry_rows[p] = <int64_t>b[word & place]
            if data != NULL:
                entry_data[p] = data[word & place]
            features[n_touched] = <int64_t>(word >> position_bits)
            colptr[n_touched + 1] = p + 1  # so far
            n_touched += (word ^ following) >> position_bits != 0
        colptr[0] = 0
    free(a)
    free(b)
    free(count)
    return n_touched


def transpose(
    int64_t[::1] features,      # OUT (nnz,): the touched features, ascending, in its first n_touched places
    int64_t[::1] colptr,        # OUT (nnz + 1,): where each one's entries begin, n_touched + 1 places
    int64_t[::1] entry_rows,    # OUT (nnz,): the row of each entry, ordered by feature, then by row
    REAL[::1] entry_data,       # OUT (nnz,): the value of each of those entries
    const IDX[::1] indptr,      # IN (n_rows + 1,), beginning at 0
    const IDX[::1] indices,     # IN (nnz,)
    const REAL[::1] data,       # IN (nnz,), None: every value is one, and entry_data is not written
):
    """Columns of the touched features only; returns n_touched."""
    return transposed[REAL, IDX](
        &features[0], &colptr[0], &entry_rows[0], &entry_data[0],
        &indptr[0], &indices[0], NULL if data is None else &data[0], indptr.shape[0] - 1, indices.shape[0],
    )


def batch_columns(
    IDX[::1] features,          # OUT (nnz,): the touched features of each batch, from where its entries begin
    int32_t[::1] ends,          # OUT (nnz,): where each one's entries end, counted within the batch
    uint16_t[::1] entry_rows,   # OUT (nnz,): their rows, counted within the batch
    REAL[::1] entry_data,       # OUT (nnz,): their values; None with data
    int64_t[::1] n_columns,     # OUT (n_batches,): how many features each batch touches
    const int64_t[::1] entry_from,  # IN (n_batches + 1,): where the entries of each batch begin
    const IDX[::1] indptr,      # IN (n_rows + 1,)
    const IDX[::1] indices,     # IN (nnz,)
    const REAL[::1] data,       # IN (nnz,), None: every value is one
    const IDX[::1] order,       # IN (n_rows,): rows batch by batch
    Py_ssize_t batch_size,
    Py_ssize_t start,
    Py_ssize_t stop,
):
    """The columns of batches start … stop, each transposed for itself: entries by feature, then by row."""
    cdef Py_ssize_t batch, i, p, q, at, n, rows, n_touched, longest = 1
    cdef IDX r
    for batch in range(start, stop):
        longest = max(longest, entry_from[batch + 1] - entry_from[batch])
    cdef IDX *row_from = <IDX *>malloc((batch_size + 1) * sizeof(IDX))
    cdef IDX *index = <IDX *>malloc(longest * sizeof(IDX))
    cdef REAL *value = <REAL *>malloc(longest * sizeof(REAL))
    cdef REAL *value_out = <REAL *>malloc(longest * sizeof(REAL))
    cdef int64_t *wide = <int64_t *>malloc((3 * longest + 1) * sizeof(int64_t))
    cdef int64_t *colptr = wide + longest
    cdef int64_t *entries = wide + 2 * longest + 1
    try:
        if row_from == NULL or index == NULL or value == NULL or value_out == NULL or wide == NULL:
            raise MemoryError()
        for batch in range(start, stop):
            rows = min(batch_size, order.shape[0] - batch * batch_size)
            at = entry_from[batch]
            n = 0
            row_from[0] = 0
            with nogil:
                for i in range(rows):
                    r = order[batch * batch_size + i]
                    for p in range(indptr[r], indptr[r + 1]):
                        index[n] = indices[p]
                        if data is not None:
                            value[n] = data[p]
                        n += 1
                    row_from[i + 1] = <IDX>n
            n_touched = transposed[REAL, IDX](
                wide, colptr, entries, value_out, row_from, index, NULL if data is None else value, rows, n)
            n_columns[batch] = n_touched
            with nogil:
                for q in range(n_touched):
                    features[at + q] = <IDX>wide[q]
                    ends[at + q] = <int32_t>colptr[q + 1]
                for q in range(n):
                    entry_rows[at + q] = <uint16_t>entries[q]
                    if data is not None:
                        entry_data[at + q] = value_out[q]
    finally:
        free(row_from)
        free(index)
        free(value)
        free(value_out)
        free(wide)


def count(
    float[::1] out,             # INOUT (n_features,): + Σ over the rows of a feature of their weights
    const IDX[::1] indptr,      # IN (n_rows + 1,)
    const IDX[::1] indices,     # IN (nnz,)
    const REAL[::1] weight,     # IN (n_rows,), None: all one
):
    """Weighted number of rows in which each feature occurs."""
    cdef Py_ssize_t i, p
    cdef float s
    with nogil:
        for i in range(indptr.shape[0] - 1):
            s = 1 if weight is None else <float>weight[i]
            for p in range(indptr[i], indptr[i + 1]):
                out[indices[p]] += s


def norms(
    const IDX[::1] indptr,      # IN (n_rows + 1,)
    const REAL[::1] data,       # IN (nnz,)
    const REAL[::1] weight,     # IN (n_rows,), None: all one
):
    """(Σ over the rows of weight · sum of the absolute values, the same of their squares), infinite where a double
    cannot hold them."""
    cdef Py_ssize_t i, p
    cdef double total = 0, squares = 0, row, square, s
    with nogil:
        for i in range(indptr.shape[0] - 1):
            s = 1 if weight is None else <double>weight[i]
            if s > 0:
                row = square = 0
                for p in range(indptr[i], indptr[i + 1]):
                    row += fabs(data[p])
                    square += <double>data[p] * <double>data[p]
                total += s * row
                squares += s * square
    return total, squares


def transpose_at(
    bint is_f64, bint is_i64, Py_ssize_t n_rows, Py_ssize_t nnz, size_t features, size_t colptr, size_t entry_rows,
    size_t entry_data, size_t indptr, size_t indices, size_t data,
):
    """`transpose` of arrays given by address; data 0: every value is one."""
    cdef int64_t *out_features = <int64_t *>features
    cdef int64_t *out_colptr = <int64_t *>colptr
    cdef int64_t *out_rows = <int64_t *>entry_rows
    if is_f64 and is_i64:
        return transposed[double, int64_t](
            out_features, out_colptr, out_rows, <double *>entry_data,
            <const int64_t *>indptr, <const int64_t *>indices, <const double *>data, n_rows, nnz)
    if is_f64:
        return transposed[double, int32_t](
            out_features, out_colptr, out_rows, <double *>entry_data,
            <const int32_t *>indptr, <const int32_t *>indices, <const double *>data, n_rows, nnz)
    if is_i64:
        return transposed[float, int64_t](
            out_features, out_colptr, out_rows, <float *>entry_data,
            <const int64_t *>indptr, <const int64_t *>indices, <const float *>data, n_rows, nnz)
    return transposed[float, int32_t](
        out_features, out_colptr, out_rows, <float *>entry_data,
        <const int32_t *>indptr, <const int32_t *>indices, <const float *>data, n_rows, nnz)


cdef bint valid(
    const IDX *indptr, const IDX *indices, Py_ssize_t n_rows, Py_ssize_t nnz, Py_ssize_t n_features
) noexcept nogil:
    """Of j and last − j one is negative exactly if j lies outside 0 … last: collecting their sign bits needs no
    branch, and takes vectors on every machine."""
    cdef Py_ssize_t i
    cdef uint64_t bad = indptr[0] != 0 or indptr[n_rows] != nnz
    cdef uint64_t signs64 = 0, last64 = <uint64_t>(n_features - 1)
    cdef uint32_t signs32 = 0, last32 = <uint32_t>min(n_features - 1, <Py_ssize_t>0x7fffffff)
    for i in range(n_rows):
        bad |= indptr[i + 1] < indptr[i]
    if IDX is int64_t:
        for i in range(nnz):
            signs64 |= <uint64_t>indices[i] | (last64 - <uint64_t>indices[i])
    else:
        for i in range(nnz):
            signs32 |= <uint32_t>indices[i] | (last32 - <uint32_t>indices[i])
    return not (bad or signs64 >> 63 or signs32 >> 31)


def valid_at(bint is_i64, Py_ssize_t n_rows, Py_ssize_t nnz, Py_ssize_t n_features, size_t indptr, size_t indices):
    """Whether arrays given by address are rows of n_features columns: no read of a kernel leaves them then."""
    cdef bint answer
    with nogil:
        if is_i64:
            answer = valid(<const int64_t *>indptr, <const int64_t *>indices, n_rows, nnz, n_features)
        else:
            answer = valid(<const int32_t *>indptr, <const int32_t *>indices, n_rows, nnz, n_features)
    return answer
