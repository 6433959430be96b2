// Stops other threads of this process, for ever.

#pragma once

#include <cstdint>

namespace kollama {

uint64_t this_thread_id();

// The thread must be alive. Where the system has no way, it goes on.
void suspend_thread(uint64_t id);

} // namespace kollama
