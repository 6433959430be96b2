#include "quant/quantization.h"
#include "quant/types.h"

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <thread>

namespace kollama {
namespace {

namespace fs = std::filesystem;
using tensor = kollama_quantization::tensor;

// Floats of a tensor in memory at a time: the bytes read and written come to about half as much again.
constexpr int64_t SLAB_FLOATS  = 8 << 20;
constexpr int64_t CHUNK_FLOATS = 32 << 10; // what a worker takes at a time: a stop waits for as long
constexpr size_t  COPY_BYTES   = 8 << 20;
constexpr auto    SLICE        = std::chrono::milliseconds(20);

struct stopped {};

struct progress {
    int (*call)(float, void *);
    void *   user;
    uint64_t done = 0, total = 0; // bytes read

    // part: bytes beyond done.
    void report(uint64_t part) const {
        if (!call(total ? static_cast<float>(static_cast<double>(done + part) / static_cast<double>(total)) : 1.0f, user)) {
            throw stopped();
        }
    }
};

class source {
  public:
    explicit source(const std::vector<std::string> & paths) : paths_(paths), files_(paths.size()) {}

    void read(const tensor & t, uint64_t offset, void * dst, uint64_t n_bytes) {
        std::ifstream & file = files_[t.part];
        if (!file.is_open()) {
            file.open(fs::u8path(paths_[t.part]), std::ios::binary);
        }
        file.seekg(static_cast<std::streamoff>(t.offset + offset));
        file.read(static_cast<char *>(dst), static_cast<std::streamsize>(n_bytes));
        if (!file) {
            throw failure(KOLLAMA_ERROR_IO, format("%s: reading failed after byte %llu, in tensor '%s'", paths_[t.part].c_str(),
                                                   (unsigned long long) (t.offset + offset), t.name.c_str()));
        }
    }

  private:
    const std::vector<std::string> & paths_;
    std::vector<std::ifstream>       files_;
};

class sink {
  public:
    explicit sink(const std::string & path) : file_(fs::u8path(path), std::ios::binary) { check(); }

    void write(const void * data, uint64_t n_bytes) {
        errno = 0;
        file_.write(static_cast<const char *>(data), static_cast<std::streamsize>(n_bytes));
        check();
    }

    void pad(uint64_t n_bytes) {
        const std::vector<char> zeros(n_bytes);
        write(zeros.data(), zeros.size());
    }

    void close() {
        errno = 0;
        file_.close();
        check();
    }

  private:
    void check() const {
        if (!file_) {
            throw failure(KOLLAMA_ERROR_WRITE, errno ? std::strerror(errno) : "writing failed"); // the caller names the file
        }
    }

    std::ofstream file_;
};

bool all_finite(const float * values, int64_t count) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof(bits));
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

// ---- a slab of rows, shared out among workers ----------------------------------------------------

class slab {
  public:
    slab(const tensor & t, const char * src, char * dst) :
        t_(t), src_(src), dst_(dst), row_from_(ggml_row_size(t.from, t.ne[0])), row_to_(ggml_row_size(t.to, t.ne[0])),
        chunk_rows_(std::max<int64_t>(1, CHUNK_FLOATS / t.ne[0])) {}

    // Rows first to first + n_rows of the tensor; polls while the workers are busy.
    template <class Poll> void run(int64_t first, int64_t n_rows, int n_threads, Poll && poll) {
        first_ = first;
        n_rows_ = n_rows;
        next_ = done_ = 0;
        std::vector<std::thread> threads;
        const int64_t            n_chunks = (n_rows + chunk_rows_ - 1) / chunk_rows_;
        try {
            while (static_cast<int64_t>(threads.size()) < std::min<int64_t>(n_threads, n_chunks)) {
                count(1);
                threads.emplace_back([this] { work(); });
            }
        } catch (const std::exception &) { // as many as can be had
            count(-1);
        }
        std::exception_ptr wish = wait(threads.empty(), poll);
        for (auto & thread : threads) {
            thread.join();
        }
        if (wish || error_) {
            std::rethrow_exception(wish ? wish : error_);
        }
    }

