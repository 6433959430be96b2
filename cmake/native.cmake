# KOLLAMA_NATIVE on x86: ggml's loadable CPU backend cannot be built with -march=native, because it
# must know by name what it was compiled for (and so refuses a CPU that lacks it, where a native
# binary would die of an illegal instruction). So ask the compiler what this CPU has, and name it.

set(KOLLAMA_X86_FEATURES
    SSE42:__SSE4_2__  AVX:__AVX__  F16C:__F16C__  FMA:__FMA__  BMI2:__BMI2__  AVX2:__AVX2__
    AVX_VNNI:__AVXVNNI__  AVX512:__AVX512DQ__  AVX512_VBMI:__AVX512VBMI__
    AVX512_VNNI:__AVX512VNNI__  AVX512_BF16:__AVX512BF16__
    AMX_TILE:__AMX_TILE__  AMX_INT8:__AMX_INT8__  AMX_BF16:__AMX_BF16__)

function(kollama_native_x86)
    execute_process(
        COMMAND ${CMAKE_C_COMPILER} -march=native -dM -E -x c /dev/null
        OUTPUT_VARIABLE macros RESULT_VARIABLE failed ERROR_QUIET)
    if (failed)
        message(FATAL_ERROR "${CMAKE_C_COMPILER} does not know -march=native: "
                            "build with KOLLAMA_NATIVE=OFF KOLLAMA_ALL_VARIANTS=ON")
    endif()
    foreach (feature ${KOLLAMA_X86_FEATURES})
        string(REPLACE ":" ";" pair ${feature})
        list(GET pair 0 name)
        list(GET pair 1 macro)
        if (macros MATCHES "#define ${macro} ")
            list(APPEND found ${name})
            set(GGML_${name} ON PARENT_SCOPE)
        else()
            set(GGML_${name} OFF PARENT_SCOPE)
        endif()
    endforeach()
    message(STATUS "kollama: for this CPU: ${found}")
endfunction()
