# SPDX-License-Identifier: Apache-2.0
st_root_test(pods_find_test SOURCES pods_find_test.cpp LIBS st_pods)
