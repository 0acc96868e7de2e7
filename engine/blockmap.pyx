"""The extents of one version of one file, as one sorted C array.

A BlockMap is immutable: it is built once from columns (no Python object a row), and then any thread
may read it without a lock, with or without the GIL.  It holds one reference on the slot of each
data extent, so the segments' keys stay while somebody reads this version.

The blocks of an extent lie one after the other in its segment.  All of them are full but the last,
unless the extent names the stored length of each.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc

from .addr cimport (
    BLOCK_MAX,
    BLOCK_MIN,
    STORED_MAX,
    check_range,
    cut_range,
    end_block,
    least,
    most,
)
from .cachecore cimport core_release, core_retain
from .cachemap cimport CacheMap
from .segfile cimport close_fd
from .slots cimport NONE

from .errors import EngineError

KIND_DATA = DATA
KIND_HOLE = HOLE
KIND_LOST = LOST
KIND_UNREADABLE = UNREADABLE
FLAG_COMPRESSED = COMPRESSED


# --- Kernels -------------------------------------------------------------------------------------


cdef int64_t first_reaching(const MapCore *map, int64_t block) noexcept nogil:
    """The first extent that ends after this block; map.count when there is none."""
    cdef int64_t low = 0
    cdef int64_t high = map.count
    cdef int64_t middle
    while low < high:
        middle = low + (high - low) // 2
        if map.extents[middle].first_block + map.extents[middle].count > block:
            high = middle
        else:
            low = middle + 1
    return low


cdef int64_t plain_at(const MapCore *map, const Extent *extent, int64_t at) noexcept nogil:
    """Plaintext length of the block `at` blocks into a data extent."""
    if at == extent.count - 1:
        return extent.last_len
    if extent.lengths_at >= 0:
        return <int64_t>map.lengths[extent.lengths_at + at] - extent.tag
    return map.block_size


cdef int64_t start_at(const MapCore *map, const Extent *extent, int64_t at) noexcept nogil:
    """Offset in the segment of the block `at` blocks into a data extent."""
    if extent.lengths_at >= 0:
        return extent.offset + map.starts[extent.lengths_at + at]
    return extent.offset + at * (map.block_size + extent.tag)


cdef int64_t stored_run(
    const MapCore *map, const Extent *extent, int64_t at, int64_t end) noexcept nogil:
    """Stored bytes of the blocks [at, end) of a data extent; at < end."""
    return (start_at(map, extent, end - 1) + plain_at(map, extent, end - 1) + extent.tag
            - start_at(map, extent, at))


cdef bint find_place(const MapCore *map, int64_t block, Place *place) noexcept nogil:
    """Where a block lies; False in a gap or beyond the last extent."""
    cdef int64_t index = first_reaching(map, block)
    cdef const Extent *extent
    cdef int64_t at
    if index == map.count or map.extents[index].first_block > block:
        return False
    extent = &map.extents[index]
    at = block - extent.first_block
    place.kind = extent.kind
    place.slot = extent.slot
    place.token = extent.token
    place.ordinal = <uint64_t>(extent.ordinal + at)
    place.flags = extent.flags
    place.offset = place.stored = place.plain = place.valid = 0
    if extent.kind == DATA:
        place.plain = plain_at(map, extent, at)
        place.valid = extent.last_valid if at == extent.count - 1 else place.plain
        place.offset = start_at(map, extent, at)
        place.stored = place.plain + extent.tag
    return True


# --- The object ----------------------------------------------------------------------------------


@cython.final
@cython.no_gc_clear
cdef class BlockMap:
    def __cinit__(
        self,
        CacheMap cachemap not None,
        int64_t block_size,
        int64_t size,
        const int64_t[:] first_block not None,
        const int64_t[:] count not None,
        const uint8_t[:] kind not None,
        const int32_t[:] slot not None,
        const int64_t[:] ordinal not None,
        const int64_t[:] offset not None,
        const uint32_t[:] flags not None,
        const uint32_t[:] last_len not None,
        const uint32_t[:] last_valid not None,
        const uint32_t[:] lengths = None,
        const int64_t[:] lengths_index = None,
    ):
        cdef Py_ssize_t row
        cdef Py_ssize_t rows = first_block.shape[0]
        cdef Py_ssize_t listed = 0 if lengths is None else lengths.shape[0]
        cdef Extent *extent
        self.cachemap = cachemap
        if not BLOCK_MIN <= block_size <= BLOCK_MAX or block_size & (block_size - 1):
            raise ValueError(f"block_size {block_size} is not a power of two from 64 KiB to 1 MiB")
        check_range(size, block_size)
        shapes = {rows, count.shape[0], kind.shape[0], slot.shape[0], ordinal.shape[0],
                  offset.shape[0], flags.shape[0], last_len.shape[0], last_valid.shape[0]}
        if lengths_index is not None:
            shapes.add(lengths_index.shape[0])
        if len(shapes) > 1:
            raise ValueError("the columns differ in length")
        self.map.size = size
        self.map.block_size = block_size
        self.allocate(rows, listed)
        for row in range(listed):
            self.map.lengths[row] = lengths[row]
        for row in range(rows):
            extent = &self.map.extents[row]
            extent.first_block = first_block[row]
            extent.count = count[row]
            extent.kind = kind[row]
            extent.slot = slot[row]
            extent.ordinal = ordinal[row]
            extent.offset = offset[row]
            extent.flags = flags[row]
            extent.last_len = last_len[row]
            extent.last_valid = last_valid[row]
            extent.lengths_at = -1 if lengths_index is None else lengths_index[row]
            self.check_row(row, listed)

    def __dealloc__(self):
        cdef int64_t row
        cdef int fd
        for row in range(self.retained):
            if self.map.extents[row].kind == DATA:
                core_release(&self.cachemap.core, self.map.extents[row].slot, &fd)
                close_fd(fd)
        free(self.map.extents)
        free(self.map.lengths)
        free(self.map.starts)

    cdef int allocate(self, Py_ssize_t rows, Py_ssize_t lengths) except -1:
        self.map.count = rows
        self.map.extents = <Extent *>calloc(rows + 1, sizeof(Extent))
        self.map.lengths = <uint32_t *>malloc((lengths + 1) * sizeof(uint32_t))
        self.map.starts = <uint32_t *>malloc((lengths + 1) * sizeof(uint32_t))
        if not (self.map.extents and self.map.lengths and self.map.starts):
            raise MemoryError
        return 0

    cdef int check_row(self, Py_ssize_t row, int64_t lengths) except -1:
        """Check a filled row against the ones before it, and take its reference."""
        cdef Extent *extent = &self.map.extents[row]
        cdef int64_t blocks_max = INT64_MAX // self.map.block_size
        cdef int64_t free_from = 0
        if row > 0:
            free_from = (extent - 1).first_block + (extent - 1).count
        if extent.kind not in (DATA, HOLE, LOST):
            raise ValueError(f"row {row}: kind {extent.kind} is not known to this version")
        if extent.count < 1 or extent.count > blocks_max:
            raise ValueError(f"row {row}: count {extent.count} is out of range")
        if extent.first_block < free_from or extent.first_block > blocks_max - extent.count:
            raise ValueError(f"row {row}: block {extent.first_block} is out of order or range")
        if extent.kind == DATA and extent.flags & COMPRESSED:
            # One such row does not make the rest of the file unreadable.
            extent.kind = UNREADABLE
        if extent.kind == DATA:
            self.check_data_row(extent, row, lengths)
            if core_retain(&self.cachemap.core, extent.slot, &extent.token, &extent.tag) != 0:
                # Its reference was not taken, and those of later rows are not either.
                raise EngineError(f"row {row}: slot {extent.slot} is not in use")
        self.retained = row + 1
        if extent.kind == DATA:
            if extent.lengths_at >= 0:
                self.fill_starts(extent, row)
            if extent.offset + stored_run(&self.map, extent, 0, extent.count) > STORED_MAX:
                raise ValueError(f"row {row}: the extent ends beyond the largest segment")
        return 0

    cdef int check_data_row(self, Extent *extent, Py_ssize_t row, int64_t lengths) except -1:
        if not 1 <= extent.last_len <= self.map.block_size:
            raise ValueError(f"row {row}: last_len {extent.last_len} is out of range")
        if extent.last_valid > extent.last_len:
            raise ValueError(f"row {row}: last_valid {extent.last_valid} is out of range")
        # Each block takes more than a byte, so more of them cannot be in one segment.
        if extent.count > STORED_MAX or not 0 <= extent.offset <= STORED_MAX:
            raise ValueError(f"row {row}: the extent lies beyond the largest segment")
        if extent.ordinal < 0 or extent.ordinal > INT64_MAX - extent.count:
            raise ValueError(f"row {row}: ordinal {extent.ordinal} is out of range")
        if extent.lengths_at >= 0 and extent.lengths_at > lengths - extent.count:
            raise ValueError(f"row {row}: its lengths are not all there")
        return 0

    cdef int fill_starts(self, Extent *extent, Py_ssize_t row) except -1:
        """Sum up the stored lengths of an extent that names them."""
        cdef int64_t at
        cdef int64_t stored = 0
        cdef int64_t total = 0
        for at in range(extent.count):
            stored = self.map.lengths[extent.lengths_at + at]
            if not extent.tag < stored <= self.map.block_size + extent.tag:
                raise ValueError(f"row {row}: stored length {stored} is out of range")
            self.map.starts[extent.lengths_at + at] = <uint32_t>total
            total += stored
            if total > STORED_MAX:
                raise ValueError(f"row {row}: the extent ends beyond the largest segment")
        if stored != extent.last_len + extent.tag:
            raise ValueError(f"row {row}: the last stored length does not fit last_len")
        return 0

    @property
    def size(self):
        return self.map.size

    @property
    def block_size(self):
        return self.map.block_size

    def locate(self, int64_t block):
        cdef Place place
        check_range(block, 0)
        if not find_place(&self.map, block, &place):
            return None
        return (place.kind, place.slot, place.ordinal, place.offset, place.stored, place.plain,
                place.valid, place.flags)

    def segments(self, int64_t start, int64_t end):
        cdef int64_t index
        cdef int64_t first
        cdef int64_t last
        cdef Extent *extent
        check_range(start, 0)
        runs = []
        index = first_reaching(&self.map, start)
        while index < self.map.count and self.map.extents[index].first_block < end:
            extent = &self.map.extents[index]
            first = most(start, extent.first_block) - extent.first_block
            last = least(end, extent.first_block + extent.count) - extent.first_block
            if extent.kind == DATA:
                runs.append((
                    extent.first_block + first, last - first, DATA, extent.slot,
                    extent.ordinal + first, start_at(&self.map, extent, first),
                    stored_run(&self.map, extent, first, last),
                ))
            else:
                runs.append((extent.first_block + first, last - first, extent.kind, -1, 0, 0, 0))
            index += 1
        return runs

    def needs(self, int64_t offset, int64_t length):
        cdef int64_t block_size = self.map.block_size
        check_range(offset, length)
        length = cut_range(offset, length, self.map.size)
        found = []
        if length == 0:
            return found
        run_slot = NONE
        run_offset = run_end = 0
        for run in self.segments(offset // block_size, end_block(offset + length, block_size)):
            if run[2] != DATA:
                continue
            if run[3] != run_slot or run[5] != run_end:
                if run_slot != NONE:
                    found.append((run_slot, run_offset, run_end - run_offset))
                run_slot = run[3]
                run_offset = run[5]
            run_end = run[5] + run[6]
        if run_slot != NONE:
            found.append((run_slot, run_offset, run_end - run_offset))
        return found

    def __len__(self):
        return self.map.count

    def __iter__(self):
        return iter(self.segments(0, INT64_MAX))
