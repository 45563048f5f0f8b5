# SPDX-License-Identifier: Apache-2.0
st_root_test(engine_dir_test SOURCES engine_dir_test.cpp LIBS st_agent st_lab)
