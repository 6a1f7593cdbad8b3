# Included through -DCMAKE_PROJECT_INCLUDE by setup.py only. The CMake targets that the ros-* wheels export name
# include folders of the container they were built in (/opt/python/...); CMake refuses targets whose include
# folders do not exist, so they are dropped. On a ROS distribution this file is not used.
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
