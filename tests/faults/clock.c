/* Moves the time of day of a process that is started with this in LD_PRELOAD, by the whole seconds in the file that DROVER_TEST_CLOCK names; monotonic clocks go on as they are.

   Debian's libfaketime would do that, and crashes drover: it looks up symbols while it is loaded, which frees memory before the program's own allocator is ready. This asks the kernel and looks up nothing before the
   first wait. It covers the calls that drover has (nm -D --undefined-only); Rust's own waits are on the monotonic clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The file is read at each call: nothing is remembered that could be stale. */
static long ahead(void) {
    const char *path = getenv("DROVER_TEST_CLOCK");
    char text[32];
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    long length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    if (length <= 0) return 0;
    text[length] = 0;
    return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec at;
    int result = clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return result;
}

time_t time(time_t *now) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (now) *now = at.tv_sec;
    return at.tv_sec;
}

/* librdkafka's waits. The kernel's clock does not jump, so the end of a wait is told in its time. */
int cnd_timedwait(void *condition, void *mutex, const struct timespec *until) {
    static int (*real)(void *, void *, const struct timespec *);
    if (!real) real = (int (*)(void *, void *, const struct timespec *))dlsym(RTLD_NEXT, "cnd_timedwait");
    struct timespec shifted = *until;
    shifted.tv_sec -= ahead();
    return real(condition, mutex, &shifted);
}
