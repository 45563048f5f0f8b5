# SPDX-License-Identifier: Apache-2.0
st_unit_test(adopt_test SOURCES adopt_adoption_test.cpp adopt_relays_test.cpp
  adopt_unseen_test.cpp adopt_walks_test.cpp adopt_workloads_test.cpp LIBS st_adopt)
