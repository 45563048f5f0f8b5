# SPDX-License-Identifier: Apache-2.0
# st_bpf_skeleton(NAME sources.bpf.c...): compiles each source with clang, links the objects with bpftool into one CO-RE
# object and generates its skeleton. The result is an INTERFACE library NAME with the include path of <NAME.skel.h>.
find_program(BPF_CLANG NAMES clang clang-14 clang-15 clang-16 REQUIRED)
find_program(BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin REQUIRED)
execute_process(COMMAND ${CMAKE_C_COMPILER} -print-multiarch OUTPUT_VARIABLE ST_MULTIARCH OUTPUT_STRIP_TRAILING_WHITESPACE)

function(st_bpf_skeleton name)
  set(objects)
  foreach(source IN LISTS ARGN)
    get_filename_component(stem ${source} NAME_WE)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${stem}.bpf.o)
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${BPF_CLANG} -g -O2 -std=gnu11 -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -Wall -Wextra -Wno-unused-parameter -Werror
              -ffile-prefix-map=${CMAKE_SOURCE_DIR}=/sidetrack -fdebug-compilation-dir=/sidetrack # from any folder the same
              -I${CMAKE_SOURCE_DIR}/include -I${CMAKE_SOURCE_DIR}/bpf -isystem /usr/include/${ST_MULTIARCH}
              -MD -MF ${object}.d -MT ${object} -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
      DEPENDS ${source}
      DEPFILE ${object}.d
      COMMENT "BPF ${source}"
      VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(linked ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  set(skeleton ${CMAKE_CURRENT_BINARY_DIR}/include/${name}.skel.h)
  add_custom_command(OUTPUT ${linked}
    COMMAND ${BPFTOOL} gen object ${linked} ${objects}
    DEPENDS ${objects} COMMENT "BPF link ${name}" VERBATIM)
  add_custom_command(OUTPUT ${skeleton}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/include
    COMMAND sh -c "\"$0\" gen skeleton \"$1\" name \"$2\" > \"$3\"" ${BPFTOOL} ${linked} ${name} ${skeleton}
    DEPENDS ${linked} COMMENT "BPF skeleton ${name}" VERBATIM)
  add_custom_target(${name}_generate DEPENDS ${skeleton})
  add_library(${name} INTERFACE)
  add_dependencies(${name} ${name}_generate)
  target_include_directories(${name} SYSTEM INTERFACE ${CMAKE_CURRENT_BINARY_DIR}/include)
  target_link_libraries(${name} INTERFACE PkgConfig::LIBBPF)
endfunction()
