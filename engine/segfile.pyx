"""The file of one segment on the local disk: open it, see what of it is there, read from it.

No state and no lock; any thread may call, without the GIL.  An answer below zero is a negative
errno.  Files are never mapped: a page of a full disk would be a SIGBUS.
"""

from libc.errno cimport EINTR, ENOENT, ENXIO, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t

from posix.types cimport off_t
from posix.unistd cimport close, pread

from .addr cimport UNIT_LEN, UNITS_MAX, least, unit_ceil, unit_count
from .sodium cimport ID_LEN

cdef extern from "<fcntl.h>" nogil:
    int openat(int dirfd, const char *path, int flags)
    int O_RDONLY
    int O_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    off_t lseek(int fd, off_t offset, int whence)
    int SEEK_DATA
    int SEEK_HOLE

cdef extern from "<sys/stat.h>" nogil:
    ctypedef long blkcnt_t
    struct c_stat "stat":
        off_t st_size
        blkcnt_t st_blocks
    int fstat(int fd, c_stat *status)

cdef enum:
    # "<2 hex>/<64 hex>" and the closing zero.
    PATH_LEN = 68
    # What st_blocks counts in.
    SECTOR_LEN = 512


cdef inline char hex_digit(int nibble) noexcept nogil:
    return <char>(48 + nibble) if nibble < 10 else <char>(87 + nibble)


cdef void write_path(const uint8_t *segment_id, char *path) noexcept nogil:
    """"<2 hex>/<64 hex>"; the staging name is what follows the slash."""
    cdef int at
    path[0] = hex_digit(segment_id[0] >> 4)
    path[1] = hex_digit(segment_id[0] & 15)
    path[2] = 47  # a slash
    for at in range(ID_LEN):
        path[3 + 2 * at] = hex_digit(segment_id[at] >> 4)
        path[4 + 2 * at] = hex_digit(segment_id[at] & 15)
    path[3 + 2 * ID_LEN] = 0


cdef int open_at(int dirfd, const char *path) noexcept nogil:
    cdef int fd
    if dirfd < 0:
        return -ENOENT
    while True:
        fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC)
        if fd >= 0:
            return fd
        if errno != EINTR:
            return -errno


cdef int open_segment(
    int cache_dir, int staging_dir, const uint8_t *segment_id, bint staged) noexcept nogil:
    """A descriptor, or a negative errno.

    A staged segment is renamed into the cache a moment before the map is told, so its file is
    looked for there as well.
    """
    cdef char path[PATH_LEN]
    cdef int fd
    write_path(segment_id, path)
    if staged:
        fd = open_at(staging_dir, path + 3)
        if fd != -ENOENT:
            return fd
    return open_at(cache_dir, path)


cdef int scan_presence(
    int fd, int64_t stored_len, uint64_t *bits, int64_t *allocated) noexcept nogil:
    """Set the bits of units that are data from end to end; 0 or a negative errno.

    The file system rounds data to its blocks, so the last unit counts only up to stored_len.
    A bit that is wrong all the same (a torn write) is found out by the block's tag.
    """
    cdef c_stat status
    cdef off_t data = 0
    cdef off_t hole
    cdef int64_t end
    cdef int unit
    cdef int last
    bits[0] = bits[1] = bits[2] = 0
    allocated[0] = 0
    if fstat(fd, &status) != 0:
        return -errno
    allocated[0] = <int64_t>status.st_blocks * SECTOR_LEN
    while data < stored_len:
        data = lseek(fd, data, SEEK_DATA)
        if data < 0:
            return 0 if errno == ENXIO else -errno
        hole = lseek(fd, data, SEEK_HOLE)
        if hole < 0:
            return 0 if errno == ENXIO else -errno
        end = least(least(hole, status.st_size), stored_len)
        last = unit_count(stored_len) if end == stored_len else <int>(end // UNIT_LEN)
        for unit in range(unit_ceil(data), <int>least(last, UNITS_MAX)):
            bits[unit >> 6] |= <uint64_t>1 << (unit & 63)
        data = hole
    return 0


cdef int64_t read_at(int fd, uint8_t *out, int64_t length, int64_t offset) noexcept nogil:
    """Bytes read, fewer than asked only at the end of the file; or a negative errno."""
    cdef int64_t done = 0
    cdef ssize_t got
    while done < length:
        got = pread(fd, out + done, <size_t>(length - done), <off_t>(offset + done))
        if got < 0:
            if errno == EINTR:
                continue
            return -errno
        if got == 0:
            break
        done += got
    return done


cdef void close_fd(int fd) noexcept nogil:
    """Close, if it is one.  A read-only descriptor has nothing to lose in a failed close."""
    if fd >= 0:
        close(fd)
