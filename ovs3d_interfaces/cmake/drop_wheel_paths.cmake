# For builds against the ros-* wheels of PyPI; on a ROS distribution this changes nothing. The CMake targets that those
# wheels export name include folders of the container they were built in (/opt/python/...), and CMake refuses targets
# whose include folders do not exist. They are dropped last, because rosidl imports targets until then.
function(_ovs3d_drop_wheel_paths)
  get_property(targets DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(includes "${target}" INTERFACE_INCLUDE_DIRECTORIES)
    if(includes)
      list(FILTER includes EXCLUDE REGEX "^/opt/python/")
      set_target_properties("${target}" PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${includes}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL _ovs3d_drop_wheel_paths)
