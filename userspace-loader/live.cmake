# SPDX-License-Identifier: Apache-2.0
find_package(PkgConfig REQUIRED)
find_package(spdlog REQUIRED)
pkg_check_modules(netlink REQUIRED IMPORTED_TARGET libnl-route-3.0 libnl-3.0)
pkg_check_modules(systemd REQUIRED IMPORTED_TARGET libsystemd)
pkg_check_modules(seccomp REQUIRED IMPORTED_TARGET libseccomp)

# What `hookline` does with devices: binding, supervisor, worker, save and restore.
add_library(hookline_live STATIC
  child_process.cpp
  cmd_apply.cpp
  cmd_compat.cpp
  cmd_detach.cpp
  cmd_run.cpp
  cmd_save.cpp
  cmd_status.cpp
  compat_prepare.cpp
  compat_report.cpp
  compat_side.cpp
  device_chain.cpp
  device_log.cpp
  device_record.cpp
  device_status.cpp
  files.cpp
  linux_host.cpp
  pf_change.cpp
  pf_netlink.cpp
  plan.cpp
  plan_report.cpp
  planner.cpp
  progress.cpp
  run_state.cpp
  sandbox.cpp
  service_control.cpp
  supervisor.cpp
  sysfs.cpp
  table.cpp
  vfio_client.cpp
  worker.cpp
  worker_link.cpp)
target_link_libraries(hookline_live PUBLIC hookline_loader nlohmann_json::nlohmann_json PkgConfig::netlink
  PRIVATE fmt::fmt CLI11::CLI11 spdlog::spdlog PkgConfig::systemd PkgConfig::seccomp)

foreach(unit backoff compat compat_truth device_chain device_status pf_change pf_netlink plan planner progress run_state sandbox sysfs worker_link)
  hookline_add_test(${unit}_test SOURCES ${unit}_test.cpp LIBS hookline_live fmt::fmt)
endforeach()

if(HOOKLINE_TESTS)
  # All pairs of some hundred devices: seconds, and minutes with sanitizers on a busy machine.
  set_tests_properties(compat_truth_test PROPERTIES TIMEOUT 600)
endif()

foreach(unit hookline@.service hookline-apply@.service)
  configure_file(${PROJECT_SOURCE_DIR}/configs/systemd/${unit}.in ${CMAKE_CURRENT_BINARY_DIR}/${unit} @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${unit} DESTINATION lib/systemd/system)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/configs/systemd/hookline.sysusers.conf DESTINATION lib/sysusers.d RENAME hookline.conf)
install(FILES man/hookline.8 DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
