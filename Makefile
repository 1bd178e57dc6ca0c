# hardsock: build, tests and checks. `make help` lists the targets.
# V=1 shows the commands; FLAVOUR=release|debug|asan|tsan|cov picks what test-c and torture run on;
# WERROR= lets warnings pass.

include tools/flags.mk

MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:

JOBS    ?= 2
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(JOBS)
endif

CC      := $(if $(filter default,$(origin CC)),cc,$(CC))
CLANG   ?= clang
AR      := $(if $(filter default,$(origin AR)),ar,$(AR))
WERROR  ?= -Werror
FLAVOUR ?= debug
VENV    ?= .venv
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
FUZZ_SECONDS ?= 30
# As the extra "docs" of pyproject.toml has them.
DOCS_NEEDS := furo 'myst-parser>=4' 'sphinx>=8'
PYTEST_ARGS ?=
# Worker processes of the Python suite, which mostly waits; 0 is one process, which --pdb wants.
PYTEST_JOBS ?= 4
PYTEST_LIMIT ?= 2700
# Images of containers set it. Then each worker rewrites the asserts of every file, and each of the
# many interpreters that tests start compiles the package, in every run anew.
unexport PYTHONDONTWRITEBYTECODE

Q   := $(if $(filter 1,$(V)),,@)
say  = @printf '  %-6s %s\n' '$(1)' '$(2)'
PY  := $(VENV)/bin/python
# The tools need no package, so any Python 3 runs them before there is a .venv.
TOOLPY := $(if $(wildcard $(PY)),$(PY),python3)

# ---- flags per flavour

X86 := $(filter x86_64 i386 i686,$(shell uname -m))
HS_LTO := $(if $(findstring gcc version,$(shell $(CC) -v 2>&1)),$(HS_LTO_GCC))
SAN_asan := -fsanitize=address,undefined -fno-sanitize-recover=all
SAN_tsan := -fsanitize=thread
SAN_fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all

CC_fuzz := $(CLANG)
OPT_release := $(HS_OPT_RELEASE) $(HS_LTO) $(HS_HARDEN) $(if $(X86),$(HS_HARDEN_X86))
OPT_bare    := $(OPT_release) -DHS_WITHOUT_FAULTS
OPT_debug   := $(HS_OPT_DEBUG)
OPT_asan    := $(HS_OPT_DEBUG) $(SAN_asan)
OPT_tsan    := $(HS_OPT_DEBUG) $(SAN_tsan)
OPT_cov     := $(HS_OPT_COVERAGE)
OPT_fuzz    := $(HS_OPT_DEBUG) $(SAN_fuzz)
LD_release := $(HS_LTO)
LD_bare := $(HS_LTO)
LD_asan := $(SAN_asan)
LD_tsan := $(SAN_tsan)
LD_cov  := --coverage
LD_fuzz := -fsanitize=fuzzer,address,undefined
# The objects hold both forms of their code. The linker's --wrap does not see calls that link-time
# optimisation makes, and optimising each of some sixty programs anew takes an hour.
TEST_LD_release := -fno-lto

CORE_CFLAGS := $(HS_STD) $(HS_INCLUDE) $(HS_WARN) $(HS_WARN_CORE) $(WERROR)
BIND_CFLAGS := $(HS_STD) $(HS_INCLUDE) $(HS_WARN) $(WERROR)
# Tests juggle small integers on purpose, and libcheck's macros are not pedantic.
TEST_CFLAGS := $(HS_STD) $(HS_INCLUDE) -Itests/c $(filter-out -Wconversion,$(HS_WARN)) $(WERROR)

# ---- sources

