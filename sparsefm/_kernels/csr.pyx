# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Passes over CSR arrays that know no model: checking them, and turning them into columns."""
from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

ctypedef fused IDX:
    int32_t
    int64_t

ctypedef fused REAL:
    float
    double


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


def transpose(
    IDX[::1] features,          # OUT (nnz,): the touched features, ascending, in its first n_touched places
    int64_t[::1] colptr,        # OUT (nnz + 1,): where each one's entries begin, n_touched + 1 places
    int64_t[::1] entries,       # OUT (nnz,): positions in the CSR arrays, ordered by feature, then by row
    int64_t[::1] entry_rows,    # OUT (nnz,): the row of each of those entries
    const IDX[::1] indptr,      # IN (n_rows + 1,), beginning at 0
    const IDX[::1] indices,     # IN (nnz,)
):
    """Columns of the touched features only; returns n_touched.

    A stable radix sort of (feature, position) by eleven bits at a time: O(nnz) for any number of features,
    no table of that length, and entries of one feature stay in row order.
    """
    cdef Py_ssize_t nnz = indices.shape[0], n_rows = indptr.shape[0] - 1, i, p, n_touched = 0, at
    cdef int64_t top = 0, digit
    cdef int shift = 0
    cdef int64_t count[2048]
    cdef int64_t *rows = <int64_t *>malloc((nnz + 1) * sizeof(int64_t))
    cdef int64_t *a = <int64_t *>malloc((nnz + 1) * sizeof(int64_t))
    cdef int64_t *b = <int64_t *>malloc((nnz + 1) * sizeof(int64_t))
    cdef int64_t *swap
    if rows == NULL or a == NULL or b == NULL:
        free(rows)
        free(a)
        free(b)
        raise MemoryError()
    with nogil:
        for i in range(n_rows):
            for p in range(indptr[i], indptr[i + 1]):
                rows[p] = i
        for p in range(nnz):
            a[p] = p
            if indices[p] > top:
                top = indices[p]
        while shift == 0 or top >> shift != 0:
            memset(count, 0, sizeof(count))
            for p in range(nnz):
                count[(<int64_t>indices[p] >> shift) & 2047] += 1
            at = 0
            for i in range(2048):
                digit = count[i]
                count[i] = at
                at += digit
            for p in range(nnz):
                digit = (<int64_t>indices[a[p]] >> shift) & 2047
                b[count[digit]] = a[p]
                count[digit] += 1
            swap = a
            a = b
            b = swap
            shift += 11
        for p in range(nnz):
            entries[p] = a[p]
            entry_rows[p] = rows[a[p]]
            if p == 0 or indices[a[p]] != indices[a[p - 1]]:
                features[n_touched] = indices[a[p]]
                colptr[n_touched] = p
                n_touched += 1
        colptr[n_touched] = nnz
    free(rows)
    free(a)
    free(b)
    return n_touched
