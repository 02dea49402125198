/*
 * Stands between a process and its disk, as a preloaded library. Once the process has printed MARK, requests that change files
 * are counted, and the one whose number is in CONSORT_TEST_DISK_AT meets what CONSORT_TEST_DISK_DO says:
 *
 *   kill   the process ends before the request, as by kill -9;
 *   torn   half of what is to be written is written, then the process ends; other requests as with kill;
 *   fail   the request fails once: a write with ENOSPC, anything else with EIO.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static const char MARK[] = "the disk is watched from here";
static atomic_int watching;
static atomic_long requests;

enum kind { WRITE, OTHER };

static void end(void) {
    kill(getpid(), SIGKILL);
    pause();
}

/* Pipes, sockets and what wakes a thread are no disk. */
static int on_disk(int file) {
    struct stat found;
    return fstat(file, &found) == 0 && S_ISREG(found.st_mode);
}

static const char *action(void) {
    if (!watching) return NULL;
    const char *at = getenv("CONSORT_TEST_DISK_AT");
    const char *what = getenv("CONSORT_TEST_DISK_DO");
    if (at == NULL || what == NULL || ++requests != atol(at)) return NULL;
    return what;
}

/* Whether the request fails; ends the process where that is asked for. */
static int fails(enum kind kind) {
    const char *what = action();
    if (what == NULL) return 0;
    if (strcmp(what, "fail") != 0) end();
    errno = kind == WRITE ? ENOSPC : EIO;
    return 1;
}

#define NEXT(result, name, ...) \
    static result (*next)(__VA_ARGS__); \
    if (next == NULL) next = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int tears(size_t *count, const char *what) {
    if (what == NULL) return 0;
    if (strcmp(what, "torn") == 0) {
        *count /= 2;
        return 1;
    }
    if (strcmp(what, "kill") == 0) end();
    return -1;
}

ssize_t write(int file, const void *bytes, size_t count) {
    NEXT(ssize_t, "write", int, const void *, size_t);
    if (file <= 2) {
        if (memmem(bytes, count, MARK, sizeof MARK - 1) != NULL) watching = 1;
        return next(file, bytes, count);
    }
    if (!on_disk(file)) return next(file, bytes, count);
    int torn = tears(&count, action());
    if (torn < 0) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t written = next(file, bytes, count);
    if (torn) end();
    return written;
}

#define POSITIONED(name) \
    ssize_t name(int file, const void *bytes, size_t count, off_t place) { \
        NEXT(ssize_t, #name, int, const void *, size_t, off_t); \
        int torn = tears(&count, action()); \
        if (torn < 0) { \
            errno = ENOSPC; \
            return -1; \
        } \
        ssize_t written = next(file, bytes, count, place); \
        if (torn) end(); \
        return written; \
    }
POSITIONED(pwrite)
POSITIONED(pwrite64)

#define OF_FILE(name) \
    int name(int file) { \
        NEXT(int, #name, int); \
        return fails(OTHER) ? -1 : next(file); \
    }
OF_FILE(fsync)
OF_FILE(fdatasync)

int ftruncate(int file, off_t length) {
    NEXT(int, "ftruncate", int, off_t);
    return fails(OTHER) ? -1 : next(file, length);
}

int rename(const char *from, const char *to) {
    NEXT(int, "rename", const char *, const char *);
    return fails(OTHER) ? -1 : next(from, to);
}

int unlink(const char *path) {
    NEXT(int, "unlink", const char *);
    return fails(OTHER) ? -1 : next(path);
}
