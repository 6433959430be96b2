# For the projects in wheels/ that build one of ggml's backend libraries, from the commit of llama.cpp that
# kollama is pinned to. Such a library needs nothing of kollama but libkollama-ggml-base, which is in the
# process by the time it is loaded: the dynamic linker finds it by that name.

set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_package(Python REQUIRED COMPONENTS Interpreter)
find_program(CCACHE_PROGRAM ccache)
if (CCACHE_PROGRAM)
    foreach (language C CXX CUDA)
        set(CMAKE_${language}_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
    endforeach()
endif()

# This folder's parent is kollama's repository, or a plugin's sdist: fetch_llama_cpp.py fills its third_party.
get_filename_component(here ${CMAKE_CURRENT_LIST_DIR} REALPATH)
get_filename_component(kollama_root ${here} DIRECTORY)
execute_process(COMMAND ${Python_EXECUTABLE} ${here}/fetch_llama_cpp.py RESULT_VARIABLE fetch_result)
if (NOT fetch_result EQUAL 0)
    message(FATAL_ERROR "llama.cpp is missing; the line above says why.")
endif()
set(KOLLAMA_LLAMA_CPP ${kollama_root}/third_party/llama.cpp)

file(STRINGS ${here}/fetch_llama_cpp.py pin REGEX "^COMMIT = ")
string(REGEX REPLACE "^COMMIT = \"(.*)\"$" "\\1" KOLLAMA_LLAMA_COMMIT "${pin}")

# What decides the layout of ggml's structures must be as in llama.cmake.
set(BUILD_SHARED_LIBS   ON)
set(GGML_BACKEND_DL     ON)
set(GGML_OPENMP         OFF)
set(GGML_CCACHE         OFF)
set(GGML_NATIVE         OFF)
set(GGML_CPU            OFF)
set(GGML_BUILD_TESTS    OFF)
set(GGML_BUILD_EXAMPLES OFF)

# kollama_backend_plugin(target package): the backend library, and beside it what Python must know of it.
function(kollama_backend_plugin target package)
    set_property(TARGET ggml-base PROPERTY VERSION)
    set_property(TARGET ggml-base PROPERTY SOVERSION)
    set_property(TARGET ${target} PROPERTY VERSION)
    set_property(TARGET ${target} PROPERTY SOVERSION)
    set_target_properties(ggml-base PROPERTIES OUTPUT_NAME kollama-ggml-base)
    set_target_properties(${target} PROPERTIES
        OUTPUT_NAME       kollama-${target}
        INSTALL_RPATH     ""
        SKIP_BUILD_RPATH  ON)
    if (APPLE) # finds no library by its name alone
        set_target_properties(${target} PROPERTIES INSTALL_RPATH "@loader_path/../kollama/lib")
    endif()
    add_custom_target(plugin ALL DEPENDS ${target}) # the rest of ggml is not built
    install(TARGETS ${target}
        LIBRARY DESTINATION ${package} COMPONENT kollama
        RUNTIME DESTINATION ${package} COMPONENT kollama)
    file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/_build.py
        CONTENT "# Written by the build.\nLLAMA_COMMIT = \"@KOLLAMA_LLAMA_COMMIT@\"\n" @ONLY)
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/_build.py DESTINATION ${package} COMPONENT kollama)
endfunction()
