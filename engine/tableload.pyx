"""Rows of a checkpoint into the tables of a database: parsed, judged and inserted without the GIL.

It is the one file that binds SQLCipher: the addresses of its functions are taken once, at import,
from the extension that Python's own module of it is.  A load owns a connection that nobody else
knows, its statements, and a reference to the rows that it was handed last, which hold the newest
key.  One thread at a time uses it.  After any error it is of no use but to be closed.

The rows of a checkpoint are MessagePack in the one encoding that a writer has for them, so what is
compared, bound and handed on are pieces of the bytes that came (FORMAT section 7.1).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from sqlcipher3 import _sqlite3 as sqlcipher

from .errors import BadRows, EngineError, TableFailed

cdef extern from "<dlfcn.h>" nogil:
    void *dlopen(const char *path, int flags)
    void *dlsym(void *library, const char *name)
    int RTLD_NOW

cdef enum:
    SQLITE_OK = 0
    SQLITE_ROW = 100
    SQLITE_DONE = 101
    OPEN_READWRITE = 0x2
    # One thread uses the connection: no mutex for each call.
    OPEN_NOMUTEX = 0x8000

cdef enum:
    TABLES = 128
    # Tables from here on are for rows that the caller made.
    OWN_TABLES = 64
    FIELDS = 32
    KEYS = 8
    NAME_LEN_MAX = 255
    SEGMENT_LEN = 32
    # Segments whose numbers are remembered: neighbours in an order by inode share a few.
    SEGMENTS_KNOWN = 64

cdef enum Verdict:
    FED
    # A row for the caller.
    TOLD
    BAD_FORM
    BAD_FIELDS
    BAD_NUMBER
    BAD_ORDER
    BAD_NAME
    BAD_FIRST
    NO_TABLE
    NO_SEGMENT
    NO_MEMORY
    TABLE_ERROR

_REASONS = {
    BAD_FORM: "A chunk of a checkpoint is not in its one canonical encoding.",
    BAD_FIELDS: "A row of a checkpoint does not have the fields of its table.",
    BAD_NUMBER: "A number in a checkpoint is out of range.",
    BAD_ORDER: "The rows of a checkpoint are not in order.",
    BAD_NAME: "A row of a checkpoint has a name that no file can have.",
    BAD_FIRST: "A chunk begins with another key than its manifest says.",
    NO_TABLE: "A checkpoint has a table that no state has here.",
    NO_SEGMENT: "A file in a checkpoint names a segment that no entry brought.",
}

ctypedef int (*OpenCall)(const char *, void **, int, const char *) noexcept nogil
ctypedef int (*CloseCall)(void *) noexcept nogil
ctypedef int (*PrepareCall)(void *, const char *, int, void **, const char **) noexcept nogil
ctypedef int (*StatementCall)(void *) noexcept nogil
ctypedef int (*NumberCall)(void *, int, int64_t) noexcept nogil
ctypedef int (*BytesCall)(void *, int, const void *, int, void *) noexcept nogil
ctypedef int64_t (*ColumnCall)(void *, int) noexcept nogil
ctypedef int (*RunCall)(void *, const char *, void *, void *, char **) noexcept nogil
ctypedef const char *(*MessageCall)(void *) noexcept nogil

cdef OpenCall open_call = NULL
cdef CloseCall close_call = NULL
cdef PrepareCall prepare_call = NULL
cdef StatementCall step_call = NULL
cdef StatementCall reset_call = NULL
cdef StatementCall finalize_call = NULL
cdef NumberCall bind_number = NULL
cdef BytesCall bind_bytes = NULL
cdef BytesCall bind_text = NULL
cdef ColumnCall column_call = NULL
cdef RunCall run_call = NULL
cdef MessageCall message_call = NULL
cdef StatementCall code_call = NULL


cdef void *_address(void *library, bytes name) except NULL:
    cdef void *found = dlsym(library, PyBytes_AS_STRING(name))
    if found == NULL:
        raise EngineError(f"the SQLCipher inside sqlcipher3 lacks {name.decode()}")
    return found


def _bind():
    global open_call, close_call, prepare_call, step_call, reset_call, finalize_call
    global bind_number, bind_bytes, bind_text, column_call, run_call, message_call, code_call
    cdef bytes path = sqlcipher.__file__.encode()
    cdef void *library = dlopen(PyBytes_AS_STRING(path), RTLD_NOW)
    if library == NULL:
        raise EngineError("the extension of sqlcipher3 cannot be opened")
    open_call = <OpenCall>_address(library, b"sqlite3_open_v2")
    close_call = <CloseCall>_address(library, b"sqlite3_close_v2")
    prepare_call = <PrepareCall>_address(library, b"sqlite3_prepare_v2")
    step_call = <StatementCall>_address(library, b"sqlite3_step")
    reset_call = <StatementCall>_address(library, b"sqlite3_reset")
    finalize_call = <StatementCall>_address(library, b"sqlite3_finalize")
    bind_number = <NumberCall>_address(library, b"sqlite3_bind_int64")
    bind_bytes = <BytesCall>_address(library, b"sqlite3_bind_blob")
    bind_text = <BytesCall>_address(library, b"sqlite3_bind_text")
    column_call = <ColumnCall>_address(library, b"sqlite3_column_int64")
    run_call = <RunCall>_address(library, b"sqlite3_exec")
    message_call = <MessageCall>_address(library, b"sqlite3_errmsg")
    code_call = <StatementCall>_address(library, b"sqlite3_errcode")


_bind()


cdef struct Field:
    int64_t number
    # NULL for a number.
    const uint8_t *data
    int64_t length

cdef struct Table:
    # NULL for a table whose rows the caller is told.
    void *statement
    int count
    int keys
    bint told
    # Of each field: i number, b bytes, n name of a file, s id of a segment, t text.
    char kinds[FIELDS]

cdef struct KnownSegment:
    uint8_t id[SEGMENT_LEN]
    # 0 for none.
    int64_t number

cdef struct LoadCore:
    void *connection
    void *segment_number
    Table tables[TABLES]
    KnownSegment segments[SEGMENTS_KNOWN]
    # The newest key; its bytes are the caller's.
    int last_table
    Field last[KEYS]
    # The row that was read last, and where it, its key without a head, and that key's end are.
    Field row[FIELDS]
    const uint8_t *row_start
    const uint8_t *key_start
    const uint8_t *key_end
    int64_t rows


# --- Kernels -------------------------------------------------------------------------------------


cdef uint64_t big_endian(const uint8_t *at, int size) noexcept nogil:
    cdef uint64_t value = 0
    cdef int place
    for place in range(size):
        value = value << 8 | at[place]
    return value


cdef const uint8_t *read_number(
        const uint8_t *at, const uint8_t *end, Field *field, Verdict *verdict) noexcept nogil:
    """The byte after it; NULL with a verdict."""
    cdef uint8_t head = at[0]
    cdef int size
    cdef uint64_t value
    cdef int64_t low
    field.data = NULL
    field.length = 0
    if head <= 0x7f:
        field.number = head
        return at + 1
    if head >= 0xe0:
        field.number = <int64_t>head - 256
        return at + 1
    if head < 0xcc or head > 0xd3:
        verdict[0] = BAD_FIELDS
        return NULL
    size = 1 << ((head - 0xcc) & 3)
    verdict[0] = BAD_FORM
    if end - at < 1 + size:
        return NULL
    value = big_endian(at + 1, size)
    if head <= 0xcf:
        # What a shorter form can say is not said by a longer one.
        if (value <= 0x7f) if size == 1 else (value >> (4 * size)) == 0:
            return NULL
        if value > <uint64_t>INT64_MAX:
            verdict[0] = BAD_NUMBER
            return NULL
        field.number = <int64_t>value
        return at + 1 + size
    if size == 8:
        field.number = <int64_t>value
    else:
        field.number = <int64_t>value - (<int64_t>1 << (8 * size))
    low = -32 if size == 1 else -(<int64_t>1 << (4 * size - 1))
    if field.number >= low:
        return NULL
    return at + 1 + size


cdef const uint8_t *read_bytes(
        const uint8_t *at, const uint8_t *end, Field *field, Verdict *verdict) noexcept nogil:
    cdef int size
    cdef uint64_t length
    if at[0] < 0xc4 or at[0] > 0xc6:
        verdict[0] = BAD_FIELDS
        return NULL
    verdict[0] = BAD_FORM
    size = 1 << (at[0] - 0xc4)
    if end - at < 1 + size:
        return NULL
    length = big_endian(at + 1, size)
    if size > 1 and length >> (4 * size) == 0:
        return NULL
    at += 1 + size
    if <uint64_t>(end - at) < length:
        return NULL
    field.number = 0
    field.data = at
    field.length = <int64_t>length
    return at + length


cdef bint is_name(const Field *field) noexcept nogil:
    cdef int64_t length = field.length
    cdef const uint8_t *name = field.data
    if length < 1 or length > NAME_LEN_MAX:
        return False
    if memchr(name, c"/", length) != NULL or memchr(name, 0, length) != NULL:
        return False
    return not (name[0] == c"." and (length == 1 or (length == 2 and name[1] == c".")))


cdef const uint8_t *read_row(
        LoadCore *core, const uint8_t *at, const uint8_t *end, int *number,
        Verdict *verdict) noexcept nogil:
    """The byte after it; NULL with a verdict."""
    cdef int count, place
    cdef Table *table
    cdef Field *field
    verdict[0] = BAD_FORM
    core.row_start = at
    if end - at >= 1 and at[0] & 0xf0 == 0x90:
        count = at[0] & 0x0f
        at += 1
    elif end - at >= 3 and at[0] == 0xdc:
        count = <int>big_endian(at + 1, 2)
        if count <= 15:
            return NULL
        at += 3
    else:
        return NULL
    if at == end:
        return NULL
    number[0] = at[0]
    verdict[0] = NO_TABLE
    if at[0] >= TABLES or core.tables[at[0]].count == 0:
        return NULL
    table = &core.tables[at[0]]
    verdict[0] = BAD_FIELDS
    if count != table.count + 1:
        return NULL
    core.key_start = at
    at += 1
    for place in range(table.count):
        if at == end:
            verdict[0] = BAD_FORM
            return NULL
        field = &core.row[place]
        if table.kinds[place] == c"i":
            at = read_number(at, end, field, verdict)
        else:
            at = read_bytes(at, end, field, verdict)
        if at == NULL:
            return NULL
        if table.kinds[place] == c"n" and not is_name(field):
            verdict[0] = BAD_NAME
            return NULL
        if place + 1 == table.keys:
            core.key_end = at
    if table.keys == 0:
        core.key_end = core.key_start + 1
    return at


cdef int compare(const Field *one, const Field *other) noexcept nogil:
    cdef int found
    if one.data == NULL:
        return (one.number > other.number) - (one.number < other.number)
    found = memcmp(
        one.data, other.data, one.length if one.length < other.length else other.length)
    return found if found else (one.length > other.length) - (one.length < other.length)


cdef bint follows(LoadCore *core, int number) noexcept nogil:
    """Whether the row's key is above the newest one, which it becomes."""
    cdef int place, found = number - core.last_table
    cdef int keys = core.tables[number].keys
    if found == 0:
        for place in range(keys):
            found = compare(&core.row[place], &core.last[place])
            if found:
                break
    if found <= 0:
        return False
    core.last_table = number
    memcpy(core.last, core.row, keys * sizeof(Field))
    return True


