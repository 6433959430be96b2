// What C and C++ of this machine's compiler may call and glibc 2.28 did not have yet.
// Linked, hidden, into what is linked against the folder that old_glibc.py makes.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// glibc 2.33 exports stat and its like; before, they were inline functions over these.
#ifdef __x86_64__
#    define STAT_VERSION 1
#else
#    define STAT_VERSION 0
#endif

int __xstat(int version, const char * path, struct stat * into);
int __fxstat(int version, int file, struct stat * into);
int __lxstat(int version, const char * path, struct stat * into);
int __fxstatat(int version, int folder, const char * path, struct stat * into, int flags);

int stat(const char * path, struct stat * into) {
    return __xstat(STAT_VERSION, path, into);
}

int fstat(int file, struct stat * into) {
    return __fxstat(STAT_VERSION, file, into);
}

int lstat(const char * path, struct stat * into) {
    return __lxstat(STAT_VERSION, path, into);
}

int fstatat(int folder, const char * path, struct stat * into, int flags) {
    return __fxstatat(STAT_VERSION, folder, path, into, flags);
}

// std::random_device of libstdc++.a takes it.
uint32_t arc4random(void) {
    uint32_t bits;
    size_t   n = 0;
    while (n < sizeof(bits)) {
        const ssize_t more = getrandom((char *) &bits + n, sizeof(bits) - n, 0);
        if (more > 0) {
            n += (size_t) more;
        } else if (errno != EINTR) {
            abort(); // as glibc's own: a number that is not random is worse
        }
    }
    return bits;
}

int getcpu(unsigned * cpu, unsigned * node) {
    return (int) syscall(SYS_getcpu, cpu, node, NULL);
}

// libstdc++ counts references without atomics while this is set. There are always threads here.
char __libc_single_threaded = 0;

// std::condition_variable waits by the steady clock. Without the function for it: the same span by
// the wall clock. The caller looks at its own clock again after each wait.
int pthread_cond_clockwait(pthread_cond_t * condition, pthread_mutex_t * mutex, clockid_t clock,
                           const struct timespec * until) {
    typedef int      wait_until(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    static wait_until * volatile newer;
    static volatile int          looked;
    if (!looked) {
        newer  = (wait_until *) dlsym(RTLD_DEFAULT, "pthread_cond_clockwait");
        looked = 1;
    }
    if (newer) {
        return newer(condition, mutex, clock, until);
    }
    struct timespec now, wall;
    if (clock_gettime(clock, &now) != 0 || clock_gettime(CLOCK_REALTIME, &wall) != 0) {
        return errno;
    }
    wall.tv_sec += until->tv_sec - now.tv_sec;
    wall.tv_nsec += until->tv_nsec - now.tv_nsec;
    if (wall.tv_nsec < 0) {
        wall.tv_nsec += 1000000000;
        wall.tv_sec--;
    } else if (wall.tv_nsec >= 1000000000) {
        wall.tv_nsec -= 1000000000;
        wall.tv_sec++;
    }
    return pthread_cond_timedwait(condition, mutex, &wall);
}
