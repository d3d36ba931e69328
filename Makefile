# Weir. `make help` lists every target.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Debian's interpreter: Flask and the others of the example are its packages.
PYTHON ?= /usr/bin/python3
BUILD ?= build
CI_FUZZ_SECONDS ?= 30
export PORT HOST

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z][a-z0-9_%-]*:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- building ----

.PHONY: deps deps-test deps-bench deps-package deps-package-test
deps: ## install what building and running need (Debian packages)
	@tools/deps run
deps-test: ## install what the tests need too
	@tools/deps run test
deps-bench: ## install what the benches need too
	@tools/deps run test bench
deps-package: ## install what building packages needs
	@tools/deps run package
deps-package-test: ## install what the tests of packages need, and the others'
	@tools/deps run test package package-test

# Meson's setup, once per build folder and again when files came or went: $(call setup,folder,options,compiler)
setup = CC=$(or $(3),cc) tools/setup $(1) $(2)

.PHONY: build debug
build: ## build build/weir and the Python package beside it (optimised)
	@$(call setup,$(BUILD),)
	@ninja -C $(BUILD) --quiet server
debug: ## the same with ASan and UBSan, in build-asan
	@$(call setup,build-asan,--buildtype=debug -Doptimization=1 -Db_sanitize=address$(comma)undefined -Db_lundef=false)
	@ninja -C build-asan --quiet server
comma := ,

# ---- using it ----

.PHONY: run demo
run: deps build ## install, build, and serve the example on http://127.0.0.1:5000 (PORT=…, HOST=…)
	@exec examples/board/run
demo: deps build ## three slow requests at once, with threads and without
	@exec examples/board/demo

# ---- packages ----

.PHONY: wheel deb
wheel: deps-package ## dist/weir-….whl for this Python on this machine (no manylinux wheel)
	@tools/package wheel
deb: deps-package ## dist/weir_…_amd64.deb for this Debian
	@tools/package deb

# ---- testing ----

.PHONY: test unit e2e wire model test-packages test-asan test-tsan fuzz ci
test: deps-package-test build ## install, build, and run all tests
	@tools/run-tests all
unit: build ## unit tests; T=name for one
	@tools/run-tests unit $(T)
e2e: build ## end-to-end tests; K=expression to choose
	@tools/run-tests e2e $(if $(K),-k "$(K)")
test-packages: deps-package-test build ## wheel, Debian package, image, units, manifests; K=expression
	@tools/run-tests packages $(if $(K),-k "$(K)")
test-asan: deps-test debug ## unit and end-to-end tests under ASan and UBSan
	@tools/run-tests asan
test-tsan: deps-test ## the threaded parts under TSan
	@$(call setup,build-tsan,--buildtype=debug -Doptimization=1 -Db_sanitize=thread -Db_lundef=false,clang)
	@tools/run-tests tsan
fuzz: deps-test ## every fuzz target for SECONDS (60)
	@tools/run-tests fuzz $(or $(SECONDS_EACH),60)
fuzz-%: deps-test ## one fuzz target, e.g. make fuzz-h1_head SECONDS_EACH=60
	@tools/run-tests fuzz $(or $(SECONDS_EACH),60) $*
.PHONY: fault
fault: deps-test build ## break things long, and print the account (ONLY=name, about 25 minutes)
	@tests/fault/run $(ONLY)
ci: test test-asan test-tsan ## what .ci/run runs
	@tools/run-tests fuzz $(CI_FUZZ_SECONDS)

# ---- measuring ----

.PHONY: bench
bench: deps-bench build ## the tables of bench/results, and the picture (about 30 minutes; QUICK=1: 3)
	@bench/run $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))
	@$(if $(QUICK),,tools/readme-figures)

# ---- the desk ----

.PHONY: fmt lint layers docs compdb clean warnings
fmt: ## format the C files
	@git ls-files '*.c' '*.h' | xargs clang-format -i
lint: build ## clang-tidy and cppcheck
	@tools/lint
layers: ## check that includes point in one direction
	@tools/layers
warnings: deps-test ## build with gcc and clang, warnings are errors
	@for cc in gcc clang; do \
	  CC=$$cc tools/setup build-$$cc --werror && ninja -C build-$$cc --quiet || exit 1; done
docs: build ## generate docs/reference from the .def files
	@tools/reference
compdb: ## compile_commands.json for editors
	@$(call setup,$(BUILD),) && ln -sf $(BUILD)/compile_commands.json .
clean: ## remove everything that was built
	@rm -rf build build-* compile_commands.json
