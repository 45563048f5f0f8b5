# SPDX-License-Identifier: Apache-2.0
st_unit_test(cli_test SOURCES cli_complain_test.cpp cli_origins_test.cpp LIBS st_cli)
target_compile_definitions(cli_test PRIVATE ST_BIN="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
add_dependencies(cli_test sidetrack-agent sidetrack-engine sidetrack-probe sidetrack-cni sidetrackctl)
