# Removes include folders that do not exist from the CMake targets of the ros-* wheels of PyPI. Those targets name
# folders of the container that built them (/opt/python/...), and CMake refuses targets with missing include folders.
# The call is deferred because rosidl imports targets until the end. On a ROS distribution it has no effect.
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
