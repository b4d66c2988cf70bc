# SPDX-License-Identifier: Apache-2.0
# Each public header compiles alone; the plugin ABI with every compiler a plugin may be built with.

file(GLOB headers CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/include include/hookline/*.h include/hookline/*.hpp)
add_library(public_headers OBJECT)
target_link_libraries(public_headers PRIVATE hookline_core)
foreach(header ${headers})
  file(GENERATE OUTPUT public_headers/${header}.cpp CONTENT "#include <${header}>\n")
  target_sources(public_headers PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/public_headers/${header}.cpp)
endforeach()

foreach(compiler gcc clang)
  find_program(HOOKLINE_TEST_${compiler} ${compiler})
  if(NOT HOOKLINE_TEST_${compiler})
    continue()
  endif()
  foreach(language c11:c:plugin_abi_test.c c++20:c++:plugin_abi_test.c)
    string(REPLACE ":" ";" parts ${language})
    list(GET parts 0 standard)
    list(GET parts 1 mode)
    list(GET parts 2 source)
    add_test(NAME plugin_abi_${standard}_${compiler}
      COMMAND ${HOOKLINE_TEST_${compiler}} -std=${standard} -x ${mode} -Wall -Wextra -Wpedantic -Werror -fsyntax-only
        -I ${CMAKE_CURRENT_SOURCE_DIR}/include ${CMAKE_CURRENT_SOURCE_DIR}/src/${source})
    set_tests_properties(plugin_abi_${standard}_${compiler} PROPERTIES LABELS unit TIMEOUT 60)
  endforeach()
endforeach()
