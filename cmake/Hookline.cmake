# SPDX-License-Identifier: Apache-2.0
# The project's own CMake verbs: warnings for everything, one line per plugin, one line per test.

add_compile_options(-Wall -Wextra -Wshadow -Werror=return-type)
if(HOOKLINE_SANITIZE)
  add_compile_options(-fsanitize=${HOOKLINE_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${HOOKLINE_SANITIZE})
endif()

set(HOOKLINE_PLUGIN_DIR ${CMAKE_BINARY_DIR}/plugins)
set(HOOKLINE_PLUGIN_MAP ${CMAKE_CURRENT_LIST_DIR}/plugin.map)

# hookline_add_plugin(NAME SOURCES file...)
# A plugin: a module with one exported symbol. Everything the host gives it comes by table at open(), so nothing may
# be undefined at link time. With a sanitizer the module is never unmapped, or its leak reports lose their names.
function(hookline_add_plugin name)
  cmake_parse_arguments(ARG "" "" "SOURCES" ${ARGN})
  add_library(${name} MODULE ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE hookline_plugin)
  set_target_properties(${name} PROPERTIES
    PREFIX "" C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    LIBRARY_OUTPUT_DIRECTORY ${HOOKLINE_PLUGIN_DIR})
  target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>)
  target_link_options(${name} PRIVATE -Wl,--version-script=${HOOKLINE_PLUGIN_MAP})
  set_target_properties(${name} PROPERTIES LINK_DEPENDS ${HOOKLINE_PLUGIN_MAP})
  if(HOOKLINE_SANITIZE)
    target_link_options(${name} PRIVATE -Wl,-z,nodelete)
  endif()
  if(NOT (HOOKLINE_SANITIZE AND CMAKE_CXX_COMPILER_ID MATCHES Clang))
    target_link_options(${name} PRIVATE -Wl,-z,defs)
  endif()
endfunction()

# hookline_add_model(NAME SOURCES file...)
# A software model (hookline/model.h), built like a plugin, kept beside the plugins as NAME.so.
function(hookline_add_model name)
  hookline_add_plugin(${name} ${ARGN})
  set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/models)
endfunction()

# hookline_add_test(NAME SOURCES file... [LIBS lib...] [LABELS label...])
# One GoogleTest binary, run as one ctest entry; without LABELS it is a unit test: no root, no device, below a second.
function(hookline_add_test name)
  if(NOT HOOKLINE_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS;LABELS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 60)
endfunction()
