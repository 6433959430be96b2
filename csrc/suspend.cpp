#include "suspend.h"

#if defined(_WIN32)
#    include <windows.h>
#elif defined(__APPLE__)
#    include <mach/mach.h>
#    include <pthread.h>
#else
#    include <pthread.h>
#    include <signal.h>
#    include <unistd.h>
#endif

namespace kollama {

#if defined(_WIN32)

uint64_t this_thread_id() {
    return GetCurrentThreadId();
}

void suspend_thread(uint64_t id) {
    HANDLE thread = OpenThread(THREAD_SUSPEND_RESUME, FALSE, static_cast<DWORD>(id));
    if (thread) {
        SuspendThread(thread);
        CloseHandle(thread);
    }
}

#elif defined(__APPLE__)

uint64_t this_thread_id() {
    return pthread_mach_thread_np(pthread_self());
}

void suspend_thread(uint64_t id) {
    thread_suspend(static_cast<thread_act_t>(id));
}

#else

uint64_t this_thread_id() {
    return reinterpret_cast<uint64_t>(reinterpret_cast<void *>(pthread_self()));
}

// A real-time signal that nobody has a use for, taken when the first thread must be stopped. No handler
// of the program's is replaced.
static int take_signal() {
    for (int number = SIGRTMAX; number >= SIGRTMIN; number--) {
        struct sigaction there;
        if (sigaction(number, nullptr, &there) == 0 && !(there.sa_flags & SA_SIGINFO) && there.sa_handler == SIG_DFL) {
            struct sigaction ours = {};
            sigfillset(&ours.sa_mask);
            ours.sa_handler = [](int) {
                for (;;) {
                    pause();
                }
            };
            if (sigaction(number, &ours, nullptr) == 0) {
                return number;
            }
        }
    }
    return 0;
}

void suspend_thread(uint64_t id) {
    static const int number = take_signal();
    if (number != 0) {
        pthread_kill(reinterpret_cast<pthread_t>(reinterpret_cast<void *>(id)), number);
    }
}

#endif

} // namespace kollama
