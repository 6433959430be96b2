// SSE2, where it is there: on every x86-64.

#pragma once

#if defined(__SSE2__) || (defined(_M_X64) && !defined(_M_ARM64EC))
#    include <emmintrin.h>
#    define KOLLAMA_SSE2
#endif