  private:
    // What poll threw, once all workers have ended.
    template <class Poll> std::exception_ptr wait(bool alone, Poll && poll) {
        std::exception_ptr wish;
        const auto         ask = [&] {
            try {
                poll(static_cast<uint64_t>(done_) * row_from_);
            } catch (...) {
                wish = std::current_exception();
                stop_ = true;
            }
        };
        if (alone) {
            for (std::vector<float> floats, back; !stop_ && step(floats, back);) {
                ask();
            }
            return wish;
        }
        std::unique_lock<std::mutex> lock(mutex_);
        while (running_ > 0) {
            if (!ended_.wait_for(lock, SLICE, [&] { return running_ == 0; }) && !stop_) {
                lock.unlock();
                ask();
                lock.lock();
            }
        }
        return wish;
    }

    void work() noexcept {
        try {
            for (std::vector<float> floats, back; !stop_ && step(floats, back);) {
            }
        } catch (...) {
            fail();
        }
        count(-1);
    }

    void count(int change) {
        std::lock_guard<std::mutex> lock(mutex_);
        running_ += change;
        if (running_ == 0) {
            ended_.notify_one();
        }
    }

    void fail() {
        std::lock_guard<std::mutex> lock(mutex_);
        error_ = error_ ? error_ : std::current_exception();
        stop_  = true;
    }

    // One chunk; false when there is none left. A failing assertion of ggml is the slab's error.
    bool step(std::vector<float> & floats, std::vector<float> & back) {
        const int64_t begin = next_.fetch_add(chunk_rows_);
        if (begin >= n_rows_) {
            return false;
        }
        const int64_t end = std::min(begin + chunk_rows_, n_rows_);
        try {
            guard g;
            convert(begin, end, floats, back);
        } catch (...) {
            fail();
        }
        done_ += end - begin;
        return true;
    }

    void convert(int64_t begin, int64_t end, std::vector<float> & floats, std::vector<float> & back) {
        const int64_t n_per_row = t_.ne[0];
        const float * values    = to_floats(t_.from, src_ + begin * row_from_, (end - begin) * n_per_row, floats);
        if (!all_finite(values, (end - begin) * n_per_row)) {
            throw failure(KOLLAMA_ERROR_FORMAT, "tensor '" + t_.name + "' holds a weight that is no finite number");
        }
        if (t_.from == t_.to) {
            return;
        }
        for (int64_t row = begin; row < end;) {
            // Each expert of a mixture has its own importance.
            const int64_t expert = (first_ + row) / t_.ne[1];
            const int64_t n      = std::min(end - row, (expert + 1) * t_.ne[1] - first_ - row);
            ggml_quantize_chunk(t_.to, values + (row - begin) * n_per_row, dst_ + row * row_to_, 0, n, n_per_row,
                                t_.importance ? t_.importance->data() + expert * n_per_row : nullptr);
            row += n;
        }
        values = to_floats(t_.to, dst_ + begin * row_to_, (end - begin) * n_per_row, back);
        if (!all_finite(values, (end - begin) * n_per_row)) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("tensor '%s' holds weights that are too large for %s", t_.name.c_str(),
                                                       ggml_type_name(t_.to)));
        }
    }

    static const float * to_floats(ggml_type type, const char * data, int64_t count, std::vector<float> & memory) {
        if (type == GGML_TYPE_F32) {
            return reinterpret_cast<const float *>(data);
        }
        memory.resize(count);
        ggml_get_type_traits(type)->to_float(data, memory.data(), count);
        return memory.data();
    }

    const tensor &         t_;
    const char *           src_;
    char *                 dst_;
    const int64_t          row_from_, row_to_, chunk_rows_;
    int64_t                first_ = 0, n_rows_ = 0;
    std::atomic<int64_t>   next_{0}, done_{0};
    std::atomic<bool>      stop_{false};
    std::mutex             mutex_; // of what is below
    std::condition_variable ended_;
    int                    running_ = 0;
    std::exception_ptr     error_;
};

// ---- tensors -------------------------------------------------------------------------------------

