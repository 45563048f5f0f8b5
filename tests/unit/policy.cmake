# SPDX-License-Identifier: Apache-2.0
st_unit_test(policy_test
  SOURCES policy_ports_test.cpp policy_cidrs_test.cpp policy_compile_test.cpp policy_merge_test.cpp policy_bad_input_test.cpp policy_keys_test.cpp policy_tuning_test.cpp policy_endpoint_test.cpp
          policy_compat_test.cpp policy_origin_test.cpp policy_services_test.cpp policy_routes_test.cpp
  LIBS st_policy st_kube)
st_unit_test(decide_test SOURCES decide_test.cpp LIBS st_headers)
st_unit_test(choose_test SOURCES choose_test.cpp LIBS st_headers)
