// The exception that becomes a status of the C face.

#pragma once

#include "kollama.h"

#include <stdexcept>
#include <string>

namespace kollama {

// A failure with its status; becomes the return value and kollama_last_error() of a face function.
struct failure : std::runtime_error {
    kollama_status status;

    failure(kollama_status status, const std::string & reason) : std::runtime_error(reason), status(status) {}
};

#if defined(__GNUC__)
#    define KOLLAMA_PRINTF(text, args) __attribute__((format(printf, text, args)))
#else
#    define KOLLAMA_PRINTF(text, args)
#endif

KOLLAMA_PRINTF(1, 2) std::string format(const char * text, ...);

} // namespace kollama
