"""Whether a row of fields has the types and the ranges that it should: one call for all of them.

Immutable; any thread may call.
"""

from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.object cimport PyObject, Py_TYPE
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int64_t

cdef enum:
    MOST = 32


cdef class Fields:
    cdef tuple types
    cdef Py_ssize_t count
    cdef Py_ssize_t numbers
    cdef Py_ssize_t places[MOST]
    cdef int64_t lows[MOST]
    cdef int64_t highs[MOST]

    def __cinit__(self, tuple types not None, dict ranges not None):
        cdef Py_ssize_t place, at = 0
        if len(types) > MOST or len(ranges) > MOST:
            raise ValueError(f"a row has at most {MOST} fields")
        for place, (low, high) in ranges.items():
            if not 0 <= place < len(types) or types[place] is not int:
                raise ValueError(f"field {place} is no number")
            self.places[at] = place
            self.lows[at] = low
            self.highs[at] = high
            at += 1
        self.types = types
        self.count = len(types)
        self.numbers = at

    def fit(self, row):
        cdef Py_ssize_t at
        cdef int overflow = 0
        cdef int64_t number
        cdef PyObject *kind
        if not PyTuple_Check(row) or PyTuple_GET_SIZE(row) != self.count:
            return False
        for at in range(self.count):
            kind = <PyObject *>Py_TYPE(<object>PyTuple_GET_ITEM(row, at))
            if kind != <PyObject *>PyTuple_GET_ITEM(self.types, at):
                return False
        for at in range(self.numbers):
            number = PyLong_AsLongLongAndOverflow(
                <object>PyTuple_GET_ITEM(row, self.places[at]), &overflow
            )
            if overflow or number < self.lows[at] or number > self.highs[at]:
                return False
        return True
