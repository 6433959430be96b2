// Shared by the files of csrc/: errors, the guard around every call into llama.cpp, live counters.

#pragma once

#include "errors.h"

#include "llama.h"

#include <atomic>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace kollama {

void           set_last_error(const std::string & reason);
kollama_status report(kollama_status status, const std::string & reason); // sets the reason, returns the status

void log_warning(const std::string & line); // as if ggml had logged it
void log_info(const std::string & line);

// An assertion of ggml on this thread, thrown by the abort callback. Derived from std::exception so
// that llama.cpp's own handlers release what they hold on the way.
struct engine_failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// While one lives on a thread, a failing assertion of ggml there throws instead of ending the
// process, and the error lines that llama.cpp logs there are collected.
class guard {
  public:
    guard();
    ~guard();
    guard(const guard &)             = delete;
    guard & operator=(const guard &) = delete;

    std::string errors() const; // the logged errors since construction, one line
};

// While one lives on a thread, what llama.cpp logs there at any level is kept in it too.
class log_capture {
  public:
    log_capture();
    ~log_capture();
    log_capture(const log_capture &)             = delete;
    log_capture & operator=(const log_capture &) = delete;

    std::string text;

  private:
    std::string * outer_;
};

// While one lives on a thread and one of the two is set, llama.cpp's complaints there about a graph that
// was aborted are no errors to be logged: they were asked for.
class quiet_when {
  public:
    quiet_when(const std::atomic<bool> & cancelled, const std::atomic<bool> & given_up);
    ~quiet_when();
    quiet_when(const quiet_when &)             = delete;
    quiet_when & operator=(const quiet_when &) = delete;
};

// While one lives on a thread, the errors that llama.cpp logs there are only collected: the call that fails
// tells of them.
class quiet_errors {
  public:
    quiet_errors();
    ~quiet_errors();
    quiet_errors(const quiet_errors &)             = delete;
    quiet_errors & operator=(const quiet_errors &) = delete;
};

// A call that must not go on while the process's static objects are destroyed: the runtime's shutdown
// waits for it. Once that has begun it is false for the thread that ends the process, and others stay in it.
class at_work {
  public:
    at_work();
    ~at_work();
    at_work(const at_work &)             = delete;
    at_work & operator=(const at_work &) = delete;

    explicit operator bool() const { return may_; }

  private:
    bool may_;
};

bool is_shutting_down();

// Runs f, which may throw, and turns what it throws into a status.
template <class F> kollama_status guarded(F && f) noexcept {
    try {
        guard g;
        f();
        return KOLLAMA_OK;
    } catch (const failure & e) {
        return report(e.status, e.what());
    } catch (const engine_failure & e) {
        return report(KOLLAMA_ERROR_ENGINE, e.what());
    } catch (const std::bad_alloc &) {
        return report(KOLLAMA_ERROR_MEMORY, "out of memory");
    } catch (const std::exception & e) {
        return report(KOLLAMA_ERROR_ENGINE, e.what());
    }
}

// Counts the live handles of one kind, so that a test can show that none leaks.
template <kollama_handle_kind Kind> struct counted {
    static inline std::atomic<int64_t> live{0};

    counted() { ++live; }
    counted(const counted &) { ++live; }
    counted & operator=(const counted &) = default;
    ~counted() { --live; }
};

// A malloc'd copy for an out parameter; kollama_free releases it.
template <class T> T * hand_over(const T * data, size_t count) {
    T * copy = static_cast<T *>(std::malloc(count ? count * sizeof(T) : 1));
    if (!copy) {
        throw std::bad_alloc();
    }
    std::copy(data, data + count, copy);
    return copy;
}

} // namespace kollama
