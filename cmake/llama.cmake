# llama.cpp and ggml from the submodule, as libraries whose names are ours alone: two packages in
# one process that carry a library of the same SONAME both get the one that was loaded first.

execute_process(
    COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/fetch_llama_cpp.py
    RESULT_VARIABLE fetch_result)
if (NOT fetch_result EQUAL 0)
    message(FATAL_ERROR "The llama.cpp submodule is missing; the line above says why.")
endif()

set(BUILD_SHARED_LIBS     ON)
set(GGML_BACKEND_DL       ON)
set(GGML_OPENMP           OFF) # ggml's own threads: as fast, and no second runtime in the process
set(GGML_CCACHE           OFF) # KOLLAMA_CCACHE decides
set(GGML_CPU_ALL_VARIANTS ${KOLLAMA_ALL_VARIANTS})
set(GGML_METAL            ${KOLLAMA_METAL})
set(GGML_CUDA             ${KOLLAMA_CUDA})
set(GGML_VULKAN           ${KOLLAMA_VULKAN})
set(GGML_BLAS             ${KOLLAMA_BLAS})
set(GGML_RPC              ${KOLLAMA_RPC})
set(LLAMA_OPENSSL         OFF)
if (KOLLAMA_SANITIZE MATCHES "thread")
    # What ggml's threads hand each other by atomics and fences looks like a race where only the rest
    # is instrumented.
    set(GGML_SANITIZE_THREAD  ON)
    set(LLAMA_SANITIZE_THREAD ON)
endif()

if (CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64" AND NOT CMAKE_OSX_ARCHITECTURES MATCHES arm64)
    set(GGML_NATIVE OFF)
    if (MSVC) # has no -march=native to ask
        set(GGML_CPU_ALL_VARIANTS ON)
    elseif (KOLLAMA_NATIVE AND NOT KOLLAMA_ALL_VARIANTS)
        include(cmake/native.cmake)
        kollama_native_x86()
    endif()
elseif (KOLLAMA_ALL_VARIANTS)
    set(GGML_NATIVE OFF)
else()
    set(GGML_NATIVE ${KOLLAMA_NATIVE})
endif()

add_subdirectory(${PROJECT_SOURCE_DIR}/third_party/llama.cpp
                 ${PROJECT_BINARY_DIR}/llama.cpp EXCLUDE_FROM_ALL SYSTEM)

if (CMAKE_SYSTEM_NAME STREQUAL "Linux")
    target_sources(ggml-base PRIVATE ${PROJECT_SOURCE_DIR}/csrc/huge_pages.c)
    target_link_options(ggml-base PRIVATE LINKER:--wrap=posix_memalign)
    target_sources(llama PRIVATE ${PROJECT_SOURCE_DIR}/csrc/huge_mapping.c)
    target_link_options(llama PRIVATE LINKER:--wrap=mmap)
endif()

if (APPLE)
    set(KOLLAMA_ORIGIN "@loader_path")
else()
    set(KOLLAMA_ORIGIN "$ORIGIN")
endif()

# An unset VERSION leaves one file per library: a wheel stores a symlink as a further full copy.
foreach (target llama ggml ggml-base ${GGML_AVAILABLE_BACKENDS})
    set_property(TARGET ${target} PROPERTY VERSION)
    set_property(TARGET ${target} PROPERTY SOVERSION)
    set_property(TARGET ${target} PROPERTY PUBLIC_HEADER)
    set_target_properties(${target} PROPERTIES
        OUTPUT_NAME   kollama-${target}
        INSTALL_RPATH "${KOLLAMA_ORIGIN}")
    install(TARGETS ${target}
        LIBRARY DESTINATION kollama/lib COMPONENT kollama
        RUNTIME DESTINATION kollama/lib COMPONENT kollama)
endforeach()

file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/fetch_llama_cpp.py pin REGEX "^COMMIT = ")
string(REGEX REPLACE "^COMMIT = \"(.*)\"$" "\\1" KOLLAMA_LLAMA_COMMIT "${pin}")