VERSION  := $(shell sed -n 's/^.define HS_VERSION "\(.*\)"/\1/p' csrc/include/hardsock.h 2>/dev/null)
ABI      := $(shell sed -n "s/^.define HS_ABI //p" csrc/include/hardsock.h 2>/dev/null)
SONAME   := libhardsock.so.$(ABI)
CORE_SRC := $(sort $(foreach d,base cancel stream connect listen pool watch,$(wildcard csrc/$(d)/*.c)))
BIND_SRC := $(sort $(wildcard csrc/binding/*.c csrc/binding/*/*.c))
TEST_SRC := $(sort $(wildcard tests/c/test_*.c))
TEST_AUX := $(filter-out $(TEST_SRC),$(wildcard tests/c/*.c))
TORT_SRC := $(sort $(wildcard tests/torture/test_*.c tests/torture/torture_*.c))
TORT_AUX := $(filter-out $(TORT_SRC),$(wildcard tests/torture/*.c))
SIM_SRC  := $(sort $(wildcard tests/simulation/*.c))
LAB_NAMES := $(notdir $(wildcard lab/*))
LAB := $(patsubst %,python/hardsock/lab/hardsock-%,$(LAB_NAMES))
# Those of the tool are its own Makefile's.
FUZZ_TUNE := $(patsubst %,tests/fuzz/fuzz_%.c,profile sysctl_conf history waivers saved foreign)
FUZZ_SRC := $(filter-out $(FUZZ_TUNE),$(sort $(wildcard tests/fuzz/fuzz_*.c)))
C_FILES   = $(wildcard csrc/*/*.[ch] csrc/binding/*/*.[ch] lab/*/*.[ch] tests/c/*.[ch] tests/torture/*.[ch] tests/simulation/*.[ch] tests/fuzz/*.[ch] tuning/src/*.[ch])
PY_FILES  = $(wildcard setup.py python tests tools bench examples packaging)

# ---- what depends on the interpreter: written once by the venv's own Python

PY_GOALS := build test test-py test-nightly test-timing asan-py tsan-py coverage lint stubs tidy bench board compare demo docs check-adapters check-suites check-docs nightly-docs soak package-%
ifneq ($(filter $(PY_GOALS),$(or $(MAKECMDGOALS),build)),)
include build/python.mk
endif

build/python.mk: pyproject.toml bootstrap
	$(Q)./bootstrap venv
	$(Q)mkdir -p build
	$(Q)$(PY) -c 'import sys, sysconfig as s; print("PY_INC :=", s.get_path("include")); print("PY_SO := _core" + s.get_config_var("EXT_SUFFIX")); print("PY_ABI :=", s.get_config_var("SOABI"))' > $@.$$$$ && mv -f $@.$$$$ $@

# ---- rules for one flavour: $(call flavour,NAME)

# An object comes into place whole, in one step: two makes of one checkout may want the same one.
# gcov takes the names of its files from the output's, so there the compiler writes in place.
compile = $(if $(filter cov,$(1)),$(2) -MMD -MP -c -o $@ $<,\
  t=$(@:.o=).$$$$; $(2) -MMD -MP -MT $@ -MF $$t.d -c -o $$t.o $< && mv -f $$t.d $(@:.o=.d) && mv -f $$t.o $@ || { rm -f $$t.[od]; exit 1; })

# In a recipe: the linker's arguments for what these files wrap.
wrapped = $$(grep -ohE '\b__wrap_[A-Za-z0-9_]+' $(1) | sort -u | sed 's/^__wrap_/-Wl,--wrap=/')

define flavour
CC_$(1) ?= $$(CC)

build/$(1)/core/%.o: csrc/%.c Makefile tools/flags.mk
	$$(call say,CC,$$< [$(1)])
	$(Q)mkdir -p $$(@D)
	$(Q)$$(call compile,$(1),$$(CC_$(1)) $$(CORE_CFLAGS) $$(OPT_$(1)) $$(CFLAGS))

build/$(1)/tests/%.o: tests/%.c Makefile tools/flags.mk
	$$(call say,CC,$$< [$(1)])
	$(Q)mkdir -p $$(@D)
	$(Q)$$(call compile,$(1),$$(CC_$(1)) $$(TEST_CFLAGS) $$(OPT_$(1)) $$(CFLAGS) $$(shell pkg-config --cflags check 2>/dev/null))

OBJ_$(1) := $(patsubst csrc/%.c,build/$(1)/core/%.o,$(CORE_SRC))
build/$(1)/libhardsock.a: $$(OBJ_$(1))
	$$(call say,AR,$$@)
	$(Q)$$(AR) rcs $$@.$$$$$$$$ $$^ && mv -f $$@.$$$$$$$$ $$@

# Each program wraps just what it, or the shared part beside it, defines as __wrap_NAME: so also what
# comes from an archive, as on musl, is not defined twice.
TESTS_$(1) := $(patsubst %.c,build/$(1)/%,$(TEST_SRC))
$$(TESTS_$(1)): build/$(1)/%: build/$(1)/%.o $(patsubst %.c,build/$(1)/%.o,$(TEST_AUX)) build/$(1)/libhardsock.a
	$$(call say,LINK,$$@)
	$(Q)$$(CC_$(1)) $$(or $$(TEST_LD_$(1)),$$(LD_$(1))) $$(LDFLAGS) $$(call wrapped,$$*.c) -o $$@.$$$$$$$$ $$^ $$(shell pkg-config --libs check) $$(HS_LIBS) -lm && mv -f $$@.$$$$$$$$ $$@

TORT_$(1) := $(patsubst %.c,build/$(1)/%,$(TORT_SRC))
$$(TORT_$(1)): build/$(1)/%: build/$(1)/%.o $(patsubst %.c,build/$(1)/%.o,$(TORT_AUX) $(TEST_AUX)) build/$(1)/libhardsock.a
	$$(call say,LINK,$$@)
	$(Q)$$(CC_$(1)) $$(or $$(TEST_LD_$(1)),$$(LD_$(1))) $$(LDFLAGS) $$(call wrapped,$$*.c $(TORT_AUX)) -o $$@.$$$$$$$$ $$^ $$(shell pkg-config --libs check) $$(HS_LIBS) && mv -f $$@.$$$$$$$$ $$@

# The same for the simulator, which stands for all of the kernel.
SIMULATE_$(1) := build/$(1)/tests/simulation/simulate
$$(SIMULATE_$(1)): $(patsubst %.c,build/$(1)/%.o,$(SIM_SRC)) build/$(1)/libhardsock.a
	$$(call say,LINK,$$@)
	$(Q)$$(CC_$(1)) $$(LD_$(1)) $$(LDFLAGS) $$$$(grep -ohE '\b__wrap_[a-z0-9_]+' $(SIM_SRC) | sort -u | sed 's/^__wrap_/-Wl,--wrap=/') -o $$@.$$$$$$$$ $$^ $$(HS_LIBS) && mv -f $$@.$$$$$$$$ $$@

build/$(1)/$$(PY_ABI)/%.o: csrc/%.c Makefile tools/flags.mk build/python.mk
	$$(call say,CC,$$< [$(1)])
	$(Q)mkdir -p $$(@D)
	$(Q)$$(call compile,$(1),$$(CC_$(1)) $$(BIND_CFLAGS) -isystem $$(PY_INC) $$(OPT_$(1)) $$(CFLAGS))

# The archive's members are linked one by one: the module must hold all of them.
build/$(1)/$$(PY_ABI)/hardsock/$$(PY_SO): $(patsubst csrc/%.c,build/$(1)/$$(PY_ABI)/%.o,$(BIND_SRC)) $$(OBJ_$(1))
	$$(call say,LINK,$$@)
	$(Q)mkdir -p $$(@D)
	$(Q)$$(CC_$(1)) -shared $$(HS_LDFLAGS) $$(LD_$(1)) $$(LDFLAGS) -o $$@.$$$$$$$$ $$^ $$(HS_LIBS) && mv -f $$@.$$$$$$$$ $$@

# A package directory for PYTHONPATH: the real Python files beside the instrumented module.
.PHONY: package-$(1)
package-$(1): build/$(1)/$$(PY_ABI)/hardsock/$$(PY_SO)
	$(Q)find build/$(1)/$$(PY_ABI)/hardsock -xtype l -delete
	$(Q)for f in python/hardsock/*; do case $$$$f in *.so|*/__pycache__) ;; *) ln -sfn "$$(CURDIR)/$$$$f" build/$(1)/$$(PY_ABI)/hardsock/;; esac; done

-include $$(wildcard build/$(1)/core/*/*.d build/$(1)/tests/*/*.d build/$(1)/cpython-*/binding/*.d build/$(1)/cpython-*/binding/*/*.d)
endef

$(foreach f,release bare debug asan tsan cov fuzz,$(eval $(call flavour,$(f))))

# ---- build

.PHONY: help build lib
help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r t d; do printf '  %-14s %s\n' "$$t" "$$d"; done

build: lib tune python/hardsock/$(PY_SO) $(LAB) ## core libraries, and the extension in place for .venv

python/hardsock/$(PY_SO): build/release/$(PY_ABI)/hardsock/$(PY_SO)
	$(Q)cp $< $@.$$$$ && mv -f $@.$$$$ $@

# The lab's programs stand beside the Python that runs them: lab/NAME becomes hardsock-NAME.
define lab-program
python/hardsock/lab/hardsock-$(1): $(sort $(wildcard lab/$(1)/*.c)) $(wildcard lab/$(1)/*.h) Makefile tools/flags.mk
	$$(call say,LINK,$$@)
	$(Q)$$(CC) $$(HS_STD) $$(HS_WARN) $$(HS_WARN_CORE) $$(WERROR) $$(HS_OPT_RELEASE) $$(HS_HARDEN) $$(CFLAGS) -o $$@.$$$$$$$$ $$(filter %.c,$$^) $$(LDFLAGS) -lm && mv -f $$@.$$$$$$$$ $$@
endef
$(foreach n,$(LAB_NAMES),$(eval $(call lab-program,$(n))))

.PHONY: tune
tune: ## hardsock-tune, also into .venv
	$(Q)$(MAKE) -C tuning WERROR='$(WERROR)'
	$(Q)test ! -d $(VENV)/bin || install -m 755 build/tune/release/hardsock-tune $(VENV)/bin/

lib: build/release/libhardsock.a build/release/libhardsock.so build/release/hardsock.pc ## libhardsock.a, libhardsock.so and hardsock.pc

build/release/$(SONAME): $(OBJ_release)
	$(call say,LINK,$@)
	$(Q)$(CC) -shared -Wl,-soname,$(SONAME) $(HS_LTO) $(HS_LDFLAGS) $(LDFLAGS) -o $@.$$$$ $^ $(HS_LIBS) && mv -f $@.$$$$ $@

build/release/libhardsock.so: build/release/$(SONAME)
	$(Q)ln -s $(SONAME) $@.$$$$ && mv -f $@.$$$$ $@

# Written each time: PREFIX may differ from the last one.
.PHONY: build/release/hardsock.pc
build/release/hardsock.pc: csrc/hardsock.pc.in
	$(Q)mkdir -p $(@D)
	$(Q)sed -e 's,@PREFIX@,$(PREFIX),' -e 's,@LIBDIR@,$(LIBDIR),' -e 's,@INCLUDEDIR@,$(INCLUDEDIR),' -e 's,@VERSION@,$(VERSION),' $< > $@

# ---- tests

export CK_DEFAULT_TIMEOUT ?= 20
run-c = $(TOOLPY) tools/run_ctests.py --jobs $(JOBS)
pytest = timeout -s INT -k 30 $(PYTEST_LIMIT) $(PY) -m pytest $(PYTEST_ARGS)
pytest-jobs = -n $(PYTEST_JOBS) --dist worksteal
SAN_ENV_asan := ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 CK_TIMEOUT_MULTIPLIER=3
# A child that is forked between pthread_create() and pthread_detach() has a thread that nobody joins.
SAN_ENV_tsan := TSAN_OPTIONS=suppressions=$(CURDIR)/tools/tsan.supp:second_deadlock_stack=1:die_after_fork=0:report_thread_leaks=0 CK_TIMEOUT_MULTIPLIER=5
# libtsan of older compilers cannot place its shadow under much address randomisation.
SAN_RUN_tsan := setarch $(shell uname -m) -R

.PHONY: test test-c test-py torture asan ubsan tsan asan-py tsan-py valgrind fuzz coverage need-check need-dev
need-check:
	@pkg-config --exists check || { echo "The C tests need libcheck: apt install check (or ./bootstrap test)." >&2; exit 1; }
need-dev:
	@./bootstrap venv test

test: ## C tests, then Python tests
	$(Q)$(MAKE) test-c
	$(Q)$(MAKE) test-py

# _FORTIFY_SOURCE hides calls from the linker's --wrap, and here none may be missed.
SIMULATED := $(if $(filter release,$(FLAVOUR)),,$(SIMULATE_$(FLAVOUR)))

test-c: need-check $(TESTS_$(FLAVOUR)) $(SIMULATED) ## C tests, each program by itself
	$(Q)$(SAN_ENV_$(FLAVOUR)) $(SAN_RUN_$(FLAVOUR)) $(run-c) $(TESTS_$(FLAVOUR)) $(SIMULATED)

test-py: need-dev build ## Python tests (PYTEST_ARGS adds arguments)
	$(Q)$(pytest) $(pytest-jobs)

torture: need-check $(TORT_$(FLAVOUR)) ## C tests that make every system call fail in turn
	$(Q)$(SAN_ENV_$(FLAVOUR)) $(SAN_RUN_$(FLAVOUR)) $(run-c) --limit 600 $(TORT_$(FLAVOUR))

# With SEED its log is build/simulate/SEED.log; else FROM is the first seed (by default the time).
.PHONY: simulate check-simulate nightly-simulate nightly-mutations
simulate: $(SIMULATE_$(FLAVOUR)) ## the C core in a simulated network for SECONDS (60); SEED=N runs one again
	$(Q)mkdir -p build/simulate
	$(Q)$(SAN_ENV_$(FLAVOUR)) $(SAN_RUN_$(FLAVOUR)) $(SIMULATE_$(FLAVOUR)) $(if $(SEED),--seed $(SEED) build/simulate/$(SEED).log,--seconds $(or $(SECONDS),60) $(FROM))

check-simulate: $(SIMULATE_debug) build/debug/tests/c/test_pool_model ## break the core one way at a time, and see that a seed finds each (MUTATIONS)
	$(Q)$(TOOLPY) tests/simulation/mutations.py $(MUTATIONS)

nightly-simulate:
	$(Q)$(MAKE) simulate SECONDS=600

nightly-mutations: check-simulate

asan: ## C tests under the address, leak and undefined behaviour sanitizers
	$(Q)$(MAKE) test-c FLAVOUR=asan
	$(Q)$(MAKE) -C tuning asan

ubsan: asan ## same as asan: one flavour holds both

tsan: ## C tests under the thread sanitizer
	$(Q)$(MAKE) test-c FLAVOUR=tsan

# .venv/bin/python is a link to the real interpreter (bootstrap sees to that): preloading into a
# shell wrapper would instrument the shell. Leaks of the interpreter itself are not ours to find.
# The interpreter is no C++ program: without its library from the start the sanitizer does not find
# how exceptions are thrown, and aborts where a module (matplotlib's) throws one.
# What cannot hold below a sanitizer is left out: tests/support/sanitizers.py.
py-flavour = PYTHONPATH=$(CURDIR)/build/$(1)/$(PY_ABI) PYTHONMALLOC=malloc LD_PRELOAD=$$($(CC) -print-file-name=$(2).so):$$($(CC) -print-file-name=libstdc++.so.6)

# Those of the tool are left out: it is a program of its own, with sanitizers of its own (make -C tuning asan).
# By a pattern: what pyproject.toml names as a place of tests is not ignored by its name.
san-pytest = $(pytest) $(pytest-jobs) --ignore-glob='tests/tuning/*'

asan-py: need-dev package-asan ## Python tests with an ASan and UBSan extension
	$(Q)ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 $(call py-flavour,asan,libasan) $(san-pytest)

# Reports go to files: pytest keeps what a test writes, and nobody asks how its workers end.
# Tests that crash on purpose crash by themselves.
tsan-py: need-dev package-tsan ## Python tests with a TSan extension
	$(Q)rm -rf build/tsan/reports && mkdir build/tsan/reports
	$(Q)TSAN_OPTIONS=suppressions=$(CURDIR)/tools/tsan.supp:die_after_fork=0:ignore_noninstrumented_modules=1:handle_segv=0:log_path=$(CURDIR)/build/tsan/reports/race $(call py-flavour,tsan,libtsan) $(SAN_RUN_tsan) $(san-pytest); state=$$?; ! cat build/tsan/reports/* 2>/dev/null && exit $$state

# Leaks are found by the address sanitizer's run. A child that a test forks leaves all of its parent's.
# One thread runs at a time; unless in turn, one that looks again and again keeps out all others.
valgrind: need-check $(TESTS_debug) ## C tests under valgrind's memcheck
	$(Q)CK_TIMEOUT_MULTIPLIER=10 $(run-c) --limit 900 --wrap 'valgrind -q --fair-sched=try --error-exitcode=99 --leak-check=no' $(TESTS_debug)
	$(Q)$(MAKE) -C tuning valgrind

FUZZ_BIN := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(FUZZ_SRC))
$(FUZZ_BIN): build/fuzz/%: tests/fuzz/%.c build/fuzz/libhardsock.a Makefile
	$(call say,LINK,$@)
	$(Q)$(CLANG) $(TEST_CFLAGS) $(HS_OPT_DEBUG) $(LD_fuzz) -fno-sanitize-recover=all -MMD -MP -MT $@ -MF $@.d -o $@.$$$$ $< build/fuzz/libhardsock.a $(HS_LIBS) -lm && mv -f $@.$$$$ $@
-include $(FUZZ_BIN:=.d)

fuzz: $(FUZZ_BIN) ## each fuzzer for FUZZ_SECONDS (30), from its committed corpus
	@test -n '$(FUZZ_BIN)' || { echo 'There is no tests/fuzz/fuzz_*.c yet.' >&2; exit 1; }
	$(Q)for f in $(FUZZ_BIN); do n=$${f##*/fuzz_}; mkdir -p build/fuzz/found/$$n; \
	  seeds=; test ! -d tests/fuzz/corpus/$$n || seeds=tests/fuzz/corpus/$$n; \
	  printf '  FUZZ   %s, %s s\n' $$n $(FUZZ_SECONDS); \
	  $$f -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=5 -artifact_prefix=build/fuzz/$$n- -verbosity=0 -print_final_stats=1 build/fuzz/found/$$n $$seeds || exit 1; done
	$(Q)$(MAKE) -C tuning fuzz FUZZ_SECONDS=$(FUZZ_SECONDS)

coverage: need-dev need-check $(TESTS_cov) package-cov ## line coverage of csrc by C and Python tests, per file
	$(Q)find build/cov -name '*.gcda' -delete
	$(Q)$(run-c) $(TESTS_cov)
	$(Q)PYTHONPATH=$(CURDIR)/build/cov/$(PY_ABI) $(pytest)
	$(Q)mkdir -p build/cov/html
	$(Q)$(VENV)/bin/gcovr --root . --filter csrc/ --object-directory build/cov --gcov-ignore-parse-errors=negative_hits.warn_once_per_file --print-summary --html-details build/cov/html/index.html --txt - build/cov
	$(call say,HTML,build/cov/html/index.html)

# ---- checks

.PHONY: lint format format-check tidy stubs check-install check-kernels
lint: need-dev build ## every static check; a missing tool is skipped, or fails when CI=true
	$(Q)PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) tools/lint.py