cdef Verdict number_of_segment(LoadCore *core, const Field *field, int64_t *number) noexcept nogil:
    cdef KnownSegment *known = NULL
    cdef void *statement = core.segment_number
    cdef int code
    number[0] = 0
    if field.length == 0:
        return FED
    if field.length == SEGMENT_LEN:
        known = &core.segments[field.data[0] % SEGMENTS_KNOWN]
        if known.number and memcmp(known.id, field.data, SEGMENT_LEN) == 0:
            number[0] = known.number
            return FED
    bind_bytes(statement, 1, field.data, <int>field.length, NULL)
    code = step_call(statement)
    if code == SQLITE_ROW:
        number[0] = column_call(statement, 0)
    reset_call(statement)
    if code == SQLITE_DONE:
        return NO_SEGMENT
    if code != SQLITE_ROW:
        return TABLE_ERROR
    if known != NULL:
        memcpy(known.id, field.data, SEGMENT_LEN)
        known.number = number[0]
    return FED


cdef Verdict insert_row(LoadCore *core, Table *table) noexcept nogil:
    cdef void *statement = table.statement
    cdef Field *field
    cdef int place, code = SQLITE_OK
    cdef int64_t number
    cdef Verdict verdict
    for place in range(table.count):
        field = &core.row[place]
        if table.kinds[place] == c"i":
            code = bind_number(statement, place + 1, field.number)
        elif table.kinds[place] == c"s":
            verdict = number_of_segment(core, field, &number)
            if verdict != FED:
                return verdict
            code = bind_number(statement, place + 1, number)
        elif table.kinds[place] == c"t":
            code = bind_text(statement, place + 1, field.data, <int>field.length, NULL)
        else:
            code = bind_bytes(statement, place + 1, field.data, <int>field.length, NULL)
        if code != SQLITE_OK:
            return TABLE_ERROR
    if step_call(statement) != SQLITE_DONE:
        return TABLE_ERROR  # Its message goes with the next call.
    reset_call(statement)
    core.rows += 1
    return FED


