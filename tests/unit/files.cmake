# SPDX-License-Identifier: Apache-2.0
st_unit_test(files_test SOURCES files_mounts_test.cpp files_test.cpp LIBS st_files st_lab)
