# SPDX-License-Identifier: Apache-2.0
# st_options: what every target of ours is compiled with.
add_library(st_options INTERFACE)
target_compile_options(st_options INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wswitch-enum
  -Wno-missing-field-initializers # designated initialisers name what differs from the defaults
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
  $<$<COMPILE_LANGUAGE:CXX>:-Wold-style-cast>
  -fstack-protector-strong)
if(CMAKE_UNITY_BUILD)
  # Sources look like headers then, and what is private in them like a mistake.
  target_compile_options(st_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
endif()
if(ST_WERROR)
  target_compile_options(st_options INTERFACE -Werror)
endif()
if(ST_ASSERTIONS)
  target_compile_definitions(st_options INTERFACE _GLIBCXX_ASSERTIONS)
endif()
if(ST_FUZZ)
  target_compile_options(st_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(ST_SANITIZE)
  target_compile_options(st_options INTERFACE -fsanitize=${ST_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(st_options INTERFACE -fsanitize=${ST_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  target_compile_definitions(st_options INTERFACE _FORTIFY_SOURCE=2)
  target_link_options(st_options INTERFACE -Wl,-z,relro,-z,now)
endif()

# st_library(NAME SOURCES... [PUBLIC libs...] [PRIVATE libs...]): one static library per folder, includes from the root.
function(st_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC st_headers ${arg_PUBLIC} PRIVATE st_options ${arg_PRIVATE})
endfunction()
