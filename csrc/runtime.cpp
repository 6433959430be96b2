#include "internal.h"
#include "backend.h"
#include "engine.h"
#include "products/accelerator.h"
#include "servers.h"

#include <algorithm>
#include <cstdlib>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#ifdef _WIN32
#    include <windows.h>
#else
#    include <dlfcn.h>
#endif

namespace kollama {

// ---- errors --------------------------------------------------------------------------------------

static thread_local std::string last_error;
static thread_local int         guard_depth = 0;
static thread_local std::string logged_errors;
static thread_local std::string * capture = nullptr;

void set_last_error(const std::string & reason) {
    last_error = reason;
}

kollama_status report(kollama_status status, const std::string & reason) {
    set_last_error(reason);
    return status;
}

guard::guard() {
    if (guard_depth++ == 0) {
        logged_errors.clear();
    }
}

guard::~guard() {
    --guard_depth;
}

std::string guard::errors() const {
    return logged_errors;
}

static thread_local const std::atomic<bool> * cancelled_here = nullptr;
static thread_local const std::atomic<bool> * given_up_here  = nullptr;

quiet_when::quiet_when(const std::atomic<bool> & cancelled, const std::atomic<bool> & given_up) {
    cancelled_here = &cancelled;
    given_up_here  = &given_up;
}

quiet_when::~quiet_when() {
    cancelled_here = given_up_here = nullptr;
}

static thread_local bool errors_are_quiet = false;

quiet_errors::quiet_errors() {
    errors_are_quiet = true;
}

quiet_errors::~quiet_errors() {
    errors_are_quiet = false;
}

static bool is_quiet() {
    const auto is_set = [](const std::atomic<bool> * flag) { return flag && flag->load(std::memory_order_relaxed); };
    return is_set(cancelled_here) || is_set(given_up_here);
}

log_capture::log_capture() : outer_(capture) {
    capture = &text;
}

log_capture::~log_capture() {
    capture = outer_;
}

// ggml calls this before abort(). Inside a graph its context is given up, and this thread with it: the
// others wait in a barrier that has no exit. Where a guard is on the stack of this very thread, unwinding
// is safe: ggml and llama.cpp are built with unwind tables. Elsewhere the process ends as ggml meant it to.
static void on_ggml_abort(const char * message) {
    engine::on_failed_assertion(message);
    if (guard_depth > 0) {
        throw engine_failure(message);
    }
    servers::on_failed_assertion(message);
    std::fprintf(stderr, "%s\n", message);
}

// ---- logs ----------------------------------------------------------------------------------------

namespace {

constexpr size_t LOG_RING_LINES = 1024; // the oldest lines make room

struct log_line {
    int         level;
    std::string text;
};

struct log_ring {
    std::mutex           mutex;
    std::deque<log_line> lines;
    std::string          open; // a line whose end has not come yet
    int                  open_level = 0;
    std::atomic<int>     level{30};
};

// Never destroyed: ggml may log from a thread that outlives the static destructors.
log_ring & ring() {
    static log_ring * instance = new log_ring;
    return *instance;
}

int python_level(ggml_log_level level) {
    switch (level) {
        case GGML_LOG_LEVEL_ERROR: return 40;
        case GGML_LOG_LEVEL_WARN:  return 30;
        case GGML_LOG_LEVEL_INFO:  return 20;
        default:                   return 10;
    }
}

void collect_error(const char * text) {
    if (guard_depth == 0) {
        return;
    }
    std::string line(text);
    while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) {
        line.pop_back();
    }
    if (!line.empty()) {
        logged_errors += (logged_errors.empty() ? "" : "; ") + line;
    }
}

// No lock but the ring's own, and never the GIL: ggml logs from its worker threads too.
void on_log(ggml_log_level ggml_level, const char * text, void *) {
    log_ring & r = ring();
    if (ggml_level != GGML_LOG_LEVEL_CONT && is_quiet()) {
        ggml_level = GGML_LOG_LEVEL_DEBUG;
    }
    if (ggml_level == GGML_LOG_LEVEL_ERROR) {
        collect_error(text);
        if (errors_are_quiet) {
            ggml_level = GGML_LOG_LEVEL_DEBUG;
        }
    }
    if (capture) {
        *capture += text;
    }
    std::lock_guard<std::mutex> lock(r.mutex);
    if (ggml_level != GGML_LOG_LEVEL_CONT) {
        r.open.clear();
        r.open_level = python_level(ggml_level);
    }
    if (r.open_level < r.level.load(std::memory_order_relaxed)) {
        return;
    }
    for (const char * end; (end = std::strchr(text, '\n')); text = end + 1) {
        r.open.append(text, end);
        if (!r.open.empty()) {
            r.lines.push_back({ r.open_level, std::move(r.open) });
        }
        r.open.clear();
        if (r.lines.size() > LOG_RING_LINES) {
            r.lines.pop_front();
        }
    }
    r.open += text;
}

} // namespace

