// A disk that is slow or broken, for one program: preloaded, it delays or fails what the program writes to one file system.
//
// What to do stands in a file that LAB_DISK names, laid out as `struct orders`, which the lab changes while the program runs. The
// program must be linked dynamically: this takes the place of the C library's functions.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct orders {
    uint64_t device;            // st_dev of the file system
    uint32_t write_us;          // delay of each write, …
    uint32_t byte_ns;           // … and of each byte in it
    uint32_t sync_us;           // delay of each fsync and fdatasync
    int32_t write_error;        // errno of each write, 0: none
    int32_t sync_error;
    uint32_t unused;
    uint64_t writes, bytes, syncs;      // what has been asked for so far
};

static struct orders *orders;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("LAB_DISK");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) orders = at;
}

static int ours(int fd) {
    struct stat it;
    int before = errno, found = orders && orders->device && fstat(fd, &it) == 0 && S_ISREG(it.st_mode) && it.st_dev == orders->device;
    errno = before;
    return found;
}

static void wait_for(uint64_t ns) {
    struct timespec left = {ns / 1000000000, ns % 1000000000};
    int before = errno;
    while (ns && nanosleep(&left, &left) < 0 && errno == EINTR) {}
    errno = before;
}

static int writes(int fd, uint64_t bytes) {
    if (!ours(fd)) return 0;
    __atomic_add_fetch(&orders->writes, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&orders->bytes, bytes, __ATOMIC_RELAXED);
    wait_for(orders->write_us * 1000ull + orders->byte_ns * bytes);
    return orders->write_error;
}

static int syncs(int fd) {
    if (!ours(fd)) return 0;
    __atomic_add_fetch(&orders->syncs, 1, __ATOMIC_RELAXED);
    wait_for(orders->sync_us * 1000ull);
    return orders->sync_error;
}

static uint64_t length(const struct iovec *parts, int count) {
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i].iov_len;
    return sum;
}

#define INSTEAD(order, result, name, parameters, arguments)                  \
    result name parameters {                                                 \
        static result (*real) parameters;                                    \
        if (!real) real = (result (*) parameters)dlsym(RTLD_NEXT, #name);    \
        int error = order;                                                   \
        if (error) { errno = error; return -1; }                             \
        return real arguments;                                               \
    }

INSTEAD(writes(fd, n), ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n))
INSTEAD(writes(fd, n), ssize_t, pwrite, (int fd, const void *data, size_t n, off_t at), (fd, data, n, at))
INSTEAD(writes(fd, n), ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t at), (fd, data, n, at))
INSTEAD(writes(fd, length(parts, n)), ssize_t, writev, (int fd, const struct iovec *parts, int n), (fd, parts, n))
INSTEAD(writes(fd, length(parts, n)), ssize_t, pwritev, (int fd, const struct iovec *parts, int n, off_t at), (fd, parts, n, at))
INSTEAD(writes(fd, length(parts, n)), ssize_t, pwritev64, (int fd, const struct iovec *parts, int n, off64_t at), (fd, parts, n, at))
INSTEAD(syncs(fd), int, fsync, (int fd), (fd))
INSTEAD(syncs(fd), int, fdatasync, (int fd), (fd))
