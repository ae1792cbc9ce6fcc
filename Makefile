# SPDX-License-Identifier: MIT
# A thin front: meson builds, tools/ do the rest. CHELA_BUILD picks another build directory.
CHELA_BUILD ?= build
MESON_FLAGS ?=
export CHELA_BUILD

.PHONY: build run test nightly asan lint format bench soak fuzz install deps clean

build: $(CHELA_BUILD)/build.ninja
	@ninja -C $(CHELA_BUILD) --quiet

$(CHELA_BUILD)/build.ninja:
	@tools/deps build
	meson setup $(CHELA_BUILD) $(MESON_FLAGS)

# Build the programs and show the main job on real agents, then keep serving: make run ARGS=--once ends after the tour.
run: $(CHELA_BUILD)/build.ninja
	@echo "building the programs into $(CHELA_BUILD)/bin"
	@ninja -C $(CHELA_BUILD) --quiet programs
	@tools/run $(ARGS)

test:
	@tools/deps test $(ARGS)
	@tools/run_tests.py $(ARGS)

# The long forms of the suites.
nightly:
	@tools/deps test $(ARGS)
	@tools/run_tests.py --nightly $(ARGS)

# Every suite of make test, on a build with AddressSanitizer and UBSan.
asan:
	@tools/deps test $(ARGS)
	@tools/run_tests.py --asan $(ARGS)

lint:
	@tools/deps test lint
	@tools/lint

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

bench: build
	@tools/deps bench
	@tools/bench $(ARGS)

soak: build
	@tools/deps bench
	@tools/bench --soak $(ARGS)

# FUZZ_SECONDS each; crashes are left in build-fuzz/crashes.
fuzz:
	@tools/deps test fuzz
	@tools/fuzz $(FUZZ_SECONDS)

install: $(CHELA_BUILD)/build.ninja
	@ninja -C $(CHELA_BUILD) --quiet installed
	meson install -C $(CHELA_BUILD) --no-rebuild
	@[ "$$DESTDIR" ] || [ "$$(id -u)" != 0 ] || /sbin/ldconfig

deps:
	@tools/deps all

clean:
	rm -rf build build-*