void log_warning(const std::string & line) {
    on_log(GGML_LOG_LEVEL_WARN, (line + "\n").c_str(), nullptr);
}

void log_info(const std::string & line) {
    on_log(GGML_LOG_LEVEL_INFO, (line + "\n").c_str(), nullptr);
}

namespace {

// ---- backends ------------------------------------------------------------------------------------

// How well a CPU variant suits this machine; 0: not at all. Reads the score by hand, as ggml's own
// search would look beside the executable and in the current directory.
int cpu_score(const char * path) {
#ifdef _WIN32
    HMODULE library = LoadLibraryExA(path, nullptr, LOAD_WITH_ALTERED_SEARCH_PATH);
    auto    score   = library ? reinterpret_cast<int (*)()>(GetProcAddress(library, "ggml_backend_score")) : nullptr;
    return library ? (score ? score() : 1) : 0; // stays loaded: load_backend takes it again
#else
    void * library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        return 0;
    }
    auto score  = reinterpret_cast<int (*)()>(dlsym(library, "ggml_backend_score"));
    int  result = score ? score() : 1;
    dlclose(library);
    return result;
#endif
}

void load_cpu(const char * const * paths, size_t n_paths) {
    const char * best       = nullptr;
    int          best_score = 0;
    for (size_t i = 0; i < n_paths; i++) {
        const int score = cpu_score(paths[i]);
        if (score > best_score) {
            best       = paths[i];
            best_score = score;
        }
    }
    if (!best || !ggml_backend_load(best)) {
        throw failure(KOLLAMA_ERROR_LOAD, format("none of the %zu CPU libraries of this build runs on this machine's CPU; "
                                                 "a source build here (pip install --no-binary kollama) makes one that does", n_paths));
    }
}

// ggml's or the dynamic linker's own words, without the names of functions and of this very file.
std::string reason_of_load(std::string text, const std::string & path) {
    for (const std::string & prefix : { std::string("load_backend: "), "failed to load " + path + ": " }) {
        for (size_t at; (at = text.find(prefix)) != std::string::npos;) {
            text.erase(at, prefix.size());
        }
    }
    return text.empty() ? "ggml gave no reason" : text;
}

std::mutex init_mutex;
bool       initialised = false;

// Never destroyed: threads may still look at it when static objects are gone.
struct workers {
    std::mutex              mutex;
    std::condition_variable fewer;
    int                     n = 0;
    std::atomic<bool>       ending{ false };
    std::thread::id         last; // the thread that ends the process
};

workers & all_workers() {
    static workers * instance = new workers;
    return *instance;
}

// What is left at the end are daemon threads. They stay here until the process is gone, as CPython keeps those that
// want its lock: an error that they went on with would only be printed.
void park_at_end(std::unique_lock<std::mutex> & lock) {
    workers & all = all_workers();
    while (all.ending && all.last != std::this_thread::get_id()) {
        lock.unlock();
        std::this_thread::sleep_for(std::chrono::hours(1));
        lock.lock();
    }
}

constexpr auto LONGEST_CALL = std::chrono::seconds(10); // that the process's end waits for

} // namespace

at_work::at_work() {
    workers &                    all = all_workers();
    std::unique_lock<std::mutex> lock(all.mutex);
    may_ = !all.ending;
    all.n += may_;
    park_at_end(lock);
}

at_work::~at_work() {
    workers &                    all = all_workers();
    std::unique_lock<std::mutex> lock(all.mutex);
    all.n -= may_;
    all.fewer.notify_all();
    park_at_end(lock);
}

bool is_shutting_down() {
    return all_workers().ending;
}

} // namespace kollama

using namespace kollama;

const char * kollama_last_error(void) {
    return last_error.c_str();
}

kollama_status kollama_runtime_init(const char * const * cpu_paths, size_t n_cpu_paths,
                                    const char * const * other_paths, size_t n_other_paths) {
    std::lock_guard<std::mutex> lock(init_mutex);
    if (initialised) {
        return KOLLAMA_OK;
    }
    return guarded([&] {
        llama_log_set(on_log, nullptr);
        ggml_set_abort_callback(on_ggml_abort);
        if (ggml_backend_reg_t products = product_backend()) { // before a BLAS, which would take its products
            ggml_backend_register(products);
        }
        for (size_t i = 0; i < n_other_paths; i++) {
            if (!ggml_backend_load(other_paths[i])) {
                std::string line = format("backend %s cannot be loaded and is left out\n", other_paths[i]);
                on_log(GGML_LOG_LEVEL_WARN, line.c_str(), nullptr);
            }
        }
        load_cpu(cpu_paths, n_cpu_paths);
        llama_backend_init();
        initialised = true;
    });
}

