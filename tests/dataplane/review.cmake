# SPDX-License-Identifier: Apache-2.0
st_root_test(review_test SOURCES review_test.cpp LIBS st_mesh)
