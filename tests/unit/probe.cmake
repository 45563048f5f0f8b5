# SPDX-License-Identifier: Apache-2.0
st_unit_test(probe_test SOURCES probe_test.cpp LIBS st_probe)
