# SPDX-License-Identifier: Apache-2.0
st_unit_test(fast_rules_test SOURCES fast_rules_test.cpp LIBS st_headers)
st_unit_test(fast_model_test SOURCES fast_model_test.cpp fast_model.cpp fast_model_relay.cpp
             fast_model_leave.cpp LIBS st_headers fmt::fmt)
