# make demo      see it work: two proxies in a chain; as root
# make test      install what the tests need and run them all; as root
# make race      some of them with the race detector; as root
# make fuzz      every fuzz target for FUZZTIME (60s), four at a time; as root
# make lint      formatting and static checks
# make generate  rebuild the kernel programs; CI compares the result
# make bench     what a hook, a redirect, a SET, a QUERY and a relay of UDP cost; as root
# make datagrams  what iperf3 loses of UDP at RATE (1G), straight and through one and two proxies; as root
# make load      200,000 connections through a chain of three, then with its proxies killed, and flows of UDP; as root
# make proxies   every payload, 1 GiB among them, through every chain of real proxies: the table of docs/proxies.md; as root
# make transparency  Go's own tests of net, net/http and crypto/tls, and CPython's of UDP, behind two proxies; as root
# make soak      a chain of three under load for SOAK (10m), while things are broken; as root
# make wine      the library as Windows' programs, under Wine with a stand-in for Winsock; as root
# make kernels   the data path on other kernels, under qemu; as root
# make build     the binary, in bin/
# make install   binary, unit, manual pages, completions; DESTDIR, PREFIX, RELEASE

CLANG_VERSION := 19
PACKAGES := clang-$(CLANG_VERSION) llvm-$(CLANG_VERSION) clang-format-$(CLANG_VERSION) \
	libbpf-dev linux-libc-dev libc6-dev gcc python3 liburing-dev iproute2 nftables
# The proxies that the tests of the presets run. Their services stay off.
PROXIES := mitmproxy redsocks haproxy squid nginx-light nginx-common libnginx-mod-stream
PACKAGES += curl bpftool bind9-dnsutils dnsmasq-base musl-tools strace iperf3 libpython3.11-testsuite $(PROXIES)
# Windows' programs are built and run with these.
PACKAGES += wine wine64 gcc-mingw-w64-x86-64-posix mingw-w64-x86-64-dev
TOOL := go tool -modfile=tools.mod

export BPF2GO_CC := clang-$(CLANG_VERSION)
export BPF2GO_STRIP := llvm-strip-$(CLANG_VERSION)
# Headers of the C library's architecture come last: no program depends on them but for asm/types.h.
export BPF2GO_CFLAGS := -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wpadded \
	-idirafter /usr/include/$(shell uname -m)-linux-gnu -fdebug-prefix-map=$(CURDIR)=.
export CGO_ENABLED := 0

.PHONY: install demo test race fuzz transparency datagrams lint generate kernels proxies bench load soak build build-all setup check-generated wine

demo: build
	@bin/waybill demo

test: setup
	go test -count=1 ./...

# The race detector needs cgo. The engine's tests are mostly other processes.
race: setup
	CGO_ENABLED=1 go test -race -count=1 . $(addprefix ./internal/,control daemon dns policy proxy supervise watch)
	CGO_ENABLED=1 go test -race -count=1 -run 'Apply|Events|Flows|Close|Reused|State' ./internal/engine

fuzz:
	.ci/fuzz $(FUZZTIME)

transparency: setup
	go test -count=1 -v -timeout 15m -tags transparency ./internal/transparency

RATE ?= 1G
datagrams: setup build
	bench/iperf $(RATE)

load: setup
	go test -count=1 -v -timeout 60m -run UnderLoad ./internal/engine -load 200000

proxies: setup
	go test -count=1 -v -timeout 60m ./internal/interop -full

SOAK ?= 10m
soak: setup
	go run ./bench/soak -duration $(SOAK)

kernels:
	.ci/kernels

wine: setup
	.ci/wine

bench: build
	go run ./bench

build:
	go build $(if $(RELEASE),-ldflags "-X main.release=$(RELEASE)") -o bin/waybill ./cmd/waybill

bin/waybill:
	$(MAKE) build

# For packages: make install DESTDIR=… PREFIX=/usr RELEASE=1.2.3
PREFIX ?= /usr
# What was built is installed as it is: under sudo there is often no go in PATH.
install: $(if $(RELEASE),build,bin/waybill)
	install -D -m 755 bin/waybill $(DESTDIR)$(PREFIX)/bin/waybill
	install -D -m 644 packaging/waybill.service $(DESTDIR)$(PREFIX)/lib/systemd/system/waybill.service
	install -D -m 644 packaging/waybill.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/waybill.conf
	[ -e $(DESTDIR)/etc/waybill/policy.yaml ] || install -D -m 644 packaging/policy.yaml $(DESTDIR)/etc/waybill/policy.yaml
	install -D -m 644 internal/policyfile/schema.json $(DESTDIR)$(PREFIX)/share/waybill/policy.schema.json
	install -d $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	bin/waybill man $(DESTDIR)$(PREFIX)/share/man/man8
	bin/waybill completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/waybill
	bin/waybill completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_waybill
	bin/waybill completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/waybill.fish

build-all:
	GOARCH=amd64 go build -o /dev/null ./cmd/waybill
	GOARCH=arm64 go build -o /dev/null ./cmd/waybill
	GOOS=windows GOARCH=amd64 go build -o /dev/null ./cmd/waybill
	GOOS=windows GOARCH=arm64 go build -o /dev/null ./cmd/waybill
	GOOS=windows GOARCH=amd64 go build -o /dev/null ./cmd/waybill-wfpcheck
	GOOS=windows GOARCH=arm64 go build -o /dev/null ./cmd/waybill-wfpcheck

# Installs only what is missing: with everything there it needs no network.
setup:
	@missing=; for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q ' installed$$' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then .ci/install $$missing; fi

lint:
	@out=$$($(TOOL) gofumpt -l .); if [ -n "$$out" ]; then echo "not formatted (run gofumpt):" $$out; exit 1; fi
	clang-format-$(CLANG_VERSION) --dry-run -Werror bpf/*.[ch] include/*.h examples/c/*.c internal/*/testdata/*.c testdata/ws2_32/*.[ch]
	go vet ./...
	GOOS=windows go vet ./...
	GOOS=windows GOARCH=arm64 go vet ./...
	GOARCH=arm64 go vet ./...
	go vet -tags kernels ./internal/engine
	go vet -tags transparency ./internal/transparency
	@# A program of its own, because GOOS would apply to "go tool" as well.
	go build -modfile=tools.mod -o bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck ./...
	bin/staticcheck -tags transparency ./internal/transparency
	GOOS=windows bin/staticcheck ./...
	go mod tidy -diff

generate:
	go generate ./internal/engine

check-generated: generate
	@git diff --exit-code -- internal/engine || { echo "generated files differ: run make generate and commit"; exit 1; }
