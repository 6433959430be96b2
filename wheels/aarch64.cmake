# Linux on 64-bit Arm from another machine: Clang, as GCC 12 does not know SME, with the headers,
# libstdc++ and linker of the cross GCC.
set(CMAKE_SYSTEM_NAME      Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

find_program(CMAKE_C_COMPILER   NAMES clang   clang-19   REQUIRED)
find_program(CMAKE_CXX_COMPILER NAMES clang++ clang++-19 REQUIRED)
set(CMAKE_C_COMPILER_TARGET   aarch64-linux-gnu)
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-gnu)
set(CMAKE_STRIP aarch64-linux-gnu-strip) # scikit-build-core strips what it installs

set(CMAKE_FIND_ROOT_PATH              /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE BOTH) # Python's headers are those of this machine
