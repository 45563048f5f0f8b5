# SPDX-License-Identifier: Apache-2.0
st_unit_test(cli_test SOURCES cli_origins_test.cpp LIBS st_cli)