format: need-dev ## rewrite C and Python sources in the house layout
	$(Q)clang-format -i $(C_FILES)
	$(Q)$(VENV)/bin/ruff format $(PY_FILES)
	$(Q)$(VENV)/bin/ruff check --fix-only --select I $(PY_FILES)

format-check: need-dev ## fail if `make format` would change something
	$(Q)PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) tools/lint.py clang-format ruff-format

tidy: build ## clang-tidy over csrc
	$(Q)printf '%s\n' $(CORE_SRC) | xargs -P $(JOBS) -I{} clang-tidy --quiet {} -- $(HS_STD) $(HS_INCLUDE)
	$(Q)printf '%s\n' lab/*/*.c tuning/src/*.c | xargs -P $(JOBS) -I{} clang-tidy --quiet {} -- $(HS_STD)
	$(Q)printf '%s\n' $(BIND_SRC) | xargs -P $(JOBS) -I{} clang-tidy --quiet {} -- $(HS_STD) $(HS_INCLUDE) -isystem $(PY_INC)

stubs: need-dev build ## stubs against the built module, both ways
	$(Q)PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) tools/lint.py check_stub stubtest

check-kernels: ## kernels 5.10 to the newest, or KERNELS, in virtual machines: what they say, apply, revert
	$(Q)$(TOOLPY) tests/kernels/boot.py $(KERNELS)

check-musl: ## the core, its C tests and hardsock-tune with musl-gcc, and an OpenSSL of their own
	$(Q)PYTHON=$(TOOLPY) JOBS=$(JOBS) sh packaging/elsewhere.sh musl

.PHONY: check-musl nightly-kernels nightly-musl
nightly-kernels: check-kernels
nightly-musl: check-musl

check-install: ## pip install into a clean venv of every CPython 3.10 to 3.14 found
	$(Q)$(TOOLPY) tools/check_install.py

# ---- other platforms, and the night

.PHONY: check-distros check-freethreaded check-adapters check-suites nightly test-nightly test-timing
check-distros: ## build and test in trees of other Debian releases (SUITES), made in a cache; root
	$(Q)$(TOOLPY) tools/distro.py check $(SUITES)

check-freethreaded: need-dev ## the suite and a storm on CPython without its global lock, built in a cache
	$(Q)$(PY) tools/freethreaded.py check

check-adapters: need-dev build ## adapters with the oldest and newest version of each library (ADAPTERS)
	$(Q)$(PY) tools/check_adapters.py $(ADAPTERS)

check-suites: need-dev build ## libraries' own suites over their adapters, and what differs (SUITES_OF)
	$(Q)$(PY) tools/suites.py $(SUITES_OF)

.PHONY: soak
soak: need-dev build ## everything at once for MINUTES (60), and what grows in it; build/soak
	$(Q)PYTHONPATH=$(CURDIR):$(CURDIR)/tools $(PY) -m tools.soak --minutes $(or $(MINUTES),60) $(SOAK_ARGS)

# pytest says 5 where it finds no test.
test-nightly: need-dev build ## Python tests that are too slow for each commit, and do not measure time
	$(Q)$(pytest) $(pytest-jobs) -m 'nightly and not timing' || { state=$$?; test $$state = 5 && echo 'No test is marked nightly.' || exit $$state; }

test-timing: need-dev build ## those that do, one after another: nothing else may run meanwhile
	$(Q)$(pytest) -m 'nightly and timing' || { state=$$?; test $$state = 5 && echo 'No test is marked so.' || exit $$state; }

nightly: need-dev ## all that is too slow for each commit (STAGES); logs in build/nightly
	$(Q)$(PY) tools/nightly.py $(STAGES)

# ---- use

.PHONY: bench compare demo dist docs wheel debian deb rpm rpms static install clean
bench: need-dev build ## measure beside the peers
	$(Q)$(PY) -m bench $(BENCH_ARGS)
ifeq ($(BENCH_ARGS),)
	$(Q)$(PY) -m bench.adapters
	$(Q)$(PY) -m bench.loops
	$(Q)$(PY) -m bench.scan
endif

.PHONY: board
board: need-dev ## docs/benchmarks.md and its pictures, from the last `make bench` (BOARD_JSON)
	$(Q)$(PY) -m bench.board $(BOARD_JSON)

compare: need-dev build ## the same hard cases on ssl and hardsock, and on sysctl tools and hardsock-tune
	$(Q)$(PY) tests/tls/compare.py
	$(Q)$(MAKE) -C tuning compare
	$(Q)$(MAKE) build && $(PY) tests/pool/compare.py

demo: build ## show what it does, in a minute
	$(Q)$(PY) -m hardsock demo $(DEMO_ARGS)

docs: need-dev build ## the documentation as a site, in build/site; a warning is an error
	$(Q)$(PY) -c 'import sphinx, furo, myst_parser' 2>/dev/null || $(PY) -m pip install -q $(DOCS_NEEDS)
	$(Q)$(PY) -m sphinx -q -W --keep-going -b html docs build/site
	$(Q)$(PY) tools/docs_site.py links
	$(Q)printf 'docs: build/site/index.html\n'

.PHONY: check-docs nightly-docs
check-docs: docs ## each page of the site in a browser: accessibility, width, search; pictures of all
	$(Q)$(PY) tools/docs_site.py look

nightly-docs: check-docs

dist: need-dev ## sdist and wheel in dist/
	$(Q)$(PY) -m build --no-isolation

wheel: need-dev ## a wheel by the release's steps, tried in bare trees of Debian releases (WHEEL_SUITES); root
	$(Q)rm -f build/wheels/*-manylinux*.whl # of sources that were others
	$(Q)$(PY) packaging/wheel.py build
	$(Q)$(PY) packaging/wheel.py check $(WHEEL_SUITES)

.PHONY: check-source
check-source: need-dev ## the source archive installed in bare trees (WHEEL_SUITES), with what its build asks for; root
	$(Q)$(PY) packaging/wheel.py source $(WHEEL_SUITES)

deb: ## hardsock-tune alone as a Debian package, in build/tune/packages
rpm: ## the same as an RPM
static: ## the same as one file that needs nothing of the machine (musl)
deb rpm static:
	$(Q)$(MAKE) -C tuning $@

.PHONY: wheel-musl
wheel-musl: need-dev ## the same with musl, tried in a root that holds musl and an interpreter alone; root
	$(Q)$(PY) packaging/musl.py

debian: ## Debian packages, built and tried in a tree of Debian sid; root
	$(Q)PYTHON=$(TOOLPY) sh packaging/debian.sh

rpms: need-dev ## RPM packages of it all by the spec, with stand-ins for Fedora's macros; root
	$(Q)PYTHON=$(PY) sh packaging/rpm.sh

.PHONY: check-workflow nightly-workflow
check-workflow: ## the release's workflow as actionlint sees it, which Go fetches
	$(Q)command -v go > /dev/null || { echo 'check-workflow: go is not installed; it fetches actionlint' >&2; exit 1; }
	$(Q)go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 -no-color .github/workflows/*.yml

nightly-workflow: check-workflow

.PHONY: conda
conda: need-dev ## a conda package by the recipe, by rattler-build, with stand-ins for conda's packages
	$(Q)$(PY) packaging/conda_trial.py

# Each builds and tries what a release has, and is a stage of the night.
.PHONY: nightly-wheel nightly-wheel-musl nightly-debian nightly-rpms nightly-conda nightly-source
nightly-wheel: wheel

nightly-source: check-source

nightly-wheel-musl: wheel-musl

nightly-debian: debian

nightly-rpms: rpms

nightly-conda: conda

install: lib tune ## libraries, header, pkg-config file and hardsock-tune under $(DESTDIR)$(PREFIX)
	$(Q)install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	$(Q)install -m 644 build/release/libhardsock.a $(DESTDIR)$(LIBDIR)/
	$(Q)install -m 755 build/release/$(SONAME) $(DESTDIR)$(LIBDIR)/
	$(Q)ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libhardsock.so
	$(Q)install -m 644 csrc/include/hardsock.h $(DESTDIR)$(INCLUDEDIR)/
	$(Q)install -m 644 build/release/hardsock.pc $(DESTDIR)$(LIBDIR)/pkgconfig/
	$(Q)$(MAKE) -C tuning install DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)'

clean: ## remove what was built, but not .venv
	$(Q)rm -rf build dist python/*.egg-info python/hardsock/_core*.so $(LAB) .pytest_cache .mypy_cache .ruff_cache
	$(Q)find python tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
