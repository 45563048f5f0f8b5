# SPDX-License-Identifier: Apache-2.0
# The dependency rules between folders, checked on the includes of every source file.
find_program(PYTHON3 NAMES python3 REQUIRED)
set(layers ${PYTHON3} ${CMAKE_SOURCE_DIR}/tests/layers/check_layers.py)
add_test(NAME Layers.hold COMMAND ${layers} ${CMAKE_SOURCE_DIR})
add_test(NAME Layers.finds_violations COMMAND ${layers} --self-test)
add_test(NAME Layers.hooks_are_documented COMMAND ${PYTHON3} ${CMAKE_SOURCE_DIR}/tests/layers/check_hooks.py ${CMAKE_SOURCE_DIR})
set_tests_properties(Layers.hold Layers.finds_violations Layers.hooks_are_documented PROPERTIES LABELS unit ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
add_test(NAME skipped_tests_are_told COMMAND python3 -B ${CMAKE_CURRENT_SOURCE_DIR}/skipped_tests_test.py ${CMAKE_SOURCE_DIR}/scripts/skipped_tests.py)
set_tests_properties(skipped_tests_are_told PROPERTIES LABELS unit)
