# SPDX-License-Identifier: Apache-2.0
st_unit_test(log_test SOURCES log_test.cpp LIBS st_log nlohmann_json::nlohmann_json)
