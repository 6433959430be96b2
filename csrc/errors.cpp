#include "errors.h"

#include <cstdarg>
#include <cstdio>

namespace kollama {

std::string format(const char * text, ...) {
    va_list args, again;
    va_start(args, text);
    va_copy(again, args);
    std::string out(std::vsnprintf(nullptr, 0, text, args), '\0');
    std::vsnprintf(out.data(), out.size() + 1, text, again);
    va_end(again);
    va_end(args);
    return out;
}

} // namespace kollama
