// Zero-filled memory for tables that are read at random places. On Linux in huge pages where the
// system gives them: with small ones most reads of such a table begin with a walk through the page
// tables, which took more time than the tokenizer's own work (benchmarks/RESULTS.md).

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#ifdef __linux__
#    include <sys/mman.h>
#endif

namespace kollama {

template <class T> class big_array {
    static_assert(std::is_trivially_copyable<T>::value && std::is_trivially_destructible<T>::value, "raw memory");

  public:
    big_array() = default;
    explicit big_array(size_t n) {
        bytes_ = std::max<size_t>(1, n) * sizeof(T) + alignof(T);
#ifdef __linux__
        if (bytes_ >= HUGE / 2) {
            bytes_        = (bytes_ + 2 * HUGE - 1) / HUGE * HUGE; // one more, to begin where a huge page does
            void * mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (mapped == MAP_FAILED) {
                throw std::bad_alloc();
            }
            memory_ = mapped;
            data_   = aligned<HUGE>(mapped);
            madvise(data_, bytes_ - HUGE, MADV_HUGEPAGE);
            mapped_ = true;
            return;
        }
#endif
        memory_ = std::calloc(1, bytes_);
        if (!memory_) {
            throw std::bad_alloc();
        }
        data_ = aligned<alignof(T)>(memory_);
    }
    ~big_array() {
#ifdef __linux__
        if (mapped_) {
            munmap(memory_, bytes_);
            return;
        }
#endif
        std::free(memory_);
    }
    big_array(big_array && other) noexcept { swap(other); }
    big_array & operator=(big_array && other) noexcept {
        swap(other);
        return *this;
    }

    T *       data() { return data_; }
    const T * data() const { return data_; }
    T &       operator[](size_t i) { return data_[i]; }
    const T & operator[](size_t i) const { return data_[i]; }

    void swap(big_array & other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        std::swap(mapped_, other.mapped_);
    }

  private:
    static constexpr size_t HUGE = size_t{ 2 } << 20;

    template <size_t Alignment> static T * aligned(void * memory) {
        const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
        return reinterpret_cast<T *>((at + Alignment - 1) / Alignment * Alignment);
    }

    void * memory_ = nullptr;
    T *    data_   = nullptr;
    size_t bytes_  = 0;
    bool   mapped_ = false;
};

} // namespace kollama
