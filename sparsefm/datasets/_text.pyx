# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""libsvm, libFM and libFFM text to and from arrays, a piece at a time, with the GIL released. text.py is the door.

The parser says in which line it stopped, not why: parsing.py knows the reasons.
"""
from libc.math cimport isfinite
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint64_t

ctypedef fused IDX:
    int32_t
    int64_t

ctypedef fused REAL:
    float
    double

cdef extern from "_text.h":
    const int MAX_TOKEN
    bint is_digit(uint8_t c) nogil
    bint is_blank(uint8_t c) nogil
    const uint8_t *skip_blanks(const uint8_t *p) nogil
    const uint8_t *end_of_line(const uint8_t *p, const uint8_t *end) nogil
    const uint8_t *read_integer(const uint8_t *p, const uint8_t *end, uint64_t *value) nogil
    const uint8_t *read_number(const uint8_t *p, const uint8_t *end, double *value) nogil
    const uint8_t *read_any_number(const uint8_t *p, const uint8_t *end, double *value) nogil
    void count_marks(const uint8_t *p, const uint8_t *end, int64_t *newlines, int64_t *colons) nogil
    char *write_integer(char *out, uint64_t value) nogil
    char *write_number(char *out, double x, bint is_f32) nogil


def count(const uint8_t[::1] text, Py_ssize_t start, Py_ssize_t stop):
    """(newlines, colons) in text[start:stop]."""
    cdef int64_t newlines, colons
    with nogil:
        count_marks(&text[0] + start, &text[0] + stop, &newlines, &colons)
    return newlines, colons


cdef struct State:
    const uint8_t *end
    Py_ssize_t capacity     # entries there is room for
    Py_ssize_t n_entries
    uint64_t first          # what the file calls feature 0
    uint64_t n_features     # indices are below it
    uint64_t narrow         # and below this, or the arrays are of the wrong type
    int64_t max_index       # of the rows read, from 0
    bint too_narrow


cdef void sift(IDX *indices, REAL *data, int32_t *fields, Py_ssize_t root, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t child
    cdef IDX index = indices[root]
    cdef REAL value = data[root]
    cdef int32_t field = fields[root] if fields != NULL else 0
    while True:
        child = 2 * root + 1
        if child >= n:
            break
        if child + 1 < n and indices[child + 1] > indices[child]:
            child += 1
        if indices[child] <= index:
            break
        indices[root] = indices[child]
        data[root] = data[child]
        if fields != NULL:
            fields[root] = fields[child]
        root = child
    indices[root] = index
    data[root] = value
    if fields != NULL:
        fields[root] = field


cdef void sort(IDX *indices, REAL *data, int32_t *fields, Py_ssize_t n) noexcept nogil:
    """A heap sort: in place, and a row of millions of entries in the worst order is no trap."""
    cdef Py_ssize_t i
    for i in range(n // 2 - 1, -1, -1):
        sift(indices, data, fields, i, n)
    for i in range(n - 1, 0, -1):
        indices[0], indices[i] = indices[i], indices[0]
        data[0], data[i] = data[i], data[0]
        if fields != NULL:
            fields[0], fields[i] = fields[i], fields[0]
        sift(indices, data, fields, 0, i)


cdef const uint8_t *read_row(
    const uint8_t *p, State *s, double *label, IDX *indices, REAL *data, int32_t *fields
) noexcept nogil:
    """Past the line at p with one row of entries, or NULL if it has a fault or does not fit."""
    cdef uint64_t field = 0, index
    cdef double value
    cdef int64_t previous = -1
    cdef bint ascending = True
    cdef Py_ssize_t i, start = s.n_entries, n = start
    p = read_any_number(p, s.end, label)
    if p == NULL or not isfinite(label[0]):
        return NULL
    while is_blank(p[0]):
        p = skip_blanks(p)
        if not is_digit(p[0]):
            break
        if n == s.capacity:
            return NULL
        if fields != NULL:
            p = read_integer(p, s.end, &field)
            if p == NULL or p[0] != b":" or field > INT32_MAX:
                return NULL
            p += 1
        p = read_integer(p, s.end, &index)
        if p == NULL or p[0] != b":":
            return NULL
        index -= s.first
        if index >= s.narrow:
            s.too_narrow = index < s.n_features
            return NULL
        p = read_number(p + 1, s.end, &value)
        if p == NULL:
            return NULL
        indices[n] = <IDX>index
        data[n] = <REAL>value
        if not isfinite(data[n]):
            return NULL
        if fields != NULL:
            fields[n] = <int32_t>field
        if <int64_t>index <= previous:
            ascending = False
        previous = <int64_t>index
        n += 1
    p = end_of_line(p, s.end)
    if p == NULL:
        return NULL
    if not ascending:
        sort(indices + start, data + start, NULL if fields == NULL else fields + start, n - start)
        for i in range(start + 1, n):
            if indices[i] == indices[i - 1]:
                return NULL
    if n > start:
        s.max_index = max(s.max_index, <int64_t>indices[n - 1])
    s.n_entries = n
    return p


def parse(
    const uint8_t[::1] text,    # IN; text[stop − 1] is a newline
    Py_ssize_t start,
    Py_ssize_t stop,
    uint64_t first,             # what the file calls feature 0
    uint64_t n_features,        # indices are below it
    IDX[::1] ends,              # OUT (rows there is room for,) entries of the piece up to the end of each row
    IDX[::1] indices,           # OUT (entries there is room for,) ascending in each row
    REAL[::1] data,             # OUT (entries there is room for,)
    double[::1] y,              # OUT (rows there is room for,)
    int32_t[::1] fields,        # OUT (entries there is room for,); None: the text has no fields
):
    """(rows, entries, largest index or −1, where the line with the first fault starts or −1, whether that line was
    refused only because of indices that IDX cannot hold)."""
    cdef State s
    cdef const uint8_t *p = &text[0] + start
    cdef const uint8_t *line
    cdef const uint8_t *after
    cdef int32_t *to_fields = NULL if fields is None else &fields[0]
    cdef Py_ssize_t n_rows = 0, capacity = ends.shape[0]
    s.end = &text[0] + stop
    s.capacity = indices.shape[0]
    s.n_entries = 0
    s.first = first
    s.n_features = n_features
    s.narrow = min(n_features, <uint64_t>INT32_MAX) if sizeof(IDX) == 4 else n_features
    s.max_index = -1
    s.too_narrow = False
    line = p
    with nogil:
        while p < s.end:
            line = p
            p = skip_blanks(p)
            after = end_of_line(p, s.end)
            if after == NULL and n_rows < capacity:
                after = read_row(p, &s, &y[n_rows], &indices[0], &data[0], to_fields)
                if after != NULL:
                    ends[n_rows] = <IDX>s.n_entries
                    n_rows += 1
            p = after
            if p == NULL:
                break
    return n_rows, s.n_entries, s.max_index, (line - &text[0] if p == NULL else -1), bool(s.too_narrow)


def merge_fields(
    int32_t[::1] table,         # INOUT (more than the largest index,) the field of each feature, −1: not known yet
    const IDX[::1] ends,        # IN (n_rows,)
    const IDX[::1] indices,     # IN (n_entries,)
    const int32_t[::1] fields,  # IN (n_entries,)
):
    """The first row with a feature that is in another field already, or −1."""
    cdef Py_ssize_t i, p = 0, bad = -1
    cdef int32_t known
    with nogil:
        for i in range(ends.shape[0]):
            while p < ends[i]:
                known = table[indices[p]]
                if known != fields[p]:
                    if known >= 0:
                        bad = i
                        break
                    table[indices[p]] = fields[p]
                p += 1
            if bad >= 0:
                break
    return bad


def write(
    uint8_t[::1] out,           # OUT (at least MAX_TOKEN,)
    const IDX[::1] indptr,      # IN (n_rows + 1,)
    const IDX[::1] indices,     # IN (nnz,)
    const REAL[::1] data,       # IN (nnz,) finite
    const double[::1] y,        # IN (n_rows,) finite
    const int32_t[::1] fields,  # IN (n_features,); None: write none
    uint64_t first,             # what the file calls feature 0
    Py_ssize_t row,
    Py_ssize_t entry,           # of all; −1: the row's label comes first
):
    """Writes from there on until `out` is nearly full or the rows are; (bytes written, row and entry to go on with)."""
    cdef char *begin = <char *>&out[0]
    cdef char *p = begin
    cdef char *full = begin + out.shape[0] - MAX_TOKEN
    cdef Py_ssize_t n_rows = y.shape[0]
    with nogil:
        while row < n_rows and p != NULL and p <= full:
            if entry < 0:
                p = write_number(p, y[row], False)
                entry = indptr[row]
            elif entry < indptr[row + 1]:
                p[0] = b" "
                p += 1
                if fields is not None:
                    p = write_integer(p, <uint64_t>fields[indices[entry]])
                    p[0] = b":"
                    p += 1
                p = write_integer(p, <uint64_t>indices[entry] + first)
                p[0] = b":"
                p = write_number(p + 1, <double>data[entry], sizeof(REAL) == 4)
                entry += 1
            else:
                p[0] = b"\n"
                p += 1
                row += 1
                entry = -1
    if p == NULL:
        raise MemoryError()
    return p - begin, row, entry
