# The commands of a developer's day; `make` lists them. What they need they build once into the user's cache folder.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: dev demo test test-quick bench fmt lint help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/scale-lnd
DENY_VERSION := 0.20.2
MACHETE_VERSION := 0.9.2

# CI's clones come and go while its machine may stay, so that their builds share one folder outside of them.
ifeq ($(CI),true)
ifeq ($(CARGO_TARGET_DIR),)
export CARGO_TARGET_DIR := $(CACHE)/target
export CARGO_INCREMENTAL := 0
bound_target := .ci/bound-target $(CARGO_TARGET_DIR)
endif
endif

# $(call with_nodes,VARIANT): sets and exports the folder of lnd and btcd; one that is set already is left alone.
with_nodes = SCALE_LND_NODE_BIN=$${SCALE_LND_NODE_BIN:-$$(deploy/nodes/ensure.sh $(1))}; export SCALE_LND_NODE_BIN

# Sets and exports the jar of the Firestore emulator; one that is set already is left alone. Where there is none, or no Java
# for it: a failure in CI; elsewhere its tests, which all have `firestore` in their names, are left out, and that is said.
with_emulator = SCALE_LND_FIRESTORE_EMULATOR=$${SCALE_LND_FIRESTORE_EMULATOR:-$$(deploy/emulator/ensure.sh)} || \
	{ [ "$${CI:-}" != true ] || exit 1; untested+=(firestore); }; export SCALE_LND_FIRESTORE_EMULATOR

# Sets and exports the Python that has moto, which plays EC2; one that is set already is left alone. Where it cannot be had: a
# failure in CI; elsewhere its tests, which all have `ec2` in their names, are left out, and that is said.
with_moto = MOTO_PYTHON=$${MOTO_PYTHON:-$$(deploy/moto/ensure.sh)} || \
	{ [ "$${CI:-}" != true ] || exit 1; untested+=(ec2); }; export MOTO_PYTHON

# CI keeps only a part of a long output: there, what has failed is not to drown in what has passed.
ifeq ($(CI),true)
terse := --quiet
endif

# Sets and exports the folder of what checks the scripts, units and rules that a new host boots from; one that is set already is
# left alone. Where it cannot be had: a failure in CI; elsewhere its tests, which all have `host_boot` in their names, are left
# out, and that is said.
with_host_checks = HOST_CHECKS=$${HOST_CHECKS:-$$(deploy/host/ensure.sh)} || \
	{ [ "$${CI:-}" != true ] || exit 1; untested+=(host_boot); }; export HOST_CHECKS

# The last resort against a test that hangs past its own deadline: a test binary, its compilation apart, has this long.
limited := --config 'target."cfg(all())".runner = ["timeout", "--foreground", "--kill-after=30", "45m"]'

dev: ## run the whole system on this machine, on simnet (ARGS="--fresh" and the like are passed on)
	@.ci/need cargo cc
	@$(call with_nodes,release); cargo build; exec cargo run --quiet -- dev $(ARGS)

demo: ## show the whole story: two users get lnds, one pays the other, closes, withdraws
	@.ci/need cargo cc
	@$(call with_nodes,release); cargo build; exec cargo run --quiet -- demo $(ARGS)

# Sets and exports the folder of the lnd that tests update from; one that is set already is left alone.
with_former_node = FORMER_NODE_BIN=$${FORMER_NODE_BIN:-$$(deploy/nodes/ensure.sh former)}; export FORMER_NODE_BIN

test: lint ## lint, then all tests, on real lnd and btcd, Google's Firestore emulator and moto's EC2
	@.ci/need cargo cc
	@untested=(); $(call with_nodes,lowscrypt); $(with_former_node); $(with_emulator); $(with_moto); $(with_host_checks); \
	cargo test $(limited) --features fault-points -- $(terse) "$${untested[@]/#/--skip=}"; \
	[ "$${#untested[@]}" = 0 ] || echo "NOT TESTED: $${untested[*]}, for want of what plays or checks it (the reasons are above)"; \
	why=$$(tests/host_boot/machine.sh able 2>&1) || echo "NOT TESTED: lnds as units of a machine's own systemd: $$why"

test-quick: ## unit tests and the integration tests named smoke, for the inner loop
	@.ci/need cargo cc
	@$(call with_nodes,lowscrypt); \
	cargo test --features fault-points --lib; \
	cargo test --features fault-points --test main smoke

bench: ## measure side by side with lnd's own REST and print the ratios
	@.ci/need cargo cc
	@untested=(); $(call with_nodes,release); $(with_emulator); $(with_moto); \
	cargo bench --bench side_by_side -- $(ARGS) $${untested:+--without-instances}; \
	[ "$${#untested[@]}" = 0 ] || echo "NOT MEASURED: creates on instances, for want of $${untested[*]} (the reasons are above)"

fmt: ## format the code
	@.ci/need cargo fmt
	@cargo fmt

lint: ## formatting, clippy, licences, advisories, unused dependencies, templates
	@.ci/need cargo cc fmt clippy git
	@$(bound_target)
	cargo fmt --check
	cargo clippy --locked --all-targets --features fault-points -- -D warnings
	cargo clippy --locked --lib --bins -- -D warnings
	@machete=$$(.ci/cargo-tool cargo-machete $(MACHETE_VERSION)); \
	echo "cargo machete"; "$$machete"
	@deny=$$(.ci/cargo-tool cargo-deny $(DENY_VERSION)); \
	echo "cargo deny check licenses bans sources"; \
	"$$deny" --locked check licenses bans sources; \
	.ci/advisories "$$deny"
	@$(with_moto); if [ -n "$$MOTO_PYTHON" ]; then \
		echo "cfn-lint deploy/cloudformation"; \
		"$$MOTO_PYTHON" "$$(dirname "$$MOTO_PYTHON")/cfn-lint" deploy/cloudformation/*.yaml; \
	else echo "NOT CHECKED: deploy/cloudformation, without cfn-lint (the reason is above)"; fi

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