cdef Verdict feed_rows(
        LoadCore *core, const uint8_t **at, const uint8_t *end, bint ordered) noexcept nogil:
    """Rows until the end, or behind the first one that the caller is told."""
    cdef int number = 0
    cdef const uint8_t *after
    cdef Verdict verdict = FED
    while at[0] != end:
        after = read_row(core, at[0], end, &number, &verdict)
        if after == NULL:
            return verdict
        if ordered:
            if number >= OWN_TABLES:
                return NO_TABLE
            if not follows(core, number):
                return BAD_ORDER
        at[0] = after
        if core.tables[number].told:
            return TOLD
        verdict = insert_row(core, &core.tables[number])
        if verdict != FED:
            return verdict
    return FED


# --- Wrappers ------------------------------------------------------------------------------------


@cython.final
cdef class TableLoad:
    cdef LoadCore core
    cdef bytes held
    cdef bint broken

    def __cinit__(self, str path not None, tuple setup not None):
        cdef bytes place = path.encode("utf-8", "surrogateescape")
        cdef int code
        memset(&self.core, 0, sizeof(LoadCore))
        code = open_call(
            PyBytes_AS_STRING(place), &self.core.connection, OPEN_READWRITE | OPEN_NOMUTEX, NULL)
        if code != SQLITE_OK:
            raise TableFailed("the database cannot be opened", code)
        for statement in setup:
            self.run(statement)

    def __dealloc__(self):
        self._close()

    def close(self):
        self._close()

    def run(self, str sql not None):
        cdef bytes packed = sql.encode()
        cdef const char *text = PyBytes_AS_STRING(packed)
        cdef int code
        self._check()
        with nogil:
            code = run_call(self.core.connection, text, NULL, NULL, NULL)
        if code != SQLITE_OK:
            raise self._failure()

    def take(self, int number, str kinds not None, int keys, str sql=None):
        cdef Table *table
        cdef bytes packed = kinds.encode()
        cdef int place
        self._check()
        if not 0 < number < TABLES or not 0 < len(packed) < FIELDS:
            raise ValueError("a table has a number below 128, and at most 31 fields")
        if not 0 <= keys <= min(KEYS, len(packed)) or set(kinds) - set("ibnst"):
            raise ValueError("a table of no such kinds or keys")
        table = &self.core.tables[number]
        if table.count:
            raise ValueError(f"table {number} is taken already")
        if sql is not None:
            table.statement = self._prepare(sql)
        elif "s" in kinds:
            raise ValueError("a row that is told has no segment's number")
        table.told = sql is None
        table.keys = keys
        for place in range(len(packed)):
            table.kinds[place] = packed[place]
        table.count = <int>len(packed)

    def number_segments(self, str sql not None):
        self._check()
        if self.core.segment_number != NULL:
            raise ValueError("it is known already how segments are numbered")
        self.core.segment_number = self._prepare(sql)

    def feed(self, bytes data not None, bytes first_key=None):
        cdef list told = []
        self._check()
        self._feed(data, told, True, first_key)
        self.held = data  # The newest key lies in it.
        return told

    def put(self, bytes data not None):
        cdef list told = []
        self._check()
        self._feed(data, told, False, None)

    @property
    def rows(self):
        return self.core.rows

    cdef int _feed(self, bytes data, list told, bint ordered, bytes first_key) except -1:
        cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef const uint8_t *end = at + PyBytes_GET_SIZE(data)
        cdef const uint8_t *start
        cdef Verdict verdict
        self.broken = True
        if at == end:
            raise BadRows(_REASONS[BAD_FORM])
        if first_key is not None:
            self._check_first(at, end, first_key)
        while True:
            with nogil:
                verdict = feed_rows(&self.core, &at, end, ordered)
            if verdict == TABLE_ERROR:
                raise self._failure()
            if verdict == TOLD:
                start = self.core.row_start
                told.append(PyBytes_FromStringAndSize(<const char *>start, at - start))
            elif verdict == FED:
                break
            else:
                raise BadRows(_REASONS[verdict])
        self.broken = False
        return 0

    cdef int _check_first(self, const uint8_t *at, const uint8_t *end, bytes key) except -1:
        cdef Verdict verdict = FED
        cdef int number = 0
        cdef bytes found
        if read_row(&self.core, at, end, &number, &verdict) == NULL:
            raise BadRows(_REASONS[verdict])
        found = PyBytes_FromStringAndSize(
            <const char *>self.core.key_start, self.core.key_end - self.core.key_start)
        if bytes((0x90 | self.core.tables[number].keys + 1,)) + found != key:
            raise BadRows(_REASONS[BAD_FIRST])
        return 0

    cdef void *_prepare(self, str sql) except NULL:
        cdef bytes packed = sql.encode()
        cdef void *statement = NULL
        if prepare_call(
                self.core.connection, PyBytes_AS_STRING(packed), -1, &statement, NULL) != SQLITE_OK:
            raise self._failure()
        return statement

    cdef object _failure(self):
        self.broken = True
        cdef bytes message = message_call(self.core.connection)
        return TableFailed(message.decode("utf-8", "replace"), code_call(self.core.connection))

    cdef int _check(self) except -1:
        if self.core.connection == NULL or self.broken:
            raise ValueError("the load is closed, or has failed")
        return 0

    cdef void _close(self):
        cdef int number
        for number in range(TABLES):
            finalize_call(self.core.tables[number].statement)
            self.core.tables[number].statement = NULL
        finalize_call(self.core.segment_number)
        self.core.segment_number = NULL
        close_call(self.core.connection)
        self.core.connection = NULL
