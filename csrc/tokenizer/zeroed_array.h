// Zero-filled memory for large tables. Pages that nothing is written to are never there, and a table
// of cache lines begins at one: what std::vector does not give.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

namespace kollama {

template <class T> class zeroed_array {
    static_assert(std::is_trivially_copyable<T>::value && std::is_trivially_destructible<T>::value, "raw memory");

  public:
    zeroed_array() = default;
    explicit zeroed_array(size_t n) : memory_(std::calloc(n + 1, sizeof(T))) {
        if (!memory_) {
            throw std::bad_alloc();
        }
        data_ = reinterpret_cast<T *>((reinterpret_cast<uintptr_t>(memory_) + alignof(T) - 1) / alignof(T) * alignof(T));
    }
    ~zeroed_array() { std::free(memory_); }
    zeroed_array(zeroed_array && other) noexcept { swap(other); }
    zeroed_array & operator=(zeroed_array && other) noexcept {
        swap(other);
        return *this;
    }

    T *       data() { return data_; }
    const T * data() const { return data_; }
    T &       operator[](size_t i) { return data_[i]; }
    const T & operator[](size_t i) const { return data_[i]; }

    void swap(zeroed_array & other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(data_, other.data_);
    }

  private:
    void * memory_ = nullptr;
    T *    data_   = nullptr;
};

} // namespace kollama
