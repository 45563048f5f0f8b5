# SPDX-License-Identifier: Apache-2.0
st_unit_test(reconcile_test
  SOURCES reconcile_intents_test.cpp reconcile_row_test.cpp reconcile_pods_test.cpp reconcile_netns_test.cpp reconcile_audit_test.cpp
  LIBS st_reconcile)