// The tables of a type, which take the iq1 and iq2 types seconds, once in a process: a stop leaves
// the thread that makes them to its work. Made ahead, as ggml holds a lock meanwhile that a worker
// whose assertion failed would keep.
template <class Poll> void make_tables(ggml_type type, Poll && poll) {
    const auto make = [type] {
        guard g;
        ggml_quantize_init(type);
    };
    std::packaged_task<void()> task(make);
    std::future<void>          made = task.get_future();
    try {
        std::thread(std::move(task)).detach();
    } catch (const std::system_error &) { // no thread to be had
        return make();
    }
    while (made.wait_for(SLICE) != std::future_status::ready) {
        poll();
    }
    made.get();
}

void convert(const tensor & t, source & in, sink & out, int n_threads, const progress & status) {
    const size_t      row_from = ggml_row_size(t.from, t.ne[0]), row_to = ggml_row_size(t.to, t.ne[0]);
    const int64_t     n_slab = std::min(t.n_rows(), std::max<int64_t>(1, SLAB_FLOATS / t.ne[0]));
    std::vector<char> src(n_slab * row_from), dst(t.from == t.to ? 0 : n_slab * row_to);
    slab              work(t, src.data(), dst.data());
    make_tables(t.to, [&] { status.report(0); });
    for (int64_t row = 0; row < t.n_rows(); row += n_slab) {
        const int64_t n = std::min(n_slab, t.n_rows() - row);
        in.read(t, row * row_from, src.data(), n * row_from);
        work.run(row, n, n_threads, [&](uint64_t n_bytes) { status.report(row * row_from + n_bytes); });
        out.write(t.from == t.to ? src.data() : dst.data(), n * row_to);
        status.report((row + n) * row_from);
    }
}

// Integers, and what nothing is known about.
void copy(const tensor & t, source & in, sink & out, const progress & status) {
    std::vector<char> buffer(std::min<uint64_t>(COPY_BYTES, t.n_bytes_from));
    for (uint64_t at = 0; at < t.n_bytes_from; at += buffer.size()) {
        const uint64_t n_bytes = std::min<uint64_t>(buffer.size(), t.n_bytes_from - at);
        in.read(t, at, buffer.data(), n_bytes);
        out.write(buffer.data(), n_bytes);
        status.report(at + n_bytes);
    }
}

void check_ready(const kollama_quantization & q) {
    if (!q.header) {
        throw failure(KOLLAMA_ERROR_STATE, "the quantization is not planned yet");
    }
    for (const auto & t : q.tensors) {
        if (t.needs_importance) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("%s as %s needs an importance matrix that has it", t.name.c_str(),
                                                         ggml_type_name(t.to)));
        }
    }
}

void run(const kollama_quantization & q, const std::string & path, int n_threads, progress status) {
    check_ready(q);
    for (const auto & t : q.tensors) {
        status.total += t.n_bytes_from;
    }
    source            in(q.parts);
    sink              out(path);
    std::vector<char> header(gguf_get_meta_size(q.header.get()));
    gguf_get_meta_data(q.header.get(), header.data());
    out.write(header.data(), header.size());
    const size_t alignment = gguf_get_alignment(q.header.get());
    status.report(0);
    for (const auto & t : q.tensors) {
        if (t.n_bytes_from > 0) {
            can_quantize_from(t.from) ? convert(t, in, out, n_threads, status) : copy(t, in, out, status);
        }
        out.pad(GGML_PAD(t.n_bytes_to, alignment) - t.n_bytes_to);
        status.done += t.n_bytes_from;
    }
    out.close();
    status.report(0);
}

} // namespace
} // namespace kollama

using namespace kollama;

kollama_status kollama_quantization_run(kollama_quantization * quantization, const char * path, int32_t n_threads,
                                        int (*call)(float done, void * user), void * user) {
    return guarded([&] {
        try {
            run(*quantization, path, n_threads, { call, user });
        } catch (const stopped &) {
            throw failure(KOLLAMA_ERROR_ABORTED, quantization->parts[0] + ": the quantization was stopped");
        }
    });
}
