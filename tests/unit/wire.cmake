# SPDX-License-Identifier: Apache-2.0
st_unit_test(wire_test
  SOURCES wire_codec_test.cpp wire_framing_test.cpp wire_corpus_test.cpp ${CMAKE_SOURCE_DIR}/tests/fuzz/wire_fuzzer.cpp
  LIBS st_wire)
target_compile_definitions(wire_test PRIVATE ST_WIRE_CORPUS="${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/wire")

st_unit_test(wire_server_test
  SOURCES wire_ledger_test.cpp wire_links_test.cpp wire_server_test.cpp wire_server_faults_test.cpp wire_test_engine.cpp
  LIBS st_engines st_wire Threads::Threads)
