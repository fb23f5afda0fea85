# Build settings shared by all targets, and one function a folder.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(KVASIR_CCACHE ccache)
if(KVASIR_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${KVASIR_CCACHE})
endif()

# Floating point must mean the same everywhere: the compiler may not fuse a multiply and an add on
# its own, or the same row would differ by the loop it was computed in.
add_compile_options(-ffp-contract=off -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wno-missing-field-initializers
                    -Wnon-virtual-dtor -Woverloaded-virtual -Werror -fno-math-errno
                    -fstack-protector-strong)
# GCC 12 sees overlapping copies in std::string's own operator+ (its bug 105651).
add_compile_options($<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
add_compile_definitions(_GLIBCXX_ASSERTIONS)
add_link_options(-Wl,-z,relro,-z,now)
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  add_compile_definitions($<$<COMPILE_LANGUAGE:CXX>:_FORTIFY_SOURCE=2>)
endif()
# Presets that are built as a whole, not file by file, compile several files as one: most of their
# time goes into the headers of libraries. What one file's names may mean in another is no warning.
if(CMAKE_UNITY_BUILD)
  add_compile_options(-Wno-shadow $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endif()
if(KVASIR_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
  add_link_options(-fsanitize=fuzzer-no-link)
endif()
if(KVASIR_SANITIZE)
  # Among its checks GCC 12 loses track of which variant is set.
  add_compile_options(-fsanitize=${KVASIR_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all
                      # It looks at memory through a pipe: a test that leaves no file descriptors would fail by it.
                      -fno-sanitize=vptr
                      $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
                      # Asio's fences order memory that its own locks order too.
                      $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
  add_link_options(-fsanitize=${KVASIR_SANITIZE})
endif()

# kvasir_folder(<name> [DEPS <libraries>...] [SOURCES <extra files>...])
# The library kvasir_<name> of all sources in this folder, and a test program <name>_test of all
# its *_test.cc. A test is found by CTest as <Suite>.<Name>.
function(kvasir_folder name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_(test|bench)\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  if(sources)
    add_library(kvasir_${name} STATIC ${sources})
    target_include_directories(kvasir_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(kvasir_${name} PUBLIC ${ARG_DEPS})
  else()
    add_library(kvasir_${name} INTERFACE)
    target_include_directories(kvasir_${name} INTERFACE ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(kvasir_${name} INTERFACE ${ARG_DEPS})
  endif()
  if(KVASIR_TESTS AND tests)
    kvasir_test(${name}_test SOURCES ${tests} DEPS kvasir_${name})
  endif()
endfunction()

# kvasir_test(<program> SOURCES <files>... DEPS <libraries>...)
function(kvasir_test program)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${program} ${ARG_SOURCES})
  target_include_directories(${program} PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(${program} PRIVATE ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${program} PRIVATE KVASIR_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  gtest_discover_tests(${program} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 900)
endfunction()