kollama_status kollama_backend_load(const char * path, size_t * n_devices) {
    std::lock_guard<std::mutex> lock(init_mutex);
    return guarded([&] {
        const guard        g;
        const quiet_errors quiet; // the caller says it in its own words
        ggml_backend_reg_t reg = ggml_backend_load(path);
        if (!reg) {
            throw failure(KOLLAMA_ERROR_LOAD, reason_of_load(g.errors(), path));
        }
        *n_devices = ggml_backend_reg_dev_count(reg);
    });
}

bool kollama_backend_loaded(const char * name) {
    return ggml_backend_reg_by_name(name) != nullptr;
}

void kollama_runtime_shutdown(void) {
    {
        workers &                    all = all_workers();
        std::unique_lock<std::mutex> lock(all.mutex);
        all.ending = true;
        all.last   = std::this_thread::get_id();
        all.fewer.wait_for(lock, LONGEST_CALL, [&] { return all.n == 0; });
    }
    engine::stop_all();
}

void kollama_runtime_after_fork(void) {
    engine::after_fork_in_child();
}

// ---- devices -------------------------------------------------------------------------------------

size_t kollama_device_count(void) {
    return ggml_backend_dev_count();
}

void kollama_device_get(size_t index, kollama_device * device) {
    ggml_backend_dev_t dev = ggml_backend_dev_get(index);
    device->name           = ggml_backend_dev_name(dev);
    device->description    = ggml_backend_dev_description(dev);
    device->backend        = ggml_backend_reg_name(ggml_backend_dev_backend_reg(dev));
    switch (ggml_backend_dev_type(dev)) {
        case GGML_BACKEND_DEVICE_TYPE_CPU:  device->type = "cpu";   break;
        case GGML_BACKEND_DEVICE_TYPE_GPU:  device->type = "gpu";   break;
        case GGML_BACKEND_DEVICE_TYPE_IGPU: device->type = "igpu";  break;
        default:                            device->type = "accel"; break;
    }
    ggml_backend_dev_memory(dev, &device->memory_free, &device->memory_total);
}

bool kollama_supports_gpu(void) {
    // Not llama_supports_gpu_offload: that is true wherever the RPC library is loaded.
    return has_gpu();
}

const char * kollama_llama_version(void) {
    return llama_version();
}

const char * kollama_llama_commit(void) {
    return KOLLAMA_LLAMA_COMMIT;
}

// ---- logs ----------------------------------------------------------------------------------------

void kollama_log_set_level(int level) {
    ring().level.store(level, std::memory_order_relaxed);
}

int32_t kollama_log_pop(char * buf, size_t size, int * level) {
    log_ring &                  r = ring();
    std::lock_guard<std::mutex> lock(r.mutex);
    if (r.lines.empty()) {
        return -1;
    }
    const log_line & line   = r.lines.front();
    const size_t     length = std::min(size, line.text.size());
    std::memcpy(buf, line.text.data(), length);
    *level = line.level;
    r.lines.pop_front();
    return static_cast<int32_t>(length);
}

int64_t kollama_live_handles(kollama_handle_kind kind) {
    switch (kind) {
        case KOLLAMA_HANDLE_MODEL:      return counted<KOLLAMA_HANDLE_MODEL>::live;
        case KOLLAMA_HANDLE_CONTEXT:    return counted<KOLLAMA_HANDLE_CONTEXT>::live;
        case KOLLAMA_HANDLE_SEQUENCE:   return counted<KOLLAMA_HANDLE_SEQUENCE>::live;
        case KOLLAMA_HANDLE_ROW:        return counted<KOLLAMA_HANDLE_ROW>::live;
        case KOLLAMA_HANDLE_SAMPLER:    return counted<KOLLAMA_HANDLE_SAMPLER>::live;
        case KOLLAMA_HANDLE_GENERATION: return counted<KOLLAMA_HANDLE_GENERATION>::live;
        case KOLLAMA_HANDLE_JOB:        return counted<KOLLAMA_HANDLE_JOB>::live;
        case KOLLAMA_HANDLE_TOKENIZER:  return counted<KOLLAMA_HANDLE_TOKENIZER>::live;
        case KOLLAMA_HANDLE_DECODER:    return counted<KOLLAMA_HANDLE_DECODER>::live;
        case KOLLAMA_HANDLE_BLOB:       return counted<KOLLAMA_HANDLE_BLOB>::live;
        case KOLLAMA_HANDLE_LORA:       return counted<KOLLAMA_HANDLE_LORA>::live;
        default:                        return -1;
    }
}

void kollama_free(void * memory) {
    std::free(memory);
}
