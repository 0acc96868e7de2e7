/* Put before a daemon: reads of a block wait while a file says so, as on a disk that is busy. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

typedef ssize_t (*Read)(int, void *, size_t, off_t);

enum { BLOCK = 60000 };

static ssize_t slow(const char *name, int fd, void *into, size_t size, off_t offset) {
    Read real = (Read)dlsym(RTLD_NEXT, name);
    if (size >= BLOCK && access(getenv("SLOW_DISK_FILE"), F_OK) == 0)
        usleep(atoi(getenv("SLOW_DISK_US")));
    return real(fd, into, size, offset);
}

ssize_t pread(int fd, void *into, size_t size, off_t offset) {
    return slow("pread", fd, into, size, offset);
}

ssize_t pread64(int fd, void *into, size_t size, off_t offset) {
    return slow("pread64", fd, into, size, offset);
}
